"""Raw files to OME-Zarr: each plane is read once, judged, measured and stored.

A site that cannot be read is left out with its reason, the well's others go on; a well without a
readable site is quarantined. What is stored of a well depends on its files, on the settings and on the
plate's pixel size; for the rest the plate's usual format only decides what is refused.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from plateglass import __version__, parts, store
from plateglass.errors import DataError
from plateglass.files import digest
from plateglass.formats import like
from plateglass.layouts import Format, Listing, Plane, tiff
from plateglass.measure import quality
from plateglass.stages import STAGES
from plateglass.wells import Job, Result, each

SAME_SIZE = 0.01  # of a pixel's size: what headers round away


def run(job: Job, wells: list[str], found: Listing, usual: Format) -> Iterator[Result]:
    """Ingest these wells in Dask workers; one Result a well.

    ``found`` is the plate's index, ``usual`` what its images are like (`formats.judge`).
    """
    if not (job.config.ingest.pixel_size_um or found.pixel_size_um or usual.pixel_size_um):
        print(
            f"note: {job.plate}: most images do not tell their pixel size, 1 µm is taken; set "
            "ingest.pixel_size_um"
        )
    # not listed again by workers, whose node may still see a share as it was a minute ago
    return each(job, one_well, wells, found.only, usual=usual, display=_display_before(job))


def one_well(
    job: Job, well: str, index: Listing, usual: Format, display: store.Display | None
) -> Result:
    """Read, measure and store a well, a site at a time. Counts: planes and files read, fields.

    ``index``: the well's files. ``display``: how the plate's other fields are painted; see `finish`.
    """
    channels, settings = list(job.config.channel_names), job.config.ingest
    planes = index.planes(well)
    reader = _Reader(index.folder)
    kept: dict[int, str] = {}  # site → key of its pixels
    rows, reasons, written = [], [], 0
    for site in sorted({plane.site for plane in planes}):
        try:
            image = _site(reader, [p for p in planes if p.site == site], channels, usual)
        except DataError as error:
            index.still_there(well)
            # Files by their names in the plate's folder, so that a moved plate's tables stay.
            why = str(error).replace(f"{index.folder}/", "")
            # a name may be no UTF-8, which tables are
            reasons.append(why.encode(errors="backslashreplace").decode())
            rows.append({"Metadata_Site": site, "Metadata_Quarantine": reasons[-1]})
            continue
        rows.append({"Metadata_Site": site} | _measure(image, channels))
        size = settings.pixel_size_um or index.pixel_size_um or usual.pixel_size_um or 1.0
        step = settings.z_step_um or 1.0
        field, key = len(kept), _content(site, image, channels, size, step)
        same = store.content(job.store, well, field) == key
        if not (same and well in job.known):
            store.write_field(
                job.store, well, field, image, size, channels, display,
                z_step_um=step, content=key, keep_labels=same,
            )  # fmt: skip
            written += 1
        kept[site] = key
    _write_part(job.part("ingest", well), well, rows, channels)
    counts = {"planes_read": reader.planes, "files_read": reader.files, "fields_written": written}
    content = quarantine = None
    if kept:
        store.write_well(job.store, well, kept)
        content = hashlib.blake2b(repr(kept).encode(), digest_size=12).hexdigest()
    else:
        store.remove_well(job.store, well)
        quarantine = _reason(reasons)
    told = like(index, well)  # by which it votes for the plate's usual format
    return Result(
        well,
        content=content,
        quarantine=quarantine,
        left_out=reasons,
        counts=counts,
        facts={"like": str(told)} if told else {},
        stored=_stored(job, well),
    )


def remove(job: Job, wells: list[str]) -> None:
    """Delete wells that are gone from the plate."""
    for well in wells:
        store.remove_well(job.store, well)
        job.part("ingest", well).unlink(missing_ok=True)


def finish(job: Job) -> None:
    """Write the plate's metadata, and every field's where how they are painted has changed.

    How viewers paint is no result: it alone depends on all wells.
    """
    wells, channels = store.wells(job.store), list(job.config.channel_names)
    fields, display = {}, None
    if wells:
        asked = [f"{name}_{channel}" for channel in channels for name in ("P01", "P999")]
        asked += ["Metadata_Well", "Metadata_Quarantine"]
        each_well = (parts.arrow(job.part("ingest", well), asked) for well in wells)
        sites = pa.concat_tables(each_well).to_pandas()
        sites = sites[sites["Metadata_Quarantine"].isna()]
        fields = sites["Metadata_Well"].value_counts().to_dict()
        display = _display(job, sites)
        if display != _display_before(job):
            store.set_display(job.store, wells, display)
    note = {
        "version": __version__,
        "stage": {"ingest": STAGES["ingest"].version},
        "settings": job.config.ingest.model_dump(mode="json"),
    }
    store.write_plate(job.store, fields, channels, job.plate, display, note)


def _display(job: Job, sites: pd.DataFrame) -> store.Display:
    """How the plate's fields are to be painted: windows, and each channel's colour.

    Windows go from the median of the sites' 1st to the 95th percentile of their 99.9th percentiles,
    two digits, so that one well more seldom changes them.
    """
    found: store.Display = {}
    for channel, colour in job.config.colours.items():
        low = int(float(f"{sites[f'P01_{channel}'].median():.2g}"))
        high = int(float(f"{sites[f'P999_{channel}'].quantile(0.95):.2g}"))
        found[channel] = low, max(high, low + 1), colour
    return found


def _display_before(job: Job) -> store.Display | None:
    """How the plate's fields are painted; None unless all alike, with the settings' channels."""
    found = store.plate_display(job.store)
    return found if found and set(found) == set(job.config.channel_names) else None


class _Reader:
    """Reads planes and counts them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.planes = self.files = 0

    def read(self, plane: Plane) -> tuple[np.ndarray, float | None]:
        """Pixels (z, y, x) of a plane's file or page, and the pixel size in µm that it tells."""
        pixels, found = tiff.read(self.folder / plane.file, plane.page)
        self.files += 1
        self.planes += len(pixels)
        return pixels, found.pixel_size_um


def _site(reader: _Reader, planes: list[Plane], channels: list[str], usual: Format) -> np.ndarray:
    """The image (c, z, y, x) of a site. DataError names the file that does not fit."""
    site = f"site {planes[0].site}"
    by_channel = {channel: [p for p in planes if p.channel == channel] for channel in channels}
    if missing := [channel for channel, found in by_channel.items() if not found]:
        raise DataError(f"{site}: no image of channel {', '.join(missing)}")
    stacks: dict[str, np.ndarray] = {}
    for channel, found in by_channel.items():
        levels = []
        for plane in found:
            try:
                pixels, told = reader.read(plane)
            except DataError as error:
                raise DataError(f"{site}, {channel}: {error}") from error
            if (pixels.shape[1:], pixels.dtype.name) != (usual.shape, usual.dtype):
                got = Format(pixels.shape[1:], pixels.dtype.name, len(pixels))
                raise DataError(
                    f"{site}, {channel}: {plane.file} is {got}; the plate's images are "
                    f"{usual.shape[0]} × {usual.shape[1]} {usual.dtype}"
                )
            if told and usual.pixel_size_um and abs(told / usual.pixel_size_um - 1) > SAME_SIZE:
                raise DataError(
                    f"{site}, {channel}: {plane.file} tells {told:.4g} µm a pixel, the plate's images "
                    f"{usual.pixel_size_um:.4g}; where that is not so, set ingest.pixel_size_um"
                )
            if len(found) > 1 and len(pixels) > 1:
                raise DataError(
                    f"{site}, {channel}: {plane.file} has {len(pixels)} pages, and names "
                    "number z too; give one plane a file, or one file a stack"
                )
            levels.append(pixels)
        stacks[channel] = np.concatenate(levels)
    for channel, stack in stacks.items():
        if len(stack) != usual.pages:
            raise DataError(
                f"{site}, {channel}: {len(stack)} z planes, the plate's images have {usual.pages}"
            )
    return np.stack(list(stacks.values()))


def _measure(image: np.ndarray, channels: list[str]) -> dict:
    figures = {channel: quality.quality(image[i]) for i, channel in enumerate(channels)}
    row = {
        f"{name}_{channel}": figures[channel][name]
        for channel in channels
        for name in quality.NAMES
    }
    return {"Metadata_Flag": quality.flags(figures)} | row


def _write_part(path: Path, well: str, rows: list[dict], channels: list[str]) -> None:
    """The well's rows of the table of sites, whole or not at all."""
    text = ("Metadata_Flag", "Metadata_Quarantine")
    names = [f"{name}_{channel}" for channel in channels for name in quality.NAMES]
    columns = {
        "Metadata_Well": pd.array([well] * len(rows), "string"),
        "Metadata_Site": np.array([row["Metadata_Site"] for row in rows], np.int64),
        **{name: pd.array([row.get(name) for row in rows], "string") for name in text},
        **{name: np.array([row.get(name, np.nan) for row in rows], float) for name in names},
    }
    parts.write(path, pd.DataFrame(columns))


def _content(
    site: int, image: np.ndarray, channels: list[str], pixel_size: float, z_step: float
) -> str:
    """Key of what is stored of a site: the pixels and what is written beside them."""
    key = hashlib.blake2b(digest_size=12)
    version = STAGES["ingest"].version
    key.update(repr((version, site, image.shape, image.dtype.str, channels)).encode())
    key.update(repr((pixel_size, z_step)).encode())
    key.update(np.ascontiguousarray(image))
    return key.hexdigest()


def _stored(job: Job, well: str) -> dict[str, tuple[int, str]]:
    """What the engine notes of the well's files and its rows: bytes and digest.

    No digest of an image group's own zarr.json: `finish` rewrites it, in the same number of bytes.
    """
    free = {f for f, size in store.sizes(job.store, well).items() if size == 0}
    return {
        os.path.relpath(path, job.plate_dir): (path.stat().st_size, "")
        if path.is_relative_to(job.store) and path.relative_to(job.store).as_posix() in free
        else digest(path)
        for path in [*store.files_of(job.store, well), job.part("ingest", well)]
    }


def _reason(reasons: list[str]) -> str:
    """One sentence for a well of which every site is bad."""
    return reasons[0] if len(reasons) == 1 else f"all {len(reasons)} sites; {reasons[0]}"
