"""Image quality of one plane: background, percentiles, saturation, focus."""

from functools import lru_cache

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
    sharpness = [focus(each) for each in plane.reshape(-1, *plane.shape[-2:])]
    return {
        "Background": background(counts),
        "P01": low,
        "P50": middle,
        "P99": high,
        "P999": top,
        "Mean": float(counts @ values / plane.size),
        "Saturation": saturation(counts, plane.dtype),
        "Focus": max((each for each in sharpness if each == each), default=float("nan")),
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
    """Log10 of the share of fine structure: the lower, the blurrier. NaN where all is noise.

    plane: (y, x). The power of wavelengths from 4 to 12 pixels over that from 4 to 100, of the
    plane under a Hann window (which keeps the frame's edges out), less the camera's noise as the
    highest frequencies show it. Ours, in the line of CellProfiler's PowerLogLogSlope (Bray et al.
    2012, J. Biomol. Screen. 17, 266): that slope rises again where blur leaves little but noise,
    this share falls with every further blur.
    """
    height, width = plane.shape
    if min(height, width) < 16:
        return float("nan")
    window, highest, fine, coarse = _of_shape(height, width)
    shaped = plane - np.float32(plane.mean(dtype=np.float64))
    shaped *= window
    wave = scipy.fft.rfft2(shaped, overwrite_x=True).ravel()
    power = wave.real * wave.real + wave.imag * wave.imag
    # The power of noise is distributed exponentially: its mean is its median over log 2.
    noise = float(np.median(power[highest])) / np.log(2)
    detail = power[fine].sum(dtype=np.float64) - noise * len(fine)
    signal = detail + power[coarse].sum(dtype=np.float64) - noise * len(coarse)
    count = len(fine) + len(coarse)
    if signal <= 3 * noise * np.sqrt(count) or signal <= 0:
        return float("nan")
    return float(np.log10(max(detail, noise * np.sqrt(len(fine))) / signal))


@lru_cache(maxsize=2)
def _of_shape(height: int, width: int) -> tuple[np.ndarray, ...]:
    """Hann window of a plane; places in its half spectrum: noise alone, fine, coarser structure.

    The same for all planes of a plate, and dearer to make than a spectrum.
    """
    window = np.hanning(height)[:, None] * np.hanning(width)[None, :]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]).ravel()
    places = (
        frequency > 0.45,
        (frequency > 1 / 12) & (frequency <= 1 / 4),
        (frequency > 1 / 100) & (frequency <= 1 / 12),
    )
    return window.astype(np.float32), *(np.flatnonzero(place) for place in places)


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
