"""A gallery of cells with the maps of what the network looked at drawn over them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plateglass import crops, store
from plateglass.report import maps, pictures
from plateglass.report.maps import KEY, NAMES
from plateglass.report.page import number
from plateglass.report.subject import Subject

TILE = 192  # pixels of a tile's side

Maps = Callable[[str, int, int], dict[str, np.ndarray]]
"""(well, site, cell) → maps (y, x) by name, as ``maps.read`` gives them."""


@dataclass(frozen=True)
class Tier:
    """A kind of cell: its name, the tab's words, and how it was chosen."""

    name: str
    title: str
    how: str


TIERS = (
    Tier(
        "best",
        "Best",
        "Highest Grad-CAMO: nearly all attention lies on the cell itself. A large cell reaches a high "
        "score by its size alone; the enrichment beside it corrects for that.",
    ),
    Tier(
        "typical",
        "Typical",
        "Grad-CAMO nearest the plate's median: what to expect of a cell picked at random.",
    ),
    Tier(
        "worst",
        "Worst",
        "Lowest Grad-CAMO: the network looked elsewhere. If neighbours or empty ground light up here, "
        "the call rests on the surroundings and should not be trusted.",
    ),
)


def build(subject: Subject, quality: int) -> dict[str, Any]:
    """The gallery of a plate for the template, or why there is none."""
    none: dict[str, Any] = {"cards": [], "absent": []}
    job, plate = subject.job, subject.plates[0]
    cells = subject.cells[plate]
    if subject.model is None:
        return {**none, "absent": [f"{subject.why} No cell was called: nothing to look behind."]}
    if "Metadata_GradCAMO" not in cells or cells["Metadata_GradCAMO"].notna().sum() == 0:
        return {**none, "absent": ["No cell of this plate has a Grad-CAMO score."]}
    root = job.plate_dir / "attribution.zarr"
    explained = maps.explained(root, cells)
    if explained["Metadata_GradCAMO"].notna().sum() == 0:
        return {**none, "absent": ["attribution.zarr explains no cell of this plate."]}
    chosen = choose(explained, subject.config.report.gallery)
    size = int(subject.model["crop"]["px"])
    reader = functools.partial(maps.read, root)
    well, site = chosen.iloc[0][["Metadata_Well", "Metadata_Site"]]
    rank = store.sites(job.store, well).index(site)
    channels = pictures.key(job.store, well, rank)
    unit = pictures.bar_unit(
        subject.config.ingest.pixel_size_um, store.pixel_size(job.store, well, rank)[0]
    )
    cards, bar = draw(job.store, plate, chosen, reader, size, quality)
    return {
        "cards": cards,
        "absent": [],
        "heads": ["Image", *NAMES.values()],
        "tiers": TIERS,
        "called": sorted({card["called"] for card in cards}),
        "explained": len(explained),
        "bar": pictures.bar_words(bar, unit),
        "channels": channels,
    }


def choose(cells: pd.DataFrame, count: int) -> pd.DataFrame:
    """``count`` cells a tier, shared evenly by the predicted classes, from many wells.

    Cells at the field's edge and cells without a map are passed over. Reproducible: ties go by
    well, site and cell.

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
    root: Path, plate: str, chosen: pd.DataFrame, read: Maps, size: int, quality: int = 84
) -> tuple[list[dict[str, Any]], int]:
    """Cards of the chosen cells for the template, in their order, and the bar's length in µm.

    size: edge of the network's crop in pixels, which the maps cover. Each field is read once.

    Raises
    ------
    DamageError
        Pixels, labels or maps are missing from the stores.
    """
    cards: dict[Any, dict[str, Any]] = {}
    bar = 0
    for (well, site), rows in chosen.groupby(["Metadata_Well", "Metadata_Site"]):
        rank = store.sites(root, well).index(site)
        tones, colours = pictures.read(root, well, rank)
        um = store.pixel_size(root, well, rank)[0] * size / TILE
        cut, masks = _crops(root, well, rank, tones, rows["Metadata_Cell"].to_numpy(), size)
        for i, (at, row) in enumerate(zip(rows.index, rows.to_dict("records"))):
            cell = int(row["Metadata_Cell"])
            strip, bar = _strip(cut[i], colours, masks[i], read(well, int(site), cell), um)
            where = f"Plate {plate} · well {well} · site {site} · cell {cell}"
            cards[at] = {
                "tier": row["tier"],
                "called": str(row["Metadata_Class"]),
                "picture": pictures.jpeg(strip, quality),
                "width": strip.shape[1],
                "height": strip.shape[0],
                "alt": f"{where}: image, then maps {', '.join(NAMES.values())}",
                "where": where,
                "what": _what(row),
                "said": _said(row),
            }
    return [cards[at] for at in chosen.index], bar


def _crops(
    root: Path, well: str, rank: int, tones: np.ndarray, wanted: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tones (n, c, y, x) and masks (n, y, x) of the crops that the network saw."""
    cells = store.read_labels(root, well, rank, "cells")
    nuclei = store.read_labels(root, well, rank, "nuclei")
    middle = cells.shape[0] // 2
    cut, masks, *_ = crops.cut(tones, cells[middle], size, nuclei[middle], wanted)
    return cut, masks


def _strip(
    tones: np.ndarray, colours: list[str], mask: np.ndarray, found: dict[str, np.ndarray], um: float
) -> tuple[np.ndarray, int]:
    """Image and maps side by side, the cell's outline in each, a scale bar in the first."""
    shape = (TILE, TILE)
    large = np.stack([pictures.enlarge(tone, shape).clip(0, 1) for tone in tones])
    rim = pictures.edge(pictures.enlarge(mask.astype(np.float32), shape) > 0.5)
    ground = pictures.grey(large)
    tiles = [pictures.blend(large, colours)]
    tiles += [pictures.lay_over(ground, pictures.enlarge(found[name], shape)) for name in NAMES]
    for tile in tiles:
        tile[rim] = 0.25 * tile[rim] + 0.75
    bar = pictures.scale_bar(tiles[0], um)
    seam = np.zeros((TILE, 2, 3), np.float32)
    parts = [part for tile in tiles for part in (seam, tile)][1:]
    return np.concatenate(parts, axis=1), bar


def _what(row: dict[str, Any]) -> str:
    """The second line of a caption: the call's audit."""
    parts = [f"Grad-CAMO {number(row['Metadata_GradCAMO'])}"]
    if pd.notna(row.get("Metadata_Enrichment")):
        parts.append(f"enrichment {number(row['Metadata_Enrichment'], 1)}×")
    if pd.notna(row.get("Metadata_Reliance")):
        parts.append(f"reliance on background {number(row['Metadata_Reliance'])}")
    return "\u00a0· ".join(parts)  # no line begins with a dot


def _said(row: dict[str, Any]) -> str:
    """The third line of a caption: the call."""
    called = f"called {row['Metadata_Class']}"
    label = row.get("label")
    if label is not None and pd.notna(label) and label != "":
        called += f" in a well labelled {label}"
    return called


def _spread(ranked: pd.DataFrame, count: int) -> pd.DataFrame:
    """``count`` of the first rows, from as many wells as there are among the foremost quarter.

    At least ``count`` and at most four times as many rows are foremost, so that the best are the
    best. A well is taken again only after all others have had their turn.
    """
    foremost = ranked.head(min(4 * count, max(count, len(ranked) // 4)))
    turn = foremost.groupby("Metadata_Well").cumcount()
    taken = foremost.assign(turn=turn).sort_values(["turn", "order", *KEY]).head(count)
    return taken.drop(columns="turn")


def _turns(ranked: pd.DataFrame, count: int) -> pd.DataFrame:
    """Classes take turns, so that cutting to ``count`` favours none."""
    turn = ranked.groupby("Metadata_Class").cumcount()
    return (
        ranked.assign(turn=turn)
        .sort_values(["turn", "Metadata_Class"])
        .head(count)
        .drop(columns="turn")
    )
