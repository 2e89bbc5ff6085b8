"""Work by the well: constant from 12 to 384 wells, spread over two workers, and done once.

    python tests/benchmarks/scale_wells.py --folder DIR constant --wells 12 96 384 --rounds 3
    python tests/benchmarks/scale_wells.py --folder DIR workers --wells 192 --size 1080 --channels 5 \\
        --steps ingest
    python tests/benchmarks/scale_wells.py --folder DIR workers --wells 96 --size 1080 --channels 5 \\
        --steps segment
    python tests/benchmarks/scale_wells.py --folder DIR changed --wells 384

`constant` prints reads, writes, CPU ms a well and peak memory of ingest and of the mask step (segment
with a threshold in the network's place) in one process, after a plate that warms it up. `workers` runs
both steps with one and with two workers, and as two jobs of half the wells each that share nothing but the
machine: what its two cores can give; wall times are those of whole processes, CPU seconds those of the
busiest one. `changed` runs every job of a plate (classical features, no network) by the command line, then
again after one well got other images, beside a plate that has that one well only.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tifffile
import yaml
from fabricated import wells_of
from steps import step

from plateglass import config, jobs, wells
from plateglass.cli import OF_WORKERS
from plateglass.plan import Plan
from plateglass.project import Project
from plateglass.wells import peak_mb

ROOT = Path(__file__).parents[2]
STEPS = ("ingest", "segment")


def field(size: int, seed: int, cells: int | None = None) -> np.ndarray:
    """uint16 (size, size): noise and bright discs, about one to every 48² pixels."""
    rng = np.random.default_rng(seed)
    image = rng.normal(400, 20, (size, size))
    y, x = np.mgrid[-9:10, -9:10]
    disc = (y**2 + x**2 <= 64) * 3000.0
    for _ in range(cells or max(1, (size // 48) ** 2)):
        top, left = rng.integers(0, size - 19, 2)
        image[top : top + 19, left : left + 19] = np.maximum(
            image[top : top + 19, left : left + 19], disc + 400
        )
    return image.clip(0, 65535).astype(np.uint16)


def write_screen(folder: Path, plates: dict[str, int], size: int, channels: int) -> Path:
    """Plates of so many wells each, one site a well; returns the settings' file."""
    lines = ["plate,path,platemap"]
    images = [field(size, seed) for seed in range(channels)]
    for plate, count in plates.items():
        (folder / "raw" / plate).mkdir(parents=True, exist_ok=True)
        rows = ["well,role"]
        for i, well in enumerate(wells_of(count)):
            rows.append(f"{well},{'negative_control' if i % 8 == 0 else 'treatment'}")
            for channel, image in enumerate(images, 1):
                tifffile.imwrite(folder / "raw" / plate / f"{well}_s1_w{channel}.tif", image)
        (folder / "raw" / plate / "platemap.csv").write_text("\n".join(rows) + "\n")
        lines.append(f"{plate},raw/{plate},raw/{plate}/platemap.csv")
    os.sync()  # else the disk is still busy with these images when the first job is timed
    (folder / "plates.csv").write_text("\n".join(lines) + "\n")
    settings = {
        "plates": "plates.csv",
        "results": "results",
        "channels": {f"C{c}": {"match": str(c)} for c in range(1, channels + 1)},
        "ingest": {
            "pattern": r"(?P<well>[A-P]\d\d)_s(?P<site>\d)_w(?P<channel>\d)\.tif",
            "pixel_size_um": 0.65,
        },
        "segment": {"nuclei": {"channel": "C1"}, "cells": {"channel": f"C{min(2, channels)}"}},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


# ---------------------------------------------------------------------- inside a process of its own
def spent(settings: Path, stage: str, plate: str, threads: int) -> dict:
    """CPU, reads and writes of this process, and the busiest process's CPU, of one job."""
    by_process: dict[int, float] = {}
    each, record = wells.each, jobs._record

    def note(job, ledger, parts, result):
        pid = result.counts["pid"]
        by_process[pid] = max(by_process.get(pid, 0), result.counts["cpu"])
        record(job, ledger, parts, result)

    # the stage itself is imported by the job, as ever: beside its workers' imports
    wells.each = lambda job, function, names, **given: each(job, step, names, name=stage, **given)
    jobs._record = note
    project = Project.read(config.read(settings))
    key = Plan(project).keys[plate, stage]
    io, cpu = _io(), time.process_time()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        jobs.run(project, stage, plate, key, threads)
    found = {"cpu": time.process_time() - cpu}
    found |= {name: value - io[name] for name, value in _io().items()}
    by_process.pop(os.getpid(), None)
    found["busiest"] = max([found["cpu"], *by_process.values()])
    found["peak_mb"] = peak_mb()
    wells.each, jobs._record = each, record
    return found


def _io() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {k: int(v) for k, v in (line.split(": ") for line in lines) if k in ("syscr", "syscw")}


def child(folder: Path, *arguments: str) -> dict:
    """`spent` in a fresh process (the last line it prints), and the wall time of that process."""
    command = [sys.executable, __file__, "--folder", str(folder), "_job", *map(str, arguments)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    wall = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1]) | {"wall": wall}


# ---------------------------------------------------------------------- what is asked
def steps(
    args: argparse.Namespace, name: str, plates: dict[str, int], threads: int
) -> Iterator[tuple[str, dict]]:
    """Each step's figures over a screen of these plates, which is written first and then deleted."""
    folder = args.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    write_screen(folder, plates, args.size, args.channels)
    for stage in args.steps:
        if stage != "ingest" and "ingest" not in args.steps:
            child(folder, "ingest", ",".join(plates), 2)
        yield stage, child(folder, stage, ",".join(plates), threads)
    shutil.rmtree(folder)


def constant(args: argparse.Namespace) -> None:
    """Per-well work and peak memory of plates of different sizes."""
    figures = defaultdict(lambda: defaultdict(list))
    for turn in range(args.rounds):
        for count in args.wells:
            plates = {"W": 12, "P": count}
            for stage, found in steps(args, f"constant{count}_{turn}", plates, 1):
                for name, value in found.items():
                    figures[stage, count][name].append(value)
    print(
        "| step | wells | reads a well | writes a well | CPU ms a well | of the first | peak MB |"
    )
    print("|---|---|---|---|---|---|---|")
    for stage in args.steps:
        first = None
        for count in args.wells:
            found = {k: statistics.median(v) for k, v in figures[stage, count].items()}
            cpu = 1000 * found["cpu"] / count
            first = first or cpu
            print(
                f"| {stage} | {count} | {found['syscr'] / count:.1f} | {found['syscw'] / count:.1f} | "
                f"{cpu:.1f} | {cpu / first:.2f} | {found['peak_mb']:.0f} |"
            )


def workers(args: argparse.Namespace) -> None:
    """One worker, two, and two jobs apart; the same wells."""
    figures = defaultdict(lambda: defaultdict(list))
    for turn in range(args.rounds):
        for how in ("one", "two", "apart"):
            for stage, found in spread(args, f"workers_{how}_{turn}", how):
                for name, value in found.items():
                    figures[stage, how][name].append(value)
    print(
        "| step | wall of one, s | of two | ratio | of two jobs apart | ratio | of that | "
        "CPU of one, s | busiest of two | load |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for stage in args.steps:
        one, two, apart = (
            {k: statistics.median(v) for k, v in figures[stage, how].items()}
            for how in ("one", "two", "apart")
        )
        gain, most = one["wall"] / two["wall"], one["wall"] / apart["wall"]
        print(
            f"| {stage} | {one['wall']:.1f} | {two['wall']:.1f} | {gain:.2f} | {apart['wall']:.1f} | "
            f"{most:.2f} | {gain / most:.2f} | {one['cpu']:.1f} | {two['busiest']:.1f} | "
            f"{os.getloadavg()[0]:.1f} |"
        )


def spread(args: argparse.Namespace, name: str, how: str) -> Iterator[tuple[str, dict]]:
    """Each step's figures: by one or two workers, or as the slower of two jobs side by side."""
    count = args.wells[0]
    if how != "apart":
        yield from steps(args, name, {"P": count}, 1 if how == "one" else 2)
        return
    folders = [args.folder / f"{name}_{half}" for half in (0, 1)]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        write_screen(folder, {"P": (count + 1) // 2}, args.size, args.channels)
    for stage in args.steps:
        with ThreadPoolExecutor(2) as pool:
            if stage != "ingest" and "ingest" not in args.steps:
                list(pool.map(lambda folder: child(folder, "ingest", "P", 1), folders))
            both = list(pool.map(lambda folder, stage=stage: child(folder, stage, "P", 1), folders))
        yield stage, {key: max(found[key] for found in both) for key in both[0]}
    for folder in folders:
        shutil.rmtree(folder)


def changed(args: argparse.Namespace) -> None:
    """All jobs of a plate; again after one well changed, in each round; and of a plate of one well."""
    count = args.wells[0]
    folder = args.folder / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    settings = write_screen(folder, {"P": count, "One": 1}, args.size, args.channels)
    full = run_jobs(settings, "P")
    run_jobs(settings, "One")
    figures = {plate: defaultdict(list) for plate in ("P", "One")}
    for turn in range(args.rounds):
        for plate, spent in figures.items():
            for channel in range(1, args.channels + 1):
                image = field(args.size, 100 * (turn + 1) + channel)
                well = "A02" if plate == "P" else "A01"  # P's A01 is a unit of its plate
                tifffile.imwrite(folder / "raw" / plate / f"{well}_s1_w{channel}.tif", image)
            for stage, cpu in run_jobs(settings, plate).items():
                spent[stage].append(cpu)
    again, alone = ({s: statistics.median(v) for s, v in f.items()} for f in figures.values())
    print(f"CPU seconds of each job, {count} wells; load {os.getloadavg()[0]:.1f}")
    print("| job | full run | a well of it, ms | plate of one well | one well changed |")
    print("|---|---|---|---|---|")
    bound = 0.0
    for stage, cpu in full.items():
        whole = stage in ("aggregate", "report")
        bound += cpu if whole else alone[stage]
        by_well = "" if whole else f"{1000 * (cpu - alone[stage]) / (count - 1):.0f}"
        print(f"| {stage} | {cpu:.2f} | {by_well} | {alone[stage]:.2f} | {again[stage]:.2f} |")
    print(
        f"sum {sum(again.values()):.2f} s; bound (starts with one well, tables, report) {bound:.2f} s"
    )


def run_jobs(settings: Path, plate: str) -> dict[str, float]:
    """CPU seconds of each job of a plate, as Snakemake calls them."""
    times = {}
    plan = Plan(Project.read(config.read(settings)))
    for name, stage in plan.reasons:
        if name != plate:
            continue
        before = os.times()
        command = [sys.executable, "-m", "plateglass.cli", stage, plate, "--config", str(settings)]
        done = subprocess.run([*command, "--key", plan.keys[plate, stage]], capture_output=True)
        if done.returncode:
            raise SystemExit(done.stderr.decode())
        after = os.times()
        times[stage] = sum(after[2:4]) - sum(before[2:4])
    return times


def main() -> None:
    """Print tables."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--folder", type=Path, required=True)
    what = arguments.add_subparsers(dest="what", required=True)
    for function, counts in ((constant, [12, 96, 384]), (workers, [96]), (changed, [384])):
        one = what.add_parser(function.__name__)
        one.add_argument("--wells", type=int, nargs="+", default=counts)
        one.add_argument("--size", type=int, default=96)
        one.add_argument("--channels", type=int, default=2)
        one.add_argument("--rounds", type=int, default=3)
        one.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
        one.set_defaults(run=function)
    job = what.add_parser("_job")
    job.add_argument("stage")
    job.add_argument("plates")
    job.add_argument("threads", type=int)
    args = arguments.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if args.what == "_job":
        for name, value in OF_WORKERS.items():  # as the command line does, for its workers
            os.environ.setdefault(name, value)
        for plate in args.plates.split(","):
            found = spent(args.folder / "config.yaml", args.stage, plate, args.threads)
        print(json.dumps(found))
    else:
        args.folder.mkdir(parents=True, exist_ok=True)
        args.run(args)


if __name__ == "__main__":
    main()
