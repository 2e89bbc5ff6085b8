import numpy as np
import pandas as pd
import pytest

from plateglass import config as settings
from plateglass.report.wells import UNLABELLED, Dose, platemap_column, wells

RAW = {
    "plates": "plates.csv",
    "channels": {"DNA": {"match": "1"}},
    "segment": {"nuclei": {"channel": "DNA"}},
}


def read(tmp_path, **more):
    return settings.parse({**RAW, **more}, tmp_path)


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "Metadata_Plate": "P1",
            "Metadata_Well": ["AA02", "B10", "B02", "A01"],
            "Metadata_role": ["treatment", None, "treatment", "negative_control"],
            "Metadata_dose": [10.0, 0.5, 2.5, np.nan],
            "Metadata_dose_unit": ["nM", "nM", "nM", None],
            "Metadata_Count_Cells": [4, 3, 2, 1],
            "Metadata_Margin": [np.nan, 0.3, 0.2, 0.1],
            "Metadata_GradCAMO": np.nan,
        }
    )


@pytest.fixture
def sites():
    return pd.DataFrame(
        {
            "Metadata_Plate": "P1",
            "Metadata_Well": ["A01", "A01", "A01", "B02"],
            "Focus_DNA": [1.0, 5.0, 2.0, 7.0],
        }
    )


def test_wells_lie_in_the_plates_order_with_their_figures(table, sites, tmp_path):
    found, _ = wells(table, sites, read(tmp_path))
    assert list(found["well"]) == ["A01", "B02", "B10", "AA02"]
    assert list(found["row"]) == [0, 1, 1, 26]
    assert list(found["column"]) == [0, 1, 9, 1]
    assert list(found["label"]) == ["negative_control", "treatment", UNLABELLED, "treatment"]
    assert list(found["count"]) == [1, 2, 3, 4]
    assert found["focus"].tolist()[:2] == [2.0, 7.0]
    assert "gradcamo" not in found  # known of no well


def test_doses_are_ranked_and_keep_their_unit(table, sites, tmp_path):
    found, dose = wells(table, sites, read(tmp_path))
    assert dose == Dose("dose", ("0.5", "2.5", "10"), "nM")
    assert found.set_index("well")["dose_rank"].to_dict() == pytest.approx(
        {"A01": np.nan, "B02": 1, "B10": 0, "AA02": 2}, nan_ok=True
    )


def test_dose_level_goes_before_dose_unless_the_settings_say_so(table, sites, tmp_path):
    table["Metadata_dose_level"] = [3, 1, 2, 0]
    assert wells(table, sites, read(tmp_path))[1].column == "dose_level"
    assert wells(table, sites, read(tmp_path, report={"dose": "dose"}))[1].column == "dose"


def test_two_doses_are_no_dose_response(table, sites, tmp_path):
    table["Metadata_dose"] = [1.0, 1.0, 2.0, 2.0]
    found, dose = wells(table, sites, read(tmp_path))
    assert dose is None
    assert "dose" not in found


def test_a_platemap_column_is_found_under_the_name_that_aggregate_gives_it():
    table = pd.DataFrame({"Metadata_cell_line": ["U2OS", None]})
    assert platemap_column(table, "cell line").tolist() == ["U2OS", ""]
    assert platemap_column(table, "compound") is None
