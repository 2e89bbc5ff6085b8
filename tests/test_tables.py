"""Tables: whole or not at all, in pieces as in one, saying what made them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plateglass import tables
from plateglass.errors import DamageError


def frame(rows=4, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "Metadata_Well": [f"A{i:02d}" for i in range(rows)],
            "Metadata_Cell": np.arange(rows, dtype=np.int32),
            "Cells_AreaShape_Area": rng.random(rows).astype(np.float32),
        }
    )


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new" / "cells.parquet"
    tables.write(path, frame(), {"plateglass": "1.2", "stages": {"ingest": 3}})
    pd.testing.assert_frame_equal(tables.read(path), frame(), check_dtype=False)
    assert tables.read(path, ["Metadata_Cell"]).columns.tolist() == ["Metadata_Cell"]
    assert tables.provenance(path) == {"plateglass": "1.2", "stages": {"ingest": 3}}
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    assert [p.name for p in path.parent.iterdir()] == ["cells.parquet"]


def test_pieces_make_the_table_that_the_whole_makes(tmp_path):
    pieces = [frame(3, 1), frame(0, 2), frame(5, 3)]
    schema = tables.unite(pa.Schema.from_pandas(p, preserve_index=False) for p in pieces)
    tables.write(tmp_path / "pieces.parquet", iter(pieces), {"a": 1}, schema, rows=8)
    tables.write(tmp_path / "whole.parquet", pd.concat(pieces), {"a": 1}, schema)
    assert (tmp_path / "pieces.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_floats_have_neither_dictionaries_nor_statistics_and_what_is_filtered_by_has_them(tmp_path):
    tables.write(tmp_path / "t.parquet", frame())
    group = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0)
    well, cell, area = (group.column(i) for i in range(3))
    assert "BYTE_STREAM_SPLIT" in area.encodings and not area.has_dictionary_page
    assert not area.is_stats_set
    assert (well.statistics.min, well.statistics.max) == ("A00", "A03")
    assert (cell.statistics.min, cell.statistics.max) == (0, 3)


@pytest.mark.parametrize(
    ("pieces", "wanted"), [(5, [1000, 1000, 500]), (100, [3000] * 16 + [2000])]
)
def test_small_pieces_share_row_groups_which_grow_with_the_table(
    tmp_path, pieces, wanted, monkeypatch
):
    monkeypatch.setattr(tables, "GROUP", 400)
    piece = frame(500)
    schema = pa.Schema.from_pandas(piece, preserve_index=False)
    many = (piece for _ in range(pieces))
    tables.write(tmp_path / "t.parquet", many, schema=schema, rows=500 * pieces // 2)
    groups = pq.ParquetFile(tmp_path / "t.parquet").metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == wanted


def test_waiting_rows_hold_nothing_else_of_what_they_were_read_from(tmp_path):
    """Names are slices of the whole part that they were read with, features are not."""
    read = frame(1000).to_dict("series")
    names = pa.concat_arrays([pa.array(read["Metadata_Well"], pa.string())] * 20)
    part = pd.DataFrame(read | {"Metadata_Well": pd.Series(names.slice(0, 1000).to_pandas())})
    schema = tables.schema_of(frame())
    kept = tables._table(part, schema).column("Metadata_Well").chunk(0)
    assert kept.offset == 0 and sum(b.size for b in kept.buffers() if b) < 2 * kept.nbytes


def test_a_column_that_a_piece_lacks_is_null_there(tmp_path):
    pieces = [
        frame(2).assign(Metadata_Dose=[0.5, 2]),
        frame(1),
        frame(1).assign(Metadata_Dose=["x"]),
    ]
    schema = tables.unite(pa.Schema.from_pandas(p, preserve_index=False) for p in pieces)
    assert schema.field("Metadata_Dose").type == pa.string()  # numbers here, text there
    tables.write(tmp_path / "t.parquet", pieces, schema=schema, rows=4)
    assert tables.read(tmp_path / "t.parquet")["Metadata_Dose"].tolist()[:2] == ["0.5", "2"]
    assert tables.read(tmp_path / "t.parquet")["Metadata_Dose"].isna().tolist() == [0, 0, 1, 0]


def test_numbers_widen_and_nothing_becomes_something():
    schemas = [
        pa.schema([("a", pa.int32()), ("b", pa.null())]),
        pa.schema([("a", pa.float64()), ("b", pa.large_string())]),
    ]
    assert tables.unite(schemas).types == [pa.float64(), pa.string()]


def test_a_failure_half_way_leaves_the_old_table(tmp_path):
    path = tmp_path / "t.parquet"
    tables.write(path, frame(2))
    schema = pa.Schema.from_pandas(frame(), preserve_index=False)

    def rows():
        yield frame(20_000)
        raise RuntimeError("disk gone")

    with pytest.raises(RuntimeError):
        tables.write(path, rows(), schema=schema, rows=20_000)
    assert len(tables.read(path)) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_a_torn_table_is_named(tmp_path):
    path = tmp_path / "t.parquet"
    tables.write(path, frame())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamageError, match=r"t\.parquet: cannot be read"):
        tables.read(path)
