"""Something of the results is lost or damaged: it comes back, and no more than it runs."""

import os
import shutil

import pytest
from changes import WELL_STAGES, set_section, wells

from plateglass import jobs
from plateglass.errors import DamageError, DataError
from plateglass.stages import SCREEN
from screen import assert_same


def shard(screen, well, labels=""):
    """A file of pixels of the well's first field, of its image or its labels."""
    array = screen.results / "P2/plate.zarr" / well[0] / str(int(well[1:])) / "0" / labels / "0"
    return next(p for p in array.rglob("c/**/*") if p.is_file())


LOST = {
    "a part of features": (
        ".plateglass/parts/P2/features/A03.arrow",
        [("P2", "features", "A03")],
    ),
    "a part of segment": (".plateglass/parts/P2/segment/A03.arrow", [("P2", "segment", "A03")]),
    "a table": ("P2/cells.parquet", []),
    "a report": ("screen/report.html", []),
    "the model": ("screen/model/model.json", [("screen", "train", "")]),
    "the network": ("screen/model/model.safetensors", [("screen", "train", "")]),
    "a plate's store": ("P2/plate.zarr", "ingest segment"),
    "a plate's maps": ("P2/attribution.zarr", "attribute"),
    "a well of a store": ("P2/plate.zarr/B/2", [("P2", "ingest", "B02"), ("P2", "segment", "B02")]),
}


@pytest.mark.parametrize(
    "lost",
    [
        pytest.param(name, marks=() if name.startswith("a part") else pytest.mark.long)
        for name in LOST
    ],
)
def test_what_was_lost_comes_back(screen, finished, lost):
    path, wanted = LOST[lost]
    if isinstance(wanted, str):
        wanted = wells(screen, ["P2"], wanted.split())
    if lost == "a well of a store":
        set_section(screen, "run", verify="sizes")
    path = screen.results / path
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if lost in ("a table", "a report"):
        # a second name of it is kept; Snakemake's thin rules put it in place (test_workflow.py)
        assert screen.plan().reasons == {}
        return
    if lost.startswith("the "):
        assert screen.plan().why(SCREEN, "train") == "what was stored is damaged"
    assert sorted(screen.run()) == sorted(wanted)
    assert screen.plan().reasons == {}
    assert_same(screen, finished)


@pytest.mark.long
@pytest.mark.parametrize(
    ("plate", "how"), [("P2", "unreadable"), ("P2", "other pixels"), ("P1", "other pixels")]
)
def test_a_repair_that_comes_out_otherwise_is_followed_by_the_next_run(
    screen, tmp_path, plate, how
):
    """The image changed unseen, at the same size and time; networks may have learnt from it (P1)."""
    path = screen.raw(plate, "A02")
    times, content = path.stat(), path.read_bytes()
    half = len(content) // 2
    broken = bytes(len(content)) if how == "unreadable" else content[:half] + content[half:][::-1]
    path.write_bytes(broken)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    (screen.results / f".plateglass/parts/{plate}/ingest/A02.arrow").unlink()
    with pytest.raises(
        DataError, match="A02 came out otherwise than before, of what seemed the same"
    ):
        screen.run()
    assert ((SCREEN, "train", "") in screen.run()) == (plate == "P1")
    assert screen.plan().reasons == {}
    assert bool(jobs.quarantined(screen.project())) == (how == "unreadable")
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


@pytest.mark.parametrize("labels", ["", "labels/nuclei"])
@pytest.mark.parametrize("damage", ["gone", "cut short", "one bit"])
def test_a_damaged_shard_is_found_by_verify(screen, damage, labels):
    path = shard(screen, "A03", labels)
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        at = len(whole) // 3
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    assert screen.plan().reasons == {}
    set_section(screen, "run", verify="sizes")
    # the same size: no look at sizes can tell
    assert bool(screen.plan().reasons) == (damage != "one bit")
    set_section(screen, "run", verify="full")
    stage = "segment" if labels else "ingest"
    # labels lie in the same store: segment looks whether they are whole
    assert screen.plan().reasons.keys() == {("P2", stage), ("P2", "segment")}
    assert screen.plan().why("P2", stage) == "1 well: stored result is damaged (A03)"
    assert screen.run() == [("P2", stage, "A03")]
    assert path.read_bytes() == whole
    assert screen.plan().reasons == {}


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (".plateglass/parts/P2/ingest/A03.arrow", [("P2", "ingest", "A03")]),
        (".plateglass/parts/P2/segment/A03.arrow", [("P2", "segment", "A03")]),
        ("P2/wells.parquet", [("P2", "aggregate", "")]),
        pytest.param(
            "screen/model/model.safetensors", [(SCREEN, "train", "")], marks=pytest.mark.long
        ),
    ],
)
def test_one_bit_of_a_part_a_table_or_the_networks_is_found_by_verify(screen, path, wanted):
    path = screen.results / path
    whole = path.read_bytes()
    at = len(whole) // 3
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    assert screen.plan().reasons == {}
    set_section(screen, "run", verify="full")
    assert sorted(screen.run()) == sorted(wanted)
    assert path.read_bytes() == whole
    assert screen.plan().reasons == {}


def test_torn_metadata_of_an_image_are_found_by_verify(screen):
    """Display windows in it change with other wells, so the ledger has no digest of this file."""
    path = screen.results / "P2/plate.zarr/A/3/0/zarr.json"
    whole = path.read_bytes()
    path.write_bytes(b"?" + whole[1:])
    assert screen.plan().reasons == {}
    set_section(screen, "run", verify="full")
    assert sorted(screen.run()) == [("P2", "ingest", "A03"), ("P2", "segment", "A03")]
    assert path.read_bytes() == whole
    assert screen.plan().reasons == {}


def test_what_a_killed_ingest_stored_without_a_note_goes_with_its_images(screen, finished):
    store = screen.results / "P2/plate.zarr"
    shutil.copytree(store / "A/3", store / "C/9")  # of images that are gone since
    (screen.results / ".plateglass/begun/P2.ingest").touch()
    for marker in (screen.results / ".plateglass/done").glob("P2.ingest.*"):
        marker.unlink()
    assert screen.run() == []
    assert screen.plan().reasons == {}
    assert_same(screen, finished)


@pytest.mark.long
@pytest.mark.parametrize(
    "file", ["screen/model/model.safetensors", "screen/model/donors.safetensors"]
)
def test_a_model_cut_short_is_trained_again(screen, finished, file):
    path = screen.results / file
    path.write_bytes(path.read_bytes()[:100])
    assert screen.run() == [(SCREEN, "train", "")]
    assert_same(screen, finished)


def test_damage_met_by_a_job_fails_it_judges_no_well_and_is_mended_by_the_next_run(
    screen, finished
):
    path = shard(screen, "A03")
    whole = path.read_bytes()
    path.unlink()
    before = screen.settings["segment"]
    set_section(screen, "segment", cells={"channel": "Actin", "grow_um": 4})
    with pytest.raises(
        DamageError, match=r"P2/plate\.zarr/A/3/0/.*pixels are missing; give the same"
    ):
        screen.run(until="segment")
    assert jobs.quarantined(screen.project()) == []
    ran = screen.run(until="segment")
    assert [w for w in ran if w[1] == "ingest"] == [("P2", "ingest", "A03")]
    assert ("P2", "segment", "A03") in ran
    assert path.read_bytes() == whole
    screen.settings["segment"] = before
    screen.write()
    assert sorted(screen.run()) == sorted(wells(screen, ["P1", "P2"], ["segment"]))
    assert screen.plan().reasons == {}
    assert_same(screen, finished)


def test_labels_lost_by_an_ingest_that_was_taken_back_are_made_again(screen, finished):
    before = screen.settings["ingest"]
    set_section(screen, "ingest", pixel_size_um=0.7)
    screen.run(until="ingest")  # writes all fields anew, without labels
    screen.settings["ingest"] = before
    screen.write()
    both = wells(screen, ["P1", "P2"], ["ingest", "segment"])
    assert sorted(screen.run()) == sorted(both)
    assert screen.plan().reasons == {}
    assert_same(screen, finished)


@pytest.mark.long
def test_labels_lost_with_a_store_whose_repair_was_killed_are_made_again(
    screen, finished, monkeypatch
):
    shutil.rmtree(screen.results / "P2/plate.zarr")
    record = jobs._record

    def die(job, ledger, parts, result, **facts):
        record(job, ledger, parts, result, **facts)
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "_record", die)
    with pytest.raises(KeyboardInterrupt):
        screen.run()
    monkeypatch.undo()
    left = [w for w in screen.specs["P2"].wells if w != "A01"]
    wanted = wells(screen, ["P2"], ["ingest"], left) + wells(screen, ["P2"], ["segment"])
    assert sorted(screen.run()) == sorted(wanted)
    assert screen.plan().reasons == {}
    assert_same(screen, finished)


def test_a_second_name_is_given_once(tmp_path):
    path, kept = tmp_path / "cells.parquet", tmp_path / "kept" / "cells.parquet"
    kept.parent.mkdir()
    for content in ("old", "old", "new"):
        path.unlink(missing_ok=True)
        path.write_text(content)
        for _ in range(2):
            jobs.keep(path, kept)
            assert kept.samefile(path) and kept.read_text() == content
            assert [file.name for file in kept.parent.iterdir()] == ["cells.parquet"]


@pytest.mark.parametrize(
    "lost", ["all markers", pytest.param("all ledgers of a plate", marks=pytest.mark.long)]
)
def test_the_engines_own_files_lost(screen, finished, lost):
    if lost == "all markers":
        shutil.rmtree(screen.results / ".plateglass/done")
        wanted = []
        asked = screen.plan().reasons
        assert len(asked) == 2 * 6 + 3 and not any(asked.values())  # all look, nothing is told
        kept = (
            screen.results / "P2/wells.parquet",
            screen.results / "screen/model/model.safetensors",
        )
        for path in kept:
            whole = path.read_bytes()
            path.write_bytes(whole[:-1])  # seen by a job that looks, and by the plan
            told = {why for reasons in screen.plan().reasons.values() for why in reasons.values()}
            assert "what was stored is damaged" in told
            path.write_bytes(whole)
    else:  # what was made from what is not known any more: the plate is done again
        for path in (screen.results / ".plateglass/ledger").glob("P2.*"):
            path.unlink()
        wanted = wells(screen, ["P2"], WELL_STAGES)
        wanted += [("P2", "aggregate", ""), ("P2", "report", "")]
    assert sorted(screen.run()) == sorted(wanted)
    assert screen.plan().reasons == {}
    assert_same(screen, finished)


@pytest.mark.long
@pytest.mark.parametrize("name", ["A0;", "A07"])
def test_a_ledger_that_names_another_well_costs_that_line(screen, finished, name):
    """One bit of a well's name: no well's name any more, or another's, whom nobody wants."""
    path = screen.results / ".plateglass/ledger/P2.ingest.jsonl"
    path.write_text(path.read_text().replace('"well": "A03"', f'"well": "{name}"'))
    screen.raw("P2", "B01").touch()  # by which the job comes to look
    assert sorted(screen.run()) == [("P2", "ingest", "A03"), ("P2", "ingest", "B01")]
    assert screen.plan().reasons == {}
    assert_same(screen, finished)


@pytest.mark.long
@pytest.mark.parametrize(
    ("plate", "stage", "section", "setting"),
    [
        ("P2", "ingest", "attribute", {"cells_per_well": 3}),
        ("P2", "segment", "attribute", {"cells_per_well": 3}),
        ("P1", "segment", "train", {"epochs": 1}),
    ],
)
def test_a_line_that_a_ledger_lost_drops_no_well_from_what_follows(
    screen, tmp_path, plate, stage, section, setting
):
    path = screen.results / f".plateglass/ledger/{plate}.{stage}.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"well": "A03"' not in line))
    set_section(screen, section, **setting)
    parts = screen.results / ".plateglass/parts" / plate
    with pytest.raises(DamageError, match=f"{stage}.jsonl: does not tell what its job left; give"):
        screen.run()
    assert all((parts / of / "A03.arrow").exists() for of in WELL_STAGES)
    assert (plate, stage, "A03") in screen.run()
    assert screen.plan().reasons == {}
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("plate.zarr/A/zarr.json", []),
        pytest.param(
            "plate.zarr/A/1/0/labels/zarr.json",
            [("P2", "segment", "A01")],
            marks=pytest.mark.long,
        ),
        pytest.param("attribution.zarr/B/zarr.json", [], marks=pytest.mark.long),
    ],
)
def test_lost_metadata_of_rows_and_labels_is_found_by_verify(screen, finished, path, wanted):
    (screen.results / "P2" / path).unlink()
    set_section(screen, "run", verify="full")
    assert sorted(screen.run()) == wanted
    assert screen.plan().reasons == {}
    assert_same(screen, finished)


@pytest.mark.long
@pytest.mark.parametrize("byte", [b" ", b"\xff"])
@pytest.mark.parametrize("group", ["plate.zarr", "plate.zarr/B", "attribution.zarr"])
def test_metadata_of_a_plate_that_are_no_json_are_found_by_verify(screen, finished, group, byte):
    path = screen.results / "P2" / group / "zarr.json"
    path.write_bytes(byte * path.stat().st_size)
    set_section(screen, "run", verify="full")
    assert screen.plan().reasons != {}
    assert screen.run() == []
    assert screen.plan().reasons == {}
    assert_same(screen, finished)
