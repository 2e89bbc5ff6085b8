"""OME-Zarr 0.5 in and out: the only package that knows the format.

    plate.zarr/zarr.json                    the plate: wells, rows, columns     places, metadata
    plate.zarr/A/zarr.json                  a row
    plate.zarr/A/1/zarr.json                a well: its fields, the source's sites
    plate.zarr/A/1/0/zarr.json              a field: axes c, z, y, x, levels, omero   fields
    plate.zarr/A/1/0/0/{zarr.json,c/0/0/0/0}   one level: its array, one shard     arrays
    plate.zarr/A/1/0/labels/cells/0/...     a label: int32, z, y, x, the image's levels

`check` finds what the public validators let pass. Names starting with a dot are being
written and are nobody's. Importing this package costs the standard library only: numpy and zarr
are loaded by the first read or write.
"""

from plateglass.store.check import check
from plateglass.store.fields import (
    read_field,
    read_labels,
    remove_labels,
    set_display,
    write_field,
    write_groups,
    write_labels,
    write_plate,
    write_well,
)
from plateglass.store.metadata import (
    Display,
    display,
    geometry,
    pixel_size,
    plate_display,
)
from plateglass.store.places import (
    content,
    files_of,
    remove_well,
    sites,
    sizes,
    wells,
)

__all__ = [
    "Display",
    "check",
    "content",
    "display",
    "files_of",
    "geometry",
    "pixel_size",
    "plate_display",
    "read_field",
    "read_labels",
    "remove_labels",
    "remove_well",
    "set_display",
    "sites",
    "sizes",
    "wells",
    "write_field",
    "write_groups",
    "write_labels",
    "write_plate",
    "write_well",
]
