"""Controls that stand beside every accuracy, and background reliance (docs/methods.md).

Everything that takes pixels from *other* cells takes them from the model's donors, drawn by a hash
of who the cell is: a cell's values depend on that cell and the model, and on nothing else. What is
drawn is settled by the cell (`Draws`), what is looked at by the batch (`Views`), which may cross
wells.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from safetensors import safe_open

from plateglass import crops

if TYPE_CHECKING:
    from plateglass.models.recipe import Model


@dataclass(frozen=True)
class Donors:
    """Cells of training wells, as many of each class.

    crops float16 (D, C, y, x) in plate units, masks bool (D, y, x), levels float32 (D, C) of the
    field's background, classes int64 (D,), wells ``plate/well`` of each; textures float16
    (T, C, y, x) of cell-free background, T may be 0.
    """

    crops: np.ndarray
    masks: np.ndarray
    levels: np.ndarray
    classes: np.ndarray
    textures: np.ndarray
    wells: list[str]

    def tensors(self) -> dict[str, torch.Tensor]:
        """As safetensors holds them; the wells go into the file's metadata."""
        names = ("crops", "masks", "levels", "classes", "textures")
        return {name: torch.from_numpy(getattr(self, name)) for name in names}

    @classmethod
    def read(cls, path: Path) -> "Donors":
        """Donors as `tensors` wrote them."""
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls(**arrays, wells=json.loads(file.metadata()["wells"]))


def draw(name: str, purpose: str, among: int) -> int:
    """A number below ``among`` that only the name and the purpose decide."""
    key = hashlib.blake2b(f"{name}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(key) % among


def _donor(donors: Donors, cell: str, purpose: str, among: np.ndarray) -> int:
    """One of the donors ``among``, never of the cell's own well if that can be."""
    for attempt in range(20):
        at = int(among[draw(cell, f"{purpose}.{attempt}", len(among))])
        if not cell.startswith(f"{donors.wells[at]}/"):
            break
    return at


class Draws(NamedTuple):
    """Donors of each cell: texture (N,), shuffled (N, C), others (N, draws, classes).

    ``others[:, k, c]`` is of another class than ``c``, for a cell called ``c``.
    """

    texture: np.ndarray
    shuffled: np.ndarray
    others: np.ndarray

    @classmethod
    def of(cls, donors: Donors, cells: list[str], channels: list[str], draws: int) -> "Draws":
        """Draw for cells named ``plate/well/site/cell``."""
        every = np.arange(len(donors.classes))
        kinds = range(int(donors.classes.max()) + 1)
        apart = [every[donors.classes != kind] for kind in kinds]
        textures = max(1, len(donors.textures))
        return cls(
            np.array([draw(cell, "texture", textures) for cell in cells], np.int64),
            np.array(
                [[_donor(donors, cell, f"shuffle.{c}", every) for c in channels] for cell in cells],
                np.int64,
            ).reshape(len(cells), len(channels)),
            np.array(
                [
                    [
                        [_donor(donors, cell, f"reliance.{k}", a) for a in apart]
                        for k in range(draws)
                    ]
                    for cell in cells
                ],
                np.int64,
            ).reshape(len(cells), draws, len(apart)),
        )


class Views:
    """A batch seen otherwise: each view is one forward pass of the batch's shape.

    Takes tensors on the model's device: x (n, C, y, x) in plate units, own masks (n, y, x), levels of
    the field's background (n, C), and rows of `Draws`.
    """

    def __init__(self, model: "Model"):
        donors, device = model.donors, model.device
        self.model = model
        self.crops = torch.from_numpy(donors.crops).to(device)
        self.textures = torch.from_numpy(donors.textures).to(device)
        masks = torch.from_numpy(donors.masks).to(device)
        levels = torch.from_numpy(donors.levels).to(device).to(self.crops.dtype)
        self.surroundings = crops.erase(self.crops, masks, levels)  # the donor's own cell is gone

    def reliance(
        self,
        network: torch.nn.Module,
        logits: torch.Tensor,
        x: torch.Tensor,
        masks: torch.Tensor,
        others: torch.Tensor,
    ) -> torch.Tensor:
        """Background reliance of each cell (n,), in [0, 1] (ours, docs/methods.md).

        Mean over draws of ``max(0, p_c(x) − p_c(x'))``: c the class that ``logits`` of x call, x' the
        same cell on the surroundings of a donor of another class.
        """
        called = logits.argmax(1)
        rows = torch.arange(len(x), device=x.device)
        before = logits.softmax(1)[rows, called]
        lost = torch.zeros_like(before)
        for k in range(others.shape[1]):
            around = self.surroundings[others[rows, k, called]].to(x.dtype)
            after = network(crops.swap(x, masks, around)).softmax(1)[rows, called]
            lost += (before - after).clamp_min(0)
        return lost / max(1, others.shape[1])

    def controls(
        self,
        name: str,
        x: torch.Tensor,
        masks: torch.Tensor,
        levels: torch.Tensor,
        texture: torch.Tensor,
        shuffled: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Class numbers (n,) that each control predicts of labelled cells, by the network ``name``.

        ``Erased`` and ``Erased_Texture`` (the cell, grown by 2 px, filled with the field's background
        and with a donor's texture), ``Shuffled_<channel>`` (that channel is a donor cell's),
        ``Background`` (a network trained without cells looks at the erased crop), ``Permuted`` (a
        network trained on permuted labels); what the model lacks is left out.
        """
        networks = self.model.networks
        network, part = networks[name], name.partition(".")[2]
        erased = crops.erase(x, masks, levels)
        out = {"Erased": network(erased)}
        if len(self.textures):
            fill = self.textures[texture].to(x.dtype)
            out["Erased_Texture"] = network(crops.erase(x, masks, fill))
        for k, channel in enumerate(self.model.info["channels"]):
            mixed = x.clone()
            mixed[:, k] = self.crops[shuffled[:, k], k].to(x.dtype)
            out[f"Shuffled_{channel}"] = network(mixed)
        if f"background.{part}" in networks:
            out["Background"] = networks[f"background.{part}"](erased)
            out["Permuted"] = networks[f"permuted.{part}"](x)
        return {control: logits.argmax(1) for control, logits in out.items()}
