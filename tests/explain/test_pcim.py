import copy
from dataclasses import replace

import pytest
import torch
from networks import random_network, spots, trained

from plateglass.explain import RECIPES, gradcam, pcim, rivals
from plateglass.explain.fidelity import average_precision, cell_share, rank_correlation, road_gap
from plateglass.explain.pcim import Recipe, recipe_of

QUICK = {"keep": 6, "keep_and_lose": 6, "black_box": 2}


def quick(name):
    return replace(RECIPES[name], steps=QUICK.get(name, RECIPES[name].steps))


@pytest.mark.parametrize("name", RECIPES)
def test_batched_is_one_by_one(name):
    network = random_network(1)
    torch.manual_seed(0)
    x = torch.randn(5, 2, 16, 16)
    together = pcim(network, x, recipe=quick(name))
    alone = torch.cat([pcim(network, x[i : i + 1], recipe=quick(name)) for i in range(5)])
    assert together.shape == ((5, 2, 16, 16) if name == "per_channel" else (5, 16, 16))
    assert together.abs().amax() > 0
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    turned = pcim(network, x.flip(0), recipe=quick(name)).flip(0)
    torch.testing.assert_close(together, turned, atol=1e-5, rtol=1e-4)


def test_three_dimensions():
    network = random_network(2, dimensions=3)
    torch.manual_seed(0)
    x = torch.randn(2, 2, 6, 10, 10)
    maps = pcim(network, x)
    assert maps.shape == (2, 6, 10, 10)
    torch.testing.assert_close(maps[1:], pcim(network, x[1:]), atol=1e-5, rtol=1e-4)


def test_seed_decides_and_repeats():
    network = random_network(3)
    x = torch.randn(2, 2, 16, 16)
    first = pcim(network, x, recipe="flips", seed=1)
    assert torch.equal(first, pcim(network, x, recipe="flips", seed=1))
    assert not torch.allclose(first, pcim(network, x, recipe="flips", seed=2))
    assert torch.equal(pcim(network, x, seed=1), pcim(network, x, seed=2))  # nothing is drawn


def test_one_step_is_the_gradient_by_hand():
    """Without flips, blur or contrast, one keep step moves w along d margin / d a · (x − fill) / 4."""
    network = random_network(4, classes=2)
    torch.manual_seed(0)
    x = torch.randn(1, 2, 8, 8)
    plain = Recipe(steps=1, smooth=0.0, contrast=0.0, blurs=(), levels=(0.0,), objectives=("keep",))
    fill = x.flatten(2).quantile(0.1, dim=2)[..., None, None]
    half = (0.5 * (x + fill)).requires_grad_()
    logits = network(half)
    (slope,) = torch.autograd.grad(logits[0, 1] - logits[0, 0], half)
    step = (slope * (x - fill)).sum(1)
    expected = plain.lr * step / step.square().mean().sqrt()
    torch.testing.assert_close(
        pcim(network, x, target=1, recipe=plain), expected.detach(), atol=1e-5, rtol=1e-4
    )


def test_the_model_is_left_as_it_was():
    network = random_network(5, inplace=True).train()
    network.head.weight.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    x = torch.randn(2, 2, 16, 16)
    kept = x.clone()
    assert not pcim(network, x).requires_grad and torch.equal(x, kept)
    assert all(module.training for module in network.modules())
    assert not network.head.weight.requires_grad and network.body[0].weight.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_forward_passes_are_what_the_recipe_says():
    network = random_network(6)
    seen = []
    network.head.register_forward_hook(lambda *_: seen.append(1))
    for name in RECIPES:
        seen.clear()
        pcim(network, torch.randn(2, 2, 8, 8), recipe=quick(name))
        assert len(seen) == 1 + quick(name).passes  # one to find the class


def test_black_box_needs_no_gradient_and_points_the_same_way(taught):
    network, x, planted, _, _ = taught
    x, planted = x[:8], planted[:8]

    def function(crops):
        with torch.no_grad():
            return network(crops)

    maps = pcim(function, x, recipe="black_box")
    assert torch.equal(maps, pcim(network, x, recipe="black_box"))
    assert average_precision(maps, planted).mean() >= 3 * planted.float().mean()


def test_unknown_recipe_lists_the_known():
    with pytest.raises(ValueError, match=r"default.*untrained"):
        recipe_of("best")


def test_maps_lie_on_the_deciding_pixels(taught):
    network, x, planted, _, cell = taught
    maps = pcim(network, x)
    found = average_precision(maps, planted).mean()
    assert found >= 0.9
    assert found >= average_precision(rivals.intensity(x), planted).mean() + 0.4
    assert found >= average_precision(gradcam(network, x), planted).mean()
    assert cell_share(maps, cell)[1].mean() >= 3.0


def test_removing_what_the_map_names_costs_the_class(taught):
    network, x, _, _, _ = taught
    x = x[:24]
    gap = road_gap(network, x, pcim(network, x)).mean()
    assert gap >= 0.5
    assert gap >= road_gap(network, x, rivals.random(x)).mean() + 0.4
    assert gap >= road_gap(network, x, gradcam(network, x)).mean()


def test_sign_turns_with_the_class(taught):
    network, x, planted, labels, _ = taught
    for_it, against = (pcim(network, x[:16], target=k) for k in (labels[:16], 1 - labels[:16]))
    assert rank_correlation(for_it, against).mean() <= -0.5
    assert (for_it[planted[:16]] > 0).float().mean() >= 0.9


def test_map_of_a_randomised_network_is_another_map(taught):
    """Sanity (Adebayo 2018): weights drawn anew from the top down leave little of the map."""
    network, x, _, labels, _ = taught
    x, labels = x[:24], labels[:24]
    maps = pcim(network, x, target=labels)
    torch.manual_seed(0)
    shaken = copy.deepcopy(network)
    correlations = []
    for layer in reversed(list(shaken)):
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
            other = pcim(shaken, x, target=labels)
            correlations.append(float(rank_correlation(maps, other).mean()))
    assert abs(correlations[-1]) <= 0.2, correlations


def test_flips_mislead_where_orientation_tells_the_class(taught):
    """Why they are no default: stripes turned by a transposition speak for the other class."""
    network, x, planted, _, _ = taught
    assert average_precision(pcim(network, x, recipe="flips"), planted).mean() <= 0.2


def test_learning_adds_to_the_untrained_blend(taught):
    network, x, _, _, _ = taught
    gaps = [road_gap(network, x, pcim(network, x, recipe=r)) for r in ("default", "untrained")]
    assert (gaps[0] - gaps[1]).mean() >= 0.01


def test_map_of_a_network_taught_permuted_labels_is_another_map(taught):
    network, x, _, labels, _ = taught
    crops, _, classes, _ = spots(300, seed=0)
    shuffled = classes[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    other = pcim(trained(crops, shuffled, steps=60), x, target=labels)
    assert abs(rank_correlation(pcim(network, x, target=labels), other).mean()) <= 0.2
