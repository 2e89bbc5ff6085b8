import numpy as np
import pytest
import torch
from pools import quick

from plateglass.config import SurroundingsSettings
from plateglass.models import training
from plateglass.models.pool import Pool, centre
from plateglass.models.training import Task, batch, fit, rate

ALL = Task("seed0.final", (0, 1, 2, 3, 4, 5), (0, 1, 0, 1, 0, 1))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def still(monkeypatch):
    """No jitter, light or noise, so that pixels can be traced."""
    for name in ("JITTER", "GAIN", "OFFSET", "NOISE"):
        monkeypatch.setattr(training, name, 0)


def marked():
    """A pool whose pixels tell their well (i + 1) in the cell and their class (10, 20) around it."""
    names = [("P1", f"A{i + 1:02d}") for i in range(6)]
    masks, crops = [], []
    for i in range(6):
        mask = np.zeros((4, 40, 40), bool)
        mask[:, 15:25, 15:25] = True
        x = np.full((4, 1, 40, 40), 10.0 * (1 + i % 2), np.float32)
        x[:, 0][mask] = i + 1
        masks.append(mask)
        crops.append(x)
    level, none = [np.zeros((4, 1), np.float32)] * 6, [np.zeros((0, 1, 40, 40), np.float32)] * 6
    return Pool(crops, masks, level, none, [None] * 6, [0, 1] * 3, names)


def test_draws_are_balanced_over_classes_and_their_wells(pool):
    x, masks, levels = pool.draw([0, 1, 2, 3], [0, 1, 0, 1], torch.arange(800) % 2, rng())
    assert x.shape == (800, 2, 40, 40)
    assert masks.sum((1, 2)).unique().tolist() == [100]
    wells, counts = (levels[:, 0] * 100).round().int().unique(return_counts=True)
    assert wells.tolist() == [0, 1, 2, 3]
    assert counts.min() > 150


def test_centre_keeps_the_middle_pixel():
    x = np.zeros((41, 41))
    x[20, 20] = 1
    assert centre(x, 32)[16, 16] == 1


def test_swapped_crops_keep_the_cell_and_take_surroundings_of_any_class(still):
    settings = quick(batch=200, surroundings=SurroundingsSettings(p=1.0, erased=0.0))
    x, target, sure = batch(marked(), settings, ALL, rng())
    assert (len(x), sure) == (200, 200)
    inside, label = x[:, 0, 16, 16], target.argmax(1)
    assert torch.equal((inside.int() - 1) % 2, label.int())
    around = x[:, 0, 0, 0]
    agree = ((around == 10) == (label == 0)).float().mean()
    assert agree.item() == pytest.approx(0.5, abs=0.12)


def test_kept_and_dropped_surroundings(still):
    keep = quick(batch=50, surroundings=SurroundingsSettings(how="keep", p=1.0, erased=0.0))
    x, target, _ = batch(marked(), keep, ALL, rng())
    assert torch.equal(x[:, 0, 0, 0], 10.0 * (1 + target.argmax(1)))
    drop = quick(batch=50, surroundings=SurroundingsSettings(how="drop", p=1.0, erased=0.0))
    x, target, _ = batch(marked(), drop, ALL, rng())
    assert (x[:, 0, 0, 0] == 0).all()
    assert ((x[:, 0, 16, 16].int() - 1) % 2 == target.argmax(1)).all()


def test_erased_crops_have_no_cell_and_the_wells_shares_as_target(still):
    settings = quick(batch=40, surroundings=SurroundingsSettings(p=0.0, erased=0.5))
    uneven = Task("seed0.fold0", (0, 1, 2, 4, 5), (0, 1, 0, 0, 1))
    x, target, sure = batch(marked(), settings, uneven, rng())
    assert (len(x), sure) == (60, 40)
    assert (x[sure:, 0, 16, 16] == 0).all()
    assert set(x[sure:, 0, 0, 0].tolist()) == {10.0, 20.0}
    assert torch.equal(target[sure:], torch.tensor([0.6, 0.4]).expand(20, 2))
    assert target[:sure].amax(1).unique().tolist() == pytest.approx([0.975])


def test_background_control_sees_no_cell(still):
    task = Task("background.final", ALL.train, ALL.classes, erased=True)
    x, _, sure = batch(marked(), quick(batch=20), task, rng())
    assert (len(x), sure) == (20, 20)
    assert (x[:, 0, 16, 16] == 0).all()


def test_only_wells_of_the_task_are_seen(still):
    task = Task("seed0.fold0", (0, 1, 3), (0, 1, 1))
    settings = quick(batch=100, surroundings=SurroundingsSettings(p=1.0))
    x, _, sure = batch(marked(), settings, task, rng())
    assert set(x[:sure, 0, 16, 16].tolist()) == {1.0, 2.0, 4.0}


def test_rate_rises_then_falls_to_nothing():
    rates = [rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates.index(max(rates)) == 9
    assert rates[-1] < 0.001


def test_learns_and_gives_the_same_network_twice(pool):
    settings = quick(epochs=6)
    task = Task("seed0.fold0", (0, 1, 2, 3), (0, 1, 0, 1), (4, 5))
    first, second = fit(pool, settings, task), fit(pool, settings, task)
    assert [row["epoch"] for row in first.history] == [1, 2, 3, 4, 5, 6]
    assert first.history[-1]["held_out"] == 1.0
    assert first.history == second.history
    for a, b in zip(first.network.state_dict().values(), second.network.state_dict().values()):
        assert torch.equal(a, b)
    other = fit(pool, settings, Task("seed1.fold0", *list(vars(task).values())[1:]))
    assert not torch.equal(other.network.head.weight, first.network.head.weight)


def test_training_leaves_torchs_own_generator_alone(pool):
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    fit(pool, quick(epochs=1), ALL)
    assert torch.equal(torch.rand(1), wanted)


def test_a_single_channel_network_sees_that_channel(pool):
    task = Task("single1.half0", (0, 1), (0, 1), (2, 3), channels=(1,))
    network = fit(pool, quick(epochs=1), task).network
    assert network.blend.channels == 1
