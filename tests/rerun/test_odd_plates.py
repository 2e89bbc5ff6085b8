"""Plates that give less than they promise: quarantine, empty wells, files that may not be read."""

import contextlib
import ctypes
import os
import shutil
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import tifffile
from changes import CHANNELS, WELL_STAGES, ends, relabel, remove_images, set_section, wells

from plateglass import jobs
from plateglass.errors import DataError, UserError
from plateglass.models import backbone
from plateglass.stages import SCREEN, STAGES
from screen import Screen, assert_same


def blank(screen, plate, well):
    """Images of the well without a cell in them: the camera's noise."""
    for at, channel in enumerate(CHANNELS):
        path = screen.raw(plate, well, channel)
        shape = tifffile.imread(path).shape
        noise = np.random.default_rng(at).normal(100, 2, shape).astype(np.uint16)
        tifffile.imwrite(path, noise)


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


def test_controls_that_no_well_is_labelled_as_are_told(screen):
    set_section(screen, "platemap", negative="DMSO")
    (said,) = [note for note in screen.plan().notes if "platemap.negative" in note]
    assert "no well of P1, P2 has the label 'DMSO'" in said and "negative_control" in said


def test_a_class_without_images_is_refused_before_any_job(screen):
    """As of a platemap that is a row too low: later its network would fail."""
    path = screen.folder / "raw/P1/platemap.csv"
    path.write_text(path.read_text().replace("A0", "C0"))
    with pytest.raises(
        UserError, match=r"has 0 training well\(s\) with images, 2 are needed .* P1"
    ):
        screen.plan()


def test_a_plan_says_what_it_knows_of_a_stage_that_is_stale(untrained, monkeypatch):
    screen = untrained
    for stage in ("aggregate", "report"):
        newer = replace(STAGES[stage], version=STAGES[stage].version + 1)
        monkeypatch.setitem(STAGES, stage, newer)
        assert screen.plan().why("P1", stage) == "the stage's code changed"
        monkeypatch.undo()
    (screen.results / "P1/wells.parquet").write_bytes(b"cut")
    assert screen.plan().why("P1", "aggregate") == "what was stored is damaged"
    set_section(screen, "segment", cells={"channel": "Marker"})
    assert screen.plan().why("P2", "segment").startswith("8 wells: segment.cells.channel changed")


@pytest.mark.long
def test_of_a_run_that_was_stopped_a_plan_says_what_it_knows(untrained):
    screen = untrained
    set_section(screen, "segment", cells={"channel": "Marker"})
    screen.run(until="features")  # stopped there: nobody knows any more what began it
    assert screen.plan().why("P2", "aggregate") == "wells or the platemap changed"
    assert screen.plan().why("P2", "report") == "tables or the model changed"


@pytest.mark.long
def test_a_training_well_that_gave_nothing_goes_without_a_word_of_training(screen):
    screen.raw("P1", "B01").write_bytes(b"not a TIFF")
    relabel(screen, "P1", "B01", "positive_control")
    screen.run()
    remove_images(screen, "P1", "B01")
    assert not any("model" in screen.plan().why("P1", stage) for stage in WELL_STAGES)
    assert (SCREEN, "train", "") not in screen.run()
    assert screen.plan().reasons == {}


def test_images_that_the_pattern_leaves_out_are_named_and_change_nothing(screen):
    assert screen.plan().notes == []
    for name in ("overview.tif", "readme.txt"):
        (screen.raw("P2", "A01").parent / name).write_bytes(b"")
    plan = screen.plan()
    assert plan.notes == [
        "plate P2: images that ingest.pattern does not match are left out, as overview.tif"
    ]
    assert plan.reasons == {}


def test_wells_without_a_row_are_named_while_there_is_something_to_do(untrained):
    screen = untrained
    path = screen.folder / "raw/P2/platemap.csv"
    before = path.read_text().splitlines()
    path.write_text("\n".join(before[:-1]) + "\n")
    told = "plate P2: 1 well(s) with images have no row in the platemap: B02"
    assert told in screen.plan().notes
    screen.run()
    assert screen.plan().notes == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"backbone": "resnet81"}, "train.backbone is 'resnet81', which timm does not have"),
        ({"backbone": "resnet18", "cut": 3}, "train.cut is 3: resnet18 has maps at strides"),
    ],
)
def test_networks_that_cannot_be_built_stop_the_run_before_any_job(screen, settings, said):
    set_section(screen, "train", **settings)
    with pytest.raises(UserError, match=said):
        screen.plan()


def test_a_crop_alone_needs_no_look_at_the_backbone(screen, monkeypatch):
    monkeypatch.setattr(backbone, "build", Mock(side_effect=AssertionError("torch is imported")))
    set_section(screen, "train", crop=40)
    assert (SCREEN, "train") in screen.plan().reasons
    set_section(screen, "train", crop=40, cut=4)
    with pytest.raises(AssertionError, match="torch is imported"):
        screen.plan()
