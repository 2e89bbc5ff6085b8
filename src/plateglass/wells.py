"""A job as its stage sees it, and Dask over its wells."""

import asyncio
import contextlib
import logging
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from plateglass.errors import DataError, SetupError
from plateglass.files import digest
from plateglass.plates import well_name
from plateglass.stages import STAGES

if TYPE_CHECKING:
    from plateglass.config import Config
    from plateglass.plates import Plate
    from plateglass.project import Project

CLUSTER_FROM = 5  # starting worker processes costs seconds: fewer wells than this run in the job
WORKERS_WITHIN = 600  # seconds that a running cluster has to get a worker from a queue
LOOK_EVERY = 2  # seconds without a result, after which a cluster is looked at
ANSWERS_WITHIN = 120  # seconds that its scheduler may be too busy, or stopped, to answer


@dataclass(frozen=True)
class Job:
    """One stage of one plate (or of the screen). Picklable: workers get a copy.

    ``project`` is what the settings, the sheet and the platemaps said when the job began; they may be
    edited since. ``known`` maps the wells already in the ledger to their content keys, ``model`` is
    the key of the networks that train is to write.
    """

    stage: str
    plate: str
    project: "Project"
    key: str = ""
    threads: int = 1
    model: str | None = None
    known: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> "Config":
        return self.project.config

    @property
    def results(self) -> Path:
        return self.config.results

    @property
    def state(self) -> Path:
        """What the engine keeps beside the results, and moves with them."""
        return self.results / ".plateglass"

    @property
    def plate_dir(self) -> Path:
        return self.results / self.plate

    @property
    def store(self) -> Path:
        return self.plate_dir / "plate.zarr"

    @property
    def model_dir(self) -> Path:
        """The model to apply: the screen's own, or the one that ``train.model`` names."""
        return self.config.train.model or self.results / "screen" / "model"

    @property
    def entry(self) -> "Plate":
        return self.project.plate(self.plate)

    def of(self, plate: str) -> "Job":
        """The same job's view of another plate (train reads all training plates)."""
        return replace(self, plate=plate)

    def part(self, stage: str, well: str) -> Path:
        """Where a stage keeps a well's rows until the plate's tables are assembled."""
        return self.state / "parts" / self.plate / stage / f"{well}.arrow"

    def wells_with_part(self, stage: str) -> set[str]:
        """The wells of which a part of a stage lies there, whatever its ledger says."""
        paths = (self.state / "parts" / self.plate / stage).glob("[!.]*")
        return {name for path in paths if well_name(name := path.name.partition(".")[0]) == name}

    def progress(self, done: int, total: int, unit: str = "wells") -> None:
        """Tell the terminal that watches; see the logger plugin. At most every fifth of a second."""
        path = self.state / "progress" / f"{self.plate}.{self.stage}"
        now = time.time()
        start, last = _clock.setdefault(path, (now, 0.0))
        if now - last > 0.2 or done == total:
            _clock[path] = (start, now)
            path.parent.mkdir(parents=True, exist_ok=True)
            # in place, one line of a fixed length: ext4 flushes what is renamed over, 9 ms each
            file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
            os.write(file, f"{f'{done} {total} {unit} {start}':<79}\n".encode())
            os.close(file)


T = TypeVar("T")
_clock: dict[Path, tuple[float, float]] = {}
_peaks: dict[tuple[str, str], float] = {}
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in a unit of ru_maxrss


@dataclass
class Result:
    """What became of a well.

    ``content`` replaces the input in the well's key where pixels decide (ingest); ``files`` are the
    paths it left; ``counts`` are figures for the log, such as planes read; ``quarantine`` is the
    reason why there is no result, ``left_out`` are those of sites without which there is one;
    ``facts`` is what else its line of the ledger tells.
    """

    well: str
    content: str | None = None
    quarantine: str | None = None
    left_out: Sequence[str] = ()
    files: Sequence[Path] = ()
    counts: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    stored: dict[str, tuple[int, str]] | None = None

    def sign(self, plate_dir: Path) -> "Result":
        """Fill ``stored``: path relative to the plate's results → (bytes, digest)."""
        if self.stored is None:
            self.stored = {os.path.relpath(path, plate_dir): digest(path) for path in self.files}
        return self


def each(
    job: Job,
    function: Callable[..., T],
    wells: Sequence[str],
    own: Callable[[str], Any] | None = None,
    **given: Any,
) -> Iterator[T | Result]:
    """``function(job, well, **given)`` for each well, results as they finish.

    ``own`` gives what is a well's alone, ``function(job, well, own(well), **given)``.

    In as many worker processes as the job has threads, in this process where that is one or the
    wells are few. A ``DataError`` quarantines its well; any other error ends the job, after the
    wells under way have been handed over. A running cluster that is not there, or is lost in the
    middle, ends it with a ``SetupError`` (see `_Watch`).
    """
    if job.config.run.dask is None and not _in_own_workers(job, wells):
        for well in wells:
            yield _attempt(function, job, _what(well, own), given)
        return
    with client(job, len(wells)) as dask:
        yield from _spread(dask, function, job, wells, own, given)


def begin_imports(job: Job, wells: Sequence[str]) -> None:
    """Where `each` will start workers, let their imports begin now, beside this process's own.

    Workers are forked from a server that imports Dask and what the stage needs there, and does
    nothing with them. That is safe: no device is in use, and the one thread beside the server's own
    is that of pyarrow's jemalloc, which takes its locks before a fork and has no thread in the child.
    """
    if _in_own_workers(job, wells):
        needed = ["distributed", "plateglass.config", "plateglass.store.arrays"]
        forkserver.set_forkserver_preload([*needed, *STAGES[job.stage].in_workers])
        _method()


def _in_own_workers(job: Job, wells: Sequence[str]) -> bool:
    return job.config.run.dask is None and job.threads > 1 and len(wells) >= CLUSTER_FROM


@cache
def _method() -> str:
    """How worker processes begin; the fork server runs where that is the way."""
    if sys.platform == "linux":  # elsewhere the system's own libraries may not be forked
        # Ctrl-C is the job's to hear, which ends its workers: else each says so with a stack
        hears = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            forkserver.ensure_running()
            return "forkserver"
        except OSError:  # TMPDIR has a name too long for a socket, or takes none
            pass
        finally:
            signal.signal(signal.SIGINT, hears)
    return "spawn"


def peak_mb(who: int = resource.RUSAGE_SELF) -> float:
    """Most memory that this process, or one whose end it has seen, has held (MB)."""
    return resource.getrusage(who).ru_maxrss * _RSS_UNIT / 1e6


def peak_worker_mb(job: Job) -> float:
    """Most memory that one of the job's own workers has held (MB); 0 where it had none."""
    if job.stage == "train":
        return peak_mb(resource.RUSAGE_CHILDREN)
    # asked for while they lived: Dask's workers end as the fork server's children, not as ours
    return _peaks.get((job.plate, job.stage), 0.0)


@contextlib.contextmanager
def client(job: Job, wells: int) -> Iterator[Any]:
    """A Dask client: of the running cluster that ``run.dask`` names, else of this job's workers.

    Of those there are no more than ``wells``, the number there is to do.
    """
    import dask
    from distributed import Client, LocalCluster

    if job.config.run.dask is not None:
        with _running(job.config.run.dask.scheduler) as found:
            yield found
        return
    workers = min(job.config.run.workers or job.threads, wells)
    settings = {
        "distributed.worker.multiprocessing-method": _method(),
        # looks at every worker a hundred times a second: a sixth of the mask step's time
        "distributed.worker.profile.enabled": False,
        # fifty times a second each process would look whether its loop is late
        "distributed.admin.tick.interval": "500ms",
    }
    with dask.config.set(settings), contextlib.ExitStack() as opened:
        with _stopped_later():  # else workers half begun say, with a stack each, that we went away
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",  # any free port: jobs run side by side
                memory_limit=0,
                silence_logs=40,
                local_directory=str(job.state / "dask"),
            )
            opened.enter_context(cluster)
            own = opened.enter_context(Client(cluster, set_as_default=False))
        yield own
        peaks = own.run(peak_mb, on_error="ignore").values()  # a worker may have died just now
        _peaks[job.plate, job.stage] = max(peaks, default=0.0)


@contextlib.contextmanager
def _stopped_later() -> Iterator[None]:
    """A signal to stop acts when the block has ended; a second one acts at once."""
    heard: list[int] = []

    def hear(number: int, frame: object) -> None:
        heard.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, hear)
        yield
    finally:
        restore()
        if heard:
            signal.raise_signal(heard[0])


def _running(scheduler: str) -> Any:
    """A client of a cluster that someone else started, by its address or scheduler file.

    Raises
    ------
    SetupError
        Nobody answers there, or no worker joins in ``WORKERS_WITHIN`` seconds.
    """
    from distributed import Client

    by_address = "://" in scheduler
    found = None
    # a connection that breaks is told in a sentence, not by a stack
    logging.getLogger("distributed.batched").setLevel(logging.WARNING)
    try:
        if not by_address and not Path(scheduler).exists():  # Dask would wait for it without end
            raise FileNotFoundError("no such file")
        place = {"address" if by_address else "scheduler_file": scheduler}
        found = Client(**place, set_as_default=False, timeout="30s")
        found.wait_for_workers(1, timeout=WORKERS_WITHIN)
    except (OSError, ValueError, TimeoutError) as error:
        if found is None:
            problem = f"no scheduler answers at {scheduler} ({error})"
        else:
            found.close()
            problem = f"the scheduler at {scheduler} has no worker"
        raise SetupError(
            f"run.dask.scheduler: {problem}; start `dask scheduler` and `dask worker` first, with the "
            "same Python, or leave run.dask out"
        ) from error
    return found


def _what(well: str, own: Callable[[str], Any] | None) -> tuple:
    """What a function is called with of a well, by place."""
    return (well,) if own is None else (well, own(well))


def _spread(
    dask: Any,
    function: Callable[..., T],
    job: Job,
    wells: Iterable[str],
    own: Callable[[str], Any] | None,
    given: dict,
) -> Iterator[T | Result]:
    """Keep a window of wells under way, so that a plate of any size needs the same memory."""

    def submit(well: str) -> Any:
        known = {well: job.known[well]} if well in job.known else {}
        alone = replace(job, project=project, known=known)
        return dask.submit(_attempt, function, alone, _what(well, own), given, pure=False)

    project = job.project.only(job.plate)  # not a thousand plates to each well
    watch, waiting, under_way = _Watch(dask, job), iter(wells), set()
    # not as_completed: it looks ten times a second, and can be left only by a result
    ended: SimpleQueue[Any] = SimpleQueue()
    failure: BaseException | None = None
    try:
        while True:
            window = 2 * max(1, watch.threads())
            for _, well in zip(range(window - len(under_way) if failure is None else 0), waiting):
                future = submit(well)
                under_way.add(future)
                future.add_done_callback(ended.put)
            if not under_way:
                break
            future = watch.first(ended)
            under_way.remove(future)
            try:
                made = watch.result(future)
            except _Lost:
                raise
            except Exception as error:
                failure = failure or error
            else:
                yield made
    except _Lost:
        if failure is None:  # else that came first, and is what to tell
            raise
    if failure is not None:
        raise failure


class _Lost(SetupError):
    """A running cluster is no more."""


class _Watch:
    """Waits for what a cluster computes, and looks at the cluster where nothing comes.

    Every method raises ``_Lost`` where a running cluster's scheduler went away or is silent, or its last
    worker did and no other joined in ``WORKERS_WITHIN`` seconds. A job's own workers are raised again
    by their nannies, and a well that ends too many of them is Dask's to report.
    """

    def __init__(self, dask: Any, job: Job):
        self.dask = dask
        self.running = job.config.run.dask and job.config.run.dask.scheduler
        self.count, self.looked = 0, -math.inf
        self.idle_since: float | None = None

    def threads(self) -> int:
        """How many wells are computed at once: workers of a cluster come and go."""
        # a broken connection's wells are lost, also if the client should find the scheduler again
        if self.running and self.dask.status != "running":
            raise self._gone()
        if time.monotonic() - self.looked > 1:
            self._look()
        return self.count

    def first(self, ended: "SimpleQueue[Any]") -> Any:
        """The first of the futures that have ended."""
        while True:
            with contextlib.suppress(Empty):
                return ended.get(timeout=LOOK_EVERY)
            self._look()

    def result(self, future: Any) -> Any:
        """What a well gave; it is computed again if its worker went before handing it over."""
        if future.status == "error":
            raise future.exception()
        coming = asyncio.run_coroutine_threadsafe(
            self.dask.gather(future, asynchronous=True), self.dask.loop.asyncio_loop
        )
        while not futures.wait([coming], timeout=LOOK_EVERY).done:
            self._look()
        try:
            return coming.result()
        except (OSError, futures.CancelledError) as error:
            if self.running and future.status != "error":  # else it is the well's own
                raise self._gone() from error
            raise

    def _look(self) -> None:
        try:
            asked = self.dask.scheduler.ncores
            within = ANSWERS_WITHIN if self.running else None
            self.count = sum(self.dask.sync(asked, callback_timeout=within).values())
        except OSError as error:
            if not self.running:
                raise
            hangs = isinstance(error, TimeoutError)
            how = f"has not answered for {within} s" if hangs else "went away in the middle"
            raise self._gone(how) from error
        self.looked = time.monotonic()
        if self.count or not self.running:
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = self.looked
            print(
                f"the cluster at {self.running} has no worker any more; waiting "
                f"{WORKERS_WITHIN} s for one",
                flush=True,
            )
        elif self.looked - self.idle_since > WORKERS_WITHIN:
            raise self._lost(
                f"the cluster at {self.running} lost its last worker in the middle, and none joined "
                f"in {WORKERS_WITHIN} s; start `dask worker`"
            )

    def _gone(self, why: str = "went away in the middle") -> _Lost:
        # with a stack it would say that closing the client ends its attempts to reconnect
        logging.getLogger("distributed.client").disabled = True
        return self._lost(
            f"the scheduler at {self.running} {why}; start `dask scheduler` and `dask worker`"
        )

    def _lost(self, problem: str) -> _Lost:
        return _Lost(
            f"run.dask.scheduler: {problem} again and give the same command again; finished wells "
            "are kept"
        )


def _attempt(function: Callable[..., T], job: Job, what: tuple, given: dict) -> T | Result:
    try:
        made = function(job, *what, **given)
        # what readers of network stages hand back (crops) is no result yet
        return made.sign(job.plate_dir) if isinstance(made, Result) else made
    except DataError as error:
        return Result(what[0], quarantine=str(error), stored={})
