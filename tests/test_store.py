"""The store: what is written is read back, validates, and damage is never read as zeros."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from plateglass import store
from plateglass.errors import DamageError

CHANNELS = ["DNA", "GFP"]


def image(seed=0, shape=(2, 1, 300, 420), dtype=np.uint16):
    return np.random.default_rng(seed).poisson(200, shape).astype(dtype)


def labels(shape=(1, 300, 420)):
    found = np.zeros(shape, np.int32)
    found[:, 10:60, 20:80] = 1
    found[:, 100:180, 200:280] = 2
    return found


@pytest.fixture
def plate(tmp_path) -> Path:
    root = tmp_path / "plate.zarr"
    for well in ("B03", "C11"):
        for field in range(2):
            store.write_field(root, well, field, image(field), 0.5, CHANNELS)
        store.write_well(root, well, [3, 7])
        for field in range(2):
            store.write_labels(root, well, field, "nuclei", labels())
            store.write_labels(root, well, field, "cells", labels())
    store.write_plate(root, {"B03": 2, "C11": 2}, CHANNELS, "P1")
    return root


def edit(path: Path, change):
    document = json.loads(path.read_text())
    change(document["attributes"])
    path.write_text(json.dumps(document))


def test_round_trip(plate):
    assert np.array_equal(store.read_field(plate, "B03", 1), image(1))
    assert np.array_equal(store.read_field(plate, "B03", 1, channel=1), image(1)[1])
    assert np.array_equal(store.read_labels(plate, "C11", 0, "cells"), labels())
    assert store.read_labels(plate, "C11", 0, "cells").dtype == np.int32
    assert store.read_field(plate, "C11", 0).dtype == np.uint16
    assert len(store.sites(plate, "B03")) == 2
    assert store.sites(plate, "B03") == [3, 7]
    assert store.wells(plate) == ["B03", "C11"]
    assert store.pixel_size(plate, "B03") == (0.5, 1.0)


def test_levels_are_means_and_labels_nearest(tmp_path):
    pixels = image(shape=(1, 2, 301, 521), dtype=np.uint8)
    store.write_field(tmp_path, "A01", 0, pixels, 1.0, ["DNA"])
    store.write_well(tmp_path, "A01", [1])
    coarse = store.read_field(tmp_path, "A01", 0, level=1)
    assert coarse.shape == (1, 2, 151, 261)
    assert coarse[0, 1, 3, 5] == (int(pixels[0, 1, 6:8, 10:12].sum()) + 2) // 4
    assert coarse[0, 0, -1, 0] == (2 * int(pixels[0, 0, -1, 0:2].sum()) + 2) // 4
    assert store.read_field(tmp_path, "A01", 0, level=2).shape == (1, 2, 76, 131)
    with pytest.raises(DamageError):
        store.read_field(tmp_path, "A01", 0, level=3)
    mask = np.arange(2 * 301 * 521, dtype=np.int64).reshape(2, 301, 521)
    store.write_labels(tmp_path, "A01", 0, "cells", mask)
    assert np.array_equal(
        store.read_labels(tmp_path, "A01", 0, "cells", level=2), mask[:, ::4, ::4]
    )


def test_large_planes_are_tiled(tmp_path):
    pixels = np.arange(1300 * 1400, dtype=np.uint16).reshape(1, 1, 1300, 1400)
    store.write_field(tmp_path, "A01", 0, pixels, 1.0, ["DNA"])
    store.write_well(tmp_path, "A01", [1])
    store.write_plate(tmp_path, {"A01": 1}, ["DNA"], "P")
    assert np.array_equal(store.read_field(tmp_path, "A01", 0), pixels)
    array = json.loads((tmp_path / "A/1/0/0/zarr.json").read_text())
    assert array["codecs"][0]["configuration"]["chunk_shape"] == [1, 1, 434, 467]
    assert store.check(tmp_path) == []


def test_files_per_field(plate):
    """1 + 2 a level for the image; the same and one for the list of labels for each label."""
    found = store.sizes(plate, "B03")
    assert len(found) == 1 + 2 * (1 + 2 * 2)
    assert sum(path.startswith("B/3/0/") for path in found) == 5
    assert found["B/3/0/0/c/0/0/0/0"] == (plate / "B/3/0/0/c/0/0/0/0").stat().st_size
    assert found["B/3/0/zarr.json"] == 0
    assert len(store.sizes(plate, "B03", labels=True)) == 2 * (2 * 5 + 1)  # and the list of them
    assert "B/3/1/labels/cells/1/c/0/0/0" in store.sizes(plate, "B03", labels=True)
    assert len(store.files_of(plate, "B03", labels=True)) == 22
    assert store.sizes(plate, "D01") == {}


def test_sharded_codecs(plate):
    array = json.loads((plate / "B/3/0/0/zarr.json").read_text())
    assert array["chunk_grid"]["configuration"]["chunk_shape"] == [2, 1, 300, 420]
    codec = array["codecs"][0]
    assert codec["name"] == "sharding_indexed"
    assert codec["configuration"]["chunk_shape"] == [1, 1, 300, 420]
    assert codec["configuration"]["index_location"] == "end"
    blosc = codec["configuration"]["codecs"][1]["configuration"]
    assert (blosc["cname"], blosc["shuffle"], blosc["typesize"]) == ("zstd", "shuffle", 2)


def test_empty_chunks_are_written(tmp_path):
    store.write_field(tmp_path, "A01", 0, np.zeros((2, 1, 64, 64), np.uint8), 1.0, CHANNELS)
    store.write_well(tmp_path, "A01", [1])
    store.write_plate(tmp_path, {"A01": 1}, CHANNELS, "P")
    assert store.check(tmp_path) == []
    assert store.read_field(tmp_path, "A01", 0).max() == 0


@pytest.mark.parametrize("damage", ["shard", "truncated", "array", "field"])
def test_damage_is_an_error_not_zeros(plate, damage):
    shard = plate / "B/3/0/0/c/0/0/0/0"
    if damage == "shard":
        shard.unlink()
    elif damage == "truncated":
        os.truncate(shard, shard.stat().st_size // 2)
    elif damage == "array":
        (plate / "B/3/0/0/zarr.json").unlink()
    else:
        shutil.rmtree(plate / "B/3/0")
    with pytest.raises(DamageError, match="B/3/0"):
        store.read_field(plate, "B03", 0)


def test_missing_label_shard_is_an_error(plate):
    (plate / "B/3/0/labels/cells/0/c/0/0/0").unlink()
    with pytest.raises(DamageError, match="missing"):
        store.read_labels(plate, "B03", 0, "cells")


def test_rewritten_field_drops_labels_unless_told(plate):
    store.write_field(plate, "B03", 0, image(5), 0.5, CHANNELS, keep_labels=True)
    assert np.array_equal(store.read_labels(plate, "B03", 0, "cells"), labels())
    assert np.array_equal(store.read_field(plate, "B03", 0), image(5))
    store.write_field(plate, "B03", 0, image(6), 0.5, CHANNELS)
    with pytest.raises(DamageError):
        store.read_labels(plate, "B03", 0, "cells")
    store.write_well(plate, "B03", [3, 7])
    assert store.check(plate) == []


def test_a_well_is_not_whole_while_its_fields_change(plate):
    store.write_field(plate, "B03", 0, image(5), 0.5, CHANNELS)
    with pytest.raises(DamageError, match=r"B/3/zarr.json: is missing"):
        store.sites(plate, "B03")
    assert store.check(plate) == ["B/3: zarr.json is missing or torn"]


def test_fewer_fields_and_removed_wells(plate):
    store.write_well(plate, "B03", [7])
    assert not (plate / "B/3/1").exists()
    store.remove_well(plate, "C11")
    store.remove_well(plate, "C11")
    assert store.wells(plate) == ["B03"]
    assert (plate / "C").exists()  # another worker may be writing its first well there
    store.write_plate(plate, {"B03": 1}, CHANNELS, "P1")
    assert not (plate / "C").exists()
    assert store.check(plate) == []


def test_half_written_is_nobodys(plate, monkeypatch):
    """A writer that dies leaves the old field; the next one sweeps up."""
    from plateglass.store import arrays

    calls = []

    def dies(path, array, axes):
        calls.append(path)
        path.mkdir(parents=True)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(arrays, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            store.write_field(plate, "B03", 0, image(9), 0.5, CHANNELS)
    assert np.array_equal(store.read_field(plate, "B03", 0), image(0))
    assert len(store.sizes(plate, "B03")) == 11
    assert store.check(plate) == []
    store.write_well(plate, "B03", [3, 7])
    assert not list(plate.rglob(".new-*"))


def test_display_changes_no_size(plate):
    before = {path: path.stat().st_size for path in plate.rglob("*") if path.is_file()}
    display = {"DNA": (12, 3456, "ABCDEF"), "GFP": (1, 60000, "00E05A")}
    store.set_display(plate, ["B03"], display)
    assert store.display(plate, "B03", 1) == display
    assert store.plate_display(plate) is None  # the other well has its own
    store.write_plate(plate, {"B03": 2, "C11": 2}, CHANNELS, "P1", display)
    assert store.plate_display(plate) == display
    store.write_plate(plate, {"B03": 2, "C11": 2}, CHANNELS, "P1")
    ome = json.loads((plate / "B/3/1/zarr.json").read_text())["attributes"]["ome"]
    window = ome["omero"]["channels"][1]["window"]
    assert window == {"min": 0, "max": 65535, "start": 1, "end": 60000}
    assert before == {path: path.stat().st_size for path in plate.rglob("*") if path.is_file()}


def test_omero_has_colours_and_windows(plate):
    ome = json.loads((plate / "B/3/0/zarr.json").read_text())["attributes"]["ome"]
    first, second = ome["omero"]["channels"]
    assert (first["label"], first["active"], first["color"]) == ("DNA", True, "3E8EFF")
    assert second["color"] == "00E05A"
    assert 150 < first["window"]["start"] < 200 < first["window"]["end"] < 260


def test_content_is_kept_with_the_field(plate):
    assert store.content(plate, "B03", 0) == ""
    store.write_field(plate, "B03", 0, image(5), 0.5, CHANNELS, content="key")
    store.write_well(plate, "B03", [3, 7])
    store.set_display(plate, ["B03"], {name: (12, 3456, "ABCDEF") for name in CHANNELS})
    assert store.content(plate, "B03", 0) == "key"
    assert store.content(plate, "H12", 0) is None


def test_remove_labels(plate):
    store.remove_labels(plate, "B03", "cells")
    assert not [path for path in store.sizes(plate, "B03", labels=True) if "cells" in path]
    assert store.check(plate) == []
    store.remove_labels(plate, "B03", "nuclei")
    assert not (plate / "B/3/0/labels").exists()
    assert store.check(plate) == []


def test_rows_beyond_z(tmp_path):
    store.write_field(tmp_path, "AF48", 0, image(shape=(1, 1, 16, 16)), 1.0, ["DNA"])
    store.write_well(tmp_path, "AF48", [1])
    store.write_plate(tmp_path, {"AF48": 1}, ["DNA"], "P")
    plate = json.loads((tmp_path / "zarr.json").read_text())["attributes"]["ome"]["plate"]
    assert plate["wells"] == [{"path": "AF/48", "rowIndex": 31, "columnIndex": 47}]
    assert plate["rows"][31] == {"name": "AF"}
    assert store.check(tmp_path) == []
    assert store.wells(tmp_path) == ["AF48"]


def test_three_validators(plate):
    import ome_zarr_io
    import ome_zarr_models
    import yaozarrs

    command = [sys.executable, "-m", "ome_zarr_io", "validate", "--strict", str(plate)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ome_zarr_io.validate(str(plate), strict=True).is_valid
    yaozarrs.validate_zarr_store(str(plate))
    import zarr

    opened = ome_zarr_models.open_ome_zarr(zarr.open_group(plate, mode="r"))
    assert type(opened).__name__ == "HCS" and opened.ome_zarr_version == "0.5"
    for path in ("B/3", "B/3/0", "B/3/0/labels", "B/3/0/labels/cells"):
        ome_zarr_models.open_ome_zarr(zarr.open_group(plate / path, mode="r"))
    assert store.check(plate) == []


def outside(attributes):
    attributes["omero"] = attributes["ome"].pop("omero")


def unit(attributes):
    attributes["ome"]["multiscales"][0]["axes"][2]["unit"] = "um"


def field_count(attributes):
    attributes["ome"]["plate"]["field_count"] = 5


def translation_first(attributes):
    steps = attributes["ome"]["multiscales"][0]["datasets"][1]["coordinateTransformations"]
    steps.reverse()


def window(attributes):
    del attributes["ome"]["omero"]["channels"][0]["window"]["start"]


def version(attributes):
    del attributes["ome"]["version"]


def plate_version(attributes):
    del attributes["ome"]["plate"]["version"]


def index(attributes):
    attributes["ome"]["plate"]["wells"][0]["columnIndex"] = 5


def fewer_channels(attributes):
    del attributes["ome"]["omero"]["channels"][1]


def level_gone(attributes):
    del attributes["ome"]["multiscales"][0]["datasets"][1]


def name_signs(attributes):
    attributes["ome"]["plate"]["rows"][7]["name"] = "H-1"


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        ("zarr.json", field_count, "field_count is 5, the wells have 2"),
        ("zarr.json", plate_version, "ome.plate.version"),
        ("zarr.json", index, "B/3: its row or column index"),
        ("zarr.json", name_signs, "'H-1'"),
        ("B/3/0/zarr.json", outside, "B/3/0: omero stands outside ome"),
        ("B/3/0/zarr.json", unit, "B/3/0: the unit of y is not micrometer"),
        ("B/3/0/zarr.json", translation_first, "B/3/0/1: .* not a scale, then a translation"),
        ("B/3/0/zarr.json", window, "without active or window"),
        ("B/3/0/zarr.json", version, "B/3/0: ome.version"),
        ("B/3/0/zarr.json", fewer_channels, "omero names 1 channels"),
        ("B/3/0/labels/zarr.json", version, "B/3/0/labels: ome.version"),
        ("B/3/0/labels/cells/zarr.json", level_gone, "labels/cells: levels"),
    ],
)
def test_check_sees_documents(plate, path, change, words):
    edit(plate / path, change)
    problems = store.check(plate)
    assert any(re.search(words, problem) for problem in problems), problems


def label_of_other_size(plate):
    from plateglass.store import arrays

    shutil.rmtree(plate / "B/3/0/labels/cells/0")
    arrays.write(plate / "B/3/0/labels/cells/0", labels((1, 300, 419)), "zyx")


def label_of_floats(plate):
    from plateglass.store import arrays

    shutil.rmtree(plate / "B/3/0/labels/cells/0")
    arrays.write(plate / "B/3/0/labels/cells/0", labels().astype(np.float32), "zyx")


def chunks_unwritten(plate):
    import zarr

    shutil.rmtree(plate / "B/3/0/0")
    array = zarr.create_array(
        plate / "B/3/0/0",
        shape=(2, 1, 300, 420),
        chunks=(1, 1, 300, 420),
        shards=(2, 1, 300, 420),
        dtype="uint16",
    )
    array[0] = 5


def index_at_start(plate):
    import zarr
    from zarr.codecs import ShardingCodec

    shutil.rmtree(plate / "B/3/0/0")
    array = zarr.create_array(
        plate / "B/3/0/0",
        shape=(2, 1, 300, 420),
        chunks=(2, 1, 300, 420),
        dtype="uint16",
        compressors=None,
        filters=None,
        serializer=ShardingCodec(chunk_shape=(1, 1, 300, 420), index_location="start"),
    )
    array[...] = 5


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda plate: (plate / "B/zarr.json").unlink(), "B: the row has no zarr.json"),
        (lambda plate: (plate / "B/3/zarr.json").unlink(), "B/3: zarr.json is missing"),
        (lambda plate: (plate / "B/3/0/1/c/0/0/0/0").unlink(), "B/3/0/1: its shard is missing"),
        (lambda plate: os.truncate(plate / "B/3/0/1/c/0/0/0/0", 9), "B/3/0/1: its shard is trunc"),
        (chunks_unwritten, "B/3/0/0: 1 chunks are missing"),
        (index_at_start, "B/3/0/0: the shard's index is not at its end"),
        (label_of_other_size, "B/3/0/labels/cells: levels"),
        (label_of_floats, "B/3/0/labels/cells/0: a label of float32"),
        (lambda plate: shutil.rmtree(plate / "B/3/0/labels/cells"), "B/3/0/labels: names"),
        (lambda plate: shutil.copytree(plate / "B/3", plate / "B/4"), "B04: on the disk, but not"),
    ],
)
def test_check_sees_pixels(plate, damage, words):
    damage(plate)
    problems = store.check(plate)
    assert any(words in problem for problem in problems), problems


def test_import_is_cheap():
    """The planner looks at sizes: no numpy, no zarr before the first read or write."""
    code = "import sys, plateglass.store; print([m for m in ('numpy', 'zarr') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_what_a_killed_process_left_goes_with_the_next_write(plate):
    for left in (plate / "B/3/.new-0-99", plate / "B/3/0/labels/.gone-cells-99"):
        left.mkdir()
    store.write_field(plate, "B03", 0, image(5), 0.5, CHANNELS, keep_labels=True)
    store.write_labels(plate, "B03", 0, "cells", labels())
    assert not [path.name for path in plate.rglob(".*")]
