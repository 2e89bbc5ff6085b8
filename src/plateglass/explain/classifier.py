"""What every method asks of a classifier: hold still, and say how sure it is of a class."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode and no parameter gradients inside; every module's own state again after."""
    training = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    for parameter, _ in wanted:
        parameter.requires_grad_(False)
    try:
        yield model
    finally:
        for module, mode in training:
            module.training = mode
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


def check_batch(x: Tensor) -> None:
    """Refuse what is not a batch ``(N, C, *spatial)`` of floating point crops."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"expected a torch tensor, got {type(x).__name__}; torch.as_tensor(x) is one"
        )
    if x.ndim not in (4, 5) or not x.is_floating_point():
        raise ValueError(
            f"expected float crops of shape (N, C, H, W) or (N, C, D, H, W), got {tuple(x.shape)} "
            f"{x.dtype}; add a batch axis with x[None] or convert with x.float()"
        )


def as_target(target: int | Tensor | None, logits: Tensor) -> Tensor:
    """Class to explain, ``(N,)`` int64: as given, or the predicted one of ``logits`` ``(N, K)``."""
    if logits.ndim != 2:
        raise ValueError(
            f"the classifier must return logits of shape (N, classes), got {tuple(logits.shape)}"
        )
    if target is None:
        return logits.argmax(1)
    target = torch.as_tensor(target, device=logits.device, dtype=torch.int64)
    target = target.expand(len(logits)) if target.ndim == 0 else target
    if target.shape != logits.shape[:1]:
        raise ValueError(f"{len(target)} targets for {len(logits)} crops")
    if len(target) and (int(target.min()) < 0 or int(target.max()) >= logits.shape[1]):
        raise ValueError(f"target classes must lie in 0..{logits.shape[1] - 1}")
    return target


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """Logit of the target less logsumexp of the others ``(N,)``; a single logit is its own margin.

    Unlike the cross-entropy it does not saturate on cells the network is sure of.
    """
    chosen = logits.gather(1, target[:, None])[:, 0]
    if logits.shape[1] == 1:
        return chosen
    return chosen - logits.scatter(1, target[:, None], float("-inf")).logsumexp(1)


def probability(logits: Tensor, target: Tensor) -> Tensor:
    """Softmax probability of the target ``(N,)``: the logistic function of the margin."""
    return margin(logits, target).sigmoid()


def blur(x: Tensor, sigma: float, spatial: int) -> Tensor:
    """Gaussian blur, ``sigma`` in px, over the last ``spatial`` axes; renormalised at borders.

    One small matrix product an axis: exact, and as fast for wide blurs as for narrow ones.
    """
    if sigma <= 0:
        return x
    for axis in range(x.ndim - spatial, x.ndim):
        place = torch.arange(x.shape[axis], device=x.device, dtype=x.dtype)
        kernel = torch.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
        kernel = kernel / kernel.sum(1, keepdim=True)
        x = torch.movedim(torch.movedim(x, axis, -1) @ kernel.T, -1, axis)
    return x
