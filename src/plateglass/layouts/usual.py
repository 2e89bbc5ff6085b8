"""What most images of a plate are like: by that a file is told that does not belong to it."""

import hashlib
from collections import Counter

from plateglass.errors import DataError
from plateglass.layouts import Format, Listing, tiff

SAMPLED = 25  # wells of which one image is looked at


def usual_format(found: Listing) -> Format:
    """What the plate's images are like, by most of the headers of one image of some wells.

    ``pages`` is the number of z planes, in the file or by name; ``pixel_size_um`` is the first that a
    header tells. The wells are chosen by a hash of their names, so that a well more or less moves one
    vote at most; a file that cannot be read has none, and where none of them can, the other wells are
    asked in turn. SetupError where a file is gone since it was listed.
    """
    wells = sorted(found.wells, key=lambda well: hashlib.blake2b(well.encode()).digest())
    votes: Counter[tuple] = Counter()
    size = None
    for count, well in enumerate(wells):
        if count >= SAMPLED and votes:
            break
        planes = found.planes(well)
        first = planes[0]
        try:
            header = tiff.header(found.folder / first.file)
        except DataError:
            found.still_there(well)
            continue
        levels = sum(plane[1:3] == first[1:3] for plane in planes)  # of that site and channel
        by_name = first.page is not None or levels > 1
        votes[header.shape, header.dtype, levels if by_name else header.pages] += 1
        size = size or header.pixel_size_um
    if not votes:
        return Format((0, 0), "unreadable", 0)
    return Format(*votes.most_common(1)[0][0], pixel_size_um=size)
