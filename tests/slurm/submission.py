"""Snakemake on the cluster as a user of ``profiles/slurm`` starts it, and what SLURM says of its jobs."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from screen import Screen

ROOT = Path(__file__).parents[2]
SET = {  # what the profile asks a user to set, as this cluster needs it
    "  # slurm_partition: my_partition": "  slurm_partition: debug",
    "# set-resources:": "set-resources:",
    **{
        f'#   {stage}: {{gres: "gpu:1", slurm_partition: my_gpu_partition}}': (
            f'  {stage}: {{gres: "gpu:1", slurm_partition: debug}}'
        )
        for stage in ("segment", "train", "features", "attribute")
    },
    "max-threads: 16": "max-threads: 1",
}


def profile(folder: Path) -> Path:
    """The shipped profile with its comments followed, in a folder of its own."""
    text = (ROOT / "profiles/slurm/config.yaml").read_text()
    for line, wanted in SET.items():
        assert text.count(f"{line}\n") == 1, line
        text = text.replace(f"{line}\n", f"{wanted}\n")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(text)
    return folder


def start(screen: Screen, profile: Path, *options: str) -> subprocess.Popen:
    """Submit; what the terminal shows goes to ``terminal.txt`` in the screen's folder."""
    command = [sys.executable, "-m", "snakemake", *options]
    command += ["--configfile", str(screen.folder / "config.yaml")]
    command += ["--workflow-profile", str(profile)]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(screen.folder)]
    with (screen.folder / "terminal.txt").open("w") as terminal:
        return subprocess.Popen(
            command,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, "COLUMNS": "200"},
            # shells let what they start in the background ignore Ctrl-C, and so would this run
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def finish(running: subprocess.Popen, screen: Screen, seconds: float = 900) -> tuple[int, str]:
    """Exit code, and all that the terminal showed."""
    try:
        code = running.wait(seconds)
    finally:
        running.kill()
    return code, (screen.folder / "terminal.txt").read_text()


def snakemake(screen: Screen, profile: Path, *options: str) -> str:
    """Run to the end, which must be a good one; returns what the terminal showed."""
    code, said = finish(start(screen, profile, *options), screen)
    assert code == 0, said
    return said


@dataclass(frozen=True)
class Submitted:
    """A job as SLURM knows it."""

    id: int
    rule: str
    plate: str
    state: str
    start: datetime
    end: datetime

    def overlaps(self, other: "Submitted") -> bool:
        return max(self.start, other.start) < min(self.end, other.end)


def submitted(after: int = 0) -> list[Submitted]:
    """All jobs with ids above ``after`` that the controller still knows, by id."""
    said = subprocess.run(
        ["squeue", "--states=all", "-h", "-o", "%i|%k|%T|%S|%e"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    jobs = []
    for line in said.stdout.splitlines():
        id_, comment, state, *times = line.split("|")
        # rule_ingest_wildcards_P1_<key>, rule_train_wildcards_<key>
        rule, _, wildcards = comment.removeprefix("rule_").partition("_wildcards_")
        plate = wildcards.rpartition("_")[0]
        known = [datetime.max if t in ("N/A", "NONE") else datetime.fromisoformat(t) for t in times]
        if int(id_) > after:
            jobs.append(Submitted(int(id_), rule, plate, state, *known))
    return sorted(jobs, key=lambda job: job.id)


def last_id() -> int:
    return max((job.id for job in submitted()), default=0)
