"""Where networks run: the one place that decides."""

import os

import torch

from plateglass.errors import SetupError


def choose(name: str = "auto", threads: int | None = None) -> torch.device:
    """Return the device named: ``auto`` takes CUDA where there is one, else the CPU.

    ``threads``: how many the CPU uses for networks from now on in this process.

    Says so (``note:``) where a GPU was promised by ``CUDA_VISIBLE_DEVICES`` and there is none.

    Raises SetupError where the device asked for is not there or not known to torch.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if given := os.environ.get("CUDA_VISIBLE_DEVICES"):
            # a cluster gave the job a GPU: whoever pays for it wants to know
            print(
                f"note: CUDA_VISIBLE_DEVICES is {given}, but torch finds no CUDA device: running on "
                "the CPU (is this torch a build for CUDA?)",
                flush=True,
            )
        return torch.device("cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("holds no values")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # the second where torch is built without CUDA
        reason = str(error).splitlines()[0]
        raise SetupError(
            f"run.device is {name!r}, which this machine lacks ({reason}): write auto or cpu"
        ) from error
    return device
