"""Plates that know their answers: the demo, and the tests' ground truth.

Everything of a plate follows from its `PlateSpec`: names, sizes and times of its files without
drawing one (so that a plan made before rendering holds after it), and the pixels of a site from
(seed, plate, well, site) alone, whatever the order or the process.

This module is light (standard library only), for the plan reads it. The drawing is in `fields`,
channel suites for DCMIX in `planted`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path

from plateglass.errors import UserError

# Raised by hand when the same specification draws other pixels. It is told by the files' fixed time,
# so that files of an older version are known, and drawn anew.
VERSION = 2
NEW_YEAR, DAY = 1_577_836_800 * 10**9, 86_400 * 10**9  # 2020-01-01, in ns
MTIME_NS = NEW_YEAR + VERSION * DAY

PATTERN = r".+_(?P<well>[A-Z]{1,2}\d{2})_s(?P<site>\d+)_(?P<channel>[A-Za-z0-9-]+)\.tif"
PLATEMAP_COLUMNS = ("well", "role", "compound", "dose_level")


@dataclass(frozen=True)
class WellSpec:
    """What was done to a well; `response` is the nuclear share of the marker, 0 to 1."""

    role: str
    compound: str
    dose_level: int
    response: float


@dataclass(frozen=True)
class PlateSpec:
    """A synthetic plate.

    Attributes
    ----------
    wells: what each well (``A01``) got.
    sites: fields a well, numbered from 1.
    channels: some of ``DNA``, ``Actin``, ``Marker``, in any order. Only `Marker` tells the class.
    size: side of a field, pixels.
    cells: nuclei a site, on average.
    decoy: debris between the cells follows the class; else it varies from well to well by chance.
    """

    name: str
    wells: dict[str, WellSpec] = field(hash=False)
    seed: int = 0
    sites: int = 1
    channels: tuple[str, ...] = ("DNA", "Actin", "Marker")
    size: int = 384
    cells: int = 30
    pixel_size_um: float = 0.65
    decoy: bool = False


NEGATIVE = WellSpec("negative_control", "vehicle", 0, 0.18)
POSITIVE = WellSpec("positive_control", "reference", 5, 0.82)
DOSES = tuple(
    WellSpec("treatment", "translocin", level, share)
    for level, share in enumerate((0.24, 0.40, 0.60, 0.76), start=1)
)


def _demo_wells(mirrored: bool) -> dict[str, WellSpec]:
    """Four rows of six: two columns of negatives, two of rising doses, two of positives."""
    wells = {}
    for row, letter in enumerate("ABCD"):
        kinds = [NEGATIVE, NEGATIVE, DOSES[row], DOSES[row], POSITIVE, POSITIVE]
        for column, kind in enumerate(reversed(kinds) if mirrored else kinds, start=1):
            wells[f"{letter}{column:02d}"] = kind
    return wells


# demo_2 is never trained on: the layout is mirrored and its debris is independent of the class, so
# a network that learnt the plate's edge or the background fails there.
DEMO = {
    "demo_1": PlateSpec("demo_1", _demo_wells(mirrored=False), seed=1, decoy=True),
    "demo_2": PlateSpec("demo_2", _demo_wells(mirrored=True), seed=2, decoy=False),
}


def demo(name: str) -> PlateSpec:
    """The demo plate of that name; `UserError` tells the names there are."""
    if name not in DEMO:
        raise UserError(
            f"plate {name!r} has `layout: demo`, but the demo plates are {', '.join(DEMO)}: "
            "use one of these names, or another layout"
        )
    return DEMO[name]


def tiny(name: str = "tiny", **changes) -> PlateSpec:
    """A plate for tests: 3 negative and 3 positive wells, one site of 160 pixels, few cells."""
    wells = {f"A{c:02d}": NEGATIVE if c <= 3 else POSITIVE for c in range(1, 7)}
    return replace(PlateSpec(name, wells, size=160, cells=7), **changes)


def file_name(spec: PlateSpec, well: str, site: int, channel: str) -> str:
    """``demo_1_A01_s1_Marker.tif``; `PATTERN` takes it apart."""
    return f"{spec.name}_{well}_s{site}_{channel}.tif"


def listing(spec: PlateSpec) -> dict[str, list[tuple[str, int, int]]]:
    """Well → (name, bytes, mtime_ns) of each of its files, told without drawing one."""
    size = len(_tiff_header(spec.size, spec.size)) + 2 * spec.size**2
    return {
        well: sorted(
            (file_name(spec, well, site, channel), size, MTIME_NS)
            for site in range(1, spec.sites + 1)
            for channel in spec.channels
        )
        for well in spec.wells
    }


def platemap(spec: PlateSpec) -> str:
    """The plate map as the text of a CSV file."""
    rows = [
        f"{well},{w.role},{w.compound},{w.dose_level}" for well, w in sorted(spec.wells.items())
    ]
    return "\n".join([",".join(PLATEMAP_COLUMNS), *rows]) + "\n"


def render(name: str, directory: Path) -> list[Path]:
    """Render what is missing of the demo plate `name`; see `render_plate`."""
    return render_plate(demo(name), directory)


def render_plate(spec: PlateSpec, directory: Path) -> list[Path]:
    """Write the plate's files that are due, and `platemap.csv`; returns what was written.

    A file that someone edited or touched is left as it is. Each appears under its name only when
    complete.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for well in spec.wells:
        for site in range(1, spec.sites + 1):
            paths = {c: directory / file_name(spec, well, site, c) for c in spec.channels}
            wanted = {c: path for c, path in paths.items() if is_due(path)}
            if wanted:
                image = render_site(spec, well, site).image
                for channel, path in wanted.items():
                    plane = image[spec.channels.index(channel), 0]
                    _write(path, _tiff_header(*plane.shape) + plane.astype("<u2").tobytes())
                    written.append(path)
    if is_due(directory / "platemap.csv"):
        _write(directory / "platemap.csv", platemap(spec).encode())
        written.append(directory / "platemap.csv")
    return written


def is_due(path: Path) -> bool:
    """Whether a file is to be rendered: it is not there, or an older version left it untouched."""
    try:
        age = MTIME_NS - path.stat().st_mtime_ns
    except FileNotFoundError:
        return True
    return age % DAY == 0 and 0 < age < VERSION * DAY


def render_site(spec: PlateSpec, well: str, site: int, response: float | None = None):
    """Draw one site with its truth: `plateglass.synthetic.fields.Site`.

    `response` replaces the well's: the same cells, debris and noise after another treatment.
    """
    from plateglass.synthetic import fields

    return fields.draw(spec, well, site, response)


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    os.utime(partial, ns=(MTIME_NS, MTIME_NS))
    partial.replace(path)


def _tiff_header(height: int, width: int) -> bytes:
    """Header of an uncompressed 16-bit grey TIFF of one strip, the pixels follow.

    Written by hand, because the file's size has to be known without the file: a library may add a
    tag in its next version.
    """
    short, long = 3, 4
    tags = [
        (256, long, width),
        (257, long, height),
        (258, short, 16),
        (259, short, 1),  # no compression
        (262, short, 1),  # black is zero
        (273, long, 0),  # where the strip starts: set below
        (277, short, 1),
        (278, long, height),
        (279, long, 2 * height * width),
    ]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = [
        struct.pack("<HHII", tag, kind, 1, start if tag == 273 else value)
        for tag, kind, value in tags
    ]
    head = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags))
    return head + b"".join(entries) + struct.pack("<I", 0)
