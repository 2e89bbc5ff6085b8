import numpy as np
import pytest
import torch
from networks import random_network
from scipy import sparse
from scipy.sparse.linalg import spsolve

from plateglass.explain import fidelity
from plateglass.explain.classifier import blur


def exact(image, gone):
    """Rong's linear system for one channel (y, x), solved directly."""
    number = np.full(gone.shape, -1)
    number[gone] = np.arange(gone.sum())
    matrix, right = sparse.lil_matrix((gone.sum(), gone.sum())), np.zeros(gone.sum())
    for y, x in zip(*np.nonzero(gone)):
        row = number[y, x]
        for v in range(max(0, y - 1), min(gone.shape[0], y + 2)):
            for w in range(max(0, x - 1), min(gone.shape[1], x + 2)):
                if (v, w) == (y, x):
                    continue
                weight = 1 / 6 if v == y or w == x else 1 / 12
                matrix[row, row] += weight
                if gone[v, w]:
                    matrix[row, number[v, w]] -= weight
                else:
                    right[row] += weight * image[v, w]
    return spsolve(matrix.tocsc(), right)


@pytest.mark.parametrize("scattered", [True, False])
def test_imputation_solves_the_linear_system(scattered):
    torch.manual_seed(0)
    x = blur(torch.randn(3, 2, 24, 20), 1.0, 2)
    order = torch.rand(3, 24, 20) if scattered else blur(torch.rand(3, 24, 20), 4.0, 2)
    gone = order > order.flatten(1).quantile(0.5, dim=1)[:, None, None]
    filled = fidelity.impute(x, gone, noise=0.0, tolerance=1e-5)
    for n in range(3):
        for c in range(2):
            truth = exact(x[n, c].numpy(), gone[n].numpy())
            np.testing.assert_allclose(filled[n, c][gone[n]], truth, atol=2e-4)
    assert torch.equal(filled[~gone[:, None].expand_as(x)], x[~gone[:, None].expand_as(x)])


def test_imputation_does_not_depend_on_the_batch_and_takes_three_dimensions():
    torch.manual_seed(0)
    x, gone = torch.randn(4, 2, 5, 12, 12), torch.rand(4, 5, 12, 12) < 0.4
    together = fidelity.impute(x, gone)
    alone = torch.cat([fidelity.impute(x[i : i + 1], gone[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    flat = fidelity.impute(torch.full((1, 1, 5, 6, 7), 2.5), torch.rand(1, 5, 6, 7) < 0.5, noise=0)
    torch.testing.assert_close(flat, torch.full((1, 1, 5, 6, 7), 2.5), atol=1e-3, rtol=0)


def test_ranking_breaks_ties_at_random_and_the_same_way_for_all():
    maps = torch.zeros(2, 10, 10)
    maps[0, 3, 4] = 1.0
    order = fidelity.ranking(maps)
    assert order[0, -1] == 34
    assert sorted(order[1].tolist()) == list(range(100)) and order[1].tolist() != list(range(100))
    left = [p for p in order[0].tolist() if p != 34]
    assert left == [p for p in order[1].tolist() if p != 34]


def test_average_precision_and_share_by_hand():
    maps = torch.tensor([[[0.9, 0.8], [0.7, 0.1]]])
    planted = torch.tensor([[[True, False], [True, False]]])
    torch.testing.assert_close(
        fidelity.average_precision(maps, planted), torch.tensor([(1 + 2 / 3) / 2])
    )
    maps = torch.arange(100.0).view(1, 10, 10)
    mask = torch.zeros(1, 10, 10)
    mask[0, 9, :5] = 1
    share, enrichment = fidelity.cell_share(maps, mask)
    assert share[0] == 0.5 and enrichment[0] == 10.0


def test_road_gap_is_antisymmetric_and_zero_for_what_the_network_ignores():
    network = random_network(0)
    torch.manual_seed(1)
    x = torch.randn(4, 2, 16, 16)
    maps = torch.randn(4, 16, 16)
    gap = fidelity.road_gap(network, x, maps)
    torch.testing.assert_close(gap, -fidelity.road_gap(network, x, -maps), atol=1e-5, rtol=0)
    with torch.no_grad():
        network.head.weight.zero_()
    torch.testing.assert_close(fidelity.road_gap(network, x, maps), torch.zeros(4))


def test_deletion_falls_and_insertion_rises_faster_by_the_better_map(taught):
    network, x, planted, _, _ = taught
    x, truth = x[:16], planted[:16].float()
    noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(0))
    for fill in ("zero", "mean", "blur"):
        good = fidelity.deletion(network, x, truth, fill=fill).mean()
        assert good <= fidelity.deletion(network, x, noise, fill=fill).mean() - 0.05
        good = fidelity.insertion(network, x, truth, fill=fill).mean()
        assert good >= fidelity.insertion(network, x, noise, fill=fill).mean() + 0.05
    with pytest.raises(ValueError, match="zero, mean, blur"):
        fidelity.deletion(network, x, truth, fill="noise")


def test_rank_correlation_by_hand():
    a = torch.arange(16.0).view(1, 4, 4)
    assert fidelity.rank_correlation(a, a.exp())[0] == pytest.approx(1)
    assert fidelity.rank_correlation(a, -a)[0] == pytest.approx(-1)
