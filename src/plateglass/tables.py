"""How a table is written and read: Parquet, zstd, under a temporary name, saying what made it."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from plateglass.files import damage_of, replacing

KEY = b"plateglass"  # in the file's metadata: JSON of version, config, stage versions, model key
GROUP = 1000  # rows of a row group at least


def write(
    path: Path,
    frames: pd.DataFrame | Iterable[pd.DataFrame],
    provenance: Mapping[str, Any] | None = None,
    schema: pa.Schema | None = None,
    rows: int | None = None,
) -> None:
    """Write a table; readers see the old file or the whole new one.

    Parameters
    ----------
    path
        The file; its folder is made.
    frames
        The table, or its rows piece by piece (say a well at a time, so that memory holds a few
        wells and not the plate). The index is not written.
    provenance
        What made the table (``Project.provenance(stage)``); kept in the file's metadata.
    schema
        Columns and types of the pieces (``unite``); a column that a piece lacks is null there.
        Needed for pieces, taken from the frame otherwise.
    rows
        How many there are, about; needed for pieces too.
    """
    if isinstance(frames, pd.DataFrame):
        schema, rows = schema or schema_of(frames), len(frames)
        frames = [frames]
    elif schema is None or rows is None:
        raise ValueError("a table written piece by piece needs its schema and number of rows")
    group = _group(rows)
    if provenance is not None:
        schema = schema.with_metadata({KEY: json.dumps(provenance, sort_keys=True)})
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", **_encodings(schema)) as writer,
    ):
        waiting: list[pa.Table] = []
        for frame in frames:
            waiting.append(_table(frame, schema))
            if sum(piece.num_rows for piece in waiting) >= group:
                writer.write_table(pa.concat_tables(waiting), row_group_size=2 * group)
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting), row_group_size=2 * group)


def read(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A table, or some of its columns.

    Raises
    ------
    DamageError
        The file is absent or no whole Parquet file.
    """
    with damage_of(path, pa.ArrowInvalid):
        found = pq.ParquetFile(path).read(columns=columns and list(columns), use_threads=False)
    return found.to_pandas()


def provenance(path: Path) -> dict[str, Any]:
    """What a table says of its making; empty where it says nothing."""
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(KEY, b"{}"))


def unite(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """One schema for pieces: all columns, each of the widest type, text where kinds differ."""
    fields: dict[str, pa.Field] = {}
    for schema in schemas:
        for field in plain(schema):
            known = fields.get(field.name)
            if known is None:
                fields[field.name] = field
            elif known.type != field.type:
                fields[field.name] = _wider(known, field)
    return pa.schema(list(fields.values()))


def only(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    """The schema of some columns, in their order."""
    return pa.schema([schema.field(column) for column in columns])


def schema_of(frame: pd.DataFrame) -> pa.Schema:
    """Columns and types of a frame, without its index."""
    return of_frame(frame).schema


def of_frame(frame: pd.DataFrame) -> pa.Table:
    """A frame as Arrow has it, without its index; text as plain text, NaN as null."""
    return pa.table(_columns(frame))


def plain(schema: pa.Schema) -> pa.Schema:
    """The schema without pandas' notes, and with text as plain text."""
    fields = [
        pa.field(f.name, pa.string()) if pa.types.is_large_string(f.type) else f for f in schema
    ]
    return pa.schema([field.with_nullable(True) for field in fields])


def _encodings(schema: pa.Schema) -> dict[str, list[str]]:
    """Floats by their bytes' places, which zstd makes less of; no two are alike, as in a dictionary.

    Nobody skips row groups by a feature's least and largest value, and with a thousand columns these
    take memory.
    """
    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    others = [name for name in schema.names if name not in set(floats)]
    facts = [name for name in schema.names if name.startswith("Metadata_")]
    return {
        "use_byte_stream_split": floats,
        "use_dictionary": others,
        "write_statistics": facts,
    }


def _group(rows: int) -> int:
    """Rows of a row group by which a table of so many takes the least memory.

    A group's rows wait, 4 B a value, and of every group before Parquet keeps about 1.2 kB a column.
    """
    return max(GROUP, round(math.sqrt(rows * 1200 / 4)))


def _wider(one: pa.Field, other: pa.Field) -> pa.Field:
    try:
        schemas = [pa.schema([one]), pa.schema([other])]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0)
    except pa.ArrowTypeError:
        return pa.field(one.name, pa.string())


def _table(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """The frame's rows in the schema's columns and types."""
    found = _columns(frame)
    columns = [
        pa.nulls(len(frame), field.type)
        if field.name not in found or pa.types.is_null(field.type)
        else found[field.name].cast(field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _columns(frame: pd.DataFrame) -> dict[str, pa.Array]:
    """Columns by name, in the frame's order.

    Those of one numpy type go together: taken one by one, a thousand columns cost ten times as much.
    """
    found: dict[str, pa.Array] = {}
    for dtype in frame.dtypes.unique():
        names = frame.columns[frame.dtypes == dtype]
        if isinstance(dtype, np.dtype) and dtype.kind in "fiub":
            values = np.ascontiguousarray(frame[names].to_numpy().T)
            found |= {
                name: pa.array(v, from_pandas=True) for name, v in zip(names, values, strict=True)
            }
        else:
            found |= {name: _text(pa.Array.from_pandas(frame[name])) for name in names}
    return {name: found[name] for name in frame.columns}


def _text(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Text as plain text, copied: a few names would keep alive all that they were read from."""
    if not pa.types.is_string(values.type) and not pa.types.is_large_string(values.type):
        return values
    values = values.cast(pa.string())
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    return pa.concat_arrays([pa.array([], pa.string()), *chunks])
