"""A real cluster for these tests, where daemons may be installed and started."""

import os
import time

import cluster
import pytest
from disturbing import disturb


@pytest.fixture(scope="session")
def may_start():
    """Skips where no daemons may be installed and started."""
    if os.environ.get("PLATEGLASS_TEST_SLURM") != "1":
        pytest.skip("needs PLATEGLASS_TEST_SLURM=1, which lets it install and start daemons")
    if reason := cluster.missing():
        pytest.skip(f"no SLURM: {reason}")


@pytest.fixture(scope="session")
def slurm(may_start):
    """A running cluster on loopback; everything is stopped and gone afterwards."""
    with cluster.cluster() as running:
        yield running
    assert not running.folder.exists()
    time.sleep(1)
    assert cluster.processes(running.folder) == {}


@pytest.fixture(scope="session")
def disturbance(slurm, tmp_path_factory):
    """A disturbed run under way; it waits for a time limit, so it is started before other tests."""
    screen, running = disturb(tmp_path_factory.mktemp("disturbed"))
    yield screen, running
    running.kill()
    running.wait()
