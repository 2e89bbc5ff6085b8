"""Work by the well: constant from 12 to 384 wells, spread over two workers, and done once.

    python tests/benchmarks/scale_wells.py --folder DIR constant --wells 12 96 384 --rounds 3
    python tests/benchmarks/scale_wells.py --folder DIR constant --wells 12 384 --rounds 1 --size 480 \\
        --steps ingest segment features attribute aggregate report
    python tests/benchmarks/scale_wells.py --folder DIR workers --wells 192 --size 1080 --channels 5 \\
        --step ingest
    python tests/benchmarks/scale_wells.py --folder DIR workers --wells 96 --size 1080 --channels 5 \\
        --step segment
    python tests/benchmarks/scale_wells.py --folder DIR changed --wells 384

`constant` prints reads, writes, CPU ms a well and peak memory of each stage in one process, after a
plate of 12 wells that warms it up, and that a small network was trained on (segment: the mask step, with
a threshold in its network's place). `workers` runs
a step by the command line with one and with two workers, and as two jobs of half the wells each that share
nothing but the machine: what its two cores can give. `changed` runs every job of a plate (classical
features, no network), then, in each round, tables and report anew, all after one well got other images, and
all of a plate of that one well only.
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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mask_step
import numpy as np
import tifffile
import yaml
from fabricated import wells_of

from plateglass import config, jobs, markers, store
from plateglass.cli import set_up_libraries
from plateglass.plan import Plan
from plateglass.project import Project
from plateglass.wells import peak_mb

ROOT = Path(__file__).parents[2]
STEPS = ("ingest", "segment")
LATER = ("features", "attribute", "aggregate", "report")
TRAIN = {"classes": ["negative_control", "treatment"], "positive": "treatment", "epochs": 1}
TRAIN |= {"seeds": 1, "folds": 2, "crop": 48, "batch": 16}


def field(size: int, seed: int) -> np.ndarray:
    """uint16 (size, size): noise and bright discs, about one to every 48² pixels."""
    rng = np.random.default_rng(seed)
    image = rng.normal(400, 20, (size, size))
    y, x = np.mgrid[-9:10, -9:10]
    disc = (y**2 + x**2 <= 64) * 3000.0
    for _ in range(max(1, (size // 48) ** 2)):
        top, left = rng.integers(0, size - 19, 2)
        image[top : top + 19, left : left + 19] = np.maximum(
            image[top : top + 19, left : left + 19], disc + 400
        )
    return image.clip(0, 65535).astype(np.uint16)


def write_screen(
    folder: Path, plates: dict[str, int], size: int, channels: int, train: str = ""
) -> Path:
    """Plates of so many wells each, one site a well; returns the settings' file.

    ``train``: the plate that a network is trained on, if any.
    """
    lines = ["plate,path,platemap,train"]
    images = [field(size, seed) for seed in range(channels)]
    for plate, count in plates.items():
        (folder / "raw" / plate).mkdir(parents=True, exist_ok=True)
        rows = ["well,role"]
        for i, well in enumerate(wells_of(count)):
            rows.append(f"{well},{'negative_control' if i % 8 == 0 else 'treatment'}")
            for channel, image in enumerate(images, 1):
                tifffile.imwrite(folder / "raw" / plate / f"{well}_s1_w{channel}.tif", image)
        (folder / "raw" / plate / "platemap.csv").write_text("\n".join(rows) + "\n")
        trains = "yes" if plate == train else "no"
        lines.append(f"{plate},raw/{plate},raw/{plate}/platemap.csv,{trains}")
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
        "train": TRAIN if train else {},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


# ---------------------------------------------------------------------- inside a process of its own
def spent(settings: Path, stage: str, plate: str) -> dict:
    """CPU seconds, reads, writes and peak memory of this process, of one job by one worker."""
    if stage == "segment":
        from plateglass.stages import segment

        segment._model = lambda name, where: mask_step.threshold
    project = Project.read(config.read(settings))
    key = Plan(project).keys[plate, stage]
    io, cpu = _io(), time.process_time()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        jobs.run(project, stage, plate, key, threads=1)
    found = {"cpu": time.process_time() - cpu, "peak_mb": peak_mb()}
    return found | {name: value - io[name] for name, value in _io().items()}


def _io() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {k: int(v) for k, v in (line.split(": ") for line in lines) if k in ("syscr", "syscw")}


def child(folder: Path, stage: str, plates: list[str]) -> dict:
    """`spent` on each of these plates in one fresh process; the figures of the last."""
    command = [sys.executable, __file__, "--folder", str(folder), "_job", stage, ",".join(plates)]
    return json.loads(call(command).splitlines()[-1])


def call(command: list[str]) -> str:
    """What a command printed; ends this one where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def job(
    settings: Path, stage: str, plate: str, key: str, threads: int = 1, mask: bool = False
) -> None:
    """A job as Snakemake calls it; segment's without its network where the `mask` step is asked for."""
    program = [str(Path(mask_step.__file__))] if mask else ["-m", "plateglass.cli"]
    given = ["--config", str(settings), "--key", key, "--threads", str(threads)]
    call([sys.executable, *program, stage, plate, *given])


def key_of(settings: Path, stage: str, plate: str) -> str:
    """The key that the plan gives a job."""
    return Plan(Project.read(config.read(settings))).keys[plate, stage]


# ---------------------------------------------------------------------- what is asked
def constant(args: argparse.Namespace) -> None:
    """Per-well work and peak memory of plates of different sizes."""
    figures = defaultdict(lambda: defaultdict(list))
    for _ in range(args.rounds):
        for count in args.wells:
            folder = fresh(args.folder / "constant")
            networks = "W" if set(args.steps) & set(LATER) else ""
            write_screen(folder, {"W": 12, "P": count}, args.size, args.channels, networks)
            for stage in args.steps:
                if stage == "features":
                    child(folder, "train", ["screen"])
                for name, value in child(folder, stage, ["W", "P"]).items():
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
    """One worker, two, and two jobs of half the wells apart; each begins with nothing of its step."""
    count = args.wells[0]
    screens = {"whole": count, "half": (count + 1) // 2, "other": (count + 1) // 2}
    settings = {
        name: write_screen(fresh(args.folder / name), {"P": wells}, args.size, args.channels)
        for name, wells in screens.items()
    }
    if args.step == "segment":
        for each in settings.values():
            job(each, "ingest", "P", key_of(each, "ingest", "P"), threads=2)
        os.sync()
    ways = {"one": (["whole"], 1), "two": (["whole"], 2), "apart": (["half", "other"], 1)}
    walls = defaultdict(list)
    for _ in range(args.rounds):
        for way, (names, threads) in ways.items():
            walls[way].append(wall([settings[name] for name in names], args.step, threads))
    one, two, apart = (statistics.median(walls[way]) for way in ways)
    print("| step | wells | one worker, s of wall | two | ratio | apart | ratio | load |")
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {args.step} | {count} | {one:.1f} | {two:.1f} | {one / two:.2f} | {apart:.1f} | "
        f"{one / apart:.2f} | {os.getloadavg()[0]:.1f} |"
    )
    print(
        "rounds:", {way: [round(seconds, 1) for seconds in found] for way, found in walls.items()}
    )


def wall(settings: list[Path], step: str, threads: int) -> float:
    """Seconds that this step's jobs take side by side, of screens that have nothing of it."""
    for each in settings:
        results = each.parent / "results"
        if step == "ingest":
            fresh(results)
        else:
            root = results / "P/plate.zarr"
            for well in store.wells(root):
                for name in ("nuclei", "cells"):
                    store.remove_labels(root, well, name)
            shutil.rmtree(results / ".plateglass/parts/P/segment", ignore_errors=True)
            (results / ".plateglass/ledger/P.segment.jsonl").unlink(missing_ok=True)
            for marker in results.glob(".plateglass/done/P.segment.*"):
                marker.unlink()
    keys = [key_of(each, step, "P") for each in settings]
    os.sync()  # else the disk is still busy with what came before
    start = time.perf_counter()
    with ThreadPoolExecutor(len(settings)) as pool:
        done = [
            pool.submit(job, each, step, "P", key, threads, step == "segment")
            for each, key in zip(settings, keys)
        ]
        for each in done:
            each.result()
    return time.perf_counter() - start


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def changed(args: argparse.Namespace) -> None:
    """All jobs of a plate; again after one well changed, in each round; and of a plate of one well."""
    count = args.wells[0]
    settings = write_screen(
        fresh(args.folder / "changed"), {"P": count, "One": 1}, args.size, args.channels
    )
    full = run_jobs(settings, "P")
    run_jobs(settings, "One")
    figures = {of: defaultdict(list) for of in ("whole", "P", "One")}
    for turn in range(args.rounds):
        for of, spent in figures.items():
            plate = "One" if of == "One" else "P"
            if of == "whole":
                forget(settings, plate, ("aggregate", "report"))
            else:
                well = "A02" if plate == "P" else "A01"  # P's A01 is a unit of its plate
                for channel in range(1, args.channels + 1):
                    image = field(args.size, 100 * (turn + 1) + channel)
                    path = settings.parent / "raw" / plate / f"{well}_s1_w{channel}.tif"
                    tifffile.imwrite(path, image)
            for stage, cpu in run_jobs(settings, plate).items():
                spent[stage].append(cpu)
    whole, again, alone = (
        {s: statistics.median(v) for s, v in of.items()} for of in figures.values()
    )
    print(
        f"CPU seconds of each job, {count} wells, medians of {args.rounds}; load {os.getloadavg()[0]:.1f}"
    )
    print("| job | full run, once | a well of it, ms | start or table anew | one well changed |")
    print("|---|---|---|---|---|")
    for stage, cpu in full.items():
        by_well = "" if stage in whole else f"{1000 * (cpu - alone[stage]) / (count - 1):.0f}"
        bound = whole.get(stage, alone[stage])
        print(f"| {stage} | {cpu:.2f} | {by_well} | {bound:.2f} | {again[stage]:.2f} |")
    print(
        f"sum {sum(again.values()):.2f} s; bound (starts with one well, tables and report anew) "
        f"{sum((alone | whole).values()):.2f} s"
    )
    print("rounds:", {of: dict(spent) for of, spent in figures.items()})


def forget(settings: Path, plate: str, stages: Sequence[str]) -> None:
    """Let these stages be made again of what is there."""
    project = Project.read(config.read(settings))
    for stage in stages:
        markers.remove(project, plate, stage)
        project.ledger_path(stage, plate).unlink()


def run_jobs(settings: Path, plate: str) -> dict[str, float]:
    """CPU seconds of each job of a plate, as Snakemake calls them."""
    times = {}
    plan = Plan(Project.read(config.read(settings)))
    for name, stage in plan.reasons:
        if name != plate:
            continue
        before = os.times()
        job(settings, stage, plate, plan.keys[plate, stage])
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
        if function is constant:
            one.add_argument("--steps", nargs="+", choices=[*STEPS, *LATER], default=STEPS)
        if function is workers:
            one.add_argument("--step", choices=STEPS, required=True)
        one.set_defaults(run=function)
    own = what.add_parser("_job")
    own.add_argument("stage")
    own.add_argument("plates")
    args = arguments.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if args.what == "_job":
        set_up_libraries()  # as the command line does
        for plate in args.plates.split(","):
            found = spent(args.folder / "config.yaml", args.stage, plate)
        print(json.dumps(found))
    else:
        args.folder.mkdir(parents=True, exist_ok=True)
        args.run(args)


if __name__ == "__main__":
    main()
