"""Fixtures of all tests: where real images are, if any."""

from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--real-data",
        default=None,
        help="folder with real images; tests of them are skipped without",
    )


COLLECTED = pytest.StashKey[set[str]]()


@pytest.hookimpl(tryfirst=True)  # before those that this run leaves out are gone
def pytest_collection_modifyitems(config, items):
    config.stash[COLLECTED] = {item.nodeid for item in items}
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker("real")


@pytest.fixture(scope="session")
def collected(request) -> set[str]:
    """Names of all tests in the files that this run looked into, also of those it left out."""
    return request.config.stash[COLLECTED]


@pytest.fixture(scope="session")
def real_data(request) -> Path:
    folder = request.config.getoption("--real-data")
    if folder is None:
        pytest.skip("needs --real-data DIR")
    return Path(folder)
