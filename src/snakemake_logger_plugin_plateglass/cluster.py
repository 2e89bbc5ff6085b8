"""What a cluster's executor says, in the words of the person who submitted."""

import re

STATES = {
    "CANCELLED": "cancelled on the cluster (scancel)",
    "TIMEOUT": "it outlived its time limit; the same command goes on where it stopped, "
    "`runtime` in the profile gives more minutes",
    "OUT_OF_MEMORY": "it needed more memory than `mem_mb` of the profile gives",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "it had to give way to another job",
}
# The executor guesses an account by a command that always fails, then does without: sbatch itself
# says clearly where an account is needed.
CHATTER = (
    "No SLURM account given, trying to guess",
    "No account was given, not able to get a SLURM account",
    "Unable to guess SLURM account",
)


def reason(message: str | None) -> str:
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
