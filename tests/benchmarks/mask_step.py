"""The mask step: segment's job with a threshold in the network's place, as the command line runs it.

    python tests/benchmarks/mask_step.py segment PLATE --config FILE --key KEY

Imported by name in the workers, so that Dask sends them no code.
"""

import sys

from plateglass import cli, wells
from plateglass.wells import Job, Result


def without_network() -> None:
    """Let segment, once it is imported, hand its wells to `one_well`."""
    each = wells.each
    wells.each = lambda job, function, names: each(job, one_well, names)


def one_well(job: Job, well: str) -> Result:
    """A well of segment, its nuclei by `threshold`."""
    from plateglass.stages import segment

    segment._model = lambda name, where: threshold
    return segment.one_well(job, well)


def threshold(image, diameter=None):
    """Connected bright pixels."""
    import numpy as np
    from scipy import ndimage

    return ndimage.label(np.squeeze(image) > 2000)[0].astype(np.int32)


if __name__ == "__main__":
    import mask_step

    mask_step.without_network()
    sys.exit(cli.main())
