import numpy as np
import pytest

from plateglass.report.profiles import principal


def test_the_first_component_is_the_direction_in_which_wells_differ():
    rng = np.random.default_rng(0)
    level = rng.normal(size=80)
    values = np.outer(level, [3, -2, 1, 5]) + rng.normal(0, 0.1, (80, 4))
    scores, shares = principal(values)
    assert abs(np.corrcoef(scores[:, 0], level)[0, 1]) > 0.999
    assert shares[0] > 0.97
    assert scores[:, 0].mean() == pytest.approx(0, abs=1e-9)


def test_one_wild_feature_does_not_draw_the_plane():
    rng = np.random.default_rng(0)
    level = rng.normal(size=80)
    values = np.outer(level, [1, 1, 1, 1]) + rng.normal(0, 0.1, (80, 4))
    values[0, 3] = 1e6
    assert abs(np.corrcoef(principal(values)[0][:, 0], level)[0, 1]) > 0.95


def test_signs_are_fixed():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 5))
    order = rng.permutation(30)
    assert principal(values)[0][order] == pytest.approx(principal(values[order])[0])
