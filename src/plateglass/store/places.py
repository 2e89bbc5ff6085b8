"""Where things lie in a plate.zarr, and what of them is on the disk. Standard library only."""

import json
import os
import re
import shutil
from pathlib import Path

from plateglass.errors import DamageError

_WELL = re.compile(r"([A-Z]{1,2})0*([1-9][0-9]?)")


def split(well: str) -> tuple[str, str]:
    """Row and column folder of a well: `A01` → (`A`, `1`)."""
    match = _WELL.fullmatch(well)
    if match is None:
        raise ValueError(f"{well!r} is no well name; write it like 'A01'")
    return match[1], match[2]


def well_dir(root: Path, well: str) -> Path:
    """`root/A/1`."""
    row, column = split(well)
    return Path(root) / row / column


def field_dir(root: Path, well: str, field: int) -> Path:
    """`root/A/1/0`."""
    return well_dir(root, well) / str(field)


def label_dir(root: Path, well: str, field: int, name: str) -> Path:
    """`root/A/1/0/labels/cells`."""
    return field_dir(root, well, field) / "labels" / name


def attributes(group: Path) -> dict:
    """The attributes of a group; DamageError where its zarr.json is missing or torn."""
    try:
        return json.loads((group / "zarr.json").read_text())["attributes"]
    except FileNotFoundError:
        raise DamageError(group / "zarr.json", "is missing") from None
    except (ValueError, KeyError) as error:
        raise DamageError(group / "zarr.json", f"cannot be read ({error})") from error


def row_number(row: str) -> int:
    """`A` → 0, `Z` → 25, `AA` → 26, `AF` → 31."""
    number = 0
    for letter in row:
        number = number * 26 + ord(letter) - 64
    return number - 1


def wells(root: Path) -> list[str]:
    """Wells on the disk (whatever the plate's metadata say), by row, then column."""
    found = []
    for row in _folders(Path(root)):
        if re.fullmatch(r"[A-Z]{1,2}", row):
            found += [
                (row_number(row), int(column), f"{row}{int(column):02d}")
                for column in _folders(Path(root) / row)
                if column.isdecimal()
            ]
    return [well for _, _, well in sorted(found)]


def sites(root: Path, well: str) -> list[int]:
    """The source's site number of each field, in the order of the fields."""
    return [int(site) for site in attributes(well_dir(root, well))["plateglass"]["sites"]]


def content(root: Path, well: str, field: int) -> str | None:
    """Key of the pixels that a field was written from; None where there is no whole field."""
    try:
        return attributes(field_dir(root, well, field))["plateglass"]["content"]
    except (DamageError, KeyError):
        return None


def sizes(root: Path, well: str, labels: bool = False) -> dict[str, int]:
    """Bytes of every file of the well's images, or of its labels, by path from `root`.

    An image group's own zarr.json holds the plate's display windows and changes with other wells:
    it counts as 0, so that its presence is noted and its text is not. A well without files: {}.
    """
    root = Path(root)
    row, column = split(well)
    found: dict[str, int] = {}
    try:
        with os.scandir(root / row / column) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = f"{row}/{column}/{entry.name}"
                if entry.is_file():
                    if not labels:
                        found[path] = entry.stat().st_size
                elif entry.name.isdecimal() and labels:
                    _walk(f"{entry.path}/labels", f"{path}/labels", found)
                elif entry.name.isdecimal():
                    _walk(entry.path, path, found, skip="labels")
                    if f"{path}/zarr.json" in found:
                        found[f"{path}/zarr.json"] = 0
    except FileNotFoundError:
        return {}
    return found


def files_of(root: Path, well: str, labels: bool = False) -> list[Path]:
    """Paths of `sizes`."""
    return [Path(root) / path for path in sizes(root, well, labels)]


def remove_well(root: Path, well: str) -> None:
    """Delete a well: renamed first, so that a kill leaves none by half. No well: nothing.

    Its row stays, as another worker may be writing into it; see `remove_empty_rows`.
    """
    folder = well_dir(root, well)
    if folder.exists():
        discard(folder)


def remove_empty_rows(root: Path) -> None:
    """Delete rows without a well; for the job's own process, when no worker writes."""
    for row in _folders(root):
        if not any(not name.startswith(".") for name in _folders(root / row)):
            shutil.rmtree(root / row)


def discard(folder: Path) -> None:
    """Rename a folder to a dotted sibling and delete it."""
    gone = folder.with_name(f".gone-{folder.name}-{os.getpid()}")
    folder.rename(gone)
    shutil.rmtree(gone)


def sweep(folder: Path) -> None:
    """Delete what a killed worker left half-written or half-deleted in a folder."""
    for name in _folders(folder):
        if name.startswith((".new-", ".gone-")):
            shutil.rmtree(folder / name, ignore_errors=True)


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []


def _walk(folder: str, path: str, found: dict[str, int], skip: str | None = None) -> None:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name == skip or entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            _walk(entry.path, f"{path}/{entry.name}", found)
        else:
            found[f"{path}/{entry.name}"] = entry.stat().st_size
