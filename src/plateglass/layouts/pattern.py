"""Layout `pattern`: a regular expression takes the files' names apart."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plateglass.errors import UserError
from plateglass.layouts import Listing, NothingThere, mark_of, matches, well_of

if TYPE_CHECKING:
    from plateglass.config import Config
    from plateglass.plates import Plate

GROUPS = ("well", "row", "column", "site", "channel", "z")
IMAGES = (".tif", ".tiff", ".TIF", ".TIFF")
LOOKED_AT = 10_000  # files in subfolders, for an image to name in a message
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
    walk = _deep(plate.path, "") if "/" in config.ingest.pattern else _flat(plate.path)
    try:
        return index(
            walk, config.ingest.pattern, matches(config), where, plate.path, mark_of(config)
        )
    except OSError as error:
        raise NothingThere(
            f"{where}: cannot be read: {error.strerror}; is the path in the sheet of plates right "
            "and the share mounted?"
        ) from error


def index(
    files: Iterable[tuple[str, Callable[[], Any]]],
    pattern: str,
    channels: dict[str, str],
    where: str,
    folder: Path,
    mark: Callable[[Any], tuple] = tuple,
) -> Listing:
    """Index of named files; also of files that are not there yet (the demo's).

    files: name (or path from the folder, with `/`) and a function that gives its state, asked only
    of files that are taken; mark makes of it what enters the rerun key (bytes, mtime_ns).
    channels: what the group `channel` holds → the channel's name; other channels' files are left
    out. where: start of messages.

    Raises
    ------
    UserError
        No regular expression, wrong groups, nothing matches (``NothingThere`` if there is no image), a
        value that is no well, site or z, a channel without a file, two files for one plane.
    """
    take = _compile(pattern, where)
    at = take.groupindex
    # One tuple of groups a file, whatever the order in the pattern; 0 is the whole name, a dummy.
    wanted = [at.get(name, 0) for name in GROUPS]
    by_well, has_site, has_z = "well" in at, "site" in at, "z" in at
    found, seen, example = Listing(folder), 0, ""
    names: dict[str | tuple[str, str], str] = {}  # as written → A01
    numbers: dict[str | None, int] = {None: 1}  # an optional group that took no part
    others: set[str] = set()
    fullmatch = take.fullmatch
    for file, state in files:
        seen += 1
        match = fullmatch(file)
        if match is None:
            example = example if example.endswith(IMAGES) else file
            if len(found.ignored) < 3 and file.endswith(IMAGES):
                found.ignored.append(file)
            continue
        well, row, column, site, channel, z = match.group(*wanted)
        others.add(channel)
        if channel not in channels:
            continue
        written = well if by_well else (row, column)
        try:
            if written not in names:
                names[written] = well_of(written)
            for number in (site := site if has_site else None, z := z if has_z else None):
                if number not in numbers:
                    numbers[number] = int(number)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{where}: {file}: {_explain(error, match)}") from None
        place = (numbers[site], channels[channel], numbers[z])
        found.add(where, names[written], place, file, None, (file, *mark(state())))
    if not others:
        error = UserError if example.endswith(IMAGES) else NothingThere
        raise error(f"{where}: {_why_none(pattern, seen, example, folder)}")
    found.require(where, list(channels.values()), others)
    return found


def _compile(pattern: str, where: str) -> re.Pattern:
    try:
        take = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"{where}: ingest.pattern '{pattern}' is no regular expression: {error}"
        ) from error
    groups = set(take.groupindex)
    if unknown := groups - set(GROUPS):
        raise UserError(
            f"{where}: ingest.pattern has the group {', '.join(sorted(unknown))}; known are "
            f"{', '.join(GROUPS)}. Write what is not needed as (?:…)"
        )
    if "channel" not in groups or not ("well" in groups or {"row", "column"} <= groups):
        raise UserError(
            f"{where}: ingest.pattern '{pattern}' needs the groups channel, and well or row and "
            f"column, written as (?P<well>…); an example: '{EXAMPLE}'"
        )
    return take


def _why_none(pattern: str, seen: int, example: str, folder: Path) -> str:
    """Why no file matches; a second look into the folder, which only this mistake costs."""
    if not seen and _is_empty(folder):
        return "the folder is empty: is the share mounted?"
    told = f"ingest.pattern '{pattern}' matches none of {seen} files"
    shown = f", for example {example}" if example else ""
    if "/" in pattern:
        return f"{told}{shown}; the whole path below the plate's folder must match"
    if not example.endswith(IMAGES) and (below := _image_below(folder)):
        return (
            f"{told} in the folder itself; there are images in subfolders, for example {below}: write "
            "a pattern with a '/', which is matched against the path below the plate's folder, so "
            f"that it begins with e.g. '{below.partition('/')[0]}/'"
        )
    return f"{told}{shown}; the whole name must match, as '{EXAMPLE}' does A01_s1_w1.tif"


def _is_empty(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return all(entry.name.startswith(".") for entry in entries)


def _image_below(folder: Path) -> str | None:
    """The first image in the subfolders, of so many files as take no time to go through."""
    try:
        files = (name for name, _ in islice(_deep(folder, ""), LOOKED_AT))
        return next((name for name in files if name.endswith(IMAGES)), None)
    except OSError:  # the folder itself could be read; a subfolder that cannot is not what is wrong
        return None


def _explain(error: Exception, match: re.Match) -> str:
    if "is no well" in str(error):
        return str(error)
    groups = {name: text for name, text in match.groupdict().items() if name != "channel"}
    return f"site and z must be whole numbers, the pattern found {groups}"


def _flat(folder: Path) -> Iterator[tuple[str, Callable[[], os.stat_result]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name[0] != "." and not entry.is_dir():
                yield entry.name, entry.stat


def _deep(folder: Path | str, prefix: str) -> Iterator[tuple[str, Callable[[], os.stat_result]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _deep(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry.stat
