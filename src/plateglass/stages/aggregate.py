"""aggregate: from the wells' parts to the tables of a plate, and one table for the screen.

The cells go through some wells at a time, so memory holds the wells' medians and a few hundred
cells.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from plateglass import parts, tables
from plateglass.errors import DataError
from plateglass.measure.names import CELL, features_of, ordered, platemap_column
from plateglass.measure.profiles import normalized_wells, of_wells, selected
from plateglass.plates import well_order
from plateglass.project import Project
from plateglass.stages import SCREEN, STAGES
from plateglass.wells import Job

TOGETHER = 500  # cells that go through at once: with a thousand columns, 4 MB and copies of them
NUMBER = r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?"


def run_plate(job: Job) -> None:
    """Write ``cells``, ``sites``, ``wells`` and ``wells_normalized`` of a plate."""
    project = job.project
    provenance = project.provenance("aggregate")
    wells = sorted(project.ledger("features", job.plate).computed(), key=well_order)
    platemap = platemap_columns(project.maps[job.plate])
    left = _left(project, job.plate)
    schema = _schema(job, wells, platemap, left)
    profiles: list[pd.DataFrame] = []

    def cells() -> Iterator[pd.DataFrame]:
        """Some wells at a time: columns by the hundred make every frame cost, however short."""
        waiting: dict[str, dict[str, pa.Table]] = {}
        for done, well in enumerate(wells, 1):
            waiting[well] = {
                stage: parts.arrow(job.part(stage, well)) for stage in left if well in left[stage]
            }
            rows = sum(len(of_well["features"]) for of_well in waiting.values())
            if done == len(wells) or rows >= TOGETHER:
                together = _cells(job.plate, waiting, platemap)
                profiles.append(of_wells(together))
                yield together
                waiting = {}
            job.progress(done, len(wells))

    quarantine = _quarantine(project, job.plate)
    sites = _sites(project, job, quarantine)
    tables.write(job.plate_dir / "sites.parquet", sites, provenance)
    rows = int(sites["Count_Cells"].sum()) if "Count_Cells" in sites else 0
    tables.write(job.plate_dir / "cells.parquet", cells(), provenance, schema, rows)
    known = sorted(project.ledger("ingest", job.plate), key=well_order)
    table = _wells(job.plate, known, profiles, platemap, quarantine, schema.names)
    tables.write(job.plate_dir / "wells.parquet", table, provenance)
    negative = [
        well
        for well, label in project.labels(job.plate).items()
        if label == job.config.platemap.negative
    ]
    normalized = normalized_wells(table, negative, job.config.aggregate.normalize)
    tables.write(job.plate_dir / "wells_normalized.parquet", normalized, provenance)


def run_screen(job: Job) -> None:
    """Write ``screen/wells_selected``: the normalised wells of all plates with one feature set."""
    project = job.project
    paths = [job.results / plate / "wells_normalized.parquet" for plate in project.names]
    paths = [path for path in paths if path.exists()]  # a refused plate may have none
    if not paths:
        raise DataError("no plate has a table yet; see the plates' own messages")
    schema = tables.unite(pq.read_schema(path) for path in paths)
    together = pd.concat([tables.read(path) for path in paths], ignore_index=True)
    chosen = selected(together, list(job.config.aggregate.select))
    path = job.results / SCREEN / "wells_selected.parquet"
    tables.write(
        path, chosen, project.provenance("aggregate"), tables.only(schema, list(chosen.columns))
    )


def platemap_columns(rows: dict[str, dict[str, str]]) -> pd.DataFrame:
    """The platemap by well, columns as ``platemap_column`` names them, numbered where two agree.

    A column of numbers is numbers, unless a leading zero says that it is a code; what is empty is
    null.
    """
    table = pd.DataFrame.from_dict(rows, orient="index")
    found: dict[str, pd.Series] = {}
    for column in table.columns:
        name = plain = platemap_column(column)
        number = 2
        while name in found:
            name, number = f"{plain}_{number}", number + 1
        values = table[column].fillna("").astype(str)
        filled = values[values != ""]
        if len(filled) and filled.str.fullmatch(NUMBER).all():
            found[name] = pd.to_numeric(values.where(values != "", None)).astype(float)
        else:
            found[name] = values.where(values != "", None).astype(object)
    return pd.DataFrame(found, index=table.index)


def _left(project: Project, plate: str) -> dict[str, set[str]]:
    """Stage → wells whose cells it left rows of, by its ledger: a part may be older than that."""
    stages = ["segment", "features", *(["attribute"] if project.has_model else [])]
    return {stage: set(project.ledger(stage, plate).computed()) for stage in stages}


def _schema(
    job: Job, wells: list[str], platemap: pd.DataFrame, left: dict[str, set[str]]
) -> pa.Schema:
    """Columns and types of ``cells``: of all wells' parts, so that no well decides them."""
    place = {"Metadata_Plate": [""], "Metadata_Well": [""]}
    first = [tables.schema_of(pd.DataFrame(place)), tables.schema_of(platemap)]
    # one at a time: a thousand schemas of a thousand columns are 200 MB
    of_parts = (
        parts.schema(job.part(stage, well))
        for well in wells
        for stage, done in left.items()
        if well in done
    )
    schema = tables.unite(itertools.chain(first, of_parts))
    return tables.only(schema, ordered(schema.names, list(platemap.columns)))


def _cells(
    plate: str, wells: dict[str, dict[str, pa.Table]], platemap: pd.DataFrame
) -> pd.DataFrame:
    """Some wells' cells: the parts of their stages side by side, by well, site and number."""
    key = ["Metadata_Well", *CELL]
    taken = {"Metadata_Plate", "Metadata_Well", *platemap.columns}
    sides: dict[str, pd.DataFrame] = {}
    for stage in dict.fromkeys(stage for of_well in wells.values() for stage in of_well):
        pieces = []
        for well, part in ((well, w[stage]) for well, w in wells.items() if stage in w):
            names = [c for c in part.column_names if c in CELL or c not in taken]
            pieces.append(_of_well(part.select(names), well))
        sides[stage] = pa.concat_tables(pieces, promote_options="permissive").to_pandas()
        taken |= set(sides[stage].columns)
    frame = sides["features"][key]  # which all of these wells have
    for side in sides.values():
        frame = frame.merge(side, "left", key, validate="1:1")
    order = frame["Metadata_Well"].map({well: at for at, well in enumerate(wells)})
    frame = frame.assign(_order=order).sort_values(["_order", *CELL], ignore_index=True)
    known = platemap.reindex(frame["Metadata_Well"]).reset_index(drop=True)
    known.insert(0, "Metadata_Plate", plate)
    known.insert(1, "Metadata_Well", frame["Metadata_Well"])
    return pd.concat([known, frame.drop(columns=["Metadata_Well", "_order"])], axis=1)


def _wells(
    plate: str,
    known: list[str],
    profiles: list[pd.DataFrame],
    platemap: pd.DataFrame,
    quarantine: dict[str, str],
    cell_columns: list[str],
) -> pd.DataFrame:
    """A row for every well that has images, also where nothing could be computed."""
    index = pd.Index(known, name="Metadata_Well")
    table = pd.concat(profiles) if profiles else pd.DataFrame()
    features = features_of(cell_columns)
    values = table.reindex(index=index, columns=features).astype("float64")
    others = [c for c in table.columns if c not in {*features, *platemap.columns}]
    facts = table.reindex(index=index, columns=dict.fromkeys(["Metadata_Count_Cells", *others]))
    shares = [c for c in others if c.startswith("Metadata_Share_")]
    counted = facts["Metadata_Count_Cells"].notna()
    facts.loc[counted, shares] = facts.loc[counted, shares].fillna(0.0)
    facts["Metadata_Plate"] = plate
    facts["Metadata_Quarantine"] = pd.Series(quarantine, dtype=object).reindex(index)
    empty = facts["Metadata_Quarantine"].isna() & ~counted
    facts.loc[empty, "Metadata_Count_Cells"] = 0
    whole = [c for c in ("Metadata_Count_Cells", "Metadata_Fold") if c in facts]
    facts = facts.astype(dict.fromkeys(whole, "Int64"))
    table = pd.concat([facts, platemap.reindex(index), values], axis=1).reset_index()
    first = ["Metadata_Plate", "Metadata_Well", *platemap.columns, "Metadata_Count_Cells"]
    first += ["Metadata_Quarantine", *shares]
    order = ordered(list(table.columns), list(platemap.columns))
    return table[first + [c for c in order if c not in first]]


def _quarantine(project: Project, plate: str) -> dict[str, str]:
    """Well → why nothing, or nothing more, could be computed of it."""
    reasons: dict[str, str] = {}
    for stage in STAGES.values():
        if stage.wells:
            for well, entry in project.ledger(stage.name, plate).items():
                if entry.get("quarantine"):
                    reasons.setdefault(well, f"{stage.name}: {entry['quarantine']}")
    return reasons


def _sites(project: Project, job: Job, quarantine: dict[str, str]) -> pd.DataFrame:
    """Every site: what ingest and segment found, and why one is left out."""
    first = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    first += ["Metadata_Flag", "Metadata_Quarantine"]
    key = ["Metadata_Well", "Metadata_Site"]
    known = sorted(project.ledger("ingest", job.plate), key=well_order)
    segmented = project.ledger("segment", job.plate).computed()
    table = _together({well: job.part("ingest", well) for well in known})
    bare = pd.DataFrame({"Metadata_Well": sorted(set(known) - set(table["Metadata_Well"]))})
    table = pd.concat([table, bare], ignore_index=True) if len(bare) else table
    counted = _together(
        {well: job.part("segment", well).with_suffix(".sites.arrow") for well in segmented}
    )
    counted = counted[[c for c in counted if c in key or c not in table]]
    table = table.merge(counted, "left", key, validate="1:1")
    order = table["Metadata_Well"].map({well: at for at, well in enumerate(known)})
    table = table.assign(_order=order).sort_values(["_order", "Metadata_Site"], ignore_index=True)
    table = table.reindex(columns=[*first, *(c for c in table if c not in [*first, "_order"])])
    table = table.astype(dict.fromkeys(first[-2:], "string") | {"Metadata_Site": "Int64"})
    whole_well = table["Metadata_Well"].map(quarantine).astype("string")
    table["Metadata_Quarantine"] = table["Metadata_Quarantine"].fillna(whole_well)
    table["Metadata_Plate"] = job.plate
    return table


def _together(files: dict[str, Path]) -> pd.DataFrame:
    """The wells' parts one below the other; those that are there."""
    found = [_of_well(parts.arrow(path), well) for well, path in files.items() if path.exists()]
    if not found:
        return pd.DataFrame(columns=["Metadata_Well", "Metadata_Site"])
    return pa.concat_tables(found, promote_options="permissive").to_pandas()


def _of_well(part: pa.Table, well: str) -> pa.Table:
    """The part, with the well's name in a column."""
    if "Metadata_Well" in part.column_names:
        part = part.drop_columns("Metadata_Well")
    return part.append_column("Metadata_Well", pa.array([well] * len(part), pa.string()))
