"""What planning costs: CPU seconds of a no-op and of a dry run over finished screens.

    python tests/benchmarks/scale.py --folder DIR --plates 1 10 100 1000 --rounds 5

Screens are fabricated in DIR (once) and plates have 384 wells of one file; one screen more is a plate
of 17,280 files (9 sites, 5 channels). Each round times `snakemake --version`, then a no-op and a dry
run of every screen; medians are printed, beside the bar 1.1 x version + 0.4 s + 6 ms a plate + 7 µs a
raw file, as what is left of it (above 1: missed).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from fabricated import finish, wells_of, write_raw

ROOT = Path(__file__).parents[2]
SITES, CHANNELS = 9, 5


def bar(version: float, plates: int, files: int) -> float:
    """CPU seconds allowed."""
    return 1.1 * version + 0.4 + 0.006 * plates + 7e-6 * files


def snakemake(*options: str, folder: Path) -> tuple[float, str]:
    """CPU seconds (user and system, with children) of a snakemake command and what it said."""
    environment = {**os.environ, "COLUMNS": "200"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
    )
    after = os.times()
    said = done.stdout + done.stderr
    if done.returncode:
        raise SystemExit(said)
    spent = after.children_user + after.children_system
    return spent - before.children_user - before.children_system, said


def plan(folder: Path, *options: str) -> float:
    """CPU seconds of a run over a finished screen."""
    spent, said = snakemake(
        *("--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml"),
        *("--workflow-profile", str(ROOT / "profiles/default"), "--cores", "all", *options),
        folder=folder,
    )
    if "Nothing to be done" not in said:
        raise SystemExit(f"{folder} is not finished:\n{said}")
    return spent


def screen(folder: Path, plates: int, sites: int = 1, channels: int = 1) -> int:
    """Fabricate a screen unless it is there; returns its number of raw files."""
    if not (folder / "whole").exists():
        start = time.perf_counter()
        finish(write_raw(folder, plates, wells_of(384), sites, channels))
        plan(folder)  # compiles what is not compiled yet
        (folder / "whole").touch()
        print(f"{folder.name} fabricated in {time.perf_counter() - start:.0f} s", flush=True)
    return plates * 384 * sites * channels


def main() -> None:
    """Print a table and, as the last line, JSON."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--plates", type=int, nargs="*", default=[1, 10, 100, 1000])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--no-large", action="store_true", help="no plate of 17,280 files")
    args = arguments.parse_args()
    sizes = [(f"{n} x 384", n, 1, 1) for n in args.plates]
    sizes += [] if args.no_large else [("1 x 17,280", 1, SITES, CHANNELS)]
    files, times = {}, defaultdict(list)
    for name, plates, sites, channels in sizes:
        folder = args.folder / name.replace(" ", "").replace(",", "")
        files[name] = screen(folder, plates, sites, channels)
    for turn in range(args.rounds):
        times["version"].append(snakemake("--version", folder=args.folder)[0])
        for name, *_ in sizes:
            folder = args.folder / name.replace(" ", "").replace(",", "")
            times[name, "no-op"].append(plan(folder))
            times[name, "-n"].append(plan(folder, "-n"))
        print(f"round {turn + 1}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    medians = {key: statistics.median(spent) for key, spent in times.items()}
    version = medians["version"]
    print(f"version: {version:.2f} s; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print("| plates x files | no-op, CPU s | dry run, CPU s | bar | no-op / bar | dry / bar |")
    print("|---|---|---|---|---|---|")
    for name, plates, *_ in sizes:
        allowed = bar(version, plates, files[name])
        noop, dry = medians[name, "no-op"], medians[name, "-n"]
        row = (f"{noop:.2f}", f"{dry:.2f}", f"{allowed:.2f}")
        print(f"| {name} | {' | '.join(row)} | {noop / allowed:.2f} | {dry / allowed:.2f} |")
    print(json.dumps({str(key): [round(t, 3) for t in spent] for key, spent in times.items()}))


if __name__ == "__main__":
    main()
