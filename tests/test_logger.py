"""What the terminal shows of jobs, wherever they run: by records as Snakemake sends them."""

import io
import os
from types import SimpleNamespace

import pytest
from rich.console import Console
from snakemake_interface_logger_plugins.common import LogEvent

from plateglass.terminal import duration
from snakemake_logger_plugin_plateglass import LogHandler, reasons


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """A handler in a run's folder; call it to have all that it printed so far."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "progress").mkdir()
    handler = LogHandler.__new__(LogHandler)
    handler.common_settings = SimpleNamespace(dryrun=False)
    handler.__post_init__()
    written = io.StringIO()
    handler.console = Console(file=written, width=200, soft_wrap=True, highlight=False)
    monkeypatch.setattr(handler, "_watch", lambda: None)
    handler.said = written.getvalue
    return handler


def start(handler, jobid, log):
    handler._emit(
        SimpleNamespace(
            event=LogEvent.JOB_INFO, jobid=jobid, rule_name="r", rule_msg="go", log=[log]
        )
    )


def fail(handler, jobid, *logs, why=None):
    handler._emit(
        SimpleNamespace(
            event=LogEvent.JOB_ERROR, jobid=jobid, rule_name="r", rule_msg=why, log=list(logs)
        )
    )


def status(state):
    """As snakemake-executor-plugin-slurm 2.8 words it."""
    return f"SLURM-job '7' failed, SLURM status is: '{state}'. Detailed failure reason unavailable"


def test_a_failed_job_is_named_with_the_clusters_reason_and_the_end_of_its_log(shown, tmp_path):
    start(shown, 1, "logs/P1.ingest.k.log")
    (tmp_path / "logs/P1.ingest.k.log").write_text("first\n" + "line\n" * 5 + "the last\n")
    (tmp_path / "slurm.log").write_text("chatter of the cluster\n")
    fail(shown, 1, "logs/P1.ingest.k.log", "slurm.log", why=status("TIMEOUT"))
    said = shown.said()
    assert "failed: P1 ingest: it outlived its time limit" in said
    assert "    the last\n    log: logs/P1.ingest.k.log" in said
    assert "first" not in said and "chatter" not in said


def test_a_log_of_an_earlier_run_is_not_shown_for_a_job_that_never_began(shown, tmp_path):
    (tmp_path / "logs/P1.ingest.k.log").write_text("an old mistake\n")
    os.utime("logs/P1.ingest.k.log", (10**9, 10**9))
    (tmp_path / "slurm.log").write_text("no such file: python\n")
    start(shown, 1, "logs/P1.ingest.k.log")
    fail(shown, 1, "logs/P1.ingest.k.log", "slurm.log", why=status("FAILED"))
    assert "failed: P1 ingest\n    no such file: python\n    log: slurm.log" in shown.said()
    assert "an old mistake" not in shown.said()


def test_an_empty_log_is_named_where_its_job_began(shown, tmp_path):
    start(shown, 1, "logs/P1.ingest.k.log")
    (tmp_path / "logs/P1.ingest.k.log").touch()
    fail(shown, 1, "logs/P1.ingest.k.log", "slurm.log", why=status("NODE_FAIL"))
    assert shown.said().endswith("its node failed\n    log: logs/P1.ingest.k.log (empty)\n")


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (None, ""),
        (status("FAILED"), ""),
        (status("OUT_OF_MEMORY"), "more memory than `mem_mb`"),
        (status("CANCELLED by 0"), "cancelled on the cluster"),
        (
            "SLURM sbatch failed. The error message was 'sbatch: error: invalid partition "
            "specified: x'.\n    sbatch call:\n        sbatch --parsable",
            "not submitted: sbatch: error: invalid partition specified: x",
        ),
    ],
)
def test_reasons_are_in_words(message, wanted):
    assert wanted in reasons.of_cluster(message) and bool(reasons.of_cluster(message)) == bool(
        wanted
    )


@pytest.mark.parametrize(
    ("command", "ended", "why"),
    [
        ("python > {} 2>&1", "returned non-zero exit status 1.", ""),
        ("python > {} 2>&1", "returned non-zero exit status 130.", ""),
        ("python > {} 2>&1", "returned non-zero exit status 137.", reasons.KILLED),
        ("python > {} 2>&1", "died with <Signals.SIGKILL: 9>.", reasons.KILLED),
        ("python > {} 2>&1", "returned non-zero exit status 139.", "it crashed (signal 11)"),
        ("printf 'it''s gone' > {}; exit 1", "returned non-zero exit status 1.", ""),
        ("cp a b 2> {}", "returned non-zero exit status 1.", ""),
    ],
)
def test_a_job_that_fails_here_is_told_once_and_the_others_keep_their_bars(
    shown, command, ended, why
):
    log = "my > logs/P1.ingest.k.log"
    said = "set -euo pipefail; " + command.format(f"'{log}'")
    text = (
        f"RuleException:\nCalledProcessError in file \"x.smk\", line 2:\nCommand '{said}' {ended}"
    )
    start(shown, 1, log)
    shown._emit(SimpleNamespace(event=LogEvent.ERROR, getMessage=lambda: text))
    assert shown.said() == "go\n" and not shown.stop.is_set()
    fail(shown, 1, log)
    assert shown.said() == f"go\nfailed: P1 ingest{why and ': ' + why}\n"


def test_an_error_of_snakemakes_own_is_shown_as_it_is(shown):
    text = "MissingOutputException in rule x: gone"
    shown._emit(SimpleNamespace(event=LogEvent.ERROR, getMessage=lambda: text))
    assert shown.said() == text + "\n" and shown.stop.is_set()


def test_notes_are_shown_once_when_jobs_finish(shown, tmp_path):
    for jobid, log in ((1, "logs/P1.segment.k.log"), (2, "logs/P2.segment.k.log")):
        start(shown, jobid, log)
        (tmp_path / log).write_text("A01 done\nnote: on the CPU\n")
        shown._emit(SimpleNamespace(event=LogEvent.JOB_FINISHED, job_id=jobid))
    assert shown.said().count("note: on the CPU") == 1 and "A01" not in shown.said()


def test_progress_left_by_a_killed_job_is_no_progress(shown, tmp_path):
    left = tmp_path / "progress/P1.ingest"
    left.write_text("2 24 wells 100.0")
    start(shown, 1, "logs/P1.ingest.k.log")
    shown._look(terminal=False)
    assert "wells" not in shown.said()
    left.write_text("11 22 wells 200.0")
    shown._look(terminal=False)
    assert "  P1 ingest: 11/22 wells" in shown.said()


def test_chatter_of_the_executor_is_not_shown(shown):
    for text in (
        "No SLURM account given, trying to guess.",
        "No account was given, not able to get a SLURM account via sacct: sacct: invalid option",
        "Unable to guess SLURM account. Trying to proceed without.",
        "No wall time information given.",
    ):
        shown._emit(SimpleNamespace(levelno=30, getMessage=lambda text=text: text))
    assert shown.said() == "No wall time information given.\n"


def test_jobs_are_counted_and_a_deleted_table_is_told(shown):
    counts = {"ingest": 1, "segment": 1, "tables": 1, "all": 1, "total": 4}
    shown._emit(SimpleNamespace(event=LogEvent.RUN_INFO, stats=counts))
    for rule, text in (("ingest", "P1 ingest: new"), ("tables", "P1: deleted"), ("all", None)):
        shown._emit(
            SimpleNamespace(event=LogEvent.JOB_INFO, jobid=1, rule_name=rule, rule_msg=text, log=[])
        )
    assert shown.said() == "[1 of 2] P1 ingest: new\nP1: deleted\n"


def test_the_time_that_remains_is_that_of_wells_after_the_first(shown, tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("snakemake_logger_plugin_plateglass.time.time", lambda: now)
    start(shown, 1, "logs/P1.ingest.k.log")
    file = tmp_path / "progress/P1.ingest"
    for done, passed in ((0, 0.0), (1, 60.0), (5, 8.0)):  # a minute until the first well is no rate
        now += passed
        file.write_text(f"{done} 25 wells 100.0")
        shown._look(terminal=False)
    assert shown.said().splitlines()[-1] == "  P1 ingest: 5/25 wells, about 40 s left"
    assert [duration(s) for s in (48, 344, 7500)] == ["48 s", "5 min 44 s", "2 h 5 min"]


def test_a_refusal_is_shown_without_snakemakes_stack(shown):
    text = 'Refusal in file "plan.smk", line 4:\ntrain.folds: no\n  or yes\n  File "w.py", line 3, in x'
    for name in ("Refusal", "WorkflowError"):
        shown._emit(SimpleNamespace(event=LogEvent.ERROR, exception=name, getMessage=lambda: text))
    assert shown.said() == f"train.folds: no\n  or yes\n{text}\n"
