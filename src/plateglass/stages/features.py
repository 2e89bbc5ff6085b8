"""features: one forward pass a cell gives what the network sees; classical features beside it.

Workers read fields, cut crops and measure classical features ahead; this process runs the networks
over batches that cross wells and writes each well's rows. Memory is bounded by the wells under way.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from plateglass import parts, prepare, store
from plateglass.errors import DataError
from plateglass.explain.gradcam import gradcam_from_parts, gradcamo_score, upsample
from plateglass.models import device
from plateglass.models.batches import Batches
from plateglass.models.controls import Draws, Views
from plateglass.models.recipe import FINAL, Model, judge_of, load_model
from plateglass.prepare import Measured
from plateglass.units import plate_units
from plateglass.wells import Job, Result, each


def run(job: Job, wells: list[str]) -> Iterator[Result]:
    """Measure these wells; one Result a well, its counts are cells and forward passes."""
    units = plate_units(job)
    model = load_model(job.model_dir) if job.project.has_model else None
    size = model.info["crop"]["px"] if model else 0
    if model:
        _same_scale(job, model, wells[0])
    ahead = each(job, prepare.measure_well, wells, units=units, size=size)
    if model is None:
        for well in ahead:
            if isinstance(well, Result):
                yield well
            else:
                yield _write(job, well.well, well.rows, None, {"cells": len(well.rows)})
        return
    yield from _through(job, model, ahead)


def _same_scale(job: Job, model: Model, well: str) -> None:
    """DataError where a pixel is not as large as those that the model was trained on."""
    here, there = store.pixel_size(job.store, well)[0], model.info["crop"]["um_per_px"]
    if abs(here / there - 1) > 0.05:
        raise DataError(
            f"plate {job.plate}: {here:g} µm a pixel, but the model was trained at {there:g}; train "
            "on a plate of this scale, or correct ingest.pixel_size_um"
        )


def _through(job: Job, model: Model, ahead: Iterator) -> Iterator[Result]:
    """Measured wells through the networks, in batches that cross the wells of one kind."""
    model.to(device.choose(job.config.run.device, job.threads))
    views = Views(model)
    classed = job.project.classed(job.plate)
    kinds: dict[tuple, Batches] = {}
    for well in ahead:
        if isinstance(well, Result):
            yield well
            continue
        fold = model.fold(job.plate, well.well)
        kind = fold, well.well in classed
        if kind not in kinds:
            look = Look(model, views, *kind)
            kinds[kind] = Batches(look, job.config.run.batch, model.device)
        drawn = Draws.of(
            model.donors,
            _ids(job, well),
            model.info["channels"],
            job.config.features.reliance_draws,
        )
        arrays = well.crops, well.masks, well.levels, *drawn
        well.crops = well.masks = well.levels = None  # the batches hold what they need
        for done, seen in kinds[kind].push(well, arrays):
            yield _finished(job, model, kinds[kind].function, done, seen)
    for batches in kinds.values():
        for done, seen in batches.flush():
            yield _finished(job, model, batches.function, done, seen)


class Look:
    """What the networks say of a batch of wells of one kind; ``passes`` counts passes per cell.

    Training wells are judged by the fold's network that left them out, and get their embedding from
    the final network like all wells; labelled wells are seen under each control besides.
    """

    def __init__(self, model: Model, views: Views, fold: int | None, classed: bool):
        self.model, self.views, self.fold, self.classed = model, views, fold, classed
        self.name = judge_of(fold)
        self.controls: list[str] = []
        self.passes = 0

    @torch.inference_mode()
    def __call__(self, x, masks, levels, texture, shuffled, others) -> tuple[torch.Tensor, ...]:
        network = self.model.networks[self.name]
        maps, embedding, logits = network.parts(x)
        if self.name != FINAL:
            embedding = self.model.networks[FINAL].parts(x)[1]
        coarse = gradcam_from_parts(maps, network.head.weight, logits.argmax(1))
        score, enrichment = gradcamo_score(upsample(coarse, masks.shape[1:]), masks)
        reliance = self.views.reliance(network, logits, x, masks, others)
        found = {}
        if self.classed:
            found = self.views.controls(self.name, x, masks, levels, texture, shuffled)
        self.controls = list(found)
        self.passes = 1 + (self.name != FINAL) + others.shape[1] + len(found)
        return embedding, logits, coarse.half(), score, enrichment, reliance, *found.values()


def _finished(job: Job, model: Model, look: Look, well: Measured, seen: tuple) -> Result:
    """A well's rows and maps, written."""
    embedding, logits, coarse, score, enrichment, reliance, *called = seen
    audit = _audit(model, logits)
    audit["Metadata_Fold"] = pd.array([look.fold] * len(logits), dtype="Int64")
    audit["Metadata_GradCAMO"], audit["Metadata_Enrichment"] = score, enrichment
    audit["Metadata_Reliance"] = reliance
    for control, classes in zip(look.controls, called):
        audit[f"Metadata_Class_{control}"] = _named(model, classes)
    vectors = {f"Cells_Embedding_{k:03d}": column for k, column in enumerate(embedding.T)}
    index = well.rows.index
    rows = pd.concat([well.rows, pd.DataFrame(audit, index), pd.DataFrame(vectors, index)], axis=1)
    counts = {"cells": len(rows), "passes": len(rows) * look.passes}
    return _write(job, well.well, rows, coarse, counts)


def _audit(model: Model, logits: np.ndarray) -> dict:
    """Predicted class and margins: a class's logit less the log-sum-exp of the others'."""
    classes, positive = model.info["classes"], model.info["positive"]
    margins = {}
    for k, name in enumerate(classes):
        others = np.delete(logits, k, axis=1)
        margins[name] = logits[:, k] - np.logaddexp.reduce(others, axis=1)
    audit = {
        "Metadata_Class": _named(model, logits.argmax(1)),
        "Metadata_Margin": margins[positive],
    }
    if len(classes) > 2:
        audit |= {f"Metadata_Margin_{name}": margin for name, margin in margins.items()}
    return audit


def _named(model: Model, classes: np.ndarray) -> pd.Series:
    return pd.array([model.info["classes"][k] for k in classes], dtype="string")


def _ids(job: Job, well: Measured) -> list[str]:
    """What a cell's draws are drawn by: who it is, and nothing else."""
    places = zip(well.rows["Metadata_Site"], well.rows["Metadata_Cell"])
    return [f"{job.plate}/{well.well}/{site}/{cell}" for site, cell in places]


def _write(
    job: Job, well: str, rows: pd.DataFrame, maps: np.ndarray | None, counts: dict
) -> Result:
    """A well's rows, and its last-layer maps for attribute."""
    part = job.part("features", well)
    part.parent.mkdir(parents=True, exist_ok=True)
    files = [part]
    if maps is not None:
        fresh = part.with_name(f".{well}.npz")
        np.savez_compressed(
            fresh,
            maps=maps,
            site=rows["Metadata_Site"].to_numpy(),
            cell=rows["Metadata_Cell"].to_numpy(),
        )
        files.append(fresh.replace(part.with_suffix(".maps.npz")))
    parts.write(part, rows)
    return Result(well, files=files, counts=counts)


def remove(job: Job, wells: list[str]) -> None:
    """Delete the parts of wells that are gone."""
    for well in wells:
        part = job.part("features", well)
        part.unlink(missing_ok=True)
        part.with_suffix(".maps.npz").unlink(missing_ok=True)
