"""A Dask scheduler and workers in processes of their own, as ``run.dask.scheduler`` finds them."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@contextlib.contextmanager
def running_dask(folder: Path, workers: int = 2) -> Iterator[tuple[Path, list[subprocess.Popen]]]:
    """The scheduler file, and the workers' processes: one thread each, and no nanny to raise them."""
    file = folder / "scheduler.json"
    scheduler = _start("scheduler", file, "--port", "0", "--no-dashboard")
    started = [scheduler]
    try:
        options = (
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
            "--local-directory",
            str(folder),
        )
        team = [_start("worker", file, *options) for _ in range(workers)]
        started += team
        while not file.exists():
            assert scheduler.poll() is None, "the scheduler ended"
            time.sleep(0.05)
        yield file, team
    finally:
        for process in started:
            process.kill()
            process.wait()


def _start(what: str, file: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *options], env=environment, **QUIET)
