import torch
from networks import random_network

from plateglass.explain import rivals
from plateglass.explain.classifier import as_target, blur, margin
from plateglass.explain.fidelity import average_precision


def test_integrated_gradients_are_complete():
    """Their sum is the margin of the crop less that of where the path starts."""
    network = random_network(0)
    torch.manual_seed(0)
    x = torch.randn(3, 2, 12, 12)
    maps = rivals.integrated_gradients(network, x, blurs=(2.0,), steps=200, smooth=0)
    with torch.no_grad():
        target = as_target(None, network(x))
        ends = [margin(network(z), target) for z in (x, blur(x, 2.0, 2))]
    torch.testing.assert_close(maps.sum((1, 2)), ends[0] - ends[1], atol=1e-2, rtol=0)


def test_integrated_gradients_equal_captum():
    from captum.attr import IntegratedGradients

    network = random_network(1)
    x = torch.randn(2, 2, 12, 12)
    ours = rivals.integrated_gradients(network, x, target=1, blurs=(), steps=50, smooth=0)

    def score(z):
        logits = network(z)
        return margin(logits, torch.ones(len(z), dtype=torch.long))

    theirs = IntegratedGradients(score).attribute(x, n_steps=50, method="riemann_middle")
    torch.testing.assert_close(ours, theirs.sum(1).float(), atol=1e-4, rtol=1e-3)


def test_rivals_find_what_decides_and_controls_do_not(taught):
    network, x, planted, _, _ = taught
    for method in (rivals.integrated_gradients, rivals.gradient_input, rivals.smoothgrad):
        assert average_precision(method(network, x), planted).mean() >= 0.4
    share = planted.float().mean()
    assert average_precision(rivals.random(x), planted).mean() <= 2 * share
    assert average_precision(rivals.centre(x), planted).mean() <= 0.2
    assert rivals.edges(x).shape == rivals.intensity(x).shape == planted.shape
