"""Maps of explained cells, from a plate's attribution.zarr."""

from pathlib import Path

import numpy as np
import pandas as pd

from plateglass import store
from plateglass.errors import DamageError
from plateglass.store.maps import read_maps

KEY = ["Metadata_Well", "Metadata_Site", "Metadata_Cell"]
NAMES = {"gradcam": "Grad-CAM", "pcim": "PCIM"}


def explained(root: Path, cells: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``cells`` that have maps in the store at ``root``."""
    known = [pd.DataFrame(columns=KEY)]
    for well in store.wells(root):
        site, cell = _who(root, well)
        known.append(pd.DataFrame(dict(zip(KEY, (well, site, cell), strict=True))))
    keys = pd.concat(known, ignore_index=True).astype({"Metadata_Site": int, "Metadata_Cell": int})
    return cells.merge(keys, "inner", KEY)


def read(root: Path, well: str, site: int, cell: int) -> dict[str, np.ndarray]:
    """Maps (y, x) of a cell by name: ``gradcam`` and ``pcim``. DamageError where there are none."""
    sites, cells = _who(root, well)
    at = np.flatnonzero((sites == site) & (cells == cell))
    if len(at) == 0:
        raise DamageError(root, f"no map of well {well}, site {site}, cell {cell}")
    return {name: read_maps(root, well, name, int(at[0])).astype(np.float32) for name in NAMES}


def _who(root: Path, well: str) -> tuple[np.ndarray, np.ndarray]:
    return read_maps(root, well, "site"), read_maps(root, well, "cell")
