"""What tests of the rerun rule edit."""

import pytest

from screen import Screen


@pytest.fixture
def screen(finished, tmp_path):
    """A finished screen."""
    return finished.copy(tmp_path / "screen")


@pytest.fixture
def untrained(once, tmp_path):
    """A finished screen without networks."""

    def run(folder):
        screen = Screen(folder, train=False)
        screen.ran = screen.run()
        return screen

    return once("untrained", run).copy(tmp_path / "screen")
