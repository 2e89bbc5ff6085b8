"""A well's rows between its stage and the tables: whole, or named as damaged."""

import pandas as pd
import pyarrow as pa
import pytest

from plateglass import parts
from plateglass.errors import DamageError

FRAME = pd.DataFrame(
    {
        "Metadata_Site": [1, 2],
        "Metadata_Class": pd.array(["a", None], "string"),
        "Cells_AreaShape_Area": [1.5, float("nan")],
    },
    index=[7, 9],
)


def test_a_part_is_read_as_it_was_written_without_its_index(tmp_path):
    path = tmp_path / "deep" / "A01.arrow"
    parts.write(path, FRAME)
    found = parts.read(path)
    pd.testing.assert_frame_equal(found, FRAME.reset_index(drop=True), check_dtype=False)
    assert parts.schema(path).types == [pa.int64(), pa.string(), pa.float64()]
    some = parts.read(path, ["Cells_AreaShape_Area", "no such column", "Metadata_Site"])
    assert list(some) == ["Cells_AreaShape_Area", "Metadata_Site"]
    assert [file.name for file in path.parent.iterdir()] == ["A01.arrow"]


@pytest.mark.parametrize("kept", [0, 20, -20])
def test_a_torn_part_is_named(tmp_path, kept):
    path = tmp_path / "A01.arrow"
    parts.write(path, FRAME)
    path.write_bytes(path.read_bytes()[:kept])
    for look in (parts.read, parts.schema):
        with pytest.raises(DamageError, match=r"A01\.arrow: cannot be read"):
            look(path)


def test_no_flipped_byte_ends_the_process(tmp_path):
    path = tmp_path / "A01.arrow"
    parts.write(path, FRAME)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            parts.arrow(path)
        except DamageError:
            continue
