"""Batches of one shape that cross wells: the same result whatever came before, and full devices."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

Arrays = tuple[np.ndarray, ...]


def across(
    items: Iterable[tuple[Any, Arrays]],
    function: Callable[..., tuple[torch.Tensor, ...]],
    size: int,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Any, Arrays]]:
    """Apply ``function`` to batches of exactly ``size`` rows drawn from successive items.

    Parameters
    ----------
    items : pairs (tag, arrays); an item's arrays have the same first dimension, its rows, of which
        there may be none.
    function : tensors (size, …) on ``device`` → tensors (size, …), row by row. The last batch is
        padded with zeros, whose results are dropped, so that every batch has the same shape.
    size : rows a batch.

    Yields
    ------
    (tag, arrays) for each item, in order. Only the items that share a batch are held at a time.
    """
    waiting: deque[tuple[Any, int]] = deque()
    inputs: Arrays | None = None
    outputs: Arrays | None = None

    def run(batch: Arrays) -> Arrays:
        tensors = [torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in batch]
        return tuple(out.cpu().numpy() for out in function(*tensors))

    for tag, arrays in items:
        waiting.append((tag, len(arrays[0])))
        inputs = _join(inputs, arrays)
        while len(inputs[0]) >= size:
            outputs = _join(outputs, run(_rows(inputs, 0, size)))
            inputs = _rows(inputs, size, None)
        while outputs and waiting and waiting[0][1] <= len(outputs[0]):
            tag, rows = waiting.popleft()
            yield tag, _rows(outputs, 0, rows)
            outputs = _rows(outputs, rows, None)
    if inputs is None:
        return
    rest = len(inputs[0])
    if rest or outputs is None:
        padded = tuple(
            np.concatenate([part, np.zeros((size - rest, *part.shape[1:]), part.dtype)])
            for part in inputs
        )
        outputs = _join(outputs, _rows(run(padded), 0, rest))
    for tag, rows in waiting:
        yield tag, _rows(outputs, 0, rows)
        outputs = _rows(outputs, rows, None)


def _rows(arrays: Arrays, start: int, stop: int | None) -> Arrays:
    return tuple(part[start:stop] for part in arrays)


def _join(first: Arrays | None, second: Arrays) -> Arrays:
    if first is None or not len(first[0]):
        return second
    return tuple(np.concatenate(pair) for pair in zip(first, second))
