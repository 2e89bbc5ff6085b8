"""The command line: what Snakemake's jobs call, and a few things for people."""

import argparse
import ctypes
import errno
import json
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from plateglass import __version__
from plateglass.errors import PlateglassError, SetupError
from plateglass.stages import STAGES

_MEND = {
    errno.ENOSPC: "make room on that disk, or set results: to another",
    errno.EDQUOT: "make room in your quota, or set results: to another disk",
    errno.EROFS: "mount it for writing, or set results: to another disk",
    errno.EACCES: "give this user the right to it",
    errno.ENOENT: "was the folder moved, or its share unmounted? Bring it back",
    errno.EIO: "the disk or the network failed; try once more",
}

_KILLED = (
    "a worker process was ended from outside, mostly for want of memory: give fewer --cores, or set "
    "run.workers, and give the same command again. Finished wells are kept"
)

# Libraries read these when first imported: one thread a process, so that results do not depend on the
# number of cores and workers do not fight over them. Snakemake sets the first three to a job's threads,
# which are its workers' (`wells.each`) and its networks' (`device.choose`).
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ZARR_THREADING__MAX_WORKERS": "1",
}
# A network's threads wait for each other asleep: spinning takes cores from the job's own workers, and
# several times the CPU time beside other work. The others tell glibc to keep what was freed for the next
# batch or field, arrays under the first, up to the second: a fifth of a run's CPU time was the system's,
# which fetched and took them back (Dask sets the second to 64 kB in workers that it spawns).
IN_JOBS = {
    "OMP_WAIT_POLICY": "passive",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}

EPILOG = """\
exit codes:
  0  done (quarantined wells are counted and shown in the report)
  1  a fault that is no one's settings or data; the log has the traceback
  2  settings or sheets cannot be followed (nothing was computed)
  3  files of a plate cannot be used, or what was stored of it is damaged
  4  the machine lacks something: model weights, free space, the device asked for
  130  stopped by Ctrl-C or by the scheduler; finished wells are kept

Screens are run by Snakemake, in the folder of the Snakefile:
  snakemake --cores all                                   the demo
  snakemake --cores all --configfile config/sbs.yaml      another screen
  snakemake --cores all -n                                what would run, and why
"""


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(
        "plateglass",
        description="From high-content screening plates to profiles that can be looked behind.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"plateglass {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("schema", help="print the JSON schema of the settings, for editors")
    status = commands.add_parser("status", help="what is to do, and what is in quarantine")
    status.add_argument("--config", default="config/config.yaml", type=Path)
    for name in ("demo", *STAGES):
        stage = commands.add_parser(name, help=f"run {name} of one plate, as Snakemake's jobs do")
        stage.add_argument("plate", help="plate's name, or 'screen'")
        stage.add_argument("--config", default="config/config.yaml", type=Path)
        stage.add_argument("--key", required=True, help="the marker's key, from the plan")
        stage.add_argument("--threads", type=int, default=1)
    return top


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``plateglass``; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        if args.command == "schema":
            from plateglass.config import schema

            print(json.dumps(schema(), indent=2))
        elif args.command == "status":
            from plateglass.jobs import quarantined
            from plateglass.plan import Plan

            plan = Plan(_project(args.config))
            lines = [f"to do: {pair[0]} {pair[1]}: {plan.why(*pair)}" for pair in plan.reasons]
            left_out = quarantined(plan.project)
            lines += [f"in quarantine: {plate} {well}: {why}" for plate, well, why in left_out]
            print("\n".join([*lines, *plan.notes, *plan.refused.values()]) or "all is done")
        else:
            _job(args)
    except PlateglassError as error:
        print(f"plateglass: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        by = str(stop) or "the keyboard"
        # what zarr and Dask had under way dies with its loop; nobody need read of each task
        logging.getLogger("asyncio").disabled = True
        print(f"plateglass: stopped by {by}; finished wells are kept", file=sys.stderr)
        return 130
    except (OSError, MemoryError) as error:
        if getattr(error, "errno", None) not in _MEND:
            traceback.print_exc()
        print(f"plateglass: {_machine(error)}", file=sys.stderr)
        return SetupError.exit_code
    except Exception as error:
        if type(error).__name__ in ("KilledWorker", "BrokenProcessPool"):
            print(f"plateglass: {_KILLED}", file=sys.stderr)
            return SetupError.exit_code
        traceback.print_exc()
        print(
            f"plateglass: a bug in {args.command}; please report the lines above", file=sys.stderr
        )
        return 1
    return 0


def _machine(error: OSError | MemoryError) -> str:
    """What the machine refused, where, and what to do; finished wells are safe in any case."""
    if isinstance(error, MemoryError):
        what = "not enough memory; give fewer --cores, or set run.workers"
    else:
        where = f"{error.filename}: " if error.filename else ""
        what = f"{where}{error.strerror or error}; " + _MEND.get(error.errno, "mend that")
    return f"{what}, and give the same command again. Finished wells are kept"


def _project(config: Path):
    from plateglass import config as settings
    from plateglass.project import Project

    return Project.read(settings.read(config))


def _job(args: argparse.Namespace) -> None:
    set_up_libraries()
    heed_signals()
    from plateglass import jobs
    from plateglass.project import check_identifiers

    project = _project(args.config)
    jobs.run(project, args.command, check_identifiers(args.plate), args.key, args.threads)


def set_up_libraries() -> None:
    """Set the environment of a job and its workers; before numpy or torch is imported."""
    os.environ |= ONE_THREAD | {
        name: os.environ.get(name, value) for name, value in IN_JOBS.items()
    }
    # glibc read the last two when this process began
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # musl has none
        for what, name in ((-3, "MALLOC_MMAP_THRESHOLD_"), (-1, "MALLOC_TRIM_THRESHOLD_")):
            if os.environ[name].isdigit():
                libc.mallopt(what, int(os.environ[name]))  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD


def heed_signals() -> None:
    """Leave on a cluster's signal as on Ctrl-C, with progress and workers cleared; main thread only."""
    signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = _once_more


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _once_more(swallowed: Any) -> None:
    """Python swallows a stop that comes while an object is deleted: it is raised again, a moment later."""
    stop = swallowed.exc_value
    if not isinstance(stop, KeyboardInterrupt):
        sys.__unraisablehook__(swallowed)
        return

    def again(number: int, frame: object) -> None:
        raise KeyboardInterrupt(*stop.args)

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, 0.01)


if __name__ == "__main__":
    sys.exit(main())
