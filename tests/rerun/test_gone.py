"""Images, folders and platemaps that are gone: nothing is dropped unasked, and the others run."""

import shutil
from unittest.mock import Mock

import pytest
from changes import (
    CHANNELS,
    WELL_STAGES,
    ends,
    put_back,
    relabel,
    remove_images,
    set_section,
    wells,
)

from plateglass import jobs
from plateglass.errors import UserError
from plateglass.stages import SCREEN, train
from screen import WELLS, assert_same


@pytest.mark.parametrize("plate", ["P1", pytest.param("P2", marks=pytest.mark.long)])
def test_a_plates_folder_gone_with_its_platemap_refuses_it_and_drops_nothing(
    screen, finished, plate
):
    """Also of the plate that the networks were trained on (P1): its training wells are known."""
    raw = screen.folder / "raw" / plate
    raw.rename(raw.with_name("elsewhere"))
    for emptied in (False, True):
        if emptied:  # an unmounted share leaves its empty folder
            raw.mkdir()
        plan = screen.plan()
        assert list(plan.refused) == [plate] and str(raw) in plan.refused[plate]
        assert plan.reasons == {}
        assert not [pair for pair in plan.keys if pair[0] == plate]
    # the others go on: only the other plate and the screen
    other = {"P1": "P2", "P2": "P1"}[plate]
    screen.replace_image(other, "B01")
    wanted = wells(screen, [other], WELL_STAGES, ["B01"]) + ends(other)
    assert sorted(screen.run()) == sorted(wanted)
    set_section(screen, "run", missing_raw="keep")
    assert screen.plan().refused == {} and screen.plan().reasons == {}
    table = f"{plate}/cells.parquet"
    assert screen.tables()[table].equals(finished.tables()[table])


@pytest.mark.long
def test_a_refused_plates_deleted_table_is_put_back_before_the_screens_are_made(screen, tmp_path):
    raw = screen.folder / "raw/P2"
    raw.rename(screen.folder / "away")
    shutil.rmtree(screen.results / "P2")
    relabel(screen, "P1", "B01", "reference")
    screen.run()
    (screen.folder / "away").rename(raw)
    screen.run()
    assert screen.plan().reasons == {}
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


@pytest.mark.long
@pytest.mark.parametrize("before", ["", "a job that was to train others failed"])
def test_a_training_plate_refused_with_unlabelled_pixels_holds_nobody_up(
    screen, tmp_path, monkeypatch, before
):
    set_section(screen, "train", epochs=1)
    set_section(screen, "attribute", cells_per_well=1)
    if before:
        monkeypatch.setattr(train, "collect", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            screen.run()
        monkeypatch.undo()
        assert not list(screen.results.glob(".plateglass/done/screen.train.*"))
    screen.replace_image("P1", "A04")
    screen.run(until="ingest")
    raw = screen.folder / "raw/P1"
    raw.rename(screen.folder / "away")
    assert "the networks stay as they are until P1 can be run" in screen.plan().notes
    ran = screen.run()
    assert ("P2", "attribute", "B02") in ran and (SCREEN, "train", "") not in ran
    assert screen.plan().reasons == {}
    (screen.folder / "away").rename(raw)
    screen.run()
    assert screen.plan().reasons == {}
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


@pytest.mark.long
@pytest.mark.parametrize("plate", ["P1", "P2"])
@pytest.mark.parametrize("what", ["ingest", "segment", "its platemap and an image"])
def test_a_refused_plate_that_comes_back_to_changes_equals_a_run_from_scratch(
    screen, tmp_path, plate, what
):
    """What the screen is made of meanwhile (networks, tables) is made again."""
    changed = {
        "ingest": {"z_step_um": 2.0},
        "segment": {"cells": {"channel": "Actin", "reach_um": 12}},
    }
    raw = screen.folder / "raw" / plate
    gone = raw / "platemap.csv"
    if what in changed:
        gone = raw
        set_section(screen, what, **changed[what])
    else:
        screen.replace_image(plate, "A02")
    gone.rename(screen.folder / "away")
    assert list(screen.plan().refused) == [plate]
    assert plate not in {of for of, _, _ in screen.run()}
    assert screen.plan().reasons == {}
    (screen.folder / "away").rename(gone)
    assert (plate, "report", "") in screen.run()
    assert screen.plan().reasons == {}
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


def test_a_platemap_gone_refuses_its_plate_alone(screen, finished):
    path = screen.folder / "raw/P1/platemap.csv"
    content = path.read_bytes()
    path.unlink()
    plan = screen.plan()
    assert list(plan.refused) == ["P1"] and plan.reasons == {}
    lost = f"{path}: cannot be read: No such file or directory; "
    assert f"{lost}nothing was touched" in plan.refused["P1"]
    path.write_text("well\n")  # there, and wrong: the mistake of a hand, told before any job
    with pytest.raises(UserError, match="has no column"):
        screen.plan()
    path.unlink()
    set_section(screen, "run", missing_raw="keep")
    assert screen.plan().reasons == {}
    assert [note for note in screen.plan().notes if f"{lost}its copy of the last run" in note]
    screen.sheet["P1"]["platemap"] = "raw/P1/platemap_2.csv"  # another file: a mistake, again
    screen.write()
    with pytest.raises(UserError, match=r"platemap_2.csv: cannot be read"):
        screen.plan()
    screen.sheet["P1"].pop("platemap")
    screen.write()
    path.write_bytes(content)
    assert screen.plan().reasons == {}
    (copy,) = (screen.results / ".plateglass/platemaps").glob("P1.*")
    copy.write_bytes(b"\xff")  # damaged: the next job of the plate mends it
    screen.raw("P1", "B01").touch()
    assert screen.run() == [("P1", "ingest", "B01")]
    assert copy.read_bytes() == content


def test_most_wells_gone_is_doubted_until_accepted(screen):
    kept = remove_images(screen, "P2", "A02")
    set_section(screen, "run", missing_raw="keep")
    assert screen.plan().reasons == {}  # of any number
    for well in ("A03", "A04", "A05", "A06", "B01"):
        kept |= remove_images(screen, "P2", well)
    screen.raw("P2", "B02").touch()  # those that are there are told as they are
    assert screen.run() == [("P2", "ingest", "B02")]
    assert screen.plan().reasons == {}
    set_section(screen, "run", missing_raw="refuse")
    plan = screen.plan()
    assert "6 of 8 known wells have no image" in plan.refused["P2"]
    assert "run.accept_removed: [P2]" in plan.refused["P2"]
    assert plan.reasons == {}
    put_back(kept)
    assert screen.plan().refused == {} and screen.plan().reasons == {}
    for well in ("A02", "A03", "A05", "A06", "B01"):  # units' wells too: what is left is redone
        remove_images(screen, "P2", well)
    set_section(screen, "run", missing_raw="keep")
    part = screen.results / ".plateglass/parts/P2/ingest/A02.arrow"
    content = part.read_bytes()
    part.unlink()  # and nothing to make it anew from
    plan = screen.plan()
    assert "P2: A02 must be read again" in plan.refused["P2"]
    assert not [plate for plate, _ in plan.reasons if plate == "P2"]
    part.write_bytes(content)
    for missing_raw, notes in (("keep", 0), ("refuse", 1)):  # kept wells are not dropped
        set_section(screen, "run", missing_raw=missing_raw, accept_removed=["P2"])
        assert sum("as run.accept_removed names it" in n for n in screen.plan().notes) == notes
    left = ["A01", "A04", "B02"]
    wanted = wells(screen, ["P2"], ("features", "attribute"), left) + ends("P2")
    assert sorted(screen.run()) == sorted(wanted)
    assert set(screen.tables()["P2/cells.parquet"]["Metadata_Well"]) == set(left)
    assert screen.plan().reasons == {}


def test_images_gone_that_a_loaddata_table_still_names_are_doubted(untrained):
    screen = untrained
    table = ["Metadata_Well," + ",".join(f"FileName_{channel}" for channel in CHANNELS)]
    for well in WELLS:
        table.append(",".join([well, *(screen.raw("P2", well, c).name for c in CHANNELS)]))
    (screen.folder / "raw/P2/load_data.csv").write_text("\n".join(table))
    screen.sheet["P2"]["layout"] = "loaddata"
    screen.write()
    screen.run()
    kept = remove_images(screen, "P2", "A02")
    for well in ("A03", "A04", "A05"):  # half of them is no doubt, one more is
        assert screen.plan().refused == {}
        kept |= remove_images(screen, "P2", well)
    assert screen.plan().refused == {}
    nothing = f"load_data.csv: none of the {len(WELLS) * len(CHANNELS)} files it names is there"
    for gone, said in ((["A06"], "5 of 8 known wells"), (["A01", "B01", "B02"], nothing)):
        for well in gone:
            kept |= remove_images(screen, "P2", well)
        plan = screen.plan()
        assert said in plan.refused["P2"]
        assert plan.reasons == {}
    put_back(kept)
    assert screen.plan().refused == {} and screen.plan().reasons == {}
    remove_images(screen, "P2", "A02")
    set_section(screen, "run", missing_raw="keep")
    assert screen.plan().reasons == {}
    set_section(screen, "ingest", z_step_um=2.0)
    assert "P2: A02 must be read again" in screen.plan().refused["P2"]
    assert {plate for plate, _ in screen.plan().reasons} == {"P1", SCREEN}
    assert {plate for plate, _, _ in screen.run(until="ingest")} == {"P1"}


def test_keep_keeps_what_is_gone_and_nothing_else(screen):
    set_section(screen, "run", missing_raw="keep")
    kept = {}
    for channel in CHANNELS:
        path = screen.raw("P2", "A02", channel)
        kept[path] = path.read_bytes(), path.stat().st_mtime_ns
    screen.raw("P2", "A02").unlink()  # one file of three: it is being archived
    plan = screen.plan()
    assert plan.reasons == {}
    assert [note for note in plan.notes if "P2: 1 well(s) without (all) their images stay" in note]
    put_back(kept)
    twice = screen.raw("P2", "A01")
    stray = twice.with_name(twice.name.replace("_s1_", "_s01_"))
    shutil.copy(twice, stray)
    screen.raw("P2", "B01").touch()
    assert "two files for well A01" in screen.plan().refused["P2"]  # nothing is gone: a mistake


@pytest.mark.long
def test_keep_keeps_wells_that_gave_nothing_and_reads_those_that_never_had_more(screen):
    screen.raw("P2", "A02").unlink()
    screen.run()
    assert [well for _, well, _ in jobs.quarantined(screen.project())] == ["A02"]
    set_section(screen, "run", missing_raw="keep")
    screen.raw("P2", "A02", "DNA").touch()  # no fewer than there were
    assert screen.run() == [("P2", "ingest", "A02")]
    for channel in ("DNA", "Actin"):
        screen.raw("P2", "A02", channel).unlink()
    plan = screen.plan()
    assert plan.reasons == {}
    assert [note for note in plan.notes if "P2: 1 well(s) without (all) their images stay" in note]


def test_a_refused_plates_own_changes_make_nothing_of_the_screen(screen):
    raw = screen.folder / "raw/P2"
    shutil.copy(raw / "platemap.csv", screen.folder / "map.csv")
    screen.sheet["P2"]["platemap"] = "map.csv"
    screen.write()
    screen.run()
    path = screen.folder / "map.csv"
    path.write_text(path.read_text().replace("treatment", "reference"))
    raw.rename(screen.folder / "away")
    plan = screen.plan()
    assert "P2" in plan.refused and not any(plan.reasons.values())
    assert screen.run() == []
