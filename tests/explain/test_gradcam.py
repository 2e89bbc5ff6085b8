import copy

import numpy as np
import pytest
import torch
from networks import random_network
from torch import nn

from plateglass.explain import gradcam, gradcam_from_parts, gradcamo, gradcamo_score
from plateglass.models import third_party


def stretched(maps):
    """Each map to [0, 1], as the grad-cam package returns them."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


@pytest.mark.parametrize("inplace", [False, True])
def test_equals_the_gradcam_package_on_random_networks(inplace):
    third_party.load("torchvision")  # which it imports
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    compared = 0
    for seed in range(6):
        network = random_network(seed, inplace=inplace)
        torch.manual_seed(100 + seed)
        x, mask = torch.randn(5, 2, 22, 30), torch.rand(5, 22, 30) < 0.3
        target = torch.randint(3, (5,))
        ours = gradcamo(network, x, mask, target)
        with GradCAM(network, [network.body[3]]) as package:
            theirs = package(x, [ClassifierOutputTarget(int(k)) for k in target])
        theirs = torch.from_numpy(np.asarray(theirs))
        full = ours.map.flatten(1).amax(1) > 0
        torch.testing.assert_close(stretched(ours.map)[full], theirs[full], atol=1e-4, rtol=0)
        # the package subtracts the map's minimum; the ratios are one where that is zero
        plain = full & (ours.map.flatten(1).amin(1) == 0)
        ratio = (theirs * mask).sum((1, 2)) / theirs.sum((1, 2))
        torch.testing.assert_close(ours.score[plain], ratio[plain], atol=1e-4, rtol=0)
        compared += int(plain.sum())
    assert compared >= 12


def test_three_dimensions_by_hand():
    """One 1 × 1 × 1 convolution of two maps: the map is ReLU(Σ w_k a_k) of the input itself."""
    network = nn.Sequential(nn.Conv3d(1, 2, 1, bias=False), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    head = nn.Linear(2, 2, bias=False)
    network.append(head)
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1, 1))
        head.weight.copy_(torch.tensor([[3.0, 1.0], [1.0, 2.0]]))
    x = torch.tensor([4.0, -1.0, 2.0, 0.0, 1.0, 1.0, -3.0, 8.0]).view(1, 1, 2, 2, 2)
    mask = torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    mask[0, 0] = True  # the first plane: 4, -1, 2, 0
    found = gradcamo(network, x, mask, target=0)
    # w = (3, 1) / 8 and the maps are (x, -x), so L = ReLU(x (3 - 1) / 8) = ReLU(x) / 4
    torch.testing.assert_close(found.map, x[:, 0].clamp_min(0) / 4)
    torch.testing.assert_close(found.score, torch.tensor([6.0 / 16.0]))
    torch.testing.assert_close(found.enrichment, torch.tensor([0.75]))
    # class 1: w = (1, 2) / 8, so L = ReLU(-x) / 8: 1 in the first plane, 3 in the second
    torch.testing.assert_close(gradcamo(network, x, mask, target=1).score, torch.tensor([0.25]))


def test_trilinear_upsampling_in_three_dimensions():
    network = random_network(3, dimensions=3)
    x = torch.randn(2, 2, 6, 9, 10)
    coarse = gradcam(network, x, 1)
    with torch.no_grad():
        maps = network.body(x)
    expected = gradcam_from_parts(maps, network.head.weight, torch.tensor([1, 1]), (6, 9, 10))
    assert coarse.shape == (2, 6, 9, 10)
    torch.testing.assert_close(coarse, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_closed_form_is_the_backward_pass(dimensions):
    network = random_network(5, dimensions=dimensions)
    x = torch.randn(4, 2, *[12] * dimensions)
    target = torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        maps = network.body(x)
    closed = gradcam_from_parts(maps, network.head.weight, target, x.shape[2:])
    torch.testing.assert_close(closed, gradcam(network, x, target), atol=1e-6, rtol=1e-5)


def test_null_where_the_map_is_empty():
    network = random_network(0, classes=2)
    with torch.no_grad():
        network.body[3].weight.zero_()
        network.body[3].bias.fill_(1.0)
        network.head.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 8))
    x, mask = torch.randn(2, 2, 16, 16), torch.ones(2, 16, 16)
    found = gradcamo(network, x, mask, target=torch.tensor([0, 1]))
    assert found.map[0].eq(0).all() and torch.isnan(found.score[0])
    assert torch.isnan(found.enrichment[0])
    assert found.score[1] == 1.0


def test_scores_by_hand():
    maps = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0], [0, 0]]])
    mask = torch.tensor([[[0, 1], [0, 0]], [[1, 1], [0, 0]], [[1, 1], [0, 0]]]).bool()
    score, enrichment = gradcamo_score(maps, mask)
    torch.testing.assert_close(score, torch.tensor([0.75, 0.5, torch.nan]), equal_nan=True)
    torch.testing.assert_close(enrichment, torch.tensor([3.0, 1.0, torch.nan]), equal_nan=True)
    score, enrichment = gradcamo_score(maps[:1], torch.zeros(1, 2, 2))
    assert score[0] == 0 and torch.isnan(enrichment[0])
    with pytest.raises(ValueError, match="differ in shape"):
        gradcamo_score(maps, mask[:1])


def test_batched_is_one_by_one():
    network = random_network(2)
    x = torch.randn(7, 2, 20, 20)
    mask = torch.rand(7, 20, 20) < 0.4
    together = gradcamo(network, x, mask)
    alone = [gradcamo(network, x[i : i + 1], mask[i : i + 1]) for i in range(7)]
    for name in ("score", "enrichment", "map", "target"):
        one_by_one = torch.cat([getattr(found, name) for found in alone])
        torch.testing.assert_close(
            getattr(together, name), one_by_one, atol=1e-6, rtol=1e-5, equal_nan=True
        )


def test_the_model_is_left_as_it_was():
    network = random_network(4, inplace=True)
    network.train()
    network.body[1].eval()
    network.head.weight.requires_grad_(False)
    network.body[0].weight.grad = torch.ones_like(network.body[0].weight)
    before = copy.deepcopy(network.state_dict())
    x = torch.randn(3, 2, 16, 16)
    kept = x.clone()
    maps = gradcam(network, x)
    assert not maps.requires_grad and torch.equal(x, kept)
    assert [m.training for m in network.modules()] == [True, True, True, False, True, True, True]
    assert not network.head.weight.requires_grad and network.head.bias.requires_grad
    assert network.body[0].weight.grad.eq(1).all() and network.body[3].weight.grad is None
    assert all(not module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with pytest.raises(ValueError, match=r"0\.\.2"):
        gradcam(network, x, target=9)
    assert all(not module._forward_hooks for module in network.modules())


def test_layer_by_module_or_name_and_a_convolution_after_pooling_is_passed_over():
    network = random_network(6)
    x = torch.randn(2, 2, 16, 16)
    by_name = gradcam(network, x, 0, layer="body.3")
    torch.testing.assert_close(by_name, gradcam(network, x, 0))
    torch.testing.assert_close(by_name, gradcam(network, x, 0, layer=network.body[3]))
    assert not torch.allclose(by_name, gradcam(network, x, 0, layer="body.2"))

    torch.manual_seed(0)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 3, 1), nn.Flatten())
    convolutional = nn.Sequential(network.body, head)
    expected = gradcam_from_parts(
        network.body(x).detach(), head[1].weight[:, :, 0, 0], torch.tensor([2, 2]), (16, 16)
    )
    torch.testing.assert_close(gradcam(convolutional, x, 2), expected.detach())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 2, 16, 16, dtype=torch.uint8), "x.float"),
        (torch.zeros(16, 16), "batch axis"),
        (torch.zeros(2, 16, 16), "batch axis"),
    ],
)
def test_wrong_input_says_what_to_write(x, message):
    with pytest.raises(ValueError, match=message):
        gradcam(random_network(0), x)


def test_no_convolution_names_the_way_out():
    with pytest.raises(ValueError, match="layer="):
        gradcam(nn.Sequential(nn.Flatten(), nn.Linear(8, 2)), torch.zeros(1, 2, 2, 2))


@pytest.mark.parametrize("kind", [bool, np.uint8, np.uint16, np.int64, np.float32])
def test_masks_of_numpy_are_taken(kind):
    network, x = random_network(2), torch.randn(3, 2, 20, 20)
    mask = np.random.default_rng(0).random((3, 20, 20)) < 0.4
    found = gradcamo(network, x, (mask * 7).astype(kind))
    expected = gradcamo(network, x, torch.from_numpy(mask))
    torch.testing.assert_close(found.score, expected.score, equal_nan=True)
    torch.testing.assert_close(found.enrichment, expected.enrichment, equal_nan=True)
    torch.testing.assert_close(gradcamo_score(found.map, mask)[0], expected.score, equal_nan=True)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ([np.ones((16, 16))], "torch tensor or a numpy array of numbers, got list; np.stack"),
        (None, "got NoneType"),
        (np.full((1, 16, 16), "cell"), "got an array of <U4"),
    ],
)
def test_masks_that_are_none_are_told(mask, words):
    with pytest.raises(TypeError, match=words):
        gradcamo(random_network(0), torch.zeros(1, 2, 16, 16), mask)


def test_a_layer_that_is_not_there_is_told_with_some_that_are():
    x = torch.zeros(1, 2, 16, 16)
    with pytest.raises(ValueError, match=r"no module 'nolayer'; .* for example body\.0, .*body\.3"):
        gradcam(random_network(0), x, layer="nolayer")
    twice = random_network(0)
    twice.again = twice.body
    torch.testing.assert_close(
        gradcam(twice, x, layer="again.3"), gradcam(twice, x, layer="body.3")
    )
    bare = nn.Sequential(nn.Flatten(), nn.Linear(512, 2))
    with pytest.raises(ValueError, match=r"no module 'nolayer'; .* for example 0, 1$"):
        gradcam(bare, x, layer="nolayer")


def test_attention_lies_on_the_cell(taught):
    network, x, planted, _, cell = taught
    found = gradcamo(network, x, cell)
    assert found.enrichment.nanmean() >= 2.0
    assert gradcamo(network, x, planted).enrichment.nanmean() >= 2.0
    assert torch.isnan(found.score).float().mean() <= 0.05
