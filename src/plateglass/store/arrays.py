"""One Zarr 3 array = one shard: pyramids, writing, reading, and no fill value for a lost shard."""

from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from plateglass.errors import DamageError

SMALLEST = 256  # the pyramid ends at the first level whose sides are not above this
TILE = 512
PLANE = 1280  # planes up to this many pixels a side are one chunk, larger ones are tiled


def levels(shape: tuple[int, ...]) -> int:
    """How many pyramid levels an image of `shape` (..., y, x) has."""
    side, count = max(shape[-2:]), 1
    while side > SMALLEST:
        side, count = -(-side // 2), count + 1
    return count


def mean_pyramid(image: np.ndarray) -> list[np.ndarray]:
    """Levels of an image (..., y, x) of integers, each the rounded mean of 2 × 2 of the one before.

    An odd last row or column is repeated, so that nothing is lost at the edge.
    """
    pyramid = [image]
    for _ in range(levels(image.shape) - 1):
        fine = pyramid[-1]
        height, width = fine.shape[-2:]
        if height % 2 or width % 2:
            pad = [(0, 0)] * (fine.ndim - 2) + [(0, height % 2), (0, width % 2)]
            fine = np.pad(fine, pad, mode="edge")
        total = np.zeros((*fine.shape[:-2], fine.shape[-2] // 2, fine.shape[-1] // 2), np.uint32)
        for y in (0, 1):
            for x in (0, 1):
                total += fine[..., y::2, x::2]
        pyramid.append(((total + 2) // 4).astype(image.dtype))
    return pyramid


def nearest_pyramid(labels: np.ndarray) -> list[np.ndarray]:
    """Levels of a label image (..., y, x): every second pixel; shapes are `mean_pyramid`'s."""
    pyramid = [labels]
    for _ in range(levels(labels.shape) - 1):
        pyramid.append(pyramid[-1][..., ::2, ::2])
    return pyramid


def chunk_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """One plane, or even tiles of at most 512² of a large one."""
    sides = shape[-2:]
    if max(sides) > PLANE:
        sides = tuple(-(-side // -(-side // TILE)) for side in sides)
    return (1,) * (len(shape) - 2) + tuple(sides)


def write(path: Path, array: np.ndarray, axes: str) -> None:
    """Write an array as one shard with its index at the end; empty chunks are written too."""
    chunks = chunk_shape(array.shape)
    shard = tuple(-(-size // chunk) * chunk for size, chunk in zip(array.shape, chunks))
    # Level 1: on camera noise as small as level 5, four times as fast (measured on real fields).
    stored = zarr.create_array(
        path,
        shape=array.shape,
        dtype=array.dtype,
        chunks=chunks,
        shards=shard,
        compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
        fill_value=0,
        dimension_names=list(axes),
        config={"write_empty_chunks": True},
    )
    stored[...] = array


def read(path: Path, part: tuple = ()) -> np.ndarray:
    """Read an array or a part of it. DamageError where it or its shard is missing or damaged."""
    # zarr takes a missing shard for an empty one and would give zeros.
    try:
        array = zarr.open_array(path, mode="r")
        if not path.joinpath("c", *["0"] * array.ndim).is_file():
            raise FileNotFoundError
        return np.asarray(array[part or ...])
    except FileNotFoundError:
        raise DamageError(path, "pixels are missing") from None
    except (ValueError, RuntimeError, KeyError) as error:
        raise DamageError(path, f"pixels are damaged ({error})") from error


def shape(path: Path) -> tuple[int, ...]:
    """Shape of a stored array."""
    return zarr.open_array(path, mode="r").shape
