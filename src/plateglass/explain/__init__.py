"""Which pixels decide, and does the network look at the cell? Tensors in, tensors out.

    from plateglass.explain import gradcamo, pcim

explain any ``torch.nn.Module`` that returns logits, on crops ``(N, C, H, W)`` or ``(N, C, D, H,
W)``.
"""

from plateglass.explain.gradcam import (
    GradCAMO,
    gradcam,
    gradcam_from_parts,
    gradcamo,
    gradcamo_score,
)
from plateglass.explain.pcim import RECIPES, Recipe, pcim

__all__ = [
    "RECIPES",
    "GradCAMO",
    "Recipe",
    "gradcam",
    "gradcam_from_parts",
    "gradcamo",
    "gradcamo_score",
    "pcim",
]
