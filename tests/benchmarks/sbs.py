"""Figures of a finished run on the real plate (config/sbs.yaml): the tables docs/benchmarks.md cites.

    python tests/benchmarks/sbs.py --results results/sbs [--real-data DIR] [--json FILE]

Reads the run's tables and model alone, computes nothing anew. Values of training wells are out of
fold. Intervals are over wells; a class of fewer than four wells is printed well by well instead.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from plateglass import tables
from plateglass.measure import assay

LABEL, CLASS = "Metadata_role", "Metadata_Class"
NEGATIVE, POSITIVE = CONTROLS = ("negative_control", "positive_control")
DOSE = "Metadata_dose_level"
CHANNEL = "GFP"
EVALUATION = "sbs_E-F"
OUTLINED = ("A01", "B01", "A12", "B12")  # wells of bbbc013_cells


class Figures:
    """What was measured: lines as they are printed, and a dictionary for ``--json``."""

    def __init__(self):
        self.found: dict[str, dict] = {}
        self.section = ""

    def head(self, title: str) -> None:
        self.section = title
        self.found[title] = {}
        print(f"\n## {title}\n")

    def say(self, name: str, value: object, note: str = "") -> None:
        plain = value._asdict() if hasattr(value, "_asdict") else value
        self.found[self.section][name] = plain
        text = f"{value:.3f}" if isinstance(value, float) else str(value)
        print(f"- {name}: {text}{f' – {note}' if note else ''}")

    def table(self, frame: pd.DataFrame) -> None:
        print("\n" + frame.to_string(index=False, float_format=lambda x: f"{x:.3f}") + "\n")


def main() -> None:
    """Print every figure of a run's plates and of its model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--real-data", type=Path, help="folder that holds bbbc013_cells")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    given = parser.parse_args()
    figures = Figures()
    costs(figures, given.results / ".plateglass" / "costs.jsonl")
    model(figures, given.results / "screen" / "model")
    for path in sorted(given.results.glob("*/cells.parquet")):
        plate(figures, path.parent, given.results / "screen" / "model")
    if given.real_data is not None:
        outlines(figures, given.results, given.real_data / "bbbc013_cells")
    bars(figures)
    if given.json is not None:
        given.json.write_text(json.dumps(figures.found, indent=1, default=str) + "\n")


def costs(figures: Figures, path: Path) -> None:
    """Wall time and peak memory of each stage's longest run, as the jobs noted them."""
    figures.head("cost of each stage")
    if not path.exists():
        figures.say("jobs", "none")
        return
    table = pd.read_json(path, lines=True)
    keys = ["plate", "stage"]
    table = table.sort_values("seconds").groupby(keys).last().reset_index()
    table = table[[*keys, "threads", "seconds", "peak_mb", "peak_worker_mb"]]
    figures.found[figures.section]["stages"] = table.to_dict("records")
    figures.table(table)
    figures.say("seconds in jobs, as if one after another", float(table["seconds"].sum()))
    figures.say("largest process, MB", int(table[["peak_mb", "peak_worker_mb"]].max(axis=None)))


def model(figures: Figures, folder: Path) -> None:
    """DCMIX weights, ablations and controls, as train measured them out of fold."""
    figures.head("model")
    if not (folder / "model.json").exists():
        figures.say("model", "none: no network was trained")
        return
    for name in ("channels", "controls"):
        if (folder / f"{name}.parquet").exists():
            table = tables.read(folder / f"{name}.parquet")
            figures.found["model"][name] = table.to_dict("records")
            figures.table(table)


def plate(figures: Figures, folder: Path, model_dir: Path) -> None:
    """Every figure of one plate."""
    figures.head(folder.name)
    cells = tables.read(folder / "cells.parquet")
    sites = tables.read(folder / "sites.parquet")
    wells = tables.read(folder / "wells.parquet")
    known = cells[cells[LABEL].isin([NEGATIVE, POSITIVE])]
    counts = wells[wells[LABEL].isin([NEGATIVE, POSITIVE])]["Metadata_Count_Cells"]
    figures.say("cells", len(cells))
    figures.say("cells per control well, mean", float(counts.mean()))
    figures.say("cells per control well, least", int(counts.min()))
    inside = int((~known["Metadata_Edge"]).sum()) / len(counts)
    figures.say("the same without cells at the field's edge, mean", inside)
    whole = [whole_nuclei(folder / "plate.zarr", well) for well in set(known["Metadata_Well"])]
    figures.say(
        "nuclei that the field does not cut, mean", float(np.mean(whole)), f"least {min(whole)}"
    )
    ratio = assay.nucleus_to_cytoplasm(cells, CHANNEL, sites)
    scores = {"nucleus / cytoplasm": ratio.groupby(cells["Metadata_Well"]).median()}
    if "Metadata_Margin" in cells:
        margin = cells.groupby("Metadata_Well")["Metadata_Margin"].mean()
        scores = {"margin": margin, **scores}
        accuracy(figures, known)
        audit(figures, known, cells, model_dir)
    separation(figures, wells.set_index("Metadata_Well"), scores)


def whole_nuclei(root: Path, well: str) -> int:
    """Nuclei of a well's one field that its border does not cut: CellProfiler keeps these by default."""
    from plateglass import store

    labels = store.read_labels(root, well, 0, "nuclei")[0]
    return len({*np.unique(labels)} - {0} - rim_of(labels))


def rim_of(labels: np.ndarray) -> set[int]:
    """Labels (y, x) that touch the border."""
    return {*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]} - {0}


def accuracy(figures: Figures, known: pd.DataFrame) -> None:
    """Balanced accuracy, and beside it what the controls leave of it."""
    full = assay.hits(known, LABEL)
    figures.say("balanced accuracy", assay.balanced_accuracy(full))
    rows = full.assign(accuracy=full["hits"] / full["cells"])
    figures.table(rows[["Metadata_Well", "label", "cells", "accuracy"]])
    for column in [c for c in known.columns if c.startswith(f"{CLASS}_")]:
        control = column.removeprefix(f"{CLASS}_")
        left = assay.hits(known, LABEL, column)
        figures.say(f"balanced accuracy, {control}", assay.balanced_accuracy(left))
        if left[["Metadata_Well", "cells"]].equals(full[["Metadata_Well", "cells"]]):
            with_, without = assay.balanced_statistic(full), assay.balanced_statistic(left)
            lost = assay.bootstrap(lambda at: with_(at) - without(at), full["label"])  # noqa: B023
            figures.say(f"lost by {control}", lost)
        shares = known[column].value_counts(normalize=True)
        figures.say(
            f"called, {control}", ", ".join(f"{k} {v:.2f}" for k, v in sorted(shares.items()))
        )
    found = figures.found[figures.section]
    erased = [v["value"] for k, v in found.items() if k.startswith("balanced accuracy, Erased")]
    if erased:
        figures.say("balanced accuracy, cell erased, the worse of both fills", max(erased))
    negative = known[known[LABEL] == NEGATIVE]
    called = (negative[CLASS] == POSITIVE).groupby(negative["Metadata_Well"]).mean()
    by_column = called.groupby(called.index.str[1:]).mean()
    if {"02", "12"} <= set(by_column.index):
        figures.say("column: called positive in 12 less in 2", by_column["12"] - by_column["02"])


def audit(figures: Figures, known: pd.DataFrame, cells: pd.DataFrame, model_dir: Path) -> None:
    """Whether the network looked at the cell: Grad-CAMO, enrichment, nulls, reliance."""
    side = json.loads((model_dir / "model.json").read_text())["crop"]["px"]
    ceiling = side**2 / known["Cells_AreaShape_Area"]
    figures.say("enrichment's ceiling (HW / |m|), mean", float(ceiling.mean()))
    for column in ("GradCAMO", "Enrichment", "Reliance"):
        name = f"Metadata_{column}"
        figures.say(column, assay.mean_of_cells(known, name, LABEL), "control wells")
        for by, kind in ((LABEL, "wells of"), (CLASS, "cells called")):
            for label, part in known.groupby(by):
                figures.say(
                    f"{column}, {kind} {label}",
                    assay.mean_of_cells(part, name, LABEL) if by == LABEL else part[name].mean(),
                )
        figures.say(f"{column}, all wells", float(cells[name].mean()))
    figures.say("null share, control wells", float(known["Metadata_GradCAMO"].isna().mean()))
    figures.say("null share, all wells", float(cells["Metadata_GradCAMO"].isna().mean()))


def separation(figures: Figures, wells: pd.DataFrame, scores: dict[str, pd.Series]) -> None:
    """Z′ and dose response of each score; the paired difference of the first to the last."""
    treated = wells[wells[LABEL] == "treatment"]
    dose = pd.to_numeric(treated[DOSE]).to_numpy()
    for name, score in scores.items():
        by = {label: score.reindex(wells.index[wells[LABEL] == label]) for label in CONTROLS}
        figures.say(f"Z′, {name}", assay.z_prime(by[POSITIVE], by[NEGATIVE]))
        values = score.reindex(treated.index).to_numpy()
        rho = assay.bootstrap(assay.spearman_statistic(dose, values), np.ones(len(dose)))
        figures.say(f"dose ρ, {name}", rho, "treatment wells")
        every = pd.to_numeric(wells[DOSE]).to_numpy()
        whole = assay.spearman(every, score.reindex(wells.index).to_numpy())
        figures.say(f"dose ρ with the controls, {name}", whole, f"{len(every)} wells")
    if len(scores) > 1:
        (first, a), *_, (last, b) = scores.items()
        of = [assay.spearman_statistic(dose, x.reindex(treated.index).to_numpy()) for x in (a, b)]
        figures.say(
            f"dose ρ, {first} less {last}, paired",
            assay.bootstrap(lambda at: of[0](at) - of[1](at), np.ones(len(dose))),
        )
    shown = pd.DataFrame({"well": treated.index, "dose": dose})
    for name, score in scores.items():
        shown[name] = score.reindex(treated.index).to_numpy()
    figures.table(shown.groupby("dose", as_index=False).mean(numeric_only=True))


def outlines(figures: Figures, results: Path, folder: Path) -> None:
    """IoU of our cells with outlines of another segmentation; what hand-labelled cells are called."""
    from tifffile import imread

    from plateglass import store

    figures.head("cells against the outlines of bbbc013_cells")
    labelled = pd.read_csv(folder / "cells.csv").query("label != 'Unknown'")
    found: list[float] = []
    hand: list[pd.DataFrame] = []
    for path in sorted(results.glob("*/plate.zarr")):
        cells = tables.read(path.parent / "cells.parquet")
        for well in [well for well in OUTLINED if well in store.wells(path)]:
            truth = imread(folder / "cell_labels" / f"{well}.tif").astype(np.int64)
            best = best_match(truth, store.read_labels(path, well, 0, "cells")[0])
            found += best["iou"].tolist()
            figures.say(f"mean IoU, {well}", float(best["iou"].mean()), f"{len(best)} outlines")
            rim = rim_of(truth)
            own = cells[cells["Metadata_Well"] == well]
            note = f"{own['Metadata_Edge'].sum()} at the field's edge; of the outlines {len(rim)}"
            figures.say(f"cells, {well}", len(own), note)
            within = np.bincount(
                holders(truth, store.read_labels(path, well, 0, "nuclei")[0]),
                minlength=truth.max() + 1,
            )
            of_outlines = within[np.unique(truth[truth > 0])]
            more, none = (of_outlines - 1).clip(0).sum(), (of_outlines == 0).sum()
            note = (
                f"{within.sum()} nuclei that the field does not cut: {within[0]} mostly outside of "
                f"outlines, {more} more than one in an outline; {none} outlines hold none"
            )
            figures.say(
                f"outlines that hold nuclei, {well}: two or more",
                int((of_outlines > 1).sum()),
                note,
            )
            rows = labelled[labelled["well"] == well].merge(best, on="object_label")
            hand.append(rows[rows["iou"] >= 0.5].merge(own, on="Metadata_Cell"))
    if not found:
        return
    figures.say("mean IoU", float(np.mean(found)), f"{len(found)} outlines, best match of each")
    figures.say("share of outlines with IoU ≥ 0.5", float(np.mean(np.array(found) >= 0.5)))
    matched = pd.concat(hand)
    if CLASS in matched:
        matched["right"] = matched[CLASS] == matched[LABEL]
        by = matched.groupby(["label", LABEL])["right"].agg(["size", "mean"]).reset_index()
        figures.found[figures.section]["hand labels"] = by.to_dict("records")
        figures.table(by)
        shown = matched[matched["label"] != "NoGFP"].groupby(LABEL)["right"].mean()
        figures.say("balanced accuracy, cells hand-labelled as showing GFP", float(shown.mean()))


def holders(truth: np.ndarray, nuclei: np.ndarray) -> np.ndarray:
    """For each nucleus that the field does not cut, the outline most of it lies in; 0: none."""
    size = int(truth.max()) + 1
    both = np.bincount(nuclei.ravel() * size + truth.ravel(), minlength=(nuclei.max() + 1) * size)
    whole = sorted({*np.unique(nuclei)} - {0} - rim_of(nuclei))
    return both.reshape(-1, size)[whole].argmax(1)


def bars(figures: Figures) -> None:
    """The figures that were to be reached on the plate that was never trained on."""
    found = figures.found.get(EVALUATION, {})
    full = _number(found.get("balanced accuracy"))
    outlined = figures.found.get("cells against the outlines of bbbc013_cells", {})
    wanted = [
        ("cells per control well, mean", found, 165, 200),
        ("cells per control well, least", found, 130, None),
        ("mean IoU", outlined, 0.6, None),
        ("balanced accuracy", found, 0.95, None),
        ("balanced accuracy, Shuffled_GFP", found, None, 0.60),
        ("balanced accuracy, Shuffled_DNA", found, full - 0.08, None),
        ("balanced accuracy, cell erased, the worse of both fills", found, None, 0.70),
        ("dose ρ, margin", found, 0.85, None),
        ("Enrichment", found, 2.0, None),
        (f"Enrichment, cells called {NEGATIVE}", found, 1.7, None),
        (f"Enrichment, cells called {POSITIVE}", found, 1.7, None),
        ("null share, control wells", found, None, 0.01),
    ]
    rows = []
    for name, section, least, most in wanted:
        value = _number(section.get(name))
        met = (least is None or value >= least) and (most is None or value <= most)
        bar = " to ".join(f"{bound:g}" for bound in (least, most) if bound is not None)
        bar = (
            bar
            if least is not None and most is not None
            else f"{'≥' if most is None else '≤'} {bar}"
        )
        rows.append({"figure": name, "value": value, "bar": bar, "met": "yes" if met else "NO"})
    figures.head(f"bars, on {EVALUATION}")
    figures.found[figures.section]["bars"] = rows
    figures.table(pd.DataFrame(rows))


def _number(value: object) -> float:
    """A figure's plain number; NaN, which meets no bar, where there is none."""
    value = value["value"] if isinstance(value, dict) else value
    return float("nan") if value is None else float(value)


def best_match(truth: np.ndarray, ours: np.ndarray) -> pd.DataFrame:
    """For each object of ``truth`` its ``object_label``, our best ``Metadata_Cell`` and their ``iou``."""
    numbers = np.unique(truth[truth > 0])
    size = int(ours.max()) + 1
    both = np.bincount(truth.ravel() * size + ours.ravel(), minlength=(truth.max() + 1) * size)
    both = both.reshape(-1, size)
    union = both.sum(1)[:, None] + both.sum(0)[None] - both
    iou = (both / np.maximum(union, 1))[numbers]
    iou[:, 0] = 0  # our background is no cell
    cell = iou.argmax(1)
    return pd.DataFrame({"object_label": numbers, "Metadata_Cell": cell, "iou": iou.max(1)})


if __name__ == "__main__":
    main()
