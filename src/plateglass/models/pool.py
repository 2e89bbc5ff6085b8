"""The cells networks learn from: by well, drawn so that classes and their wells count alike."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from plateglass.files import write_atomically

PARTS = ("crops", "masks", "levels", "textures", "cells")
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Well:
    """A well on its way into a pool; arrays as there, ``cells`` the site and number of each (N, 2)."""

    name: tuple[str, str]
    label: int
    crops: np.ndarray
    masks: np.ndarray
    levels: np.ndarray
    textures: np.ndarray
    cells: np.ndarray


@dataclass(frozen=True)
class Pool:
    """Training cells, one entry of each list a well; arrays may be memory-mapped.

    crops : float32 (N, C, side, side) in plate units, larger than the network's crop by a margin for
        jitter.
    masks : bool (N, side, side) of the own cell.
    levels : float32 (N, C), the background of each cell's field.
    textures : float32 (T, C, side, side), cell-free background of the well's fields; T may be 0.
    classes : number of each well's class.
    cells_of : site and cell number of each cell, (N, 2).
    names : ``(plate, well)``.
    """

    crops: list[np.ndarray]
    masks: list[np.ndarray]
    levels: list[np.ndarray]
    textures: list[np.ndarray]
    cells_of: list[np.ndarray]
    classes: list[int]
    names: list[tuple[str, str]]

    @classmethod
    def create(cls, folder: Path, wells: Iterable[Well]) -> "Pool":
        """Write wells to ``folder`` as they come and open it; one well is held in memory at a time."""
        folder.mkdir(parents=True, exist_ok=True)
        names, classes = [], []
        for i, well in enumerate(wells):
            for part in PARTS:
                np.save(folder / f"{i}.{part}.npy", getattr(well, part))
            names.append(well.name)
            classes.append(well.label)
        write_atomically(folder / "wells.json", json.dumps({"names": names, "classes": classes}))
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "Pool":
        """Wells that `create` wrote, memory-mapped: processes share their pages."""
        wells = json.loads((folder / "wells.json").read_text())
        parts = [
            [np.load(folder / f"{i}.{part}.npy", mmap_mode="r") for i in range(len(wells["names"]))]
            for part in PARTS
        ]
        return cls(*parts, wells["classes"], [tuple(name) for name in wells["names"]])

    def __len__(self) -> int:
        return len(self.names)

    def cells(self, wells: list[int]) -> int:
        """How many cells these wells have."""
        return sum(len(self.crops[well]) for well in wells)

    def draw(
        self, wells: list[int], classes: list[int], wanted: torch.Tensor, rng: torch.Generator
    ) -> Batch:
        """Cells of the `wanted` classes (n,): a well of the class, then a cell of it, all alike likely.

        `wells` are drawn from, of `classes` (which a control may have permuted). Returns crops
        (n, C, side, side), masks (n, side, side) and levels (n, C).
        """
        by_class: dict[int, list[int]] = {}
        for well, label in zip(wells, classes):
            by_class.setdefault(label, []).append(well)
        u = torch.rand(2, len(wanted), generator=rng).numpy()
        crops, masks, levels = [], [], []
        for label, a, b in zip(wanted.tolist(), *u):
            of = by_class[label]
            well = of[int(a * len(of))]
            cell = int(b * len(self.crops[well]))
            crops.append(self.crops[well][cell])
            masks.append(self.masks[well][cell])
            levels.append(self.levels[well][cell])
        return (
            torch.from_numpy(np.stack(crops)),
            torch.from_numpy(np.stack(masks)),
            torch.from_numpy(np.stack(levels)),
        )

    def texture(self, wells: list[int], size: int, rng: torch.Generator) -> torch.Tensor | None:
        """Cell-free background of one of `wells`, (size, C, side, side); None where no field has any."""
        found = [patch for well in wells for patch in self.textures[well]]
        if not found:
            return None
        at = torch.randint(len(found), (size,), generator=rng)
        return torch.from_numpy(np.stack([found[i] for i in at]))


def centre(array: np.ndarray, size: int) -> np.ndarray:
    """The middle (…, size, size) of larger crops or masks: pixel side // 2 becomes size // 2."""
    start = array.shape[-1] // 2 - size // 2
    return array[..., start : start + size, start : start + size]
