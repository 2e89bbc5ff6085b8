"""The rerun rule on real runs of a tiny screen: what was computed, and what came out."""

import os
import shutil

import pytest

from screen import WELLS, Screen, assert_same

WELL_STAGES = ("ingest", "segment", "features", "attribute")
ENDS = {(p, s, "") for p in ("P1", "P2", "screen") for s in ("aggregate", "report")}


def ends(*plates):
    return {(p, s, "") for p in (*plates, "screen") for s in ("aggregate", "report")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished screen, copied for each test (times and all)."""
    screen = Screen(tmp_path_factory.mktemp("finished"))
    screen.run()
    return screen


@pytest.fixture
def screen(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "screen", copy_function=shutil.copy2)
    copy = Screen.__new__(Screen)
    copy.__dict__ |= finished.__dict__ | {
        "folder": tmp_path / "screen",
        "results": tmp_path / "screen" / "results",
        "sheet": {name: dict(row) for name, row in finished.sheet.items()},
        "settings": dict(finished.settings),
    }
    return copy


def from_scratch(screen, folder):
    """The same raw plates and settings, run anew."""
    shutil.copytree(screen.folder, folder, copy_function=shutil.copy2)
    shutil.rmtree(folder / "results")
    other = Screen.__new__(Screen)
    other.__dict__ |= screen.__dict__ | {"folder": folder, "results": folder / "results"}
    other.run()
    return other


def test_nothing_changed_or_moved_then_nothing_runs(screen):
    assert screen.plan().reasons == {}


def test_each_plane_is_read_once_and_each_cell_passes_as_often_as_asked(finished):
    cells = finished.tables()["P2/cells.parquet"].groupby("Metadata_Well").size()
    for well in WELLS:
        assert finished.counts["P2", "ingest", well]["planes_read"] == 3  # one a channel
        controls = 2 + 3 + 2  # erased twice, each channel shuffled, background, permuted
        passes = 1 + 8 + controls * (WELLS[well].role != "treatment")
        assert finished.counts["P2", "features", well]["passes"] == passes * cells[well]


def test_training_wells_are_judged_out_of_fold_and_share_the_final_embedding(finished):
    tables = finished.tables()
    trained, other = tables["P1/cells.parquet"], tables["P2/cells.parquet"]
    with_fold = set(trained.loc[trained.Metadata_Fold.notna(), "Metadata_Well"])
    assert with_fold == {w for w, spec in WELLS.items() if spec.role != "treatment"}
    assert other.Metadata_Fold.isna().all()
    assert set(trained.Metadata_Fold.dropna()) == {0, 1}
    for cells in (trained, other):
        labelled = cells.Metadata_role != "treatment"
        assert (cells.Metadata_Class_Erased.notna() == labelled).all()
        assert cells.filter(like="Cells_Embedding_").notna().all(axis=None)
        assert cells.Metadata_GradCAMO.dropna().between(0, 1).all()
        assert cells.Metadata_Reliance.between(0, 1).all()


def test_without_a_training_plate_there_are_classical_profiles_and_a_report_that_says_why(tmp_path):
    screen = Screen(tmp_path, train=False)
    ran = screen.run()
    assert {stage for _, stage, _ in ran} == {
        "ingest",
        "segment",
        "features",
        "aggregate",
        "report",
    }
    cells = screen.tables()["P1/cells.parquet"]
    assert "Metadata_Class" not in cells and not list(cells.filter(like="Cells_Embedding_"))
    assert cells["Nuclei_AreaShape_Area"].gt(0).all()
    assert "no network was trained" in (screen.results / "P1/report.html").read_text()
    assert screen.plan().reasons == {}


def test_one_treatment_well_replaced(screen, tmp_path):
    screen.replace_image("P2", "B01")
    assert set(screen.run()) == {("P2", s, "B01") for s in WELL_STAGES} | ends("P2")
    assert screen.plan().reasons == {}
    assert_same(screen, from_scratch(screen, tmp_path / "scratch"))


def test_an_image_touched(screen):
    os.utime(screen.raw("P2", "A01"))
    assert ("P2", "ingest") in screen.plan().reasons
    computed = set(screen.run())
    assert {w for w in computed if w[1] in WELL_STAGES} == {("P2", "ingest", "A01")}
    assert screen.plan().reasons == {}


def test_a_well_removed_and_put_back(screen, tmp_path):
    before = screen.tables()
    kept = {c: screen.raw("P2", "B02", c) for c in ("DNA", "Actin", "Marker")}
    for channel, path in kept.items():
        path.rename(tmp_path / channel)
    assert set(screen.run()) == ends("P2")
    assert "B02" not in set(screen.tables()["P2/cells.parquet"]["Metadata_Well"])
    assert not (screen.results / "P2/plate.zarr/B/2").exists()
    for channel, path in kept.items():
        (tmp_path / channel).rename(path)
    assert set(screen.run()) == {("P2", s, "B02") for s in WELL_STAGES} | ends("P2")
    after = screen.tables()
    for name in before:
        assert before[name].equals(after[name]), name


def test_a_training_wells_image_replaced(screen):
    screen.replace_image("P1", "A02")
    computed = set(screen.run())
    everywhere = {
        (p, s, w)
        for p in ("P1", "P2")
        for s in ("features", "attribute")
        for w in screen.specs[p].wells
    }
    assert computed == everywhere | ENDS | {("screen", "train", "")} | {
        ("P1", s, "A02") for s in ("ingest", "segment")
    }


def test_an_evaluation_label_changed(screen):
    platemap = screen.folder / "raw/P2/platemap.csv"
    platemap.write_text(platemap.read_text().replace("A05,positive", "A05,negative"))
    computed = set(screen.run())
    # one more negative control: the plate's units change, and with them all its features
    assert {s for _, s, _ in computed} == {"features", "attribute", "aggregate", "report"}
    assert {p for p, _, _ in computed} == {"P2", "screen"}


def test_a_dose_changed_in_the_platemap(screen):
    platemap = screen.folder / "raw/P2/platemap.csv"
    platemap.write_text(platemap.read_text().replace("translocin,4", "translocin,9"))
    assert set(screen.run()) == ends("P2")
    cells = screen.tables()["P2/cells.parquet"]
    assert set(cells.loc[cells.Metadata_Well == "B02", "Metadata_dose_level"]) == {9.0}


def test_a_parameter_of_the_report(screen):
    screen.settings["report"] = {"gallery": 3}
    screen.write()
    assert set(screen.run()) == {(p, "report", "") for p in ("P1", "P2", "screen")}


def test_settings_in_another_order_and_defaults_written_out(screen):
    screen.settings = dict(reversed(screen.settings.items())) | {"features": {"classical": True}}
    screen.sheet = dict(reversed(screen.sheet.items()))
    screen.write()
    assert screen.plan().reasons == {}


@pytest.mark.parametrize(
    ("lost", "stage"),
    [
        (".plateglass/parts/P2/features/A03.parquet", "features"),
        (".plateglass/parts/P2/segment/A03.parquet", "segment"),
    ],
)
def test_a_part_lost(screen, lost, stage):
    (screen.results / lost).unlink()
    before = screen.tables()
    computed = set(screen.run())
    assert {w for w in computed if w[1] in WELL_STAGES} == {("P2", stage, "A03")}
    after = screen.tables()
    for name in before:
        assert before[name].equals(after[name]), name


def test_a_shard_lost_is_found_by_verify(screen):
    shard = next(
        p for p in (screen.results / "P2/plate.zarr/A/3/0/0").rglob("c/**/*") if p.is_file()
    )
    shard.unlink()
    assert screen.plan().reasons == {}
    screen.settings["run"] = {"verify": "sizes"}
    screen.write()
    computed = set(screen.run())
    assert {w for w in computed if w[1] in WELL_STAGES} == {("P2", "ingest", "A03")}
    assert shard.exists()


def test_all_markers_deleted_computes_nothing(screen):
    shutil.rmtree(screen.results / ".plateglass/done")
    computed = set(screen.run())
    assert not {w for w in computed if w[1] in WELL_STAGES}


def test_a_job_killed_resumes_at_the_well(screen, monkeypatch):
    from plateglass import jobs

    before = screen.tables()
    screen.settings["segment"] = {
        **screen.settings["segment"],
        "cells": {"channel": "Actin", "grow_um": 4},
    }
    screen.write()
    record, seen = jobs._record, []

    def die(job, ledger, parts, result):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(result.well)
        record(job, ledger, parts, result)

    monkeypatch.setattr(jobs, "_record", die)
    with pytest.raises(KeyboardInterrupt):
        screen.run(until="segment")
    monkeypatch.undo()
    rest = [w for p, s, w in screen.run(until="segment") if (p, s) == ("P1", "segment")]
    assert sorted(rest + seen) == sorted(screen.specs["P1"].wells)
    # half-way back: settings as they were
    screen.settings["segment"] = {**screen.settings["segment"], "cells": {"channel": "Actin"}}
    screen.write()
    screen.run()
    after = screen.tables()
    for name in before:
        assert before[name].equals(after[name]), name


def test_a_plates_folder_gone_refuses_it_and_drops_nothing(screen):
    (screen.folder / "raw/P2").rename(screen.folder / "raw/elsewhere")
    (screen.folder / "raw/P2").mkdir()
    shutil.copy(screen.folder / "raw/elsewhere/platemap.csv", screen.folder / "raw/P2")
    plan = screen.plan()
    assert "P2" in plan.refused and "raw/P2" in plan.refused["P2"]
    assert plan.reasons == {}
    screen.settings["run"] = {"missing_raw": "keep"}
    screen.write()
    assert screen.plan().refused == {} and screen.plan().reasons == {}


def test_two_workers_give_what_one_gives(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "two", copy_function=shutil.copy2)
    shutil.rmtree(tmp_path / "two/results")
    two = Screen.__new__(Screen)
    two.__dict__ |= finished.__dict__ | {
        "folder": tmp_path / "two",
        "results": tmp_path / "two/results",
    }
    two.run(threads=2)
    assert_same(two, finished)
