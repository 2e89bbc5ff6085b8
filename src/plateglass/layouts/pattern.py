"""Layout `pattern`: a regular expression takes the files' names apart."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from plateglass.errors import UserError
from plateglass.layouts import Listing, mark_of, matches, well_of

if TYPE_CHECKING:
    from plateglass.config import Config
    from plateglass.plates import Plate

GROUPS = ("well", "row", "column", "site", "channel", "z")
IMAGES = (".tif", ".tiff", ".TIF", ".TIFF")
EXAMPLE = r"(?P<well>[A-P]\d\d)_s(?P<site>\d+)_w(?P<channel>\d)\.tif"


def listing(plate: "Plate", config: "Config") -> Listing:
    """Index of the files in the plate's folder whose whole name `ingest.pattern` matches.

    A pattern with `/` is matched against the path from the plate's folder, and all folders in it
    are walked. Raises UserError as `index` does, and where the folder cannot be read.
    """
    where = f"plate {plate.name}: {plate.path}"
    if config.ingest.pattern is None:
        raise UserError(
            f"plate {plate.name} has `layout: pattern`, but ingest.pattern is not set; "
            f"write one such as  pattern: '{EXAMPLE}'"
        )
    mark = mark_of(config)
    walk = _deep(plate.path, "") if "/" in config.ingest.pattern else _flat(plate.path)
    files = ((name, lambda entry=entry: mark(entry.stat())) for name, entry in walk)
    try:
        return index(files, config.ingest.pattern, matches(config), where, plate.path)
    except OSError as error:
        raise UserError(
            f"{where}: cannot be read: {error.strerror}; is the path in the sheet of plates right "
            "and the share mounted?"
        ) from error


def index(
    files: Iterable[tuple[str, Callable[[], tuple]]],
    pattern: str,
    channels: dict[str, str],
    where: str,
    folder: Path,
) -> Listing:
    """Index of named files; also of files that are not there yet (the demo's).

    files: name (or path from the folder, with `/`) and a function that gives what stands for the
    file's state (bytes, mtime_ns), asked only of files that are taken. channels: what the group
    `channel` holds → the channel's name; other channels' files are left out. where: start of
    messages.

    Raises
    ------
    UserError
        No regular expression, wrong groups, nothing matches, a value that is no well, site or z, a
        channel without a file, two files for one plane.
    """
    take = _compile(pattern, where)
    groups = take.groupindex
    well_at, row_at, column_at = (groups.get(name) for name in ("well", "row", "column"))
    site_at, channel_at, z_at = (groups.get(name) for name in ("site", "channel", "z"))
    found, ignored, seen, example = Listing(folder), 0, 0, ""
    names: dict[str | tuple[str, str], str] = {}  # as written → A01
    numbers: dict[str | None, int] = {None: 1}  # an optional group that took no part
    others: set[str] = set()
    fullmatch = take.fullmatch
    for file, state in files:
        seen += 1
        match = fullmatch(file)
        if match is None:
            example = example if example.endswith(IMAGES) else file
            if file.endswith(IMAGES):
                ignored += 1
                if ignored <= 3:
                    found.ignored.append(file)
            continue
        try:
            channel = channels.get(match[channel_at])
            others.add(match[channel_at])
            if channel is None:
                continue
            written = match[well_at] if well_at else (match[row_at], match[column_at])
            if (well := names.get(written)) is None:
                well = names[written] = well_of(written)
            site = z = 1
            if site_at and (site := numbers.get(match[site_at])) is None:
                site = numbers[match[site_at]] = int(match[site_at])
            if z_at and (z := numbers.get(match[z_at])) is None:
                z = numbers[match[z_at]] = int(match[z_at])
        except (ValueError, TypeError) as error:
            raise UserError(f"{where}: {file}: {_explain(error, match)}") from None
        found.add(where, (well, site, channel, z), file, None, (file, *state()))
    if not others:
        shown = f", for example {example}" if example else ""
        raise UserError(
            f"{where}: ingest.pattern {pattern!r} matches none of {seen} files{shown}; the whole "
            f"name must match, as {EXAMPLE!r} does A01_s1_w1.tif"
        )
    found.require(where, list(channels.values()), others)
    return found


def _compile(pattern: str, where: str) -> re.Pattern:
    try:
        take = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"{where}: ingest.pattern {pattern!r} is no regular expression: {error}"
        ) from error
    groups = set(take.groupindex)
    if unknown := groups - set(GROUPS):
        raise UserError(
            f"{where}: ingest.pattern has the group {', '.join(sorted(unknown))}; known are "
            f"{', '.join(GROUPS)}. Write what is not needed as (?:…)"
        )
    if "channel" not in groups or not ("well" in groups or {"row", "column"} <= groups):
        raise UserError(
            f"{where}: ingest.pattern {pattern!r} needs the groups channel, and well or row and "
            f"column, written as (?P<well>…); an example: {EXAMPLE!r}"
        )
    return take


def _explain(error: Exception, match: re.Match) -> str:
    if "is no well" in str(error):
        return str(error)
    groups = {name: text for name, text in match.groupdict().items() if name != "channel"}
    return f"site and z must be whole numbers, the pattern found {groups}"


def _flat(folder: Path) -> Iterator[tuple[str, os.DirEntry]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and not entry.is_dir():
                yield entry.name, entry


def _deep(folder: Path | str, prefix: str) -> Iterator[tuple[str, os.DirEntry]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _deep(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry
