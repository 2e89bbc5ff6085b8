"""Why jobs fail, as executors say it, in the words of the person who gave the command."""

import re
import shlex

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


def of_process(message: str) -> tuple[str, str] | None:
    """Log and reason of a job whose process on this machine failed, from Snakemake's exception.

    No reason where the process could say itself what was the matter: its log tells it. None where
    the exception is of something else.
    """
    said = re.search(r"^Command '.* > (.+) 2>&1' (?:returned|died)(.*)", message, re.S | re.M)
    if "CalledProcessError" not in message or said is None:
        return None
    killed = re.search(r"status 137\b|SIGKILL", said[2])
    return shlex.split(said[1])[0], KILLED if killed else ""


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
