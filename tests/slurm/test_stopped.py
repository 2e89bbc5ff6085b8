"""One run in which one plate is cancelled, one outlives its time limit, one fails and one is well."""

import json
import re

import pytest
from disturbing import WELLS
from submission import finish, last_id, profile, snakemake, submitted

from screen import Screen, assert_same

pytestmark = pytest.mark.slurm
INGEST = ("--until", "ingest")


@pytest.fixture(scope="module")
def disturbed(disturbance):
    """The run after its end: exit code, terminal, and the wells that each plate had by then."""
    screen, running = disturbance
    screen.code, screen.said = finish(running, screen)
    screen.jobs = {job.plate: job for job in submitted() if job.id in screen.ids}
    screen.progress = [f.name for f in (screen.results / ".plateglass/progress").iterdir()]
    # as a job that was killed without a signal before would leave it
    (screen.results / ".plateglass/progress/late.ingest").write_text(f"{'23 24 wells 0.0':<79}\n")
    screen.had = {plate: ledger(screen, plate) for plate in screen.specs}
    return screen


@pytest.fixture(scope="module")
def resumed(disturbed, tmp_path_factory):
    """The same command again, the broken plate mended."""
    (disturbed.results / "broken").unlink()
    before = last_id()
    settings = profile(tmp_path_factory.mktemp("profiles") / "slurm")
    disturbed.said_again = snakemake(disturbed, settings, *INGEST)
    disturbed.jobs_again = submitted(before)
    return disturbed


def ledger(screen: Screen, plate: str) -> set[str]:
    """Wells of which ingest has a line, by the file itself."""
    path = screen.results / f".plateglass/ledger/{plate}.ingest.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {json.loads(line)["well"] for line in lines}


def computed(screen: Screen, plate: str) -> list[str]:
    """Wells that the plate's latest ingest job computed, by its log."""
    (log,) = (screen.results / ".plateglass/logs").glob(f"{plate}.ingest.*.log")
    return re.findall(r"^(\w+) done ", log.read_text(), re.M)


def test_the_good_plate_finishes_and_the_run_does_not_pass(disturbed):
    assert disturbed.code == 1, disturbed.said
    states = {plate: job.state for plate, job in disturbed.jobs.items()}
    assert states == {
        "cancelled": "CANCELLED",
        "late": "TIMEOUT",
        "broken": "FAILED",
        "good": "COMPLETED",
    }
    assert disturbed.had["good"] == set(disturbed.specs["good"].wells)
    assert {plate for plate, _ in disturbed.plan().reasons} >= {"cancelled", "late", "broken"}
    assert ("good", "ingest") not in disturbed.plan().reasons


def test_each_reason_is_seen_where_the_jobs_were_submitted(disturbed):
    said = disturbed.said
    assert said.count("failed: ") == 3, said
    assert "failed: cancelled ingest: cancelled on the cluster (scancel)" in said
    assert "failed: late ingest: it outlived its time limit" in said
    broken = said[said.index("failed: broken ingest") :]
    assert f"{disturbed.results}/broken" in broken.split("log: ")[0]
    cancelled = said[said.index("failed: cancelled ingest") :]
    assert "plateglass: stopped by SIGTERM; finished wells are kept" in cancelled.split("log: ")[0]
    assert "Not all is done; finished wells are kept" in said


def test_progress_of_a_killed_job_is_not_taken_for_that_of_a_new_one(resumed):
    assert resumed.progress in ([], ["late.ingest"])  # held, it may not hear the signal before
    totals = set(re.findall(r"late ingest: \d+/(\d+) wells", resumed.said_again))
    assert totals == {str(len(WELLS) - len(resumed.had["late"]))}
    assert list((resumed.results / ".plateglass/progress").iterdir()) == []


def test_stopped_jobs_go_on_at_the_well(resumed):
    for plate in ("cancelled", "late"):
        wells = set(resumed.specs[plate].wells)
        assert 0 < len(resumed.had[plate]) < len(wells)
        assert computed(resumed, plate) == sorted(wells - resumed.had[plate])
    assert computed(resumed, "broken") == sorted(resumed.specs["broken"].wells)
    plates = sorted(job.plate for job in resumed.jobs_again)
    assert plates == ["broken", "cancelled", "late"]


def test_the_end_is_that_of_an_undisturbed_run(resumed, tmp_path):
    alone = resumed.copy_of_raw(tmp_path / "alone")
    alone.run(until="ingest")
    assert_same(resumed, alone)
    for plate in resumed.specs:
        ours, theirs = (s.project().ledger("ingest", plate) for s in (resumed, alone))
        assert {w: e["key"] for w, e in ours.items()} == {w: e["key"] for w, e in theirs.items()}
