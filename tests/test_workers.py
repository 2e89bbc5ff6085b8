"""A job's own workers: how they begin, what they have imported by then, what they tell, their end."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from plateglass import cli, wells
from screen import Screen

ASK = """
import sys
from multiprocessing import forkserver
from pathlib import Path
from plateglass import config, wells
from plateglass.project import Project
from plateglass.stages import STAGES

def imported(stage):
    return {*STAGES[stage].in_workers} <= {*sys.modules}, "torch" in sys.modules

if __name__ == "__main__":
    project = Project.read(config.read(Path(sys.argv[1])))
    stage = sys.argv[2]
    job = wells.Job(stage, "P1", project, threads=2)
    wells.begin_imports(job, ["A01"] * wells.CLUSTER_FROM)
    with wells.client(job, wells.CLUSTER_FROM) as dask:
        server = forkserver._forkserver._forkserver_pid
        threads = [*Path(f"/proc/{server}/task").glob("*/comm")] if server else []
        others = [file.read_text().strip() for file in threads if file.parent.name != str(server)]
        print(wells._method(), *dask.run(imported, stage).values(), others)
"""
# a job whose wells take long enough to be stopped in their middle
SLOW = """
import sys, time
from plateglass import cli, wells
from plateglass.stages import ingest

def slowly(job, well, own, stage, **given):
    time.sleep(0.3)
    return stage(job, well, own, **given)

def each(job, function, todo, own, **given):
    return wells.each(job, slowly, todo, own, stage=function, **given)

if __name__ == "__main__":
    ingest.each = each
    sys.exit(cli.main())
"""


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    return Screen(tmp_path_factory.mktemp("screen"), train=False)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are spawned")
@pytest.mark.parametrize(("stage", "torch"), [("segment", True), ("features", False)])
def test_workers_are_forked_with_their_imports_done(screen, tmp_path, stage, torch):
    # from a server that has no thread but, in some versions of pyarrow, jemalloc's
    ready = f"(True, {torch})"
    forked = [f"forkserver {ready} {ready} {others}" for others in ([], ["jemalloc_bg_thd"])]
    assert asked(screen, tmp_path, stage) in forked


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="workers are spawned")
def test_workers_are_spawned_where_no_socket_can_be(screen, tmp_path):
    long = tmp_path / ("long" * 25)  # a socket's path has 107 characters at most
    long.mkdir()
    said = asked(screen, tmp_path, "segment", TMPDIR=str(long))
    assert said == "spawn (False, False) (False, False) []"


def asked(screen, folder, stage, **more):
    """How a stage's workers begin, and what they and the server that they are forked from say."""
    script = folder / "ask.py"
    script.write_text(ASK)
    command = [sys.executable, script, screen.folder / "config.yaml", stage]
    environment = os.environ | cli.ONE_THREAD | cli.IN_JOBS | more
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(("threads", "count", "begun"), [(16, 5, 5), (2, 5, 2)])
def test_there_are_no_more_workers_than_wells(screen, monkeypatch, threads, count, begun):
    class Enough(Exception):
        pass

    def cluster(n_workers, **_):
        raise Enough(n_workers)

    monkeypatch.setattr("distributed.LocalCluster", cluster)
    monkeypatch.setattr(wells, "_method", lambda: "spawn")
    job = wells.Job("ingest", "P1", screen.project(), threads=threads)
    with pytest.raises(Enough, match=f"^{begun}$"), wells.client(job, count):
        pass


def command(screen, plate, program=("-m", "plateglass.cli")):
    return [
        *(sys.executable, *program, "ingest", plate, "--threads", "2"),
        *("--config", screen.folder / "config.yaml"),
        *("--key", screen.plan().keys[plate, "ingest"]),
    ]


def test_a_job_tells_its_workers_memory(screen):
    done = subprocess.run(command(screen, "P1"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cost = json.loads((screen.results / ".plateglass/costs.jsonl").read_text())
    assert 30 < cost["peak_worker_mb"] < 1000
    assert cost["peak_worker_mb"] != cost["peak_mb"]


@pytest.mark.parametrize(
    ("threads", "count", "asked"), [(2, 5, True), (1, 5, False), (2, 4, False)]
)
def test_imports_begin_only_where_there_will_be_workers(screen, monkeypatch, threads, count, asked):
    begun = []
    monkeypatch.setattr(wells, "_method", lambda: begun.append("server"))
    job = wells.Job("ingest", "P1", screen.project(), threads=threads)
    wells.begin_imports(job, ["A01"] * count)
    assert bool(begun) == asked


@pytest.fixture
def slow(screen, tmp_path):
    """A screen of which nothing is done, and the words of a job that does P2's wells slowly."""
    own = screen.copy(tmp_path / "screen")
    shutil.rmtree(own.results, ignore_errors=True)
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    return own, command(own, "P2", [script])


@pytest.mark.parametrize(
    ("number", "by"),
    [
        (signal.SIGINT, "the keyboard"),
        pytest.param(signal.SIGTERM, "SIGTERM", marks=pytest.mark.long),
    ],
)
def test_a_job_stopped_in_the_middle_ends_its_workers_and_goes_on_later(slow, tmp_path, number, by):
    screen, job = slow
    ledger = screen.results / ".plateglass/ledger/P2.ingest.jsonl"
    said = stopped(job, tmp_path / "log", number, ledger.exists)
    assert said.endswith(f"plateglass: stopped by {by}; finished wells are kept\n")
    assert "Traceback" not in said
    left = 8 - len(ledger.read_text().splitlines())
    assert 0 < left < 8
    last = subprocess.run(job, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert f"{left} of 8 wells to do" in last.stdout and last.stdout.count(" done {") == left


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_stopped_while_its_workers_begin_says_no_more_than_that(slow, tmp_path, number):
    screen, job = slow
    folder = screen.results / ".plateglass/dask"  # of the workers
    said = stopped(job, tmp_path / "log", number, folder.exists)
    assert said.endswith("finished wells are kept\n") and "Traceback" not in said


def stopped(job, log, number, begun):
    """Stop a job once ``begun()``; returns what it said, when none of its processes is left."""
    with log.open("w") as file:
        leader = subprocess.Popen(
            job,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            # where the tests run in the background they were told to ignore it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    while not begun():
        assert leader.poll() is None, log.read_text()
        time.sleep(0.02)
    leader.send_signal(number)
    assert leader.wait() == 130, log.read_text()
    until = time.monotonic() + 60  # the server that its workers were forked from takes a moment
    while left := session(leader.pid):
        assert time.monotonic() < until, left
        time.sleep(0.1)
    return log.read_text()


def session(leader):
    """The processes of a session that live."""
    living = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living
