"""What SLURM adds: seconds until the first job is submitted, a submission, and a job.

    python tests/benchmarks/slurm.py --folder DIR --plates 1000

Starts the cluster on loopback of tests/slurm (root with apt, or SLURM installed). First a screen of
many plates (384 wells of a one-byte file each) is submitted to a partition that is down: nothing
runs, the queue fills to the profile's `jobs`, the run is given up. Then a few plates of one real well
each go through ingest, and SLURM's time of a job is set beside the stage's own: wall times, with the
load of the machine. A job starts Snakemake twice; its CPU seconds are told for both screens.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "slurm")]

import cluster  # noqa: E402
import submission  # noqa: E402

from plateglass import synthetic  # noqa: E402
from screen import Screen  # noqa: E402

WELLS = [f"{row}{column:02d}" for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)]
SMALL = 8  # plates whose jobs are run


def many(folder: Path, plates: int) -> Screen:
    """A screen of one-byte images (one inode a plate), enough for a plan and its jobs."""
    lines = ["plate,path,platemap"]
    rows = [f"{well},{'negative_control' if well < 'B' else 'treatment'}" for well in WELLS]
    (folder / "map.csv").write_text("\n".join(["well,role", *rows]) + "\n")
    for number in range(plates):
        plate = folder / "raw" / f"P{number:04d}"
        plate.mkdir(parents=True)
        (plate / f"{WELLS[0]}_DNA.tif").write_bytes(b"x")
        for well in WELLS[1:]:
            (plate / f"{well}_DNA.tif").hardlink_to(plate / f"{WELLS[0]}_DNA.tif")
        lines.append(f"{plate.name},raw/{plate.name},map.csv")
    settings = {
        "plates": "plates.csv",
        "results": "results",
        "channels": {"DNA": {"match": "DNA"}},
        "ingest": {"pattern": r"(?P<well>[A-P]\d\d)_(?P<channel>\w+)\.tif"},
        "segment": {"nuclei": {"channel": "DNA"}},
    }
    return _screen(folder, lines, settings)


def few(folder: Path, plates: int) -> Screen:
    """A screen of plates with one small well."""
    lines = ["plate,path"]
    for number in range(plates):
        spec = synthetic.tiny(f"P{number}", wells={"A01": synthetic.NEGATIVE})
        synthetic.render_plate(spec, folder / "raw" / spec.name)
        lines.append(f"{spec.name},raw/{spec.name}")
    settings = {
        "plates": "plates.csv",
        "results": "results",
        "channels": {c: {"match": c} for c in ("DNA", "Actin", "Marker")},
        "ingest": {"pattern": synthetic.PATTERN, "pixel_size_um": 0.65},
        "segment": {"nuclei": {"channel": "DNA"}, "cells": {"channel": "Actin"}},
    }
    return _screen(folder, lines, settings)


def _screen(folder: Path, lines: list[str], settings: dict) -> Screen:
    (folder / "plates.csv").write_text("\n".join(lines) + "\n")
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    screen = Screen.__new__(Screen)
    screen.folder, screen.results = folder, folder / "results"
    return screen


def submitting(screen: Screen, plates: int, profile: Path) -> tuple[float, int, float]:
    """Seconds to the first job in the queue, jobs in the full queue, seconds a further submission."""
    subprocess.run(["scontrol", "update", "partitionname=debug", "state=down"], check=True)
    limit = min(plates, yaml.safe_load((profile / "config.yaml").read_text())["jobs"])
    seen: list[tuple[float, int]] = []
    start = time.perf_counter()
    running = submission.start(screen, profile)
    try:
        while not seen or seen[-1][1] < limit:
            if running.poll() is not None:
                raise SystemExit((screen.folder / "terminal.txt").read_text())
            queued = len(cluster.ask("squeue", "-h").splitlines())
            if queued > (seen[-1][1] if seen else 0):
                seen.append((time.perf_counter() - start, queued))
            time.sleep(0.1)
    finally:
        running.send_signal(signal.SIGINT)  # it cancels its jobs
        try:
            running.wait(120)
        except subprocess.TimeoutExpired:
            running.kill()
    subprocess.run(["scancel", "--partition=debug"], check=True)
    subprocess.run(["scontrol", "update", "partitionname=debug", "state=up"], check=True)
    (first, one), (last, all_) = seen[0], seen[-1]
    return first, all_, (last - first) / (all_ - one)


def running(screen: Screen, profile: Path) -> dict[str, float]:
    """Jobs, medians of a job's seconds in SLURM and of those in its stage; the whole run's."""
    before = submission.last_id()
    start = time.perf_counter()
    submission.snakemake(screen, profile, "--until", "ingest", "--jobs", "2")
    whole = time.perf_counter() - start
    jobs = submission.submitted(before)
    costs = [json.loads(line) for line in (screen.results / ".plateglass/costs.jsonl").open()]
    return {
        "jobs": len(jobs),
        "in SLURM": statistics.median((job.end - job.start).total_seconds() for job in jobs),
        "in the stage": statistics.median(cost["seconds"] for cost in costs),
        "run": whole,
    }


def starting(screen: Screen) -> float:
    """CPU seconds of one Snakemake that a job starts, less those of the stage."""
    plate = screen.project().names[0]
    key = screen.plan().keys[plate, "ingest"]
    stage = [sys.executable, "-m", "plateglass.cli", "ingest", plate, "--key", key]
    job = [sys.executable, "-m", "snakemake", "--snakefile", str(submission.ROOT / "Snakefile")]
    job += ["--target-jobs", f"ingest:plate={plate},key={key}", "--allowed-rules", "ingest"]
    job += ["--force", "--nolock", "--ignore-incomplete", "--cores", "1", "--mode", "remote"]
    job += ["--workflow-profile", "none", "--target-files-omit-workdir-adjustment"]
    spent = []
    for command in ([*job, "--configfiles"], [*stage, "--config"]):
        shutil.rmtree(screen.results, ignore_errors=True)
        before = os.times()
        subprocess.run(
            [*command, "config.yaml"], cwd=screen.folder, check=True, capture_output=True
        )
        after = os.times()
        used = after.children_user + after.children_system
        spent.append(used - before.children_user - before.children_system)
    return spent[0] - spent[1]


def main() -> None:
    """Print the figures, and as the last line JSON."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--folder", type=Path, required=True, help="is made, and deleted after")
    arguments.add_argument("--plates", type=int, default=1000)
    args = arguments.parse_args()
    if reason := cluster.missing():
        sys.exit(reason)
    args.folder.mkdir(parents=True)
    try:
        with cluster.cluster():
            profile = submission.profile(args.folder / "profile")
            for name in ("many", "few"):
                (args.folder / name).mkdir()
            large = many(args.folder / "many", args.plates)
            first, queued, each = submitting(large, args.plates, profile)
            print(f"{args.plates} plates: first job submitted after {first:.1f} s")
            print(f"then {queued} jobs at {1000 * each:.0f} ms each", flush=True)
            small = few(args.folder / "few", SMALL)
            found = running(small, profile)
            print(
                f"{found['jobs']} jobs, two at a time: {found['in SLURM']:.0f} s in SLURM each, of "
                f"which {found['in the stage']:.1f} s in the stage; the run took {found['run']:.0f} s"
            )
            cpu = [starting(large), starting(small)]
            print(
                f"a job's Snakemake, twice: {2 * cpu[0]:.1f} CPU s of {args.plates} plates, "
                f"{2 * cpu[1]:.1f} CPU s of {SMALL}"
            )
    finally:
        shutil.rmtree(args.folder)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    figures = {"plates": args.plates, "first": first, "submission": each, "CPU": cpu}
    print(json.dumps(figures | found))


if __name__ == "__main__":
    main()
