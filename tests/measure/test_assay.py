"""Assay statistics against values computed by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from plateglass.measure import assay


def test_z_prime_by_hand():
    # means 10 and 2, standard deviations 1 and 0.5: 1 − 3 · 1.5 / 8
    found = assay.z_prime([9, 10, 11], [1.5, 2, 2.5])
    assert found == (pytest.approx(0.4375), 3, 3)
    assert str(found) == "0.44 (3 positive, 3 negative wells)"
    assert np.isnan(assay.z_prime([9], [1, 2]).value)
    assert assay.z_prime([9, 11, np.nan], [1, 2]).positive == 2
    assert np.isnan(assay.z_prime([1, 2], [1, 2]).value)


def test_spearman_by_hand():
    assert assay.spearman([1, 2, 3, 4], [1, 3, 2, 9]) == pytest.approx(0.8)
    assert assay.spearman([1, 2, 3, np.nan], [5, 6, 7, 0]) == 1
    assert np.isnan(assay.spearman([1, 1, 1], [1, 2, 3]))
    assert np.isnan(assay.spearman([], [])) and np.isnan(assay.spearman([1], [np.nan]))


def test_bootstrap_of_a_mean_is_as_wide_as_theory_says():
    values = np.random.default_rng(3).normal(5, 2, 200)
    found = assay.bootstrap(lambda at: values[at].mean(-1), ["a"] * 200)
    half = 1.96 * values.std() / np.sqrt(200)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.05)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05)
    assert found == assay.bootstrap(lambda at: values[at].mean(-1), ["a"] * 200)  # same seed


def test_bootstrap_keeps_every_class_as_it_is():
    strata = np.array(["n"] * 8 + ["p"] * 4)
    seen = set()

    def share(at):
        kinds = [(strata[at] == kind).sum(-1) for kind in "np"]
        seen.update(zip(*(np.atleast_1d(kind).tolist() for kind in kinds)))
        return np.zeros(at.shape[:-1])

    assay.bootstrap(share, strata, draws=50)
    assert seen == {(8, 4)}


def test_draws_together_are_those_of_one_by_one(monkeypatch):
    """Every statistic of a thousand draws is that of each alone, however many are drawn at once."""
    rng = np.random.default_rng(5)
    dose, response = rng.integers(0, 5, 30).astype(float), rng.normal(size=30).round(1)
    dose[3] = response[7] = np.nan
    kinds = np.arange(30) % 3 == 0
    wells = pd.DataFrame({"label": kinds, "cells": rng.integers(1, 9, 30)})
    wells["hits"] = rng.binomial(wells["cells"], 0.8)
    values = rng.normal(size=30)

    def ranked(at):
        known = at[np.isfinite(dose[at] + response[at])]
        return stats.spearmanr(dose[known], response[known])[0]

    def apart(at):
        high, low = values[at][kinds[at]], values[at][~kinds[at]]
        return 1 - 3 * (np.std(high, ddof=1) + np.std(low, ddof=1)) / abs(high.mean() - low.mean())

    def accuracy(at):
        by = wells.iloc[at].groupby("label")[["hits", "cells"]].sum()
        return (by["hits"] / by["cells"]).mean()

    for statistic, alone in (
        (assay.spearman_statistic(dose, response), ranked),
        (assay.balanced_statistic(wells), accuracy),
        (assay.z_prime_statistic(values, kinds), apart),
    ):
        drawn = []

        def noted(at, statistic=statistic, drawn=drawn):
            drawn.extend(at.reshape(-1, 30))
            return statistic(at)

        found = assay.bootstrap(noted, kinds, draws=40)
        assert len(drawn) == 1 + 40
        together = statistic(np.stack(drawn[1:]))
        assert together == pytest.approx([alone(at) for at in drawn[1:]])
        assert found[1:3] == pytest.approx(np.percentile(together, [2.5, 97.5]))
        with monkeypatch.context() as few:
            few.setattr(assay, "AT_ONCE", 70)
            assert assay.bootstrap(statistic, kinds, draws=40) == found


def test_with_fewer_than_four_wells_of_a_class_there_is_no_interval():
    found = assay.bootstrap(lambda at: np.ones(at.shape[:-1]), ["n"] * 8 + ["p"] * 3)
    assert found == (1.0, None, None, 11)
    assert "too few" in str(found)


def test_a_paired_difference_cancels_what_the_wells_share():
    rng = np.random.default_rng(0)
    first = rng.normal(0, 10, 40)
    second = first + 0.5
    found = assay.bootstrap(lambda at: second[at].mean(-1) - first[at].mean(-1), ["a"] * 40)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def cells():
    return pd.DataFrame(
        {
            "Metadata_Plate": "P",
            "Metadata_Well": ["A01", "A01", "A02", "A02", "A02", "A03", "A04"],
            "Metadata_Site": 1,
            "Metadata_role": ["neg", "neg", "pos", "pos", "pos", "neg", None],
            "Metadata_Class": ["neg", "pos", "pos", "pos", "neg", "neg", "pos"],
            "Metadata_Enrichment": [1.0, 3, 2, np.nan, 4, 8, 9],
            "Nuclei_Intensity_MeanIntensity_GFP": [30, 20, 10, 50, 20, 10, 8],
            "Cytoplasm_Intensity_MeanIntensity_GFP": [15, 10, 15, 10, 12, 4, 5],
        }
    )


def test_balanced_accuracy_by_hand():
    wells = assay.hits(cells(), "Metadata_role")
    assert wells["Metadata_Well"].tolist() == ["A01", "A02", "A03"]
    assert wells[["label", "cells", "hits"]].values.tolist() == [
        ["neg", 2, 1],
        ["pos", 3, 2],
        ["neg", 1, 1],
    ]
    found = assay.balanced_accuracy(wells)
    assert found.value == pytest.approx((2 / 3 + 2 / 3) / 2)  # neg 2 of 3, pos 2 of 3
    assert assay.balanced_statistic(wells)(np.array([1, 2, 2])) == pytest.approx((1 + 2 / 3) / 2)


def test_balanced_accuracy_has_an_interval_over_wells():
    rng = np.random.default_rng(1)
    wells = pd.DataFrame({"label": ["n"] * 8 + ["p"] * 4, "cells": 100})
    wells["hits"] = rng.integers(80, 100, 12)
    found = assay.balanced_accuracy(wells)
    assert 0.8 < found.low < found.value < found.high < 1
    assert found.wells == 12


def test_mean_of_cells_leaves_nulls_out():
    found = assay.mean_of_cells(cells(), "Metadata_Enrichment", "Metadata_role")
    assert found.value == pytest.approx((1 + 3 + 2 + 4 + 8) / 5)
    assert found.wells == 3


def test_nucleus_to_cytoplasm_by_hand():
    ratio = assay.nucleus_to_cytoplasm(cells(), "GFP")
    assert ratio.tolist()[:3] == pytest.approx([2, 2, 10 / 15])
    sites = pd.DataFrame(
        {
            "Metadata_Plate": "P",
            "Metadata_Well": ["A01", "A02", "A03", "A04"],
            "Metadata_Site": 1,
            "Background_GFP": [5.0, 10, 4, 4],
        }
    )
    ratio = assay.nucleus_to_cytoplasm(cells(), "GFP", sites)
    assert ratio.tolist()[:3] == pytest.approx([2.5, 3, 0])
    assert np.isnan(ratio[3])  # cytoplasm 10 on a background of 10
    assert np.isnan(ratio[5])
    assert ratio[6] == 4
