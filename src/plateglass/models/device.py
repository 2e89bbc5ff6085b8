"""Where networks run: the one place that decides."""

import torch

from plateglass.errors import SetupError


def choose(name: str = "auto") -> torch.device:
    """Return the device named: ``auto`` takes CUDA where there is one, else the CPU.

    Raises SetupError where the device asked for is not there or not known to torch.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("holds no values")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SetupError(
            f"run.device is {name!r}, which this machine lacks ({reason}): write auto or cpu"
        ) from error
    return device
