"""attribute: PCIM of some cells of each well, beside the Grad-CAM maps that features kept.

Workers read fields and cut the drawn cells' crops ahead; this process trains the blends, in batches
that cross the wells of one network.
"""

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import torch

from plateglass import parts, prepare, store
from plateglass.errors import UserError
from plateglass.explain.fidelity import cell_share
from plateglass.explain.gradcam import upsample
from plateglass.explain.pcim import RECIPES, pcim
from plateglass.models import device
from plateglass.models.batches import Batches
from plateglass.models.recipe import Model, judge_of, load_model
from plateglass.prepare import Drawn
from plateglass.store.maps import write_maps
from plateglass.units import plate_units
from plateglass.wells import Job, Result, each


def run(job: Job, wells: list[str]) -> Iterator[Result]:
    """Explain cells of these wells; one Result a well, its counts are cells and passes a cell."""
    recipe = job.config.attribute.recipe
    if recipe not in RECIPES:
        raise UserError(f"attribute.recipe is {recipe!r}; write one of {', '.join(RECIPES)}")
    chosen = device.choose(job.config.run.device, job.threads)
    model = load_model(job.model_dir, lambda name: name.startswith("seed0.")).to(chosen)
    networks = {well: judge_of(model.fold(job.plate, well)) for well in wells}
    by_network = sorted(wells, key=lambda well: (networks[well], well))
    drawn = each(
        job,
        prepare.draw_well,
        by_network,
        units=plate_units(job),
        size=model.info["crop"]["px"],
        classes=list(model.info["classes"]),
        networks=networks,
    )
    version = job.project.provenance("attribute")
    for well, maps in _gathered(job, model, drawn):
        yield well if maps is None else _write(job, well, maps, version)


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
