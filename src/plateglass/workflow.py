"""What the Snakefile asks: names of markers, their order, reasons, and the last words of a run."""

import contextlib
import gc
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError

from plateglass import config as settings
from plateglass import jobs, lock, slurm
from plateglass.errors import PlateglassError, UserError
from plateglass.ledger import fingerprint
from plateglass.plan import PLATE_TABLES, Plan
from plateglass.project import Project
from plateglass.stages import SCREEN
from plateglass.terminal import duration

# A finished file's second name back to its first; see jobs.keep.
RESTORE = (
    "restore() { d=$1; shift; for f; do "
    'ln -f "$d/${f##*/}" "$f" 2>/dev/null || cp "$d/${f##*/}" "$f" || exit 1; done; }; restore'
)

MOST_SHOWN = 12  # plates whose reports are named one by one in the last words

# While the Snakefile is read the command line alone tells; Snakemake takes what argparse abbreviates.
UNLOCK = {"--unlock", "--unloc", "--unlo", "--unl"}


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would walk over all that a plan holds again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Refusal(WorkflowError):
    """What the user can mend. The logger knows it by its name and shows the message alone."""


class Workflow:
    """Stands between Snakemake and the plan.

    The plan is made in the main process only; where a job parses the Snakefile again (on a cluster,
    or under a ``run:``) every question is answered by nothing, since a job is told all it needs by
    its wildcards.
    """

    restore = RESTORE  # a shell function and its call
    table_names = PLATE_TABLES

    def __init__(self, workflow: Any, config: dict):
        self._snakemake = workflow
        self._began = time.monotonic()
        if UNLOCK & set(sys.argv):  # asks nothing of settings or plates, so that none can forbid it
            self.plan, self.results, self.settings = None, "results", ""
            return
        try:
            file = self._file(workflow)
            self.config = settings.read(file)
            with _uncollected():
                self.project = Project.read(self.config)
                self.plan = Plan(self.project) if workflow.is_main_process else None
            if self.plan is not None and not self.plan.reasons:
                jobs.hold_to_strict(self.project)  # else a finished run would pass in silence
        except PlateglassError as error:
            self._stop(error)
        here = os.path.relpath(self.config.results)
        self.results = here if not here.startswith("..") else str(self.config.results)
        if set("{}") & set(self.results):
            self._stop(
                UserError(f"results: {self.results}: Snakemake reads braces as wildcards; rename")
            )
        self.settings = os.path.relpath(file)
        if self.plan is not None:
            for note in [*self.plan.notes, *self.plan.refused.values()]:
                print(f"note: {note}", file=sys.stderr)

    @cached_property
    def _graph(self) -> set[tuple[str, str]]:
        """The (plate, stage)s whose jobs Snakemake is told of.

        Those that must run, which a thousand finished plates do not slow down; all, where the user
        asks about the graph itself (``--report``, ``--dag`` …) or bends it (``--forceall`` …). Asked
        by input functions alone: while the Snakefile is read, nobody knows what the graph is for.
        """
        asked = self._snakemake.dag_settings
        if asked.forceall:
            self.plan.force()
        bent = asked.forceall or asked.forcetargets or asked.forcerun or asked.batch
        bent = bent or asked.until or asked.omit_from
        whole = self._snakemake.execution_settings is None or self._snakemake.touch or bent
        return set(self.plan.keys if whole else self.plan.reasons)

    def hold(self) -> None:
        """Keep other runs off these results while this one lasts; they may have another folder."""
        try:
            self._held = lock.take(self.project.state / "lock")
        except PlateglassError as error:
            self._stop(error)
        slurm.remember_min_job_age()

    # ------------------------------------------------------------------ for the rules
    def command(self, stage: str) -> str:
        """A stage's command line, up to the plate; this Python's own, whatever ``PATH`` says.

        In the shell's place (``exec``), which would name a killed process on the terminal; unbuffered,
        so that a killed job's log tells how far it came.
        """
        settings = shlex.quote(self.settings)
        python = f"PYTHONUNBUFFERED=1 exec {shlex.quote(sys.executable)}"
        return f"{python} -m plateglass.cli {stage} --config {settings}"

    def done(self, plate: str, stage: str) -> str:
        """Path of a marker that the plan asks for."""
        return f"{self.results}/.plateglass/done/{plate}.{stage}.{self.plan.keys[plate, stage]}"

    def after(self, *stages: str, itself: bool = False) -> Callable[[Any], list[str]]:
        """Input function: the markers that come before; ``screen`` for what concerns all plates.

        ``after("segment", "screen")`` are all training plates' segment markers for train, and all
        plates' markers for the screen's tables and report.
        """
        whole = SCREEN in stages

        def inputs(wildcards: Any) -> list[str]:
            if self.plan is None:
                return []
            if whole and itself:
                wanted = [(SCREEN, stages[0])]
            elif whole:
                plates = self.project.names
                if stages[0] == "segment":
                    plates = self.project.training_plates()
                wanted = [(plate, stages[0]) for plate in plates]
                if stages[0] == "report":
                    wanted.append((SCREEN, "aggregate"))
                if stages[0] != "segment":
                    wanted.append((SCREEN, "train"))
            else:
                wanted = [(SCREEN if s == "train" else wildcards.plate, s) for s in stages]
            return [self.done(*pair) for pair in wanted if pair in self._graph]

        return inputs

    def tables(self, stage: str, whole: bool = False) -> Callable[[Any], list[str]]:
        """Input function: the tables that a stage to run reads, a plate's or (``whole``) all plates'.

        Snakemake deletes a rule's outputs before it runs, so who reads tables waits for the thin rule
        that puts them in place. Nothing for a stage that need not run: a table put back is no change;
        and nothing of plates whose tables are in place and stay as they are.
        """

        def inputs(wildcards: Any) -> list[str]:
            plate = SCREEN if whole else wildcards.plate
            if self.plan is None or (plate, stage) not in self.plan.reasons:
                return []
            found = self._tables(self._shown_plates() if whole else [plate])
            if whole and stage == "report":
                found += self._named(SCREEN, "aggregate", ["wells_selected.parquet"])
            return found

        return inputs

    def _tables(self, plates: list[str]) -> list[str]:
        names = [f"{name}.parquet" for name in PLATE_TABLES]
        return [file for plate in plates for file in self._named(plate, "aggregate", names)]

    def _named(self, plate: str, stage: str, names: list[str]) -> list[str]:
        """What a stage shows to people; where it is no part of the graph, what of that is lost."""
        files = [f"{self.results}/{plate}/{name}" for name in names]
        if (plate, stage) in self._graph:
            return files
        return [file for file in files if not os.path.exists(file)]  # noqa: PTH110

    def memory(self, job: int, worker: int) -> Callable[..., int]:
        """Resource function: megabytes for a job's own process and for each of its workers."""

        def megabytes(wildcards: Any, threads: int) -> int:
            return job + worker * (self.config.run.workers or threads)

        return megabytes

    def why(self, stage: str, plate: str | None = None) -> Callable[..., str]:
        """Params function: the reason. Its ``input`` argument keeps it out of the triggers."""

        def reason(wildcards: Any, input: Any) -> str:
            return self.plan.why(plate or wildcards.plate, stage) if self.plan else ""

        return reason

    def put_back(self, stage: str, plate: str | None = None) -> Callable[..., str]:
        """Params function: what a thin rule says, where it does more than follow its stage."""

        def said(wildcards: Any, input: Any) -> str:
            name = plate or wildcards.plate
            if self.plan is None or (name, stage) in self._graph:  # then it follows its stage
                return ""
            what = "its report was" if stage == "report" else "its tables were"
            return f"{name}: {what} deleted; put back, nothing is computed"

        return said

    def why_refused(self, wildcards: Any, input: Any) -> str:
        return self.plan.refused.get(wildcards.plate, "") if self.plan else ""

    def markers(self, wildcards: Any) -> list[str]:
        """The markers of all jobs in the graph, and the last one of all: targets of ``rule all``."""
        if self.plan is None:
            return []
        folder = f"{self.results}/.plateglass/done"
        refused = [
            f"{folder}/{plate}.refused.{fingerprint(why)}"
            for plate, why in self.plan.refused.items()
        ]
        wanted = dict.fromkeys([*self._graph, (SCREEN, "report")])  # without inputs, all would run
        return [self.done(*pair) for pair in wanted] + refused

    def shown(self, wildcards: Any) -> list[str]:
        """Tables and reports: targets besides, so that a deleted one comes back."""
        if self.plan is None:
            return []
        files = self._tables(self._shown_plates())
        files += self._named(SCREEN, "aggregate", ["wells_selected.parquet"])
        for plate in [*self._shown_plates(), SCREEN]:
            files += self._named(plate, "report", ["report.html"])
        return files

    def _shown_plates(self) -> list[str]:
        return [plate for plate in self.project.names if plate not in self.plan.refused]

    # ------------------------------------------------------------------ last words
    def say_where_to_look(self) -> None:
        """After a run: the paths, and the few figures that matter."""
        results = self.config.results
        plates = [p for p in self.project.names if (results / p / "report.html").exists()]
        if not plates or self.plan is None:  # --until an earlier stage, or a job of its own
            return
        if not all(os.path.exists(self.done(*pair)) for pair in self.plan.reasons):  # noqa: PTH110
            print(
                "\nDone as far as was asked; tables and reports stay as they were.", file=sys.stderr
            )
            return
        took = duration(time.monotonic() - self._began)
        lines = [
            "",
            f"Done in {took}. Where to look:",
            f"  report   {self.results}/screen/report.html",
        ]
        shown = plates if len(plates) <= MOST_SHOWN else ["<plate>"]
        lines += [f"           {self.results}/{plate}/report.html" for plate in shown]
        lines += [
            f"  tables   {self.results}/<plate>/cells.parquet, sites, wells, wells_normalized"
        ]
        lines += [f"           {self.results}/screen/wells_selected.parquet"]
        try:
            figures = json.loads((self.project.state / "summary.json").read_text())
        except (OSError, ValueError):
            figures = {}
        lines += [f"  {name:<28} {value}" for name, value in figures.items()]
        if left_out := jobs.quarantined(self.project):
            lines.append(f"  {len(left_out)} well(s) or site(s) in quarantine:")
            lines += [f"    {plate} {well}: {why}" for plate, well, why in left_out[:10]]
        print("\n".join(lines), file=sys.stderr)

    def say_what_failed(self) -> None:
        print(
            f"\nNot all is done; finished wells are kept. Logs: {self.results}/.plateglass/logs\n"
            "Mend what is named above, if anything, and give the same command again.",
            file=sys.stderr,
        )

    # ------------------------------------------------------------------ the settings' file
    @staticmethod
    def _file(workflow: Any) -> Path:
        """The one YAML of this run: ``--configfile``, else the Snakefile's."""
        files = workflow.configfiles
        given = list(workflow.config_settings.configfiles or [])
        if len(given) > 1 or workflow.config_settings.config:
            raise UserError(
                "a run's settings are one file: write what --config says, or a further --configfile, "
                "into a copy of it"
            )
        return Path((given or list(files))[-1])

    @staticmethod
    def _stop(error: PlateglassError) -> None:
        raise Refusal(str(error)) from None
