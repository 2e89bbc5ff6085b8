"""What no public validator sees in a plate.zarr (OME-Zarr 0.5 HCS); each with its test.

The public ones judge each document by its schema. They let pass documents that contradict one
another or the pixels: a wrong `field_count`, `omero` outside `ome`, `um` for `micrometer`, a row
without zarr.json, deleted shards and chunks, a label of another size. Standard library only.
"""

import json
import struct
from math import prod
from pathlib import Path

from plateglass.errors import DamageError
from plateglass.store.places import attributes, row_number, wells

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_EMPTY = 2**64 - 1  # a sharding index's mark for a chunk that was never written


def check(root: Path) -> list[str]:
    """Problems of a plate, one sentence each with the path concerned; [] for a whole one."""
    root = Path(root)
    problems: list[str] = []
    plate = _ome(root, root, problems)
    if plate is None:
        return problems
    if "plate" not in plate:
        return [f"{root}: zarr.json has no plate"]
    body = plate["plate"]
    if body.get("version") != "0.5":
        problems.append("zarr.json: ome.plate.version is not 0.5")
    rows = [row["name"] for row in body["rows"]]
    columns = [column["name"] for column in body["columns"]]
    for name in (*rows, *columns):
        if not (name.isascii() and name.isalnum()):
            problems.append(f"zarr.json: the name {name!r} has other signs than letters and digits")
    counts = [0]
    named = set()
    for entry in body["wells"]:
        row, _, column = entry["path"].partition("/")
        if rows[entry["rowIndex"]] != row or columns[entry["columnIndex"]] != column:
            problems.append(f"{entry['path']}: its row or column index points to another well")
        if not (root / row / "zarr.json").is_file():
            problems.append(f"{row}: the row has no zarr.json")
        named.add((row_number(row), int(column)))
        counts.append(_well(root / row / column, root, problems))
    if body.get("field_count") != max(counts):
        problems.append(
            f"zarr.json: field_count is {body.get('field_count')}, the wells have {max(counts)}"
        )
    for well in wells(root):
        row = well.rstrip("0123456789")
        if (row_number(row), int(well[len(row) :])) not in named:
            problems.append(f"{well}: on the disk, but not in the plate's zarr.json")
    return sorted(set(problems))


def _well(folder: Path, root: Path, problems: list[str]) -> int:
    ome = _ome(folder, root, problems)
    images = [] if ome is None else ome.get("well", {}).get("images", [])
    if ome is not None and not images:
        problems.append(f"{_name(folder, root)}: no well, or a well without fields")
    for entry in images:
        _field(folder / entry["path"], root, problems)
    return len(images)


def _field(folder: Path, root: Path, problems: list[str]) -> None:
    ome = _ome(folder, root, problems)
    if ome is None:
        return
    name = _name(folder, root)
    shapes = _multiscales(ome, folder, root, problems, "czyx")
    omero = ome.get("omero")
    if omero is None:
        problems.append(f"{name}: no omero inside ome")
    else:
        if shapes and len(omero["channels"]) != shapes[0][0]:
            problems.append(f"{name}: omero names {len(omero['channels'])} channels of {shapes[0]}")
        for channel in omero["channels"]:
            if channel.get("active") is None or not {"start", "end"} <= set(
                channel.get("window", {})
            ):
                problems.append(f"{name}: omero: a channel without active or window (shown black)")
    if (folder / "labels").is_dir():
        _labels(folder / "labels", shapes, root, problems)


def _labels(folder: Path, image: list[tuple], root: Path, problems: list[str]) -> None:
    ome = _ome(folder, root, problems)
    if ome is None:
        return
    name = _name(folder, root)
    named = ome.get("labels", [])
    there = [path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    if sorted(named) != sorted(there):
        problems.append(f"{name}: names {sorted(named)}, but there are {sorted(there)}")
    for label in there:
        inner = _ome(folder / label, root, problems)
        if inner is None:
            continue
        if "image-label" not in inner:
            problems.append(f"{name}/{label}: no image-label")
        shapes = _multiscales(inner, folder / label, root, problems, "zyx", integers=True)
        if [shape[1:] for shape in image] != shapes:
            problems.append(
                f"{name}/{label}: levels {shapes} do not fit the image's {image} in z, y, x"
            )


def _multiscales(
    ome: dict, folder: Path, root: Path, problems: list[str], axes: str, integers: bool = False
) -> list[tuple]:
    """Check one pyramid; the shapes of its levels."""
    name = _name(folder, root)
    scales = ome.get("multiscales")
    if not scales:
        problems.append(f"{name}: no multiscales")
        return []
    if "".join(axis["name"] for axis in scales[0]["axes"]) != axes:
        problems.append(f"{name}: axes are not {', '.join(axes)}")
    for axis in scales[0]["axes"]:
        if axis["type"] == "space" and axis.get("unit") != "micrometer":
            problems.append(f"{name}: the unit of {axis['name']} is not micrometer")
    shapes = []
    for level in scales[0]["datasets"]:
        kinds = [step["type"] for step in level["coordinateTransformations"]]
        if kinds not in (["scale"], ["scale", "translation"]):
            problems.append(f"{name}/{level['path']}: {kinds} is not a scale, then a translation")
        shape = _array(folder / level["path"], root, problems, integers)
        if shape is not None:
            shapes.append(shape)
    return shapes


def _array(folder: Path, root: Path, problems: list[str], integers: bool) -> tuple | None:
    name = _name(folder, root)
    try:
        array = json.loads((folder / "zarr.json").read_text())
        shape = tuple(array["shape"])
        shard = array["chunk_grid"]["configuration"]["chunk_shape"]
        codec = array["codecs"][0]
        inner = codec["configuration"]["chunk_shape"]
    except (OSError, ValueError, KeyError, IndexError):
        problems.append(f"{name}: no sharded array, or its zarr.json is missing or torn")
        return None
    if integers and array["data_type"] not in _INTEGERS:
        problems.append(f"{name}: a label of {array['data_type']}, not of integers")
    if codec["configuration"].get("index_location", "end") != "end":
        problems.append(f"{name}: the shard's index is not at its end (viewers show it black)")
        return shape
    path = folder.joinpath("c", *["0"] * len(shape))
    chunks = prod(-(-side // step) for side, step in zip(shard, inner))
    # Chunks of the shard that lie wholly beyond the array's edge are never written.
    inside = prod(-(-side // step) for side, step in zip(shape, inner))
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 16 * chunks - 4))
            index = struct.unpack(f"<{2 * chunks}Q", file.read(16 * chunks))
    except FileNotFoundError:
        problems.append(f"{name}: its shard is missing (would be read as 0)")
        return shape
    except struct.error:
        problems.append(f"{name}: its shard is truncated")
        return shape
    written = [(start, n) for start, n in zip(index[::2], index[1::2]) if start != _EMPTY]
    if len(written) < inside:
        problems.append(f"{name}: {inside - len(written)} chunks are missing (would be read as 0)")
    if any(start + n > size for start, n in written):
        problems.append(f"{name}: its shard is truncated")
    return shape


def _ome(folder: Path, root: Path, problems: list[str]) -> dict | None:
    """`ome` of a group with its version, or None and a problem."""
    try:
        found = attributes(folder)
    except DamageError:
        problems.append(f"{_name(folder, root)}: zarr.json is missing or torn")
        return None
    for key in ("omero", "multiscales", "plate", "well", "labels", "image-label"):
        if key in found:
            problems.append(f"{_name(folder, root)}: {key} stands outside ome")
    ome = found.get("ome")
    if ome is None:
        problems.append(f"{_name(folder, root)}: zarr.json has no ome")
    elif ome.get("version") != "0.5":
        problems.append(f"{_name(folder, root)}: ome.version is not 0.5")
    return ome


def _name(folder: Path, root: Path) -> str:
    return "." if folder == root else folder.relative_to(root).as_posix()
