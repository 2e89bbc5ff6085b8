"""The classifier: DCMIX blend → asinh → timm backbone, cut early → mean over the map → linear head."""

import difflib

import torch
from torch import nn

from plateglass.errors import SetupError, UserError
from plateglass.models import third_party
from plateglass.models.dcmix import DCMIX

SMALLEST_MAP = 6  # a coarser last map makes Grad-CAM a blur
DIM = (
    0.2  # plate units; the blend is linear below and logarithmic above, so that dim cells are seen
)


class Network(nn.Module):
    """Classify crops; every step between the last map and the logits is linear.

    The head has no bias and its rows sum to zero over the classes (softmax does not see the
    difference). So the predicted class's logit is the sum of its own unrectified Grad-CAM map,
    which can be empty only where all logits are equal: no cell is left without a map.

    Parameters
    ----------
    channels, classes : C and the number of classes.
    backbone : a timm model's name; ``cut`` its stage's stride, the deepest whose map of a crop of
        ``crop`` px is at least 6 × 6 where None.
    blends, alpha, drop : see DCMIX.
    centre : give the backbone each pixel's distance from the crop's centre as one more image
        (CoordConv, Liu 2018), so that it can tell the cell from its neighbours.
    dimensions : 3 inflates convolutions, norms and pools for crops (N, C, z, y, x).
    pretrained : fetch timm's weights; never unless asked.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        backbone: str,
        *,
        crop: int = 64,
        cut: int | None = None,
        blends: int = 1,
        alpha: str = "simplex",
        drop: float = 0.5,
        centre: bool = True,
        dimensions: int = 2,
        pretrained: bool = False,
    ):
        super().__init__()
        self.centre = centre
        self.blend = DCMIX(channels, blends, alpha, drop)
        self.backbone, self.cut, width = build(
            backbone, blends + centre, crop=crop, cut=cut, pretrained=pretrained
        )
        if dimensions == 3:
            inflate(self.backbone)
        self.head = nn.Linear(width, classes, bias=False)
        self.settle()

    def parts(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """From crops (N, C, *spatial): last maps (N, k, *map), embedding (N, k), logits (N, classes).

        ``logits = head.weight @ embedding`` and ``embedding`` is the maps' mean, so Grad-CAM is
        ``ReLU(Σ_k W_ck A_k)`` up to a constant, without a backward pass.
        """
        image = torch.asinh(self.blend(x) / DIM)
        if self.centre:
            image = torch.cat([image, distance(image)], 1)
        maps = self.backbone(image)[-1]
        embedding = maps.flatten(2).mean(2)
        return maps, embedding, self.head(embedding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, classes) of crops (N, C, *spatial) in plate units."""
        return self.parts(x)[2]

    @torch.no_grad()
    def settle(self) -> None:
        """Take the mean over classes out of the head; training calls it after each step."""
        self.head.weight -= self.head.weight.mean(0, keepdim=True)


def distance(image: torch.Tensor) -> torch.Tensor:
    """Distance of each pixel from the centre, 1 at the nearest border: (N, 1, *spatial)."""
    axes = [
        torch.linspace(-1, 1, n, device=image.device, dtype=image.dtype) for n in image.shape[2:]
    ]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return grid.square().sum(0).sqrt().expand(len(image), 1, *image.shape[2:])


def build(name: str, images: int, *, crop: int, cut: int | None = None, pretrained: bool = False):
    """Make the timm backbone `name` for `images` input images: (module, its stride, its width).

    Raises UserError for a name timm does not know, one that gives no maps, or a cut it lacks;
    SetupError where the pretrained weights asked for cannot be had.
    """
    timm = third_party.load("timm")

    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), 3)) or "resnet18"
        raise UserError(f"train.backbone is {name!r}, which timm does not have; near: {near}")
    try:
        plan = timm.create_model(name, features_only=True, in_chans=images, pretrained=False)
    except (RuntimeError, AttributeError, TypeError, AssertionError) as error:
        raise UserError(
            f"train.backbone {name!r} gives no feature maps: take a convolutional one"
        ) from error
    strides = plan.feature_info.reduction()
    fine = [s for s in strides if crop // s >= SMALLEST_MAP]
    if cut is None and fine:
        cut = max(fine)
    if cut not in fine:
        raise UserError(
            f"train.cut is {cut}: {name} has maps at strides {strides}, and a crop of {crop} px needs "
            f"one of {fine} for a map of at least {SMALLEST_MAP} × {SMALLEST_MAP}"
        )
    stage = max(i for i, s in enumerate(strides) if s == cut)
    try:
        model = timm.create_model(
            name, features_only=True, out_indices=(stage,), in_chans=images, pretrained=pretrained
        )
    except (OSError, RuntimeError) as error:
        raise SetupError(
            f"pretrained weights of {name} cannot be had: set train.pretrained: false"
        ) from error
    return model, cut, model.feature_info.channels()[-1]


_IN_3D = {
    nn.Conv2d: nn.Conv3d,
    nn.BatchNorm2d: nn.BatchNorm3d,
    nn.MaxPool2d: nn.MaxPool3d,
    nn.AvgPool2d: nn.AvgPool3d,
}


def inflate(module: nn.Module) -> None:
    """Replace a 2D backbone's layers by their 3D kin, in place, for crops with a z axis.

    Raises UserError for layers without one (take a plain ResNet such as ``test_resnet``).
    """
    for name, layer in module.named_children():
        kin = _IN_3D.get(type(layer))
        if kin is nn.Conv3d:
            new = nn.Conv3d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size[0],
                layer.stride[0],
                layer.padding[0],
                layer.dilation[0],
                layer.groups,
                layer.bias is not None,
            )
        elif kin is nn.BatchNorm3d:
            new = nn.BatchNorm3d(layer.num_features, layer.eps, layer.momentum)
        elif kin is not None:
            new = kin(layer.kernel_size, layer.stride, layer.padding, ceil_mode=layer.ceil_mode)
        elif type(layer).__name__.endswith(("2d", "2D")) or "BatchNormAct" in type(layer).__name__:
            raise UserError(
                f"this backbone has no 3D form ({type(layer).__name__}): take test_resnet"
            )
        else:
            inflate(layer)
            continue
        setattr(module, name, new)
