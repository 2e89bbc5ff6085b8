import numpy as np
import pandas as pd
import pytest

from plateglass.measure import assay
from plateglass.report import audit, head
from plateglass.report.page import Page
from plateglass.report.subject import Subject


@pytest.fixture(scope="module")
def subject(screen):
    return Subject.read(screen.of("P2"), ["P2"])


@pytest.fixture(scope="module")
def table(subject):
    return audit.controls([("Plate P2", subject.cells["P2"]), ("Training", None)], subject)


def row(table, name):
    return next(r for r in table["rows"] if r["name"].startswith(name))["cells"]


def test_of_two_ways_to_erase_a_cell_the_worse_counts(table, subject):
    cells = subject.cells["P2"]
    known = cells[cells["label"].isin(["negative_control", "positive_control"])]
    right = {
        column: np.mean([(own[column] == label).mean() for label, own in known.groupby("label")])
        for column in ("Metadata_Class_Erased", "Metadata_Class_Erased_Texture")
    }
    here, trained = row(table, "Cell erased")
    assert float(here["value"]) == pytest.approx(max(right.values()), abs=0.006)
    assert trained["value"] == "0.61"
    assert trained["called"] == "called 70% negative_control, 30% positive_control"


def test_every_control_has_its_row_in_reading_order(table):
    assert [r["name"] for r in table["rows"]] == [
        "All as it is",
        "Cell erased",
        "Trained without cells",
        "Labels permuted",
        "DNA shuffled between cells",
        "Marker shuffled between cells",
        "Called positive: last column less first",
    ]
    assert table["columns"] == ["Plate P2", "Training"]
    assert "3 seeds, on the training wells out of fold: 0.95, 0.95, 0.96" in table["note"]


def test_verdicts_and_where_they_stand(table):
    full, _ = row(table, "All as it is")
    assert (full["verdict"], full["alarm"]) == ("good", False)
    assert full["span"][0] <= full["at"] <= full["span"][1]
    background, _ = row(table, "Trained without cells")
    assert background["verdict"] == ""  # nothing to want
    column, trained = row(table, "Called positive: last column less first")
    assert trained["value"] == "0.03"
    assert column["interval"] is None
    assert column["chance"] == sum(audit.RAIL) / 2  # a difference: from −1 to 1
    assert trained["at"] == pytest.approx(
        column["chance"] + 0.03 / 2 * (audit.RAIL[1] - 3), abs=0.4
    )
    glosses = {r["name"]: r["gloss"] for r in table["rows"]}
    assert glosses["Called positive: last column less first"].endswith(
        "Warns beyond ±0.10; the scale is from −1 to 1."
    )
    assert glosses["Cell erased"].endswith("Warns more than 0.20 away from chance.")


def test_a_network_that_cheats_is_told(subject):
    cells = subject.cells["P2"].copy()
    cells["Metadata_Class_Erased"] = cells["label"]  # right without the cell
    table = audit.controls([("Plate P2", cells)], subject)
    [erased] = row(table, "Cell erased")
    assert (erased["value"], erased["verdict"], erased["alarm"]) == ("1.00", "above chance", True)


def test_a_class_that_is_never_called_counts_as_missed(subject):
    cells = subject.cells["P2"].assign(Metadata_Class="negative_control")
    table = audit.controls([("Plate P2", cells)], subject)
    [full] = row(table, "All as it is")
    assert (full["value"], full["verdict"]) == ("0.50", "low")


def test_a_plate_without_labelled_cells_says_so(subject):
    cells = subject.cells["P2"].assign(label="treatment")
    table = audit.controls([("Plate P2", cells)], subject)
    assert table["rows"] == []
    assert "nothing to control" in table["absent"][0]


def test_without_control_networks_it_says_what_is_not_known(subject):
    cells = subject.cells["P2"]
    kept = cells[[c for c in cells if not c.startswith("Metadata_Class_")]]
    table = audit.controls([("Plate P2", kept)], subject)
    assert [r["name"] for r in table["rows"]] == [
        "All as it is",
        "Called positive: last column less first",
    ]
    assert "No control networks were trained" in table["absent"][0]


def test_weights_at_chance_are_left_out(tmp_path):
    table = pd.DataFrame(
        {
            "channel": ["a", "b"],
            "log_alpha": np.nan,
            "alpha_seed0": np.nan,
            "accuracy": 0.5,
            "ablation": [0.5, 0.5],
            "ablation_low": np.nan,
            "ablation_high": np.nan,
            "copy_of": [None, "a"],
        }
    )
    table.to_parquet(tmp_path / "channels.parquet")
    found = audit.channels(Page(), tmp_path, 2)
    assert [plot.name for plot in found["plots"]] == ["ablation"]
    assert "at chance" in found["absent"][0]
    assert "b is like a" in found["absent"][1]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("column", -0.104, "is −0.104, beyond ±0.10"),
        ("column", -0.25, "is −0.25, beyond ±0.10"),
        ("full", 0.797, "is 0.797, below 0.80"),
        ("full", 0.4, "is 0.40, below 0.80"),
        ("erased", 0.7004, "is 0.7004, more than 0.20 away from chance at 0.50"),
        ("permuted", 0.2, "is 0.20, more than 0.20 away from chance at 0.50"),
    ],
)
def test_a_control_that_fails_names_its_value_and_its_limit(key, value, said):
    figure = assay.Interval(value, None, None, 9)
    found = audit._row((key, ""), ["Plate P1"], [(figure, "")], 0.5)
    [failed] = head.failed({"rows": [found]})
    assert said in failed
    assert failed.endswith(" (Plate P1)")
    assert failed.count("(") == 1


@pytest.mark.parametrize(("key", "value"), [("column", 0.8 - 0.7), ("full", 0.8), ("erased", 0.7)])
def test_a_value_on_its_limit_does_not_fail(key, value):
    figure = assay.Interval(value, None, None, 9)
    assert head.failed({"rows": [audit._row((key, ""), ["P"], [(figure, "")], 0.5)]}) == []


def test_networks_of_fewer_epochs_are_told(screen):
    found = audit.history(Page(), screen.model_dir)
    assert found["plots"][0].caption.endswith(
        "The control and single-channel networks had 4 of the 8 epochs: their lines end there."
    )


def test_networks_that_all_had_the_same_epochs_are_not(screen, tmp_path):
    table = pd.read_parquet(screen.model_dir / "history.parquet").query("epoch <= 4")
    table.to_parquet(tmp_path / "history.parquet")
    assert "had 4" not in audit.history(Page(), tmp_path)["plots"][0].caption


def test_what_a_network_without_cells_found_is_not_called_the_most(table):
    gloss = next(r["gloss"] for r in table["rows"] if r["name"] == "Trained without cells")
    assert "the most" not in gloss
    assert "for fewer epochs" in gloss
