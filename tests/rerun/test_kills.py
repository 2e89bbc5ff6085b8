"""kill -9 at random moments, of workers, of jobs, of Snakemake: what comes out is as if undisturbed."""

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
        python = "python" in process.name() if words else False
        job = "plateglass.cli" in words
        if python and (job if kind == "job" else any("spawn_main" in word for word in words)):
            found.append(process)
    return found


def kill_once(screen, kind, after, jitter):
    """Start a run and kill a process of it; True if it was there to be killed. Waits for the run."""
    log = (screen.folder / "said").open("a")
    start = done_so_far(screen)
    started = subprocess.Popen(command(screen), stdout=log, stderr=log, env=environment())
    run = psutil.Process(started.pid)
    hit = False
    until = time.monotonic() + 500
    while not hit and started.poll() is None:
        assert time.monotonic() < until, "the run hangs"
        time.sleep(0.02)
        if done_so_far(screen) - start >= after and (found := victims(run, kind)):
            time.sleep(jitter)
            for victim in found[:1]:
                try:
                    victim.kill()
                    hit = True
                except psutil.NoSuchProcess:
                    pass
    started.wait(timeout=500)
    return hit


def killed(screen, seed, kinds, most):
    """A run killed again and again, then left to finish; ``most`` is the steps before a kill."""
    draw = random.Random(seed)
    hits = 0
    for kind in kinds:
        after, jitter = draw.randrange(most), draw.random() ** 2
        print(f"seed {seed}: {kind} killed after {after} steps and {jitter:.2f} s")
        hit = kill_once(screen, kind, after, jitter)
        hits += hit
        if hit and kind == "snakemake":
            code, said = snakemake(screen, check=False)
            assert code != 0 and TO_UNLOCK in said, said
            snakemake(screen, "--unlock")
    said = snakemake(screen)
    assert "results/screen/report.html" in said or "Nothing to be done" in said
    assert screen.plan().reasons == {}
    return hits


def undo_features(screen):
    """As if features and attribute of P2 had never run."""
    state = screen.results / ".plateglass"
    for stage in ("features", "attribute"):
        shutil.rmtree(state / "parts/P2" / stage)
        (state / f"ledger/P2.{stage}.jsonl").unlink()
        for marker in state.glob(f"done/P2.{stage}.*"):
            marker.unlink()
    shutil.rmtree(screen.results / "P2/attribution.zarr")


def test_three_kills(screen, finished):
    seed = random.SystemRandom().randrange(10**6)
    undo_features(screen)
    assert killed(screen, seed, KINDS, most=3) >= 2
    assert_same(screen, finished)


@pytest.mark.long
@pytest.mark.parametrize("sequence", range(5))
def test_fifty_kills(finished, tmp_path, sequence):
    """Ten kills of a run from nothing; five times."""
    seed = random.SystemRandom().randrange(10**6)
    screen = finished.copy(tmp_path / "screen")
    shutil.rmtree(screen.results)
    draw = random.Random(seed)
    kinds = [draw.choice(KINDS) for _ in range(10)]
    assert killed(screen, seed, kinds, most=9) >= 8
    assert_same(screen, finished)
