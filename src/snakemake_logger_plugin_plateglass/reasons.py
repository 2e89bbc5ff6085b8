"""Why jobs fail, as executors say it, in the words of the person who gave the command."""

import re
import shlex
from signal import SIGINT, SIGKILL, SIGTERM

STATES = {
    "CANCELLED": "cancelled on the cluster (scancel)",
    "TIMEOUT": "it outlived its time limit; the same command goes on where it stopped, "
    "`runtime` in the profile gives more minutes",
    "OUT_OF_MEMORY": "it needed more memory than `mem_mb` of the profile gives",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "it had to give way to another job",
}
KILLED = "killed by the system, perhaps since memory ran out (`free -h`; fewer --cores need less)"
# The executor guesses an account by a command that always fails, then does without: sbatch itself
# says clearly where an account is needed.
CHATTER = (
    "No SLURM account given, trying to guess",
    "No account was given, not able to get a SLURM account",
    "Unable to guess SLURM account",
)


def is_of_process(message: str) -> bool:
    """Whether an error is that a job's process failed: the job's own error follows and tells it."""
    return "CalledProcessError in file" in message


def of_process(message: str, log: str) -> str:
    """Why the process that wrote a log failed, where it could not say so there itself: a signal."""
    ended = re.search(r"exit status (?:12[89]|13[0-9]|14[0-9])\b|Signals\.\w+: \d+", message)
    if ended is None or shlex.quote(log) not in message:
        return ""
    signal = int(re.findall(r"\d+", ended[0])[-1]) % 128
    if signal in (SIGINT, SIGTERM):
        return ""  # asked to stop, it says so
    return KILLED if signal == SIGKILL else f"it crashed (signal {signal})"


def of_cluster(message: str | None) -> str:
    """Why a job failed, from its executor's message; nothing where the job's own log tells it."""
    text = message or ""
    if found := re.search(r"SLURM status is: '(\w+)", text):
        return STATES.get(found[1], "")
    if found := re.search(r"SLURM sbatch failed\. The error message was '(.*?)'\.\n", text, re.S):
        return f"not submitted: {found[1]}"
    return ""


def is_chatter(text: str) -> bool:
    """Whether a warning of the executor asks nothing of the user."""
    return text.startswith(CHATTER)
