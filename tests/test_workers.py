"""A job's own workers: how they begin, what they have imported by then, and what they tell."""

import json
import os
import subprocess
import sys

import pytest

from plateglass import wells
from screen import Screen

ASK = """
import sys
from pathlib import Path
from plateglass import config, wells
from plateglass.plates import read_sheet

def imported():
    return "plateglass.stages.segment" in sys.modules

if __name__ == "__main__":
    settings = config.read(Path(sys.argv[1]))
    job = wells.Job("segment", "P1", settings, read_sheet(settings), threads=2)
    wells.begin_imports(job, ["A01"] * wells.CLUSTER_FROM)
    with wells.client(job) as dask:
        print(wells._method(), *dask.run(imported).values())
"""


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    return Screen(tmp_path_factory.mktemp("screen"), train=False)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are spawned")
def test_workers_are_forked_with_their_imports_done_where_sockets_can_be(screen, tmp_path):
    script = tmp_path / "ask.py"
    script.write_text(ASK)
    long = tmp_path / ("long" * 25)  # a socket's path has 107 characters at most
    long.mkdir()
    for folder, said in ((None, "forkserver True True"), (long, "spawn False False")):
        more = {} if folder is None else {"TMPDIR": str(folder)}
        command = [sys.executable, script, screen.folder / "config.yaml"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | more)
        assert done.stdout.split("\n")[-2] == said, done.stderr


def test_a_job_tells_its_workers_memory(screen):
    plan = screen.plan()
    command = [sys.executable, "-m", "plateglass.cli", "ingest", "P1", "--threads", "2"]
    command += ["--config", screen.folder / "config.yaml", "--key", plan.keys["P1", "ingest"]]
    subprocess.run(command, check=True, capture_output=True)
    cost = json.loads((screen.results / ".plateglass/costs.jsonl").read_text())
    assert 30 < cost["peak_worker_mb"] < 1000
    assert cost["peak_worker_mb"] != cost["peak_mb"]


@pytest.mark.parametrize(
    ("threads", "count", "asked"), [(2, 5, True), (1, 5, False), (2, 4, False)]
)
def test_imports_begin_only_where_there_will_be_workers(screen, monkeypatch, threads, count, asked):
    begun = []
    monkeypatch.setattr(wells, "_method", lambda: begun.append("server"))
    config, sheet = screen.project().config, screen.project().sheet
    wells.begin_imports(wells.Job("ingest", "P1", config, sheet, threads=threads), ["A01"] * count)
    assert bool(begun) == asked
