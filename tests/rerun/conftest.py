"""Finished tiny screens for all tests of the rerun rule; each test edits a copy."""

import pytest

from screen import Screen


@pytest.fixture(scope="session")
def finished(once):
    def run(folder):
        screen = Screen(folder)
        screen.run()
        return screen

    return once("finished", run)


@pytest.fixture
def screen(finished, tmp_path):
    return finished.copy(tmp_path / "screen")


@pytest.fixture
def untrained(once, tmp_path):
    """A finished screen without networks."""

    def run(folder):
        screen = Screen(folder, train=False)
        screen.ran = screen.run()
        return screen

    return once("untrained", run).copy(tmp_path / "screen")
