"""The lines of docs/slurm.md that start a Dask cluster on SLURM, tried as they stand."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from submission import ROOT

from screen import Screen, assert_same

pytestmark = pytest.mark.slurm


@pytest.fixture
def lines():
    """The commands of the page, with as many workers as this machine bears."""
    page = (ROOT / "docs/slurm.md").read_text()
    found = re.findall(r"^(?:sbatch --job-name dask|until) .*$", page, re.M)
    assert len(found) == 3 and "--ntasks 64" in found[1]
    return [line.replace("--ntasks 64", "--ntasks 2") for line in found]


@pytest.fixture
def screen(tmp_path):
    page = (ROOT / "docs/slurm.md").read_text()
    (given,) = re.findall(r"^run: \{dask: \{scheduler: (\S+)\}\}", page, re.M)
    screen = Screen(tmp_path / "config", train=False)  # beside a Snakefile, as the page has it
    screen.settings["run"] = {"dask": {"scheduler": given}}
    screen.write()
    return screen


@pytest.fixture
def started(slurm, disturbance, lines, screen):
    """Both batch jobs under way, from the folder above that of the settings."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # an activated environment
    for line in lines:
        subprocess.run(
            line, shell=True, check=True, timeout=120,
            cwd=screen.folder.parent, env={**os.environ, "PATH": path},
        )  # fmt: skip
    yield
    subprocess.run(["scancel", "--name", "dask"], check=True)


def test_wells_run_in_workers_that_slurm_started(started, screen, tmp_path):
    from distributed import Client

    alone = Screen.__new__(Screen)
    alone.__dict__ |= screen.__dict__ | {"folder": tmp_path / "alone"}
    alone.results = alone.folder / "results"
    shutil.copytree(screen.folder, alone.folder, copy_function=shutil.copy2)
    screen.run(until="ingest")
    with Client(scheduler_file=str(screen.folder / "dask.json"), timeout=60) as client:
        client.wait_for_workers(2, timeout=60)
        jobs = set(client.run(os.getenv, "SLURM_JOB_NAME").values())
        done = client.run_on_scheduler(
            lambda dask_scheduler: [
                key
                for key, _, state, *_ in dask_scheduler.transition_log
                if state == "memory" and key.startswith("_attempt")
            ]
        )
    assert jobs == {"dask"}
    assert len(set(done)) == sum(len(spec.wells) for spec in screen.specs.values())
    alone.settings["run"] = {}
    alone.write()
    alone.run(until="ingest")
    assert_same(screen, alone)
