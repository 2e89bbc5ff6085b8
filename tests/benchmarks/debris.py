"""Which nuclei of the real plate are debris: its cells held against another segmentation's outlines.

    python tests/benchmarks/debris.py --real-data DIR

Control wells of rows A–D alone; nuclei by nuclei-small. For each ``segment.nuclei.debris``: cells a
control well, those that the field does not cut, and in the wells of ``bbbc013_cells``, whose
outlines leave out what the field cuts: outlines that hold no nucleus and that hold more than one,
nuclei beyond one an outline or mostly outside of outlines, and F1, for which an outline is found
where it holds a nucleus and every other nucleus is one too many. *cut too*: cells a control well
where nuclei that the field cuts are held to the same.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sbs import OUTLINED, holders
from tifffile import imread

from plateglass.models import cells, nuclei

SHARES = (0.0, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)


def main() -> None:
    """Print a row for each share."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--real-data", type=Path, required=True)
    folder = parser.parse_args().real_data
    wells = pd.read_csv(folder / "sbs_rows_A-D" / "platemap.csv").query("role != 'treatment'")
    segment = nuclei.load("nuclei-small")
    found = {
        well: segment(imread(folder / "sbs_rows_A-D" / "images" / Path(file).name))
        for well, file in zip(wells["well"], wells["dna_file"])
    }
    outlines = {w: imread(folder / "bbbc013_cells" / "cell_labels" / f"{w}.tif") for w in OUTLINED}
    rows = [row(share, found, outlines) for share in SHARES]
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.3f"))


def row(share: float, found: dict[str, np.ndarray], outlines: dict[str, np.ndarray]) -> dict:
    """The figures of one share."""
    kept = {well: cells.drop_debris(labels, share)[0] for well, labels in found.items()}
    count = [len(np.unique(labels)) - 1 for labels in kept.values()]
    whole = [int((~cells.at_edge(labels)).sum()) for labels in map(renumbered, kept.values())]
    held = {w: holders(of.astype(np.int64), kept[w]) for w, of in outlines.items()}
    within = [np.bincount(held[w], minlength=of.max() + 1) for w, of in outlines.items()]
    of = np.concatenate([n[np.unique(t[t > 0])] for n, t in zip(within, outlines.values())])
    surplus, outside = int((of - 1).clip(0).sum()), int(sum(n[0] for n in within))
    right, wrong = int((of > 0).sum()), int((of == 0).sum()) + surplus + outside
    return {
        "debris": share,
        "cells": np.mean(count),
        "cut too": np.mean([small_too(labels, share) for labels in found.values()]),
        "whole": np.mean(whole),
        "none": int((of == 0).sum()),
        "several": int((of > 1).sum()),
        "beyond one": surplus,
        "outside": outside,
        "F1": 2 * right / (2 * right + wrong),
    }


def renumbered(labels: np.ndarray) -> np.ndarray:
    """Labels 1..N."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def small_too(labels: np.ndarray, share: float) -> int:
    """Nuclei that are left where the field's edge excuses none."""
    areas = np.bincount(labels.ravel())[1:]
    width = np.sqrt(4 / np.pi * areas[areas > 0])
    return int((width >= share * cells.typical_diameter(areas[areas > 0])).sum())


if __name__ == "__main__":
    main()
