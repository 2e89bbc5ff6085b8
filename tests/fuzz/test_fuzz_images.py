"""TIFFs with flipped, lost or foreign bytes: the pixels, or a sentence that says why not.

What can be promised: no damage ends in anything but a DataError or an image of a kind that is read;
a cut file never gives other pixels; nor does damage in deflate's data, which has a checksum. Bits
flipped in uncompressed, LZW, PackBits or (here) Zstandard pixels are other grey levels that nothing
in the file can tell from the right ones: keep the microscope's checksums where they matter.
"""

import os
import random
import signal
from io import BytesIO

import numpy as np
import pytest
import tifffile

from plateglass.errors import DataError
from plateglass.layouts import tiff

PIXELS = np.random.default_rng(0).poisson(90, (3, 40, 56)).astype(np.uint16)
KINDS = {
    "plain": {},
    "lzw": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "deflate"},
    "zstd": {"compression": "zstd"},
    "packbits": {"compression": "packbits"},
    "tiles": {"tile": (16, 16), "compression": "deflate"},
    "stack": {"pages": 3, "compression": "lzw"},
    "big": {"bigtiff": True, "byteorder": ">"},
    "ome": {"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.65}},
    "imagej": {"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "um"}},
}
LIMIT = 20  # seconds a file may take


def written(kind):
    options = dict(KINDS[kind])
    file = BytesIO()
    planes = PIXELS[: options.pop("pages", 1)]
    planes = planes if len(planes) > 1 else planes[0]
    tifffile.imwrite(file, planes, photometric="minisblack", **options)
    return file.getvalue()


def damage(text, draw, where=None):
    """(kind, bytes) with one damage, at a random place of ``where`` (start, end)."""
    start, end = where or (0, len(text))
    at = draw.randrange(start, end)
    # header and tags lie at both ends of a file: half of all damage goes there
    if where is None and draw.random() < 0.5:
        at = draw.choice([draw.randrange(min(400, end)), end - 1 - draw.randrange(min(400, end))])
    kind = draw.choice(["bit", "bytes", "zeros", "lost", "put in", "cut"])
    length = min(draw.randrange(1, 40), end - at)
    if kind == "bit":
        return kind, text[:at] + bytes([text[at] ^ 1 << draw.randrange(8)]) + text[at + 1 :]
    if kind == "cut":
        return kind, text[:at]
    new = {"bytes": draw.randbytes(length), "zeros": bytes(length), "lost": b""}
    if kind == "put in":
        return kind, text[:at] + draw.randbytes(length) + text[at:]
    return kind, text[:at] + new[kind] + text[at + length :]


def read(path, text):
    """Pixels, or None where the file is refused; anything else, a hang too, fails the test."""
    path.write_bytes(text)

    def late(*_):
        raise TimeoutError(f"more than {LIMIT} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    try:
        found, form = tiff.read(path)
        assert (found.shape[1:], found.dtype.name) == (form.shape, form.dtype)
        assert tiff.header(path) == form
        return found
    except DataError as error:
        assert str(path) in str(error)
        return None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(text, path, amount, where=None):
    """Tries so many damages; returns how many gave (the same, other, no) pixels.

    Few are always the same, many are new ones, whose seed the summary tells.
    """
    draw = random.Random(0 if amount < 100 else int(os.environ["PLATEGLASS_FUZZ_SEED"]))
    right, count = read(path, text), [0, 0, 0]
    for _ in range(amount):
        kind, changed = damage(text, draw, where)
        found = read(path, changed)
        same = found is not None and np.array_equal(found, right)
        count[0 if same else 1 if found is not None else 2] += 1
        if found is not None and not same and kind == "cut":
            pytest.fail(f"a file cut at {len(changed)} of {len(text)} bytes gave other pixels")
    print(f"same, other, refused: {count}")
    return count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "amount", [pytest.param(10, id="some"), pytest.param(200, id="many", marks=pytest.mark.long)]
)
def test_damaged_images(tmp_path, kind, amount):
    fuzz(written(kind), tmp_path / "a.tif", amount)


@pytest.mark.parametrize(
    "amount", [pytest.param(20, id="some"), pytest.param(400, id="many", marks=pytest.mark.long)]
)
def test_damage_in_deflated_pixels_is_always_found(tmp_path, amount):
    text = written("deflate")
    with tifffile.TiffFile(BytesIO(text)) as file:
        (start,), (length,) = file.pages[0].dataoffsets, file.pages[0].databytecounts
    _, other, refused = fuzz(text, tmp_path / "a.tif", amount, (start, start + length))
    assert other == 0 and refused > 0.5 * amount


@pytest.mark.long
def test_damaged_real_images(tmp_path, real_data):
    files = [
        real_data
        / "vendor/loaddata-broad2021/tests/data/Version1/images"
        / "r01c01f01p01-ch1sk1fk1fl1.tiff",
        *sorted((real_data / "sbs_rows_A-D/images").glob("*.tif"))[:2],
    ]
    for file in files:
        fuzz(file.read_bytes(), tmp_path / "a.tif", 150)
