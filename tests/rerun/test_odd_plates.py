"""Plates that give less than they promise: quarantine, empty wells, folders that are gone."""

import contextlib
import ctypes
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
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

from plateglass import formats, jobs
from plateglass.errors import DataError, SetupError, UserError
from plateglass.stages import SCREEN, STAGES
from screen import WELLS, Screen, assert_same


def blank(screen, plate, well):
    """Images of the well without a cell in them: the camera's noise."""
    for at, channel in enumerate(CHANNELS):
        path = screen.raw(plate, well, channel)
        shape = tifffile.imread(path).shape
        noise = np.random.default_rng(at).normal(100, 2, shape).astype(np.uint16)
        tifffile.imwrite(path, noise)


def test_a_quarantined_image_fails_a_strict_run_and_mended_leaves_no_trace(screen, finished):
    path = screen.raw("P2", "B02")
    whole, times = path.read_bytes(), path.stat()
    path.write_bytes(whole[:3000])
    assert sorted(screen.run()) == sorted([("P2", "ingest", "B02"), *ends("P2")])
    assert screen.plan().reasons == {}
    ((plate, well, why),) = jobs.quarantined(screen.project())
    assert (plate, well) == ("P2", "B02") and "P2_B02_s1_Marker.tif: truncated TIFF" in why
    set_section(screen, "run", strict=True)
    assert screen.plan().reasons == {}  # strictness makes nothing stale
    with pytest.raises(DataError, match=r"(?s)run.strict: 1 well.s. or site.s. in quarantine.*B02"):
        jobs.hold_to_strict(screen.project())
    path.write_bytes(whole)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    wanted = wells(screen, ["P2"], WELL_STAGES, ["B02"]) + ends("P2")
    assert sorted(screen.run()) == sorted(wanted)
    assert screen.plan().reasons == {}
    assert_same(screen, finished)


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
def test_a_training_plate_refused_with_unlabelled_pixels_holds_nobody_up(screen, tmp_path):
    screen.replace_image("P1", "A04")
    screen.run(until="ingest")
    raw = screen.folder / "raw/P1"
    raw.rename(screen.folder / "away")
    set_section(screen, "train", epochs=1)
    set_section(screen, "attribute", cells_per_well=1)
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


def test_images_gone_that_a_loaddata_table_still_names_are_doubted(tmp_path):
    screen = Screen(tmp_path, train=False)
    table = ["Metadata_Well," + ",".join(f"FileName_{channel}" for channel in CHANNELS)]
    for well in WELLS:
        table.append(",".join([well, *(screen.raw("P2", well, c).name for c in CHANNELS)]))
    (tmp_path / "raw/P2/load_data.csv").write_text("\n".join(table))
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
    assert {plate for plate, _, _ in screen.run()} == {"P1", SCREEN}


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


def test_a_plate_taken_from_the_sheet_while_a_run_is_under_way(screen):
    relabel(screen, "P1", "B01", "reference")
    keys = screen.plan().keys
    row = screen.sheet.pop("P2")
    screen.write()
    for stage in ("aggregate", "report"):
        with pytest.raises(UserError, match=f"screen {stage}: the settings or a platemap changed"):
            jobs.run(screen.project(), stage, SCREEN, keys[SCREEN, stage], 1)
    screen.sheet["P2"] = row
    screen.write()
    assert (SCREEN, "report", "") in screen.run()


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


def crop(screen, plate, *names):
    """Images of these wells with fewer rows: another format than the other wells'."""
    for well in names:
        for channel in CHANNELS:
            path = screen.raw(plate, well, channel)
            tifffile.imwrite(path, tifffile.imread(path)[:-16])


@pytest.mark.parametrize("plate", [pytest.param("P1", marks=pytest.mark.long), "P2"])
def test_wells_are_judged_anew_where_other_images_turn_the_plates_format(screen, plate, tmp_path):
    """Also training wells (P1), of which the plan could not know: the user is asked to go on."""

    def run():
        if plate == "P1":
            with pytest.raises(
                DataError, match=r"training wells are judged by it: give the same command"
            ):
                screen.run()
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
    asked = pytest.raises(DataError, match=r"give the same command again for what is made of them")
    with asked:
        screen.run()
    screen.run()
    assert screen.plan().reasons == {}
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
        with asked:
            screen.run()
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


def test_same_size_and_time_is_seen_by_ctime_alone(screen):
    """The documented blind spot of ``raw_check: mtime``, and what sees it."""
    path = screen.raw("P2", "B01")

    def signatures(check):
        set_section(screen, "run", raw_check=check)
        return screen.plan().raw["P2"]

    before = {check: signatures(check) for check in ("mtime", "ctime")}
    times, pixels = path.stat(), path.read_bytes()
    path.write_bytes(pixels[:-1] + bytes([pixels[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert signatures("mtime") == before["mtime"]
    now = signatures("ctime")
    assert [w for w in now if now[w] != before["ctime"][w]] == ["B01"]


@pytest.mark.long
def test_same_size_and_time_is_mended_by_a_run_with_ctime(screen, tmp_path):
    set_section(screen, "run", raw_check="ctime")
    looked = screen.run()  # another way to look: ingest looks at all once, nothing else computes
    assert {s for _, s, _ in looked} == {"ingest"}
    path = screen.raw("P2", "B01")
    times, pixels = path.stat(), path.read_bytes()
    path.write_bytes(pixels[:-1] + bytes([pixels[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    wanted = wells(screen, ["P2"], WELL_STAGES, ["B01"]) + ends("P2")
    assert sorted(screen.run()) == sorted(wanted)
    assert screen.plan().reasons == {}
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


def test_a_well_without_cells_goes_through_the_whole_chain(screen):
    blank(screen, "P2", "B02")
    wanted = wells(screen, ["P2"], WELL_STAGES, ["B02"]) + ends("P2")
    assert sorted(screen.run()) == sorted(wanted)
    assert screen.plan().reasons == {}
    assert jobs.quarantined(screen.project()) == []
    tables = screen.tables()
    assert "B02" not in set(tables["P2/cells.parquet"]["Metadata_Well"])
    sites = tables["P2/sites.parquet"].set_index("Metadata_Well")
    assert sites.loc["B02", "Count_Cells"] == 0 and sites.loc["B01", "Count_Cells"] > 0
    assert "B02" in (screen.results / "P2/report.html").read_text()


@pytest.mark.long
def test_a_training_plate_whose_controls_cannot_be_read_is_refused(tmp_path):
    screen = Screen(tmp_path, platemap={"negative": "vehicle"})
    relabel(screen, "P1", "B01", "vehicle")
    for channel in CHANNELS:
        screen.raw("P1", "B01", channel).write_bytes(b"cut")
    with pytest.raises(
        DataError, match=r"P1: none of the wells that its units are made from .* \(B01\)"
    ):
        screen.run(until="train")


def test_a_class_whose_wells_have_no_cells_is_refused_by_name(tmp_path):
    screen = Screen(tmp_path)
    for well in ("A04", "A05", "A06"):
        blank(screen, "P1", well)
    with pytest.raises(DataError, match=r"'positive_control' has 0 training well.s. with cells"):
        screen.run(until="train")


@contextlib.contextmanager
def as_plain_user():
    """Root reads everything, whatever a file's mode: give up that right for a while (capget(2)).

    Another user's id would not do: it may not be let into the folder of the code."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    rights = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    if libc.capget(header, rights) != 0:
        pytest.skip(f"rights cannot be read: {os.strerror(ctypes.get_errno())}")
    before = rights[0]
    rights[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, rights) == 0
    try:
        yield
    finally:
        rights[0] = before
        assert libc.capset(header, rights) == 0


def test_an_image_that_may_not_be_read_fails_the_job_and_is_not_quarantined(tmp_path):
    """A fault of the machine, not of the image: nobody judges what was never read."""
    screen = Screen(tmp_path, train=False)
    screen.raw("P1", "A02").chmod(0)
    with as_plain_user(), pytest.raises(PermissionError, match=r"P1_A02_s1_Marker\.tif"):
        screen.run(until="ingest")
    assert screen.project().ledger("ingest", "P1").keys() == {"A01"}
    screen.raw("P1", "A02").chmod(0o644)
    with as_plain_user():
        ran = screen.run(until="ingest")
    wanted = wells(screen, ["P1", "P2"], ["ingest"])
    assert sorted(ran) == sorted(set(wanted) - {("P1", "ingest", "A01")})


def test_a_folder_that_may_not_be_read_is_a_message(tmp_path):
    screen = Screen(tmp_path, train=False)
    shutil.rmtree(tmp_path / "raw/P2")
    (tmp_path / "raw/P2").write_text("no folder")
    screen.sheet["P2"]["platemap"] = "raw/P1/platemap.csv"
    screen.write()
    with pytest.raises(UserError, match=r"plate P2: .*raw/P2: cannot be read: .*share mounted"):
        screen.plan()


def test_what_of_the_settings_for_training_does_not_come_to_pass_is_told(screen):
    screen.settings["train"] = {**screen.settings["train"], "folds": 4}
    screen.write()
    for file in screen.raw("P1", "A02").parent.glob("*_A02_*"):
        file.unlink()
    told = "train.folds is 4, but class 'negative_control' has 2 training wells with images"
    assert [note for note in screen.plan().notes if note.startswith(told)]
    screen.sheet["P1"]["train"] = "no"
    screen.write()
    assert (
        "No plate of the sheet says train: yes, so no network was trained." in screen.plan().notes
    )


def test_a_plan_says_what_it_knows_of_a_stage_that_is_stale(screen, monkeypatch):
    for stage in ("aggregate", "report"):
        newer = replace(STAGES[stage], version=STAGES[stage].version + 1)
        monkeypatch.setitem(STAGES, stage, newer)
        assert screen.plan().why("P1", stage) == "the stage's code changed"
        monkeypatch.undo()
    (screen.results / "P1/wells.parquet").write_bytes(b"cut")
    assert screen.plan().why("P1", "aggregate") == "what was stored is damaged"
    screen.settings["segment"] = {**screen.settings["segment"], "cells": {"channel": "Marker"}}
    screen.write()
    assert screen.plan().why("P2", "segment").startswith("8 wells: segment.cells.channel changed")
    screen.run(until="attribute")  # stopped there: nobody knows any more what began it
    assert screen.plan().why("P2", "aggregate") == "wells or the platemap changed"
    assert screen.plan().why("P2", "report") == "tables or the model changed"


def test_images_that_the_pattern_leaves_out_are_named_and_change_nothing(screen):
    assert screen.plan().notes == []
    for name in ("overview.tif", "readme.txt"):
        (screen.raw("P2", "A01").parent / name).write_bytes(b"")
    plan = screen.plan()
    assert plan.notes == [
        "plate P2: images that ingest.pattern does not match are left out, as overview.tif"
    ]
    assert plan.reasons == {}


@pytest.mark.parametrize("stage", ["attribute", "report"])
def test_what_a_stage_reads_of_others_may_not_be_edited_either(screen, stage):
    set_section(screen, "attribute", cells_per_well=1)
    keys = screen.plan().keys
    if stage == "attribute":
        relabel(screen, "P2", "A02", "reference")  # the plate's units
    else:
        set_section(screen, "platemap", negative="positive_control")
    with pytest.raises(UserError, match=f"P2 {stage}: the settings or a platemap changed after"):
        jobs.run(screen.project(), stage, "P2", keys["P2", stage], 1)


def test_settings_edited_while_a_run_is_under_way_are_refused_and_leave_no_trace(screen, finished):
    """A job reads its settings anew; taken back, they would be what the plan asked for."""
    set_section(screen, "segment", cells={"channel": "Actin", "reach_um": 3})
    set_section(screen, "ingest", pixel_size_um=0.7)
    relabel(screen, "P2", "B01", "reference")
    keys = screen.plan().keys
    files = [
        path for path in screen.results.rglob("*") if path.is_file() and path.parent.name != "locks"
    ]
    before = {path: path.stat().st_mtime_ns for path in files}
    set_section(screen, "segment", cells={"channel": "Marker", "reach_um": 3})
    set_section(screen, "ingest", pixel_size_um=0.8)
    relabel(screen, "P2", "B01", "treatment")
    for stage in ("ingest", "segment", "aggregate"):
        with pytest.raises(
            UserError, match=f"P2 {stage}: the settings or a platemap changed after"
        ):
            jobs.run(screen.project(), stage, "P2", keys["P2", stage], 1)
    assert {path: path.stat().st_mtime_ns for path in files} == before, "something was computed"
