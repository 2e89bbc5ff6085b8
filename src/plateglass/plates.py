"""The sheet of plates and their platemaps."""

import csv
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from plateglass.config import NAME, Config, absolute
from plateglass.errors import UserError

COLUMNS = ("plate", "path", "layout", "platemap", "train")
LAYOUTS = ("pattern", "loaddata", "demo")
_WELL = re.compile(r"([A-Z]|A[A-F])0*([1-9]\d?)")


@dataclass(frozen=True)
class Plate:
    """A row of the sheet: ``path`` holds the raw files, ``platemap`` says what is in which well."""

    name: str
    path: Path
    layout: str
    platemap: Path | None
    train: bool


@lru_cache(4096)
def well_name(text: str) -> str | None:
    """``A1``, ``a01`` → ``A01``; up to 1,536-well plates (``AF48``). None if it is no well."""
    match = _WELL.fullmatch(text.strip().upper())
    if match is None or int(match[2]) > 48:
        return None
    return f"{match[1]}{int(match[2]):02d}"


def well_order(well: str) -> tuple[int, str, int]:
    """Sort key: ``B01`` before ``AA01``, ``A02`` before ``A10``."""
    row = well.rstrip("0123456789")
    return len(row), row, int(well[len(row) :])


def read_sheet(config: Config) -> tuple[Plate, ...]:
    """Plates of ``config.plates`` in the sheet's order.

    Raises
    ------
    UserError
        Unreadable sheet, unknown or missing column, a name that is no file name or is taken
        twice (names that differ by case only count as one), an unknown layout.
    """
    sheet = config.plates
    rows, header = _rows(sheet)
    for column in ("plate", "path"):
        if column not in header:
            raise UserError(f"{sheet}: no column {column!r}; columns are {', '.join(COLUMNS)}")
    for column in header:
        if column not in COLUMNS:
            raise UserError(f"{sheet}: unknown column {column!r}; columns are {', '.join(COLUMNS)}")
    plates: list[Plate] = []
    taken: dict[str, int] = {}
    for line, row in rows:
        name = row["plate"]
        if not NAME.fullmatch(name) or name.lower() == "screen":
            raise UserError(
                f"{sheet}, line {line}: {name!r} cannot be a plate's name: "
                "use letters, digits, '_' and '-' ('screen' is taken)"
            )
        if (first := taken.setdefault(name.lower(), line)) != line:
            raise UserError(f"{sheet}, line {line}: plate {name!r} stands already in line {first}")
        layout = row.get("layout") or "pattern"
        if layout not in LAYOUTS:
            raise UserError(
                f"{sheet}, line {line}: layout {layout!r} is unknown; one of {', '.join(LAYOUTS)}"
            )
        plates.append(
            Plate(
                name,
                _plate_path(config, layout, name, row.get("path", ""), line),
                layout,
                _resolve(sheet, row["platemap"]) if row.get("platemap") else None,
                _yes(sheet, line, row.get("train", "")),
            )
        )
    if not plates:
        raise UserError(
            f"{sheet}: names no plate; add a line such as  P1,raw/P1,pattern,P1.csv,yes"
        )
    return tuple(plates)


def read_platemap(plate: Plate, config: Config) -> dict[str, dict[str, str]]:
    """Rows of a plate's platemap by well, each a dict of its columns without the well's.

    Raises
    ------
    UserError
        Missing well or label column, a row that is not as long as the header, a well that is none, a
        well that stands twice.
    """
    if plate.platemap is None:
        return {}
    wanted = config.platemap
    rows, header = _rows(plate.platemap, f"plate {plate.name}: ", whole=True)
    for key, column in (("well", wanted.well), ("label", wanted.label)):
        if column not in header:
            raise UserError(
                f"plate {plate.name}: {plate.platemap} has no column {column!r} "
                f"(platemap.{key}); it has {', '.join(header)}"
            )
    wells: dict[str, dict[str, str]] = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        well = well_name(row[wanted.well])
        if well is None:
            raise UserError(
                f"plate {plate.name}: {plate.platemap}, line {line}: {row[wanted.well]!r} "
                "is no well; write A01 … AF48"
            )
        if (first := lines.setdefault(well, line)) != line:
            raise UserError(
                f"plate {plate.name}: {plate.platemap}, line {line}: {well} stands already in line "
                f"{first}"
            )
        del row[wanted.well]
        wells[well] = row
    return wells


def _rows(
    path: Path, of: str = "", whole: bool = False
) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """(line number, row) pairs and the header of a CSV, stripped; blank lines are skipped.

    ``of`` begins the messages, where the path does not say whose file it is. ``whole``: a row that
    ends early is refused, else its last fields are empty.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            if header and (other := set(";\t") & set(header[0])):
                named = "tabs" if "\t" in other else "semicolons"
                raise UserError(f"{of}{path}: its columns are separated by {named}; use commas")
            rows = []
            for cells in reader:
                cells = [cell.strip() for cell in cells]
                if not any(cells):
                    continue
                where = f"{of}{path}, line {reader.line_num}"
                if len(cells) > len(header):
                    raise UserError(
                        f"{where}: {len(cells)} fields, but the header names {len(header)} columns"
                    )
                if whole and len(cells) < len(header):
                    raise UserError(
                        f"{where}: only {len(cells)} of the {len(header)} columns that the header "
                        "names; write the commas of empty fields too"
                    )
                cells += [""] * (len(header) - len(cells))
                rows.append((reader.line_num, dict(zip(header, cells, strict=True))))
    except OSError as error:
        raise UserError(f"{of}{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{of}{path}: holds characters that are not UTF-8: save it as CSV UTF-8"
        ) from error
    except csv.Error as error:
        raise UserError(f"{of}{path}: is no CSV: {error}") from error
    if len(set(header)) < len(header):
        raise UserError(f"{of}{path}: a column name stands twice in the header")
    return rows, header


def _resolve(sheet: Path, text: str) -> Path:
    return absolute(sheet.parent, Path(text), str(sheet))


def _plate_path(config: Config, layout: str, name: str, text: str, line: int) -> Path:
    if layout == "demo":  # rendered by the workflow itself
        return config.results / ".plateglass" / "demo" / name
    if not text:
        raise UserError(f"{config.plates}, line {line}: plate {name!r} has no path")
    return _resolve(config.plates, text)


def _yes(sheet: Path, line: int, text: str) -> bool:
    if text.lower() in ("yes", "true", "1"):
        return True
    if text.lower() in ("", "no", "false", "0"):
        return False
    raise UserError(f"{sheet}, line {line}: train is {text!r}; write yes or no")
