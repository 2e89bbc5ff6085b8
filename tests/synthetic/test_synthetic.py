"""The synthetic plates keep their promises: their truth, and files told before they are drawn."""

import functools
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from plateglass import synthetic
from plateglass.errors import UserError
from plateglass.synthetic import DEMO, NEGATIVE, POSITIVE

CONFIG = Path(__file__).parents[2] / "config"


@functools.cache
def demo_site(plate, well):
    return synthetic.render_site(DEMO[plate], well, 1)


def nuclear_ratio(site, marker=2):
    """Mean marker in the nucleus over that in the other deciding pixels; one value a cell."""
    image = site.image[marker, 0].astype(float) - np.percentile(site.image[marker, 0], 5)
    nuclei, cells, deciding = site.nuclei[0], site.cells[0], site.deciding[0]
    numbers = np.arange(1, cells.max() + 1)
    ring = np.where(deciding & (nuclei == 0), cells, 0)
    whole = (np.bincount(nuclei.ravel(), minlength=len(numbers) + 1)[1:] > 150) & (
        np.bincount(ring.ravel(), minlength=len(numbers) + 1)[1:] > 60
    )
    inside = ndimage.mean(image, nuclei, numbers)
    around = ndimage.mean(image, np.where(whole[cells - 1] & (cells > 0), ring, 0), numbers[whole])
    return inside[whole] / around


@pytest.fixture(scope="module")
def spec():
    return replace(DEMO["demo_1"], size=256, cells=14)


def test_a_site_follows_from_its_name_alone(spec):
    first = synthetic.render_site(spec, "B02", 1)
    synthetic.render_site(spec, "A01", 1)
    again = synthetic.render_site(replace(spec, wells={"B02": spec.wells["B02"]}), "B02", 1)
    other = synthetic.render_site(spec, "B02", 2)
    np.testing.assert_array_equal(first.cells, again.cells)
    np.testing.assert_array_equal(first.deciding, again.deciding)
    assert (first.image[0] != other.image[0]).mean() > 0.9


def test_shapes_and_types(spec):
    site = synthetic.render_site(spec, "A01", 1)
    assert site.image.shape == (3, 1, 256, 256) and site.image.dtype == np.uint16
    assert site.nuclei.shape == site.cells.shape == site.deciding.shape == (1, 256, 256)
    assert site.nuclei.dtype == site.cells.dtype == np.int32 and site.deciding.dtype == bool


@pytest.mark.parametrize("well", ["A01", "C04", "D06"])
def test_labels_are_cells_with_their_nuclei(well):
    site = demo_site("demo_1", well)
    nuclei, cells = site.nuclei[0], site.cells[0]
    count = cells.max()
    assert 20 <= count <= 50 and len(site.shares) == count
    assert set(np.unique(nuclei)) == set(np.unique(cells)) == set(range(count + 1))
    np.testing.assert_array_equal(nuclei[nuclei > 0], cells[nuclei > 0])
    # An object cut by the field's edge may fall apart there; the others are in one piece.
    edge = np.unique(np.concatenate([cells[0], cells[-1], cells[:, 0], cells[:, -1]]))
    for number in set(range(1, count + 1)) - set(edge):
        assert ndimage.label(cells == number)[1] == 1
        assert 120 < (nuclei == number).sum() < 1000
        assert (cells == number).sum() / (nuclei == number).sum() > 1.3


def test_the_ratio_tells_the_class_and_nothing_else_has_to():
    right = []
    for name, plate in DEMO.items():
        for well, treatment in plate.wells.items():
            if treatment.role != "treatment" and well[0] in "AC":
                ratio = nuclear_ratio(demo_site(name, well))
                right.extend((ratio > 1) == (treatment is POSITIVE))
    assert len(right) > 300
    assert np.mean(right) >= 0.99


def test_the_ratio_rises_with_the_dose():
    plate = DEMO["demo_2"]
    wells = sorted(
        (w for w in plate.wells if w.endswith("03")),
        key=lambda w: plate.wells[w].dose_level,
    )
    medians = [np.median(nuclear_ratio(demo_site("demo_2", w))) for w in wells]
    assert [plate.wells[w].dose_level for w in wells] == [1, 2, 3, 4]
    assert (np.diff(medians) > 0.1).all()


def test_only_the_deciding_pixels_differ_between_treatments(spec):
    negative = synthetic.render_site(spec, "A01", 1, response=NEGATIVE.response)
    positive = synthetic.render_site(spec, "A01", 1, response=POSITIVE.response)
    np.testing.assert_array_equal(negative.cells, positive.cells)
    np.testing.assert_array_equal(negative.deciding, positive.deciding)
    difference = np.abs(
        ndimage.gaussian_filter(positive.image.astype(float) - negative.image, (0, 0, 1.5, 1.5))
    )
    decides = negative.deciding[0]
    far = ndimage.binary_dilation(decides, iterations=4)
    labelled = ndimage.binary_dilation(negative.cells[0] > 0, iterations=2)
    inside = difference[2, 0][decides].mean()
    assert inside > 100
    assert difference[2, 0][~far & labelled].mean() < 0.05 * inside
    for other in (0, 1):  # DNA and Actin: no more than their noise
        assert difference[other, 0][decides].mean() < 0.05 * inside


def test_exchanged_deciding_pixels_flip_the_class(spec):
    site = synthetic.render_site(spec, "A01", 1)
    other = synthetic.render_site(spec, "A01", 1, response=POSITIVE.response)
    flipped = replace(site, image=np.where(site.deciding, other.image, site.image))
    kept = replace(site, image=np.where(site.deciding, site.image, other.image))
    assert (nuclear_ratio(site) < 1).all()
    assert (nuclear_ratio(flipped) > 1).all()
    assert (nuclear_ratio(kept) < 1).all()


def test_expression_tells_nothing_of_the_class():
    """A cell's total marker varies more within a class than between the classes."""
    totals = {NEGATIVE.role: [], POSITIVE.role: []}
    for well in ("A01", "C01", "A02", "A06", "C06", "A05"):
        site = demo_site("demo_2", well)
        numbers = np.arange(1, site.cells.max() + 1)
        role = DEMO["demo_2"].wells[well].role
        totals[role].extend(np.log(ndimage.mean(site.image[2, 0], site.cells[0], numbers)))
    a, b = map(np.array, totals.values())
    assert abs(a.mean() - b.mean()) < 0.5 * np.concatenate([a, b]).std()


def debris(site):
    """Specks away from the cells."""
    free = ~ndimage.binary_dilation(site.cells[0] > 0, iterations=6)
    marker = site.image[2, 0].astype(float)
    local = ndimage.gaussian_filter(marker, 1.5) - ndimage.gaussian_filter(marker, 8)
    return ndimage.label((local > 25) & free)[1]


def test_debris_follows_the_class_on_the_training_plate_only():
    count = {}
    for name, plate in DEMO.items():
        for role in (NEGATIVE.role, POSITIVE.role):
            wells = [w for w in plate.wells if plate.wells[w].role == role and w[0] in "AC"]
            count[name, role] = sum(debris(demo_site(name, w)) for w in wells)
    ratio = {n: count[n, POSITIVE.role] / count[n, NEGATIVE.role] for n in DEMO}
    assert ratio["demo_1"] > 1.6
    assert 0.6 < ratio["demo_2"] < 1.4


def test_the_listing_is_told_before_the_files_are_there(tmp_path):
    spec = synthetic.tiny(sites=2, size=64, cells=3)
    told = synthetic.listing(spec)
    written = synthetic.render_plate(spec, tmp_path)
    assert len(written) == 6 * 2 * 3 + 1
    on_disk = {}
    for path in sorted(tmp_path.glob("*.tif")):
        match = re.fullmatch(synthetic.PATTERN, path.name)
        stat = path.stat()
        on_disk.setdefault(match["well"], []).append((path.name, stat.st_size, stat.st_mtime_ns))
    assert on_disk == told
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_files_hold_the_image(tmp_path):
    spec = synthetic.tiny(size=96)
    synthetic.render_plate(spec, tmp_path)
    site = synthetic.render_site(spec, "A04", 1)
    for index, channel in enumerate(spec.channels):
        stored = tifffile.imread(tmp_path / f"tiny_A04_s1_{channel}.tif")
        assert stored.dtype == np.uint16
        np.testing.assert_array_equal(stored, site.image[index, 0])


def test_what_is_missing_is_rendered_and_what_was_edited_is_kept(tmp_path):
    spec = synthetic.tiny(size=64, cells=3)
    synthetic.render_plate(spec, tmp_path)
    lost, edited = tmp_path / "tiny_A02_s1_DNA.tif", tmp_path / "tiny_A03_s1_Actin.tif"
    before = lost.read_bytes()
    lost.unlink()
    edited.write_bytes(b"mine")
    os.utime(edited, ns=(1, 1))
    assert synthetic.render_plate(spec, tmp_path) == [lost]
    assert lost.read_bytes() == before and lost.stat().st_mtime_ns == synthetic.MTIME_NS
    assert edited.read_bytes() == b"mine" and edited.stat().st_mtime_ns == 1
    assert synthetic.render_plate(spec, tmp_path) == []


def test_an_unknown_demo_plate_is_refused():
    with pytest.raises(UserError, match="demo_1, demo_2"):
        synthetic.demo("demo_3")


@pytest.mark.parametrize("name", DEMO)
def test_the_shipped_platemaps_are_the_specifications(name):
    assert (CONFIG / f"{name}_platemap.csv").read_text() == synthetic.platemap(DEMO[name])


def test_the_demo_plates_mirror_each_other():
    first, second = DEMO["demo_1"].wells, DEMO["demo_2"].wells
    assert first.keys() == second.keys() and len(first) == 24
    for well, treatment in first.items():
        assert second[f"{well[0]}{7 - int(well[1:]):02d}"] == treatment
    roles = [w.role for w in first.values()]
    assert [roles.count(r) for r in ("negative_control", "positive_control", "treatment")] == [
        8
    ] * 3


def test_a_field_may_be_without_cells():
    site = synthetic.render_site(synthetic.tiny(cells=0), "A01", 1)
    assert not site.cells.any() and not site.deciding.any() and site.shares.shape == (0,)
    assert 100 < site.image.mean() < 300
