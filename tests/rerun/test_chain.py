"""What a whole run gives, and how it goes on after a stop; the rows are in test_changes.py."""

import shutil

import pytest
from changes import WELL_STAGES, ends, put_back, relabel, remove_images, set_section, wells

from screen import WELLS, Screen, assert_same


def test_nothing_runs_where_nothing_changed_and_where_all_was_moved(finished, tmp_path):
    assert finished.plan().reasons == {}
    moved = finished.copy(tmp_path / "elsewhere" / "screen")
    assert moved.plan().reasons == {}
    # the raw plates alone, with the sheet that says where they are
    (moved.folder / "raw").rename(moved.folder / "images")
    for row in moved.sheet.values():
        row["path"] = row["path"].replace("raw", "images")
    moved.write()
    assert moved.plan().reasons == {}


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


def test_without_a_training_plate_there_are_classical_profiles_and_a_report_that_says_why(
    untrained,
):
    screen = untrained
    assert {stage for _, stage, _ in screen.ran} == {
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
    relabel(screen, "P2", "B01", "negative_control")  # no unit of P1's, and no network to judge
    assert sorted(screen.run()) == sorted(wells(screen, ["P2"], ["features"]) + ends("P2"))
    relabel(screen, "P2", "B02", "reference")
    assert sorted(screen.run()) == ends("P2")
    screen.settings["train"] = {"classes": []}
    screen.write()
    assert screen.plan().reasons == {}


@pytest.mark.long
def test_a_well_removed_and_put_back(screen, finished):
    kept = remove_images(screen, "P2", "B02")
    assert sorted(screen.run()) == sorted(ends("P2"))
    assert "B02" not in set(screen.tables()["P2/cells.parquet"]["Metadata_Well"])
    assert not (screen.results / "P2/plate.zarr/B/2").exists()
    put_back(kept)
    assert sorted(screen.run()) == sorted(wells(screen, ["P2"], WELL_STAGES, ["B02"]) + ends("P2"))
    assert_same(screen, finished)


def test_a_plate_taken_from_the_sheet_stays_and_is_named_and_may_come_back(screen, finished):
    row = screen.sheet.pop("P2")
    screen.write()
    assert screen.plan().notes == [
        "results of plates that are not in the sheet stay where they are: P2"
    ]
    assert sorted(screen.run()) == ends()
    selected = screen.tables()["screen/wells_selected.parquet"]
    assert set(selected["Metadata_Plate"]) == {"P1"}
    assert (screen.results / "P2/cells.parquet").exists()
    screen.sheet["P2"] = row
    screen.write()
    assert sorted(screen.run()) == ends()
    assert_same(screen, finished)


@pytest.mark.long
@pytest.mark.parametrize("section", ["train", "attribute", "aggregate"])
def test_a_section_taken_out_and_put_back(screen, finished, section):
    if section == "aggregate":
        set_section(screen, "aggregate", normalize="standardize")
        screen.run()
        finished = screen.copy(screen.folder.parent / "standardized")
    kept = screen.settings[section]
    if section == "train":  # without labels, no plate can say train: yes
        screen.sheet["P1"]["train"] = "no"
    screen.settings.pop(section)
    screen.write()
    both = ["P1", "P2"]
    stages = {"train": ["features"], "attribute": ["attribute"], "aggregate": []}[section]
    wanted = sorted(wells(screen, both, stages) + ends(*both))
    assert sorted(screen.run()) == wanted
    assert screen.plan().reasons == {}
    screen.settings[section] = kept
    if section == "train":
        screen.sheet["P1"]["train"] = "yes"
    screen.write()
    assert sorted(screen.run()) == wanted  # networks and their maps are still there
    assert screen.plan().reasons == {}
    assert_same(screen, finished)


def test_a_job_killed_resumes_at_the_well(screen, monkeypatch, finished):
    from plateglass import jobs

    set_section(screen, "segment", cells={"channel": "Actin", "grow_um": 4})
    record, seen = jobs._record, []

    def die(job, ledger, parts, result, **facts):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(result.well)
        return record(job, ledger, parts, result, **facts)

    monkeypatch.setattr(jobs, "_record", die)
    with pytest.raises(KeyboardInterrupt):
        screen.run(until="segment")
    monkeypatch.undo()
    rest = [w for p, s, w in screen.run(until="segment") if (p, s) == ("P1", "segment")]
    assert sorted(rest + seen) == sorted(screen.specs["P1"].wells)
    # half-way back: settings as they were
    set_section(screen, "segment", cells={"channel": "Actin"})
    screen.run()
    assert_same(screen, finished)


@pytest.mark.long
def test_where_all_controls_are_unreadable_what_stands_in_for_them_makes_the_units(screen):
    for well in ("A01", "A02", "A03"):
        path = screen.raw("P2", well)
        path.write_bytes(path.read_bytes()[:3000])
    screen.run()
    screen.replace_image("P2", "B01")
    left = ["A04", "A05", "A06", "B01", "B02"]
    assert screen.plan().reasons["P2", "features"].keys() == set(left)
    wanted = wells(screen, ["P2"], ("ingest", "segment"), ["B01"])
    wanted += wells(screen, ["P2"], ("features", "attribute"), left) + ends("P2")
    assert sorted(screen.run()) == sorted(wanted)
    assert screen.plan().reasons == {}


@pytest.mark.long
def test_a_model_of_another_project_gives_what_it_gave_there(screen, finished, tmp_path):
    other = screen.folder / "another_project" / "model"
    shutil.copytree(screen.results / "screen/model", other)
    screen.settings["train"] = {"model": "another_project/model"}
    screen.sheet["P1"]["train"] = "no"
    screen.write()
    new = screen.from_scratch(tmp_path / "new", until="report")
    assert not (new.results / "screen/model").exists()
    assert new.plan().reasons == {}
    ours, theirs = new.tables(), finished.tables()
    for name in ("P1/cells.parquet", "P2/cells.parquet", "P2/wells.parquet"):
        assert ours[name].equals(theirs[name]), name
    # in the place where it was trained, it is known: no network looks again
    assert {stage for _, stage, _ in screen.run()} == {"report"}
    assert screen.plan().reasons == {}


@pytest.mark.long
def test_an_evaluation_label_between_two_classes_changes_tables_and_reports_alone(tmp_path):
    labels = ["negative_control", "positive_control", "treatment"]
    screen = Screen(tmp_path)
    set_section(screen, "train", classes=labels)
    screen.run()
    cells = screen.tables()["P2/cells.parquet"]
    assert {f"Metadata_Margin_{name}" for name in labels} <= set(cells)
    relabel(screen, "P2", "A05", "treatment")
    assert sorted(screen.run()) == sorted(ends("P2"))
    assert screen.plan().reasons == {}
    assert_same(screen, screen.from_scratch(tmp_path.with_name("scratch")))
