"""The demo's index is one and the same before its files are rendered and after."""

import os
from types import SimpleNamespace

import pytest

from plateglass import synthetic
from plateglass.errors import UserError
from plateglass.layouts import demo, listing
from plateglass.plates import Plate


def settings(raw_check="mtime", channels=("DNA", "Actin", "Marker")):
    return SimpleNamespace(
        channels={name: SimpleNamespace(match=name) for name in channels},
        run=SimpleNamespace(raw_check=raw_check),
    )


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A demo plate of six small wells."""
    monkeypatch.setitem(synthetic.DEMO, "demo_1", synthetic.tiny("demo_1", size=48, cells=2))
    return Plate("demo_1", tmp_path / "demo_1", "demo", None, True)


@pytest.mark.parametrize("raw_check", ["mtime", "ctime"])
def test_rendering_changes_nothing_in_the_index(small, raw_check):
    before = listing(small, settings(raw_check))
    assert len(before.wells) == 6 and len(demo.missing(small)) == 18
    demo.render(small)
    after = listing(small, settings(raw_check))
    assert after.wells == before.wells
    assert demo.missing(small) == []
    assert [tuple(p)[:4] for p in after.planes("A01")] == [
        ("A01", 1, channel, 1) for channel in ("Actin", "DNA", "Marker")
    ]
    assert after.pixel_size_um == 0.65


def test_an_edited_or_touched_file_shows_in_its_well_alone(small):
    synthetic.render("demo_1", small.path)
    before = listing(small, settings()).wells
    os.utime(small.path / "demo_1_A02_s1_DNA.tif", ns=(5, 5))
    (small.path / "demo_1_A03_s1_DNA.tif").write_bytes(b"other")
    after = listing(small, settings()).wells
    assert [well for well in before if before[well] != after[well]] == ["A02", "A03"]
    edited = next(mark for mark in after["A03"] if "DNA" in mark[0])
    assert edited[:2] == ("demo_1_A03_s1_DNA.tif", 5)


def test_its_pixel_size_shows_as_another_layout_does_not_tell_it(small):
    synthetic.render("demo_1", small.path)
    assert {mark[-1] for marks in listing(small, settings()).wells.values() for mark in marks} == {
        0.65
    }


def test_a_lost_file_is_told_as_specified_and_named_as_missing(small):
    synthetic.render("demo_1", small.path)
    before = listing(small, settings()).wells
    (small.path / "demo_1_A05_s1_Marker.tif").unlink()
    assert listing(small, settings()).wells == before
    assert demo.missing(small) == ["demo_1_A05_s1_Marker.tif"]


def test_files_of_an_older_version_are_rendered_anew(small, monkeypatch):
    monkeypatch.setattr(synthetic, "MTIME_NS", synthetic.MTIME_NS - synthetic.DAY)
    demo.render(small)
    monkeypatch.undo()
    monkeypatch.setitem(synthetic.DEMO, "demo_1", synthetic.tiny("demo_1", size=48, cells=2))
    (small.path / "demo_1_A01_s1_DNA.tif").write_bytes(b"mine")
    before = listing(small, settings()).wells
    assert len(demo.missing(small)) == 17
    demo.render(small)
    assert demo.missing(small) == []
    assert (small.path / "demo_1_A01_s1_DNA.tif").read_bytes() == b"mine"
    assert listing(small, settings()).wells == before


def test_fewer_channels_may_be_asked_for_but_none_that_is_not_there(small):
    assert {p.channel for p in listing(small, settings(channels=("DNA",))).planes("A01")} == {"DNA"}
    with pytest.raises(UserError, match=r"no image of channel GFP.*Actin, DNA, Marker"):
        listing(small, settings(channels=("DNA", "GFP")))


def test_an_unknown_demo_plate(small):
    with pytest.raises(UserError, match="demo_1, demo_2"):
        listing(Plate("mine", small.path, "demo", None, True), settings())
