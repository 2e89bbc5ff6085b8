"""The real Snakemake over a tiny screen: what the user types and sees."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from changes import ends, wells

from plateglass import jobs
from plateglass.errors import DataError, UserError
from plateglass.stages import SCREEN, STAGES
from plateglass.workflow import MOST_SHOWN, Workflow
from screen import WELL_STAGES, Screen, assert_same
from terminal import snakemake

ODD = """it's "a" $(touch ran) `touch ran`; touch ran & plate"""
ELSEWHERE = "elsewhere"  # typed there, settings and results are named by their whole paths


@pytest.fixture(scope="module")
def typed(finished, tmp_path_factory):
    """A screen that was run in one process, moved; and what changed since was run by Snakemake.

    Of one plate all images are touched, which two workers read; one shows another treatment well, and
    another cannot be read.
    """
    screen = finished.copy(tmp_path_factory.mktemp("workflow") / ODD)
    odd = "raw/$(touch ran) 'P2'; touch ran"
    (screen.folder / "raw/P2").rename(screen.folder / odd)
    screen.sheet["P2"] |= {"path": odd}
    screen.write()
    elsewhere = screen.folder.parent / ELSEWHERE
    elsewhere.mkdir()
    kept = screen.results.rename(elsewhere / "results")
    screen.said_dry = snakemake(screen, "-n", folder=elsewhere)
    assert not screen.results.exists(), "planning wrote something"
    kept.rename(screen.results)
    for image in (screen.folder / odd).glob("*.tif"):
        image.touch()
    _disturb(screen)
    screen.said = snakemake(screen, folder=elsewhere)
    return screen


def _disturb(screen):
    """Another image of one treatment well, and one of another that cannot be read."""
    screen.replace_image("P2", "B01", seed=98)
    screen.raw("P2", "B02").write_bytes(screen.raw("P2", "B02").read_bytes()[:3000])


def lines(said):
    """What a dry run says, but for Snakemake's line on the profile; side by side in any order."""
    return sorted(line for line in said.splitlines() if line and "profile" not in line)


def test_the_dry_run_says_what_and_why_and_nothing_else(typed):
    new = "8 wells: new (A01–A06, B01–B02)"
    wanted = [f"{plate} {stage}: {new}" for plate in ("P1", "P2") for stage in WELL_STAGES]
    wanted += [f"{p} {s}: new" for p in ("P1", "P2", "screen") for s in ("aggregate", "report")]
    assert lines(typed.said_dry) == sorted([*wanted, "screen train: new"])


def test_a_dry_run_after_a_change_names_the_wells_and_the_reason(typed, tmp_path):
    screen = typed.copy(tmp_path / "screen")
    screen.replace_image("P2", "B01")
    screen.raw("P2", "A03").touch()  # a negative control, which the plate's units are made from
    screen.settings["report"] = {"gallery": 2}
    screen.write()
    before = sorted(screen.results.rglob("*"))
    asked = "2 wells: ingest: input changed (A03, B01)"
    units = "5 wells: features: plate units may change (A01–A02, A04–A06)"
    assert lines(snakemake(screen, "-n")) == [
        "P1 report: report.gallery changed",
        "P2 aggregate: wells or the platemap changed",
        f"P2 attribute: {units}; {asked}",
        f"P2 features: {asked}; {units.replace('features: ', '')}",
        "P2 ingest: 2 wells: input changed (A03, B01)",
        "P2 report: report.gallery changed",
        "P2 segment: 2 wells: ingest: input changed (A03, B01)",
        "screen aggregate: plates or their tables changed",
        "screen report: report.gallery changed",
    ]
    assert sorted(screen.results.rglob("*")) == before, "planning wrote something"


def test_a_dry_run_names_the_settings_that_changed(typed, tmp_path):
    screen = typed.copy(tmp_path / "screen")
    screen.settings["segment"] = {**screen.settings["segment"], "cells": {"channel": "Marker"}}
    screen.settings["aggregate"] = {"select": ["variance_threshold"]}
    screen.settings["platemap"] = {"negative": "other"}
    screen.write()
    told = lines(snakemake(screen, "-n"))
    assert "P1 segment: 8 wells: segment.cells.channel changed (A01–A06, B01–B02)" in told
    assert "P1 aggregate: aggregate.select, platemap.negative changed" in told


def test_a_moved_project_without_snakemakes_own_folder_has_nothing_to_do(typed, tmp_path):
    """And a plate that is gone is told, its results untouched."""
    screen = typed.copy(tmp_path / "screen")
    shutil.rmtree(screen.folder / ".snakemake", ignore_errors=True)
    said = snakemake(screen)
    assert lines(said) == ["Nothing to be done (all requested files are present and up to date)."]
    images = screen.raw("P2", "B01").parent
    maps = (images / "platemap.csv").rename(screen.folder / "P2.csv")
    screen.sheet["P2"]["platemap"] = str(maps)
    screen.write()
    shutil.rmtree(images)
    (screen.results / "P1/report.html").unlink()
    note, refused, deleted = lines(snakemake(screen, "-n"))[::-1]
    assert deleted == "P1: its report was deleted; put back, nothing is computed"
    assert refused == "P2: refused"
    assert note.startswith(f"note: plate P2: {images}: cannot be read: No such file")


def test_what_was_deleted_comes_back_by_a_shell_that_no_name_reaches(typed):
    elsewhere = typed.folder.parent / ELSEWHERE
    table, report = typed.results / "P1/wells.parquet", typed.results / "screen/report.html"
    before = table.read_bytes(), report.read_bytes()
    table.unlink()
    report.unlink()
    said = snakemake(typed, folder=elsewhere)  # thin rules' shells put them back
    assert not [stage for stage in STAGES if f" {stage}: " in said], said
    assert "P1: its tables were deleted; put back, nothing is computed" in said
    assert "screen: its report was deleted; put back, nothing is computed" in said
    assert (table.read_bytes(), report.read_bytes()) == before
    folder = typed.folder
    here = [Path.cwd(), Path(__file__).parents[1], elsewhere, folder, *folder.parents[:2]]
    assert not [place for place in [*here, folder / "raw"] if (place / "ran").exists()]
    assert "deleted" not in snakemake(typed, "-n", "--forceall", folder=elsewhere)


def test_the_run_shows_jobs_of_what_changed_and_progress_and_where_to_look(typed):
    said = typed.said
    begun = re.findall(r"^\[\d of 8\] (\w+ \w+): ", said, re.MULTILINE)
    plate = [f"P2 {stage}" for stage in (*WELL_STAGES, "aggregate", "report")]
    assert sorted(begun) == sorted([*plate, "screen aggregate", "screen report"])
    # how often a job of a second is looked at depends on the machine
    assert re.search(r"  P2 ingest: [0-8]/8 wells", said)
    assert "results/screen/report.html" in said
    assert "results/<plate>/cells.parquet" in said
    assert (typed.results / "screen/report.html").exists()
    assert (typed.results / "P2/report.html").exists()


def test_put_back_it_equals_a_run_from_nothing_by_one_process(typed, finished, tmp_path):
    screen = typed.copy(tmp_path / "screen")
    for well, channel in itertools.product(("B01", "B02"), screen.specs["P2"].channels):
        shutil.copy2(finished.raw("P2", well, channel), screen.raw("P2", well, channel))
    wanted = wells(screen, ["P2"], WELL_STAGES, ["B01", "B02"]) + ends("P2")
    assert sorted(screen.run()) == sorted(wanted)
    assert screen.plan().reasons == {}
    assert_same(screen, finished)


@pytest.mark.long
def test_from_nothing_by_two_workers_it_equals_a_rerun_of_what_changed(typed, tmp_path):
    screen = Screen(tmp_path / ODD)
    _disturb(screen)
    elsewhere = tmp_path / ELSEWHERE
    elsewhere.mkdir()
    said = snakemake(screen, folder=elsewhere)
    assert "P1 segment: " in said and "screen train: new" in said
    assert_same(screen, typed)


def test_a_truncated_image_is_quarantined_and_named(typed):
    assert "1 well(s) or site(s) in quarantine" in typed.said
    assert "P2 B02" in typed.said and "P2_B02_s1_Marker.tif" in typed.said
    tables = typed.tables()
    assert "B02" not in set(tables["P2/cells.parquet"]["Metadata_Well"])
    assert "P2_B02_s1_Marker.tif" in (typed.results / "P2/report.html").read_text()


def test_quarantine_fails_a_strict_run_once_all_is_finished(typed, tmp_path):
    screen = typed.copy(tmp_path / "screen")
    ((plate, well, why),) = jobs.quarantined(screen.project())
    assert (plate, well) == ("P2", "B02") and "P2_B02_s1_Marker.tif: truncated TIFF" in why
    screen.settings["run"] = {**screen.settings["run"], "strict": True}
    screen.write()
    plan, why = screen.plan(), "run.strict: 1 well(s) or site(s) in quarantine"
    assert plan.reasons == {}  # strictness makes nothing stale
    code, said = snakemake(screen, "-n", check=False)
    assert code != 0 and why in said and "P2 B02" in said
    with pytest.raises(DataError, match=re.escape(why)):  # as the run's last job would end
        jobs.run(screen.project(), "report", SCREEN, plan.keys[SCREEN, "report"], threads=1)


def test_another_report_by_path_and_snakemakes_own(typed, tmp_path):
    snakemake(typed, "results/P1/cells.parquet")
    snakemake(typed, "--report", str(tmp_path / "snakemake.html"))
    page = (tmp_path / "snakemake.html").read_text()
    assert "plateglass" in page


def test_a_mistake_stops_everything_before_any_job(typed):
    sheet = typed.folder / "plates.csv"
    kept = sheet.read_text()
    sheet.write_text(kept.replace("pattern", "patern", 1))
    try:
        code, said = snakemake(typed, check=False)
    finally:
        sheet.write_text(kept)
    assert code != 0
    assert "'patern' is unknown; one of pattern, loaddata, demo" in said
    assert "Traceback" not in said


def test_unlock_asks_nothing_of_the_settings(typed, tmp_path):
    screen = typed.copy(tmp_path / "screen")
    screen.settings["ingset"] = {}
    screen.write()
    with pytest.raises(UserError, match="ingset"):
        screen.plan()
    left = screen.folder / ".snakemake/locks/0.input.lock"
    for word in ("--unlock", "--unl"):  # the shortest that Snakemake takes for it
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_text("results")
        snakemake(screen, word)
        assert not left.exists()


def test_a_job_that_fails_is_told_once_and_the_other_plate_finishes(typed, tmp_path):
    screen = typed.copy(tmp_path / "screen")
    torn = screen.results / ".plateglass/parts/P2/features/A03.arrow"
    torn.write_bytes(b"torn")
    screen.settings["aggregate"] = {"select": ["variance_threshold"]}
    screen.write()
    code, said = snakemake(screen, check=False)
    assert code != 0
    assert said.count("failed: ") == 1 and "failed: P2 aggregate\n" in said
    assert said.count(str(torn)) == 1 and f"{torn}: cannot be read" in said
    for word in ("RuleException", "CalledProcessError", "Traceback", "set -euo pipefail"):
        assert word not in said
    assert not [pair for pair in screen.plan().reasons if pair[0] == "P1"]


@pytest.mark.long
def test_a_retry_does_not_hide_that_more_is_to_do(typed, tmp_path):
    """An image changed unseen, and its result was lost: what is made of it is in no plan."""
    screen = typed.copy(tmp_path / "screen")
    image = screen.raw("P2", "A05")
    times = image.stat()
    image.write_bytes(bytes(times.st_size))
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    (screen.results / ".plateglass/parts/P2/ingest/A05.arrow").unlink()
    code, said = snakemake(screen, "--retries", "1", check=False)
    assert code != 0 and "A05 came out otherwise than before, of what seemed the same" in said
    assert "latency" not in said and "Where to look" not in said
    assert "P2 A05" in snakemake(screen)  # in quarantine
    assert "Nothing to be done" in snakemake(screen)


def test_a_job_killed_leaves_its_log_and_nothing_on_the_terminal(tmp_path, monkeypatch):
    """Its shell, which would name it there, is gone: the logger alone tells of it."""
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport os\nprint('A01 done')\nos.kill(os.getpid(), 9)\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    command = Workflow.command(SimpleNamespace(settings="config.yaml"), "ingest")
    shell = ["bash", "-c", f"set -euo pipefail; {command} P1 > {tmp_path}/log 2>&1"]
    done = subprocess.run(shell, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-9, "", "")
    assert (tmp_path / "log").read_text() == "A01 done\n"


def test_results_with_braces_are_refused(typed, tmp_path):
    screen = typed.copy(tmp_path / "screen")
    screen.settings["results"] = "results{x}"
    screen.write()
    code, said = snakemake(screen, "-n", check=False)
    assert code != 0
    assert "results{x}: Snakemake reads braces as wildcards; rename" in said


@pytest.mark.parametrize(("workers", "wanted"), [(None, 1000 + 8 * 300), (2, 1000 + 2 * 300)])
def test_a_job_asks_for_the_memory_of_its_workers(workers, wanted):
    config = SimpleNamespace(run=SimpleNamespace(workers=workers))
    megabytes = Workflow.memory(SimpleNamespace(config=config), job=1000, worker=300)
    assert megabytes(wildcards=None, threads=8) == wanted


@pytest.mark.parametrize("many", [MOST_SHOWN, MOST_SHOWN + 1])
def test_of_a_large_screen_the_last_words_name_one_report_for_all(tmp_path, capsys, many):
    names = [f"P{n:02d}" for n in range(many)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").touch()
    project = Mock(names=names, state=tmp_path)
    project.well_stages.return_value = []
    plan = SimpleNamespace(reasons={("P00", "report"): {}})
    made = {"P00": "report.html"}
    run = SimpleNamespace(
        config=SimpleNamespace(results=tmp_path),
        results="results",
        project=project,
        plan=plan,
        _began=0,
        done=lambda plate, stage: tmp_path / plate / made[plate],
    )
    Workflow.say_where_to_look(run)
    said = capsys.readouterr().err
    one_by_one = [f"results/{name}/report.html" in said for name in names]
    assert (all(one_by_one), any(one_by_one)) == ((many == MOST_SHOWN,) * 2)
    assert ("results/<plate>/report.html" in said) == (many > MOST_SHOWN)
    made["P00"] = "not yet"  # --until an earlier stage
    Workflow.say_where_to_look(run)
    said = capsys.readouterr().err
    assert "Done as far as was asked" in said and "report.html" not in said
