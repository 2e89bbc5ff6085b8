"""Layout `demo`: plates that the workflow renders itself (`plateglass.synthetic`).

The index is the specification's, overlaid with what lies on the disk: it is the same before the
files are rendered and after, and an edited file shows.
"""

from typing import TYPE_CHECKING

from plateglass import synthetic
from plateglass.layouts import Listing, mark_of, matches
from plateglass.layouts.pattern import index

if TYPE_CHECKING:
    from plateglass.config import Config
    from plateglass.plates import Plate


def listing(plate: "Plate", config: "Config") -> Listing:
    """Index of a demo plate, whether it is rendered yet or not.

    Raises UserError where there is no demo plate of that name, or it lacks a channel of the
    settings.
    """
    spec = synthetic.demo(plate.name)
    mark = mark_of(config)

    def state(name: str, told: tuple[int, int]) -> tuple:
        if synthetic.is_due(plate.path / name):
            return told
        stat = (plate.path / name).stat()
        # A file as specified is told as specified, also where settings look at more than that.
        return told if (stat.st_size, stat.st_mtime_ns) == told else mark(stat)

    size = (spec.pixel_size_um,)  # as loaddata's: what another layout would not tell of these files
    files = (
        (name, lambda name=name, told=tuple(told): state(name, told) + size)
        for well in synthetic.listing(spec).values()
        for name, *told in well
    )
    found = index(files, synthetic.PATTERN, matches(config), f"demo plate {plate.name}", plate.path)
    found.pixel_size_um = spec.pixel_size_um
    return found


def missing(plate: "Plate") -> list[str]:
    """Names of the plate's files that are to be rendered (`synthetic.is_due`)."""
    told = synthetic.listing(synthetic.demo(plate.name)).values()
    return [name for well in told for name, *_ in well if synthetic.is_due(plate.path / name)]


def render(plate: "Plate") -> None:
    """Render what is missing of the plate; what is there is left as it is."""
    synthetic.render(plate.name, plate.path)
