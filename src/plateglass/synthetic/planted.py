"""Small multichannel crops in which it is known how much each channel tells of the class.

The suites that DCMIX's channel weights are held to (`tests/benchmarks/dcmix.py`). `planted_channels`
needs no data; `graded` and `mixed` take any labelled images.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, sqrt

import numpy as np
from scipy import ndimage

# Discriminability d' of the informative channels, strongest first; neighbours are near-ties.
LADDER = (3.2, 2.9, 2.1, 1.9, 1.3, 1.15, 0.8, 0.7)


@dataclass(frozen=True)
class Suite:
    """Crops whose channels are ranked by construction.

    Attributes
    ----------
    crops: float32 (n, C, y, x), noise of standard deviation about 1.
    labels: int64 (n,).
    accuracy: float (C,), the best accuracy any classifier can have on that channel alone
        (`graded`: NaN, only the order is known).
    strength: float (C,), what the ranking follows; equal values tie.
    copy_of: int (C,), the channel of which this is a copy, else -1.
    """

    crops: np.ndarray
    labels: np.ndarray
    accuracy: np.ndarray
    strength: np.ndarray
    copy_of: np.ndarray


def planted_channels(
    n: int,
    seed: int,
    ladder: tuple[float, ...] = LADDER[:4],
    copies: int = 1,
    noise: int = 1,
    size: int = 20,
    contradicting: bool = False,
) -> Suite:
    """Two classes, shown in each channel as a spot or a ring under white noise.

    The patterns have one energy and one sum, so no mean tells the class; a channel's best accuracy
    is ``Φ(d'/2)`` (a matched filter). Noise is independent between channels; what the channels look
    like depends on `seed` alone for the order, so crops of one seed and two `n` share it.

    Parameters
    ----------
    ladder : d' of the informative channels.
    copies : copies of the strongest channels (its pixels and 5 % noise of their own).
    noise : channels without any signal.
    contradicting : every second informative channel shows the other class's pattern, so that a sum
        over channels cancels what each of them tells.
    """
    order = np.random.default_rng([seed, 0]).permutation(len(ladder) + copies + noise)
    rng = np.random.default_rng([seed, 1, n])
    labels = np.arange(n) % 2
    rng.shuffle(labels)
    patterns = _patterns(size)
    apart = np.linalg.norm(patterns[1] - patterns[0])
    channels, strength, source = [], [], []
    for rank, d in enumerate(ladder):
        shown = 1 - labels if contradicting and rank % 2 else labels
        noisy = rng.standard_normal((n, size, size))
        channels.append(d / apart * patterns[shown] + noisy)
        strength.append(d)
        source.append(-1)
    for rank in range(copies):
        grain = 0.05 * rng.standard_normal((n, size, size))
        channels.append(channels[rank] + grain)
        strength.append(ladder[rank])
        source.append(rank)
    for _ in range(noise):
        channels.append(rng.standard_normal((n, size, size)))
        strength.append(0.0)
        source.append(-1)
    place = np.argsort(order)  # channel i before shuffling stands at place[i]
    copy_of = np.array([place[s] if s >= 0 else -1 for s in source])[order]
    strength = np.array(strength)[order]
    return Suite(
        crops=np.stack(channels, 1)[:, order].astype(np.float32),
        labels=labels.astype(np.int64),
        accuracy=np.array([0.5 * (1 + erf(d / 2 / sqrt(2))) for d in strength]),
        strength=strength,
        copy_of=copy_of,
    )


def graded(images: np.ndarray, labels: np.ndarray, noise: tuple[float, ...], seed: int) -> Suite:
    """Each channel shows the same image under its own white noise (standard deviations `noise`).

    `images`: (n, y, x), 0..1. Each channel is divided by its standard deviation, as plate units
    would, so that the noisiest is not simply the brightest.
    """
    rng = np.random.default_rng(seed)
    channels = []
    for level in noise:
        channel = images + level * rng.standard_normal(images.shape)
        channels.append((channel - channel.mean()) / channel.std())
    return Suite(
        crops=np.stack(channels, 1).astype(np.float32),
        labels=labels.astype(np.int64),
        accuracy=np.full(len(noise), np.nan),
        strength=-np.asarray(noise, float),
        copy_of=np.full(len(noise), -1),
    )


def mixed(images: np.ndarray, labels: np.ndarray, shares: tuple[float, ...], seed: int) -> Suite:
    """Channel k shows an image of the label's class with probability ``q_k``, else of a random one.

    Single-channel accuracy is ``q_k + (1 − q_k)/K`` for K equally frequent classes, as long as the
    image's class can be read at all. `images`: (n, y, x), 0..1.
    """
    rng = np.random.default_rng(seed)
    kinds = np.unique(labels)
    of_kind = {kind: np.flatnonzero(labels == kind) for kind in kinds}
    channels = []
    for share in shares:
        shown = np.where(rng.random(len(labels)) < share, labels, rng.choice(kinds, len(labels)))
        channels.append(images[[rng.choice(of_kind[kind]) for kind in shown]])
    crops = np.stack(channels, 1)
    shares = np.asarray(shares, float)
    return Suite(
        crops=((crops - crops.mean()) / crops.std()).astype(np.float32),
        labels=labels.astype(np.int64),
        accuracy=shares + (1 - shares) / len(kinds),
        strength=shares,
        copy_of=np.full(len(shares), -1),
    )


def _patterns(size: int) -> np.ndarray:
    """A spot and a ring (2, y, x) of one sum (0) and one energy (1)."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = np.hypot(y, x) * 20 / size
    spot, ring = radius < 3.2, (radius >= 4.5) & (radius < 6.5)
    patterns = np.stack([ndimage.gaussian_filter(p.astype(float), size / 20) for p in (spot, ring)])
    patterns -= patterns.mean((1, 2), keepdims=True)
    return patterns / np.linalg.norm(patterns, axis=(1, 2), keepdims=True)
