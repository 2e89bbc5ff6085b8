"""Image quality of planes whose answers are known."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from plateglass.measure import quality


def field(share=0.2, background=120, cells=900, side=200, noise=8, seed=0):
    """Cells over a share of the plane, on a flat background with camera noise."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(side, side)), 6)
    inside = smooth > np.quantile(smooth, 1 - share)
    plane = np.where(inside, cells + 2000 * smooth, background) + rng.normal(0, noise, (side, side))
    return np.clip(plane, 0, 65535).astype(np.uint16)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.85])
def test_background_whatever_the_cells_cover(share):
    assert quality.quality(field(share))["Background"] == pytest.approx(120, abs=6)


def test_background_of_a_crowded_field_is_not_the_cells():
    """P50 is in the cells; the lowest mode is not."""
    figures = quality.quality(field(0.85))
    assert figures["P50"] > 800 and figures["Background"] < 130


def test_background_of_a_constant_plane():
    figures = quality.quality(np.full((30, 30), 77, np.uint16))
    assert figures["Background"] == 77 and np.isnan(figures["Focus"])


def test_percentiles_and_mean():
    plane = field()
    figures, ranked = quality.quality(plane), np.sort(plane.ravel())
    for name, thousandths in (("P01", 10), ("P50", 500), ("P99", 990), ("P999", 999)):
        assert figures[name] == ranked[plane.size * thousandths // 1000 - 1]
    assert figures["Mean"] == pytest.approx(plane.mean())


@pytest.mark.parametrize(
    ("dtype", "top", "expected"),
    [
        (np.uint8, 255, 0.25),
        (np.uint16, 65535, 0.25),
        (np.uint16, 4095, 0.25),  # a camera of 12 bits
        (np.uint16, 16383, 0.25),  # of 14
        (np.uint8, 254, 0.0),
        (np.uint16, 4000, 0.0),
        (np.uint16, 5000, 0.0),
    ],
)
def test_saturation(dtype, top, expected):
    plane = np.full((20, 20), 50, dtype)
    plane[:10, :10] = top
    assert quality.quality(plane)["Saturation"] == expected


@pytest.mark.parametrize("noise", [0, 3, 10])
def test_focus_falls_with_blur_whatever_the_noise(noise):
    plane = field(noise=2).astype(float)
    rng = np.random.default_rng(2)
    found = []
    for blur in (0, 1, 2, 4):
        blurred = gaussian_filter(plane, blur) + rng.normal(0, noise, plane.shape)
        found.append(quality.focus(blurred.round().clip(0).astype(np.uint16)))
    assert all(sharp > blurred + 0.1 for sharp, blurred in pairwise(found))
    assert found[:3] == pytest.approx([-1.05, -1.29, -1.85], abs=0.03)


def test_focus_of_a_known_spectrum():
    """Power f^-2 without noise: the share is log(12 / 4) / log(100 / 4)."""
    rng = np.random.default_rng(1)
    f = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None])
    spectrum = np.where((f > 0) & (f < 0.3), 1 / np.where(f > 0, f, 1), 0)
    plane = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(512, 512))) * spectrum, s=(512, 512))
    expected = np.log10(np.log(3) / np.log(25))
    assert quality.focus(plane) == pytest.approx(expected, abs=0.05)


def test_focus_of_noise_alone_is_nothing():
    noise = np.random.default_rng(1).normal(500, 9, (200, 200)).astype(np.uint16)
    assert np.isnan(quality.focus(noise))


def test_focus_does_not_depend_on_exposure():
    plane = field().astype(np.uint32)
    assert quality.focus(plane * 3 + 500) == pytest.approx(quality.focus(plane), abs=1e-4)


def test_best_plane_of_a_stack_is_the_focus():
    sharp = field()
    blurred = gaussian_filter(sharp, 3)
    assert quality.quality(np.stack([blurred, sharp]))["Focus"] == quality.focus(sharp)


def test_flags():
    burnt = field()
    burnt[:40] = 65535
    figures = {"DNA": quality.quality(burnt), "GFP": quality.quality(field())}
    assert quality.flags(figures) == "saturated:DNA"
    figures["GFP"] = quality.quality(np.zeros((20, 20), np.uint8))
    assert quality.flags(figures) == "saturated:DNA flat:GFP"
