"""The tables that reports read, and a plate's wells as the charts want them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from plateglass import tables
from plateglass.config import Config
from plateglass.store.places import row_number, split

# What the charts call a figure of a well: the columns that may hold it, the first that is there.
FIGURES = {
    "count": ("Metadata_Count_Cells", "Count_Cells", "Metadata_Cells"),
    "margin": ("Metadata_Margin",),
    "gradcamo": ("Metadata_GradCAMO",),
    "enrichment": ("Metadata_Enrichment",),
    "reliance": ("Metadata_Reliance",),
}


def read(path: Path, *wanted: str) -> pd.DataFrame | None:
    """The columns of a table that ``wanted`` names (``Metadata_*``: all that begin so); all if none.

    None where there is no such table: a report says so and goes on.
    """
    if not path.exists():
        return None
    if not wanted:
        return tables.read(path)
    starts = tuple(c[:-1] for c in wanted if c.endswith("*"))
    names = pq.read_schema(path).names
    return tables.read(path, [n for n in names if n in wanted or (starts and n.startswith(starts))])


@dataclass(frozen=True)
class Dose:
    """Which column tells the dose, the doses in rising order as text, and their unit."""

    column: str
    steps: tuple[str, ...]
    unit: str


def wells(
    table: pd.DataFrame, sites: pd.DataFrame | None, config: Config
) -> tuple[pd.DataFrame, Dose | None]:
    """A plate's (or all plates') wells: one row a well, under the names that the charts use.

    Columns: plate, well, row, column (from 0), label; those of FIGURES and ``focus`` that are
    known; dose (text), dose_rank, compound where the platemap tells them.
    """
    found = pd.DataFrame(
        {
            "plate": table.get("Metadata_Plate", pd.Series("", index=table.index)).astype(str),
            "well": table["Metadata_Well"].astype(str),
        }
    )
    found["row"] = [row_number(split(well)[0]) for well in found["well"]]
    found["column"] = [int(split(well)[1]) - 1 for well in found["well"]]
    label = platemap_column(table, config.platemap.label)
    found["label"] = "" if label is None else label
    found["label"] = found["label"].replace("", "not labelled")
    for name, candidates in FIGURES.items():
        column = next((c for c in candidates if c in table), None)
        if column is not None and table[column].notna().any():
            found[name] = table[column].astype(float)
    if sites is not None:
        found = _of_sites(found, sites, config)
    compound = platemap_column(table, "compound")
    if compound is not None:
        found["compound"] = compound
    dose = _dose(table, found, config)
    found = found.sort_values(["plate", "row", "column"], ignore_index=True)
    return found, dose


def focus_column(config: Config) -> str:
    """Focus is read in the channel in which nuclei are found."""
    return f"Focus_{config.segment.nuclei.channel}"


def positive(config: Config, model: dict[str, Any] | None) -> str | None:
    """The class whose margin is Metadata_Margin."""
    return (model or {}).get("positive") or config.positive


def _of_sites(found: pd.DataFrame, sites: pd.DataFrame, config: Config) -> pd.DataFrame:
    keys = ["Metadata_Plate", "Metadata_Well"]
    if "Metadata_Plate" not in sites:
        sites = sites.assign(Metadata_Plate=found["plate"].iloc[0] if len(found) else "")
    sites = sites.astype(dict.fromkeys(keys, str))
    wanted = {focus_column(config): ("focus", "median")}
    if "count" not in found:
        wanted["Count_Cells"] = ("count", "sum")
    for column, (name, how) in wanted.items():
        if column in sites:
            of_well = sites.groupby(keys)[column].agg(how).rename(name)
            found = found.join(of_well, on=["plate", "well"])
    return found


def platemap_column(table: pd.DataFrame, column: str) -> pd.Series | None:
    """A platemap's column as text, missing as ''."""
    name = "Metadata_" + re.sub(r"\W+", "_", column.strip()).strip("_")  # as aggregate names them
    if name not in table:
        return None
    values = table[name]
    return values.astype(object).where(values.notna(), "").astype(str)


def _dose(table: pd.DataFrame, found: pd.DataFrame, config: Config) -> Dose | None:
    """Add ``dose`` and ``dose_rank`` to ``found`` where the platemap has at least three doses."""
    wanted = (config.report.dose,) if config.report.dose else ("dose_level", "dose")
    for column in wanted:
        text = platemap_column(table, column)
        if text is None:
            continue
        values = pd.to_numeric(text, errors="coerce")
        if values.nunique() < 3:
            continue
        steps = np.sort(values.dropna().unique())
        names = [f"{v:g}" for v in steps]
        found["dose_rank"] = values.map({v: i for i, v in enumerate(steps)})
        found["dose"] = values.map(dict(zip(steps, names)))
        unit = "level" if column == "dose_level" else ""
        units = platemap_column(table, "dose_unit")
        if column == "dose" and units is not None and len(set(units) - {""}) == 1:
            unit = next(iter(set(units) - {""}))
        return Dose(column, tuple(names), unit)
    return None
