"""Other images turn the format that a plate is judged by."""

import shutil

import pytest
import tifffile
from changes import CHANNELS, put_back, remove_images, set_section

from plateglass import formats, jobs
from plateglass.errors import DataError, SetupError
from plateglass.stages import SCREEN
from screen import assert_same


def test_a_share_that_drops_out_while_formats_are_looked_at_judges_nothing(screen, monkeypatch):
    raw, away = screen.folder / "raw/P2", screen.folder / "away"
    screen.raw("P2", "B01").touch()
    ask = formats.ask

    def dropped(*given):
        raw.rename(away)
        try:
            return ask(*given)
        finally:
            away.rename(raw)

    monkeypatch.setattr(formats, "ask", dropped)
    with pytest.raises(SetupError, match="was there when the job began and is not now"):
        screen.run()
    monkeypatch.undo()
    assert screen.run() == [("P2", "ingest", "B01")]
    assert screen.plan().reasons == {} and jobs.quarantined(screen.project()) == []


def crop(screen, plate, *names):
    """Images of these wells with fewer rows: another format than the other wells'."""
    for well in names:
        for channel in CHANNELS:
            path = screen.raw(plate, well, channel)
            tifffile.imwrite(path, tifffile.imread(path)[:-16])


@pytest.mark.long
@pytest.mark.parametrize("plate", ["P1", "P2"])
def test_wells_are_judged_anew_where_other_images_turn_the_plates_format(screen, plate, tmp_path):
    def run():
        screen.run()
        assert screen.plan().reasons == {}
        return {well for of, well, _ in jobs.quarantined(screen.project()) if of == plate}

    whole = screen.raw(plate, "A02").parent
    shutil.copytree(whole, tmp_path / "whole")
    crop(screen, plate, "A01", "A02", "A04", "A05", "B01")  # five of eight
    assert run() == {"A03", "A06", "B02"}
    for well in ("A02", "A05"):  # five are whole again
        for path in (tmp_path / "whole").glob(f"*_{well}_*"):
            shutil.copy2(path, whole / path.name)
    assert run() == {"A01", "A04", "B01"}
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


@pytest.mark.long
def test_wells_kept_without_their_images_have_their_say_in_the_format(screen, tmp_path):
    def quarantined():
        return {well for _, well, _ in jobs.quarantined(screen.project())}

    set_section(screen, "run", missing_raw="keep")
    kept = {}
    for well in ("A02", "A03", "B02"):
        kept |= remove_images(screen, "P2", well)
    crop(screen, "P2", "A01", "A04", "A05")  # most of those that are there, not of all
    screen.run()
    assert quarantined() == {"A01", "A04", "A05"}
    screen.raw("P2", "B01").touch()
    assert screen.run() == [("P2", "ingest", "B01")]
    crop(screen, "P2", "B01", "A06")  # five of eight: the kept ones would have to be judged anew
    with pytest.raises(DataError, match=r"A02, A03, B02 must be read again \(most wells that were"):
        screen.run()
    put_back(kept)
    screen.run()
    assert quarantined() == {"A02", "A03", "B02"}
    assert screen.plan().reasons == {}
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


@pytest.mark.long
@pytest.mark.parametrize("while_", ["nothing trains", "its ledger is lost"])
def test_a_format_that_turns_unseen_by_the_networks_is_known_to_the_plan(screen, while_):
    kept = {}
    for channel in CHANNELS:
        path = screen.raw("P1", "B01", channel)
        kept[path] = path.read_bytes(), path.stat().st_mtime_ns
    crop(screen, "P1", "A01", "A02", "A04", "A05", "B01")
    screen.run()
    put_back(kept)  # the format of A03 and A06 is the plate's again
    if while_ == "nothing trains":
        train, screen.settings["train"] = screen.settings["train"], {}
        screen.write()
        screen.run()
        assert screen.plan().reasons == {}
        screen.settings["train"] = train
        screen.write()
    else:
        screen.project().ledger_path("ingest", "P1").unlink()
    assert (SCREEN, "train") in screen.plan().reasons


@pytest.mark.long
def test_a_format_that_turns_is_nothing_to_networks_that_are_given(screen):
    shutil.copytree(screen.results / "screen/model", screen.folder / "model")
    screen.settings["train"] = {"model": "model"}
    screen.write()
    screen.run()
    crop(screen, "P1", "A01", "A02", "A04", "A05", "B01")
    screen.run()
    assert screen.plan().reasons == {}
