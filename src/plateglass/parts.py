"""A well's rows between the stage that made them and the plate's tables: Arrow files.

Not Parquet: a part has a few rows and hundreds of columns, and Parquet's headers cost twenty times the
rows (60 ms to write and 50 ms to read 4 cells of 623 columns, against 3 and 2).
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from plateglass import tables
from plateglass.files import damage_of, replacing

BUFFER = 2**20  # bytes; without, each column of a part is a write of its own


def write(path: Path, frame: pd.DataFrame) -> None:
    """Write a part; readers see the old file or the whole new one. The index is not written."""
    table = tables.of_frame(frame)
    with (
        replacing(path) as temporary,
        pa.output_stream(temporary, buffer_size=BUFFER) as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)


def read(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A part, or those of some columns that it has.

    Raises
    ------
    DamageError
        The file is absent or no whole Arrow file.
    """
    return arrow(path, columns).to_pandas()


def arrow(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """What `read` reads, as Arrow has it: many parts are put together so, not as frames."""
    with _opened(path) as found:
        table = found.read_all()
        table.validate(full=True)
    if columns is None:
        return table
    return table.select([column for column in columns if column in table.column_names])


def schema(path: Path) -> pa.Schema:
    """Columns and types of a part (``DamageError`` as `read`)."""
    with _opened(path) as found:
        return found.schema


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pa.ipc.RecordBatchFileReader]:
    with (
        damage_of(path, ValueError, pa.ArrowException),
        pa.OSFile(str(path)) as file,
        pa.ipc.open_file(file) as found,
    ):
        yield found
