"""A Dask scheduler and workers in processes of their own, as ``run.dask.scheduler`` finds them."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@dataclass
class Cluster:
    """A scheduler, its file, and its workers: one thread each, and no nanny to raise them."""

    folder: Path
    scheduler: subprocess.Popen
    team: list[subprocess.Popen] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "scheduler.json"

    def join(self) -> None:
        """Begin one more worker."""
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard")
        folder = ("--local-directory", str(self.folder))
        self.team.append(_start("worker", self.file, *options, *folder))


def end(process: subprocess.Popen) -> None:
    """Kill it, and be sure that it is gone."""
    process.kill()
    process.wait()


@contextlib.contextmanager
def running_dask(folder: Path, workers: int = 2) -> Iterator[Cluster]:
    """A cluster of so many workers, which may join a moment later."""
    file = folder / "scheduler.json"
    cluster = Cluster(folder, _start("scheduler", file, "--port", "0", "--no-dashboard"))
    try:
        for _ in range(workers):
            cluster.join()
        while not file.exists():
            assert cluster.scheduler.poll() is None, "the scheduler ended"
            time.sleep(0.05)
        yield cluster
    finally:
        for process in (cluster.scheduler, *cluster.team):
            end(process)


def _start(what: str, file: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *options], env=environment, **QUIET)
