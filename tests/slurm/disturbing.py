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
STARTED_WITHIN = 300  # seconds


class Plates(Screen):
    """Four plates, called after what becomes of their ingest."""

    def __init__(self, folder: Path):
        self.folder, self.results = folder, folder / "results"
        self.specs = {name: synthetic.tiny(name, wells=WELLS, seed=3) for name in NAMES}
        first, *others = NAMES
        synthetic.render_plate(self.specs[first], folder / "raw" / first)
        for name in others:  # the same pictures
            (folder / "raw" / name).mkdir()
            for file in (folder / "raw" / first).iterdir():
                named = file.name.replace(first, name)
                shutil.copy2(file, folder / "raw" / name / named)
        self.settings = {
            "plates": "plates.csv",
            "results": "results",
            "channels": {c: {"match": c} for c in ("DNA", "Actin", "Marker")},
            "ingest": {"pattern": synthetic.PATTERN, "pixel_size_um": 0.65},
            "segment": {"nuclei": {"channel": "DNA"}},
        }
        self.sheet = {name: {"path": f"raw/{name}", "train": "no"} for name in self.specs}
        self.write()

    def copy_of_raw(self, folder: Path) -> Screen:
        """The same images and settings elsewhere, without results."""
        ignored = shutil.ignore_patterns("results", ".snakemake")
        shutil.copytree(self.folder, folder, copy_function=shutil.copy2, ignore=ignored)
        return self._at(folder)


def disturb(folder: Path) -> tuple[Plates, subprocess.Popen]:
    """Start a run of ingest and disturb it; it has yet to end when this returns.

    Two jobs are held (SIGSTOP) after some wells: one is cancelled, the other's time limit is set to
    the minute that it has had. The third plate's results cannot be written.
    """
    screen = Plates(folder)
    screen.results.mkdir()
    (screen.results / "broken").write_text("a file where a folder should be")
    before = last_id()
    running = start(screen, profile(folder / "profile"), "--until", "ingest")
    hold(screen, ["cancelled", "late"], running)
    jobs = {job.plate: job.id for job in submitted(before)}
    screen.ids = set(jobs.values())
    for command in (
        ["scancel", str(jobs["cancelled"])],
        ["scontrol", "update", f"jobid={jobs['late']}", "timelimit=1"],
    ):
        subprocess.run(command, check=True)
    return screen, running


def hold(screen: Screen, plates: list[str], running: subprocess.Popen) -> list[int]:
    """Stop the plates' jobs in their tracks, each once some of its wells are done; their processes."""
    held = []
    ledgers = {p: screen.results / f".plateglass/ledger/{p}.ingest.jsonl" for p in plates}
    end = time.monotonic() + STARTED_WITHIN
    while ledgers:
        for plate, ledger in list(ledgers.items()):
            if ledger.exists() and ledger.read_bytes().count(b"\n") >= STOP_AFTER:
                held.append(_process(screen, plate))
                os.kill(held[-1], signal.SIGSTOP)
                del ledgers[plate]
        still = running.poll() is None and time.monotonic() < end
        assert still, (screen.folder / "terminal.txt").read_text()
        time.sleep(0.01)
    return held


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
