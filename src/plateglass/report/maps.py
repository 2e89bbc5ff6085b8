"""Maps of explained cells, from a plate's attribution.zarr."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from plateglass.errors import DataError
from plateglass.store.places import split, wells

KEY = ["Metadata_Well", "Metadata_Site", "Metadata_Cell"]


def explained(path: Path, cells: pd.DataFrame) -> pd.DataFrame:
    """The cells that have maps in the store at ``path``."""
    known = [pd.DataFrame(columns=KEY)]
    if path.exists():
        for well in wells(path):
            found = _well(path, well)
            known.append(pd.DataFrame({"Metadata_Well": well, "Metadata_Site": found["site"],
                                       "Metadata_Cell": found["cell"]}))  # fmt: skip
    keys = pd.concat(known, ignore_index=True).astype({"Metadata_Site": int, "Metadata_Cell": int})
    return cells.merge(keys, "inner", KEY)


def read(path: Path, well: str, site: int, cell: int) -> dict[str, np.ndarray]:
    """Maps (y, x) of a cell: ``gradcam``, and ``pcim`` where it is stored. DataError if absent."""
    found = _well(path, well)
    at = np.flatnonzero((found["site"] == site) & (found["cell"] == cell))
    if len(at) == 0:
        raise DataError(f"{path}: no map of well {well}, site {site}, cell {cell}; run again")
    group = zarr.open_group(path, mode="r")["/".join(split(well))]
    return {
        name: np.asarray(group[name][int(at[0])], np.float32)
        for name in ("gradcam", "pcim")
        if name in group
    }


def crop(model: dict[str, Any]) -> int:
    """Side of the network's crop in pixels, which the maps cover."""
    return int(model["crop"]["px"])


@functools.lru_cache(maxsize=64)
def _well(path: Path, well: str) -> dict[str, np.ndarray]:
    group = zarr.open_group(path, mode="r")["/".join(split(well))]
    return {name: np.asarray(group[name][...]) for name in ("site", "cell")}
