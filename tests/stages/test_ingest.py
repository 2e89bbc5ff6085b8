"""Raw files to the store: counts, values, quarantine, and nothing done twice or by half."""

import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from plateglass import config as settings
from plateglass import parts, store
from plateglass.formats import ask, usual_format
from plateglass.layouts import listing
from plateglass.measure import quality
from plateglass.project import Project
from plateglass.stages import ingest
from plateglass.wells import Job

PATTERN = r"(?P<well>[A-P]\d+)_s(?P<site>\d+)_w(?P<channel>\d)(_z(?P<z>\d+))?\.tif"
CHANNELS = {"1": "DNA", "2": "GFP"}


def pixels(well, site, channel, shape=(72, 80), dtype=np.uint16):
    seed = zlib.crc32(f"{well} {site} {channel}".encode())
    return np.random.default_rng(seed).poisson(90, shape).astype(dtype)


class Raw:
    """A plate of TIFFs (well, site, channel) and the jobs that ingest it."""

    def __init__(self, folder, wells=("A01", "A02", "B01"), sites=(1, 2), **more):
        self.folder, self.raw = folder, folder / "raw"
        self.raw.mkdir(parents=True)
        for well in wells:
            for site in sites:
                for channel in CHANNELS:
                    self.write(well, site, channel, pixels(well, site, channel))
        self.settings = {
            "plates": "plates.csv",
            "results": "results",
            "channels": {name: {"match": match} for match, name in CHANNELS.items()},
            "ingest": {"pattern": PATTERN, "pixel_size_um": 0.5} | more.pop("ingest", {}),
            "segment": {"nuclei": {"channel": "DNA"}},
            **more,
        }
        (folder / "plates.csv").write_text("plate,path\nP1,raw\n")

    def path(self, well, site, channel, z=""):
        return self.raw / f"{well}_s{site}_w{channel}{z}.tif"

    def write(self, well, site, channel, image, z="", **options):
        tifffile.imwrite(self.path(well, site, channel, z), image, **options)

    def job(self, known=(), threads=1, key="key") -> Job:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.settings, sort_keys=False))
        config = settings.read(self.folder / "config.yaml")
        known = dict.fromkeys(known, "known")
        return Job("ingest", "P1", Project.read(config), key, threads, known=known)

    def ingest(self, *wells, known=(), threads=1):
        """Run the job; well → Result."""
        job = self.job(known, threads)
        found = listing(job.entry, job.config)
        usual = usual_format(ask(found, found.wells, {}))
        done = ingest.run(job, list(wells or sorted(found.wells)), found, usual)
        results = {result.well: result for result in done}
        ingest.finish(job)
        return results

    @property
    def store(self):
        return self.folder / "results" / "P1" / "plate.zarr"

    def part(self, well):
        return parts.read(self.job().part("ingest", well))


@pytest.fixture
def raw(tmp_path):
    return Raw(tmp_path)


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_pixels_arrive_and_each_plane_is_read_once(raw):
    results = raw.ingest()
    assert list(results) == ["A01", "A02", "B01"]
    for result in results.values():
        assert result.counts == {"planes_read": 4, "files_read": 4, "fields_written": 2}
    field = store.read_field(raw.store, "B01", 1)
    assert field.shape == (2, 1, 72, 80) and field.dtype == np.uint16
    assert np.array_equal(field[1, 0], pixels("B01", 2, "2"))
    assert store.sites(raw.store, "B01") == [1, 2]
    assert store.pixel_size(raw.store, "B01") == (0.5, 1.0)
    assert store.check(raw.store) == []


def test_three_validators(raw):
    import ome_zarr_io
    import ome_zarr_models
    import yaozarrs
    import zarr

    raw.write("A02", 1, "2", np.zeros((5, 5), np.uint16))  # quarantined site
    raw.ingest()
    assert ome_zarr_io.validate(str(raw.store), strict=True).is_valid
    yaozarrs.validate_zarr_store(str(raw.store))
    assert (
        type(ome_zarr_models.open_ome_zarr(zarr.open_group(raw.store, mode="r"))).__name__ == "HCS"
    )
    assert store.check(raw.store) == []


def test_measures_stand_in_the_part(raw):
    raw.ingest()
    part = raw.part("A02")
    assert part.Metadata_Site.tolist() == [1, 2]
    assert part.Metadata_Well.tolist() == ["A02", "A02"]
    assert part.Metadata_Quarantine.isna().all()
    expected = quality.quality(pixels("A02", 2, "2"))
    for name in quality.NAMES:
        assert part.loc[1, f"{name}_GFP"] == pytest.approx(expected[name], nan_ok=True)


def test_sites_keep_the_source_s_numbers(tmp_path):
    raw = Raw(tmp_path, wells=["A01"], sites=[9, 4])
    raw.ingest()
    assert store.sites(raw.store, "A01") == [4, 9]
    assert np.array_equal(store.read_field(raw.store, "A01", 0)[0, 0], pixels("A01", 4, "1"))


@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
def test_stacks_by_pages_and_by_name(tmp_path, compression):
    stack = np.stack([pixels("A01", z, "1") for z in range(3)])
    paged = Raw(tmp_path / "pages", wells=[])
    named = Raw(tmp_path / "names", wells=[])
    for channel in CHANNELS:
        paged.write("A01", 1, channel, stack, photometric="minisblack", compression=compression)
        for z in range(3):
            named.write("A01", 1, channel, stack[z], f"_z{z}", compression=compression)
    one, other = paged.ingest()["A01"], named.ingest()["A01"]
    assert (one.counts["planes_read"], one.counts["files_read"]) == (6, 2)
    assert (other.counts["planes_read"], other.counts["files_read"]) == (6, 6)
    assert one.content == other.content
    assert np.array_equal(store.read_field(paged.store, "A01", 0)[1], stack)


def test_eight_bits_stay_eight(tmp_path):
    raw = Raw(tmp_path, wells=[])
    for channel in CHANNELS:
        raw.write("A01", 1, channel, pixels("A01", 1, channel, dtype=np.uint8))
    raw.ingest()
    assert store.read_field(raw.store, "A01", 0).dtype == np.uint8


def test_order_of_channels_in_the_settings_is_no_matter(tmp_path):
    raw, other = Raw(tmp_path / "a", wells=["A01"]), Raw(tmp_path / "b", wells=["A01"])
    other.settings["channels"] = {"GFP": {"match": "2"}, "DNA": {"match": "1"}}
    assert raw.ingest()["A01"].content == other.ingest()["A01"].content
    assert np.array_equal(store.read_field(other.store, "A01", 0)[1, 0], pixels("A01", 1, "2"))
    assert files(raw.folder / "results") == files(other.folder / "results")


def test_colours_are_the_settings(tmp_path):
    raw = Raw(tmp_path, wells=["A01"])
    raw.settings["channels"]["GFP"]["color"] = "ABCDEF"
    raw.ingest()
    display = store.display(raw.store, "A01")
    assert {channel: colour for channel, (*_, colour) in display.items()} == {
        "DNA": "3E8EFF",
        "GFP": "ABCDEF",
    }


def test_windows_are_the_plate_s(raw):
    bright = (pixels("B01", 1, "2").astype(np.uint32) * 50).astype(np.uint16)
    for site in (1, 2):
        raw.write("B01", site, "2", bright)
    raw.ingest()
    windows = [store.display(raw.store, well)["GFP"][:2] for well in ("A01", "B01")]
    parts = [raw.part(well) for well in ("A01", "A02", "B01")]
    low = np.median(np.concatenate([part.P01_GFP for part in parts]))
    assert windows[0] == windows[1]
    assert windows[0][0] == int(float(f"{low:.2g}")) and windows[0][1] > 4000


def test_windows_that_change_half_way_are_mended(raw, monkeypatch):
    """Killed between two wells' windows, and back at the old ones: still the same in every field."""
    raw.ingest()
    old, image = store.display(raw.store, "B01"), pixels("A01", 1, "1")
    raw.write("A01", 1, "1", image * 9)
    raw.write("A01", 2, "1", image * 9)
    write, calls = store.metadata.write_image, []

    def dies(folder, attributes):
        calls.append(folder)
        if len(calls) > 4:  # two fields are written, then two get their windows
            raise KeyboardInterrupt
        write(folder, attributes)

    with monkeypatch.context() as patch:
        patch.setattr(store.metadata, "write_image", dies)
        with pytest.raises(KeyboardInterrupt):
            raw.ingest("A01", known=("A01", "A02", "B01"))
    assert store.display(raw.store, "A01") != old and store.display(raw.store, "B01") == old
    for site in (1, 2):
        raw.write("A01", site, "1", pixels("A01", site, "1"))
    raw.ingest("A01", known=("A01", "A02", "B01"))
    display = [
        store.display(raw.store, well, site) for well in ("A01", "A02", "B01") for site in (0, 1)
    ]
    assert display == [old] * 6 and store.plate_display(raw.store) == old


# ---------------------------------------------------------------------- nothing twice
def test_same_pixels_write_nothing(raw):
    first = raw.ingest()
    before = {path: path.stat().st_mtime_ns for path in raw.store.rglob("*") if path.is_file()}
    shutil.copy(raw.path("A01", 1, "1"), raw.folder / "copy.tif")
    (raw.folder / "copy.tif").replace(raw.path("A01", 1, "1"))
    again = raw.ingest("A01", known=("A01", "A02", "B01"))
    assert again["A01"].content == first["A01"].content
    assert again["A01"].counts == {"planes_read": 4, "files_read": 4, "fields_written": 0}
    assert again["A01"].stored == first["A01"].stored
    after = {path: path.stat().st_mtime_ns for path in raw.store.rglob("*") if path.is_file()}
    assert before == after


def test_other_pixels_are_written_and_others_stay(raw):
    first = raw.ingest()
    wells = {well: files(raw.store / well[0] / well[2]) for well in ("A02", "B01")}
    raw.write("A01", 1, "1", pixels("H12", 1, "1"))
    second = raw.ingest("A01", known=("A01", "A02", "B01"))
    assert second["A01"].counts["fields_written"] == 1
    assert second["A01"].content != first["A01"].content
    assert np.array_equal(store.read_field(raw.store, "A01", 0)[0, 0], pixels("H12", 1, "1"))
    assert wells == {well: files(raw.store / well[0] / well[2]) for well in ("A02", "B01")}
    assert store.display(raw.store, "A01") == store.display(raw.store, "B01")


def test_resumed_equals_undisturbed(tmp_path):
    whole, stepwise = Raw(tmp_path / "a"), Raw(tmp_path / "b")
    whole.ingest()
    stepwise.ingest("B01")
    stepwise.ingest("A01", "A02", known=("B01",))
    assert files(whole.folder / "results") == files(stepwise.folder / "results")


def test_lost_shard_comes_back_and_labels_stay(raw):
    first = raw.ingest()
    labels = np.ones((1, 72, 80), np.int32)
    store.write_labels(raw.store, "A01", 0, "cells", labels)
    (raw.store / "A/1/0/0/c/0/0/0/0").unlink()
    again = raw.ingest("A01", known=("A02", "B01"))  # the engine no longer counts it as known
    assert again["A01"].stored == first["A01"].stored
    assert np.array_equal(store.read_labels(raw.store, "A01", 0, "cells"), labels)
    assert store.check(raw.store) == []


def test_labels_of_other_pixels_go(raw):
    raw.ingest()
    store.write_labels(raw.store, "A01", 0, "cells", np.ones((1, 72, 80), np.int32))
    raw.write("A01", 1, "1", pixels("H12", 1, "1"))
    raw.ingest("A01", known=("A01",))
    assert store.sizes(raw.store, "A01", labels=True) == {}


@pytest.mark.parametrize(
    "change", [{"pixel_size_um": 0.7}, {"z_step_um": 2.0}], ids=["pixel size", "z step"]
)
def test_settings_written_beside_the_pixels_enter_the_content(raw, change):
    first = raw.ingest()
    raw.settings["ingest"] |= change
    second = raw.ingest(known=("A01", "A02", "B01"))
    assert first["A01"].content != second["A01"].content
    scale = store.pixel_size(raw.store, "A01")
    assert change.popitem()[1] in scale


def test_what_the_engine_notes(raw):
    """Every file of the well, and its rows; no digest where the plate's windows are."""
    stored = raw.ingest()["A01"].stored
    there = {p.relative_to(raw.store.parent).as_posix() for p in (raw.store / "A/1").rglob("*")
             if p.is_file()}  # fmt: skip
    (rows,) = set(stored) - there
    assert there < set(stored)
    assert (raw.store.parent / rows).resolve() == raw.job().part("ingest", "A01").resolve()
    assert len(stored[rows][1]) == 16
    assert stored["plate.zarr/A/1/0/zarr.json"] == (4096, "")
    size, digest = stored["plate.zarr/A/1/0/0/c/0/0/0/0"]
    assert size == (raw.store / "A/1/0/0/c/0/0/0/0").stat().st_size and len(digest) == 16


def test_removed_well(raw):
    raw.ingest()
    job = raw.job()
    ingest.remove(job, ["B01"])
    ingest.finish(job)
    assert store.wells(raw.store) == ["A01", "A02"] and not job.part("ingest", "B01").exists()
    assert store.check(raw.store) == []
    ingest.remove(job, ["A01", "A02"])
    ingest.finish(job)
    assert not (raw.store / "zarr.json").exists()


@pytest.mark.long
def test_workers_give_what_one_process_gives(tmp_path):
    wells = [f"A{c:02d}" for c in range(1, 7)]
    one, two = Raw(tmp_path / "a", wells), Raw(tmp_path / "b", wells)
    serial, parallel = one.ingest(), two.ingest(threads=2)
    assert {w: (r.content, r.counts) for w, r in serial.items()} == {
        w: (r.content, r.counts) for w, r in parallel.items()
    }
    shutil.rmtree(two.folder / "results" / ".plateglass" / "dask", ignore_errors=True)
    assert files(one.folder / "results") == files(two.folder / "results")


# ---------------------------------------------------------------------- pixel size
def test_pixel_size_from_the_images(tmp_path, capsys):
    raw = Raw(tmp_path, wells=[], ingest={"pixel_size_um": None})
    for channel in CHANNELS:
        image = pixels("A01", 1, channel)
        raw.write(
            "A01", 1, channel, image, ome=True, metadata={"PhysicalSizeX": 0.325, "axes": "YX"}
        )
    raw.ingest()
    assert store.pixel_size(raw.store, "A01")[0] == 0.325
    assert "pixel size" not in capsys.readouterr().out


def test_a_plate_has_one_pixel_size(tmp_path):
    """Where a file does not tell it, the other images' one; a file that tells another is left out."""
    raw = Raw(tmp_path, wells=["A03"], ingest={"pixel_size_um": None})
    for well, size in (("A01", 0.325), ("A02", 0.325), ("A04", 0.65)):
        for channel in CHANNELS:
            told = {"ome": True, "metadata": {"PhysicalSizeX": size, "axes": "YX"}}
            raw.write(well, 1, channel, pixels(well, 1, channel), **told)
    done = raw.ingest()
    assert [store.pixel_size(raw.store, well)[0] for well in ("A01", "A03")] == [0.325, 0.325]
    assert "A04_s1_w1.tif tells 0.65 µm a pixel, the plate's images 0.325" in done["A04"].quarantine


def test_unknown_pixel_size_is_said(tmp_path, capsys):
    raw = Raw(tmp_path, wells=["A01"], ingest={"pixel_size_um": None})
    raw.ingest()
    assert store.pixel_size(raw.store, "A01")[0] == 1.0
    assert "do not tell their pixel size, 1 µm is taken; set ingest.pixel_size_um" in (
        capsys.readouterr().out
    )


# ---------------------------------------------------------------------- bad input
def truncated(path):
    os.truncate(path, path.stat().st_size - 500)


def emptied(path):
    os.truncate(path, 0)


def reshaped(path):
    tifffile.imwrite(path, np.ones((72, 79), np.uint16))


def shallower(path):
    tifffile.imwrite(path, np.ones((72, 80), np.uint8))


def coloured(path):
    tifffile.imwrite(path, np.ones((72, 80, 3), np.uint8), photometric="rgb")


def floating(path):
    tifffile.imwrite(path, np.ones((72, 80), np.float32))


def stacked(path):
    tifffile.imwrite(path, np.ones((2, 72, 80), np.uint16), photometric="minisblack")


def gone(path):
    path.unlink()


BAD = [
    (truncated, "truncated TIFF: its pixels end at byte"),
    (emptied, "empty file (0 bytes)"),
    (reshaped, "72 × 79 uint16, 1 plane; the plate's images are 72 × 80 uint16"),
    (shallower, "72 × 80 uint8, 1 plane; the plate's images are 72 × 80 uint16"),
    (coloured, "a colour image (RGB"),
    (floating, "float32 values; grey images of 8 or 16 bits"),
    (stacked, "2 z planes, the plate's images have 1"),
    (gone, "site 2: no image of channel GFP"),
]


@pytest.mark.parametrize(("spoil", "words"), BAD, ids=[spoil.__name__ for spoil, _ in BAD])
def test_a_bad_site_is_left_out_and_the_well_goes_on(raw, spoil, words):
    raw.write("A01", 3, "1", pixels("A01", 3, "1"))
    raw.write("A01", 3, "2", pixels("A01", 3, "2"))
    spoil(raw.path("A01", 2, "2"))
    results = raw.ingest()
    assert [r.quarantine for r in results.values()] == [None] * 3
    part = raw.part("A01")
    reasons = part.Metadata_Quarantine
    assert reasons.isna().tolist() == [True, False, True]
    assert words in reasons[1] and "site 2" in reasons[1] and "GFP" in reasons[1]
    assert str(raw.folder) not in reasons[1]
    if spoil is not gone:
        assert "A01_s2_w2.tif" in reasons[1] or spoil is stacked
    assert np.isnan(part.loc[1, "P50_DNA"])
    assert store.sites(raw.store, "A01") == [1, 3]
    assert np.array_equal(store.read_field(raw.store, "A01", 1)[1, 0], pixels("A01", 3, "2"))
    assert store.check(raw.store) == []
    assert not list(raw.store.rglob(".*"))


@pytest.mark.parametrize(("spoil", "words"), [BAD[1], BAD[2], BAD[7]])
def test_a_bad_well_is_quarantined_and_mended(tmp_path, spoil, words):
    raw = Raw(tmp_path, sites=[2])
    clean = Raw(tmp_path / "clean", sites=[2])
    clean.ingest()
    raw.ingest()
    kept = raw.path("A01", 2, "2").read_bytes()
    spoil(raw.path("A01", 2, "2"))
    result = raw.ingest("A01", known=("A01", "A02", "B01"))["A01"]
    assert words in result.quarantine and result.content is None
    assert store.wells(raw.store) == ["A02", "B01"]
    assert words in raw.part("A01").Metadata_Quarantine[0]
    assert store.check(raw.store) == []
    raw.path("A01", 2, "2").write_bytes(kept)
    assert raw.ingest("A01", known=("A02", "B01"))["A01"].quarantine is None
    assert files(raw.folder / "results") == files(clean.folder / "results")


def test_all_sites_bad(raw):
    for site in (1, 2):
        emptied(raw.path("A01", site, "1"))
    assert raw.ingest()["A01"].quarantine.startswith("all 2 sites; site 1, DNA: ")


def test_a_bad_file_whose_name_is_no_utf8_is_named_in_the_table(raw):
    raw.settings["ingest"]["pattern"] = PATTERN.replace(r"\.tif", r".?\.tif")
    name = os.fsencode(raw.path("A01", 1, "1")).replace(b".tif", b"\xe9.tif")
    raw.path("A01", 1, "1").rename(os.fsdecode(name))
    emptied(Path(os.fsdecode(name)))
    result = raw.ingest()["A01"]
    assert "A01_s1_w1\\udce9.tif" in result.left_out[0]
    assert "A01_s1_w1\\udce9.tif" in raw.part("A01").Metadata_Quarantine[0]


def test_the_odd_well_is_refused_not_the_plate(raw):
    """Two of three wells agree: the third is the odd one, also where it comes first."""
    for site in (1, 2):
        for channel in CHANNELS:
            raw.write("A01", site, channel, pixels("A01", site, channel, (50, 60)))
    results = raw.ingest()
    assert "50 × 60" in results["A01"].quarantine
    assert results["A02"].quarantine is None and results["B01"].quarantine is None


def test_nothing_readable_at_all(tmp_path):
    raw = Raw(tmp_path, wells=["A01"], sites=[1])
    for channel in CHANNELS:
        emptied(raw.path("A01", 1, channel))
    assert "empty file" in raw.ingest()["A01"].quarantine
    assert not (raw.store / "zarr.json").exists()


def test_faults_of_the_machine_fail_the_job(raw, monkeypatch):
    def fails(path, page=None):
        raise OSError(5, "Input/output error", str(path))

    raw.ingest("A02")
    monkeypatch.setattr(ingest.tiff, "read", fails)
    with pytest.raises(OSError, match="Input/output error"):
        raw.ingest("A01", known=("A02",))
    assert store.wells(raw.store) == ["A02"]


def test_killed_between_field_and_well(raw, monkeypatch):
    """Fields without their well's zarr.json are nobody's: the next run writes the well whole."""

    def killed(*given, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest.store, "write_well", killed)
        with pytest.raises(KeyboardInterrupt):
            raw.ingest("A01")
    assert store.wells(raw.store) == ["A01"] and not (raw.store / "A/1/zarr.json").exists()
    assert raw.ingest()["A01"].counts["fields_written"] == 2
    assert store.check(raw.store) == []


def test_missing_file_of_a_loaddata_table(tmp_path):
    raw = Raw(tmp_path, wells=["A01"])
    rows = ["FileName_1,FileName_2,Metadata_Well,Metadata_Site"]
    rows += ["A01_s1_w1.tif,A01_s1_w2.tif,A01,1", "A01_s2_w1.tif,nowhere.tif,A01,2"]
    (raw.raw / "load_data.csv").write_text("\n".join(rows))
    (raw.folder / "plates.csv").write_text("plate,path,layout\nP1,raw,loaddata\n")
    assert raw.ingest()["A01"].quarantine is None
    assert "nowhere.tif: the file is not there" in raw.part("A01").Metadata_Quarantine[1]


def test_real_plate(real_data, tmp_path):
    """BBBC013's own files: 8 bits, a field of 640 pixels and three levels."""
    raw = Raw(tmp_path, wells=[], ingest={})
    folder = real_data / "sbs_rows_E-F" / "images"
    for path in folder.glob("Channel?-*-E-0[1-3].tif"):
        shutil.copy(path, raw.raw)
    raw.settings["ingest"]["pattern"] = (
        r"Channel(?P<channel>\d)-\d+-(?P<row>[A-P])-(?P<column>\d+)\.tif"
    )
    results = raw.ingest()
    assert sorted(results) == ["E01", "E02", "E03"]
    assert np.array_equal(
        store.read_field(raw.store, "E02", 0, channel=1)[0],
        tifffile.imread(folder / "Channel2-50-E-02.tif"),
    )
    assert len(store.sizes(raw.store, "E02")) == 1 + 1 + 2 * 3
    assert store.check(raw.store) == []
    assert json.loads((raw.store / "zarr.json").read_text())["node_type"] == "group"
