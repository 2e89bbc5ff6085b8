"""Batches of one shape that cross wells: the same result whatever came before, and full devices."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

Arrays = tuple[np.ndarray, ...]


class Batches:
    """Batches of exactly ``size`` rows, filled by items as they come.

    Parameters
    ----------
    function : tensors (size, …) on ``device`` → tensors (size, …), row by row. The last batch is
        padded with zeros, whose results are dropped, so that every batch has the same shape.
    size : rows a batch.
    """

    def __init__(
        self,
        function: Callable[..., tuple[torch.Tensor, ...]],
        size: int,
        device: torch.device | str = "cpu",
    ):
        self.function, self.size, self.device = function, size, device
        self.waiting: deque[tuple[Any, int]] = deque()
        self.inputs: Arrays | None = None
        self.outputs: Arrays | None = None

    def push(self, tag: Any, arrays: Arrays) -> Iterator[tuple[Any, Arrays]]:
        """Take an item's rows (its arrays share their first dimension, which may be 0).

        Yields (tag, outputs) of the items that are complete, in the order they came; only items
        that share a batch are held.
        """
        self.waiting.append((tag, len(arrays[0])))
        self.inputs = _join(self.inputs, arrays)
        while len(self.inputs[0]) >= self.size:
            self._run(_rows(self.inputs, 0, self.size), self.size)
            self.inputs = _rows(self.inputs, self.size, None)
        if self.outputs is not None:
            yield from self._complete()

    def flush(self) -> Iterator[tuple[Any, Arrays]]:
        """The items whose rows still wait for a full batch."""
        if not self.waiting:
            return
        rest = len(self.inputs[0])
        if rest or self.outputs is None:
            padded = tuple(
                np.concatenate([part, np.zeros((self.size - rest, *part.shape[1:]), part.dtype)])
                for part in self.inputs
            )
            self._run(padded, rest)
            self.inputs = _rows(self.inputs, rest, None)
        yield from self._complete()

    def _run(self, batch: Arrays, rows: int) -> None:
        tensors = [torch.from_numpy(np.ascontiguousarray(part)).to(self.device) for part in batch]
        found = tuple(out.cpu().numpy()[:rows] for out in self.function(*tensors))
        self.outputs = _join(self.outputs, found)

    def _complete(self) -> Iterator[tuple[Any, Arrays]]:
        while self.waiting and self.waiting[0][1] <= len(self.outputs[0]):
            tag, rows = self.waiting.popleft()
            yield tag, _rows(self.outputs, 0, rows)
            self.outputs = _rows(self.outputs, rows, None)


def across(
    items: Iterable[tuple[Any, Arrays]],
    function: Callable[..., tuple[torch.Tensor, ...]],
    size: int,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Any, Arrays]]:
    """Pairs (tag, arrays) → (tag, outputs of ``function``), in order; see `Batches`."""
    batches = Batches(function, size, device)
    for tag, arrays in items:
        yield from batches.push(tag, arrays)
    yield from batches.flush()


def _rows(arrays: Arrays, start: int, stop: int | None) -> Arrays:
    return tuple(part[start:stop] for part in arrays)


def _join(first: Arrays | None, second: Arrays) -> Arrays:
    if first is None or not len(first[0]):
        return second
    return tuple(np.concatenate(pair) for pair in zip(first, second))
