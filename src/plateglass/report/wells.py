"""The tables that reports read, and wells under the names that the charts use."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from plateglass import tables
from plateglass.config import Config
from plateglass.store.places import row_number, split

FIGURES = {  # what the charts call a figure of a well: its column
    "count": "Metadata_Count_Cells",
    "margin": "Metadata_Margin",
    "gradcamo": "Metadata_GradCAMO",
    "enrichment": "Metadata_Enrichment",
    "reliance": "Metadata_Reliance",
}
UNLABELLED = "not labelled"
FEWEST_DOSES = 3


def read(path: Path, *wanted: str) -> pd.DataFrame | None:
    """The columns of a table that ``wanted`` names (``Metadata_*``: all that begin so); all if none.

    None where there is no such table: a report says so and goes on.
    """
    if not path.exists():
        return None
    if not wanted:
        return tables.read(path)
    starts = tuple(name[:-1] for name in wanted if name.endswith("*"))
    names = pq.read_schema(path).names
    return tables.read(path, [n for n in names if n in wanted or (starts and n.startswith(starts))])


@dataclass(frozen=True)
class Dose:
    """Which column tells the dose, the doses in rising order as text, and their unit."""

    column: str
    steps: tuple[str, ...]
    unit: str


def wells(
    table: pd.DataFrame, sites: pd.DataFrame, config: Config
) -> tuple[pd.DataFrame, Dose | None]:
    """The wells of one or more plates, a row each, in the plates' order.

    Returns
    -------
    Columns plate, well, row and column (from 0), label; those of FIGURES and ``focus`` that are
    known; compound, dose (text) and dose_rank where the platemap tells them. And the dose.
    """
    well = table["Metadata_Well"].astype(str)
    found = pd.DataFrame({"plate": table["Metadata_Plate"].astype(str), "well": well})
    found["row"] = [row_number(split(name)[0]) for name in well]
    found["column"] = [int(split(name)[1]) - 1 for name in well]
    label = platemap_column(table, config.platemap.label)
    found["label"] = UNLABELLED if label is None else label.replace("", UNLABELLED)
    for name, column in FIGURES.items():
        if column in table and table[column].notna().any():
            found[name] = table[column].astype(float)
    focus = focus_column(config)
    if focus in sites:
        of_well = sites.groupby(["Metadata_Plate", "Metadata_Well"])[focus].median()
        found = found.join(of_well.rename("focus"), on=["plate", "well"])
    compound = platemap_column(table, "compound")
    if compound is not None:
        found["compound"] = compound
    dose = _dose(table, found, config)
    return found.sort_values(["plate", "row", "column"], ignore_index=True), dose


def focus_column(config: Config) -> str:
    """Focus is read in the channel in which nuclei are found."""
    return f"Focus_{config.segment.nuclei.channel}"


def platemap_name(column: str) -> str:
    """What aggregate calls a platemap's column."""
    return "Metadata_" + re.sub(r"\W+", "_", column.strip()).strip("_")


def platemap_column(table: pd.DataFrame, column: str) -> pd.Series | None:
    """A platemap's column as text, missing as ''; None where there is none."""
    name = platemap_name(column)
    if name not in table:
        return None
    values = table[name]
    return values.astype(object).where(values.notna(), "").astype(str)


def _dose(table: pd.DataFrame, found: pd.DataFrame, config: Config) -> Dose | None:
    """Add ``dose`` and ``dose_rank`` to ``found`` where the platemap has enough doses."""
    wanted = (config.report.dose,) if config.report.dose else ("dose_level", "dose")
    for column in wanted:
        text = platemap_column(table, column)
        if text is None:
            continue
        values = pd.to_numeric(text, errors="coerce")
        if values.nunique() < FEWEST_DOSES:
            continue
        steps = np.sort(values.dropna().unique())
        names = [f"{value:g}" for value in steps]
        found["dose"] = values.map(dict(zip(steps, names)))
        found["dose_rank"] = values.map({value: rank for rank, value in enumerate(steps)})
        return Dose(column, tuple(names), _unit(table, column))
    return None


def _unit(table: pd.DataFrame, column: str) -> str:
    if column == "dose_level":
        return "level"
    units = platemap_column(table, f"{column}_unit")
    named = set() if units is None else set(units) - {""}
    return named.pop() if len(named) == 1 else ""
