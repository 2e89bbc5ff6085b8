"""Layout `loaddata`: the CSV of CellProfiler's LoadData module, a row a site.

Columns as in the CellProfiler manual (LoadData): `FileName_<Channel>`, `PathName_<Channel>` (here
relative to the CSV's folder), `Frame_<Channel>` (page of the file, from 0), `Metadata_Well` or
`Metadata_Row` and `Metadata_Col`, `Metadata_Site`, `Metadata_Plate`. `Metadata_ImageResolutionX` is
pe2loaddata's pixel size in metres.
"""

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING

from plateglass.errors import UserError
from plateglass.layouts import Listing, NothingThere, mark_of, matches, well_of

if TYPE_CHECKING:
    from plateglass.config import Config
    from plateglass.plates import Plate

DEFAULT = "load_data.csv"


def listing(plate: "Plate", config: "Config") -> Listing:
    """Index of the files that a LoadData CSV names.

    The plate's path is the CSV, or a folder with `ingest.loaddata` (`load_data.csv`) in it. A file
    that the CSV names and that is not there is listed with -1 bytes: its site is quarantined.

    Raises
    ------
    UserError
        The CSV cannot be read or lacks a column; none of its rows or files is there; a path leads
        out of the plate's folder (unless `ingest.loaddata_outside`); a plane stands twice.
    """
    table = _table(plate, config)
    folder = plate.path if plate.path.is_dir() else table.parent
    base = os.path.relpath(table.parent, folder)
    where = f"plate {plate.name}: {table}"
    rows, columns = _rows(table, where)
    channels = matches(config)
    named = {name.removeprefix("FileName_") for name in columns if name.startswith("FileName_")}
    if unknown := [match for match in channels if match not in named]:
        raise UserError(
            f"{where}: no column FileName_{unknown[0]}; its channels are "
            f"{', '.join(sorted(named)) or 'none'}: write one as `match` under `channels`"
        )
    if "Metadata_Well" not in columns and not {"Metadata_Row", "Metadata_Col"} <= columns.keys():
        raise UserError(f"{where}: no column Metadata_Well, nor Metadata_Row and Metadata_Col")
    rows = _of_plate(rows, columns, plate.name, where)
    mark = mark_of(config)
    found = Listing(folder)
    size_at = columns.get("Metadata_ImageResolutionX", len(columns))
    sizes = (_pixel_size(row[size_at].strip()) for _, row in rows if size_at < len(row))
    found.pixel_size_um = next(filter(None, sizes), None)  # the plate's, so it stands in every mark
    states: dict[str, tuple] = {}
    wanted = {"Metadata_Well", "Metadata_Row", "Metadata_Col", "Metadata_Site"}
    wanted |= {
        f"{kind}_{match}" for kind in ("FileName", "PathName", "Frame") for match in channels
    }
    columns = {name: at for name, at in columns.items() if name in wanted}
    for line, row in rows:
        cell = {name: row[at].strip() for name, at in columns.items() if at < len(row)}
        at = f"{where}, line {line}"
        try:
            well = well_of(
                cell.get("Metadata_Well") or (cell["Metadata_Row"], cell["Metadata_Col"])
            )
            site = int(cell.get("Metadata_Site") or 1)
        except (ValueError, KeyError) as error:
            raise UserError(f"{at}: well or site: {error}") from None
        for match, channel in channels.items():
            name = cell.get(f"FileName_{match}")
            if not name:
                continue  # this site lacks the channel: ingest quarantines it
            path = _path(cell.get(f"PathName_{match}", ""), name, base, folder, config, at)
            frame = cell.get(f"Frame_{match}")
            try:
                page = int(frame) if frame else None
            except ValueError:
                raise UserError(f"{at}: Frame_{match} is {frame!r}, no page's number") from None
            if path not in states:
                states[path] = _state(folder / path, mark, at)
            # Sorted with others of its kind: numbers and text only.
            size = found.pixel_size_um or 0
            state = (path, *states[path], site, channel, -1 if page is None else page, size)
            found.add(where, well, (site, channel, page or 0), path, page, state)
    if not states or all(state == (-1, 0) for state in states.values()):
        example = next(iter(states), "none")
        raise NothingThere(
            f"{where}: none of the {len(states)} files it names is there, for example {example}; "
            "PathName columns are read relative to the CSV's folder"
        )
    found.require(where, list(channels.values()), named)
    return found


def _table(plate: "Plate", config: "Config") -> Path:
    if plate.path.is_dir():
        return plate.path / (config.ingest.loaddata or DEFAULT)
    return plate.path


def _rows(table: Path, where: str) -> tuple[list[tuple[int, list[str]]], dict[str, int]]:
    """(line, cells) of the table and the place of each column."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = {name.strip(): at for at, name in enumerate(next(reader, []))}
            rows = [(reader.line_num, row) for row in reader if any(row)]
    except OSError as error:
        raise NothingThere(
            f"{where}: cannot be read: {error.strerror}; the sheet's path is the CSV, or a folder "
            f"with ingest.loaddata ({DEFAULT}) in it"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: holds characters that are not UTF-8: save it as CSV UTF-8"
        ) from error
    except csv.Error as error:
        raise UserError(f"{where}: is no CSV: {error}") from error
    if not rows:
        raise UserError(f"{where}: has no rows")
    return rows, columns


def _of_plate(rows: list, columns: dict[str, int], plate: str, where: str) -> list:
    """The rows of this plate, where the table holds several."""
    at = columns.get("Metadata_Plate")
    if at is None:
        return rows
    plates = {row[at].strip() for _, row in rows if at < len(row)}
    if len(plates) < 2:
        return rows
    if plate not in plates:
        raise UserError(
            f"{where}: Metadata_Plate has {', '.join(sorted(plates))}, but not {plate}: name the "
            "plate so in the sheet of plates"
        )
    return [(line, row) for line, row in rows if at < len(row) and row[at].strip() == plate]


def _path(
    folder_of_file: str, name: str, base: str, folder: Path, config: "Config", at: str
) -> str:
    """Path from the plate's folder; absolute only for files outside it that the settings allow."""
    folder_of_file = folder_of_file.replace("\\", "/")
    given = os.path.normpath(os.path.join(base, folder_of_file, name))  # noqa: PTH118
    if os.path.isabs(given):  # noqa: PTH117
        inside = os.path.relpath(given, folder)
        given = given if inside.startswith("..") else inside
    if (given.startswith("..") or os.path.isabs(given)) and not config.ingest.loaddata_outside:  # noqa: PTH117
        raise UserError(
            f"{at}: {given} lies outside the plate's folder {folder}; write PathName relative to "
            "the CSV, or set ingest.loaddata_outside: true"
        )
    return given


def _state(path: Path, mark, at: str) -> tuple:
    try:
        return mark(path.stat())
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a name that no file can have
        return (-1, 0)
    except OSError as error:
        raise UserError(f"{at}: {path}: cannot be read: {error.strerror}") from error


def _pixel_size(text: str | None) -> float | None:
    """Metres, as pe2loaddata writes them, to micrometres; other magnitudes say nothing."""
    try:
        size = float(text or "nan") * 1e6
    except ValueError:
        return None
    return size if 0.01 < size < 100 else None
