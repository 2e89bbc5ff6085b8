import numpy as np
import pytest

from plateglass.models.batches import across


@pytest.mark.parametrize("sizes", [[3, 5, 0, 9, 1], [0, 0], [16], [8, 8], [0, 2], [30, 1, 0]])
def test_rows_come_back_to_their_item_in_order(sizes):
    rng = np.random.default_rng(0)
    items = [(i, (rng.normal(size=(n, 2)), np.full(n, i))) for i, n in enumerate(sizes)]
    shapes = []

    def double(x, tag):
        shapes.append(tuple(x.shape))
        return x * 2, tag

    found = list(across(iter(items), double, size=8))
    assert [tag for tag, _ in found] == list(range(len(sizes)))
    for (_, (x, tag)), (_, (doubled, back)) in zip(items, found):
        np.testing.assert_array_equal(doubled, 2 * x)
        np.testing.assert_array_equal(back, tag)
    assert set(shapes) == {(8, 2)}
    # every row passes once: no more batches than the rows need (one, for shapes, where none do)
    assert len(shapes) == max(1, -(-sum(sizes) // 8))


def test_no_items_no_batches():
    assert list(across(iter([]), lambda x: (x,), size=4)) == []


def test_items_are_handed_on_as_soon_as_their_rows_are_done():
    taken = []

    def items():
        for i in range(6):
            taken.append(i)
            yield i, (np.zeros((4, 1), np.float32),)

    stream = across(items(), lambda x: (x,), size=4)
    assert next(stream)[0] == 0
    assert taken == [0]
