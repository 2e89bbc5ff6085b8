"""Writing and reading plates, wells, fields and labels.

A field, and a label, is written under a dotted sibling name and renamed: a killed worker leaves
nothing that is taken for whole. A well's zarr.json is removed before a field of it changes and
written after its fields.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from plateglass.colours import colours_of
from plateglass.errors import DamageError
from plateglass.store import metadata
from plateglass.store.places import (
    attributes,
    discard,
    field_dir,
    label_dir,
    remove_empty_rows,
    split,
    sweep,
    well_dir,
)

if TYPE_CHECKING:
    import numpy as np


def write_plate(
    root: Path,
    wells: dict[str, int],
    channels: list[str],
    name: str,
    display: metadata.Display | None = None,
    note: dict | None = None,
) -> None:
    """Write the plate's and its rows' metadata.

    wells: well → number of fields, of the wells that are there; display: how all their fields are
    painted; note: what else is kept under `plateglass` (version, settings). A plate without wells
    gets no metadata.
    """
    root = Path(root)
    remove_empty_rows(root)
    if not wells:
        (root / "zarr.json").unlink(missing_ok=True)
        return
    for row in sorted({split(well)[0] for well in wells}):
        metadata.write_group(root / row, {})
    ome = metadata.plate(wells, name, metadata.geometry(list(wells)))
    own = {"channels": channels, "display": display, **(note or {})}
    metadata.write_group(root, {"ome": ome, "plateglass": own})


def write_groups(root: Path) -> None:
    """Write the metadata of a store that is no plate: its own and its rows', which lose the empty ones."""
    remove_empty_rows(root)
    if root.exists():
        for group in (root, *(row for row in root.glob("[!.]*") if row.is_dir())):
            metadata.write_group(group, {})


def write_well(root: Path, well: str, sites: Iterable[int]) -> None:
    """Write a well's metadata once its fields are there, and drop fields beyond them.

    sites: the source's site number of field 0, 1, …
    """
    root, sites = Path(root), list(sites)
    folder = well_dir(root, well)
    metadata.write_group(root / split(well)[0], {})
    ome = metadata.well(len(sites))
    metadata.write_group(folder, {"ome": ome, "plateglass": {"sites": sites}})
    sweep(folder)
    for entry in list(folder.iterdir()):
        if entry.name.isdecimal() and int(entry.name) >= len(sites):
            discard(entry)


def write_field(
    root: Path,
    well: str,
    field: int,
    image: "np.ndarray",
    pixel_size_um: float,
    channels: list[str],
    display: metadata.Display | None = None,
    z_step_um: float = 1.0,
    content: str = "",
    keep_labels: bool = False,
) -> None:
    """Write a field and its pyramid, in place of what was there.

    The well's zarr.json goes: until `write_well` writes it again, the well is not whole.

    image: (c, z, y, x) uint8 or uint16, the channels in the order of `channels`. display: how to paint
    them; by default in their usual colours, from the field's own 1st to its 99.9th percentile.
    content: a key of the pixels, which `content` gives back. With keep_labels the labels of the
    field before stay (the pixels are the same, a shard was lost), else they go.
    """
    import numpy as np

    from plateglass.store import arrays

    if image.ndim != 4 or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"a field is (c, z, y, x) uint8 or uint16, not {image.shape} {image.dtype}"
        )
    if len(channels) != len(image):
        raise ValueError(f"{len(image)} planes for the channels {channels}")
    root = Path(root)
    folder = field_dir(root, well, field)
    metadata.write_group(root / split(well)[0], {})
    fresh = _fresh(folder)
    pyramid = arrays.mean_pyramid(image)
    for level, array in enumerate(pyramid):
        arrays.write(fresh / str(level), array, "czyx")
    if display is None:
        low, high = np.percentile(pyramid[-1], (1, 99.9), axis=(1, 2, 3))
        display = {
            channel: (int(low[i]), max(int(low[i]) + 1, int(np.ceil(high[i]))), colour)
            for i, (channel, colour) in enumerate(colours_of(channels).items())
        }
    limit = int(np.iinfo(image.dtype).max)
    omero = metadata.omero({name: display[name] for name in channels}, limit, image.shape[1])
    name = f"{well}/{field}"
    ome = metadata.image(name, len(pyramid), pixel_size_um, z_step_um, omero)
    metadata.write_image(fresh, {"ome": ome, "plateglass": {"content": content}})
    (folder.parent / "zarr.json").unlink(missing_ok=True)
    if keep_labels and (folder / "labels").exists():
        (folder / "labels").rename(fresh / "labels")
    _place(fresh, folder)


def set_display(root: Path, wells: Iterable[str], display: metadata.Display) -> None:
    """Say how viewers paint the fields of these wells; pixels, and the bytes on the disk, stay.

    The plate says that they differ until `write_plate` writes what holds for all.
    """
    root = Path(root)
    with contextlib.suppress(DamageError):  # no plate yet
        plate = attributes(root)
        plate["plateglass"]["display"] = None
        metadata.write_group(root, plate)
    for well in wells:
        folder = well_dir(root, well)
        for entry in attributes(folder)["ome"]["well"]["images"]:
            image = folder / entry["path"]
            found = attributes(image)
            for channel in found["ome"]["omero"]["channels"]:
                start, end, channel["color"] = display[channel["label"]]
                channel["window"] |= {"start": start, "end": end}
            metadata.write_image(image, found)


def read_field(
    root: Path, well: str, field: int, level: int = 0, channel: int | None = None
) -> "np.ndarray":
    """A field (c, z, y, x), or one channel of it by its number (z, y, x). DamageError if damaged."""
    from plateglass.store import arrays

    part = () if channel is None else (channel,)
    return arrays.read(field_dir(Path(root), well, field) / str(level), part)


def write_labels(root: Path, well: str, field: int, name: str, labels: "np.ndarray") -> None:
    """Write a label image (z, y, x) of the field's shape, as int32 with the image's levels."""
    import numpy as np

    from plateglass.store import arrays

    if not (name.isascii() and name.isalnum()):
        raise ValueError(f"the label {name!r}: OME-Zarr takes letters and digits only")
    root = Path(root)
    image = field_dir(root, well, field)
    ome = attributes(image)["ome"]["multiscales"][0]
    shape = arrays.shape(image / "0")
    if labels.shape != shape[1:] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels {labels.shape} {labels.dtype} of a field {shape}")
    scale = ome["datasets"][0]["coordinateTransformations"][0]["scale"]
    folder = label_dir(root, well, field, name)
    fresh = _fresh(folder)
    pyramid = arrays.nearest_pyramid(labels.astype(np.int32, copy=False))
    for level, array in enumerate(pyramid):
        arrays.write(fresh / str(level), array, "zyx")
    metadata.write_group(fresh, {"ome": metadata.label(name, len(pyramid), scale[2], scale[1])})
    _place(fresh, folder)
    _list_labels(folder.parent)


def read_labels(root: Path, well: str, field: int, name: str, level: int = 0) -> "np.ndarray":
    """A label image, int32 (z, y, x). DamageError if it is missing or damaged."""
    from plateglass.store import arrays

    return arrays.read(label_dir(Path(root), well, field, name) / str(level))


def remove_labels(root: Path, well: str, name: str) -> None:
    """Delete one label in all fields of a well; nothing where there is none."""
    folder = well_dir(Path(root), well)
    for field in sorted(folder.glob("[0-9]*")) if folder.exists() else []:
        labels = field / "labels"
        if (labels / name).exists():
            discard(labels / name)
            _list_labels(labels)


def _list_labels(labels: Path) -> None:
    names = sorted(path.parent.name for path in labels.glob("[!.]*/zarr.json"))
    if names:
        metadata.write_group(labels, {"ome": {"version": metadata.VERSION, "labels": names}})
    else:
        shutil.rmtree(labels)


def _fresh(folder: Path) -> Path:
    """An empty dotted sibling of `folder` to write to; what a killed process left of its own goes."""
    for kind in ("new", "gone"):
        for left in folder.parent.glob(f".{kind}-{folder.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
    fresh = folder.with_name(f".new-{folder.name}-{os.getpid()}")
    fresh.mkdir(parents=True)
    return fresh


def _place(fresh: Path, folder: Path) -> None:
    """Rename `fresh` to `folder`; what was there goes."""
    if folder.exists():
        gone = folder.with_name(f".gone-{folder.name}-{os.getpid()}")
        folder.rename(gone)
        fresh.rename(folder)
        shutil.rmtree(gone)
    else:
        fresh.rename(folder)
