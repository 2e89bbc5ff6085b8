"""attribute: who is drawn, which network explains whom, and what is left on the disk."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
import zarr

from plateglass import config as settings
from plateglass import crops, parts, prepare, store
from plateglass.errors import UserError
from plateglass.explain import pcim
from plateglass.explain.fidelity import cell_share
from plateglass.models.controls import Donors
from plateglass.models.recipe import load_model, rebuild, save_model
from plateglass.project import Project
from plateglass.report import maps as reported
from plateglass.stages import attribute
from plateglass.units import Units
from plateglass.wells import Job
from screen import PARTS

CROP = 32
FOLDS = {"A01": 0, "A02": 1}
WELLS = ("A01", "A02", "B01", "B02")
INFO = {
    "key": "m",
    "channels": ["DNA", "GFP"],
    "classes": ["negative", "positive"],
    "positive": "positive",
    "backbone": "test_resnet",
    "crop": {"px": CROP, "um_per_px": 0.5},
    "cut": None,
    "blends": 1,
    "alpha_kind": "simplex",
    "drop": 0.5,
    "folds": {"P1": FOLDS},
}


class Plate:
    """A plate of four wells with two sites of six cells, its parts and a model of random weights."""

    def __init__(self, folder, batch=5, **section):
        self.settings = {
            "plates": "plates.csv",
            "results": "results",
            "channels": {"DNA": {"match": "1"}, "GFP": {"match": "2"}},
            "segment": {"nuclei": {"channel": "DNA"}},
            "train": {"classes": INFO["classes"], "crop": CROP},
            "attribute": {"cells_per_well": 4, **section},
            "run": {"batch": batch},
        }
        (folder / "plates.csv").write_text("plate,path,layout,platemap,train\nP1,raw,,map.csv,no\n")
        roles = dict(zip(WELLS, ("negative", "positive", "x", "y")))
        rows = "".join(f"{well},{role}\n" for well, role in roles.items())
        (folder / "map.csv").write_text("well,role\n" + rows)
        (folder / "config.yaml").write_text(yaml.safe_dump(self.settings))
        config = settings.read(folder / "config.yaml")
        self.job = Job("attribute", "P1", Project.read(config), model="m")
        self.units = Units({"DNA": 100.0, "GFP": 100.0}, {"DNA": 500.0, "GFP": 400.0})
        torch.manual_seed(0)
        networks = {f"seed0.{kind}": rebuild(INFO).eval() for kind in ("final", "fold0", "fold1")}
        empty = np.zeros((0, 2, CROP, CROP), np.float16)
        donors = Donors(empty, empty[:, 0] > 0, np.zeros((0, 2), np.float32), np.zeros(0, int),
                        empty, [])  # fmt: skip
        save_model(self.job.model_dir, INFO, networks, donors)
        store.write_plate(self.job.store, dict.fromkeys(WELLS, 2), INFO["channels"], "P1")
        for seed, well in enumerate(WELLS):
            self.well(well, np.random.default_rng(seed))

    def well(self, well, rng, cells=6):
        rows = []
        for field in range(2):
            image = rng.poisson(120, (2, 1, 90, 110)).astype(np.uint16)
            labels = np.zeros((1, 90, 110), np.int32)
            for number in range(cells):
                y, x = 5 + 28 * (number // 3), 4 + 36 * (number % 3)
                labels[0, y : y + 14, x : x + 14] = number + 1
                image[:, 0, y : y + 14, x : x + 14] += rng.integers(50, 900, (2, 14, 14), np.uint16)
                rows.append((10 + field, number + 1, INFO["classes"][rng.integers(2)]))
            store.write_field(self.job.store, well, field, image, 0.5, INFO["channels"])
            for name in ("cells", "nuclei"):
                store.write_labels(self.job.store, well, field, name, labels)
        store.write_well(self.job.store, well, [10, 11])
        names = ["Metadata_Site", "Metadata_Cell", "Metadata_Class"]
        part = self.job.part("features", well)
        parts.write(part, pd.DataFrame(rows, columns=names))
        coarse = rng.random((len(rows), 8, 8)).astype(np.float16)
        np.savez(part.with_suffix(".maps.npz"), maps=coarse)
        row = {f"Background_{c}": [100.0] for c in INFO["channels"]}
        row |= {"P99_DNA": [600.0], "P99_GFP": [500.0]}
        parts.write(self.job.part("ingest", well), pd.DataFrame(row))
        Project.read(self.job.config).ledger("ingest", "P1").add(
            well, parts=PARTS, key="k", files={}
        )

    @property
    def root(self):
        return self.job.plate_dir / "attribution.zarr"

    def run(self, *wells):
        return {result.well: result for result in attribute.run(self.job, list(wells or WELLS))}


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    found = Plate(tmp_path_factory.mktemp("attribute"))
    found.results = found.run()
    return found


def test_maps_are_those_of_each_cell_alone_by_the_network_that_never_saw_it(plate):
    model = load_model(plate.job.model_dir)
    for well in WELLS:
        group = zarr.open_group(plate.root, mode="r")[f"{well[0]}/{int(well[1:])}"]
        network = f"seed0.fold{FOLDS[well]}" if well in FOLDS else "seed0.final"
        assert group.attrs["plateglass"]["network"] == network
        features = parts.read(plate.job.part("features", well))
        classes = features.set_index(["Metadata_Site", "Metadata_Cell"])["Metadata_Class"]
        part = parts.read(plate.job.part("attribute", well))
        assert len(part) == 4 and part["Metadata_Site"].tolist() == group["site"][...].tolist()
        for row, (site, cell) in enumerate(zip(group["site"][...], group["cell"][...])):
            field = int(site) - 10
            image = plate.units.apply(store.read_field(plate.job.store, well, field)[:, 0])
            labels = store.read_labels(plate.job.store, well, field, "cells")[0]
            x, mask, _, centre = crops.cut(image, labels, CROP, only=[int(cell)])
            target = INFO["classes"].index(classes[site, cell])
            alone = pcim(model.networks[network], torch.from_numpy(x), target)
            stored = torch.from_numpy(group["pcim"][row].astype(np.float32))
            assert (stored - alone[0]).abs().max() <= 2e-3 * alone.abs().max()
            assert centre[0].tolist() == [group["y"][row], group["x"][row]]
            share, enrichment = cell_share(alone, torch.from_numpy(mask))
            assert part["Metadata_PCIM_Share"][row] == pytest.approx(float(share), abs=0.011)
            assert float(enrichment) == pytest.approx(float(share) / mask.mean(), rel=1e-4)
            expected = part["Metadata_PCIM_Share"][row] / mask.mean()
            assert part["Metadata_PCIM_Enrichment"][row] == pytest.approx(expected, rel=1e-4)


def test_gradcam_maps_are_the_features_stages_upsampled(plate):
    group = zarr.open_group(plate.root, mode="r")["B/2"]
    with np.load(plate.job.part("features", "B02").with_suffix(".maps.npz")) as kept:
        row = 6 * (int(group["site"][1]) - 10) + int(group["cell"][1]) - 1
        coarse = kept["maps"][row].astype(np.float32)
    large = torch.nn.functional.interpolate(
        torch.from_numpy(coarse)[None, None], (CROP, CROP), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(group["gradcam"][1], large[0, 0], atol=1e-3)


def test_the_report_finds_the_maps(plate):
    cells = pd.DataFrame(
        {"Metadata_Well": "B01", "Metadata_Site": [10, 11] * 6, "Metadata_Cell": range(1, 13)}
    )
    part = parts.read(plate.job.part("attribute", "B01"))
    everyone = pd.concat([cells, part.assign(Metadata_Well="B01")])[cells.columns].drop_duplicates()
    assert len(reported.explained(plate.root, everyone)) == 4
    site, cell = part.loc[0, ["Metadata_Site", "Metadata_Cell"]].astype(int)
    found = reported.read(plate.root, "B01", site, cell)
    assert found["pcim"].shape == found["gradcam"].shape == (CROP, CROP)


def test_files_and_counts_of_a_well(plate):
    result = plate.results["A02"]
    assert result.counts == {"cells": 4, "passes": attribute.RECIPES["default"].passes}
    assert all(path.is_file() for path in result.files)
    arrays = ("site", "cell", "y", "x", "gradcam", "pcim")
    folder = plate.root / "A" / "2"
    expected = {folder / "zarr.json", plate.job.part("attribute", "A02")}
    expected |= {folder / name / "zarr.json" for name in arrays}
    found = set(result.files)
    assert expected < found and len(found) == len(expected) + len(arrays)  # one shard an array


def test_draw_depends_on_the_cell_alone():
    rows = pd.DataFrame({"Metadata_Site": [1] * 40, "Metadata_Cell": range(1, 41)})
    ten = prepare.draw("P", "A01", rows, 10)
    assert len(ten) == 10 and ten["Metadata_Cell"].is_monotonic_increasing
    twenty = prepare.draw("P", "A01", rows, 20)
    assert set(ten.index) < set(twenty.index)
    turned = prepare.draw("P", "A01", rows.iloc[::-1], 10)
    assert set(turned["Metadata_Cell"]) == set(ten["Metadata_Cell"])
    fewer = prepare.draw("P", "A01", rows.drop(index=ten.index[0]), 10)
    assert len(set(fewer["Metadata_Cell"]) & set(ten["Metadata_Cell"])) == 9
    assert set(prepare.draw("P", "A02", rows, 10).index) != set(ten.index)
    assert prepare.draw("P", "A01", rows, "all") is rows
    assert prepare.draw("P", "A01", rows, 41) is rows


def test_one_well_alone_all_cells_no_cells_and_removal(tmp_path):
    plate = Plate(tmp_path, batch=64, cells_per_well="all")
    plate.well("B01", np.random.default_rng(9), cells=0)
    results = plate.run("B01", "B02")
    assert results["B01"].counts["cells"] == 0 and results["B02"].counts["cells"] == 12
    assert len(parts.read(plate.job.part("attribute", "B01"))) == 0
    assert not (plate.root / "B" / "1").exists()
    before = zarr.open_group(plate.root, mode="r")["B/2/pcim"][...]
    plate.run("B02")
    np.testing.assert_array_equal(zarr.open_group(plate.root, mode="r")["B/2/pcim"][...], before)
    attribute.remove(plate.job, ["B01", "B02"])
    assert not list(plate.root.rglob("pcim")) and not plate.job.part("attribute", "B02").exists()


def test_unknown_recipe_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"attribute\.recipe: Input should be 'default'"):
        Plate(tmp_path, recipe="best").run()
