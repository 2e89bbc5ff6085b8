"""Names taken apart: every group, every mistake, and at what cost."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plateglass import config as settings
from plateglass.errors import UserError
from plateglass.layouts import Plane, listing, well_of
from plateglass.layouts.pattern import index
from plateglass.plates import Plate

PATTERN = r"(?P<well>[A-P]\d+)_s(?P<site>\d+)_w(?P<channel>\d)(_z(?P<z>\d+))?\.tif"
NAMES = ["A1_s1_w1.tif", "A1_s1_w2.tif", "A1_s2_w1.tif", "A1_s2_w2.tif", "B12_s1_w1.tif"]


def configured(folder: Path, pattern: str | None = PATTERN, **run) -> settings.Config:
    raw = {
        "plates": "plates.csv",
        "channels": {"DNA": {"match": "1"}, "GFP": {"match": "2"}},
        "ingest": {"pattern": pattern} if pattern else {},
        "segment": {"nuclei": {"channel": "DNA"}},
        "run": run,
    }
    return settings.parse(raw, folder)


def plate(folder: Path, names=NAMES) -> Plate:
    raw = folder / "raw"
    for at, name in enumerate(names):
        path = raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (at + 1))
        os.utime(path, ns=(0, 1000 + at))
    raw.mkdir(exist_ok=True)
    return Plate("P1", raw, "pattern", None, False)


def found(folder, names=NAMES, pattern=PATTERN, **run):
    return listing(plate(folder, names), configured(folder, pattern, **run))


def test_wells_and_planes(tmp_path):
    index = found(tmp_path)
    assert sorted(index.wells) == ["A01", "B12"]
    assert sorted(index.wells["A01"]) == [
        ("A1_s1_w1.tif", 1, 1000),
        ("A1_s1_w2.tif", 2, 1001),
        ("A1_s2_w1.tif", 3, 1002),
        ("A1_s2_w2.tif", 4, 1003),
    ]
    assert index.planes("A01")[0] == Plane("A01", 1, "DNA", 1, "A1_s1_w1.tif", None)
    assert [(p.site, p.channel) for p in index.planes("A01")] == [
        (1, "DNA"),
        (1, "GFP"),
        (2, "DNA"),
        (2, "GFP"),
    ]


def test_other_channels_and_files_are_left_out(tmp_path):
    index = found(tmp_path, [*NAMES, "A1_s1_w3.tif", "notes.txt", ".A1_s9_w1.tif", "thumb.tif"])
    assert len(index.planes("A01")) == 4
    assert index.ignored == ["thumb.tif"]


def test_z_by_name(tmp_path):
    names = [f"C3_s1_w{c}_z{z}.tif" for c in (1, 2) for z in (10, 2, 1)]
    assert [p.z for p in found(tmp_path, names).planes("C03") if p.channel == "GFP"] == [1, 2, 10]


def test_row_and_column(tmp_path):
    """The plate of the README: letters; and Harmony's numbers."""
    letters = r"Channel(?P<channel>\d)-\d+-(?P<row>[A-P])-(?P<column>\d+)\.tif"
    names = ["Channel1-49-E-01.tif", "Channel2-49-E-01.tif"]
    assert list(found(tmp_path / "a", names, letters).wells) == ["E01"]
    numbers = r"r(?P<row>\d\d)c(?P<column>\d\d)f(?P<site>\d\d)p01-ch(?P<channel>\d).*\.tiff"
    names = ["r32c48f03p01-ch1sk1.tiff", "r32c48f03p01-ch2sk1.tiff"]
    index = found(tmp_path / "b", names, numbers)
    assert index.planes("AF48")[1][:4] == ("AF48", 3, "GFP", 1)


def test_pattern_with_folders(tmp_path):
    pattern = r"(?P<well>[A-P]\d+)/.*/w(?P<channel>\d)\.tif"
    names = ["A2/x/w1.tif", "A2/x/y/w2.tif", "B2/x/w1.tif", "w1.tif"]
    index = found(tmp_path, names, pattern)
    assert [p.file for p in index.planes("A02")] == ["A2/x/w1.tif", "A2/x/y/w2.tif"]
    assert index.ignored == ["w1.tif"]


@pytest.mark.parametrize(
    ("written", "well"),
    [("a1", "A01"), ("P24", "P24"), ("AF48", "AF48"), (("3", "7"), "C07"), (("AA", "01"), "AA01")],
)
def test_well_names(written, well):
    assert well_of(written) == well


@pytest.mark.parametrize("written", ["AG01", "A49", "A00", "A", ("33", "1"), ("0", "1"), "1A"])
def test_no_well_names(written):
    with pytest.raises(ValueError, match="is no well"):
        well_of(written)


@pytest.mark.parametrize(
    ("names", "pattern", "words"),
    [
        (NAMES, r"(?P<well>[A-P", "no regular expression.*unterminated"),
        (NAMES, r"(?P<well>[A-P]\d+).*", "needs the groups channel, and well or row and column"),
        (NAMES, r"(?P<row>[A-P])\d+_s\d_w(?P<channel>\d)\.tif", "needs the groups channel"),
        (NAMES, PATTERN.replace("<site>", "<filed>"), "group filed; known are well, row"),
        (NAMES, PATTERN.replace(".tif", ".png"), r"matches none of 5 files, for example \S+\.tif"),
        ([], PATTERN, r"raw: the folder is empty: is the share mounted\?"),
        ([".DS_Store"], PATTERN, "the folder is empty"),
        (["notes.txt"], PATTERN, "matches none of 1 files, for example notes.txt; the whole name"),
        (["a/A1_w1.tif"], f"b/{PATTERN}", "1 files, for example a/A1_w1.tif; the whole path below"),
        (["A1_s1_w1.tif", "A01_s1_w1.tif"], PATTERN, "A01_s1_w1.tif|A1_s1_w1.tif"),
        (["Q1_s1_w1.tif", "A99_s1_w1.tif"], PATTERN, "A99_s1_w1.tif: 'A99' is no well"),
        (["A1_s1_w1.tif"], PATTERN, "no image of channel GFP; the files' channels are 1:"),
        (["A1_s1_w3.tif"], PATTERN, "no image of channel DNA, GFP; the files' channels are 3"),
        (["A1_sB_w1.tif"], PATTERN.replace(r"site>\d", "site>."), "site and z must be whole"),
        (NAMES, None, "ingest.pattern is not set"),
    ],
)
def test_mistakes_are_refused(tmp_path, names, pattern, words):
    with pytest.raises(UserError, match=words) as error:
        found(tmp_path, names, pattern)
    assert "plate P1" in str(error.value)


@pytest.mark.parametrize(
    ("names", "seen", "image"),
    [
        (["MyExp.HTD", "TimePoint_1/exp_B02_s1_w1.TIF"], 1, "TimePoint_1/exp_B02_s1_w1.TIF"),
        (["Images/Index.xml", "Images/r02c03-ch1.tiff"], 0, "Images/r02c03-ch1.tiff"),
    ],
)
def test_images_in_subfolders_are_told_with_how_the_pattern_begins(tmp_path, names, seen, image):
    with pytest.raises(UserError) as error:
        found(tmp_path, names)
    start = image.partition("/")[0]
    for words in (
        f"matches none of {seen} files in the folder itself",
        f"images in subfolders, for example {image}",
        f"the path below the plate's folder, so that it begins with e.g. '{start}/'",
    ):
        assert words in str(error.value)


def test_subfolders_are_looked_into_for_no_plate_that_matches(tmp_path, monkeypatch):
    def refuse(folder, prefix):
        raise AssertionError("walked")

    monkeypatch.setattr("plateglass.layouts.pattern._deep", refuse)
    assert list(found(tmp_path, [*NAMES, "thumbs/A1_s1_w1.tif"]).wells) == ["A01", "B12"]
    with pytest.raises(UserError, match="matches none of 5 files, for example"):
        found(tmp_path, pattern=PATTERN.replace("_s", "_f"))


@pytest.mark.parametrize("pattern", [r"(?P<well>[A-P]\d+).*", r"(?P<well>[A-P]\d+"])
def test_a_pattern_is_shown_as_it_was_typed(tmp_path, pattern):
    with pytest.raises(UserError) as error:
        found(tmp_path, pattern=pattern)
    assert f"ingest.pattern '{pattern}' " in str(error.value)
    assert "\\\\" not in str(error.value)


def test_two_files_for_one_plane_are_both_named(tmp_path):
    with pytest.raises(UserError) as error:
        found(tmp_path, ["A1_s1_w1.tif", "A01_s1_w1.tif"])
    for words in ("well A01, site 1, channel DNA", "A1_s1_w1.tif", "A01_s1_w1.tif", "move one"):
        assert words in str(error.value)


def test_unreadable_folder(tmp_path):
    gone = Plate("P1", tmp_path / "gone", "pattern", None, False)
    with pytest.raises(UserError, match=r"gone: cannot be read: No such file.*share mounted"):
        listing(gone, configured(tmp_path))
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="Not a directory"):
        listing(Plate("P1", file, "pattern", None, False), configured(tmp_path))


def test_ctime_if_wished(tmp_path):
    mark = found(tmp_path, raw_check="ctime").wells["B12"][0]
    stat = (tmp_path / "raw" / "B12_s1_w1.tif").stat()
    assert mark == ("B12_s1_w1.tif", 5, 1004, stat.st_ctime_ns, stat.st_ino)


def test_cheap_enough_for_every_start():
    """A 384-well plate of 9 sites: a fraction of what a stat costs, and no heavy import."""
    names = [
        (f"{row}{column:02d}_s{site}_w{channel}.tif", lambda: (1, 2))
        for row in "ABCDEFGHIJKLMNOP"
        for column in range(1, 25)
        for site in range(1, 10)
        for channel in (1, 2)
    ]
    best = 1e9
    for _ in range(3):
        start = time.perf_counter()
        index(names, PATTERN, {"1": "DNA", "2": "GFP"}, "here", Path())
        best = min(best, time.perf_counter() - start)
    assert best / len(names) < 20e-6  # 3 µs measured; the bound leaves room for a busy machine


def test_imports_no_arrays():
    code = (
        "import sys, plateglass.layouts.pattern, plateglass.layouts.loaddata;"
        "print([m for m in ('numpy', 'tifffile', 'pandas') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
