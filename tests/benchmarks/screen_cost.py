"""What a screen costs on paper, from rates measured on synthetic fields of its size.

    python tests/benchmarks/screen_cost.py --measure rates.json      (five minutes)
    python tests/benchmarks/screen_cost.py --rates tests/benchmarks/rates.json --plates 1000

Measured, on one core: ingest, segment and classical features of a field of 1080² pixels and 5 channels
with about 120 cells; forward passes, explanations and training steps of the default network on crops of
64 pixels; bytes and files that they leave; what a job, its workers and the server that they are forked
from cost whatever the wells hold. A cell's share of tables is a figure of docs/benchmarks.md
(0.52 ms, 2 channels), scaled by the number of columns. GPU hours are no measurement: the networks'
floating-point operations at --gpu-tflops. CellProfiler's 5 core-minutes a site are as published.
"""

import argparse
import contextlib
import ctypes
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tifffile
from scale_wells import job, key_of, write_screen

from plateglass import config, jobs, parts
from plateglass.measure.names import columns
from plateglass.plan import Plan
from plateglass.project import Project

SIZE, CHANNELS, CELLS = 1080, 5, 120
TABLE_MS, TABLE_COLUMNS = 0.52, len(columns(["DNA", "GFP"]))  # aggregate, a cell of BBBC013
# of a plate, the first four with workers; attribute needs a network of ours and is counted as features
JOBS = ("ingest", "segment", "features", "features", "aggregate", "report")
FEW, MANY = 2, 8  # workers
CELLPROFILER = 5.0  # core-minutes a site


def cells_of_a_field(seed: int) -> list[np.ndarray]:
    """One image a channel: round nuclei of 18 px in cells of 46 px on a jittered grid, and noise."""
    rng = np.random.default_rng(seed)
    images = [rng.normal(400, 20, (SIZE, SIZE)) for _ in range(CHANNELS)]
    side = int(np.ceil(np.sqrt(CELLS)))
    step = SIZE / side
    y, x = np.mgrid[-30:31, -30:31]
    for i in range(CELLS):
        centre = ((np.array(divmod(i, side)) + 0.5) * step + rng.uniform(-15, 15, 2)).astype(int)
        centre = centre.clip(30, SIZE - 31)
        at = tuple(slice(c - 30, c + 31) for c in centre)
        for channel, image in enumerate(images):
            radius = rng.uniform(8, 10) if channel == 0 else rng.uniform(20, 26)
            glow = np.clip(radius + 1 - np.hypot(y, x), 0, 1) * rng.uniform(1500, 4000)
            image[at] += glow * rng.uniform(0.7, 1.3, glow.shape)
    return [image.clip(0, 65535).astype(np.uint16) for image in images]


def measure() -> dict[str, float]:
    """CPU seconds, bytes and files of one site, and of one cell."""
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = write_screen(folder, {"P": 3}, 32, CHANNELS)
        for seed, well in enumerate(("A01", "A02", "A03")):
            for channel, image in enumerate(cells_of_a_field(seed), 1):
                tifffile.imwrite(folder / f"raw/P/{well}_s1_w{channel}.tif", image)
        for stage in ("ingest", "segment", "features"):
            rates |= {f"{stage}_s": _seconds(settings, stage)}
        project = Project.read(config.read(settings))
        store = project.config.results / "P/plate.zarr/A/2"
        files = [path for path in store.rglob("*") if path.is_file()]
        rates["files"] = len(files) - 1  # the well's own is counted by the well
        labels = [path for path in files if "labels" in path.parts]
        rates["labels_bytes"] = sum(path.stat().st_size for path in labels)
        rates["image_bytes"] = sum(p.stat().st_size for p in files) - rates["labels_bytes"]
        part = project.state / "parts/P/features/A02.arrow"
        rates["cells"] = len(parts.arrow(part))
        rates["part_bytes"] = part.stat().st_size / rates["cells"]
        rates |= _starts(folder)
    return rates | _networks()


def _starts(folder: Path) -> dict[str, float]:
    """CPU seconds of whole jobs of one tiny well; of each worker more, and of what they are forked from."""
    with contextlib.suppress(AttributeError):  # Linux: processes that outlive their job become ours
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    settings = write_screen(folder / "one", {"P": 1}, 96, CHANNELS)
    spent = {f"start_{stage}_s": _job_seconds(settings, stage) for stage in dict.fromkeys(JOBS)}
    took = defaultdict(list)
    for turn in range(3):  # small differences of large figures
        for workers in (1, FEW, MANY):
            settings = write_screen(folder / f"{workers}.{turn}", {"P": 2 * MANY}, 96, CHANNELS)
            for stage in dict.fromkeys(JOBS[:4]):
                took[stage, workers].append(_job_seconds(settings, stage, workers))
    for stage in dict.fromkeys(JOBS[:4]):
        one, few, many = (statistics.median(took[stage, count]) for count in (1, FEW, MANY))
        a_worker = (many - few) / (MANY - FEW)
        spent[f"worker_{stage}_s"] = a_worker
        spent[f"server_{stage}_s"] = few - one - FEW * a_worker
    return spent


def _job_seconds(settings: Path, stage: str, workers: int = 1) -> float:
    """CPU seconds of a job as Snakemake calls it, and of all that it starts."""
    key, before = key_of(settings, stage, "P"), os.times()
    job(settings, stage, "P", key, workers)
    with contextlib.suppress(ChildProcessError):
        while os.wait():  # the fork server, which has waited for its workers, ends after the job
            pass
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def _seconds(settings: Path, stage: str) -> float:
    """CPU seconds of a well after the first."""
    project, times, record = Project.read(config.read(settings)), [], jobs._record

    def note(*given, **facts):
        times.append(time.process_time())
        return record(*given, **facts)

    jobs._record = note
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        jobs.run(project, stage, "P", Plan(project).keys["P", stage], 1)
    jobs._record = record
    return float(np.diff(times).min())


def _networks() -> dict[str, float]:
    """CPU ms and operations a crop of the default network."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from plateglass.explain import pcim
    from plateglass.models.backbone import Network

    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = config.TrainSettings()
    network = Network(CHANNELS, 2, settings.backbone, crop=settings.crop).eval()
    crops = torch.rand(128, CHANNELS, settings.crop, settings.crop)
    target = torch.zeros(len(crops), dtype=torch.long)
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        network(crops)

    def forward():
        with torch.inference_mode():
            network(crops)

    def explain():
        pcim(network, crops[:32], target[:32])

    optimizer = torch.optim.AdamW(network.parameters())

    def teach():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network.train()(crops), target).backward()
        optimizer.step()

    return {
        "pass_mflop": counted.get_total_flops() / len(crops) / 1e6,
        "pass_ms": _milliseconds(forward) / 128,
        "explain_ms": _milliseconds(explain) / 32,
        "teach_ms": _milliseconds(teach) / 128,
    }


def _milliseconds(function, times: int = 3) -> float:
    """CPU ms of the quickest of some calls, after one that warms up."""
    function()
    spent = []
    for _ in range(times):
        start = time.process_time()
        function()
        spent.append(1000 * (time.process_time() - start))
    return min(spent)


def paper(rates: dict[str, float], args: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Rows of the table: what, of the screen, of a site or how it is made."""
    wells = args.plates * args.wells
    sites = wells * args.sites
    cells = sites * args.cells
    explained = wells * args.explained
    labelled = cells * args.labelled
    passes = cells * 9 + labelled * (CHANNELS + 4)  # called, 8 other surroundings; controls
    taught = args.networks * args.epochs * args.taught
    table_ms = TABLE_MS * len(columns([f"C{i}" for i in range(CHANNELS)])) / TABLE_COLUMNS
    by_cell = args.cells / rates["cells"]
    starts = sum(rates[f"start_{stage}_s"] for stage in JOBS)
    if args.workers > 1:
        for stage in JOBS[:4]:
            starts += rates[f"server_{stage}_s"] + args.workers * rates[f"worker_{stage}_s"]
    hours = {
        "ingest": sites * rates["ingest_s"],
        "segment (nuclei-small)": sites * rates["segment_s"],
        "features, classical": sites * rates["features_s"] * by_cell,
        "features, networks": passes * rates["pass_ms"] / 1000,
        "attribute": explained * rates["explain_ms"] / 1000,
        "aggregate": cells * table_ms / 1000,
        "report": args.plates * 10.0,
        "train (once)": taught * rates["teach_ms"] / 1000,
        "starts of jobs and workers": args.plates * starts,
    }
    rows = [(k, f"{v / 3600:,.0f} core-h", f"{v / sites:.2f} s a site") for k, v in hours.items()]
    total = sum(hours.values()) / 3600
    published = sites * CELLPROFILER / 60
    rows.append(("together", f"{total:,.0f} core-h", f"{60 * total / sites:.2f} core-min a site"))
    rows.append(("CellProfiler, published", f"{published:,.0f} core-h", "5 core-min a site"))
    flop = passes * rates["pass_mflop"] + 3 * taught * rates["pass_mflop"]
    flop += explained * rates["explain_ms"] / rates["pass_ms"] * rates["pass_mflop"]
    gpu = flop * 1e6 / (args.gpu_tflops * 1e12) / 3600
    rows.append(
        ("networks on a GPU", f"{gpu:,.0f} GPU-h", f"at {args.gpu_tflops} TFLOP/s, assumed")
    )
    raw = sites * CHANNELS * SIZE**2 * 2
    stores = sites * (rates["image_bytes"] + rates["labels_bytes"] * by_cell)
    parts = cells * rates["part_bytes"] * 2  # and once more in the tables
    maps = explained * 13_000
    for name, size in (
        ("raw images, uncompressed", raw),
        ("plate.zarr", stores),
        ("parts and tables", parts),
        ("attribution.zarr", maps),
    ):
        rows.append((name, f"{size / 1e12:,.1f} TB", f"{size / sites / 1e6:.2f} MB a site"))
    selected = wells * (len(columns([f"C{i}" for i in range(CHANNELS)])) + 64) * 8
    rows.append(("wells × features in memory", f"{selected / 1e9:.1f} GB", "the screen's table"))
    raw_files = sites * CHANNELS
    store_files = sites * rates["files"] + wells * (1 + 14 + 6)
    rows.append(("raw files", f"{raw_files / 1e6:,.1f} million", f"{CHANNELS} a site"))
    rows.append(
        (
            "result files",
            f"{store_files / 1e6:,.1f} million",
            f"{rates['files']:.0f} a site + 21 a well",
        )
    )
    return rows


def main() -> None:
    """Measure, or print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--measure", type=Path, help="write rates there")
    arguments.add_argument("--rates", type=Path, help="rates measured before")
    for name, value in {
        "plates": 1000,
        "wells": 384,
        "sites": 9,
        "cells": CELLS,
        "explained": 20,
        "networks": 29,
        "epochs": 10,
        "taught": 25_600,
        "workers": 16,
    }.items():
        arguments.add_argument(f"--{name}", type=int, default=value)
    arguments.add_argument("--labelled", type=float, default=0.17, help="share of labelled wells")
    arguments.add_argument("--gpu-tflops", type=float, default=2.0)
    args = arguments.parse_args()
    if args.measure:
        rates = measure()
        args.measure.write_text(json.dumps({k: round(v, 5) for k, v in rates.items()}, indent=1))
    else:
        rates = json.loads(args.rates.read_text())
    print(json.dumps({k: round(v, 4) for k, v in rates.items()}), file=sys.stderr)
    print("| what | the screen | |")
    print("|---|---|---|")
    for row in paper(rates, args):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
