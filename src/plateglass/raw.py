"""What lies in a plate's folder, and whether it can be trusted: asked by the plan and by ingest."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from plateglass.errors import PlateglassError
from plateglass.layouts import Listing, listing
from plateglass.ledger import Ledger
from plateglass.project import Project


@dataclass(frozen=True)
class Raw:
    """Signature and bytes of each well's files; ``doubt`` says why nothing may be dropped by them.

    ``listing`` is what they were told by; None where they are told as they were. ``kept``: wells
    without images that ``run.missing_raw: keep`` tells as they were. ``ignored``: the first images
    there that the layout does not take.
    """

    wells: dict[str, str]
    bytes: dict[str, int] = field(default_factory=dict)
    doubt: str | None = None
    listing: Listing | None = None
    ignored: tuple[str, ...] = ()
    kept: frozenset[str] = frozenset()


def signatures(found: Listing) -> dict[str, str]:
    """Well → fingerprint of its files' names, sizes and times; no path, so a move is no change."""
    # of 17,280 files at each start: repr takes a third of the time that JSON takes
    return {
        well: hashlib.blake2b(repr(sorted(files)).encode(), digest_size=12).hexdigest()
        for well, files in found.wells.items()
    }


def scan(
    project: Project, plate: str, settled: Callable[[dict[str, str]], bool] = lambda wells: False
) -> Raw:
    """Look into a plate's folder.

    A plate that was ingested before and has lost its folder, or most of its wells, is doubted: its
    wells are told as they were. ``run.missing_raw: keep`` takes that for intended (what is gone is told
    as it was, the rest as it is), and
    ``run.accept_removed`` that the wells are gone. ``settled`` says of the wells' signatures that
    ingest finished with exactly these: then nothing is gone, and the ledger need not be read.

    Raises
    ------
    PlateglassError
        A plate never seen before, or the settings of ingest are new and there are files: the mistake
        is in the settings.
    """
    run, folder = project.config.run, project.plate(plate).path
    keep = run.missing_raw == "keep"
    try:
        found = listing(project.plate(plate), project.config)
    except PlateglassError as error:
        ledger = project.ledger("ingest", plate)
        known = _known(ledger)
        own = project.own("ingest")["params"]
        as_before = any(entry["parts"]["params"] == own for entry in ledger.values())
        if known and (keep or as_before or _away(folder)):
            if keep:
                return Raw(known, kept=frozenset(known))
            return Raw(known, doubt=str(error))
        raise
    now = signatures(found)
    sizes = {well: sum(size for _, size, *_ in files) for well, files in found.wells.items()}
    if settled(now):
        return Raw(now, sizes, listing=found, ignored=tuple(found.ignored))
    ledger = project.ledger("ingest", plate)
    known = _known(ledger)
    # a LoadData table may name images that are not there
    there = {well for well, of in found.wells.items() if any(size >= 0 for _, size, *_ in of)}
    gone = ledger.computed().keys() - there
    if gone and keep:
        kept = {well: known[well] for well in gone}
        for well in gone & found.wells.keys():  # which a table names still
            del found.wells[well]
        ignored = tuple(found.ignored)
        return Raw(now | kept, sizes, listing=found, ignored=ignored, kept=frozenset(kept))
    many = len(ledger.computed())
    if 2 * len(gone) > many and plate not in run.accept_removed:
        doubt = (
            f"plate {plate}: {len(gone)} of {many} known wells have no image in {folder}; "
            "nothing was touched. Mend the folder, or set run.missing_raw: keep, or "
            f"run.accept_removed: [{plate}]"
        )
        return Raw(known, doubt=doubt)
    return Raw(now, sizes, listing=found, ignored=tuple(found.ignored))


def unreadable(plate: str, kept: Iterable[str], wells: Iterable[str]) -> str | None:
    """Why these wells cannot be ingested, if some of them were ``kept`` without their images."""
    if not (gone := sorted(set(kept) & set(wells))):
        return None
    return (
        f"plate {plate}: {', '.join(gone[:6])} must be read again (ingest's settings changed, or what was "
        "stored is damaged), but the images are gone; nothing was touched. Bring them back, or take the "
        "change back; or drop what is gone: run.missing_raw: refuse, and run.accept_removed: "
        f"[{plate}]"
    )


def _away(folder: Path) -> bool:
    """Whether a plate's folder (or LoadData table) is out of reach, or holds no image any more."""
    files = (file for _, _, names in os.walk(folder) for file in names)
    return not (folder.is_file() or any(file.lower().endswith((".tif", ".tiff")) for file in files))


def _known(ledger: Ledger) -> dict[str, str]:
    """Signature of each well's files as ingest saw them."""
    return {well: entry["parts"]["in"] for well, entry in ledger.items()}
