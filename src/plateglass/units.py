"""Plate units: ``(value − background) / scale`` per plate and channel.

Both come from the plate's negative controls (else from 24 wells chosen by a hash of their names and
then kept), so that a treatment never moves them. They are made of what ingest measured; no pixel is
read again.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from plateglass import parts
from plateglass.errors import DataError
from plateglass.wells import Job

COPIES = 0.9  # channels that correlate more than this show the same (docs/methods.md)


@dataclass(frozen=True)
class Units:
    """Background and scale by channel, in the order of the stores' channels, in grey values."""

    background: dict[str, float]
    scale: dict[str, float]
    wells: tuple[str, ...] = ()

    def apply(self, field: np.ndarray) -> np.ndarray:
        """A field (C, …) of grey values in plate units, float32."""
        shape = (-1, *[1] * (field.ndim - 1))
        background = np.array(list(self.background.values()), np.float32).reshape(shape)
        scale = np.array(list(self.scale.values()), np.float32).reshape(shape)
        return (field.astype(np.float32) - background) / scale

    @property
    def windows(self) -> dict[str, tuple[float, float]]:
        """Grey values from background to twice the scale above it, by channel."""
        return {
            channel: (level, level + 2 * self.scale[channel])
            for channel, level in self.background.items()
        }


def plate_units(job: Job, plate: str | None = None) -> Units:
    """Units of a plate from the ingest parts of its units wells.

    Background is the median over their sites of the sites' background, scale the median of the 99th
    percentile above it (at least one grey value). Ours.

    Raises
    ------
    DataError
        None of the wells has a readable site.
    """
    job = job if plate is None else job.of(plate)
    wells = job.project.units_made_from(job.plate)
    rows = [parts.read(job.part("ingest", well)) for well in wells]
    sites = pd.concat(rows) if rows else pd.DataFrame()
    if sites.empty:
        raise DataError(f"plate {job.plate}: no readable well to take its units from")
    background, scale = {}, {}
    for channel in job.config.channel_names:
        level = float(sites[f"Background_{channel}"].median())
        background[channel] = level
        scale[channel] = max(1.0, float((sites[f"P99_{channel}"]).median()) - level)
    return Units(background, scale, tuple(wells))
