"""One finished tiny screen for all tests of the rerun rule; each test edits a copy."""

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
