"""Image quality of one plane: background, percentiles, saturation, focus."""

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter1d

NAMES = ("Background", "P01", "P50", "P99", "P999", "Mean", "Saturation", "Focus")
SATURATED = 0.01  # a channel with more than this share of saturated pixels is flagged


def quality(plane: np.ndarray) -> dict[str, float]:
    """Figures of a channel of one site, named as in `NAMES`.

    plane: uint8 or uint16 of any shape (z, y, x) or (y, x); intensities in its own units. P01 to
    P999 are the 1st, 50th, 99th and 99.9th percentiles (the smallest value with that share of the
    pixels at or below it). Focus is the z-plane in best focus's.
    """
    counts = np.bincount(plane.ravel())
    low, middle, high, top = (float(v) for v in percentiles(counts, (0.01, 0.5, 0.99, 0.999)))
    values = np.arange(len(counts))
    planes = plane.reshape(-1, *plane.shape[-2:])
    return {
        "Background": background(counts),
        "P01": low,
        "P50": middle,
        "P99": high,
        "P999": top,
        "Mean": float(counts @ values / plane.size),
        "Saturation": saturation(counts, plane.dtype),
        "Focus": max(focus(each) for each in planes),
    }


def percentiles(counts: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """Values at or below which these shares of the pixels lie; counts: pixels by value from 0."""
    below = np.cumsum(counts)
    return np.searchsorted(below, np.ceil(np.asarray(shares) * below[-1]), side="left")


def background(counts: np.ndarray) -> float:
    """The lowest mode of the histogram: the level of the pixels without a cell.

    counts: pixels of value 0, 1, … The histogram is smoothed by a fiftieth of the range from the
    1st to the 99th percentile; the first peak with a tenth of the highest one's height counts, so
    that the cells of a crowded field, whose peak is the highest, are not taken for background.
    Ours.
    """
    first, last = (int(v) for v in percentiles(counts, (0.01, 0.99)))
    width = max(1.0, (last - first) / 50)
    start = max(0, first - int(4 * width))
    smooth = gaussian_filter1d(
        counts[start : last + int(4 * width) + 1].astype(float), width, mode="constant"
    )
    padded = np.concatenate([[-1.0], smooth, [-1.0]])
    peak = (padded[1:-1] >= padded[:-2]) & (padded[1:-1] > padded[2:])
    return float(start + np.flatnonzero(peak & (smooth >= smooth.max() / 10))[0])


def saturation(counts: np.ndarray, dtype: np.dtype) -> float:
    """Share of pixels at the camera's largest value.

    That is the dtype's; for uint16, the largest of 12, 14 or 16 bits that the image needs, since
    cameras of 12 and 14 bits write 16.
    """
    depths = (8,) if dtype == np.uint8 else (12, 14, 16)
    largest = next(2**bits - 1 for bits in depths if len(counts) <= 2**bits)
    return float(counts[largest] / counts.sum()) if len(counts) > largest else 0.0


def focus(plane: np.ndarray) -> float:
    """Slope of log power over log spatial frequency: the lower, the blurrier. NaN if it is flat.

    CellProfiler's ImageQuality_PowerLogLogSlope (Bray et al. 2012, J. Biomol. Screen. 17, 266). The
    power is averaged over rings of one frequency step each, as there; a Hann window (ours) keeps
    the frame's edges out.
    """
    height, width = plane.shape
    side = min(height, width)
    if side < 8 or plane.min() == plane.max():
        return float("nan")
    window = np.hanning(height)[:, None] * np.hanning(width)[None, :]
    shaped = ((plane - plane.mean(dtype=np.float64)) * window).astype(np.float32)
    power = np.abs(scipy.fft.rfft2(shaped)).astype(np.float64) ** 2
    rows = np.fft.fftfreq(height)[:, None] * side
    columns = np.fft.rfftfreq(width)[None, :] * side
    ring = np.hypot(rows, columns).round().astype(np.intp).ravel()
    total = np.bincount(ring, power.ravel())[1 : side // 2]
    mean = total / np.bincount(ring)[1 : side // 2]
    there = mean > 0
    frequency = np.log(np.arange(1, side // 2)[there])
    return float(np.polyfit(frequency, np.log(mean[there]), 1)[0])


def flags(figures: dict[str, dict[str, float]]) -> str:
    """What is odd about a site, by channel: `saturated:DNA flat:GFP`; empty if nothing is.

    figures: channel → `quality`. Flat: the 1st and the 99.9th percentile are the same value.
    """
    odd = []
    for channel, figure in figures.items():
        if figure["Saturation"] > SATURATED:
            odd.append(f"saturated:{channel}")
        if figure["P01"] == figure["P999"]:
            odd.append(f"flat:{channel}")
    return " ".join(odd)
