"""The channel suites rank their channels as they say."""

import numpy as np
import pytest
from scipy import ndimage

from plateglass.synthetic import planted
from plateglass.synthetic.planted import planted_channels


def matched_accuracy(suite, channel):
    """Accuracy of the best possible classifier of that channel."""
    spot, ring = planted._patterns(suite.crops.shape[-1])
    score = (suite.crops[:, channel] * (ring - spot)).sum((1, 2))
    return ((score > 0) == suite.labels).mean()


def test_accuracy_is_what_a_matched_filter_reaches():
    suite = planted_channels(4000, seed=3, ladder=(3.0, 1.5, 0.5), copies=1, noise=2)
    assert suite.crops.shape == (4000, 6, 20, 20) and suite.crops.dtype == np.float32
    assert np.bincount(suite.labels).tolist() == [2000, 2000]
    found = [matched_accuracy(suite, c) for c in range(6)]
    np.testing.assert_allclose(found, suite.accuracy, atol=0.025)
    assert sorted(suite.accuracy)[:2] == [0.5, 0.5]


def test_copies_correlate_and_say_whose_they_are():
    suite = planted_channels(200, seed=5, copies=2, noise=1)
    copies = np.flatnonzero(suite.copy_of >= 0)
    assert len(copies) == 2
    flat = suite.crops.transpose(1, 0, 2, 3).reshape(suite.crops.shape[1], -1)
    correlation = np.corrcoef(flat)
    for copy in copies:
        assert suite.strength[copy] == suite.strength[suite.copy_of[copy]]
        assert correlation[copy, suite.copy_of[copy]] > 0.9
        assert np.sort(correlation[copy])[-3] < 0.2


def test_neither_mean_nor_spread_tells_the_class():
    suite = planted_channels(2000, seed=7, ladder=(3.2,), copies=0, noise=0)
    crops = suite.crops[:, 0]
    for summary in (crops.mean((1, 2)), crops.std((1, 2))):
        by_class = [summary[suite.labels == k].mean() for k in (0, 1)]
        assert abs(by_class[0] - by_class[1]) < 4 * summary.std() / np.sqrt(1000)


def test_contradicting_channels_cancel_in_a_sum():
    kind = {"ladder": (3.0, 3.0), "copies": 0, "noise": 0, "seed": 2}
    agree = planted_channels(2000, **kind)
    against = planted_channels(2000, **kind, contradicting=True)
    spot, ring = planted._patterns(20)
    accuracy = []
    for suite in (agree, against):
        score = (suite.crops.sum(1) * (ring - spot)).sum((1, 2))
        accuracy.append(((score > 0) == suite.labels).mean())
    assert accuracy[0] > 0.96
    assert 0.45 < accuracy[1] < 0.55


def test_one_seed_has_one_order_of_channels():
    train, test = planted_channels(100, seed=11), planted_channels(60, seed=11)
    np.testing.assert_array_equal(train.strength, test.strength)
    np.testing.assert_array_equal(train.copy_of, test.copy_of)
    assert not np.array_equal(train.crops[:60], test.crops)
    np.testing.assert_array_equal(train.crops, planted_channels(100, seed=11).crops)


@pytest.fixture(scope="module")
def shapes():
    """Three kinds of images, easily told apart."""
    labels = np.arange(900) % 3
    images = np.zeros((900, 12, 12))
    images[np.arange(900), 3 + 3 * labels, 6] = 1
    return ndimage.gaussian_filter(images, (0, 1, 1)) * 6, labels


def test_graded_channels_show_one_image_under_rising_noise(shapes):
    images, labels = shapes
    suite = planted.graded(images, labels, (0.1, 0.5, 1.0), seed=0)
    correlation = [np.corrcoef(suite.crops[:, c].ravel(), images.ravel())[0, 1] for c in range(3)]
    assert correlation == sorted(correlation, reverse=True) and correlation[0] > 0.8
    assert (np.diff(suite.strength) < 0).all()
    np.testing.assert_allclose(suite.crops.std((0, 2, 3)), 1, rtol=1e-5)


def test_mixed_channels_show_the_label_as_often_as_they_say(shapes):
    images, labels = shapes
    suite = planted.mixed(images, labels, (0.9, 0.4, 0.0), seed=0)
    shown = suite.crops[:, :, [3, 6, 9], 6].argmax(2)
    np.testing.assert_allclose((shown == labels[:, None]).mean(0), suite.accuracy, atol=0.05)
