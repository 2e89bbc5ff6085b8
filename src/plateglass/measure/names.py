"""CellProfiler's names for what is measured: one table, ``cellprofiler_names.csv``.

A row says what the measuring library calls a feature, what CellProfiler calls it (with the
channel's place in the name), and, where it has no name there or is no feature, why it is left out.
"""

import csv
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import combinations
from typing import NamedTuple

from plateglass.errors import UserError

COMPARTMENTS = ("Nuclei", "Cells", "Cytoplasm")
CELL = ["Metadata_Site", "Metadata_Cell"]
PLACE = ["Metadata_Plate", "Metadata_Well", *CELL, "Metadata_Edge", "Metadata_X", "Metadata_Y"]
AUDIT = [f"Metadata_{name}" for name in ("Class", "Margin", "Fold", "GradCAMO", "Enrichment")]
AUDIT += ["Metadata_Reliance"]
EMBEDDING = "Cells_Embedding_"
# What a platemap's column may not be called, as one of ours is, or begins so.
OURS = ("Count", "Share", "PCIM", "Quarantine", "Flag", "Normalized_To")
OURS = (*PLACE, *AUDIT, *(f"Metadata_{name}" for name in OURS))


class Name(NamedTuple):
    """A row of the table; ``cellprofiler`` is empty where ``left_out`` gives the reason."""

    group: str
    measured: str
    cellprofiler: str
    left_out: str


@cache
def table() -> tuple[Name, ...]:
    """All rows of the mapping table, in the order of the columns."""
    text = files("plateglass.measure").joinpath("cellprofiler_names.csv").read_text("utf-8")
    return tuple(Name(**row) for row in csv.DictReader(text.splitlines()))


@cache
def templates(group: str) -> dict[str, str]:
    """Measured name → CellProfiler's name of a group's features, without those left out.

    ``{channel}``, or ``{first}`` and ``{second}``, stand where CellProfiler puts the channel.
    """
    return {n.measured: n.cellprofiler for n in table() if n.group == group and n.cellprofiler}


def left_out() -> dict[str, str]:
    """What is measured but is no column: measured name → reason."""
    return {n.measured: n.left_out for n in table() if not n.cellprofiler}


def pairs(channels: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of channels as CellProfiler's headers write them: alphabetical, each pair once."""
    return list(combinations(sorted(channels), 2))


def columns(channels: Sequence[str]) -> list[str]:
    """Every column of the classical features of these channels, compartment by compartment.

    Raises
    ------
    UserError
        Two features get one name, as the channel pairs ``a``, ``b_c`` and ``a_b``, ``c`` would.
    """
    names: list[str] = []
    for compartment in COMPARTMENTS:
        for name in table():
            if not name.cellprofiler:
                continue
            if name.group == "correlation":
                fill = [{"first": a, "second": b} for a, b in pairs(channels)]
            elif "{channel}" in name.cellprofiler:
                fill = [{"channel": channel} for channel in channels]
            else:
                fill = [{}]
            names += [f"{compartment}_{name.cellprofiler.format(**values)}" for values in fill]
    twice = (
        {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()
    )
    if twice:
        raise UserError(
            f"channels {', '.join(channels)}: two features would both be {min(twice)!r}; "
            "rename a channel so that no name is made of others joined by '_'"
        )
    return names


def platemap_column(column: str) -> str:
    """``Metadata_<column as written>``, other signs than letters and digits as ``_``.

    Where that is a name of ours (``Metadata_Site``), ``Metadata_Platemap_<column>``.
    """
    name = re.sub(r"\W+", "_", column.strip()).strip("_")
    taken = f"Metadata_{name}_".startswith(tuple(f"{own}_" for own in OURS))
    return f"Metadata_Platemap_{name}" if taken else f"Metadata_{name}"


def features_of(columns: list[str]) -> list[str]:
    """The feature columns, as pycytominer infers them: by the compartment's name in front."""
    return [c for c in columns if c.startswith(tuple(f"{part}_" for part in COMPARTMENTS))]


def ordered(columns: list[str], platemap: list[str]) -> list[str]:
    """Place, platemap, audit, then Nuclei, Cells, Cytoplasm and the embedding; the rest is dropped.

    Audit columns that others add keep their order behind the known ones. Bounding boxes stay in
    the parts.
    """
    have = dict.fromkeys(columns)
    audit: list[str] = []  # Metadata_Margin, then Metadata_Margin_<class>; so the controls' classes
    for column in AUDIT:
        audit += [c for c in [column] if c in have]
        audit += [c for c in have if c.startswith(f"{column}_")]
    first = [c for c in [*PLACE, *platemap] if c in have]
    rest = [c for c in have if c.startswith("Metadata_") and c not in {*first, *audit}]
    rest = [c for c in rest if not c.startswith("Metadata_Box_")]
    found = [*first, *audit, *rest]
    for part in COMPARTMENTS:
        found += [c for c in have if c.startswith(f"{part}_") and not c.startswith(EMBEDDING)]
    return found + sorted(c for c in have if c.startswith(EMBEDDING))
