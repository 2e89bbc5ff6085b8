"""The Snakemake that submitted is stopped or killed: what becomes of its jobs."""

import os
import signal
import time

import pytest
from disturbing import Plates, hold
from submission import finish, last_id, profile, snakemake, start, submitted

from screen import assert_same

pytestmark = pytest.mark.slurm
INGEST = ("--until", "ingest")


@pytest.fixture
def screen(slurm, tmp_path):
    """A run of two plates under way, their jobs held after some wells."""
    screen = Plates(tmp_path / "screen")
    screen.sheet = {name: screen.sheet[name] for name in ("cancelled", "late")}
    screen.specs = {name: screen.specs[name] for name in screen.sheet}
    screen.write()
    screen.before = last_id()
    screen.profile = profile(tmp_path / "profile")
    screen.running = start(screen, screen.profile, *INGEST)
    screen.held = hold(screen, list(screen.sheet), screen.running)
    yield screen
    screen.running.kill()
    screen.running.wait()


def states(screen):
    return {job.plate: job.state for job in submitted(screen.before)}


def until(states_of, screen, seconds=120):
    end = time.monotonic() + seconds
    while set(states(screen).values()) != states_of:
        assert time.monotonic() < end, states(screen)
        time.sleep(0.5)


def test_ctrl_c_cancels_the_jobs_and_keeps_the_wells(screen, tmp_path):
    screen.running.send_signal(signal.SIGINT)
    code, said = finish(screen.running, screen, 120)
    assert code != 0, said
    until({"CANCELLED"}, screen)
    had = {p: set(screen.project().ledger("ingest", p)) for p in screen.specs}
    assert all(had.values())
    snakemake(screen, screen.profile, *INGEST)
    alone = screen.copy_of_raw(tmp_path / "alone")
    alone.run(until="ingest")
    assert_same(screen, alone)


def test_jobs_outlive_a_killed_snakemake_and_unlocked_it_goes_on(screen, tmp_path):
    screen.running.kill()
    screen.running.wait()
    assert set(states(screen).values()) == {"RUNNING"}
    for process in screen.held:
        os.kill(process, signal.SIGCONT)
    until({"COMPLETED"}, screen)
    for plate, spec in screen.specs.items():
        assert set(screen.project().ledger("ingest", plate)) == set(spec.wells)
    code, said = finish(start(screen, screen.profile, *INGEST), screen)
    assert code != 0 and "--unlock" in said
    snakemake(screen, screen.profile, "--unlock")
    before = last_id()
    snakemake(screen, screen.profile, *INGEST)
    assert submitted(before) == []
    alone = screen.copy_of_raw(tmp_path / "alone")
    alone.run(until="ingest")
    assert_same(screen, alone)
