"""kill -9 at random moments, of workers, of jobs, of Snakemake: what comes out is as if undisturbed."""

import contextlib
import random
import shutil
import subprocess
import time

import psutil
import pytest

from screen import assert_same
from terminal import command, environment, snakemake

KINDS = ("worker", "job", "snakemake")
TO_UNLOCK = "give  snakemake --unlock"


def done_so_far(screen):
    """How far a run is: lines of the ledgers, and markers."""
    state = screen.results / ".plateglass"
    lines = sum(path.read_bytes().count(b"\n") for path in state.glob("ledger/*.jsonl"))
    return lines + len(list(state.glob("done/*")))


def victims(run, kind):
    if kind == "snakemake":
        return [run]
    found = []
    for process in run.children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if not words or "python" not in process.name():
            continue
        # workers of wells have the words of the server that they are forked from, train's are spawned
        worker = any("forkserver" in word or "spawn_main" in word for word in words)
        if "plateglass.cli" in words if kind == "job" else worker:
            found.append(process)
    return found


def kill(screen, kinds, draw, most):
    """Start a run and kill a process of each of ``kinds`` while it lasts; returns how many it hit.

    A ``worker`` is one of the processes that a job has started, the server they are forked from too.

    Each kill comes after a random number of further steps, below ``most``, and a random time more.
    Where Snakemake itself died, its jobs may live on; the next command says ``--unlock``, and is.
    """
    with (screen.folder / "said").open("a") as log:
        started = subprocess.Popen(command(screen), stdout=log, stderr=log, env=environment())
    run, hits = psutil.Process(started.pid), 0
    until = time.monotonic() + 1800
    for kind in kinds:
        after, jitter, then = done_so_far(screen) + draw.randrange(most), draw.random() ** 2, None
        while started.poll() is None:
            assert time.monotonic() < until, "the run hangs"
            time.sleep(0.02)
            if then is None and done_so_far(screen) >= after:
                then = time.monotonic() + jitter
            if then and time.monotonic() >= then and (found := victims(run, kind)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    draw.choice(found).kill()
                    hits += 1
                    print(f"{kind} killed at {done_so_far(screen)} steps")
                    break
    started.wait(timeout=1800)
    if any((screen.folder / ".snakemake/locks").glob("*")):
        code, said = snakemake(screen, check=False)
        # its jobs may have lived on and finished all there was to do
        assert (TO_UNLOCK if code else "Nothing to be done") in said, said
        snakemake(screen, "--unlock")
    return hits


def finish(screen, finished):
    """Run what is left; what comes out is as if nobody had killed anything."""
    if screen.plan().reasons:
        assert "results/screen/report.html" in snakemake(screen)
    assert screen.plan().reasons == {}
    assert_same(screen, finished)


def undo(screen, plate, stages):
    """As if these stages had never run; those after them are asked for again, and will look."""
    state = screen.results / ".plateglass"
    for stage in stages:
        shutil.rmtree(state / "parts" / plate / stage)
        (state / f"ledger/{plate}.{stage}.jsonl").unlink()
    for marker in state.glob(f"done/{plate}.*"):
        marker.unlink()


def seeded():
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    return random.Random(seed)


def test_three_kills(untrained):
    draw, screen = seeded(), untrained
    finished = screen.copy(screen.folder.with_name("finished"))
    undo(screen, "P2", ["ingest", "segment"])
    shutil.rmtree(screen.results / "P2/plate.zarr")
    assert kill(screen, ["worker", "job"], draw, 3) + kill(screen, ["snakemake"], draw, 3) == 3
    finish(screen, finished)


@pytest.mark.long
@pytest.mark.parametrize("sequence", range(5))
def test_fifty_kills(finished, tmp_path, sequence):
    """Ten kills of runs from nothing, which begin anew when all is done; five times."""
    draw = seeded()
    screen = finished.copy(tmp_path / "screen")
    shutil.rmtree(screen.results)
    hits = 0
    while hits < 10:
        if not screen.plan().reasons:
            assert_same(screen, finished)
            shutil.rmtree(screen.results)
        hits += kill(screen, [draw.choice(KINDS) for _ in range(4)], draw, 30)
    finish(screen, finished)
