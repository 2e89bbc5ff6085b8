"""``snakemake --logger plateglass``: a bar over the wells of each running job.

Jobs write one small file each (``plateglass.wells.Job.progress``); only this process paints, so jobs
side by side cannot interleave and jobs on a cluster show as well. Without a terminal: a line per
10 %. What a job has to say to the user it writes to its log, after ``note:``. Snakemake finds logger
plugins by the module's name.
"""

import contextlib
import os
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from plateglass.terminal import duration
from snakemake_logger_plugin_plateglass.reasons import (
    is_chatter,
    is_of_process,
    of_cluster,
    of_process,
)

QUIET_RULES = {"tables", "selected", "plate_report", "screen_report", "all"}
LOCKED = (
    "This folder is locked: another snakemake runs in it, or an earlier one was killed. If none runs, "
    "give  snakemake --unlock  (with the same --configfile, if any), then the same command again: "
    "finished wells are kept."
)
SHOWN_OF_LOG = 6  # lines of a failed job's log


class LogHandler(LogHandlerBase):
    """Messages, errors with the end of the job's log, and the bars."""

    def __post_init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            transient=True,
        )
        self.tasks: dict[str, int] = {}
        self.tenths: dict[str, int] = {}
        # bar and start of a job → wells done, and when, at the first look that saw any
        self.first: dict[tuple[str, str], tuple[int, float]] = {}
        self.begun: set[int] = set()
        self.jobs = 0
        self.folder: Path | None = None
        self.left: dict[str, str] = {}  # progress files of jobs that were killed in an earlier run
        self.logs: dict[int, tuple[Path, float]] = {}  # job → its log, and how old that was before
        self.ended: list[str] = []  # how processes of failed jobs ended
        self.failed: set[tuple[str, str]] = set()
        self.noted: set[str] = set()
        self.stop = threading.Event()
        self.watcher: threading.Thread | None = None

    @property
    def writes_to_stream(self) -> bool:
        """Paints on the terminal."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Leaves files to Snakemake."""
        return False

    @property
    def has_filter(self) -> bool:
        """Chooses what to show itself."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Formats itself."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """No graph is drawn."""
        return False

    def emit(self, record) -> None:
        """One log record of Snakemake's."""
        try:
            self._emit(record)
        except Exception:
            self.handleError(record)

    def _emit(self, record) -> None:
        event = getattr(record, "event", None)
        dry = self.common_settings.dryrun
        if event == LogEvent.JOB_INFO:
            self._job(record, dry)
        elif event == LogEvent.RUN_INFO:
            counts = record.stats.items()
            self.jobs = sum(n for rule, n in counts if rule not in {*QUIET_RULES, "total"})
        elif event == LogEvent.JOB_FINISHED:
            self._notes(record.job_id)
        elif event == LogEvent.PROGRESS:
            if not dry and record.done == record.total:
                self._settle()
        elif event == LogEvent.JOB_ERROR:
            self._error(record)
        elif event == LogEvent.ERROR:
            if is_of_process(record.getMessage()):  # other jobs go on, with their bars
                self.ended.append(record.getMessage())
                return
            self._settle()
            self._print(_refusal(record) or record.getMessage(), "red")
        elif event is None and self._worth(record):
            self._print(record.getMessage(), "red" if record.levelno >= 40 else None)

    def _worth(self, record) -> bool:
        text = str(record.getMessage())
        if "were not present when the DAG was created" in text:
            return False  # aggregate's own job writes what the thin rules name
        if is_chatter(text):
            return False
        if record.levelno >= 30:
            return True
        return text.startswith("Nothing to be done")

    def _job(self, record, dry: bool) -> None:
        logs = getattr(record, "log", None) or []
        if logs:
            log = Path(str(logs[0]))
            self.logs[record.jobid] = log, _written(log)
            if self.folder is None:
                self.folder = log.parent.parent / "progress"
                self.left = self._progress()
        text = getattr(record, "rule_msg", None)
        if getattr(record, "rule_name", "") in QUIET_RULES:
            if text:
                self._print(text)
            return
        self.begun.add(record.jobid)  # one that is tried again comes again
        place = f"[{len(self.begun)} of {self.jobs}] " if self.jobs and not dry else ""
        self._print(place + (text or record.rule_name))
        if not dry and self.watcher is None:
            self.watcher = threading.Thread(target=self._watch, daemon=True)
            self.watcher.start()

    def _error(self, record) -> None:
        """The job's name, the cluster's reason if any, the end of the log that tells more."""
        logs = [Path(str(log)) for log in getattr(record, "log", None) or []]
        # a rule's log is <plate>.<stage>.<key>.log
        job = ".".join(logs[0].name.split(".")[:2]) if logs else record.rule_name
        self.left[job] = self._progress().get(job, "")  # a killed job leaves its bar behind
        name = job.replace(".", " ")
        ended = (of_process(text, str(log)) for text in self.ended for log in logs)
        why = of_cluster(getattr(record, "rule_msg", None)) or next(filter(None, ended), "")
        if (name, why) in self.failed:
            return
        self.failed.add((name, why))
        self._print(f"failed: {name}" + (f": {why}" if why else ""), "bold red")
        own, before = self.logs.get(record.jobid, (None, 0.0))
        # one of an earlier run, as it was, is of no job that came so far in this one
        new = [log for log in logs if _written(log) != (before if log == own else 0.0)]
        if new:
            log = next(filter(_lines, new), new[0])
            for line in _lines(log)[-SHOWN_OF_LOG:]:
                self._print(f"    {line}", "red")
            self._print(f"    log: {log}" + ("" if _lines(log) else " (empty)"))

    def _notes(self, job: int) -> None:
        """What a finished job has to say to the user; once, however many jobs say it."""
        if job in self.logs:
            for line in _lines(self.logs.pop(job)[0]):
                if line.startswith("note: ") and line not in self.noted:
                    self.noted.add(line)
                    self._print(line, "yellow")

    def _print(self, text, style: str | None = None) -> None:
        if "Directory cannot be locked" in str(text):
            text = LOCKED
        self.console.print(str(text), style=style, markup=False)

    # ------------------------------------------------------------------ bars
    def _watch(self) -> None:
        terminal = self.console.is_terminal
        if terminal:
            self.bars.start()
        pause = 0.25
        while not self.stop.wait(pause):
            pause = 0.25 + 0.01 * self._look(
                terminal
            )  # a hundred jobs' files may lie on a slow disk
        if terminal:
            self.bars.stop()

    def _look(self, terminal: bool) -> int:
        """Paint what the jobs under way have written; returns how many there are."""
        now = {}
        for name, text in self._progress().items():
            if text != self.left.get(name):
                with contextlib.suppress(ValueError):
                    done, total, unit, start = text.split()
                    now[name] = int(done), int(total), unit, start
        for name, (done, total, unit, start) in now.items():
            if done:
                self.first.setdefault((name, start), (done, time.time()))
            title = name.replace(".", " ")
            if terminal:
                if name not in self.tasks:
                    self.tasks[name] = self.bars.add_task(title, total=total, unit=unit)
                self.bars.update(self.tasks[name], completed=done, total=total, unit=unit)
            elif total and (tenth := 10 * done // total) != self.tenths.get(name):
                self.tenths[name] = tenth
                self._print(
                    f"  {title}: {done}/{total} {unit}{self._remaining((name, start), done, total)}"
                )
        for name in self.tasks.keys() - now.keys():
            self.bars.remove_task(self.tasks.pop(name))
        for name in self.tenths.keys() - now.keys():
            self.tenths.pop(name)
        return len(now)

    def _remaining(self, job: tuple[str, str], done: int, total: int) -> str:
        """The time that remains, by the wells after the first ones: before them, workers started."""
        before, when = self.first.get(job, (0, 0.0))
        if done in (0, before, total):
            return ""
        seconds = (time.time() - when) / (done - before) * (total - done)
        return f", about {duration(seconds)} left"

    def _progress(self) -> dict[str, str]:
        found = {}
        for file in self.folder.glob("[!.]*") if self.folder and self.folder.is_dir() else ():
            with contextlib.suppress(OSError):
                found[file.name] = file.read_text()
        return found

    def _settle(self) -> None:
        """Take the bars down before the last words."""
        self.stop.set()
        if self.watcher is not None:
            self.watcher.join(2)

    def close(self) -> None:
        """Snakemake is done."""
        self._settle()
        super().close()


def _refusal(record) -> str | None:
    """What plateglass refuses, in its own words: without the Snakefile's line and Python's."""
    if getattr(record, "exception", None) != "Refusal":
        return None
    lines = record.getMessage().splitlines()[1:]
    return "\n".join(line for line in lines if not line.startswith('  File "'))


def _lines(log: Path) -> list[str]:
    try:
        return log.read_text(errors="replace").rstrip().splitlines()
    except OSError:
        return []


def _written(log: Path) -> float:
    try:
        with log.open() as file:  # opened, since NFS may answer a mere stat from its cache
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return 0.0
