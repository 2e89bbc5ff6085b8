"""Cells, donors and settings small enough to train on in a test."""

import numpy as np

from plateglass.config import SurroundingsSettings, TrainSettings
from plateglass.models.controls import Donors
from plateglass.models.pool import Well

SIDE, SIZE = 40, 32  # of stored crops, and of those networks see


def wells(count=6, cells=12, seed=0):
    """Wells of two classes: a bright (class 1) or dim spot in the middle, in channel 1 of two."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        label = i % 2
        x = rng.normal(0, 0.1, (cells, 2, SIDE, SIDE)).astype(np.float32)
        masks = np.zeros((cells, SIDE, SIDE), bool)
        masks[:, 15:25, 15:25] = True
        x[:, 1, 15:25, 15:25] += 0.2 + label
        yield Well(
            ("P1", f"A{i + 1:02d}"),
            label,
            x,
            masks,
            np.full((cells, 2), 0.01 * i, np.float32),
            rng.normal(0, 0.1, (1, 2, SIDE, SIDE)).astype(np.float32),
            np.stack([np.ones(cells, int), np.arange(1, cells + 1)], 1),
        )


def quick(**more) -> TrainSettings:
    """Settings of a training of seconds."""
    given = {"classes": ("no", "yes"), "crop": 32, "cut": 4, "epochs": 2, "batch": 8, "seeds": 1}
    given |= {"folds": 2, "surroundings": SurroundingsSettings(), **more}
    return TrainSettings(**given)


def made(count=12, textures=3):
    rng = np.random.default_rng(0)
    masks = np.zeros((count, SIZE, SIZE), bool)
    masks[:, 12:20, 12:20] = True
    return Donors(
        rng.normal(size=(count, 2, SIZE, SIZE)).astype(np.float16),
        masks,
        np.full((count, 2), 7, np.float32),
        np.arange(count) % 2,
        rng.normal(size=(textures, 2, SIZE, SIZE)).astype(np.float16),
        [f"P1/A{i % 4 + 1:02d}" for i in range(count)],
    )
