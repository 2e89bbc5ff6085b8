"""Clusters as they are elsewhere: with an accounting database, or with a controller that goes away."""

import subprocess
import time

import cluster
import pytest
from submission import finish, last_id, profile, snakemake, start, submitted

from screen import Screen

pytestmark = [pytest.mark.slurm, pytest.mark.long]
INGEST = ("--until", "ingest")
AWAY = 60  # seconds: by its own five attempts the executor would have lost its jobs by then


@pytest.fixture
def screen(tmp_path):
    return Screen(tmp_path / "screen", train=False)


def test_a_controller_that_goes_away_costs_time_and_not_the_run(slurm, screen, tmp_path):
    before = last_id()
    running = start(screen, profile(tmp_path / "profile"), *INGEST)
    while {job.state for job in submitted(before)} != {"RUNNING"}:
        assert running.poll() is None
        time.sleep(0.5)
    slurm.stop("slurmctld")
    time.sleep(AWAY)
    slurm.start("slurmctld", "-D", there=lambda: "UP" in cluster.ask("scontrol", "ping"))
    code, said = finish(running, screen, 300)
    assert code == 0, said
    wells = set(screen.specs["P1"].wells)
    assert {plate: set(screen.project().ledger("ingest", plate)) for plate in screen.specs} == {
        "P1": wells,
        "P2": wells,
    }


def test_with_an_accounting_database_and_an_account(screen, tmp_path):
    with cluster.cluster(accounting="lab"):
        settings = profile(tmp_path / "profile")
        text = (settings / "config.yaml").read_text()
        named = text.replace("  # slurm_account: my_account", "  slurm_account: lab")
        assert named != text
        (settings / "config.yaml").write_text(named)
        snakemake(screen, settings, *INGEST)
        command = ["sacct", "-X", "-n", "-P", "-o", "Account,State"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["lab|COMPLETED"] * len(screen.specs)
