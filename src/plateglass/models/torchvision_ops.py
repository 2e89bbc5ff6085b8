"""A CPU build of torch beside torchvision's CUDA wheel: make ``import torchvision`` work."""

import importlib.util
from pathlib import Path

_library = None  # torch forgets the operators when this object dies


def ensure() -> None:
    """Define the two operators torchvision registers fakes for, where its own library cannot load.

    Does nothing where torchvision works or is not installed. Call before importing timm or
    cellpose.models; both import torchvision, which else dies with *operator torchvision::nms does
    not exist*.
    """
    global _library
    import torch

    spec = importlib.util.find_spec("torchvision")
    if _library is not None or spec is None or spec.origin is None:
        return
    for binary in Path(spec.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(binary)
            return
        except OSError:
            continue  # built against CUDA libraries that are not here
    _library = torch.library.Library("torchvision", "DEF")
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
