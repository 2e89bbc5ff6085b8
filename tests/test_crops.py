import numpy as np
import pytest
import torch

from plateglass import crops


def field():
    """Two cells on a level of 2 (channel 0) and 5 (channel 1); cell 7 touches the border."""
    cells = np.zeros((40, 50), np.int32)
    cells[10:17, 20:27] = 4
    cells[0:5, 0:5] = 7
    image = np.empty((2, 40, 50), np.float32)
    image[0], image[1] = 2, 5
    image[:, cells == 4] = 100
    image[:, cells == 7] = 200
    image[0, 13, 23] = 111  # the middle of cell 4
    image[0, 2, 2] = 222
    return image, cells


def test_each_cell_is_cut_around_its_middle():
    image, cells = field()
    x, masks, numbers, centres = crops.cut(image, cells, 16)
    assert numbers.tolist() == [4, 7]
    assert centres.tolist() == [[13, 23], [2, 2]]
    assert x.shape == (2, 2, 16, 16)
    assert x.dtype == np.float32
    assert x[0, 0, 8, 8] == 111
    assert x[1, 0, 8, 8] == 222
    assert masks.sum((1, 2)).tolist() == [49, 25]
    assert (x[0, 1][masks[0]] == 100).all()
    # outside the field is the field's background
    assert (x[1, 0, :6] == 2).all()
    assert (x[1, 1, :, :6] == 5).all()


def test_nuclei_give_the_centres_and_only_chooses():
    image, cells = field()
    nuclei = np.zeros_like(cells)
    nuclei[10:13, 20:23] = 4
    nuclei[0:2, 0:2] = 7
    x, masks, numbers, centres = crops.cut(image, cells, 16, nuclei, only=[7, 4])
    assert numbers.tolist() == [7, 4]
    assert centres.tolist() == [[0.5, 0.5], [11, 21]]
    assert x[1, 0, 10, 10] == 111
    assert masks[1].sum() == 49  # the whole cell, not its nucleus


def test_an_empty_field_has_no_crops():
    image, cells = field()
    x, masks, numbers, centres = crops.cut(image, cells * 0, 16)
    assert (x.shape, masks.shape, numbers.shape, centres.shape) == (
        (0, 2, 16, 16),
        (0, 16, 16),
        (0,),
        (0, 2),
    )


def test_background_is_the_median_outside_cells_and_their_rim():
    image, cells = field()
    image[0, 8:19, 18:29] = np.maximum(image[0, 8:19, 18:29], 50)  # a halo two px wide
    assert crops.background(image, cells).tolist() == [2, 5]
    full = np.ones_like(cells)
    image[0] = np.linspace(0, 100, image[0].size).reshape(40, 50)
    assert crops.background(image, full)[0] == pytest.approx(5, abs=0.1)


def test_texture_holds_no_cell():
    image, cells = field()
    rng = np.random.default_rng(0)
    image[:, cells == 0] += rng.normal(size=(2, (cells == 0).sum())).astype(np.float32)
    patch = crops.texture(image, cells, 64)
    assert patch.shape == (2, 64, 64)
    assert patch.max() < 50
    assert patch[0].std() == pytest.approx(1, abs=0.2)
    assert crops.texture(image, np.ones_like(cells), 64) is None


def batch():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, 20, 20, generator=rng)
    masks = torch.zeros(5, 20, 20, dtype=torch.bool)
    for i in range(5):
        masks[i, 6 : 9 + i, 7:12] = True
    return x, masks, torch.randn(5, 3, 20, 20, generator=rng)


def test_dilate_grows_by_squares():
    masks = torch.zeros(1, 9, 9, dtype=torch.bool)
    masks[0, 4, 4] = True
    assert crops.dilate(masks, 2).sum() == 25
    assert crops.dilate(masks, 0) is masks
    assert crops.dilate(torch.ones(1, 3, 3, 3, dtype=torch.bool), 1).shape == (1, 3, 3, 3)


def test_swap_keeps_the_cell_exactly_and_nothing_else():
    x, masks, others = batch()
    swapped = crops.swap(x, masks, others)
    own = masks[:, None].expand_as(x)
    assert torch.equal(swapped[own], x[own])
    assert torch.equal(swapped[~own], others[~own])


@pytest.mark.parametrize("kind", ["level", "texture"])
def test_erase_leaves_no_pixel_of_the_cell_nor_of_its_rim(kind):
    x, masks, others = batch()
    fill = others if kind == "texture" else torch.randn(5, 3)
    erased = crops.erase(x, masks, fill)
    gone = crops.dilate(masks, 2)[:, None].expand_as(x)
    assert not (erased[gone] == x[gone]).any()
    assert torch.equal(erased[~gone], x[~gone])
    if kind == "level":
        assert erased[1, 2][crops.dilate(masks, 2)[1]].unique().tolist() == [fill[1, 2].item()]


def test_volumes_are_swapped_and_erased_alike():
    x, masks, others = batch()
    deep = [part[:, :, None].expand(-1, -1, 4, -1, -1) for part in (x, others)]
    marks = masks[:, None].expand(-1, 4, -1, -1)
    assert torch.equal(crops.swap(deep[0], marks, deep[1])[:, :, 1], crops.swap(x, masks, others))
    assert crops.erase(deep[0], marks, torch.zeros(5, 3)).shape == (5, 3, 4, 20, 20)
