import pytest
import torch

from plateglass.config import TrainSettings
from plateglass.errors import UserError
from plateglass.models.backbone import Network, distance

SMALL = "test_resnet"


def crops(count=4, channels=2, size=64):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_parts_are_linear_from_map_to_logit():
    network = Network(2, 3, SMALL).eval()
    maps, embedding, logits = network.parts(crops())
    assert maps.shape == (4, 48, 8, 8)
    torch.testing.assert_close(embedding, maps.mean((2, 3)))
    torch.testing.assert_close(logits, embedding @ network.head.weight.T)
    assert torch.equal(network(crops()), logits)


@pytest.mark.parametrize(("size", "cut", "edge"), [(64, 8, 8), (48, 8, 6), (96, 16, 6), (32, 4, 8)])
def test_deepest_cut_whose_map_is_fine_enough(size, cut, edge):
    network = Network(2, 2, SMALL, crop=size).eval()
    assert network.cut == cut
    assert network.parts(crops(size=size))[0].shape[2:] == (edge, edge)


def test_the_smallest_crop_that_may_be_set_fits_the_default_backbone():
    """So that a plan need not look."""
    with pytest.raises(ValueError, match="greater than or equal to 16"):
        TrainSettings(crop=15)
    assert TrainSettings().backbone == SMALL
    assert Network(2, 2, TrainSettings().backbone, crop=16).cut == 2


def test_a_coarse_cut_is_refused():
    with pytest.raises(
        UserError, match=r"train\.cut is 16: .* crop of 64 px needs one of \[2, 4, 8\]"
    ):
        Network(2, 2, SMALL, cut=16)


def test_an_unknown_backbone_names_near_ones():
    with pytest.raises(UserError, match=r"'resnet18x', which timm does not have; near: .*resnet18"):
        Network(2, 2, "resnet18x")


def test_a_backbone_without_maps_is_refused():
    with pytest.raises(UserError, match=r"gives no feature maps|needs one of"):
        Network(2, 2, "test_vit")


def test_no_cell_is_without_a_map():
    """Head rows sum to zero over classes and there is no bias: the called class has evidence."""
    torch.manual_seed(5)
    network = Network(2, 3, SMALL).train()
    network(crops(64))  # norms see data
    network.eval()
    network.settle()
    torch.testing.assert_close(network.head.weight.sum(0), torch.zeros(48), atol=1e-6, rtol=0)
    maps, _, logits = network.parts(crops(64))
    called = logits.argmax(1)
    seen = torch.einsum("nk,nkhw->nhw", network.head.weight[called], maps).relu()
    assert (seen.sum((1, 2)) > 0).all()
    assert (logits.amax(1) > 0).all()


def test_distance_is_zero_in_the_middle_and_one_at_the_nearest_border():
    far = distance(torch.zeros(2, 1, 5, 5))
    assert far.shape == (2, 1, 5, 5)
    assert far[0, 0, 2, 2] == 0
    assert far[0, 0, 0, 2] == far[1, 0, 2, 4] == 1


def test_three_dimensions():
    network = Network(2, 2, SMALL, dimensions=3).eval()
    maps, embedding, logits = network.parts(torch.randn(2, 2, 16, 64, 64))
    assert maps.shape == (2, 48, 2, 8, 8)
    torch.testing.assert_close(embedding, maps.mean((2, 3, 4)))
    assert logits.shape == (2, 2)
    with pytest.raises(UserError, match="no 3D form"):
        Network(2, 2, "lcnet_050", dimensions=3)


def test_weights_are_never_fetched_unasked(monkeypatch):
    import timm

    asked = []
    create = timm.create_model

    def watched(*args, **kwargs):
        asked.append(kwargs["pretrained"])
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", watched)
    Network(2, 2, SMALL)
    assert asked == [False, False]
