"""The usual format of a plate's images: by it ingest tells a file that does not belong to them.

It is what most of some wells' images are like. A plan, which opens no image, cannot know it, and a well
that did not change may be judged otherwise once it has turned.
"""

import contextlib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from plateglass.errors import DataError
from plateglass.layouts import Format, Listing
from plateglass.ledger import Ledger

if TYPE_CHECKING:
    from plateglass.project import Project
    from plateglass.raw import Raw

SAMPLED = 25  # wells of which one image is looked at


def judge(project: "Project", found: "Raw", ledger: Ledger) -> Format:
    """The usual format of what was ``found`` of a plate. SetupError as `ask`."""
    known = _known(project.own("ingest"), found, ledger)
    usual = usual_format(ask(found.listing, found.wells, known))
    if project.config.ingest.pixel_size_um or found.listing.pixel_size_um:
        usual = replace(usual, pixel_size_um=None)  # no matter what headers say
    return usual


def ask(found: Listing, wells: Collection[str], known: dict[str, Format]) -> dict[str, Format]:
    """Some of the wells, and what one image of each is like: as ``known``, else by its header.

    They are chosen by a hash of their names, so that a well more or less moves one vote at most; a file
    that cannot be read has none, and where none of them can, the other wells are asked in turn. A well
    that is not ``found`` (kept without its images) and not known has no say. SetupError where a file is
    gone since it was listed.
    """
    votes: dict[str, Format] = {}
    there = [well for well in wells if well in known or well in found.wells]
    there.sort(key=lambda well: hashlib.blake2b(well.encode()).digest())
    for count, well in enumerate(there):
        if count >= SAMPLED and votes:
            break
        if told := known.get(well) or like(found, well):
            votes[well] = told
    return votes


def usual_format(votes: dict[str, Format]) -> Format:
    """What most votes say, the first of them where two formats have as many.

    ``pages`` is the number of z planes, in the file or by name; ``pixel_size_um`` is what most of those
    say that agree in the rest: None if they do not tell.
    """
    by_pixels: dict[Format, Counter] = defaultdict(Counter)
    for like in votes.values():
        by_pixels[replace(like, pixel_size_um=None)][like.pixel_size_um] += 1
    if not by_pixels:
        return Format((0, 0), "unreadable", 0)
    usual, sizes = max(by_pixels.items(), key=lambda item: item[1].total())
    return replace(usual, pixel_size_um=sizes.most_common(1)[0][0])


def _known(own: dict[str, Any], found: "Raw", ledger: Ledger) -> dict[str, Format]:
    """What wells' images are like that ingest looked at as they are now."""
    known = {}
    for well, entry in ledger.items():
        if {**own, "in": found.wells.get(well)}.items() <= entry["parts"].items():
            with contextlib.suppress(KeyError, ValueError):  # not told, or in other words
                known[well] = Format.read(entry["like"])
    return known


def like(found: Listing, well: str) -> Format | None:
    """What the well's first image is like; None where it cannot be read."""
    from plateglass.layouts import tiff  # a plan, which reads notes, does without

    planes = found.planes(well)
    first = planes[0]
    try:
        header = tiff.header(found.folder / first.file)
    except DataError:
        found.still_there(well)
        return None
    levels = sum(plane[1:3] == first[1:3] for plane in planes)  # of that site and channel
    by_name = first.page is not None or levels > 1
    size = header.pixel_size_um and float(f"{header.pixel_size_um:.6g}")  # as in words
    return replace(header, pages=levels if by_name else header.pages, pixel_size_um=size)
