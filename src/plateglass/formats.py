"""The usual format of a plate's images: by it ingest tells a file that does not belong to them.

It is what most of some wells' images are like. A plan, which opens no image, cannot know it, and a well
that did not change may be judged otherwise once it has turned: so jobs note it, and how often it turned.
"""

import contextlib
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plateglass.errors import DataError
from plateglass.files import write_atomically
from plateglass.layouts import Format, Listing
from plateglass.ledger import Ledger

if TYPE_CHECKING:
    from plateglass.project import Project
    from plateglass.raw import Raw

SAMPLED = 25  # wells of which one image is looked at


@dataclass(frozen=True)
class Note:
    """What jobs remember of a plate.

    ``usual``: its usual format in words, by the ingest of which ``made_by`` is `Project.own`.
    ``turns``: how often what is made of its wells changed, or may have, behind a plan's back.
    """

    usual: str | None = None
    made_by: dict[str, Any] = field(default_factory=dict)
    turns: int = 0


def noted(state: Path, plate: str) -> Note:
    """The note on a plate; an empty one where there is none, or a torn one."""
    try:
        return Note(**json.loads((state / "formats" / f"{plate}.json").read_bytes()))
    except (FileNotFoundError, TypeError, ValueError):
        return Note()


def count_turn(state: Path, plate: str) -> None:
    """Wells came out otherwise than a plan could know: by it networks are known to be stale."""
    note = noted(state, plate)
    _write(state, plate, replace(note, turns=note.turns + 1))


def judge(project: "Project", plate: str, found: "Raw", ledger: Ledger) -> tuple[Format, bool]:
    """The usual format of what was ``found`` of a plate, noted; and whether it turned, which is counted.

    Not where other settings made the difference, of which the plan knows. SetupError as `ask`.
    """
    own, note = project.own("ingest"), noted(project.state, plate)
    usual = usual_format(ask(found.listing, found.wells, _known(own, found, ledger)))
    if project.config.ingest.pixel_size_um or found.listing.pixel_size_um:
        usual = replace(usual, pixel_size_um=None)  # no matter what headers say
    parts = [entry["parts"] for entry in ledger.values()]
    before = {made["usual"] for made in parts if "usual" in made and own.items() <= made.items()}
    told = note.usual if note.made_by == own else None
    if told is not None and not before:  # the ledger is lost
        before = {told}
    turned = told != str(usual) and bool(before - {str(usual)})
    new = Note(str(usual), own, note.turns + turned)
    if new != note:
        _write(project.state, plate, new)
    return usual, turned


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
        if like := known.get(well) or _look(found, well):
            votes[well] = like
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
    """What wells' images are like that ingest made a result of as they are now.

    One with a site left out may have another first image than that, and is asked if it can be.
    """
    known = {}
    for well, entry in ledger.computed().items():
        as_now = {**own, "in": found.wells.get(well)}.items() <= entry["parts"].items()
        if as_now and (well in found.kept or not entry.get("left_out")):
            with contextlib.suppress(KeyError, ValueError):  # a line of before, or a flipped bit
                known[well] = Format.read(entry["parts"]["usual"])
    return known


def _look(found: Listing, well: str) -> Format | None:
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


def _write(state: Path, plate: str, note: Note) -> None:
    write_atomically(state / "formats" / f"{plate}.json", json.dumps(asdict(note)))
