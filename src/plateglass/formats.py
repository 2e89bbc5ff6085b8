"""The usual format of a plate's images: by it ingest tells a file that does not belong to them.

It is what most of some wells' images are like. A plan, which opens no image, cannot know it, and a well
that did not change may be judged otherwise once it has turned: so jobs note it, and how often it turned.
"""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from plateglass.errors import DataError
from plateglass.files import write_atomically
from plateglass.layouts import Format, Listing
from plateglass.project import Project
from plateglass.raw import Raw

SAMPLED = 25  # wells of which one image is looked at

Votes = dict[str, tuple[str, Format]]  # well → signature of its files, and what one of them is like


@dataclass(frozen=True)
class Note:
    """What jobs know of a plate: its usual format, how often that has turned, and who said so.

    ``made_by`` is `Project.own` of the ingest that asked: by other settings other files are a well's.
    """

    usual: Format | None = None
    turns: int = 0
    votes: Votes = field(default_factory=dict)
    made_by: dict[str, Any] = field(default_factory=dict)


def noted(project: Project, plate: str) -> Note:
    """What the last ingest of a plate noted; an empty note where there is none, or a torn one."""
    try:
        found = json.loads(_path(project, plate).read_bytes())
        votes = {well: (signed, _format(of)) for well, (signed, of) in found["votes"].items()}
        return Note(_format(found["usual"]), found["turns"], votes, found["made_by"])
    except (FileNotFoundError, AttributeError, KeyError, TypeError, ValueError):
        return Note()


def judge(project: Project, plate: str, found: Raw) -> tuple[Format, str | None]:
    """The usual format of what was ``found`` of a plate, noted; and what to tell the user if it turned.

    That is where networks learn from wells that are judged by it: the plan left them out.

    Raises
    ------
    SetupError
        A file is gone since it was listed.
    """
    if found.listing is None:
        raise ValueError("nothing was listed")
    note, own = noted(project, plate), project.own("ingest")
    votes = ask(found.listing, found.wells, note.votes if note.made_by == own else None)
    usual = usual_format(votes)
    lines = project.ledger("ingest", plate).values()
    before = str(note.usual) if note.usual else next((e["parts"].get("usual") for e in lines), None)
    turned = before not in (None, str(usual))
    new = Note(usual, note.turns + turned, votes, own)
    if new != note:
        write_atomically(_path(project, plate), json.dumps(asdict(new)))
    if not turned or not project.trains or plate not in project.training_plates():
        return usual, None
    return usual, (
        f"plate {plate}: most wells that were looked at have images of {usual} now, of {before} before; "
        "training wells are judged by it: give the same command again for what is made of them"
    )


def ask(found: Listing, wells: dict[str, str], known: Votes | None = None) -> Votes:
    """Some wells and what one image of each is like, by its header.

    ``wells``: well → signature of its files; of one that stands among the ``known`` with the same, no
    file is opened, so that wells kept without their images (``run.missing_raw: keep``) have their say. They
    are chosen by a hash of their names, so that a well more or less moves one vote at most; a file
    that cannot be read has none, and where none of them can, the other wells are asked in turn.
    SetupError where a file is gone since it was listed.
    """
    votes: Votes = {}
    by_hash = sorted(wells, key=lambda well: hashlib.blake2b(well.encode()).digest())
    for count, well in enumerate(by_hash):
        if count >= SAMPLED and votes:
            break
        before = (known or {}).get(well)
        if before and before[0] == wells[well]:
            votes[well] = before
        elif well in found.wells and (like := _look(found, well)):
            votes[well] = wells[well], like
    return votes


def usual_format(votes: Votes) -> Format:
    """What most votes say, the first of them where two formats have as many.

    ``pages`` is the number of z planes, in the file or by name; ``pixel_size_um`` is the first that a
    header tells.
    """
    counts = Counter((like.shape, like.dtype, like.pages) for _, like in votes.values())
    if not counts:
        return Format((0, 0), "unreadable", 0)
    sizes = (like.pixel_size_um for _, like in votes.values() if like.pixel_size_um)
    return Format(*counts.most_common(1)[0][0], pixel_size_um=next(sizes, None))


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
    return Format(
        header.shape, header.dtype, levels if by_name else header.pages, header.pixel_size_um
    )


def _format(found: dict[str, Any]) -> Format:
    return Format(**found | {"shape": tuple(found["shape"])})


def _path(project: Project, plate: str) -> Path:
    return project.state / "formats" / f"{plate}.json"
