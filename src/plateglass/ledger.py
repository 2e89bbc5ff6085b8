"""What was done: one JSON-lines file per (plate, stage), appended as each well finishes.

Only the job's own process writes it, and Snakemake never hears of it, so neither a kill nor a failed
job can take it away.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from plateglass.files import write_atomically

WHOLE = ""  # stands for the well in the one line of a stage of a whole plate
DAMAGED = "stored result is damaged"  # why a well is done again
_text = json.JSONEncoder(sort_keys=True, default=str).encode  # made once: a plan asks by the well


def fingerprint(*parts: Any) -> str:
    """Key of anything JSON can hold; the order of dictionaries plays no part."""
    return hashlib.blake2b(_text(parts).encode(), digest_size=12).hexdigest()


class Ledger(dict[str, dict[str, Any]]):
    """Well → ``{parts, key, files, quarantine}``.

    ``parts`` is what the well was made from (``code``, ``params``, ``in`` …), ``key`` names its
    result for the stages after, ``files`` maps what it left (relative to the plate's results) to
    ``[bytes, digest]``, ``quarantine`` is the reason where nothing could be computed. Tables and
    reports have one line, of `WHOLE`, without parts.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            lines = []
        for line in lines:
            try:
                entry = _entry(line)
            except ValueError:  # the torn last line of a killed job, or a damaged one: of its well
                continue  # no result is known then, and it is computed again
            self._take(entry)

    def add(self, well: str, **entry: Any) -> None:
        """Append a well's line; ``gone=True`` takes the well out."""
        entry = {"well": well, **entry}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            torn = file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
            file.write((b"\n" if torn else b"") + _line(entry))
        self._take(entry)

    def compact(self) -> None:
        """Rewrite with one line a well, in the wells' order."""
        lines = (_line({"well": well, **self[well]}) for well in sorted(self))
        write_atomically(self.path, b"".join(lines))

    def computed(self) -> dict[str, dict[str, Any]]:
        """The wells that have a result: all but the quarantined ones."""
        return {well: entry for well, entry in self.items() if not entry.get("quarantine")}

    def quarantined(self) -> set[str]:
        """The wells that have none."""
        return self.keys() - self.computed().keys()

    def output(self) -> str | None:
        """Digest of what came out, as the stages after see it; None where nothing did."""
        if WHOLE in self:
            return self[WHOLE]["key"]
        return fingerprint({well: told(entry) for well, entry in self.items()}) if self else None

    def _take(self, entry: dict[str, Any]) -> None:
        well = entry.pop("well")
        if entry.get("gone"):
            self.pop(well, None)
        else:
            self[well] = entry


def _line(entry: dict[str, Any]) -> bytes:
    """A line, whose last entry is a checksum of the rest: one flipped digit would be JSON too."""
    text = json.dumps(entry).encode()
    return text[:-1] + b', "crc": "%08x"}\n' % zlib.crc32(text)


def _entry(line: bytes) -> Any:
    """What `_line` wrote, without its end; ValueError where that is not what stands there."""
    text, _, crc = line.rpartition(b', "crc": "')
    if crc != b'%08x"}' % zlib.crc32(text + b"}"):
        raise ValueError("not as written")
    return json.loads(text + b"}")


def told(entry: dict[str, Any]) -> list[Any]:
    """What of a well's line tells how it came out."""
    return [entry.get(name) for name in ("key", "quarantine", "left_out")]


def todo(
    ledger: Ledger,
    wants: dict[str, dict[str, Any]],
    damaged: Iterable[str] = (),
    settings: str = "parameters changed",
) -> dict[str, str]:
    """Wells to do and why; ``removed`` for wells the ledger knows and nobody wants.

    ``settings`` is the reason of wells that were made with others, for whoever can name them.

    The one rule by which a well is stale, used by the plan and by the job.
    """
    names = {
        "in": "input changed",
        "usual": "most wells that were looked at have images of another format now",
        "code": "the stage's code changed",
        "params": settings,
        "model": "the model changed",
        "units": "plate units changed",
        "controls": "its role changed",
    }
    reasons = {}
    for well, parts in wants.items():
        entry = ledger.get(well)
        if entry is None:
            reasons[well] = "new"
        elif entry["parts"] != parts:
            changed = [k for k in names if entry["parts"].get(k) != parts.get(k)]
            reasons[well] = (
                ", ".join(names[k] for k in changed) or "of another version of plateglass"
            )
    reasons |= {well: DAMAGED for well in damaged if well in wants}
    reasons |= {well: "removed" for well in ledger.keys() - wants.keys()}
    return reasons
