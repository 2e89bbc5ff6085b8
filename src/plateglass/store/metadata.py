"""The JSON of OME-Zarr 0.5: what stands in each group's attributes. Standard library only."""

import json
import os
from pathlib import Path

from plateglass.errors import DamageError
from plateglass.store.places import attributes, field_dir, row_number, split

VERSION = "0.5"
Display = dict[
    str, tuple[int, int, str]
]  # channel → values that are black and full, colour (RRGGBB)
AXES = {
    "c": {"name": "c", "type": "channel"},
    "z": {"name": "z", "type": "space", "unit": "micrometer"},
    "y": {"name": "y", "type": "space", "unit": "micrometer"},
    "x": {"name": "x", "type": "space", "unit": "micrometer"},
}
_BLOCK = 4096
_METHODS = {
    "mean": "each level is the rounded mean of 2 x 2 pixels of the one before",
    "nearest": "each level is every second pixel of the one before",
}


def write_group(folder: Path, attributes: dict, block: int = 1) -> None:
    """Write a Zarr 3 group's zarr.json whole or not at all; nothing where it stands already.

    With `block` the text is filled up with blanks to a multiple of it.
    """
    text = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}, indent=1)
    text = text.ljust(-(-len(text) // block) * block - 1) + "\n"
    path = folder / "zarr.json"
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_bytes() == text.encode():
        return
    fresh = folder / f".zarr.json-{os.getpid()}"
    fresh.write_text(text)
    fresh.replace(path)


def plate(wells: dict[str, int], name: str, geometry: tuple[int, int]) -> dict:
    """`ome` of a plate. wells: well → number of fields; geometry: rows, columns of the plate."""
    rows = [_row_name(number) for number in range(geometry[0])]
    places = []
    for well in sorted(wells, key=lambda well: (row_number(split(well)[0]), int(split(well)[1]))):
        row, column = split(well)
        places.append(
            {
                "path": f"{row}/{column}",
                "rowIndex": row_number(row),
                "columnIndex": int(column) - 1,
            }
        )
    return {
        "version": VERSION,
        "plate": {
            "version": VERSION,
            "name": name,
            "rows": [{"name": row} for row in rows],
            "columns": [{"name": str(column + 1)} for column in range(geometry[1])],
            "acquisitions": [{"id": 0, "name": name, "maximumfieldcount": max(wells.values())}],
            "wells": places,
            "field_count": max(wells.values()),
        },
    }


def geometry(wells: list[str]) -> tuple[int, int]:
    """Rows and columns of the smallest usual plate (6 to 1,536 wells) that has all the wells."""
    rows = max(row_number(split(well)[0]) for well in wells) + 1
    columns = max(int(split(well)[1]) for well in wells)
    for size in ((2, 3), (3, 4), (4, 6), (6, 8), (8, 12), (16, 24), (32, 48)):
        if rows <= size[0] and columns <= size[1]:
            return size
    return rows, columns


def well(fields: int) -> dict:
    """`ome` of a well with this many fields."""
    images = [{"path": str(field), "acquisition": 0} for field in range(fields)]
    return {"version": VERSION, "well": {"version": VERSION, "images": images}}


def multiscales(
    name: str, axes: str, levels: int, pixel_size_um: float, z_step_um: float, method: str
) -> list:
    """`multiscales` of a pyramid halved in y and x; the centre of a coarse pixel is its four's.

    method: how a level is made from the one before (`mean`, `nearest`).
    """
    datasets = []
    for level in range(levels):
        factor = 2**level
        size = {"c": 1.0, "z": z_step_um, "y": pixel_size_um * factor, "x": pixel_size_um * factor}
        shift = {"c": 0.0, "z": 0.0, "y": 0.0, "x": 0.0}
        shift["y"] = shift["x"] = pixel_size_um * (factor - 1) / 2
        transformations = [{"type": "scale", "scale": [size[axis] for axis in axes]}]
        if level:
            transformations.append(
                {"type": "translation", "translation": [shift[axis] for axis in axes]}
            )
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    return [
        {
            "name": name,
            "type": method,
            "metadata": {"description": _METHODS[method], "method": "plateglass.store.arrays"},
            "axes": [AXES[axis] for axis in axes],
            "datasets": datasets,
        }
    ]


def omero(display: Display, limit: int, z: int = 1) -> dict:
    """`omero`, one entry a channel, in order. limit: the dtype's largest value."""
    return {
        "version": VERSION,
        "channels": [
            {
                "label": channel,
                "color": colour,
                "active": True,
                "coefficient": 1,
                "family": "linear",
                "inverted": False,
                "window": {
                    "min": 0,
                    "max": limit,
                    "start": start,
                    "end": end,
                },
            }
            for channel, (start, end, colour) in display.items()
        ],
        "rdefs": {"defaultT": 0, "defaultZ": z // 2, "model": "color"},
    }


def image(name: str, levels: int, pixel_size_um: float, z_step_um: float, omero: dict) -> dict:
    """`ome` of a field."""
    return {
        "version": VERSION,
        "multiscales": multiscales(name, "czyx", levels, pixel_size_um, z_step_um, "mean"),
        "omero": omero,
    }


def label(name: str, levels: int, pixel_size_um: float, z_step_um: float) -> dict:
    """`ome` of one label of a field."""
    return {
        "version": VERSION,
        "multiscales": multiscales(name, "zyx", levels, pixel_size_um, z_step_um, "nearest"),
        "image-label": {
            "version": VERSION,
            "colors": [{"label-value": 0, "rgba": [0, 0, 0, 0]}],
            "source": {"image": "../../"},
        },
    }


def write_image(folder: Path, attributes: dict) -> None:
    """Write a field's group, in whole disk blocks: its size is the same whatever the windows."""
    write_group(folder, attributes, block=_BLOCK)


def pixel_size(root: Path, well: str, field: int = 0) -> tuple[float, float]:
    """Pixel size in y and x, and step in z, of a field in micrometres."""
    scale = attributes(field_dir(root, well, field))["ome"]["multiscales"][0]["datasets"][0][
        "coordinateTransformations"
    ][0]["scale"]
    return scale[2], scale[1]


def display(root: Path, well: str, field: int = 0) -> Display:
    """How a field is painted."""
    channels = attributes(field_dir(root, well, field))["ome"]["omero"]["channels"]
    return {c["label"]: (c["window"]["start"], c["window"]["end"], c["color"]) for c in channels}


def plate_display(root: Path) -> Display | None:
    """How every field of the plate is painted; None where they differ, or that is not known."""
    try:
        found = attributes(Path(root))["plateglass"]["display"]
    except (DamageError, KeyError):
        return None
    return found and {channel: tuple(how) for channel, how in found.items()}


def _row_name(number: int) -> str:
    return chr(65 + number) if number < 26 else "A" + chr(65 + number - 26)
