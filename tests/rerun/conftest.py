"""One finished tiny screen for all tests of the rerun rule; each test edits a copy."""

import pytest

from screen import Screen


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    screen = Screen(tmp_path_factory.mktemp("finished"))
    screen.run()
    return screen


@pytest.fixture
def screen(finished, tmp_path):
    return finished.copy(tmp_path / "screen")
