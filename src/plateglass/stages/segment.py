"""Nuclei and whole cells of every field, written as labels; one row a cell, one row a site."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pandas as pd
from scipy import ndimage

from plateglass import parts, store
from plateglass.config import SegmentSettings
from plateglass.errors import DataError
from plateglass.models import cells, nuclei
from plateglass.wells import Job, Result, each

LABELS = ("nuclei", "cells")
CELL_TYPES = {
    "Metadata_Site": "int64",
    "Metadata_Cell": "int64",
    "Metadata_Edge": "bool",
    "Metadata_X": "float64",
    "Metadata_Y": "float64",
    "Metadata_Box_Left": "int64",
    "Metadata_Box_Top": "int64",
    "Metadata_Box_Right": "int64",
    "Metadata_Box_Bottom": "int64",
}


def run(job: Job, wells: list[str]) -> Iterator[Result]:
    """Segment these wells in Dask workers; one Result a well."""
    return each(job, one_well, wells)


def one_well(job: Job, well: str) -> Result:
    """Segment a well's fields, write labels and parts. Counts: fields, cells, orphans, debris."""
    import torch  # here: of a job with workers its own process goes without

    torch.set_num_threads(1)  # the wells run side by side, and give the same on any machine
    segment = _model(job.config.segment.nuclei.model, job.config.run.device)
    rows, counts = [], []
    for field, site in enumerate(store.sites(job.store, well)):
        image = store.read_field(job.store, well, field)
        pixel_size = store.pixel_size(job.store, well, field)[0]
        found = labels(image, job.config.channel_names, job.config.segment, segment, pixel_size)
        for name, array in zip(LABELS, found[:2]):
            store.write_labels(job.store, well, field, name, array[None])
        rows.append(table(site, *found[:2]))
        counts.append({"Metadata_Site": site} | found[2])
    part = job.part("segment", well)
    parts.write(part, pd.concat(rows, ignore_index=True).astype(CELL_TYPES))
    counted = part.with_suffix(".sites.arrow")
    parts.write(counted, pd.DataFrame(counts))
    files = [part, counted, *store.files_of(job.store, well, labels=True)]
    total = pd.DataFrame(counts).drop(columns="Metadata_Site").sum()
    return Result(
        well, files=files, counts={"fields": len(counts)} | {k: int(v) for k, v in total.items()}
    )


def remove(job: Job, wells: list[str]) -> None:
    """Delete labels and parts of wells that are gone."""
    for well in wells:
        for name in LABELS:
            store.remove_labels(job.store, well, name)
        part = job.part("segment", well)
        part.unlink(missing_ok=True)
        part.with_suffix(".sites.arrow").unlink(missing_ok=True)


def labels(
    image: np.ndarray,
    channels: tuple[str, ...],
    settings: SegmentSettings,
    segment: nuclei.Segmenter,
    pixel_size: float,
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Nuclei and cells ``(y, x)`` int32 of a field ``(c, 1, y, x)``, numbered alike, and counts.

    ``pixel_size`` in µm turns the settings' lengths to px. DataError for more than one plane.
    """
    if image.shape[1] != 1:
        raise DataError(
            f"a field of {image.shape[1]} planes: segment takes single planes so far. Project the "
            "stack (z maximum) before ingest, or choose a plane by ingest.pattern"
        )
    wanted = settings.nuclei.diameter_um
    kernels = segment(
        image[channels.index(settings.nuclei.channel), 0], wanted and wanted / pixel_size
    )
    kernels, debris = cells.drop_debris(kernels, settings.nuclei.debris)
    cell = settings.cells
    found = cells.grow(
        kernels,
        None if cell.channel is None else image[channels.index(cell.channel), 0],
        grow=cell.grow_um / pixel_size,
        reach=cell.reach_um / pixel_size,
        threshold=cell.threshold,
    )
    kernels, found, orphans = cells.number(kernels, found)
    count = int(kernels.max(initial=0))
    return kernels, found, {
        "Count_Cells": count,
        "Count_Nuclei": count + orphans["nuclei"],
        "Orphan_Nuclei": orphans["nuclei"],
        "Orphan_Cells": orphans["cells"],
        "Count_Debris": debris,
    }  # fmt: skip


def table(site: int, kernels: np.ndarray, found: np.ndarray) -> pd.DataFrame:
    """One row a cell of a field: number, centre of its nucleus (px), the cell's box, at the edge.

    A box is half-open: ``found[top:bottom, left:right]`` holds the cell.
    """
    numbers = np.arange(1, int(found.max(initial=0)) + 1)
    centres = np.array(ndimage.center_of_mass(kernels > 0, kernels, numbers)).reshape(-1, 2)
    boxes = [(s[1].start, s[0].start, s[1].stop, s[0].stop) for s in ndimage.find_objects(found)]
    columns = [site, numbers, cells.at_edge(found), centres[:, 1], centres[:, 0]]
    columns += list(np.array(boxes, np.int64).reshape(-1, 4).T)
    named = dict(zip(CELL_TYPES, columns))
    return pd.DataFrame(named, index=range(len(numbers))).astype(CELL_TYPES)


@cache
def _model(name: str, where: str) -> nuclei.Segmenter:
    from plateglass.models import device

    return nuclei.load(name, str(device.choose(where)))
