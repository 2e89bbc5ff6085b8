"""CellProfiler's LoadData CSV, also a real one (pe2loaddata's)."""

import json
from pathlib import Path

import pytest

from plateglass import config as settings
from plateglass.errors import UserError
from plateglass.layouts import listing
from plateglass.plates import Plate

HEADER = "FileName_A,PathName_A,FileName_B,PathName_B,Metadata_Plate,Metadata_Well,Metadata_Site"


def configured(folder: Path, channels=None, **ingest) -> settings.Config:
    channels = channels or {"DNA": {"match": "A"}, "GFP": {"match": "B"}}
    raw = {
        "plates": "plates.csv",
        "channels": channels,
        "ingest": ingest,
        "segment": {"nuclei": {"channel": next(iter(channels))}},
    }
    return settings.parse(raw, folder)


def plate(folder: Path, rows: list[str], header=HEADER, name="load_data.csv") -> Plate:
    (folder / "raw" / "img").mkdir(parents=True, exist_ok=True)
    for file in ("a1.tif", "b1.tif", "a2.tif", "b2.tif"):
        (folder / "raw" / "img" / file).write_bytes(b"xyz")
    (folder / "raw" / name).write_text("\n".join([header, *rows]) + "\n")
    return Plate("P1", folder / "raw", "loaddata", None, False)


NAMES = ["a\0.tif", "a1.tif/b.tif"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_file_can_have_is_a_file_that_is_not_there(tmp_path, name):
    rows = [f"{name},img,b1.tif,img/,P1,A1,1"]
    found = listing(plate(tmp_path, rows), configured(tmp_path))
    assert found.wells["A01"][0][1] == -1
    with pytest.raises(UserError, match=r"line 2: .*cannot be read: File name too long"):
        listing(plate(tmp_path, [f"{'x' * 300},img,b1.tif,img,P1,A1,1"]), configured(tmp_path))


def test_a_frame_that_is_no_number_is_named(tmp_path):
    header = HEADER.replace("PathName_B", "PathName_B,Frame_B")
    with pytest.raises(UserError, match="line 2: Frame_B is 'x1', no page's number"):
        listing(plate(tmp_path, ["a1.tif,img,b1.tif,img,x1,P1,A1,1"], header), configured(tmp_path))


ROWS = ["a1.tif,img,b1.tif,img/,P1,A1,1", "a2.tif,img,b2.tif,img,P1,A1,2"]


def test_rows_are_sites(tmp_path):
    found = listing(plate(tmp_path, ROWS), configured(tmp_path))
    assert [tuple(p) for p in found.planes("A01")] == [
        ("A01", 1, "DNA", 0, "img/a1.tif", None),
        ("A01", 1, "GFP", 0, "img/b1.tif", None),
        ("A01", 2, "DNA", 0, "img/a2.tif", None),
        ("A01", 2, "GFP", 0, "img/b2.tif", None),
    ]
    assert found.folder == tmp_path / "raw"


def test_the_csv_itself_as_path(tmp_path):
    sheet = plate(tmp_path, ROWS, name="other.csv")
    by_file = Plate("P1", sheet.path / "other.csv", "loaddata", None, False)
    assert list(listing(by_file, configured(tmp_path)).wells) == ["A01"]
    assert list(listing(sheet, configured(tmp_path, loaddata="other.csv")).wells) == ["A01"]


def test_key_follows_what_the_table_says(tmp_path):
    """Two files exchanged in the CSV: no file changed, the key does."""
    before = listing(plate(tmp_path, ROWS), configured(tmp_path)).wells
    swapped = ["b1.tif,img,a1.tif,img/,P1,A1,1", ROWS[1]]
    after = listing(plate(tmp_path, swapped), configured(tmp_path)).wells
    assert sorted(before["A01"]) != sorted(after["A01"])
    json.dumps(sorted(after["A01"]))


def test_rows_of_other_plates(tmp_path):
    rows = [*ROWS, "a2.tif,img,b2.tif,img,P2,B2,1"]
    assert list(listing(plate(tmp_path, rows), configured(tmp_path)).wells) == ["A01"]
    other = [row.replace(",P1,", ",P3,") for row in rows]
    with pytest.raises(UserError, match="Metadata_Plate has P2, P3, but not P1"):
        listing(plate(tmp_path, other), configured(tmp_path))


def test_one_plate_of_another_name_is_taken(tmp_path):
    rows = [row.replace(",P1,", ",BR001,") for row in ROWS]
    assert list(listing(plate(tmp_path, rows), configured(tmp_path)).wells) == ["A01"]


def test_frames_are_pages(tmp_path):
    header = "FileName_A,PathName_A,Frame_A,Metadata_Row,Metadata_Col"
    rows = ["a1.tif,img,1,2,3", "a1.tif,img,0,2,3"]
    only = {"DNA": {"match": "A"}}
    found = listing(plate(tmp_path, rows, header), configured(tmp_path, only))
    assert [(p.z, p.page) for p in found.planes("B03")] == [(0, 0), (1, 1)]


def test_missing_file_is_listed_for_quarantine(tmp_path):
    rows = [ROWS[0], "a9.tif,img,b2.tif,img,P1,A1,2"]
    found = listing(plate(tmp_path, rows), configured(tmp_path))
    assert ("img/a9.tif", -1, 0) in [mark[:3] for mark in found.wells["A01"]]
    assert len(found.planes("A01")) == 4


def test_absolute_paths(tmp_path):
    inside = [f"a1.tif,{tmp_path}/raw/img,b1.tif,img,P1,A1,1"]
    found = listing(plate(tmp_path, inside), configured(tmp_path))
    assert found.planes("A01")[0].file == "img/a1.tif"


def test_a_path_out_of_the_folder_is_refused_unless_allowed(tmp_path):
    (tmp_path / "far.tif").write_bytes(b"1")
    outside = ["far.tif,..,b1.tif,img,P1,A1,1"]
    with pytest.raises(UserError, match=r"line 2: \.\./far.tif lies outside.*loaddata_outside"):
        listing(plate(tmp_path, outside), configured(tmp_path))
    allowed = configured(tmp_path, loaddata_outside=True)
    assert listing(plate(tmp_path, outside), allowed).planes("A01")[0].file == "../far.tif"


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        ([], HEADER, "has no rows"),
        (ROWS, HEADER.replace("_B", "_C"), "no column FileName_B; its channels are A, C"),
        (ROWS, HEADER.replace("Metadata_Well", "Well"), "no column Metadata_Well"),
        (["a1.tif,img,b1.tif,img,P1,ZZ1,1"], HEADER, "line 2: well or site: 'ZZ1' is no well"),
        (["a1.tif,img,b1.tif,img,P1,A1,x"], HEADER, "line 2: well or site: invalid literal"),
        ([ROWS[0], ROWS[0]], HEADER, "two files for well A01, site 1, channel DNA"),
        (["x.tif,img,y.tif,img,P1,A1,1"], HEADER, "none of the 2 files .* img/x.tif"),
        (["a1.tif,img,,,P1,A1,1"], HEADER, "no image of channel GFP"),
    ],
)
def test_mistakes_are_refused(tmp_path, rows, header, words):
    with pytest.raises(UserError, match=words) as error:
        listing(plate(tmp_path, rows, header), configured(tmp_path))
    assert "plate P1" in str(error.value)


def test_a_table_that_is_not_utf8(tmp_path):
    sheet = plate(tmp_path, ROWS)
    (sheet.path / "load_data.csv").write_bytes(f"{HEADER}\nµ.tif".encode("latin-1"))
    with pytest.raises(UserError, match=r"load_data\.csv: .* not UTF-8: save it as CSV UTF-8$"):
        listing(sheet, configured(tmp_path))


def test_unreadable_table(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match=r"load_data.csv: cannot be read: No such file"):
        listing(Plate("P1", tmp_path / "raw", "loaddata", None, False), configured(tmp_path))


def test_cell_painting_plate(real_data):
    """pe2loaddata's table of a real plate, against the fixture's own account of it."""
    folder = real_data / "vendor" / "loaddata-broad2021"
    expected = json.loads((folder / "expected.json").read_text())
    names = [channel["name"] for channel in expected["channels"]]
    config = configured(folder, {name.removeprefix("Orig"): {"match": name} for name in names})
    found = listing(Plate("BR00121482", folder, "loaddata", None, False), config)
    assert sorted(found.wells) == expected["wells"]
    got = {(p.well, p.site, f"Orig{p.channel}", p.z, p.file) for p in found.planes("A01")}
    assert got == {
        (p["well"], p["site"], p["channel"], p["z"], p["file"]) for p in expected["planes"]
    }
    assert found.pixel_size_um == pytest.approx(expected["pixel_size_um"][0])


def test_the_plates_pixel_size_stands_in_every_wells_mark(tmp_path):
    """Whichever row names it, all wells are stored with it."""
    header, config = HEADER + ",Metadata_ImageResolutionX", configured(tmp_path)
    wells = {}
    for size in ("6.5e-07", "1.3e-06"):
        rows = [f"a1.tif,img,b1.tif,img,P1,A01,1,{size}", "a2.tif,img,b2.tif,img,P1,A02,1,"]
        found = listing(plate(tmp_path, rows, header), config)
        assert found.pixel_size_um == pytest.approx(float(size) * 1e6)
        wells[size] = found.wells
    one, other = wells.values()
    assert all(one[well] != other[well] for well in ("A01", "A02"))
