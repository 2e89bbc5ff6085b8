"""PCIM: which pixels decide. A blending layer is trained per image, the classifier held still.

Every pixel is a channel of its own: ``x' = a ⊙ x + (1 − a) ⊙ fill``, ``a = sigmoid(g ∗ w)``, ``g``
a Gaussian, some optimiser steps on ``w`` (the idea is PCIM's, arXiv 2412.02275; of the paper only
the abstract could be read). Ours: the objectives on the logit margin, fills and levels that take
turns, momentum over one RMS per image, and the readout ``(g ∗ w) · √|x − blur|``, signed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plateglass.explain.classifier import as_target, blur, check_batch, frozen, margin

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Recipe:
    """How the blend is trained and read.

    Parameters
    ----------
    steps, lr, momentum : optimiser; each image's gradient is divided by its own RMS.
    smooth : sigma of ``g``, px.
    blurs : fills by blurred copies of the crop, sigmas in px; they take turns with the others.
    percentile : also fill with each channel's quantile of the crop (its background).
    levels : added to ``g ∗ w`` before the sigmoid, in turn: where ``w`` says nothing, ``a`` is 18, 50
        and 82 %, so that the blend is trained with little, some and most of the crop taken away.
    objectives : in turn, ``keep`` (x' keeps the class) and ``lose`` (the complement loses it).
    area : weight of mean(a) in the steps that keep; the paper's reading needs it, ours does not.
    per_channel : a weight per channel and pixel.
    contrast : sigma of the readout's blur, px; 0 reads the weights as they are.
    coarse : px of the crop per pixel of ``w``.
    flips : each step shows the crops flipped or transposed, by one sequence for all cells. Better on
        other networks, worse on the one explained, and wrong where orientation tells the class.
    directions : pairs of random directions of an evolution strategy (Salimans 2017) in place of the
        gradient, for classifiers that have none; 0 takes the gradient.
    """

    steps: int = 12
    lr: float = 0.1
    momentum: float = 0.9
    smooth: float = 1.0
    blurs: tuple[float, ...] = (2.0, 4.0, 8.0)
    percentile: float | None = 0.1
    levels: tuple[float, ...] = (-1.5, 0.0, 1.5)
    objectives: tuple[str, ...] = ("lose",)
    area: float = 0.0
    per_channel: bool = False
    contrast: float = 4.0
    coarse: int = 1
    flips: bool = False
    directions: int = 0

    @property
    def passes(self) -> int:
        """Forward passes a cell; as many backward passes where the gradient is taken."""
        return self.steps * max(1, 2 * self.directions)


DEFAULT = Recipe()
A = Recipe(steps=10, levels=(0.0,), objectives=("keep", "lose"), flips=True)
PAPER = Recipe(
    steps=60, blurs=(4.0,), percentile=None, levels=(0.0,), objectives=("keep",), area=5.0,
    contrast=0.0, coarse=2,
)  # fmt: skip
RECIPES: dict[str, Recipe] = {
    "default": DEFAULT,
    "untrained": replace(DEFAULT, lr=1e-4),
    "flips": replace(DEFAULT, flips=True),
    "A": A,
    "C": replace(A, lr=0.3, smooth=0.7, percentile=None),
    "keep": PAPER,
    "keep_and_lose": replace(PAPER, steps=120, objectives=("keep", "lose")),
    "per_channel": replace(DEFAULT, per_channel=True),
    "black_box": replace(DEFAULT, directions=16, coarse=8),
}


def recipe_of(name: str | Recipe) -> Recipe:
    """A recipe by name; ValueError that lists the names for one that is not known."""
    if isinstance(name, Recipe):
        return name
    if name not in RECIPES:
        raise ValueError(f"no PCIM recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]


def pcim(
    model: nn.Module | Callable[[Tensor], Tensor],
    x: Tensor,
    target: int | Tensor | None = None,
    recipe: str | Recipe = "default",
    seed: int = 0,
) -> Tensor:
    """Signed PCIM maps ``(N, *spatial)`` of crops ``x (N, C, *spatial)``: > 0 speaks for the class.

    ``target`` is the class explained (default: the predicted one). ``per_channel`` recipes give
    ``(N, C, *spatial)``. The random choices depend on ``seed`` alone, so a cell's map does not
    depend on the batch it came in. A model that is no Module is taken as it is; it must be in
    evaluation mode.
    """
    check_batch(x)
    chosen = recipe_of(recipe)
    if not isinstance(model, nn.Module):
        return _train(model, x, target, chosen, seed)
    with frozen(model):
        return _train(model, x, target, chosen, seed)


def contrast(x: Tensor, sigma: float, per_channel: bool = False) -> Tensor:
    """``√|x − blur|``: what a pixel would change at most if its surroundings took its place."""
    distance = (x - blur(x, sigma, x.ndim - 2)).abs()
    return (distance if per_channel else distance.mean(1, keepdim=True)).sqrt()


def fills(x: Tensor, recipe: Recipe) -> list[Tensor]:
    """What takes the place of removed pixels, each shaped as ``x``."""
    blurred = [blur(x, sigma, x.ndim - 2) for sigma in recipe.blurs]
    if recipe.percentile is None:
        return blurred
    level = x.flatten(2).quantile(recipe.percentile, dim=2)
    return [*blurred, level.view(*x.shape[:2], *[1] * (x.ndim - 2)).expand_as(x)]


def _train(model, x: Tensor, target, recipe: Recipe, seed: int) -> Tensor:
    spatial = x.shape[2:]
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same on every device
    with torch.no_grad():
        target = as_target(target, model(x))
        filling = fills(x, recipe)
    grid = [-(-size // recipe.coarse) for size in spatial]
    weight = x.new_zeros(len(x), x.shape[1] if recipe.per_channel else 1, *grid)
    velocity = torch.zeros_like(weight)
    for step in range(recipe.steps):
        turn, kind = divmod(step, len(recipe.objectives))
        objective, fill = recipe.objectives[kind], filling[turn % len(filling)]
        # one level further with each round of fills, so that every pair comes up
        level = recipe.levels[sum(divmod(turn, len(filling))) % len(recipe.levels)]
        move = _flip(spatial, generator) if recipe.flips else _same

        def gain(w: Tensor, fill=fill, objective=objective, level=level, move=move) -> Tensor:
            share = torch.sigmoid(_smoothed(w, recipe, spatial) + level)
            keeps = objective == "keep"
            kept = share if keeps else 1 - share
            score = margin(model(move(kept * x + (1 - kept) * fill)), target)
            return score - recipe.area * share.flatten(1).mean(1) if keeps else -score

        if recipe.directions:
            slope = _estimated(gain, weight, recipe.directions, generator)
        else:
            slope = _exact(gain, weight)
        rms = slope.flatten(1).square().mean(1).sqrt().clamp_min(1e-20)
        velocity = recipe.momentum * velocity + slope / rms.view(-1, *[1] * (x.ndim - 1))
        weight = weight + recipe.lr * velocity
    maps = _smoothed(weight, recipe, spatial)
    if recipe.contrast:
        maps = maps * contrast(x, recipe.contrast, recipe.per_channel)
    return maps if recipe.per_channel else maps[:, 0]


def _smoothed(weight: Tensor, recipe: Recipe, spatial: torch.Size) -> Tensor:
    if recipe.coarse > 1:
        mode = LINEAR[len(spatial)]
        weight = F.interpolate(weight, size=tuple(spatial), mode=mode, align_corners=False)
    return blur(weight, recipe.smooth, len(spatial))


def _exact(gain: Callable[[Tensor], Tensor], weight: Tensor) -> Tensor:
    with torch.enable_grad():
        variable = weight.detach().requires_grad_()
        return torch.autograd.grad(gain(variable).sum(), variable)[0]


def _estimated(gain, weight: Tensor, directions: int, generator: torch.Generator) -> Tensor:
    """Evolution strategy: mirrored random directions, the same for all cells."""
    slope = torch.zeros_like(weight)
    with torch.no_grad():
        for _ in range(directions):
            away = torch.randn((1, *weight.shape[1:]), generator=generator).to(weight)
            gained = gain(weight + away) - gain(weight - away)
            slope += gained.view(-1, *[1] * (weight.ndim - 1)) * away
    return slope


def _same(image: Tensor) -> Tensor:
    return image


def _flip(spatial: torch.Size, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """A random flip of each spatial axis; a transposition of the last two where they are equal."""
    draws = torch.randint(2, (len(spatial) + 1,), generator=generator).tolist()
    axes = [axis - len(spatial) for axis, drawn in enumerate(draws[:-1]) if drawn]
    swap = bool(draws[-1]) and len(spatial) > 1 and spatial[-1] == spatial[-2]

    def move(image: Tensor) -> Tensor:
        image = image.flip(axes) if axes else image
        return image.transpose(-1, -2) if swap else image

    return move
