"""Grad-CAM, and Grad-CAMO: the share of the attention that lies on the cell.

``L = ReLU(sum_k w_k A_k)`` of a convolution's maps ``A``, ``w_k`` the spatial mean of ``d logit_c /
d A_k`` (Selvaraju 2017); ``G = sum(L * mask) / sum(L)`` on the upsampled map (Grad-CAMO, arXiv
2403.17615). The enrichment ``G / (mask share)`` is ours: without it a large cell scores high for
nothing. A map that is zero everywhere has no score: NaN, never 0.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plateglass.explain.classifier import as_target, check_batch, frozen

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SHOWN = 6  # names of modules in a message
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class GradCAMO:
    """What the network looked at, per crop.

    ``score (N,)`` in [0, 1], NaN where the map is empty; ``enrichment (N,)``, 1 is attention spread
    evenly over the crop; ``map (N, *spatial)`` ≥ 0 at the crop's size; ``target (N,)`` the class
    explained.
    """

    score: Tensor
    enrichment: Tensor
    map: Tensor
    target: Tensor


def gradcamo(
    model: nn.Module,
    x: Tensor,
    mask: Tensor | np.ndarray,
    target: int | Tensor | None = None,
    layer: nn.Module | str | None = None,
) -> GradCAMO:
    """Grad-CAMO of crops ``x (N, C, *spatial)`` with their cells' masks ``(N, *spatial)``.

    ``target`` is the class explained (default: the predicted one), ``layer`` the module whose
    output is read (default: the last convolution that runs on more than one position).
    """
    mask = _as_mask(mask)
    maps, target = _explain(model, x, target, layer)
    score, enrichment = gradcamo_score(maps, mask)
    return GradCAMO(score, enrichment, maps, target)


def gradcam(
    model: nn.Module,
    x: Tensor,
    target: int | Tensor | None = None,
    layer: nn.Module | str | None = None,
) -> Tensor:
    """Grad-CAM maps ``(N, *spatial)`` of crops ``x (N, C, *spatial)``; not normalised.

    One forward pass, and one backward pass that ends at ``layer``. Parameters of any mode and any
    ``requires_grad`` do; the model is left as it was.
    """
    return _explain(model, x, target, layer)[0]


def gradcam_from_parts(
    maps: Tensor, head_weight: Tensor, target: Tensor, size: tuple[int, ...] | None = None
) -> Tensor:
    """Grad-CAM of a network that ends in average pooling and a linear head; no backward pass.

    There ``d f_c / d A_k = W_ck / (h·w)`` everywhere. ``maps (N, k, *coarse)``, ``head_weight (K,
    k)``, ``target (N,)``; returns ``(N, *size)``, or ``(N, *coarse)`` without ``size``.
    """
    weight = head_weight[target] / maps[0, 0].numel()
    coarse = F.relu(torch.einsum("nk,nk...->n...", weight, maps))
    return coarse if size is None else upsample(coarse, size)


def upsample(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps ``(N, *coarse)`` at ``size``: bi- or trilinear, ``align_corners=False``."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    mode = LINEAR[maps.ndim - 1]
    return F.interpolate(maps[:, None], size=tuple(size), mode=mode, align_corners=False)[:, 0]


def gradcamo_score(maps: Tensor, mask: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    """``(score, enrichment)``, each ``(N,)``, of non-negative maps and masks ``(N, *spatial)``.

    A pixel of the mask counts where it is not 0, so that a label image of one cell serves.
    Score NaN where the map is empty; enrichment NaN there and where the mask is.
    """
    mask = _as_mask(mask)
    if maps.shape != mask.shape:
        raise ValueError(f"maps {tuple(maps.shape)} and masks {tuple(mask.shape)} differ in shape")
    # doubles: the sum of 10^5 float32 pixels is only good to 1e-4
    mass = maps.double().flatten(1)
    inside = (mask != 0).to(mass).flatten(1)
    score = (mass * inside).sum(1) / mass.sum(1)  # 0 / 0 is NaN: no map, no score
    return score.to(maps.dtype), (score / inside.mean(1)).to(maps.dtype)


def _as_mask(mask: Tensor | np.ndarray) -> Tensor:
    """Masks as a tensor; numpy's are taken, of whatever kind of number a label image has."""
    if isinstance(mask, Tensor):
        return mask
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "biuf":
        kind = f"an array of {mask.dtype}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise TypeError(
            f"expected masks as a torch tensor or a numpy array of numbers, got {kind}; "
            "np.stack(masks) makes one array of a list of them"
        )
    return torch.from_numpy(mask != 0)


def _explain(model, x, target, layer) -> tuple[Tensor, Tensor]:
    check_batch(x)
    spatial = tuple(x.shape[2:])
    kept: list[Tensor] = []

    def keep(module, inputs, output):
        if not isinstance(output, Tensor) or output[0, 0].numel() <= 1:
            return None  # a convolution after pooling has no map
        # the graph starts here, and later in-place layers work on a copy, not on what we keep
        kept[:] = [output.detach().requires_grad_()]
        return kept[0].clone()

    hooks = [module.register_forward_hook(keep) for module in _layers(model, layer)]
    try:
        with frozen(model), torch.enable_grad():
            logits = model(x)
            if not kept:
                raise ValueError(
                    "no convolution ran on more than one position; name one with layer="
                )
            target = as_target(target, logits.detach())
            chosen = logits.gather(1, target[:, None]).sum()
            # a logit that does not depend on the maps has an empty map, not an error
            (slope,) = (
                torch.autograd.grad(chosen, kept, allow_unused=True)
                if chosen.requires_grad
                else (None,)
            )
    finally:
        for hook in hooks:
            hook.remove()
    maps = kept[0].detach()
    slope = torch.zeros_like(maps) if slope is None else slope
    weight = slope.flatten(2).mean(2)
    return upsample(F.relu(torch.einsum("nk,nk...->n...", weight, maps)), spatial), target


def _layers(model: nn.Module, layer: nn.Module | str | None) -> list[nn.Module]:
    if isinstance(layer, str):
        return [_named(model, layer)]
    if layer is not None:
        return [layer]
    found = [module for module in model.modules() if isinstance(module, CONVOLUTIONS)]
    if not found:
        raise ValueError("the classifier has no convolution; name the module to read with layer=")
    return found


def _named(model: nn.Module, layer: str) -> nn.Module:
    """The module of that name; ValueError that names the last convolutions, the usual choice."""
    modules = dict(model.named_modules(remove_duplicate=False))
    if layer not in modules:
        convolutions = [name for name, of in modules.items() if isinstance(of, CONVOLUTIONS)]
        known = (convolutions or [name for name in modules if name])[-SHOWN:]
        raise ValueError(
            f"the classifier has no module {layer!r}; give layer= one of its names, "
            f"for example {', '.join(known)}"
        )
    return modules[layer]
