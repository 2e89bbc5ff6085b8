"""A run on the cluster to which things happen."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from submission import last_id, profile, start, submitted

from plateglass import synthetic
from screen import Screen

NAMES = ("cancelled", "late", "broken", "good")
WELLS = {f"{row}{column:02d}": synthetic.NEGATIVE for row in "AB" for column in range(1, 13)}
STOP_AFTER = 2  # wells


class Plates(Screen):
    """Four plates, called after what becomes of their ingest."""

    def __init__(self, folder: Path):
        super().__init__(folder, train=False)
        self.specs = {name: synthetic.tiny(name, wells=WELLS, seed=3) for name in NAMES}
        for name, spec in self.specs.items():
            synthetic.render_plate(spec, folder / "raw" / name)
        self.sheet = {name: {"path": f"raw/{name}", "train": "no"} for name in self.specs}
        self.write()

    def copy_of_raw(self, folder: Path) -> Screen:
        """The same images and settings elsewhere, without results."""
        ignored = shutil.ignore_patterns("results", ".snakemake")
        shutil.copytree(self.folder, folder, copy_function=shutil.copy2, ignore=ignored)
        other = Screen.__new__(Screen)
        other.__dict__ |= self.__dict__ | {"folder": folder, "results": folder / "results"}
        return other


def disturb(folder: Path) -> tuple[Plates, subprocess.Popen]:
    """Start a run of ingest and disturb it; it has yet to end when this returns.

    Two jobs are held (SIGSTOP) after some wells: one is cancelled, the other left to outlive its
    limit of a minute. The third plate's results cannot be written.
    """
    screen = Plates(folder)
    screen.results.mkdir()
    (screen.results / "broken").write_text("a file where a folder should be")
    before = last_id()
    limits = "{runtime: \"1 if wildcards.plate == 'late' else 30\"}"
    settings = profile(folder / "profile", ingest=limits)
    running = start(screen, settings, "--until", "ingest")
    for plate in ("cancelled", "late"):
        _hold(screen, plate, running)
    jobs = {job.plate: job.id for job in submitted(before)}
    screen.ids = set(jobs.values())
    subprocess.run(["scancel", str(jobs["cancelled"])], check=True)
    return screen, running


def _hold(screen: Screen, plate: str, running: subprocess.Popen) -> None:
    """Stop the plate's job in its tracks once some of its wells are done."""
    ledger = screen.results / f".plateglass/ledger/{plate}.ingest.jsonl"
    while not ledger.exists() or ledger.read_bytes().count(b"\n") < STOP_AFTER:
        assert running.poll() is None, (screen.folder / "terminal.txt").read_text()
        time.sleep(0.002)
    os.kill(_process(screen, plate), signal.SIGSTOP)


def _process(screen: Screen, plate: str) -> int:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            said = (process / "cmdline").read_bytes().decode().split("\0")
            where = (process / "cwd").readlink()
        except OSError:
            continue
        ours = said[1:4] == ["-m", "plateglass.cli", "ingest"] and where == screen.folder
        if ours and plate in said:
            return int(process.name)
    raise ProcessLookupError(f"{plate}: no job is running")
