"""A cluster as it is elsewhere: with a controller that goes away."""

import time

import cluster
import pytest
from submission import finish, profile, start

from screen import Screen

pytestmark = pytest.mark.slurm
INGEST = ("--until", "ingest")
AWAY = 60  # seconds: by its own five attempts the executor would have lost its jobs by then


def test_a_controller_that_goes_away_costs_time_and_not_the_run(slurm, tmp_path):
    screen = Screen(tmp_path / "screen", train=False)
    running = start(screen, profile(tmp_path / "profile"), *INGEST)
    # a job needs the controller until srun has started its work
    state, waiting = screen.results / ".plateglass", set(screen.specs)
    while waiting:
        assert running.poll() is None
        for plate in list(waiting):
            if [*state.glob(f"begun/{plate}.ingest"), *state.glob(f"done/{plate}.ingest.*")]:
                waiting.remove(plate)
        time.sleep(0.05)
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
