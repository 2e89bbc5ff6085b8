"""Settings, sheet and platemaps edited while a run is under way."""

import shutil

import pytest
from changes import relabel, set_section

from plateglass import jobs
from plateglass.errors import DataError, UserError
from plateglass.stages import SCREEN
from screen import assert_same


def test_a_plate_taken_from_the_sheet_while_a_run_is_under_way(screen):
    relabel(screen, "P1", "B01", "reference")
    keys = screen.plan().keys
    row = screen.sheet.pop("P2")
    screen.write()
    for stage in ("aggregate", "report"):
        with pytest.raises(UserError, match=f"screen {stage}: the settings or a platemap changed"):
            jobs.run(screen.project(), stage, SCREEN, keys[SCREEN, stage], 1)
    with pytest.raises(UserError, match="plate P2 was taken from the sheet after this run was pla"):
        jobs.run(screen.project(), "report", "P2", keys["P2", "report"], 1)
    screen.sheet["P2"] = row
    screen.write()
    assert (SCREEN, "report", "") in screen.run()


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


def test_a_plates_path_edited_while_a_run_is_under_way_takes_nothing_out(screen, finished):
    """A moved plate is no change, so its path is no part of a key."""
    screen.raw("P2", "A01").touch()
    keys = screen.plan().keys
    shutil.copytree(screen.folder / "raw/P2", screen.folder / "raw/other")
    for path in (screen.folder / "raw/other").glob("*_B01_*"):
        path.unlink()
    before = screen.sheet["P2"]["path"]
    screen.sheet["P2"]["path"] = "raw/other"
    screen.write()
    with pytest.raises(
        DataError, match="changed after this run was planned, B01 are gone: nothing"
    ):
        jobs.run(screen.project(), "ingest", "P2", keys["P2", "ingest"], 1)
    screen.sheet["P2"]["path"] = before
    screen.write()
    assert screen.run() == [("P2", "ingest", "A01")]
    assert_same(screen, finished)
