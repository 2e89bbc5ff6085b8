"""What the workers of `scale_wells` run; a module of its own, so that Dask sends its name alone."""

import importlib
import os
import time

import numpy as np

from plateglass.wells import Job, Result


def step(job: Job, well: str, name: str, **given) -> Result:
    """A well of ingest or of the mask step; counts tell what its process has spent so far."""
    module = importlib.import_module(f"plateglass.stages.{name}")
    module._model = lambda name, where: threshold
    made = module.one_well(job, well, **given)
    made.counts |= {"pid": os.getpid(), "cpu": time.process_time()}
    return made


def threshold(image, diameter=None):
    """Stands for the network: connected bright pixels."""
    from scipy import ndimage

    return ndimage.label(np.squeeze(image) > 2000)[0].astype(np.int32)
