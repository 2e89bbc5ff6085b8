"""timm, torchvision and Cellpose: imported beside any build of torch, and without its compiler."""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

_library = None  # torch forgets the operators when this object dies


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Import timm, torchvision or Cellpose inside, the first time in a process.

    timm and Cellpose import torchvision, which dies with *operator torchvision::nms does not exist*
    where torch is a CPU build and torchvision's wheel is CUDA's. And it imports torch's compiler, a
    third of what a job takes to start, of which nothing here makes use; whoever asks for more than
    an import does gets the real one.
    """
    _operators()
    if _Compiler.NAME in sys.modules:
        yield
        return
    compiler = _Compiler(_Compiler.NAME)
    sys.modules |= {_Compiler.NAME: compiler, f"{_Compiler.NAME}.utils": compiler}
    try:
        yield
    finally:
        compiler.leave()


class _Compiler(ModuleType):
    """Stands in for ``torch._dynamo``, and for its ``utils``, while others are imported."""

    NAME = "torch._dynamo"

    @staticmethod
    def disable(function: Any = None, *_: Any, **__: Any) -> Any:
        """A decorator that keeps the compiler off: here it is."""
        return (lambda given: given) if function is None else function

    @staticmethod
    def is_compile_supported(device: str) -> bool:
        return False

    def leave(self) -> None:
        for name in (self.NAME, f"{self.NAME}.utils"):
            if sys.modules.get(name) is self:
                del sys.modules[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.leave()
        real = importlib.import_module(self.NAME)
        return getattr(real if hasattr(real, name) else real.utils, name)


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
