import numpy as np
import pandas as pd
import pytest

from plateglass.measure import assay
from plateglass.report import response
from plateglass.report.wells import Dose


@pytest.fixture
def wells():
    rng = np.random.default_rng(0)
    rows = [("negative_control", np.nan, -2.0)] * 5 + [("positive_control", np.nan, 2.0)] * 4
    rows += [("treatment", rank, rank - 1.5) for rank in range(4)] * 3
    found = pd.DataFrame(rows, columns=["label", "dose_rank", "margin"])
    return found.assign(margin=found["margin"] + rng.normal(0, 0.1, len(found)), plate="P1")


DOSE = Dose("dose_level", ("1", "2", "3", "4"), "level")


def test_quality_is_the_assays_own_over_wells(wells):
    found = response.quality(wells, DOSE, "negative_control", "positive_control")
    by = {label: own["margin"].to_numpy() for label, own in wells.groupby("label")}
    z = assay.z_prime(by["positive_control"], by["negative_control"])
    assert found["Z′"].value == pytest.approx(z.value)
    assert found["Z′"].low < z.value
    assert found["Z′"].wells == 9
    treated = wells[wells["label"] == "treatment"]
    assert found["dose ρ"].value == pytest.approx(
        assay.spearman(treated["dose_rank"], treated["margin"])
    )
    assert found["dose ρ"].wells == 12  # the controls have no say


def test_fewer_than_four_wells_of_a_class_have_no_interval(wells):
    fewer = wells.drop(wells.index[[5, 6]])
    found = response.quality(fewer, DOSE, "negative_control", "positive_control")
    assert found["Z′"].low is None
    assert response.span(found["Z′"]) == "too few wells"


def test_one_positive_well_has_no_z_prime(wells):
    one = wells.drop(wells.index[5:8])
    assert "Z′" not in response.quality(one, None, "negative_control", "positive_control")


def test_without_margins_there_is_nothing_to_say():
    wells = pd.DataFrame({"label": ["a"], "count": [3]})
    assert response.quality(wells, None, "a", "b") == {}


def test_means_with_intervals_only_where_there_are_four_wells(wells):
    means = response.summarise(wells, "margin", ["label"]).set_index("label")
    own = wells.loc[wells["label"] == "positive_control", "margin"]
    assert means.loc["positive_control", "mean"] == pytest.approx(own.mean())
    assert means.loc["positive_control", "low"] < own.mean() < means.loc["positive_control", "high"]
    fewer = response.summarise(wells.drop(wells.index[5]), "margin", ["label"]).set_index("label")
    assert pd.isna(fewer.loc["positive_control", "low"])
    assert fewer.loc["positive_control", "wells"] == 3


def test_jitter_is_the_same_each_time_and_stays_in_its_lane():
    values = pd.Series([3.0, 1.0, 2.0, 2.5])
    groups = pd.Series(["a", "a", "a", "b"])
    found = response.jitter(values, groups)
    assert found.between(-1, 1).all()
    assert found[:3].nunique() == 3
    pd.testing.assert_series_equal(found, response.jitter(values, groups))
