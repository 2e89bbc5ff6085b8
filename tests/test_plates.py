from pathlib import Path

import pytest

from plateglass import config, plates
from plateglass.errors import UserError


@pytest.fixture
def settings(tmp_path):
    def make(sheet, **platemaps):
        (tmp_path / "plates.csv").write_text(sheet)
        for name, text in platemaps.items():
            (tmp_path / f"{name}.csv").write_text(text)
        raw = {
            "plates": "plates.csv",
            "channels": {"DNA": {"match": "1"}},
            "segment": {"nuclei": {"channel": "DNA"}},
        }
        return config.parse(raw, tmp_path)

    return make


@pytest.mark.parametrize(
    ("text", "name"),
    [("A1", "A01"), ("a01", "A01"), ("P24", "P24"), ("AF48", "AF48"), (" b3 ", "B03")]
    + [(bad, None) for bad in ("AG01", "A49", "A0", "1A", "", "A1B")],
)
def test_well_names(text, name):
    assert plates.well_name(text) == name


def test_wells_sort_as_on_the_plate():
    wells = ["AA01", "B02", "A10", "A02"]
    assert sorted(wells, key=plates.well_order) == ["A02", "A10", "B02", "AA01"]


def test_a_sheet(settings, tmp_path):
    config = settings(
        "plate,path,layout,platemap,train\nP1,raw/P1,,m.csv,yes\nP2,/far/P2,pattern,,\n",
        m="well,role\na1,negative_control\nB2,\n",
    )
    one, two = plates.read_sheet(config)
    assert (one.path, one.platemap, one.train) == (tmp_path / "raw/P1", tmp_path / "m.csv", True)
    assert (str(two.path), two.layout, two.platemap, two.train) == (
        "/far/P2",
        "pattern",
        None,
        False,
    )
    wells = {"A01": {"role": "negative_control"}, "B02": {"role": ""}}
    assert plates.read_platemap(one, config) == wells
    assert plates.read_platemap(two, config) == {}


@pytest.mark.parametrize(
    ("sheet", "words"),
    [
        ("plate,path\nP1,a\np1,b\n", ["line 3", "'p1'", "line 2"]),
        ("plate,path\nP1/../x,a\n", ["'P1/../x'", "letters, digits"]),
        ("plate,path\nscreen,a\n", ["'screen'", "taken"]),
        ("plate,path,layout\nP1,a,phenix\n", ["'phenix'", "pattern, loaddata, demo"]),
        ("plate,path,train\nP1,a,maybe\n", ["'maybe'", "yes or no"]),
        ("plate,folder\nP1,a\n", ["no column 'path'"]),
        ("plate,path,tran\nP1,a,\n", ["unknown column 'tran'", "train"]),
        ("plate,path\nP1,\n", ["'P1' has no path"]),
        ("plate,path\nP1,a,b,c\n", ["line 2", "4 fields", "2 columns"]),
        ("plate,path\n", ["names no plate"]),
    ],
)
def test_mistakes_in_the_sheet(settings, sheet, words):
    with pytest.raises(UserError) as refused:
        plates.read_sheet(settings(sheet))
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("platemap", "words"),
    [
        ("well,label\nA01,x\n", ["no column 'role'", "platemap.label", "well, label"]),
        ("well;role;dose, uM\nA01;x;1,5\n", ["m.csv", "separated by semicolons; use commas"]),
        ("well\trole\nA01\tx\n", ["separated by tabs"]),
        ("well,role\nZ99,x\n", ["line 2", "'Z99'", "AF48"]),
        ("well,role\nA01,x\nA1,y\n", ["line 3", "A01 stands already in line 2"]),
        ("well,role\nA01,x\nA02\n", ["m.csv, line 3", "only 1 of the 2 columns", "commas"]),
        ("well,role\nA01,x,y\n", ["m.csv, line 2", "3 fields", "2 columns"]),
    ],
)
def test_mistakes_in_a_platemap(settings, platemap, words):
    config = settings("plate,path,platemap\nP1,a,m.csv\n", m=platemap)
    with pytest.raises(UserError) as refused:
        plates.read_platemap(plates.read_sheet(config)[0], config)
    for word in ["P1", *words]:
        assert word in str(refused.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_what_is_not_utf8_is_named_with_how_to_save_it(settings, tmp_path, encoding):
    config = settings("plate,path,platemap\nP1,a,m.csv\n")
    (tmp_path / "m.csv").write_bytes("well,role\nA01,5 µM\n".encode(encoding))
    with pytest.raises(
        UserError, match=r"^plate P1: .*m\.csv: .* not UTF-8: save it as CSV UTF-8$"
    ):
        plates.read_platemap(plates.read_sheet(config)[0], config)
    (tmp_path / "plates.csv").write_bytes("plate,path\nP1,Bögen\n".encode(encoding))
    with pytest.raises(UserError, match=r"plates\.csv: .* not UTF-8: save it as CSV UTF-8$"):
        plates.read_sheet(config)


def test_a_row_of_the_sheet_may_leave_its_last_columns_out(settings):
    (plate,) = plates.read_sheet(settings("plate,path,layout,platemap,train\nP1,raw\n"))
    assert (plate.layout, plate.platemap, plate.train) == ("pattern", None, False)


@pytest.mark.parametrize("path", ["a\0b", "~nobody-of-that-name/P1"])
def test_what_no_file_can_be_called_is_refused_in_words(settings, path):
    for sheet in (f"plate,path\nP1,{path}\n", f"plate,path,platemap\nP1,raw,{path}\n"):
        with pytest.raises(UserError, match=r"plates\.csv: .* cannot be a path"):
            plates.read_sheet(settings(sheet))
    with pytest.raises(UserError, match=r"settings: .* cannot be a path"):
        config.absolute(Path("/"), Path(path))
