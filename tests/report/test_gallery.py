import numpy as np
import pandas as pd
import pytest

from plateglass.report import gallery


@pytest.fixture
def cells():
    rng = np.random.default_rng(1)
    count = 400
    return pd.DataFrame(
        {
            "Metadata_Well": rng.choice(["A01", "A02", "B01", "B02", "C01"], count),
            "Metadata_Site": 1,
            "Metadata_Cell": np.arange(count),
            "Metadata_Edge": rng.random(count) < 0.1,
            "Metadata_Class": rng.choice(["yes", "no"], count),
            "Metadata_GradCAMO": rng.random(count),
        }
    )


def test_tiers_hold_the_highest_the_lowest_and_the_median(cells):
    chosen = gallery.choose(cells, 8)
    by = {tier: own["Metadata_GradCAMO"] for tier, own in chosen.groupby("tier")}
    assert {tier: len(own) for tier, own in by.items()} == {"best": 8, "typical": 8, "worst": 8}
    inside = cells[~cells["Metadata_Edge"]]
    assert by["best"].min() > inside["Metadata_GradCAMO"].quantile(0.9)
    assert by["worst"].max() < inside["Metadata_GradCAMO"].quantile(0.1)
    assert (by["typical"] - inside["Metadata_GradCAMO"].median()).abs().max() < 0.06
    assert by["best"].max() == inside["Metadata_GradCAMO"].max()


def test_classes_take_turns_and_wells_are_many(cells):
    best = gallery.choose(cells, 8).query("tier == 'best'")
    assert list(best["Metadata_Class"]) == ["no", "yes"] * 4
    for _, own in best.groupby("Metadata_Class"):
        assert own["Metadata_Well"].nunique() == 4


def test_edge_cells_and_empty_maps_are_passed_over(cells):
    cells.loc[3, "Metadata_GradCAMO"] = np.nan
    chosen = gallery.choose(cells, 20)
    assert not chosen["Metadata_Edge"].any()
    assert 3 not in set(chosen["Metadata_Cell"])
    all_edge = cells.assign(Metadata_Edge=True)
    assert len(gallery.choose(all_edge, 4)) == 12  # better than none


def test_the_order_of_the_rows_plays_no_part(cells):
    cells["Metadata_GradCAMO"] = cells["Metadata_GradCAMO"].round(1)  # many ties
    shuffled = cells.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(gallery.choose(cells, 8), gallery.choose(shuffled, 8))


def test_a_caption_says_what_was_called_where_and_how_well_it_is_backed():
    """In lines of their own, none of which begins with a dash or a dot."""
    row = {
        "Metadata_GradCAMO": 0.9,
        "Metadata_Enrichment": 3.14,
        "Metadata_Reliance": 0.02,
        "Metadata_Class": "positive_control",
        "label": "treatment",
    }
    assert gallery._what(row) == (
        "Grad-CAMO 0.90\u00a0· enrichment 3.1×\u00a0· reliance on background 0.02"
    )
    assert gallery._said(row) == "called positive_control in a well labelled treatment"
