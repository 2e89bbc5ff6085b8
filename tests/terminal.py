"""The real Snakemake over a tiny screen, as a user types it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def command(screen, *options, folder=None):
    """What the README says, of a screen's own settings; ``folder`` is where it is typed."""
    given = [sys.executable, "-m", "snakemake", "--cores", "2", *options]
    given += ["--configfile", str(screen.folder / "config.yaml")]
    given += ["--workflow-profile", str(ROOT / "profiles/default")]
    return [
        *given,
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--directory",
        str(folder or screen.folder),
    ]


def environment():
    return {**os.environ, "COLUMNS": "200"}


def snakemake(screen, *options, check=True, folder=None):
    """Run it to its end; returns what a user without a terminal sees (``check=False``: and the code)."""
    done = subprocess.run(
        command(screen, *options, folder=folder),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=1800,  # by then it hangs, however busy the cores
    )
    said = done.stdout + done.stderr
    assert not check or done.returncode == 0, said
    return said if check else (done.returncode, said)
