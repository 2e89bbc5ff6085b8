"""A real cluster for these tests, where daemons may be installed and started."""

import os
import time
from pathlib import Path

import cluster
import pytest
from disturbing import disturb


@pytest.fixture(scope="session")
def slurm():
    """slurm.conf of a running cluster on loopback; everything is stopped and gone afterwards."""
    if os.environ.get("PLATEGLASS_TEST_SLURM") != "1":
        pytest.skip("needs PLATEGLASS_TEST_SLURM=1, which lets it install and start daemons")
    if reason := cluster.missing():
        pytest.skip(f"no SLURM: {reason}")
    with cluster.cluster() as configuration:
        yield configuration
    assert not configuration.parent.exists()
    end = time.monotonic() + 30  # a Dask worker takes some seconds to see that its nanny is gone
    while left := daemons_of(configuration):
        assert time.monotonic() < end, left
        time.sleep(0.5)


@pytest.fixture(scope="session")
def disturbance(slurm, tmp_path_factory):
    """A disturbed run under way; it waits for a time limit, so it is started before other tests."""
    screen, running = disturb(tmp_path_factory.mktemp("disturbed"))
    yield screen, running
    running.kill()
    running.wait()


def daemons_of(configuration: Path) -> list[str]:
    """Command lines of processes that belong to this cluster, by their arguments or surroundings."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            said = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            around = (process / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if process.name != str(os.getpid()) and str(configuration.parent) in said + around:
            found.append(said)
    return found
