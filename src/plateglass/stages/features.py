"""features: one forward pass a cell gives what the network sees; classical features beside it.

Workers read fields, cut crops and measure classical features ahead; this process runs the networks
over batches that cross wells and writes each well's rows. Memory is bounded by the wells under way.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch

from plateglass import crops, store, tables
from plateglass.explain.gradcam import gradcam_from_parts, gradcamo_score, upsample
from plateglass.measure import classical
from plateglass.models import controls, device
from plateglass.models.batches import across
from plateglass.models.recipe import Model, load_model
from plateglass.project import Project
from plateglass.units import Units, plate_units
from plateglass.wells import Job, Result, each

FINAL = "seed0.final"  # the network of which all wells get their embedding


@dataclass
class Prepared:
    """A well before the networks: identifiers and classical features by cell, crops (N, C, y, x)."""

    well: str
    rows: pd.DataFrame
    crops: np.ndarray
    masks: np.ndarray
    levels: np.ndarray  # the field's background, (N, C)


def run(job: Job, wells: list[str]) -> Iterator[Result]:
    """Measure these wells; one Result a well, its counts are cells and forward passes."""
    units = plate_units(job)
    model = load_model(job.model_dir) if job.model else None
    size = model.info["crop"]["px"] if model else 0
    prepared = each(job, prepare, wells, units=units, size=size)
    if model is None:
        for well in prepared:
            if isinstance(well, Result):
                yield well
            else:
                yield _write(job, well.well, well.rows, None, {"cells": len(well.rows)})
        return
    yield from _through(job, model, prepared)


def _through(job: Job, model: Model, prepared: Iterator) -> Iterator[Result]:
    """Prepared wells through the networks, in batches that cross them."""
    model.to(device.choose(job.config.run.device))
    quarantined: list[Result] = []

    def items() -> Iterator:
        for well in prepared:
            if isinstance(well, Result):
                quarantined.append(well)
            else:
                yield well, (well.crops, well.masks)

    look = partial(_look, model, FINAL)
    classed = Project.read(job.config).classed(job.plate)
    for well, seen in across(items(), look, job.config.run.batch, model.device):
        yield _finished(job, model, well, seen, well.well in classed)
        while quarantined:
            yield quarantined.pop()
    yield from quarantined


def _look(model: Model, name: str, x: torch.Tensor, masks: torch.Tensor) -> tuple:
    """One forward pass: embedding, logits, coarse Grad-CAM maps, score and enrichment."""
    network = model.networks[name]
    with torch.inference_mode():
        maps, embedding, logits = network.parts(x)
        coarse = gradcam_from_parts(maps, network.head.weight, logits.argmax(1))
        score, enrichment = gradcamo_score(upsample(coarse, masks.shape[1:]), masks)
    return embedding, logits, coarse.half(), score, enrichment


def _finished(job: Job, model: Model, well: Prepared, seen: tuple, classed: bool) -> Result:
    """A well's rows and maps, written; training wells are judged by the fold that left them out."""
    fold = model.fold(job.plate, well.well)
    passes = len(well.rows)
    embedding, *judged = seen
    name = FINAL
    if fold is not None:
        name = f"seed0.fold{fold}"
        judged = _own_batches(job, model, partial(_look, model, name), well.crops, well.masks)[1:]
        passes += len(well.rows)
    logits, coarse, score, enrichment = judged
    rows = well.rows
    audit = _audit(model, logits)
    audit["Metadata_Fold"] = pd.array([fold] * len(rows), dtype="Int64")
    audit["Metadata_GradCAMO"], audit["Metadata_Enrichment"] = score, enrichment
    arguments = (well.crops, well.masks, well.levels, _ids(job, well))
    audit["Metadata_Reliance"] = controls.reliance(
        model,
        name,
        *arguments,
        draws=job.config.features.reliance_draws,
        batch=job.config.run.batch,
    )
    passes += len(rows) * job.config.features.reliance_draws
    if classed:
        for control, classes in controls.classes(
            model, name, fold, *arguments, batch=job.config.run.batch
        ).items():
            audit[f"Metadata_Class_{control}"] = _named(model, classes)
    vectors = {f"Cells_Embedding_{k:03d}": column for k, column in enumerate(embedding.T)}
    rows = pd.concat(
        [rows, pd.DataFrame(audit, rows.index), pd.DataFrame(vectors, rows.index)], axis=1
    )
    return _write(job, well.well, rows, coarse, {"cells": len(rows), "passes": passes})


def _own_batches(job: Job, model: Model, function, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """One well alone through a network, in batches of the fixed shape."""
    [(_, outputs)] = across([(None, arrays)], function, job.config.run.batch, model.device)
    return outputs


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


def _ids(job: Job, well: Prepared) -> list[str]:
    """What a cell's draws are drawn by: who it is, and nothing else."""
    places = zip(well.rows["Metadata_Site"], well.rows["Metadata_Cell"])
    return [f"{job.plate}/{well.well}/{site}/{cell}" for site, cell in places]


def prepare(job: Job, well: str, units: Units, size: int) -> Prepared:
    """Fields of a well to crops and classical features (in a worker)."""
    channels = list(job.config.channel_names)
    pieces, rows = [], []
    for field, site in enumerate(store.sites(job.store, well)):
        image = store.read_field(job.store, well, field)[:, 0]
        nuclei = store.read_labels(job.store, well, field, "nuclei")[0]
        cells = store.read_labels(job.store, well, field, "cells")[0]
        table = pd.DataFrame({"Metadata_Cell": np.unique(cells[cells > 0]).astype("int64")})
        if job.config.features.classical:
            measured = classical.measure(image, nuclei, cells, channels, units.windows)
            table = pd.concat([table, measured.reset_index(drop=True)], axis=1)
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
    return Prepared(well, pd.concat(rows, ignore_index=True), *joined)


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
    tables.write(part, rows, {})
    return Result(well, files=files, counts=counts)


def remove(job: Job, wells: list[str]) -> None:
    """Delete the parts of wells that are gone."""
    for well in wells:
        part = job.part("features", well)
        part.unlink(missing_ok=True)
        part.with_suffix(".maps.npz").unlink(missing_ok=True)
