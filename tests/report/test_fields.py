import pandas as pd

from plateglass.report import fields


def table(counts, focus):
    return pd.DataFrame(
        {
            "Metadata_Well": [f"A{i:02d}" for i in range(1, len(counts) + 1)],
            "Metadata_Site": 2,
            "Count_Cells": counts,
            "Focus_DNA": focus,
        }
    )


def test_worst_by_count_and_typical_by_both():
    sites = table([100, 104, 96, 9, 101], [50, 52, 48, 50, 51])
    typical, worst = fields.choose(sites, "Focus_DNA")
    assert (worst.well, worst.site) == ("A04", 2)
    assert "fewest cells" in worst.why
    assert typical.well in {"A01", "A05"}


def test_worst_by_focus():
    sites = table([100, 104, 96, 103, 101], [50, 52, 5, 50, 51])
    assert fields.choose(sites, "Focus_DNA")[1].well == "A03"
    assert "least in focus" in fields.choose(sites, "Focus_DNA")[1].why


def test_focus_may_be_a_logarithm():
    sites = table([100, 104, 96, 103, 101], [-1.5, -1.52, -3.1, -1.49, -1.51])
    assert fields.choose(sites, "Focus_DNA")[1].well == "A03"


def test_without_focus_counts_decide_and_one_site_is_shown_once():
    sites = table([100, 9, 101], [1, 1, 1]).drop(columns="Focus_DNA")
    assert fields.choose(sites, "Focus_DNA")[1].well == "A02"
    assert [f.title for f in fields.choose(sites.head(1), None)] == ["A typical field"]
    assert fields.choose(sites.assign(Count_Cells=None), None) == []
