"""A screen invented once for all tests of reports, and a real browser to open it."""

import pytest

from plateglass.stages import report
from plateglass.wells import Job
from report import invented

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--no-proxy-server",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def screen(once) -> Job:
    """Two plates with a model and a label that is a script; their reports are written."""
    return once("invented", invented.whole)


@pytest.fixture(scope="session")
def bare(tmp_path_factory) -> Job:
    """One plate without a model; its reports are written."""
    job = invented.make(tmp_path_factory.mktemp("bare"), model=False, names=("P1",))
    report.run_plate(job.of("P1"))
    report.run_screen(job)
    return job


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as run:
        try:
            browser = run.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        except playwright.Error as error:
            pytest.skip(f"no Chromium at {CHROMIUM}: {str(error).splitlines()[0]}")
        yield browser
        browser.close()
