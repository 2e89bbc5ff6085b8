"""Does a map name the pixels that decide? Measures of attribution maps, higher is better.

Ranked: the ROAD gap (Rong 2022, "A consistent and efficient evaluation strategy for attribution
methods") and the average precision of planted pixels. Diagnostics: deletion, insertion, share on
the cell.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plateglass.explain.classifier import as_target, blur, frozen, margin, probability

FRACTIONS = (0.1, 0.2, 0.3, 0.5, 0.7)
NOISE = 0.01  # of the imputation, in the units of the crop, as in Rong's code


def road_gap(
    model: nn.Module,
    x: Tensor,
    maps: Tensor,
    target: int | Tensor | None = None,
    fractions: tuple[float, ...] = FRACTIONS,
    seed: int = 0,
) -> Tensor:
    """ROAD gap ``(N,)``: probability left when the least relevant pixels go first, less the most.

    ``x (N, C, *spatial)``, signed ``maps (N, *spatial)``; mean over ``fractions`` of removed
    pixels, each replaced by :func:`impute`. Ties within a map are broken by one random order, the
    same for all maps.
    """
    order = ranking(maps, seed)
    pixels = order.shape[1]
    gap = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    with frozen(model), torch.no_grad():
        target = as_target(target, model(x))
        for fraction in fractions:
            count = round(fraction * pixels)
            for removed, sign in ((order[:, :count], 1.0), (order[:, pixels - count :], -1.0)):
                gone = torch.zeros_like(order, dtype=torch.bool).scatter_(1, removed, True)
                filled = impute(x, gone.view(maps.shape), seed=seed)
                gap += sign * probability(model(filled), target)
    return gap / len(fractions)


def ranking(maps: Tensor, seed: int = 0) -> Tensor:
    """Each map's pixels from least to most relevant, ``(N, pixels)`` indices; ties at random."""
    flat = maps.flatten(1)
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(flat.shape[1], generator=generator).to(flat.device)
    return shuffled[flat[:, shuffled].argsort(dim=1, stable=True)]


def impute(
    x: Tensor, gone: Tensor, noise: float = NOISE, seed: int = 0, tolerance: float = 3e-4
) -> Tensor:
    """Noisy linear imputation: each pixel in ``gone (N, *spatial)`` is the mean of its neighbours.

    The weights of face, edge and corner neighbours are 1, 1/2, 1/4 (in 2D Rong's 1/6 and 1/12). The
    sparse system is solved for the whole batch by preconditioned conjugate gradients, from a start
    that a pyramid of averages gives, to ``tolerance`` of the crop's spread; then noise that hides
    the mask's outline.
    """
    spatial = gone.ndim - 1
    n, c = x.shape[:2]
    hole = gone[:, None].to(x).expand(n, c, *gone.shape[1:]).reshape(n * c, 1, *gone.shape[1:])
    image = x.reshape(n * c, 1, *x.shape[2:])
    degree = _neighbours(torch.ones_like(image[:1]), spatial)

    def apply(values: Tensor) -> Tensor:
        return hole * (degree * values - _neighbours(values, spatial))

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1).view(-1, *[1] * (spatial + 1))

    known = image * (1 - hole)
    value = known + hole * _pyramid(known, 1 - hole, spatial)
    residual = -apply(value)
    limit = tolerance * image.flatten(1).std(1, correction=0).view(dot(residual, residual).shape)
    limit = (limit**2 * hole.flatten(1).sum(1).view(limit.shape)).clamp_min(1e-20)
    scaled = residual / degree
    direction, power = scaled, dot(residual, scaled)
    for _ in range(hole[0].numel()):
        # a crop that is solved stays as it is, however long others of its batch take
        unsolved = dot(scaled, scaled) > limit
        if not bool(unsolved.any()):
            break
        image_of = apply(direction)
        step = unsolved * power / dot(direction, image_of).clamp_min(1e-30)
        value = value + step * direction
        residual = residual - step * image_of
        scaled = residual / degree
        previous, power = power, dot(residual, scaled)
        direction = scaled + power / previous.clamp_min(1e-30) * direction
    generator = torch.Generator().manual_seed(seed)
    # one field of noise for all crops: a cell's figure does not depend on the rest of its batch
    grain = torch.randn((1, *x.shape[1:]), generator=generator).to(x)
    return value.view_as(x) + noise * grain * gone[:, None].to(x)


def cell_share(maps: Tensor, mask: Tensor, top: float = 0.1) -> tuple[Tensor, Tensor]:
    """How many of the ``top`` share of pixels lie on the cell, and that over the mask's share.

    By rank, so that sharpening a map does not move it. Maps and masks ``(N, *spatial)``; NaN
    without a mask.
    """
    order = ranking(maps)
    count = max(1, round(top * order.shape[1]))
    inside = mask.flatten(1).to(maps.dtype)
    share = inside.gather(1, order[:, -count:]).mean(1)
    return share, share / inside.mean(1)


def average_precision(maps: Tensor, planted: Tensor) -> Tensor:
    """Area under the precision-recall curve ``(N,)`` of ``planted`` pixels; NaN without any."""
    hit = planted.flatten(1).to(maps.dtype).gather(1, ranking(maps).flip(1))
    precision = hit.cumsum(1) / torch.arange(1, hit.shape[1] + 1, device=hit.device)
    return (precision * hit).sum(1) / hit.sum(1)


def deletion(
    model: nn.Module, x: Tensor, maps: Tensor, target=None, fill: str = "blur", steps: int = 16
) -> Tensor:
    """Mean probability ``(N,)`` while the most relevant pixels give way: lower is better.

    ``fill``: ``zero``, ``mean`` (the crop's, by channel) or ``blur`` (sigma 8 px). Petsiuk 2018.
    """
    return _curve(model, x, maps, target, fill, steps, insert=False)


def insertion(
    model: nn.Module, x: Tensor, maps: Tensor, target=None, fill: str = "blur", steps: int = 16
) -> Tensor:
    """Mean probability ``(N,)`` while the most relevant pixels come back: higher is better."""
    return _curve(model, x, maps, target, fill, steps, insert=True)


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation ``(N,)`` of two sets of maps over the pixels; ties at random."""
    ranks = [ranking(maps, seed).argsort(1).double() for seed, maps in enumerate((a, b))]
    ranks = [rank - rank.mean(1, keepdim=True) for rank in ranks]
    return F.cosine_similarity(*ranks, dim=1).to(a.dtype)


def fill_of(x: Tensor, fill: str) -> Tensor:
    """What stands in for removed pixels, shaped as ``x``: ``zero``, ``mean`` or ``blur``."""
    if fill == "zero":
        return torch.zeros_like(x)
    if fill == "mean":
        return x.flatten(2).mean(2).view(*x.shape[:2], *[1] * (x.ndim - 2)).expand_as(x)
    if fill == "blur":
        return blur(x, 8.0, x.ndim - 2)
    raise ValueError(f"fill {fill!r} is none of zero, mean, blur")


def _curve(model, x, maps, target, fill, steps, insert) -> Tensor:
    order = ranking(maps)
    rank = order.argsort(1, descending=False).view(maps.shape)[:, None]
    pixels = order.shape[1]
    other = fill_of(x, fill)
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    with frozen(model), torch.no_grad():
        target = as_target(target, model(x))
        for step in range(steps + 1):
            top = rank >= pixels - round(step / steps * pixels)
            kept = top if insert else ~top
            weight = 0.5 if step in (0, steps) else 1.0
            total += weight * margin(model(torch.where(kept, x, other)), target).sigmoid()
    return total / steps


def _neighbours(values: Tensor, spatial: int) -> Tensor:
    """Weighted sum of each pixel's neighbours: 1 over a face, 1/2 over an edge, 1/4 over a corner.

    By shifted sums, one axis after the other: a convolution of one channel is 15 times slower.
    """
    total = values
    for axis in range(values.ndim - spatial, values.ndim):
        more, last = total.clone(), values.shape[axis] - 1
        more.narrow(axis, 1, last).add_(total.narrow(axis, 0, last), alpha=0.5)
        more.narrow(axis, 0, last).add_(total.narrow(axis, 1, last), alpha=0.5)
        total = more
    return (total - values) * 2


def _pyramid(known: Tensor, weight: Tensor, spatial: int) -> Tensor:
    """A first guess for the holes: the mean of what is known, from coarse to fine."""
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[spatial - 1]
    if max(known.shape[2:]) == 1:
        return known / weight.clamp_min(1e-12)
    by = [min(2, size) for size in known.shape[2:]]
    small = [pool(t, by, ceil_mode=True, count_include_pad=False) for t in (known, weight)]
    guess = _pyramid(small[0], small[1], spatial)
    guess = F.interpolate(guess, size=known.shape[2:], mode="nearest")
    return torch.where(weight > 0, known / weight.clamp_min(1e-12), guess)
