"""timm, torchvision and Cellpose: imported beside any build of torch, and without its compiler."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

COMPILER, UTILS = "torch._dynamo", "torch._dynamo.utils"
_library = None  # torch forgets the operators when this object dies


def load(name: str) -> ModuleType:
    """Import a module of timm, of torchvision or of Cellpose, which imports torchvision.

    Two things stand in the way of a plain import. It dies with *operator torchvision::nms does not
    exist* where torch is a CPU build and torchvision's wheel is CUDA's. And it imports torch's
    compiler, a third of the CPU seconds that it takes, for decorators that keep the compiler off
    some of timm's functions (which then lack them) and for a question that torchvision asks later.
    Nothing here compiles; train's optimisers import it themselves. Where a version wants more of the
    compiler than that, it is imported after all.
    """
    _operators()
    if name in sys.modules or COMPILER in sys.modules:
        return importlib.import_module(name)
    stand_in = _Compiler(COMPILER)
    sys.modules |= {COMPILER: stand_in, UTILS: stand_in}
    try:
        return importlib.import_module(name)
    except (AttributeError, ImportError, ValueError):
        stand_in.leave()
        return importlib.import_module(name)
    finally:
        stand_in.leave()


class _Compiler(ModuleType):
    """Stands in for ``torch._dynamo`` and its ``utils``, as far as imports need them."""

    @staticmethod
    def disable(function: Any = None, *_: Any, **__: Any) -> Any:
        """A decorator that would keep the compiler off."""
        return (lambda given: given) if function is None else function

    def is_compile_supported(self, device: Any) -> bool:
        """Asked when torchvision's functions are called, not while they are imported."""
        self.leave()
        return importlib.import_module(UTILS).is_compile_supported(device)

    def leave(self) -> None:
        for name in (COMPILER, UTILS):
            if sys.modules.get(name) is self:
                del sys.modules[name]


def _operators() -> None:
    """Define the two operators torchvision registers fakes for, where its own library cannot load."""
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
