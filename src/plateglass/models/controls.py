"""Controls that stand beside every accuracy (METHODS section 2), and background reliance (section 4).

Everything that takes pixels from *other* cells takes them from the model's donors, drawn by a hash
of who the cell is: a cell's values depend on that cell and the model, and on nothing else. NumPy
arrays in and out, batches of one fixed shape.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open

from plateglass import crops
from plateglass.models.batches import across

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

    def surroundings(self, at: np.ndarray) -> np.ndarray:
        """Crops of the donors ``at``, their own cell filled with their field's background."""
        x = torch.from_numpy(self.crops[at].astype(np.float32))
        filled = crops.erase(x, torch.from_numpy(self.masks[at]), torch.from_numpy(self.levels[at]))
        return filled.numpy()


def draw(name: str, purpose: str, among: int) -> int:
    """A number below ``among`` that only the name and the purpose decide."""
    key = hashlib.blake2b(f"{name}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(key) % among


def _donors(donors: Donors, ids: list[str], purpose: str, but: np.ndarray | None = None):
    """A donor for each cell, never of its own well; not of class ``but[i]`` where given."""
    every = np.arange(len(donors.classes))
    allowed = {None: every}
    if but is not None:
        allowed |= {k: every[donors.classes != k] for k in np.unique(but)}
    chosen = np.empty(len(ids), np.int64)
    for i, name in enumerate(ids):
        among = allowed[None if but is None else but[i]]
        for attempt in range(20):
            at = among[draw(name, f"{purpose}.{attempt}", len(among))]
            if not name.startswith(f"{donors.wells[at]}/"):
                break
        chosen[i] = at
    return chosen


def _logits(model: "Model", name: str, batch: int, change, *arrays: np.ndarray) -> np.ndarray:
    """Logits (N, classes) of a network on ``change(*arrays)``."""
    network = model.networks[name]

    def look(*tensors: torch.Tensor) -> tuple[torch.Tensor]:
        with torch.inference_mode():
            return (network(change(*tensors)),)

    [(_, (logits,))] = across([(None, arrays)], look, batch, model.device)
    return logits


def predict(model: "Model", name: str, x: np.ndarray, *, batch: int) -> np.ndarray:
    """Logits (N, classes) of whole crops (N, C, y, x)."""
    return _logits(model, name, batch, lambda x: x, x)


def reliance(
    model: "Model",
    name: str,
    x: np.ndarray,
    masks: np.ndarray,
    levels: np.ndarray,
    ids: list[str],
    *,
    draws: int = 8,
    batch: int = 128,
) -> np.ndarray:
    """Background reliance of each cell (N,), in [0, 1] (METHODS section 4).

    Mean over draws of ``max(0, p_c(x) − p_c(x'))``: c the class predicted, x' the same cell on the
    surroundings of a donor of another class.
    """
    before = _softmax(predict(model, name, x, batch=batch))
    called = before.argmax(1)
    rows = np.arange(len(x))
    lost = np.zeros(len(x), np.float64)
    for k in range(draws):
        others = model.donors.surroundings(_donors(model.donors, ids, f"reliance.{k}", called))
        after = _softmax(_logits(model, name, batch, crops.swap, x, masks, others))
        lost += np.maximum(0, before[rows, called] - after[rows, called])
    return (lost / draws).astype(np.float32)


def classes(
    model: "Model",
    name: str,
    fold: int | None,
    x: np.ndarray,
    masks: np.ndarray,
    levels: np.ndarray,
    ids: list[str],
    *,
    batch: int = 128,
) -> dict[str, np.ndarray]:
    """Class numbers (N,) that each control predicts of labelled cells.

    Parameters
    ----------
    name, fold : the network that judges these cells, and the fold it left out (None: a final one).
    x, masks, levels, ids : crops in plate units, own masks, background of the field (N, C), and
        ``plate/well/site/cell``.

    Returns
    -------
    ``Erased`` and ``Erased_Texture`` (the cell, grown by 2 px, filled with the field's background and
    with a donor's texture), ``Shuffled_<channel>`` (that channel is a donor cell's), ``Background``
    (a network trained without cells looks at the erased crop), ``Permuted`` (a network trained on
    permuted labels); what the model lacks is left out.
    """
    donors, out = model.donors, {}
    out["Erased"] = _logits(model, name, batch, crops.erase, x, masks, levels)
    if len(donors.textures):
        at = [draw(cell, "texture", len(donors.textures)) for cell in ids]
        fill = donors.textures[at].astype(np.float32).reshape(-1, *x.shape[1:])
        out["Erased_Texture"] = _logits(model, name, batch, crops.erase, x, masks, fill)
    for k, channel in enumerate(model.info["channels"]):
        other = donors.crops[_donors(donors, ids, f"shuffle.{channel}"), k].astype(np.float32)
        mixed = x.copy()
        mixed[:, k] = other
        out[f"Shuffled_{channel}"] = predict(model, name, mixed, batch=batch)
    part = "final" if fold is None else f"fold{fold}"
    if f"background.{part}" in model.networks:
        out["Background"] = _logits(
            model, f"background.{part}", batch, crops.erase, x, masks, levels
        )
        out["Permuted"] = predict(model, f"permuted.{part}", x, batch=batch)
    return {control: logits.argmax(1) for control, logits in out.items()}


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)
