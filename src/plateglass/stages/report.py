"""report: one page a plate and one for the screen, each a file that opens offline."""

import json

from plateglass.files import write_atomically
from plateglass.report import plate, screen
from plateglass.wells import Job


def run_plate(job: Job) -> None:
    """Write ``report.html`` of a plate from its files and screen/model."""
    write_atomically(job.plate_dir / "report.html", plate.build(job))


def run_screen(job: Job) -> None:
    """Write ``report.html`` of the screen, and the few figures that the terminal shows at the end."""
    html, figures = screen.build(job)
    write_atomically(job.plate_dir / "report.html", html)
    write_atomically(job.state / "summary.json", json.dumps(figures, ensure_ascii=False))
