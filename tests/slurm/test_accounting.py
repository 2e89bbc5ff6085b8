"""A cluster with an accounting database; before the others, whose cluster lasts to the end."""

import subprocess

import cluster
import pytest
from submission import profile, snakemake

from screen import Screen

pytestmark = pytest.mark.slurm
INGEST = ("--until", "ingest")


def test_with_an_accounting_database_and_an_account(may_start, tmp_path):
    screen = Screen(tmp_path / "screen", train=False)
    with cluster.cluster(accounting="lab"):
        settings = profile(tmp_path / "profile")
        text = (settings / "config.yaml").read_text()
        named = text.replace("  # slurm_account: my_account", "  slurm_account: lab")
        assert named != text
        (settings / "config.yaml").write_text(named)
        snakemake(screen, settings, *INGEST)
        command = ["sacct", "-X", "-n", "-P", "-o", "Account,State"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["lab|COMPLETED"] * len(screen.specs)
