"""Fixtures of all tests: where real images are, if any. And what their summary tells."""

import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from plateglass.cli import ONE_THREAD

# As the command line does for its jobs, before anything imports torch; pytest's processes inherit it.
# With a thread for each core in each of them, two cores took several times as long.
os.environ |= ONE_THREAD


def pytest_addoption(parser):
    parser.addoption(
        "--real-data",
        default=None,
        help="folder with real images; tests of them are skipped without",
    )


# files that take longest: processes end together where these are begun first; of those at the front one
# makes the finished screen, and nobody waits for it
LONGEST = (
    "test_workflow",
    "test_chain",
    "test_kills",
    "test_damage",
    "test_gone",
    "test_odd_plates",
    "test_changes",
)
# of cases that are new in each run (tests/fuzz); processes of pytest's own inherit it
SEED = os.environ.setdefault("PLATEGLASS_FUZZ_SEED", str(random.SystemRandom().randrange(10**6)))
COLLECTED = pytest.StashKey[set[str]]()


@pytest.hookimpl(tryfirst=True)  # before those that this run leaves out are gone
def pytest_collection_modifyitems(config, items):
    config.stash[COLLECTED] = {item.nodeid for item in items}
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker("real")
    place = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_terminal_summary(terminalreporter):
    """Here, since where processes of their own run the tests, nobody sees what those print."""
    ran = [r for how in ("passed", "failed") for r in terminalreporter.getreports(how)]
    if any("/fuzz/" in report.nodeid for report in ran):
        terminalreporter.write_line(
            f"fuzz: seed {SEED} where many cases were tried (PLATEGLASS_FUZZ_SEED={SEED} repeats "
            "them), 0 where few"
        )


@pytest.fixture(scope="session")
def collected(request) -> set[str]:
    """Names of all tests in the files that this run looked into, also of those it left out."""
    return request.config.stash[COLLECTED]


@pytest.fixture(scope="session")
def once(request, tmp_path_factory) -> Callable:
    """``once(name, make)``: what ``make(folder)`` returns, made by one of pytest's processes for all.

    Each gets a copy of the object; its folder is the same, and nobody changes it.
    """
    here = tmp_path_factory.getbasetemp()
    shared = here.parent if hasattr(request.config, "workerinput") else here

    def made(name, make):
        kept = shared / f"{name}.pickle"
        with FileLock(shared / f"{name}.lock"):
            if not kept.exists():
                shutil.rmtree(shared / name, ignore_errors=True)  # of one that failed or was killed
                whole = pickle.dumps(make(shared / name))
                kept.with_suffix(".part").write_bytes(whole)
                kept.with_suffix(".part").replace(kept)
        return pickle.loads(kept.read_bytes())

    return made


@pytest.fixture(scope="session")
def finished(once):
    """A tiny screen that was run stage by stage in one process; tests edit copies of it."""
    from screen import Screen

    def run(folder):
        screen = Screen(folder)
        screen.run()
        return screen

    return once("finished", run)


@pytest.fixture(scope="session")
def real_data(request) -> Path:
    folder = request.config.getoption("--real-data")
    if folder is None:
        pytest.skip("needs --real-data DIR")
    return Path(folder)
