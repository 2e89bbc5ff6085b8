"""What most images of a plate are like: by that a file is told that does not belong to it."""

from collections import Counter

import numpy as np

from plateglass.errors import DataError
from plateglass.layouts import Listing, tiff

SAMPLED = 9  # wells whose first site tells what the plate's images are like


def usual_format(found: Listing) -> tiff.Format:
    """What most images of the plate are like, by the headers of some wells' first sites.

    ``pages`` is the number of z planes, in the file or by name; ``pixel_size_um`` is the first that a
    header tells. Wells evenly spread over the plate, the same whatever is to be done; a file that
    cannot be read has no vote, and where none of them can, the other wells are asked in turn.
    """
    wells = sorted(found.wells)
    spread = np.linspace(0, len(wells) - 1, min(SAMPLED, len(wells))).round().astype(int)
    first = [wells[at] for at in dict.fromkeys(spread)]
    votes: Counter[tuple] = Counter()
    size = None
    for count, well in enumerate([*first, *sorted(set(wells) - set(first))]):
        if count >= len(first) and votes:
            break
        planes = found.planes(well)
        planes = [plane for plane in planes if plane.site == planes[0].site]
        levels = Counter(plane.channel for plane in planes)
        for plane in {plane.channel: plane for plane in planes}.values():
            try:
                header = tiff.header(found.folder / plane.file)
            except DataError:
                continue
            by_name = plane.page is not None or levels[plane.channel] > 1
            depth = levels[plane.channel] if by_name else header.pages
            votes[header.shape, header.dtype, depth] += 1
            size = size or header.pixel_size_um
    if not votes:
        return tiff.Format((0, 0), "unreadable", 0)
    return tiff.Format(*votes.most_common(1)[0][0], pixel_size_um=size)
