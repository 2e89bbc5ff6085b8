"""A whole screen through the cluster, and again after one image changed."""

import re
from itertools import pairwise

import pytest
from submission import last_id, profile, snakemake, submitted

from screen import WELL_STAGES, Screen

pytestmark = pytest.mark.slurm
EACH = (*WELL_STAGES, "aggregate", "report")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return profile(tmp_path_factory.mktemp("profiles") / "slurm")


@pytest.fixture(scope="module")
def finished(disturbance, settings, tmp_path_factory):
    screen = Screen(tmp_path_factory.mktemp("screen"))
    before = last_id()
    screen.said = snakemake(screen, settings)
    screen.jobs = submitted(before)
    return screen


def log_of(screen, name):
    """The latest log of a plate's stage; its name ends in the marker's key."""
    found = (screen.results / ".plateglass/logs").glob(f"{name}.*.log")
    return max(found, key=lambda log: log.stat().st_mtime).read_text()


def test_a_job_for_each_plate_and_stage_and_all_tables(finished):
    wanted = [(stage, plate) for stage in EACH for plate in ("P1", "P2")]
    wanted += [("train", ""), ("aggregate_screen", ""), ("report_screen", "")]
    assert sorted((job.rule, job.plate) for job in finished.jobs) == sorted(wanted)
    assert {job.state for job in finished.jobs} == {"COMPLETED"}
    assert finished.plan().reasons == {}
    assert (finished.results / "screen/report.html").exists()
    assert len(finished.tables()["P2/wells.parquet"]) == len(finished.specs["P2"].wells)


def test_two_gpu_jobs_run_at_once_on_different_devices(finished):
    for stage in ("segment", "features", "attribute"):
        one, other = (job for job in finished.jobs if job.rule == stage)
        assert one.overlaps(other), stage
        given = [
            re.findall(r"CUDA_VISIBLE_DEVICES is (\S+),", log_of(finished, f"{plate}.{stage}"))
            for plate in ("P1", "P2")
        ]
        assert sorted(given) == [["0"], ["1"]], stage


def test_a_gpu_that_torch_cannot_use_is_said_where_the_jobs_were_submitted(finished):
    for device in "01":
        note = f"note: CUDA_VISIBLE_DEVICES is {device}, but torch finds no CUDA device"
        assert finished.said.count(note) == 1


def test_progress_of_the_jobs_is_seen_where_they_were_submitted(finished):
    for plate in ("P1", "P2"):
        assert f"{plate} segment: 8 wells: new" in finished.said
        seen = [
            re.findall(rf"{plate} {stage}: (\d)/8 wells", finished.said) for stage in WELL_STAGES
        ]
        for done in seen:
            assert all(int(a) < int(b) for a, b in pairwise(done)), finished.said
        # the cluster may finish a short stage between two looks, but not all of them
        assert any(0 < int(n) < 8 for done in seen for n in done), finished.said
    assert "results/screen/report.html" in finished.said
    for chatter in ("SLURM account", "SLURM run ID", "sacct"):
        assert chatter not in finished.said


@pytest.mark.parametrize("until", ["segment", pytest.param(None, marks=pytest.mark.long)])
def test_one_image_changed_submits_its_plate_alone(finished, settings, until):
    finished.replace_image("P2", "B01", seed=98 if until else 99)
    before = last_id()
    snakemake(finished, settings, *(("--until", until) if until else ()))
    jobs = {(job.rule, job.plate) for job in submitted(before)}
    screens = {("aggregate_screen", ""), ("report_screen", "")}
    if until:
        assert jobs == {("ingest", "P2"), ("segment", "P2")}
    else:
        assert jobs == {(stage, "P2") for stage in EACH} | screens
        assert finished.plan().reasons == {}
    for stage in ("ingest", "segment") if until else WELL_STAGES:
        done = re.findall(r"^(\w+) done ", log_of(finished, f"P2.{stage}"), re.M)
        assert done == ["B01"], stage
