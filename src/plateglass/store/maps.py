"""attribution.zarr: per well, arrays over its explained cells. Plain Zarr 3, one shard an array.

attribution.zarr/A/1/{site,cell,y,x}: who the cells are, (n,); /A/1/<map>: their maps, (n, y, x).
"""

from pathlib import Path

import numpy as np

from plateglass.store import arrays, metadata
from plateglass.store.fields import _fresh, _place
from plateglass.store.places import discard, split, sweep, well_dir

IDENTIFIERS = ("site", "cell", "y", "x")


def write_maps(root: Path, well: str, found: dict[str, np.ndarray], note: dict) -> list[Path]:
    """Write a well's explained cells in place of what was there; returns the files left.

    found: `site`, `cell`, `y`, `x` (n,) and maps (n, y, x) by name; a well without cells leaves
    nothing. note: what is kept under `plateglass` in the well's group. For the root's and the rows'
    own metadata see `write_groups`.
    """
    root, folder = Path(root), well_dir(root, well)
    metadata.write_group(root, {})
    if not len(found["cell"]):
        if folder.exists():
            discard(folder)
        return []
    metadata.write_group(root / split(well)[0], {})
    sweep(folder.parent)
    fresh = _fresh(folder)
    for name, values in found.items():
        arrays.write(fresh / name, values, "n" if name in IDENTIFIERS else "nyx")
    metadata.write_group(fresh, {"plateglass": note})
    _place(fresh, folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_maps(root: Path, well: str, name: str, at: int | None = None) -> np.ndarray:
    """An array of a well: `site`, `cell`, … (n,), or maps (n, y, x), or the map of cell `at` (y, x).

    DamageError where it is missing or damaged.
    """
    return arrays.read(well_dir(root, well) / name, () if at is None else (at,))
