"""attribute: PCIM of some cells of each well, beside the Grad-CAM maps that features kept.

Workers read fields and cut the drawn cells' crops ahead; this process trains the blends, in batches
that cross the wells of one network.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch

from plateglass import crops, parts, store
from plateglass.errors import UserError
from plateglass.explain.fidelity import cell_share
from plateglass.explain.gradcam import upsample
from plateglass.explain.pcim import RECIPES, pcim
from plateglass.files import damage_of
from plateglass.models import device
from plateglass.models.batches import Batches
from plateglass.models.recipe import Model, judge_of, load_model
from plateglass.store.maps import write_maps
from plateglass.units import Units, plate_units
from plateglass.wells import Job, Result, each


@dataclass
class Drawn:
    """A well's cells to explain.

    ``rows`` has ``Metadata_Site``, ``Metadata_Cell``, ``y``, ``x`` (px in the field) and
    ``target``, the predicted class's number; crops (n, C, y, x), masks (n, y, x), coarse Grad-CAM
    maps (n, h, w).
    """

    well: str
    network: str
    rows: pd.DataFrame
    crops: np.ndarray
    masks: np.ndarray
    coarse: np.ndarray


def run(job: Job, wells: list[str]) -> Iterator[Result]:
    """Explain cells of these wells; one Result a well, its counts are cells and passes a cell."""
    recipe = job.config.attribute.recipe
    if recipe not in RECIPES:
        raise UserError(f"attribute.recipe is {recipe!r}; write one of {', '.join(RECIPES)}")
    chosen = device.choose(job.config.run.device)
    model = load_model(job.model_dir, lambda name: name.startswith("seed0.")).to(chosen)
    networks = {well: judge_of(model.fold(job.plate, well)) for well in wells}
    by_network = sorted(wells, key=lambda well: (networks[well], well))
    drawn = each(
        job,
        prepare,
        by_network,
        units=plate_units(job),
        size=model.info["crop"]["px"],
        classes=list(model.info["classes"]),
        networks=networks,
    )
    version = job.project.provenance("attribute")
    for well, maps in _gathered(job, model, drawn):
        yield well if maps is None else _write(job, well, maps, version)


def draw(plate: str, well: str, rows: pd.DataFrame, count: int | str) -> pd.DataFrame:
    """``count`` of a well's cells, or ``all``, by a hash of who they are: no other plays a part."""
    if count == "all" or len(rows) <= count:
        return rows
    names = (f"{plate}/{well}/{s}/{c}" for s, c in zip(rows.Metadata_Site, rows.Metadata_Cell))
    order = np.argsort([hashlib.blake2b(n.encode(), digest_size=8).hexdigest() for n in names])
    return rows.iloc[np.sort(order[:count])]


def prepare(
    job: Job, well: str, units: Units, size: int, classes: list[str], networks: dict[str, str]
) -> Drawn:
    """Draw a well's cells and cut their crops (in a worker)."""
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


def _gathered(job: Job, model: Model, drawn: Iterable[Drawn | Result]) -> Iterator:
    """(well, PCIM maps) of drawn wells, or (Result, None), in full batches of each network."""
    batches: dict[str, Batches] = {}
    for well in drawn:
        if isinstance(well, Result):
            yield well, None
            continue
        if well.network not in batches:
            look = partial(_explain, model.networks[well.network], job.config.attribute.recipe)
            batches[well.network] = Batches(look, job.config.run.batch, model.device)
        inputs = (well.crops, well.rows["target"].to_numpy())
        for known, (maps,) in batches[well.network].push(well, inputs):
            yield known, maps
    for waiting in batches.values():
        for known, (maps,) in waiting.flush():
            yield known, maps


def _explain(network, recipe: str, x: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor]:
    maps = pcim(network, x, target, recipe)
    # a map per channel is told apart by pixels in the store: their sum
    return (maps.sum(1) if maps.ndim == x.ndim else maps,)


def _write(job: Job, well: Drawn, maps: np.ndarray, version: dict) -> Result:
    """A well's maps, and its rows: how far what decides lies on the cell."""
    rows = well.rows
    size = well.masks.shape[1:]
    gradcam = upsample(torch.from_numpy(well.coarse.astype(np.float32)), size).numpy()
    found = {
        "site": rows["Metadata_Site"].to_numpy(),
        "cell": rows["Metadata_Cell"].to_numpy(),
        "y": rows["y"].to_numpy(),
        "x": rows["x"].to_numpy(),
        "gradcam": gradcam.astype(np.float16),
        "pcim": maps.astype(np.float16),
    }
    recipe = job.config.attribute.recipe
    note = {"recipe": recipe, "network": well.network, "made_by": version}
    files = write_maps(job.plate_dir / "attribution.zarr", well.well, found, note)
    share, enrichment = cell_share(torch.from_numpy(maps), torch.from_numpy(well.masks))
    part = job.part("attribute", well.well)
    table = rows[["Metadata_Site", "Metadata_Cell"]].assign(
        Metadata_PCIM_Share=share.numpy(), Metadata_PCIM_Enrichment=enrichment.numpy()
    )
    parts.write(part, table)
    counts = {"cells": len(rows), "passes": RECIPES[recipe].passes}
    return Result(well.well, files=[part, *files], counts=counts)


def remove(job: Job, wells: list[str]) -> None:
    """Delete the maps and parts of wells that are gone."""
    for well in wells:
        store.remove_well(job.plate_dir / "attribution.zarr", well)
        job.part("attribute", well).unlink(missing_ok=True)
