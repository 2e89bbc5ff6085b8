"""aggregate: from parts written by hand to tables whose every value can be told."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from pycytominer.cyto_utils import infer_cp_features

from plateglass import config, parts, plates, tables
from plateglass.project import Project
from plateglass.stages import aggregate
from plateglass.wells import Job
from screen import PARTS

FEATURES = [
    "Nuclei_AreaShape_Area",
    "Cells_AreaShape_Area",
    "Cytoplasm_Intensity_MeanIntensity_GFP",
]
EMBEDDING = ["Cells_Embedding_000", "Cells_Embedding_001"]
ROLES = {"A01": "negative_control", "A02": "negative_control", "A03": "negative_control"}
ROLES |= {"A04": "positive_control", "B01": "treatment", "B02": "treatment", "B10": "treatment"}


class Plate:
    """A project of one or more plates with ledgers and parts, as the stages before leave them."""

    def __init__(self, folder, names=("P1",), model=True, roles=ROLES):
        self.folder, self.model = folder, model
        rows = "".join(f"{w},{r},{i * 0.5},0{i},\n" for i, (w, r) in enumerate(roles.items()))
        (folder / "map.csv").write_text("well,role,dose (nM),Site,batch\n" + rows)
        lines = [f"{name},raw,pattern,map.csv,no\n" for name in names]
        (folder / "plates.csv").write_text("plate,path,layout,platemap,train\n" + "".join(lines))
        settings = {
            "plates": "plates.csv",
            "results": "results",
            "channels": {"DNA": {"match": "2"}, "GFP": {"match": "1"}},
            "segment": {"nuclei": {"channel": "DNA"}},
        }
        if model:
            (folder / "model").mkdir()
            info = {"key": "m", "channels": ["DNA", "GFP"], "classes": []}
            (folder / "model/model.json").write_text(json.dumps(info))
            settings["train"] = {"model": "model"}
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        self.project = Project.read(config.read(folder / "config.yaml"))
        for name in names:
            for well in roles:
                self.well(name, well)

    def job(self, plate):
        return Job("aggregate", plate, self.project)

    def well(self, plate, well, cells=5, seed=None):
        """Parts of two sites; ``cells`` in each; values from the well's own seed."""
        job = self.job(plate)
        for stage in ("ingest", "segment", "features", *(["attribute"] if self.model else [])):
            self.project.ledger(stage, plate).add(well, parts=PARTS, key="k", files={})
        rng = np.random.default_rng([ord(c) for c in plate + well])
        site = np.repeat([2, 1], cells)
        place = pd.DataFrame({"Metadata_Site": site, "Metadata_Cell": [*range(1, cells + 1)] * 2})
        segment = place.assign(
            Metadata_Edge=place["Metadata_Cell"] == 1,
            Metadata_X=rng.random(2 * cells),
            Metadata_Y=rng.random(2 * cells),
            Metadata_Box_Top=0,
        )
        values = {name: rng.normal(10, 2, 2 * cells).astype(np.float32) for name in FEATURES}
        features = place.assign(**values)
        if self.model:
            features = features.assign(
                Metadata_GradCAMO=np.where(place["Metadata_Cell"] == 2, np.nan, 0.5),
                Metadata_Margin=rng.normal(size=2 * cells),
                Metadata_Class=np.where(place["Metadata_Cell"] < 3, "positive", "negative"),
                **{name: rng.random(2 * cells).astype(np.float32) for name in EMBEDDING},
            )
            explained = place[place["Metadata_Cell"] == 3].assign(Metadata_PCIM_Enrichment=2.0)
            parts.write(job.part("attribute", well), explained)
        features = features.sample(frac=1, random_state=0)  # order must not matter
        parts.write(job.part("segment", well), segment)
        parts.write(job.part("features", well), features)
        sites = pd.DataFrame({"Metadata_Site": [1, 2], "Focus_DNA": [0.1, 0.2]})
        sites["Metadata_Flag"] = sites["Metadata_Quarantine"] = None
        parts.write(job.part("ingest", well), sites)
        counts = pd.DataFrame({"Metadata_Site": [2, 1], "Count_Cells": [cells, cells + 1]})
        parts.write(job.part("segment", well).with_suffix(".sites.arrow"), counts)

    def quarantine(self, plate, well, stage, reason):
        stages = ("ingest", "segment", "features", "attribute")
        for later in stages[stages.index(stage) :]:
            self.project.ledger(later, plate).add(well, gone=True)
            self.job(plate).part(later, well).unlink()
        self.project.ledger(stage, plate).add(
            well, parts=PARTS, key=None, files={}, quarantine=reason
        )

    def run(self, plate="P1"):
        aggregate.run_plate(self.job(plate))
        folder = self.job(plate).plate_dir
        return {name: tables.read(folder / f"{name}.parquet") for name in TABLES}


TABLES = ("cells", "sites", "wells", "wells_normalized")


def test_cells_are_the_parts_joined_in_order(tmp_path):
    plate = Plate(tmp_path)
    cells = plate.run()["cells"]
    assert len(cells) == 7 * 10
    keys = cells[["Metadata_Well", "Metadata_Site", "Metadata_Cell"]]
    assert keys.values.tolist() == sorted(keys.values.tolist())
    assert list(cells.columns) == [
        *("Metadata_Plate", "Metadata_Well", "Metadata_Site", "Metadata_Cell", "Metadata_Edge"),
        *("Metadata_X", "Metadata_Y", "Metadata_role", "Metadata_dose_nM"),
        *("Metadata_Platemap_Site", "Metadata_batch", "Metadata_Class", "Metadata_Margin"),
        *("Metadata_GradCAMO", "Metadata_PCIM_Enrichment", *FEATURES, *EMBEDDING),
    ]
    part = parts.read(plate.job("P1").part("features", "B02")).set_index(aggregate.CELL)
    ours = cells[cells["Metadata_Well"] == "B02"].set_index(aggregate.CELL)
    for name in [*FEATURES, *EMBEDDING, "Metadata_Margin", "Metadata_Class"]:
        assert ours[name].to_dict() == part[name].to_dict()
    assert cells["Metadata_PCIM_Enrichment"].notna().sum() == 7 * 2
    assert (cells["Metadata_Cell"][cells["Metadata_PCIM_Enrichment"].notna()] == 3).all()
    assert sorted(infer_cp_features(cells)) == sorted([*FEATURES, *EMBEDDING])


def test_platemap_columns_are_as_written_numbers_where_they_are(tmp_path):
    cells = Plate(tmp_path).run()["cells"].groupby("Metadata_Well").first()
    assert cells["Metadata_role"].to_dict() == ROLES
    assert cells["Metadata_dose_nM"].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert cells["Metadata_Platemap_Site"].tolist() == ["00", "01", "02", "03", "04", "05", "06"]
    assert cells["Metadata_batch"].isna().all()


def test_wells_are_medians_counts_and_means(tmp_path):
    found = Plate(tmp_path).run()
    cells, wells = found["cells"], found["wells"].set_index("Metadata_Well")
    assert list(wells.index) == list(ROLES)
    assert (wells["Metadata_Count_Cells"] == 10).all()
    by = cells.groupby("Metadata_Well")
    for name in [*FEATURES, *EMBEDDING]:
        np.testing.assert_allclose(wells[name], by[name].median())
    np.testing.assert_allclose(wells["Metadata_Margin"], by["Metadata_Margin"].mean())
    assert (wells["Metadata_GradCAMO"] == 0.5).all()
    np.testing.assert_allclose(wells["Metadata_GradCAMO_Null"], 0.2)
    np.testing.assert_allclose(wells["Metadata_Share_positive"], 0.4)
    np.testing.assert_allclose(wells["Metadata_Edge"], 0.2)
    assert (wells["Metadata_PCIM_Enrichment"] == 2).all()
    assert "Metadata_X" not in wells
    assert sorted(infer_cp_features(wells.reset_index())) == sorted([*FEATURES, *EMBEDDING])


def test_wells_normalized_are_in_units_of_the_negative_controls(tmp_path):
    found = Plate(tmp_path).run()
    wells, normalized = found["wells"], found["wells_normalized"]
    assert set(normalized["Metadata_Normalized_To"]) == {"3 negative-control wells"}
    controls = wells[wells["Metadata_role"] == "negative_control"]
    for name in [*FEATURES, *EMBEDDING]:
        middle = controls[name].median()
        mad = (controls[name] - middle).abs().median()
        expected = (wells[name] - middle) / (1.4826 * mad)
        np.testing.assert_allclose(normalized[name], expected, rtol=1e-5)


def test_what_is_constant_among_the_controls_has_no_unit(tmp_path):
    plate = Plate(tmp_path)
    for well in ROLES:
        path = plate.job("P1").part("features", well)
        value = 7.0 if ROLES[well] == "negative_control" else 9.0
        parts.write(path, parts.read(path).assign(Nuclei_AreaShape_EulerNumber=value))
    found = plate.run()
    assert found["wells"]["Nuclei_AreaShape_EulerNumber"].notna().all()
    assert found["wells_normalized"]["Nuclei_AreaShape_EulerNumber"].isna().all()
    numbers = found["wells_normalized"][FEATURES].to_numpy()
    assert np.isfinite(numbers).all()


def test_without_negative_controls_all_wells_are_the_measure_and_it_says_so(tmp_path):
    roles = {well: "treatment" for well in ROLES}
    found = Plate(tmp_path, roles=roles).run()
    normalized = found["wells_normalized"]
    assert set(normalized["Metadata_Normalized_To"]) == {
        "all 7 wells with cells: the plate has 0 negative-control well(s) with cells"
    }
    np.testing.assert_allclose(normalized[FEATURES].median(), 0, atol=1e-6)


def test_a_well_without_cells_and_one_in_quarantine(tmp_path):
    plate = Plate(tmp_path)
    plate.well("P1", "B01", cells=0)
    plate.quarantine("P1", "B02", "ingest", "B02 site 1, channel DNA: the TIFF is truncated")
    plate.quarantine("P1", "B10", "segment", "B10: no room for the labels")
    found = plate.run()
    assert set(found["cells"]["Metadata_Well"]) == {"A01", "A02", "A03", "A04"}
    wells = found["wells"].set_index("Metadata_Well")
    assert list(wells.index) == list(ROLES)
    assert wells.loc["B01", "Metadata_Count_Cells"] == 0
    assert np.isnan(wells.loc["B02", "Metadata_Count_Cells"])
    assert "truncated" in wells.loc["B02", "Metadata_Quarantine"]
    assert wells.loc["B01", "Metadata_role"] == wells.loc["B02", "Metadata_role"] == "treatment"
    assert wells.loc[["B01", "B02"], FEATURES].isna().all(axis=None)
    assert np.isfinite(
        found["wells_normalized"].set_index("Metadata_Well").loc["A04", FEATURES]
    ).all()
    sites = found["sites"]
    assert len(sites) == 6 * 2 + 1
    reasons = sites.set_index("Metadata_Well")["Metadata_Quarantine"].dropna()
    assert reasons["B02"] == "ingest: B02 site 1, channel DNA: the TIFF is truncated"
    assert reasons["B10"].tolist() == ["segment: B10: no room for the labels"] * 2
    first = sites[sites["Metadata_Well"] == "A01"]
    assert first["Metadata_Site"].tolist() == [1, 2]
    assert first["Count_Cells"].tolist() == [6, 5]
    assert first["Focus_DNA"].tolist() == [0.1, 0.2]


def test_without_a_model_there_is_no_column_of_one(tmp_path):
    found = Plate(tmp_path, model=False).run()
    columns = [c for c in found["cells"] if c.startswith("Metadata_")]
    assert columns[-1] == "Metadata_batch"
    assert infer_cp_features(found["cells"]) == FEATURES
    assert not [c for c in found["wells"] if "Share" in c or "GradCAMO" in c]


def test_parts_that_no_ledger_vouches_for_stay_out(tmp_path):
    """What attribute and segment left of an earlier run, of a well that they refuse now."""
    plate = Plate(tmp_path)
    for stage in ("segment", "attribute"):
        plate.project.ledger(stage, "P1").add("A01", parts=PARTS, key=None, quarantine="no more")
    found = plate.run()
    cells = found["cells"].set_index("Metadata_Well")
    assert cells.loc["A01", "Metadata_PCIM_Enrichment"].isna().all()
    assert cells.loc["A02", "Metadata_PCIM_Enrichment"].notna().any()
    sites = found["sites"].set_index("Metadata_Well")
    assert sites.loc["A01", "Count_Cells"].isna().all()
    assert sites.loc["A02", "Count_Cells"].tolist() == [6, 5]


def test_without_a_model_an_older_ones_maps_are_no_columns(tmp_path):
    plate = Plate(tmp_path, model=False)
    rows = pd.DataFrame(
        {"Metadata_Site": [1], "Metadata_Cell": [1], "Metadata_PCIM_Enrichment": [2.0]}
    )
    parts.write(plate.job("P1").part("attribute", "A01"), rows)
    plate.project.ledger("attribute", "P1").add("A01", parts=PARTS, key="k", files={})
    assert "Metadata_PCIM_Enrichment" not in plate.run()["cells"]


def test_a_plate_without_any_cell(tmp_path):
    plate = Plate(tmp_path)
    for well in ROLES:
        plate.well("P1", well, cells=0)
    found = plate.run()
    assert len(found["cells"]) == 0
    assert set(FEATURES) < set(found["cells"].columns)
    assert (found["wells"]["Metadata_Count_Cells"] == 0).all()
    assert set(FEATURES) < set(found["wells"].columns)
    aggregate.run_screen(plate.job("screen"))


def test_tables_say_what_made_them_and_are_the_same_again(tmp_path):
    plate = Plate(tmp_path)
    plate.run()
    folder = plate.job("P1").plate_dir
    before = {name: (folder / f"{name}.parquet").read_bytes() for name in TABLES}
    plate.run()
    for name in TABLES:
        assert (folder / f"{name}.parquet").read_bytes() == before[name]
        said = tables.provenance(folder / f"{name}.parquet")
        assert said == plate.project.provenance("aggregate")
        assert said["stages"]["aggregate"] >= 1


def test_how_many_wells_go_through_at_once_changes_nothing(tmp_path, monkeypatch):
    plate = Plate(tmp_path)
    plate.run()
    folder = plate.job("P1").plate_dir
    before = {name: (folder / f"{name}.parquet").read_bytes() for name in TABLES}
    monkeypatch.setattr(aggregate, "TOGETHER", 1)
    plate.run()
    assert before == {name: (folder / f"{name}.parquet").read_bytes() for name in TABLES}


def test_the_screen_has_one_feature_set(tmp_path):
    plate = Plate(tmp_path, names=("P1", "P2"))
    for name in ("P1", "P2"):
        for well in ROLES:  # a copy of a feature, and one that no control varies in
            path = plate.job(name).part("features", well)
            part = parts.read(path)
            part["Nuclei_AreaShape_Perimeter"] = 2 * part["Nuclei_AreaShape_Area"] + 1
            part["Cells_AreaShape_EulerNumber"] = 1.0
            parts.write(path, part)
        plate.well(name, "B10", cells=0)
        plate.run(name)
    aggregate.run_screen(plate.job("screen"))
    path = plate.project.config.results / "screen" / "wells_selected.parquet"
    table = tables.read(path)
    assert table["Metadata_Plate"].tolist() == ["P1"] * 7 + ["P2"] * 7
    left = infer_cp_features(table)
    assert "Cells_AreaShape_EulerNumber" not in left
    assert len({"Nuclei_AreaShape_Perimeter", "Nuclei_AreaShape_Area"} & set(left)) == 1
    assert "Cells_AreaShape_Area" in left
    assert tables.provenance(path) == plate.project.provenance("aggregate")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2.5", "1e-3", ".5"], float),
        (["01", "2", "3", "4"], str),
        (["inf", "1", "2", "3"], str),
        (["", "3", "", "4"], float),
        (["", "", "", ""], type(None)),
    ],
)
def test_numbers_are_told_from_codes(values, kind):
    rows = {f"A0{i}": {"x": value} for i, value in enumerate(values, 1)}
    column = aggregate.platemap_columns(rows)["Metadata_x"]
    filled = column.dropna()
    assert {type(v) for v in filled} == ({kind} if kind is not type(None) else set())
    assert len(filled) == sum(value != "" for value in values)


def test_platemap_columns_never_share_a_name():
    rows = {"A01": {"dose (nM)": "1", "dose [nM]": "2", "Plate": "x", "Count_Cells": "3"}}
    assert list(aggregate.platemap_columns(rows).columns) == [
        "Metadata_dose_nM",
        "Metadata_dose_nM_2",
        "Metadata_Platemap_Plate",
        "Metadata_Platemap_Count_Cells",
    ]
    assert plates.well_order("B01") < plates.well_order("AA01")
