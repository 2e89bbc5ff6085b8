"""The demo as it ships, through the cluster."""

import shutil

import pytest
from submission import ROOT, last_id, profile, snakemake, submitted

from screen import Screen

pytestmark = [pytest.mark.slurm, pytest.mark.long]


def test_the_demo_runs_through_the_cluster_and_has_nothing_to_do_again(slurm, tmp_path):
    demo = Screen.__new__(Screen)
    demo.folder, demo.results = tmp_path / "config", tmp_path / "results"
    shutil.copytree(ROOT / "config", demo.folder)
    settings = profile(tmp_path / "profile")
    before = last_id()
    said = snakemake(demo, settings)
    assert "report   " in said and "screen/report.html" in said
    tables = demo.tables()
    for plate in ("demo_1", "demo_2"):
        assert len(tables[f"{plate}/wells.parquet"]) == 24
    jobs = submitted(before)
    assert {job.state for job in jobs} == {"COMPLETED"}
    assert len(jobs) == 2 * 7 + 3
    assert "Nothing to be done" in snakemake(demo, settings)
    assert len(submitted(before)) == len(jobs)
