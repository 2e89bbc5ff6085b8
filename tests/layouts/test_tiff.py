"""Planes: every encoding gives the pixels that went in, every damage a DataError."""

import numpy as np
import pytest
import tifffile

from plateglass.errors import DataError
from plateglass.layouts import tiff

PIXELS = np.random.default_rng(0).poisson(90, (3, 40, 56)).astype(np.uint16)


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "packbits", "zstd"])
@pytest.mark.parametrize("dtype", ["uint8", "<u2", ">u2"])
@pytest.mark.parametrize("pages", [1, 3])
def test_encodings(tmp_path, compression, dtype, pages):
    path = tmp_path / "a.tif"
    order = ">" if dtype[0] == ">" else "<"
    source = PIXELS[:pages].astype(dtype)
    tifffile.imwrite(
        path, source, compression=compression, byteorder=order, photometric="minisblack"
    )
    read, found = tiff.read(path)
    assert np.array_equal(read, source)
    assert read.dtype == np.dtype(dtype).newbyteorder("=") and read.dtype.isnative
    assert found == tiff.header(path)
    assert (found.shape, found.pages) == ((40, 56), pages)


def test_predictor_and_tiles(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", PIXELS[0], compression="lzw", predictor=True, tile=(16, 16)
    )
    assert np.array_equal(tiff.read(tmp_path / "a.tif")[0][0], PIXELS[0])


def test_one_page_of_several(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="minisblack")
    assert np.array_equal(tiff.read(tmp_path / "a.tif", 2)[0], PIXELS[2:])
    with pytest.raises(DataError, match="has 3 pages, frame 3 is not there"):
        tiff.read(tmp_path / "a.tif", 3)


@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
def test_truncated_anywhere(tmp_path, compression):
    """Cut at any place: an error, or (the last bytes of a text at the end) all the pixels."""
    whole = tmp_path / "whole.tif"
    tifffile.imwrite(whole, PIXELS, compression=compression, photometric="minisblack")
    text = whole.read_bytes()
    path = tmp_path / "cut.tif"
    lengths = {*range(0, 12), *np.linspace(8, len(text) - 1, 60).astype(int).tolist()}
    for length in sorted(lengths):
        path.write_bytes(text[:length])
        try:
            read, _ = tiff.read(path)
        except DataError as error:
            assert str(path) in str(error) and ("empty" in str(error) or "truncated" in str(error))
        else:
            assert length > len(text) - 20 and np.array_equal(read, PIXELS)


@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
def test_cut_in_the_pixels(tmp_path, compression):
    """The header before the pixels, as many writers put it."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS[0], compression=compression)
    text = path.read_bytes()
    path.write_bytes(text[: len(text) - 100])
    with pytest.raises(DataError, match="truncated TIFF: its pixels end at byte"):
        tiff.read(path)


def test_bytes_overwritten(tmp_path):
    """Damage within a compressed strip: an error, or other pixels (TIFF has no checksum)."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS[0], compression="deflate")
    text = bytearray(path.read_bytes())
    text[-400:-300] = bytes(100)
    path.write_bytes(text)
    with pytest.raises(DataError, match="damaged"):
        tiff.read(path)


def test_pages_in_a_circle_end(tmp_path):
    """The last page's link, damaged, leads back to another page."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as file:
        last, back = file.pages[-1], file.pages[1].offset
        link = last.offset + 2 + 12 * len(last.tags)
    text = bytearray(path.read_bytes())
    assert text[link : link + 4] == bytes(4)
    text[link : link + 4] = back.to_bytes(4, "little")
    path.write_bytes(text)
    for look in (tiff.read, tiff.header):
        with pytest.raises(DataError, match="its pages run in a circle"):
            look(path)


def test_no_tiff_and_no_file(tmp_path):
    (tmp_path / "a.tif").write_text("<html>not found</html>")
    with pytest.raises(DataError, match="damaged TIFF"):
        tiff.read(tmp_path / "a.tif")
    with pytest.raises(DataError, match="is not there"):
        tiff.read(tmp_path / "b.tif")
    with pytest.raises(IsADirectoryError):
        tiff.read(tmp_path)


@pytest.mark.parametrize(
    ("pixels", "options", "words"),
    [
        (np.zeros((8, 8, 3), np.uint8), {"photometric": "rgb"}, "a colour image.*each channel"),
        (np.zeros((8, 8), np.float32), {}, "float32 values; grey images of 8 or 16 bits"),
        (np.zeros((8, 8), np.int16), {}, "int16 values"),
        (np.zeros((8, 8), np.uint32), {}, "uint32 values"),
        (np.zeros((8, 8), np.uint8), {"photometric": "miniswhite"}, "white is zero"),
        (np.zeros((2, 8, 8), np.uint8), {"imagej": True, "metadata": {"axes": "CYX"}}, "ImageJ"),
    ],
)
def test_not_grey_levels(tmp_path, pixels, options, words):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    with pytest.raises(DataError, match=words):
        tiff.read(tmp_path / "a.tif")


def test_palettes(tmp_path):
    """A palette that is the grey ramp (BBBC013's own files) holds intensities; others do not."""
    plane = PIXELS[0].astype(np.uint8)
    ramp = np.repeat((np.arange(256) * 257).astype(np.uint16)[None], 3, 0)
    tifffile.imwrite(tmp_path / "a.tif", plane, photometric="palette", colormap=ramp)
    assert np.array_equal(tiff.read(tmp_path / "a.tif")[0][0], plane)
    ramp[1] = 0
    tifffile.imwrite(tmp_path / "b.tif", plane, photometric="palette", colormap=ramp)
    with pytest.raises(DataError, match="palette image"):
        tiff.read(tmp_path / "b.tif")


def test_pages_of_several_sizes(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(PIXELS[0])
        writer.write(PIXELS[0, :20])
    with pytest.raises(DataError, match=r"page 1 is \(20, 56\)"):
        tiff.read(tmp_path / "a.tif")


def test_reduced_copies_are_passed_over(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(PIXELS[0])
        writer.write(PIXELS[0, ::2, ::2], subfiletype=1)
    assert np.array_equal(tiff.read(tmp_path / "a.tif")[0], PIXELS[:1])


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.65}}, 0.65),
        (
            {
                "ome": True,
                "metadata": {"axes": "YX", "PhysicalSizeX": 325, "PhysicalSizeXUnit": "nm"},
            },
            0.325,
        ),
        ({"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "um"}}, 0.5),
        ({"resolution": (10000 / 0.65, 10000 / 0.65), "resolutionunit": "CENTIMETER"}, None),
        ({}, None),
    ],
)
def test_pixel_size(tmp_path, options, size):
    """Where the file speaks of the sample; the resolution tag may be the camera's or a screen's."""
    tifffile.imwrite(tmp_path / "a.tif", PIXELS[0], **options)
    assert tiff.header(tmp_path / "a.tif").pixel_size_um == pytest.approx(size)


def test_microscopes_files(real_data):
    """Harmony's LZW is read, and its camera's pixel size is not taken for the sample's."""
    path = real_data / "vendor/loaddata-broad2021/tests/data/Version1/images"
    pixels, found = tiff.read(path / "r01c01f01p01-ch1sk1fk1fl1.tiff")
    assert pixels.shape == (1, 1080, 1080) and pixels.dtype == np.uint16
    assert found.pixel_size_um is None
