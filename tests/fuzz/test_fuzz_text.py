"""Settings, sheets, platemaps and LoadData tables of any brokenness: read, or refused in words."""

import copy
import os
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from plateglass import config, plates
from plateglass.errors import PlateglassError
from plateglass.layouts import loaddata, pattern
from plateglass.plates import Plate
from plateglass.project import Project

SETTINGS = {
    "plates": "plates.csv",
    "results": "results",
    "platemap": {"well": "well", "label": "role"},
    "channels": {"DNA": {"match": "A", "color": "0000FF"}, "GFP": {"match": "B"}},
    "ingest": {"pattern": r"(?P<well>\w\d\d)_(?P<channel>\w)\.tif", "pixel_size_um": 0.65},
    "segment": {"nuclei": {"channel": "DNA"}, "cells": {"channel": "GFP", "grow_um": 3}},
    "train": {"classes": ["a", "b"], "surroundings": {"how": "swap", "p": 0.5}},
    "run": {"dask": {"scheduler": "tcp://x:1"}, "accept_removed": ["P1"]},
}
SHEET = "plate,path,layout,platemap,train\nP1,raw,pattern,map.csv,yes\nP2,raw,loaddata,,no\n"
MAP = "well,role,dose\nA1,a,1\nA02,a,2\nA03,b,3\nA4,b,\nAF48,none,9\n"
TABLE = (
    "FileName_A,PathName_A,FileName_B,PathName_B,Frame_A,Metadata_Plate,Metadata_Well,Metadata_Site\n"
    "a1.tif,,b1.tif,,,P2,A1,1\na2.tif,.,b2.tif,,0,P2,A1,2\n"
)
WORDS = [
    "",
    "~",
    "~nobody",
    "..",
    "/",
    "\0",
    "A01",
    "screen",
    "1e999",
    "-1",
    '"',
    "é",
    "\ufeff",
    "²",
]
TEXT = st.one_of(st.sampled_from(WORDS), st.text(max_size=12))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(TEXT, st.integers()), inner, max_size=3),
    ),
    max_leaves=5,
)
SOME = 40
AMOUNTS = [pytest.param(SOME, id="some"), pytest.param(700, id="many", marks=pytest.mark.long)]


def explore(amount, strategy, check):
    """Try so many cases: few are always the same, many are new ones, whose seed the summary tells."""
    number = 0 if amount == SOME else int(os.environ["PLATEGLASS_FUZZ_SEED"])
    options = settings(
        max_examples=amount, deadline=10_000, database=None, suppress_health_check=list(HealthCheck)
    )
    seed(number)(options(given(strategy)(check)))()


def in_words(function, *given):
    """What the function gives, or None where it refuses with a message of ours; no other error."""
    try:
        return function(*given)
    except PlateglassError as error:
        assert str(error).strip()
        return None


def edited(text):
    """A text with some of its characters replaced, taken out or put in."""
    edit = st.tuples(st.integers(0, len(text)), st.integers(0, 12), TEXT)

    def apply(edits):
        changed = text
        for at, length, new in edits:
            changed = changed[:at] + new + changed[at + length :]
        return changed

    return st.lists(edit, min_size=1, max_size=3).map(apply)


@st.composite
def broken(draw):
    """Settings with some values, or keys, that are something else."""
    whole = copy.deepcopy(SETTINGS)
    for _ in range(draw(st.integers(1, 3))):
        at, key = whole, draw(st.sampled_from(sorted(whole, key=str)))
        while isinstance(at.get(key), dict) and at[key] and draw(st.booleans()):
            at = at[key]
            key = draw(st.sampled_from(sorted(at, key=str)))
        kind = draw(st.sampled_from(["value", "key", "gone"]))
        if kind == "value":
            at[key] = draw(VALUES)
        elif kind == "key":
            at[draw(st.one_of(TEXT, st.integers()))] = draw(VALUES)
        else:
            at.pop(key, None)
    return whole


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "plates.csv").write_text(SHEET)
    (tmp_path / "map.csv").write_text(MAP)
    for name in ("A01_A.tif", "A01_B.tif", "a1.tif", "b1.tif", "a2.tif", "b2.tif"):
        (tmp_path / "raw" / name).write_bytes(b"x")
    (tmp_path / "raw/load_data.csv").write_text(TABLE)
    return tmp_path


@pytest.mark.parametrize("amount", AMOUNTS)
def test_settings_with_other_values(folder, amount):
    def check(whole):
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(whole), encoding="utf-8")
        read = in_words(config.read, file)
        if read is not None:
            in_words(Project.read, read)

    explore(amount, broken(), check)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_settings_as_text(folder, amount):
    def check(text):
        (folder / "config.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
        in_words(config.read, folder / "config.yaml")

    explore(amount, edited(yaml.safe_dump(SETTINGS)), check)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_sheets_and_platemaps(folder, amount):
    read = config.parse(SETTINGS, folder)

    def check(texts):
        for name, text in zip(("plates.csv", "map.csv"), texts, strict=True):
            (folder / name).write_text(text, encoding="utf-8", newline="")
        sheet = in_words(plates.read_sheet, read)
        for plate in sheet or ():
            assert set(plate.name) <= set(string.ascii_letters + string.digits + "_-")
            for well in in_words(plates.read_platemap, plate, read) or ():
                assert plates.well_name(well) == well

    explore(amount, st.tuples(edited(SHEET), edited(MAP)), check)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_loaddata_tables(folder, amount):
    """And none of them leads out of the plate's folder."""
    read = config.parse(SETTINGS, folder)
    plate = Plate("P2", folder / "raw", "loaddata", None, False)

    def check(text):
        (folder / "raw/load_data.csv").write_text(text, encoding="utf-8", newline="")
        found = in_words(loaddata.listing, plate, read)
        for well in found.wells if found else ():
            for plane in found.planes(well):
                path = Path(os.path.normpath(folder / "raw" / plane.file))
                assert path.is_relative_to(folder / "raw"), plane

    explore(amount, edited(TABLE), check)


@pytest.mark.parametrize("amount", AMOUNTS)
def test_patterns_and_file_names(folder, amount):
    plate = Plate("P1", folder / "raw", "pattern", None, False)
    names = st.lists(
        st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=20),
        max_size=3,
    )

    def check(case):
        text, files = case
        made = [folder / "raw" / name for name in files if name.strip(".")]
        for path in made:
            path.touch()
        read = config.parse(SETTINGS | {"ingest": {"pattern": text}}, folder)
        in_words(pattern.listing, plate, read)
        for path in made:
            path.unlink(missing_ok=True)

    explore(amount, st.tuples(edited(SETTINGS["ingest"]["pattern"]), names), check)
