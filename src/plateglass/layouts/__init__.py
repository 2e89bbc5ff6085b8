"""From a microscope's files to an index of planes, one module per kind of export.

A layout reads names (or an index file) and opens no image: the plan asks it at every start, so it
costs one walk over the folder and imports the standard library only. `tiff` reads the planes.
"""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plateglass.errors import SetupError, UserError

if TYPE_CHECKING:
    from plateglass.config import Config
    from plateglass.plates import Plate


class NothingThere(UserError):
    """No image of the plate is in reach: no mistake in the settings, as other errors of a listing are."""


@dataclass(frozen=True)
class Format:
    """What a file holds: pages of `shape` (y, x) and `dtype`; pixel_size_um where it says so."""

    shape: tuple[int, int]
    dtype: str
    pages: int
    pixel_size_um: float | None = None

    def __str__(self) -> str:
        pages = "1 plane" if self.pages == 1 else f"{self.pages} planes"
        size = f", {self.pixel_size_um:.6g} µm a pixel" if self.pixel_size_um else ""
        return f"{self.shape[0]} × {self.shape[1]} {self.dtype}, {pages}{size}"

    @classmethod
    def read(cls, words: str) -> "Format":
        """The format that `str` put in words; ValueError for other words."""
        pixels, pages, *size = words.split(", ")
        y, _, x, dtype = pixels.split()
        count, _ = pages.split()
        told = float(size[0].partition(" ")[0]) if size else None
        return cls((int(y), int(x)), dtype, int(count), told)


class Plane(NamedTuple):
    """One channel of one site in a file: of `file` the page `page`, or all pages (z) if None.

    channel is the name in the settings; z orders the planes of a site's channel; file is relative
    to `Listing.folder` (absolute where the settings allow files outside it).
    """

    well: str
    site: int
    channel: str
    z: int
    file: str
    page: int | None = None


@dataclass
class Listing:
    """What a plate has on the disk.

    Attributes
    ----------
    folder: the plate's folder.
    wells: well → what stands for its files in the rerun key: file, bytes, mtime_ns, and what else
        decides what is read from them. No absolute path, so that a moved plate is unchanged.
    pixel_size_um: as the index file says it, if it does.
    ignored: names of image files that the layout does not take (the first few).
    """

    folder: Path
    wells: dict[str, list[tuple]] = field(default_factory=dict)
    pixel_size_um: float | None = None
    ignored: list[str] = field(default_factory=list)
    _planes: dict[str, dict[tuple[int, str, int], tuple[str, int | None]]] = field(
        default_factory=dict, repr=False
    )

    def planes(self, well: str) -> list[Plane]:
        """Planes of a well by site, channel and z."""
        return [
            Plane(well, site, channel, z, file, page)
            for (site, channel, z), (file, page) in sorted(self._planes[well].items())
        ]

    def add(
        self,
        where: str,
        well: str,
        place: tuple[int, str, int],
        file: str,
        page: int | None,
        mark: tuple,
    ) -> None:
        """Take a plane in. place: site, channel, z. A second one in a place: UserError."""
        planes = self._planes.get(well)
        if planes is None:
            planes = self._planes[well] = {}
            self.wells[well] = []
        elif place in planes:
            site, channel, z = place
            raise UserError(
                f"{where}: two files for well {well}, site {site}, channel {channel}, z {z}: "
                f"{planes[place][0]} and {file}; move one of them away, or tell them apart by "
                "another group"
            )
        planes[place] = (file, page)
        self.wells[well].append(mark)

    def only(self, well: str) -> "Listing":
        """The same of one well: what its worker is given."""
        planes = {well: self._planes[well]}
        return replace(self, wells={well: self.wells[well]}, ignored=[], _planes=planes)

    def drop(self, well: str) -> None:
        """Take a well out."""
        del self.wells[well], self._planes[well]

    def still_there(self, well: str) -> None:
        """SetupError where a file that was listed is not there any more.

        Before an image is judged: a share that drops out in the middle says nothing of those on it.
        """
        for file, size, *_ in self.wells[well]:
            if size >= 0 and not (self.folder / file).exists():
                raise SetupError(_gone(self.folder / file))

    def require(self, where: str, channels: list[str], found: set[str]) -> None:
        """UserError where a channel of the settings has no file at all."""
        there = {channel for planes in self._planes.values() for _, channel, _ in planes}
        if missing := [channel for channel in channels if channel not in there]:
            raise UserError(
                f"{where}: no image of channel {', '.join(missing)}; the files' channels are "
                f"{', '.join(sorted(found))}: write one of them as `match` under `channels`"
            )


def listing(plate: "Plate", config: "Config") -> Listing:
    """Index of a plate's files by its layout.

    Raises
    ------
    UserError
        The folder cannot be read, the settings do not fit the files, a plane stands twice.
    """
    return import_module(f"plateglass.layouts.{plate.layout}").listing(plate, config)


def _gone(path: Path) -> str:
    return (
        f"{path} was there when the job began and is not now: was the folder moved, or its share "
        "unmounted? Bring it back and give the same command again; nothing was dropped"
    )


@lru_cache(4096)
def well_of(written: str | tuple[str, str]) -> str:
    """`a1`, (`A`, `01`), (`1`, `1`) → `A01`; ValueError beyond AF48."""
    from plateglass.plates import well_name

    text = written
    if isinstance(written, tuple):
        row, column = written
        if row.isdecimal() and 0 < int(row) <= 32:
            row = chr(64 + int(row)) if int(row) <= 26 else f"A{chr(38 + int(row))}"
        text = row + column
    well = well_name(text)
    if well is None:
        raise ValueError(f"{written!r} is no well (A01 to AF48)")
    return well


def matches(config: "Config") -> dict[str, str]:
    """What the files call a channel → its name in the settings."""
    return {channel.match: name for name, channel in config.channels.items()}


def mark_of(config: "Config") -> Any:
    """Function from a stat result to what stands for a file's state in the rerun key."""
    if config.run.raw_check == "ctime":
        return lambda stat: (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return lambda stat: (stat.st_size, stat.st_mtime_ns)
