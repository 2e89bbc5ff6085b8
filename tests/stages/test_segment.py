"""Fields to labels and rows: numbers, counts, boxes; what a well without cells leaves."""

import numpy as np
import pandas as pd
import pytest
import yaml

from plateglass import config as settings
from plateglass import parts, store
from plateglass.errors import DataError
from plateglass.models import nuclei
from plateglass.project import Project
from plateglass.stages import segment
from plateglass.wells import Job

CHANNELS = ["DNA", "GFP"]  # stores keep channels by name


def squares(places, shape=(60, 80), size=8):
    """A field (c, 1, y, x): DNA squares, each in a wider square of GFP."""
    image = np.full((2, 1, *shape), 100, np.uint16)
    for y, x in places:
        image[1, 0, max(0, y - 5) : y + size + 5, max(0, x - 5) : x + size + 5] = 900
        image[0, 0, y : y + size, x : x + size] = 3000
    return image


def threshold(image, diameter=None):
    """Stands for the network: connected bright pixels."""
    from scipy import ndimage

    return ndimage.label(image > 1000)[0].astype(np.int32)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A plate in the store: A01 with sites 3 and 7, B02 without a cell."""
    monkeypatch.setattr(segment, "_model", lambda name, where: threshold)
    (tmp_path / "plates.csv").write_text("plate,path\nP1,raw\n")
    (tmp_path / "raw").mkdir()
    written = {
        "plates": "plates.csv",
        "results": "results",
        "channels": {"GFP": {"match": "1"}, "DNA": {"match": "2"}},
        "ingest": {"pattern": "(?P<well>.*)(?P<channel>.)"},
        "segment": {"nuclei": {"channel": "DNA"}, "cells": {"channel": "GFP", "reach_um": 10}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
    config = settings.read(tmp_path / "config.yaml")
    made = Job("segment", "P1", Project.read(config), "key")
    fields = {
        "A01": {3: squares([(10, 10), (30, 50)]), 7: squares([(20, 0)])},
        "B02": {1: squares([])},
    }
    for well, sites in fields.items():
        for field, image in enumerate(sites.values()):
            store.write_field(made.store, well, field, image, 0.5, CHANNELS)
        store.write_well(made.store, well, list(sites))
    return made


def test_a_well_gets_labels_rows_and_counts(job):
    result = next(iter(segment.run(job, ["A01"])))
    assert result.counts == {
        "fields": 2, "Count_Cells": 3, "Count_Nuclei": 3, "Orphan_Nuclei": 0, "Orphan_Cells": 0,
        "Count_Debris": 0,
    }  # fmt: skip
    table = parts.read(job.part("segment", "A01"))
    assert table["Metadata_Site"].tolist() == [3, 3, 7]
    assert table["Metadata_Cell"].tolist() == [1, 2, 1]
    assert table["Metadata_Edge"].tolist() == [False, False, True]
    np.testing.assert_allclose(table[["Metadata_X", "Metadata_Y"]].iloc[1], [53.5, 33.5])
    counts = parts.read(job.part("segment", "A01").with_suffix(".sites.arrow"))
    assert counts.set_index("Metadata_Site")["Count_Cells"].to_dict() == {3: 2, 7: 1}
    for field, site in enumerate((3, 7)):
        kernels, found = (store.read_labels(job.store, "A01", field, n) for n in segment.LABELS)
        assert kernels.shape == found.shape == (1, 60, 80)
        assert (found[kernels > 0] == kernels[kernels > 0]).all()
        assert (found > 0).sum() > 1.5 * (kernels > 0).sum()
        for row in table[table["Metadata_Site"] == site].itertuples():
            y, x = np.nonzero(found[0] == row.Metadata_Cell)
            assert (x.min(), y.min()) == (row.Metadata_Box_Left, row.Metadata_Box_Top)
            assert (x.max() + 1, y.max() + 1) == (row.Metadata_Box_Right, row.Metadata_Box_Bottom)


def test_the_result_names_every_file_it_left(job):
    result = next(iter(segment.run(job, ["A01"])))
    assert result.stored
    labels = {p for p in job.store.rglob("*") if p.is_file() and "labels" in p.parts}
    named = {job.plate_dir / path for path in result.stored}
    assert {p for p in labels if p.parent.name != "labels"} <= named


def test_a_well_without_a_cell_has_no_rows_and_columns_as_ever(job):
    result = next(iter(segment.run(job, ["B02"])))
    assert result.quarantine is None
    assert result.counts["Count_Cells"] == 0
    next(iter(segment.run(job, ["A01"])))
    empty, other = (parts.read(job.part("segment", well)) for well in ("B02", "A01"))
    assert len(empty) == 0
    pd.testing.assert_series_equal(empty.dtypes, other.dtypes)
    assert not store.read_labels(job.store, "B02", 0, "cells").any()


def test_lengths_in_the_settings_are_micrometres(job):
    """Half a micrometre a pixel: cells grown by 2 µm reach 4 px, and a diameter is doubled."""
    given = []

    def model(image, diameter=None):
        given.append(diameter)
        return threshold(image)

    section = settings.SegmentSettings(
        nuclei={"channel": "DNA", "diameter_um": 12}, cells={"grow_um": 2}
    )
    kernels, found, _ = segment.labels(squares([(20, 20)]), CHANNELS, section, model, 0.5)
    assert given == [24]
    assert np.nonzero(found[24])[0].tolist() == list(range(16, 32))
    assert np.nonzero(kernels[24])[0].tolist() == list(range(20, 28))


def test_a_stack_is_quarantined_with_what_to_do(job):
    stack = np.repeat(squares([(10, 10)]), 3, axis=1)
    store.write_field(job.store, "B02", 0, stack, 0.5, CHANNELS)
    store.write_well(job.store, "B02", [1])
    result = next(iter(segment.run(job, ["B02"])))
    assert "3 planes" in result.quarantine
    with pytest.raises(DataError):
        segment.labels(stack, CHANNELS, job.config.segment, threshold, 0.5)


def test_what_is_removed_is_gone(job):
    next(iter(segment.run(job, ["A01"])))
    next(iter(segment.run(job, ["B02"])))
    segment.remove(job, ["A01"])
    assert not job.part("segment", "A01").exists()
    assert not job.part("segment", "A01").with_suffix(".sites.arrow").exists()
    assert store.files_of(job.store, "A01", labels=True) == []
    assert store.files_of(job.store, "B02", labels=True) != []


def test_the_same_again_is_bit_for_bit_the_same(job, monkeypatch):
    monkeypatch.undo()
    rng = np.random.default_rng(1)
    image = squares([(10, 10), (30, 50)], size=14)
    image = (image + rng.normal(0, 20, image.shape)).clip(0).astype(np.uint16)
    model = nuclei.load("nuclei-small")
    one, two = (
        segment.labels(image, CHANNELS, job.config.segment, model, 1.0)[:2] for _ in range(2)
    )
    for a, b in zip(one, two):
        assert (a == b).all()
