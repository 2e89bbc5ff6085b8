import pytest
import torch
from torch import nn

from plateglass.errors import UserError
from plateglass.models.dcmix import DCMIX, parameter_groups


def test_starts_as_the_plain_sum_of_channels():
    x = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(DCMIX(3).eval()(x), x.sum(1, keepdim=True))
    free = DCMIX(3, alpha="nonnegative").eval()
    torch.testing.assert_close(free.alpha(), torch.full((1, 3), 1 / 3))
    torch.testing.assert_close(free(x), x.sum(1, keepdim=True))


def test_alpha_is_on_the_simplex_and_blends_as_written():
    blend = DCMIX(3, drop=0.0)
    blend.weight.data = torch.tensor([[0.3, -2.0, 1.0]])
    alpha = blend.alpha()
    assert alpha.sum().item() == pytest.approx(1)
    x = torch.randn(2, 3, 4, 4)
    by_hand = 3 * sum(alpha[0, c] * x[:, c] for c in range(3))
    torch.testing.assert_close(blend(x)[:, 0], by_hand)
    assert torch.equal(blend.importance(), alpha[0].detach())


def test_several_blends_start_apart_and_are_averaged_for_importance():
    blend = DCMIX(4, blends=3)
    assert blend.eval()(torch.randn(2, 4, 6, 6)).shape == (2, 3, 6, 6)
    assert not torch.allclose(blend.alpha()[0], blend.alpha()[1])
    torch.testing.assert_close(blend.importance(), blend.alpha().detach().mean(0))


def test_dropping_rescales_the_survivors_and_keeps_one_at_least():
    torch.manual_seed(0)
    blend = DCMIX(3, drop=0.5).train()
    blend.weight.data = torch.tensor([[0.5, 0.0, -1.0]])
    alpha = blend.alpha().detach()[0]
    x = torch.eye(3).reshape(1, 3, 1, 3).expand(4000, -1, -1, -1)  # pixel c shows channel c alone
    left = blend(x).detach()[:, 0, 0] / 3  # (crops, channels): α as used
    torch.testing.assert_close(left.sum(1), torch.ones(4000))
    kept = left > 0
    assert kept.any(1).all()
    for row, keep in zip(left[:50], kept[:50]):
        torch.testing.assert_close(row[keep], alpha[keep] / alpha[keep].sum())
    # .5 each, and the eighth of crops that lost all gets one of three back
    torch.testing.assert_close(
        kept.float().mean(0), torch.full((3,), 0.5 + 0.125 / 3), atol=0.03, rtol=0
    )
    nearly = DCMIX(3, drop=1.0)
    assert torch.equal(nearly.kept(100).sum(1), torch.ones(100))


def test_nothing_is_dropped_when_predicting():
    blend = DCMIX(3, drop=0.9).eval()
    x = torch.randn(64, 3, 4, 4)
    assert torch.equal(blend(x), blend(x))
    torch.testing.assert_close(blend(x), x.sum(1, keepdim=True))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 4, 8, 8)])
@pytest.mark.parametrize("alpha", ["simplex", "nonnegative"])
def test_gradient_reaches_every_channel_in_2d_and_3d(shape, alpha):
    torch.manual_seed(1)
    blend = DCMIX(3, alpha=alpha, drop=0.0).train()
    out = blend(torch.randn(shape))
    assert out.shape == (2, 1, *shape[2:])
    out.square().mean().backward()
    assert (blend.weight.grad.abs() > 1e-6).all()


def test_own_learning_rate_without_decay():
    network = nn.Sequential(DCMIX(2), nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    rest, plain, blend = parameter_groups(network, 1e-3, 0.1)
    assert blend["params"][0] is network[0].weight
    assert (blend["lr"], blend["weight_decay"]) == (12e-3, 0.0)
    assert (rest["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    counted = sum(len(group["params"]) for group in (rest, plain, blend))
    assert counted == len(list(network.parameters()))


def test_unknown_alpha():
    with pytest.raises(UserError, match=r"train\.alpha is 'free': write simplex or nonnegative"):
        DCMIX(2, alpha="free")


def test_ranks_planted_channels():
    """Four channels whose signal rises: α must rise with it, and noise must stay far below."""
    torch.manual_seed(3)
    strengths = torch.tensor([0.0, 0.35, 0.7, 1.4])
    y = torch.arange(600) % 2
    spot = torch.zeros(12, 12)
    spot[4:8, 4:8] = 1
    sign = (2 * y - 1).float().reshape(-1, 1, 1, 1)
    x = torch.randn(600, 4, 12, 12) + sign * strengths.reshape(1, 4, 1, 1) * spot
    x[:, 0] = torch.randn(600, 12, 12)
    blend = DCMIX(4)
    layers = [
        nn.Conv2d(1, 8, 5, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    network = nn.Sequential(blend, *layers, nn.Linear(8, 2))
    optimiser = torch.optim.AdamW(parameter_groups(network, 3e-3, 1e-4))
    for _ in range(8):
        for at in torch.randperm(600).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(x[at]), y[at]).backward()
            optimiser.step()
    alpha = blend.importance()
    assert alpha.argsort().tolist() == [0, 1, 2, 3]
    assert alpha[0] < 0.25 < alpha[3]
