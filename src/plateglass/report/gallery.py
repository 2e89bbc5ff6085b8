"""A gallery of cells with the maps of what the network looked at drawn over them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plateglass import crops, store
from plateglass.report import pictures
from plateglass.report.page import number

TILE = 192  # pixels of a tile's side
KEY = ["Metadata_Well", "Metadata_Site", "Metadata_Cell"]

Maps = Callable[[str, int, int], dict[str, np.ndarray]]
"""(well, site, cell) → maps (y, x) by name, ``gradcam`` and where there is one ``pcim``."""


@dataclass(frozen=True)
class Tier:
    """A kind of cell: its name, the tab's words, and how it was chosen."""

    name: str
    title: str
    how: str


TIERS = (
    Tier("best", "Best", "Highest Grad-CAMO: nearly all attention lies on the cell itself. A large "
         "cell reaches a high score by its size alone; the enrichment beside it corrects for that."),
    Tier("typical", "Typical", "Grad-CAMO nearest the plate's median: what to expect of a cell picked "
         "at random."),
    Tier("worst", "Worst", "Lowest Grad-CAMO: the network looked elsewhere. If neighbours or empty "
         "ground light up here, the call rests on the surroundings and should not be trusted."),
)  # fmt: skip


def choose(cells: pd.DataFrame, count: int) -> pd.DataFrame:
    """``count`` cells a tier, shared evenly by the predicted classes, from many wells.

    Cells at the field's edge and cells without a map are passed over. Reproducible: ties go by
    well, site and cell; a well gives a second cell only when all others have given one.

    Returns
    -------
    the rows of ``cells`` with a column ``tier``, in the order in which they are shown.
    """
    cells = cells[cells["Metadata_GradCAMO"].notna()]
    if "Metadata_Edge" in cells and (~cells["Metadata_Edge"].astype(bool)).any():
        cells = cells[~cells["Metadata_Edge"].astype(bool)]
    score = cells["Metadata_GradCAMO"]
    orders = {"best": -score, "typical": (score - score.median()).abs(), "worst": score}
    found = []
    for tier, order in orders.items():
        ranked = cells.assign(order=order).sort_values(["order", *KEY])
        groups = [group for _, group in ranked.groupby("Metadata_Class", sort=True)]
        shares = [_spread(group, -(-count // len(groups))) for group in groups]
        merged = pd.concat(shares).sort_values(["order", *KEY]) if shares else ranked.head(0)
        found.append(_turns(merged, count).assign(tier=tier))
    return pd.concat(found, ignore_index=True).drop(columns="order")


def draw(
    root: Path, plate: str, chosen: pd.DataFrame, maps: Maps, size: int, quality: int = 84
) -> dict[str, Any]:
    """Cards of the chosen cells for the template.

    size: edge of the network's crop in pixels, which the maps cover.
    """
    cards, names = [], {"gradcam": "Grad-CAM", "pcim": "PCIM"}
    drawn: list[str] = []
    bar = 0
    for row in chosen.to_dict("records"):
        well, site, cell = (
            row["Metadata_Well"],
            int(row["Metadata_Site"]),
            int(row["Metadata_Cell"]),
        )
        found = maps(well, site, cell)
        tones, colours, mask, um = _crop(root, well, site, cell, size)
        shape = (TILE, TILE)
        large = np.stack([pictures.enlarge(tone, shape).clip(0, 1) for tone in tones])
        rim = pictures.edge(pictures.enlarge(mask.astype(np.float32), shape) > 0.5)
        ground = pictures.grey(large)
        drawn = [name for name in names if name in found]
        tiles = [pictures.blend(large, colours)]
        tiles += [pictures.lay_over(ground, pictures.enlarge(found[n], shape)) for n in drawn]
        for tile in tiles:
            tile[rim] = 0.25 * tile[rim] + 0.75
        bar = pictures.scale_bar(tiles[0], um * size / TILE)
        seam = np.zeros((TILE, 2, 3), np.float32)
        strip = np.concatenate([part for tile in tiles for part in (seam, tile)][1:], axis=1)
        where = f"Plate {plate} · well {well} · site {site} · cell {cell}"
        cards.append(
            {
                "tier": row["tier"],
                "called": str(row["Metadata_Class"]),
                "picture": pictures.jpeg(strip, quality),
                "width": strip.shape[1],
                "height": strip.shape[0],
                "alt": f"{where}: image, then maps {', '.join(names[n] for n in drawn)}",
                "where": where,
                "what": _what(row),
            }
        )
    return {
        "cards": cards,
        "heads": ["Image", *(names[n] for n in drawn)],
        "tiers": TIERS,
        "called": sorted({card["called"] for card in cards}),
        "bar": bar,
    }


def _what(row: dict[str, Any]) -> str:
    """The second line of a caption: the call and its audit."""
    parts = [f"Grad-CAMO {number(row['Metadata_GradCAMO'])}"]
    if pd.notna(row.get("Metadata_Enrichment")):
        parts.append(f"enrichment {number(row['Metadata_Enrichment'], 1)}×")
    if pd.notna(row.get("Metadata_Reliance")):
        parts.append(f"reliance on background {number(row['Metadata_Reliance'])}")
    called = f"called {row['Metadata_Class']}"
    label = row.get("label")
    if label is not None and pd.notna(label) and label != "":
        called += f" in a well labelled {label}"
    return f"{' · '.join(parts)} — {called}"


def _crop(
    root: Path, well: str, site: int, cell: int, size: int
) -> tuple[np.ndarray, list[str], np.ndarray, float]:
    """Tones (c, y, x) and mask (y, x) of the crop that the network saw, colours, µm a pixel."""
    rank = store.sites(root, well).index(site)
    tones, colours = pictures.read(root, well, rank)
    cells = store.read_labels(root, well, rank, "cells")
    nuclei = store.read_labels(root, well, rank, "nuclei")
    middle = cells.shape[0] // 2
    cut, masks, _, _ = crops.cut(tones, cells[middle], size, nuclei[middle], np.array([cell]))
    return cut[0], colours, masks[0], store.pixel_size(root, well, rank)[0]


def _spread(ranked: pd.DataFrame, count: int) -> pd.DataFrame:
    """The first ``count`` rows, taking a well again only after all others have had their turn."""
    turn = ranked.groupby("Metadata_Well").cumcount()
    return (
        ranked.assign(turn=turn)
        .sort_values(["turn", "order", *KEY])
        .head(count)
        .drop(columns="turn")
    )


def _turns(ranked: pd.DataFrame, count: int) -> pd.DataFrame:
    """Classes take turns, so that cutting to ``count`` favours none."""
    turn = ranked.groupby("Metadata_Class").cumcount()
    return (
        ranked.assign(turn=turn)
        .sort_values(["turn", "Metadata_Class"])
        .head(count)
        .drop(columns="turn")
    )
