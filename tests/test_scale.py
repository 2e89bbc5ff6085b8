"""What planning and starting jobs costs, as counts: what is read, listed, imported and asked for."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks import fabricated
from plateglass import config, layouts, project, raw
from plateglass.errors import DataError, UserError
from plateglass.plan import Plan
from plateglass.project import Project
from plateglass.stages import SCREEN, STAGES

ROOT = Path(__file__).parents[1]
WELLS = fabricated.wells_of(24)


@pytest.fixture
def settings(tmp_path):
    """Three finished plates of 24 wells, and their settings' file."""
    path = fabricated.write_raw(tmp_path, 3, WELLS)
    fabricated.finish(path)
    return path


def planned(settings):
    found = Project.read(config.read(settings))
    return found, Plan(found)


def snakemake(settings, *options):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", str(settings)]
    command += ["--workflow-profile", str(ROOT / "profiles/default")]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(settings.parent)]
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def replace_image(settings, name="P0002/A01"):
    """Another image of a well; plates after the second share its files."""
    image = settings.parent / f"raw/{name}_s1_w1.tif"
    image.unlink()
    image.write_bytes(b"xy")


def jobs_of(said):
    """(plate, stage) of the jobs that a dry run names."""
    return {
        tuple(line.split(":")[0].split())
        for line in said.splitlines()
        if ": " in line and line[:5] != "note:"
    }


def test_planning_a_finished_screen_reads_no_plates_ledger_and_lists_each_plate_once(
    settings, monkeypatch
):
    listed, read = [], []
    look, ledger = layouts.listing, project.Ledger
    monkeypatch.setattr(raw, "listing", lambda p, c: listed.append(p.name) or look(p, c))
    monkeypatch.setattr(project, "Ledger", lambda path: read.append(path.name) or ledger(path))
    assert planned(settings)[1].reasons == {}
    assert sorted(listed) == ["P0001", "P0002", "P0003"]
    assert read == ["screen.train.jsonl"]
    replace_image(settings, "P0001/A05")  # which networks learn nothing from
    changed = planned(settings)
    assert (SCREEN, "train") not in changed[1].reasons
    fabricated.run(*changed)
    read.clear()
    assert planned(settings)[1].reasons == {}
    to_know_that = ["P0001.ingest.jsonl", "P0001.segment.jsonl"]
    assert sorted(read) == [*to_know_that, "screen.train.jsonl"]


@pytest.fixture
def waited(monkeypatch):
    """Listing waits, as on a share, and each plate longer than the next; the threads that listed."""
    threads, listing = set(), raw.listing

    def slow(plate, read):
        threads.add(threading.get_ident())
        time.sleep(0.02 + 0.02 / int(plate.name[1:]))
        return listing(plate, read)

    monkeypatch.setattr(raw, "listing", slow)
    return threads


def test_plates_are_listed_by_threads_where_listing_waits(tmp_path, waited):
    path = fabricated.write_raw(tmp_path, 40, WELLS)
    for name in ("P0002", "P0033"):
        (tmp_path / f"raw/{name}/A05_s1_w1.tif").unlink()
    found, made = planned(path)
    # the first plates show that it waits
    assert len(waited) > 1 and threading.get_ident() in waited
    one_by_one = {name: raw.scan(found, name) for name in found.names}
    assert list(made.raw) == found.names
    assert made.raw == {name: look.wells for name, look in one_by_one.items()}
    assert {name: look.bytes for name, look in made._found.items()} == {
        name: look.bytes for name, look in one_by_one.items()
    }
    named = [note.split(":")[0] for note in made.notes if note.startswith("plate")]
    assert named == ["plate P0002", "plate P0033"]


def test_what_is_wrong_with_a_plate_is_told_though_a_thread_listed_it(
    tmp_path, waited, monkeypatch
):
    path = fabricated.write_raw(tmp_path, 40, WELLS)
    (tmp_path / "raw/P0031/platemap.csv").write_text("well\nA01\n")
    for file in (tmp_path / "raw/P0029").glob("*.tif"):
        file.unlink()
    said = []
    for _ in ("by threads", "one by one"):
        with pytest.raises(UserError) as refused:
            planned(path)
        said.append(str(refused.value))
        monkeypatch.undo()
    assert len(waited) > 1 and said[0] == said[1]
    assert [line.split(":")[0] for line in said[0].splitlines()] == ["plate P0029", "plate P0031"]


def test_snakemake_is_told_of_what_must_run_unless_asked_for_more(settings):
    replace_image(settings)
    screen = {("screen", "aggregate"), ("screen", "report")}
    stages = ("ingest", "segment", "features", "attribute", "aggregate", "report")
    changed = jobs_of(snakemake(settings, "-n"))
    assert changed == {("P0002", stage) for stage in stages} | screen
    forced = jobs_of(snakemake(settings, "-n", "--forceall"))
    every = {(p, stage) for p in ("P0001", "P0002", "P0003") for stage in stages}
    assert forced == every | screen | {("screen", "train")}


def test_a_lost_table_is_asked_for_though_its_job_is_not(settings):
    lost = settings.parent / "results/P0003/wells.parquet"
    lost.unlink()
    said = snakemake(settings)
    assert lost.read_text() == "x"
    assert jobs_of(said) & {("P0003", "aggregate"), ("P0003", "report")} == set()


@pytest.mark.parametrize("part", ["features/A03.maps.npz", "segment/A03.sites.arrow"])
def test_any_file_of_a_part_is_missed(settings, part):
    (settings.parent / "results/.plateglass/parts/P0001" / part).unlink()
    assert ("P0001", part.split("/")[0]) in planned(settings)[1].reasons


def test_ingest_lists_its_plate_once_and_hands_the_index_on(settings, monkeypatch):
    replace_image(settings)
    found, made = planned(settings)
    listed, given = [], []
    look, stand_in = layouts.listing, fabricated._stand_in

    def watched(stage):
        module = stand_in(stage)
        if stage == "ingest":
            inner = module.run
            module.run = lambda job, wells, found=None, **more: (
                given.append(found) or inner(job, wells)
            )
        return module

    monkeypatch.setattr(raw, "listing", lambda p, c: listed.append(p.name) or look(p, c))
    monkeypatch.setattr(fabricated, "_stand_in", watched)
    fabricated.run(found, made)
    assert listed == ["P0002"]
    assert [len(index.wells) for index in given] == [24]


def test_files_that_change_after_the_plan_leave_no_marker(settings):
    replace_image(settings)
    found, made = planned(settings)
    image = settings.parent / "raw/P0002/A05_s1_w1.tif"
    more = image.with_name("P24_s1_w1.tif")
    shutil.copy2(image, more)
    with pytest.raises(
        DataError,
        match="plate P0002: its files changed after this run was planned; what is there now was",
    ):
        fabricated.run(found, made)
    more.unlink()
    again = planned(settings)[1]
    assert again.reasons["P0002", "ingest"]["P24"] == "removed"


def test_jobs_that_need_no_network_import_no_torch():
    """Nor do segment's own process, whose workers find the nuclei, and those of features and attribute."""
    needed = {
        f"plateglass.stages.{stage}" for stage in ("ingest", "segment", "aggregate", "report")
    }
    needed |= {*STAGES["features"].in_workers, *STAGES["attribute"].in_workers}
    code = f"import sys, plateglass.jobs, {', '.join(needed)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
