"""DCMIX: one blend of all channels in front of a network, whose weights say which channels decide.

Source: DCMIX (arXiv 2308.16637): alpha compositing of the channels, learnt with the network. The
weights on the simplex, several blends and channel dropping are ours.
"""

import torch
from torch import nn

from plateglass.errors import UserError


class DCMIX(nn.Module):
    """Blend C channels into K images: ``blend_k = C · Σ_c α_kc · x_c``.

    Parameters
    ----------
    channels : C, the channels of the input.
    blends : K, the images handed on (1 in the paper).
    alpha : ``simplex`` (softmax of w: Σ_c α = 1) or ``nonnegative`` (the paper's: softplus of w, free
        sum, starting at 1/C; a clamp at 0 would kill the gradient).
    drop : probability with which each crop loses each channel in training; at least one is kept and
        the survivors' α are rescaled to the same sum. Nothing is dropped when predicting.
    """

    def __init__(self, channels: int, blends: int = 1, alpha: str = "simplex", drop: float = 0.5):
        super().__init__()
        if alpha not in ("simplex", "nonnegative"):
            raise UserError(f"train.alpha is {alpha!r}: write simplex or nonnegative")
        self.channels, self.blends, self.kind, self.drop = channels, blends, alpha, drop
        start = 0.0 if alpha == "simplex" else float(torch.tensor(1 / channels).expm1().log())
        weight = torch.full((blends, channels), start)
        if blends > 1:  # equal blends would get equal gradients for ever
            weight += 0.1 * torch.randn(blends, channels)
        self.weight = nn.Parameter(weight)

    def alpha(self) -> torch.Tensor:
        """Return α as (K, C): what each channel weighs in each blend."""
        if self.kind == "simplex":
            return torch.softmax(self.weight, dim=1)
        return nn.functional.softplus(self.weight)

    @torch.no_grad()
    def importance(self) -> torch.Tensor:
        """Return (C,): α averaged over blends."""
        return self.alpha().mean(0)

    def kept(self, crops: int) -> torch.Tensor:
        """Draw which channels each crop keeps in training: (N, C) of 0 and 1, no row all 0."""
        device = self.weight.device
        keep = torch.rand(crops, self.channels, device=device) >= self.drop
        spared = torch.randint(self.channels, (crops, 1), device=device)
        empty = ~keep.any(1, keepdim=True)
        keep |= empty & torch.zeros_like(keep).scatter_(1, spared, True)
        return keep.to(self.weight.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Blend (N, C, *spatial), two or three spatial axes, into (N, K, *spatial)."""
        alpha = self.alpha().expand(len(x), -1, -1)
        if self.training and self.drop > 0 and self.channels > 1:
            left = alpha * self.kept(len(x))[:, None]
            total = alpha.sum(2, keepdim=True)
            alpha = left * total / left.sum(2, keepdim=True).clamp_min(1e-12)
        return self.channels * torch.einsum("nkc,nc...->nk...", alpha, x)


def parameter_groups(network: nn.Module, lr: float, decay: float) -> list[dict]:
    """Optimiser groups: w learns 12 times as fast and without weight decay, norms without decay."""
    blend = [w for m in network.modules() if isinstance(m, DCMIX) for w in m.parameters()]
    ids = {id(w) for w in blend}
    rest = [w for w in network.parameters() if id(w) not in ids and w.requires_grad]
    return [
        {"params": [w for w in rest if w.ndim > 1], "lr": lr, "weight_decay": decay},
        {"params": [w for w in rest if w.ndim <= 1], "lr": lr, "weight_decay": 0.0},
        {"params": blend, "lr": 12 * lr, "weight_decay": 0.0},
    ]
