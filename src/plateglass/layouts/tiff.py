"""Planes of a TIFF: grey levels of 8 or 16 bits, or a sentence that says why not."""

import logging
import struct
from pathlib import Path

import numpy as np
import tifffile

from plateglass.errors import DataError
from plateglass.layouts import Format

# tifffile reports what it passes over to the log; what matters to us is an error below.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

LARGEST = 2**28  # pixels of a plane; a broken header claims more, and would end in MemoryError
_MICROMETRES = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "micron": 1.0, "\\u00b5m": 1.0, "mm": 1e3}


def header(path: Path) -> Format:
    """Format of a file, without reading a pixel. DataError as `read`."""
    with _opened(path) as tiff:
        return _format(tiff, path)


def read(path: Path, page: int | None = None) -> tuple[np.ndarray, Format]:
    """Pixels (pages, y, x) of a file, or of one page of it, in the machine's byte order.

    Raises
    ------
    DataError
        Missing, empty, truncated or damaged file; colours, floats or other depths than 8 and 16
        bits; no such page.
    OSError
        The machine cannot read it (permission, I/O): no fault of the file's content.
    """
    with _opened(path) as tiff:
        found = _format(tiff, path)
        pages = _pages(tiff)
        if page is not None:
            if not 0 <= page < len(pages):
                raise DataError(f"{path}: has {len(pages)} pages, frame {page} is not there")
            pages = [pages[page]]
        planes = np.stack([each.asarray() for each in pages])
    if planes.shape[1:] != found.shape:
        raise DataError(f"{path}: damaged TIFF: planes of {planes.shape[1:]}, not {found.shape}")
    return planes.astype(planes.dtype.newbyteorder("="), copy=False), found


class _opened:
    """A TiffFile; whatever it cannot parse or decode becomes a DataError."""

    def __init__(self, path: Path):
        self.path = path
        self.tiff: tifffile.TiffFile | None = None

    def __enter__(self) -> tifffile.TiffFile:
        try:
            if self.path.stat().st_size == 0:
                raise DataError(f"{self.path}: empty file (0 bytes); copy it again")
            self.tiff = tifffile.TiffFile(self.path)
        except BaseException as error:
            self._explain(error)
            raise
        return self.tiff

    def __exit__(self, kind, error, trace) -> None:
        if self.tiff is not None:
            self.tiff.close()
        if error is not None:
            self._explain(error)

    def _explain(self, error: BaseException) -> None:
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{self.path}: the file is not there") from error
        if isinstance(error, (DataError, OSError, MemoryError)) or not isinstance(error, Exception):
            return
        # tifffile and the codecs raise their own kinds, ValueError, IndexError, struct.error …
        what = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{self.path}: truncated or damaged TIFF ({what}); copy it again"
        ) from error


def _pages(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The pages in full resolution; reduced copies and masks are passed over."""
    found: dict[int, tifffile.TiffPage] = {}
    for page in tiff.pages:
        if page.offset in found:  # tifffile would go round for ever
            raise DataError(
                f"{tiff.filehandle.path}: damaged TIFF: its pages run in a circle; copy it again"
            )
        found[page.offset] = page.aspage()
    return [page for page in found.values() if not page.subfiletype & 0b101]


def _format(tiff: tifffile.TiffFile, path: Path) -> Format:
    pages = _pages(tiff)
    if not pages:
        raise DataError(f"{path}: truncated or damaged TIFF: no image in it; copy it again")
    if _next(tiff) != 0:
        raise DataError(f"{path}: truncated TIFF: pages after the {len(tiff.pages)}. are missing")
    size = tiff.filehandle.size
    for page in pages:
        _check(page, size, path)
    first = pages[0]
    for number, page in enumerate(pages):
        if (page.shape, page.dtype) != (first.shape, first.dtype):
            raise DataError(
                f"{path}: page {number} is {page.shape} {page.dtype}, the first {first.shape} "
                f"{first.dtype}; one channel a file, as pages of one size"
            )
    described = (tiff.imagej_metadata or {}) if tiff.is_imagej else {}
    if described.get("images", 1) > len(pages) or described.get("channels", 1) > 1:
        raise DataError(
            f"{path}: an ImageJ stack of several channels, or without a page a plane; save one "
            "channel a file (Image > Color > Split Channels)"
        )
    return Format(first.shape, first.dtype.newbyteorder("=").name, len(pages), _pixel_size(tiff))


def _next(tiff: tifffile.TiffFile) -> int:
    """Where the last page that was found says that the next one lies: 0 in a whole file.

    tifffile takes a chain of pages that leads out of the file for its end.
    """
    last, form, file = tiff.pages[-1], tiff.tiff, tiff.filehandle
    file.seek(last.offset)
    (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(tags * form.tagsize, 1)
    return struct.unpack(form.offsetformat, file.read(form.offsetsize))[0]


def _check(page: tifffile.TiffPage, size: int, path: Path) -> None:
    """Refuse what is no plane of grey levels, and data that end beyond the file's."""
    if page.dtype is None or len(page.shape) < 2:
        raise DataError(f"{path}: truncated or damaged TIFF: no shape or type; copy it again")
    photometric = page.photometric
    if page.samplesperpixel > 1 or photometric == tifffile.PHOTOMETRIC.RGB:
        raise DataError(
            f"{path}: a colour image (RGB, {page.samplesperpixel} samples a pixel); export each "
            "channel as a grey image of its own"
        )
    if photometric == tifffile.PHOTOMETRIC.PALETTE and not _grey(page.colormap):
        raise DataError(
            f"{path}: a palette image: its values are numbers of colours, not intensities; export "
            "it as a grey image"
        )
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        raise DataError(f"{path}: white is zero in it; export it as a grey image, black is zero")
    if page.dtype.newbyteorder("=").name not in ("uint8", "uint16"):
        raise DataError(
            f"{path}: {page.dtype.name} values; grey images of 8 or 16 bits (uint8, uint16) are "
            "read: export the camera's own values"
        )
    if len(page.shape) != 2:
        raise DataError(f"{path}: a page of {len(page.shape)} dimensions; one plane a page is read")
    if page.size > LARGEST:
        raise DataError(f"{path}: damaged TIFF: claims {page.shape} pixels; copy it again")
    ends = [start + n for start, n in zip(page.dataoffsets, page.databytecounts)]
    short = page.compression == 1 and sum(page.databytecounts) < page.nbytes
    if not ends or max(ends) > size or 0 in page.databytecounts or short:
        raise DataError(
            f"{path}: truncated TIFF: its pixels end at byte {max(ends, default=0)}, the file at "
            f"{size}; copy it again"
        )


def _grey(palette: np.ndarray | None) -> bool:
    """Whether a palette shows each value as its own grey, so that values are intensities."""
    if palette is None:
        return False
    ramp = np.linspace(0, 65535, palette.shape[-1])
    return bool((palette == palette[:1]).all() and np.abs(palette[0] - ramp).max() <= 257)


def _pixel_size(tiff: tifffile.TiffFile) -> float | None:
    """Micrometres a pixel where the file says it of the sample; None where it does not.

    OME-XML, ImageJ and MetaMorph do. The plain resolution tag is not asked: it is the camera's
    pixel in Harmony's files, and a screen's in many others.
    """
    try:
        if tiff.is_ome:
            from defusedxml.ElementTree import fromstring

            for element in fromstring(tiff.ome_metadata).iter():
                if element.tag.endswith("}Pixels") and element.get("PhysicalSizeX"):
                    unit = _MICROMETRES[element.get("PhysicalSizeXUnit", "µm")]
                    return _sensible(float(element.get("PhysicalSizeX")) * unit)
        elif tiff.is_imagej:
            unit = _MICROMETRES[tiff.imagej_metadata["unit"]]
            pixels, per = tiff.pages[0].tags["XResolution"].value
            return _sensible(per / pixels * unit)
        elif tiff.is_metaseries:
            plane = tiff.metaseries_metadata["PlaneInfo"]
            if plane["spatial-calibration-state"]:
                unit = _MICROMETRES[plane["spatial-calibration-units"].lower()]
                return _sensible(float(plane["spatial-calibration-x"]) * unit)
    except Exception:  # metadata of any kind of brokenness; the pixels are judged elsewhere
        return None
    return None


def _sensible(size: float) -> float | None:
    return size if 0.01 < size < 100 else None
