"""What lies in a plate's folder, and whether it can be trusted: asked by the plan and by ingest."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from plateglass.errors import PlateglassError
from plateglass.layouts import Listing, NothingThere, listing
from plateglass.ledger import Ledger, fingerprint
from plateglass.project import Project
from plateglass.reasons import some


@dataclass(frozen=True)
class Raw:
    """Signature and bytes of each well's files; ``doubt`` says why nothing may be dropped by them.

    ``listing`` is what they were told by; None where they are told as they were. ``there``: how many of
    each well's files are. ``kept``: wells without (all) their images that ``run.missing_raw: keep``
    tells as they were. ``ignored``: the first images there that the layout does not take.
    """

    wells: dict[str, str]
    bytes: dict[str, int] = field(default_factory=dict)
    doubt: str | None = None
    listing: Listing | None = None
    ignored: tuple[str, ...] = ()
    kept: frozenset[str] = frozenset()
    there: dict[str, int] = field(default_factory=dict)


def signatures(found: Listing) -> dict[str, str]:
    """Well → fingerprint of its files' names, sizes and times; no path, so a move is no change."""
    # of 17,280 files at each start: repr takes a third of the time that JSON takes
    return {
        well: hashlib.blake2b(repr(sorted(files)).encode(), digest_size=12).hexdigest()
        for well, files in found.wells.items()
    }


def listed(wells: dict[str, str]) -> str:
    """Digest of the signatures of a plate's wells."""
    return fingerprint(sorted(wells.items()))


def scan(
    project: Project, plate: str, settled: Callable[[dict[str, str]], bool] = lambda wells: False
) -> Raw:
    """Look into a plate's folder.

    A plate that was ingested before and has lost its folder, or most of its wells, is doubted: its
    wells are told as they were. ``run.missing_raw: keep`` takes that for intended (what is gone is told
    as it was, the rest as it is), and ``run.accept_removed`` that the wells are gone. ``settled`` says
    of the wells' signatures that ingest finished with exactly these: then nothing is gone, and the
    ledger need not be read.

    Raises
    ------
    PlateglassError
        A plate never seen before, or the settings of ingest are new and there are images: the mistake
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
        away = isinstance(error, NothingThere)
        if known and keep and away:
            return Raw(known, kept=frozenset(known))
        if known and (as_before or away):
            way = ", or set run.missing_raw: keep to go on with what was made of it" if away else ""
            stop = "" if str(error).endswith("?") else "."
            return Raw(known, doubt=f"{error}{stop} Nothing was touched; mend that{way}")
        raise
    now = signatures(found)
    sizes = {well: sum(size for _, size, *_ in files) for well, files in found.wells.items()}
    # a LoadData table may name images that are not there
    there = {well: sum(size >= 0 for _, size, *_ in of) for well, of in found.wells.items()}
    raw = Raw(now, sizes, listing=found, ignored=tuple(found.ignored), there=there)
    if settled(now):
        return raw
    ledger = project.ledger("ingest", plate)
    known, computed = _known(ledger), ledger.computed().keys()
    gone = {well for well in ledger if not there.get(well)}
    if keep:
        # also where some of a well's files are left
        gone |= {
            well
            for well in ledger.keys() & now.keys()
            if now[well] != known[well] and there[well] < ledger[well].get("images", 0)
        }
        kept = {well: known[well] for well in gone}
        for well in gone & found.wells.keys():
            found.drop(well)
        return replace(raw, wells=now | kept, kept=frozenset(kept))
    gone &= computed
    if 2 * len(gone) > len(computed) and plate not in run.accept_removed:
        doubt = (
            f"plate {plate}: {len(gone)} of {len(computed)} known wells have no image in {folder}; "
            "nothing was touched. Mend the folder, or set run.missing_raw: keep, or "
            f"run.accept_removed: [{plate}]"
        )
        return Raw(known, doubt=doubt)
    return raw


def unreadable(plate: str, found: Raw, reasons: dict[str, str]) -> str | None:
    """Why wells cannot be ingested, if some that are to be were kept without their images."""
    if not (gone := sorted(found.kept & reasons.keys())):
        return None
    drop = f"run.missing_raw: refuse, and run.accept_removed: [{plate}]"
    if found.kept == found.wells.keys():
        drop = "take the plate out of the sheet"
    return (
        f"plate {plate}: {some(gone)} must be read again ({reasons[gone[0]]}), but the images are "
        "gone; nothing was touched. Bring them back, or take the change back; or drop what is gone: "
        f"{drop}"
    )


def _known(ledger: Ledger) -> dict[str, str]:
    """Signature of each well's files as ingest saw them."""
    return {well: entry["parts"]["in"] for well, entry in ledger.items()}
