import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from plateglass.models import cells


def disc(shape, y, x, radius):
    grid = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(grid[0] - y, grid[1] - x) <= radius


def pair(brightness=(1000, 1000), nucleus=0):
    """Two touching cells, their nuclei, and a channel that shows the cells on a background of 100."""
    shape = (80, 120)
    truth = np.zeros(shape, np.int32)
    truth[20:60, 20:55], truth[20:60, 55:100] = 1, 2
    nuclei = np.zeros(shape, np.int32)
    nuclei[disc(shape, 40, 38, 7)], nuclei[disc(shape, 40, 75, 7)] = 1, 2
    image = 100 + np.where(truth == 1, brightness[0], 0) + np.where(truth == 2, brightness[1], 0)
    image = image + nucleus * (nuclei > 0) + np.random.default_rng(0).normal(0, 5, shape)
    return image.astype(np.float32), nuclei, truth


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_without_a_channel_nuclei_grow_by_so_many_pixels():
    nuclei = np.zeros((40, 60), np.int32)
    nuclei[20, 20], nuclei[20, 26] = 1, 2
    grown = cells.grow(nuclei, grow=10)
    distance = np.hypot(*(np.mgrid[:40, :60] - np.array([20, 20])[:, None, None]))
    assert (grown[:, :23] == (distance <= 10)[:, :23]).all()  # the left one, up to half way
    assert grown[20, 22] == 1
    assert grown[20, 24] == 2


def test_cells_of_different_brightness_meet_at_their_border_and_not_half_way():
    image, nuclei, truth = pair(brightness=(3000, 600))
    found = cells.grow(nuclei, image)
    middle = (38 + 75) / 2  # of the nuclei; the cells meet at 55
    assert abs(found[40].tolist().index(2) - 55) <= 1.0 < abs(middle - 55)
    assert iou(found == 1, truth == 1) > 0.8
    assert iou(found == 2, truth == 2) > 0.8


def test_a_channel_that_is_bright_in_the_nucleus_does_not_shrink_the_cell_to_it():
    image, nuclei, truth = pair(brightness=(300, 300), nucleus=4000)
    found = cells.grow(nuclei, image)
    assert iou(found > 0, truth > 0) > 0.85
    assert iou(found == 1, truth == 1) > 0.8


def test_no_cell_ends_farther_from_its_nucleus_than_its_reach():
    image, nuclei, _ = pair()
    found = cells.grow(nuclei, image, reach=6)
    assert found[40, 38 + 7 + 6] == 1
    assert found[40, 38 + 7 + 8] == 0


def test_an_empty_channel_leaves_the_nuclei_as_cells():
    _, nuclei, _ = pair()
    flat = cells.grow(nuclei, np.full(nuclei.shape, 7, np.uint8))
    assert (flat == nuclei).all()
    none = cells.grow(np.zeros_like(nuclei), np.full(nuclei.shape, 7, np.uint8))
    assert none.dtype == np.int32
    assert not none.any()


def test_scale_and_offset_of_the_channel_play_no_part():
    image, nuclei, _ = pair(brightness=(3000, 600))
    same = cells.grow(nuclei, image * 0.05 + 2000)
    assert (same != cells.grow(nuclei, image)).mean() < 0.005


def test_largest_overlap_decides_and_the_rest_are_orphans():
    nuclei = np.zeros((10, 30), np.int32)
    found = np.zeros((10, 30), np.int32)
    found[2:8, 2:14] = 5  # has two nuclei
    found[2:8, 16:22] = 3  # has none
    found[2:8, 23:29] = 9
    nuclei[3:5, 4:6], nuclei[3:7, 9:12] = 4, 2
    nuclei[4:6, 24:26] = 7
    nuclei[9, 0:3] = 8  # lies in no cell
    new, whole, orphans = cells.number(nuclei, found)
    assert orphans == {"nuclei": 2, "cells": 1}
    assert np.unique(new[nuclei == 2]).tolist() == [1]
    assert np.unique(whole[found == 5]).tolist() == [1]
    assert np.unique(new[nuclei == 7]).tolist() == [2]
    assert np.unique(whole[found == 9]).tolist() == [2]
    assert not new[(nuclei == 4) | (nuclei == 8)].any()
    assert not whole[found == 3].any()


def test_a_nucleus_that_reaches_into_a_neighbour_is_cut_out_of_it():
    nuclei = np.zeros((6, 20), np.int32)
    found = np.zeros((6, 20), np.int32)
    found[:, :10], found[:, 10:] = 1, 2
    nuclei[2:4, 5:12], nuclei[2:4, 15:17] = 1, 2
    _, whole, _ = cells.number(nuclei, found)
    assert (whole[2:4, 10:12] == 1).all()


labels = arrays(np.int32, (7, 8), elements=st.integers(0, 5))


@settings(max_examples=200, deadline=None)
@given(labels, labels)
def test_numbers_run_from_one_and_every_cell_holds_its_nucleus_and_no_other(nuclei, found):
    new, whole, orphans = cells.number(nuclei, found)
    count = new.max(initial=0)
    assert np.unique(new[new > 0]).tolist() == list(range(1, count + 1))
    assert np.unique(whole[whole > 0]).tolist() == list(range(1, count + 1))
    assert (whole[new > 0] == new[new > 0]).all()
    assert count + orphans["nuclei"] == len(np.unique(nuclei[nuclei > 0]))
    assert count + orphans["cells"] == len(np.unique(found[found > 0]))
    # a kept nucleus keeps its pixels, and first pixels are in the order of the numbers
    assert all(len(np.unique(nuclei[new == n])) == 1 for n in range(1, count + 1))
    first = [np.flatnonzero(new.ravel() == n)[0] for n in range(1, count + 1)]
    assert first == sorted(first)


def test_cells_at_the_border_are_told():
    found = np.zeros((9, 9), np.int32)
    found[0, 4], found[4, 4], found[4, 8], found[8, 0] = 1, 2, 3, 4
    assert cells.at_edge(found).tolist() == [True, False, True, True]
    assert cells.at_edge(np.zeros((9, 9), np.int32)).tolist() == []


@pytest.mark.parametrize("well", ["A01", "B01", "A12", "B12"])
def test_outlines_of_bbbc013_are_met(real_data, well):
    """Best overlap of our cells with the outlines of the source, mean over them."""
    from plateglass.models import nuclei

    stem = f"{(ord(well[0]) - 65) * 12 + int(well[1:]):02d}-{well[0]}-{well[1:]}.tif"
    images = real_data / "sbs_rows_A-D" / "images"
    gfp, dna = (tifffile.imread(images / f"Channel{c}-{stem}") for c in (1, 2))
    truth = tifffile.imread(real_data / "bbbc013_cells" / "cell_labels" / f"{well}.tif")
    kernels = nuclei.load("nuclei-small")(dna)
    _, found, _ = cells.number(kernels, cells.grow(kernels, gfp))
    pairs = np.zeros((int(truth.max()) + 1, int(found.max()) + 1))
    np.add.at(pairs, (truth, found), 1)
    union = pairs.sum(1)[:, None] + pairs.sum(0)[None] - pairs
    overlap = (pairs / np.maximum(union, 1))[1:, 1:]
    assert overlap[pairs[1:].sum(1) > 0].max(1).mean() >= 0.6
    assert found.max() >= 130


@pytest.mark.parametrize(("share", "dropped"), [(0.0, []), (0.5, [4]), (0.7, [4, 6])])
def test_debris_is_what_is_narrow_beside_the_others_and_not_cut_by_the_border(share, dropped):
    nuclei = np.zeros((120, 120), np.int32)
    fragment, cut, small = (90, 90, 4), (60, 0, 4), (95, 30, 6)
    for number, where in enumerate(
        [(25, 25, 10), (25, 60, 10), (60, 60, 10), fragment, cut, small], 1
    ):
        nuclei[disc(nuclei.shape, *where) > 0] = number
    kept, count = cells.drop_debris(nuclei, share)
    assert count == len(dropped)
    expected = np.where(np.isin(nuclei, dropped), 0, nuclei)
    np.testing.assert_array_equal(kept, expected)


def test_no_nuclei_no_debris():
    kept, count = cells.drop_debris(np.zeros((8, 8), np.int32), 0.5)
    assert count == 0 and not kept.any()
