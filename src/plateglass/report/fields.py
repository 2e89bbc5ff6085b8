"""A typical and the worst field of a plate, with what segmentation drew in them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plateglass import store
from plateglass.report import pictures
from plateglass.report.page import number
from plateglass.report.subject import Subject
from plateglass.report.wells import focus_column

NUCLEI, CELLS = "#ffffff", "#ffb000"
SIDE = 1000  # pixels of a picture's longer side, about


@dataclass(frozen=True)
class Field:
    """A site, and why it was picked."""

    well: str
    site: int
    title: str
    why: str


def build(subject: Subject, quality: int) -> dict[str, Any]:
    """The section of a plate for the template, or why there is none."""
    sites, job = subject.sites, subject.job
    if "Metadata_Quarantine" in sites:
        sites = sites[sites["Metadata_Quarantine"].isna()]
    if "Count_Cells" not in sites or sites["Count_Cells"].notna().sum() == 0:
        return {"pictures": [], "absent": ["No site of this plate was segmented."]}
    chosen = choose(sites, focus_column(subject.config))
    first = chosen[0]
    rank = store.sites(job.store, first.well).index(first.site)
    unit = pictures.bar_unit(
        subject.config.ingest.pixel_size_um, store.pixel_size(job.store, first.well, rank)[0]
    )
    drawn = []
    for field in chosen:
        row = (sites["Metadata_Well"] == field.well) & (sites["Metadata_Site"] == field.site)
        count = int(sites.loc[row, "Count_Cells"].iloc[0])
        drawn.append(draw(job.store, subject.plates[0], field, count, unit, quality))
    orphans = [c for c in ("Orphan_Nuclei", "Orphan_Cells") if c in sites]
    return {
        "pictures": drawn,
        "absent": [],
        "orphans": number(int(sites[orphans].sum().sum())) if orphans else None,
        "legend": [("outlines of nuclei", NUCLEI), ("outlines of cells", CELLS)],
        "channels": pictures.key(job.store, first.well, rank),
        "pixels": unit == "px",
    }


def choose(sites: pd.DataFrame, focus: str | None) -> list[Field]:
    """The site nearest the plate's medians, and the one that is worst by cells or by focus.

    Both by robust z-scores (median, MAD) over the plate's sites; the worst has the lowest single
    score. Ties go to the first by well and site, so that the choice is reproducible.
    """
    sites = sites[sites["Count_Cells"].notna()].sort_values(["Metadata_Well", "Metadata_Site"])
    if sites.empty:
        return []
    scores = {"cells": _robust(sites["Count_Cells"])}
    if focus in sites and sites[focus].notna().any():
        scores["focus"] = _robust(sites[focus])
    table = pd.DataFrame(scores, index=sites.index).fillna(0)
    typical, worst = table.abs().max(axis=1).idxmin(), table.min(axis=1).idxmin()
    median = sites["Count_Cells"].median()

    def field(at: Any, title: str, why: str) -> Field:
        row = sites.loc[at]
        return Field(row["Metadata_Well"], int(row["Metadata_Site"]), title, why)

    found = [field(typical, "A typical field", f"nearest the plate's medians ({median:.0f} cells)")]
    if worst != typical:
        reason = (
            f"fewest cells for this plate (median {median:.0f})"
            if table.loc[worst, "cells"] <= table.loc[worst].min()
            else "least in focus on this plate"
        )
        found.append(field(worst, "The worst field", reason))
    return found


def draw(
    root: Path, plate: str, field: Field, cells: int, unit: str = "µm", quality: int = 84
) -> dict[str, Any]:
    """Picture, outlines and caption of a field for the template; ``unit`` is the scale bar's.

    Raises
    ------
    DamageError
        Pixels or labels are missing from the store.
    """
    rank = store.sites(root, field.well).index(field.site)
    level = _level(root, field.well, rank)
    tones, colours = pictures.read(root, field.well, rank, level)
    labels = {
        name: _central(store.read_labels(root, field.well, rank, name, level))
        for name in ("nuclei", "cells")
    }
    factor = max(1.0, SIDE / max(tones.shape[1:]))
    shape = (round(tones.shape[1] * factor), round(tones.shape[2] * factor))
    picture = pictures.enlarge(pictures.blend(tones, colours), shape)
    um = store.pixel_size(root, field.well, rank)[0] * 2**level / factor
    bar = pictures.scale_bar(picture, um)
    drawn = [
        (pictures.edge(pictures.enlarge(labels["cells"], shape, smooth=False), 2), CELLS),
        (pictures.edge(pictures.enlarge(labels["nuclei"], shape, smooth=False), 1), NUCLEI),
    ]
    where = f"Plate {plate}, well {field.well}, site {field.site}"
    return {
        "title": field.title,
        "image": pictures.jpeg(picture, quality),
        "outlines": pictures.outlines(drawn),
        "alt": f"{where}, channels blended in colour",
        "width": shape[1],
        "height": shape[0],
        "caption": f"{where}: {cells:,} cells; {field.why}. The bar is {bar}\u00a0{unit}.",
    }


def _level(root: Path, well: str, field: int) -> int:
    """The coarsest level that still fills the picture."""
    image = store.read_field(root, well, field, 0, channel=0)
    level, side = 0, max(image.shape[-2:])
    while side // 2 >= SIDE:
        level, side = level + 1, side // 2
    return level


def _central(labels: np.ndarray) -> np.ndarray:
    return labels[labels.shape[0] // 2]


def _robust(values: pd.Series) -> pd.Series:
    values = values.astype(float)
    centre = values.median()
    spread = 1.4826 * (values - centre).abs().median()
    return (values - centre) / (spread if spread > 0 else max(abs(centre), 1.0))
