"""What workers, or a job alone, make of a well ahead of the networks: cells measured, drawn, cut out.

Without torch, which costs each process that imports it seconds and memory: the networks run in the
job's own process, over batches that cross wells.
"""

import hashlib
import io
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from plateglass import crops, parts, store
from plateglass.files import damage_of
from plateglass.units import Units
from plateglass.wells import Job


@dataclass
class Measured:
    """A well's cells, all of them.

    ``rows`` has identifiers and classical features by cell; crops (N, C, y, x) float32 in plate
    units, masks (N, y, x) bool, levels (N, C) of the fields' background: ``None`` once they were
    handed to the networks.
    """

    well: str
    rows: pd.DataFrame
    crops: np.ndarray | None
    masks: np.ndarray | None
    levels: np.ndarray | None


@dataclass
class Drawn:
    """A well's cells to explain, by the network of that name.

    ``rows`` has ``Metadata_Site``, ``Metadata_Cell``, ``y``, ``x`` (px in the field) and
    ``target``, the predicted class's number; crops (n, C, y, x) float32 in plate units, masks
    (n, y, x) bool, coarse Grad-CAM maps (n, h, w).
    """

    well: str
    network: str
    rows: pd.DataFrame
    crops: np.ndarray
    masks: np.ndarray
    coarse: np.ndarray


def measure_well(job: Job, well: str, units: Units, size: int) -> Measured:
    """All cells of a well, for features; crops of ``size`` px, none where that is 0."""
    channels = list(job.config.channel_names)
    pieces, rows = [], []
    for field, site in enumerate(store.sites(job.store, well)):
        image = store.read_field(job.store, well, field)[:, 0]
        nuclei = store.read_labels(job.store, well, field, "nuclei")[0]
        cells = store.read_labels(job.store, well, field, "cells")[0]
        table = pd.DataFrame({"Metadata_Cell": np.unique(cells[cells > 0]).astype("int64")})
        if job.config.features.classical:
            from plateglass.measure import classical  # attribute does without

            found = classical.measure(image, nuclei, cells, channels, units.windows)
            table = pd.concat([table, found.reset_index(drop=True)], axis=1)
        table.insert(0, "Metadata_Site", np.full(len(table), site, dtype="int64"))
        rows.append(table)
        if size:
            scaled = units.apply(image)
            x, masks, *_ = crops.cut(scaled, cells, size, nuclei, only=table["Metadata_Cell"])
            level = np.tile(crops.background(scaled, cells), (len(x), 1))
            pieces.append((x, masks, level))
    empty = (np.zeros((0, len(channels), size, size), np.float32),)
    joined = (
        [np.concatenate(parts) for parts in zip(*pieces)] if pieces else [*empty, *empty, *empty]
    )
    return Measured(well, pd.concat(rows, ignore_index=True), *joined)


def draw(plate: str, well: str, rows: pd.DataFrame, count: int | str) -> pd.DataFrame:
    """``count`` of a well's cells, or ``all``, by a hash of who they are: no other plays a part."""
    if count == "all" or len(rows) <= count:
        return rows
    names = (f"{plate}/{well}/{s}/{c}" for s, c in zip(rows.Metadata_Site, rows.Metadata_Cell))
    order = np.argsort([hashlib.blake2b(n.encode(), digest_size=8).hexdigest() for n in names])
    return rows.iloc[np.sort(order[:count])]


def draw_well(
    job: Job, well: str, units: Units, size: int, classes: list[str], networks: dict[str, str]
) -> Drawn:
    """Some cells of a well, for attribute; crops of ``size`` px.

    ``networks``: well → the name of the network that judges it, and is asked.
    """
    names = ["Metadata_Site", "Metadata_Cell", "Metadata_Class"]
    rows = parts.read(job.part("features", well), names)
    rows = draw(job.plate, well, rows, job.config.attribute.cells_per_well)
    path = job.part("features", well).with_suffix(".maps.npz")
    torn = (ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
    # from memory: the seeks of a torn file would look like the machine's faults
    with damage_of(path, *torn), np.load(io.BytesIO(path.read_bytes())) as kept:
        coarse = kept["maps"]
    coarse = coarse[rows.index]
    pieces = {"x": [np.zeros((0, len(job.config.channels), size, size), np.float32)]}
    pieces |= {"mask": [np.zeros((0, size, size), bool)], "centre": [np.zeros((0, 2))]}
    order = [np.zeros(0, int)]
    for field, site in enumerate(store.sites(job.store, well)):
        here = np.flatnonzero(rows["Metadata_Site"] == site)
        if not len(here):
            continue
        image = units.apply(store.read_field(job.store, well, field)[:, 0])
        cells = store.read_labels(job.store, well, field, "cells")[0]
        nuclei = store.read_labels(job.store, well, field, "nuclei")[0]
        wanted = rows["Metadata_Cell"].to_numpy()[here]
        cut = crops.cut(image, cells, size, nuclei, only=wanted)
        for name, piece in zip(pieces, (cut[0], cut[1], cut[3])):
            pieces[name].append(piece)
        order.append(here)
    back = np.argsort(np.concatenate(order), kind="stable")
    x, masks, centres = (np.concatenate(piece)[back] for piece in pieces.values())
    found = pd.DataFrame(
        {
            "Metadata_Site": rows["Metadata_Site"].to_numpy(),
            "Metadata_Cell": rows["Metadata_Cell"].to_numpy(),
            "y": centres[:, 0].astype(np.float32),
            "x": centres[:, 1].astype(np.float32),
            "target": [classes.index(name) for name in rows["Metadata_Class"]],
        }
    )
    return Drawn(well, networks[well], found, x, masks, coarse)
