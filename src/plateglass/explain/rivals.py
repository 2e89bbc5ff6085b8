"""What PCIM is measured beside: other attribution maps, and controls that know no network.

All give maps ``(N, *spatial)`` of crops ``x (N, C, *spatial)``; channels are summed.
"""

import torch
from torch import Tensor, nn

from plateglass.explain.classifier import as_target, blur, frozen, margin


def integrated_gradients(
    model: nn.Module,
    x: Tensor,
    target: int | Tensor | None = None,
    blurs: tuple[float, ...] = (2.0, 4.0, 8.0),
    steps: int = 6,
    signed: bool = True,
    smooth: float = 1.0,
) -> Tensor:
    """Integrated gradients of the logit margin (Sundararajan 2017), from each blur of the crop to it.

    ``blurs=()`` starts from zero. The signed form with several blurs is the strongest rival known.
    """
    starts = [blur(x, sigma, x.ndim - 2) for sigma in blurs] or [torch.zeros_like(x)]
    total = torch.zeros_like(x)
    for start in starts:
        away = x - start
        for step in range(steps):
            between = start + (step + 0.5) / steps * away
            target, slope = _slope(model, between, target, x)
            total += away * slope
    maps = total.sum(1) / (steps * len(starts))
    return blur(maps if signed else maps.abs(), smooth, maps.ndim - 1)


def gradient_input(
    model: nn.Module,
    x: Tensor,
    target: int | Tensor | None = None,
    signed: bool = False,
    smooth: float = 1.0,
) -> Tensor:
    """Gradient of the margin times the input; absolute unless ``signed``."""
    maps = (x * _slope(model, x, target, x)[1]).sum(1)
    return blur(maps if signed else maps.abs(), smooth, maps.ndim - 1)


def smoothgrad(
    model: nn.Module,
    x: Tensor,
    target: int | Tensor | None = None,
    draws: int = 16,
    noise: float = 0.1,
    smooth: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Mean absolute gradient under noise of ``noise`` times each crop's range (Smilkov 2017)."""
    generator = torch.Generator().manual_seed(seed)
    spread = noise * (x.flatten(1).amax(1) - x.flatten(1).amin(1))
    total = torch.zeros_like(x)
    for _ in range(draws):
        grain = torch.randn((1, *x.shape[1:]), generator=generator).to(x)
        noisy = x + spread.view(-1, *[1] * (x.ndim - 1)) * grain
        target, slope = _slope(model, noisy, target, x)
        total += slope
    return blur(total.sum(1).abs() / draws, smooth, x.ndim - 2)


def intensity(x: Tensor) -> Tensor:
    """Mean of the channels: bright pixels first. Knows no network."""
    return x.mean(1)


def edges(x: Tensor, sigma: float = 4.0) -> Tensor:
    """``|x − blur|``: what stands out first. Knows no network."""
    return (x - blur(x, sigma, x.ndim - 2)).abs().mean(1)


def centre(x: Tensor, sigma: float = 0.2) -> Tensor:
    """A Gaussian on the crop's centre, ``sigma`` in shares of the crop's side. Knows no network."""
    axes = [torch.linspace(-0.5, 0.5, size, device=x.device, dtype=x.dtype) for size in x.shape[2:]]
    far = sum(axis.square() for axis in torch.meshgrid(*axes, indexing="ij"))
    return torch.exp(-far / (2 * sigma**2)).expand(len(x), *x.shape[2:])


def random(x: Tensor, seed: int = 0) -> Tensor:
    """White noise, a map of its own for each crop."""
    shape = (len(x), *x.shape[2:])
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(x)


def _slope(model, x: Tensor, target, original: Tensor) -> tuple[Tensor, Tensor]:
    """The class explained (the one predicted of the original) and its margin's gradient at ``x``."""
    with frozen(model), torch.enable_grad():
        if not isinstance(target, Tensor):
            with torch.no_grad():
                target = as_target(target, model(original))
        variable = x.detach().requires_grad_()
        score = margin(model(variable), target)
        return target, torch.autograd.grad(score.sum(), variable)[0]
