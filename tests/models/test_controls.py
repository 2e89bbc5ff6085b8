import numpy as np
import pytest
import torch
from pools import SIZE, made

from plateglass.models.backbone import Network
from plateglass.models.controls import Draws, Views
from plateglass.models.recipe import Model

IDS = [f"P2/B{i % 3 + 1:02d}/1/{i}" for i in range(11)]


class Around(torch.nn.Module):
    """Class 1 where the upper left corner of channel 0 is bright: it reads surroundings alone."""

    def forward(self, x):
        corner = 4 * x[:, 0, 0, 0]
        return torch.stack([-corner, corner], 1)


class Inside(torch.nn.Module):
    def forward(self, x):
        middle = x[:, 1, SIZE // 2, SIZE // 2]
        return torch.stack([-middle, middle], 1)


def model(network, **others):
    torch.manual_seed(0)
    info = {"channels": ["DNA", "GFP"], "classes": ["no", "yes"], "folds": {"P1": {"A01": 2}}}
    return Model(info, {"seed0.final": network, **others}, made())


@pytest.fixture
def cells():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(11, 2, SIZE, SIZE)).astype(np.float32)
    masks = np.zeros((11, SIZE, SIZE), bool)
    masks[:, 10:22, 10:22] = True
    return x, masks, np.full((11, 2), -3, np.float32)


def draws(cells, count=8):
    return Draws.of(made(), cells, ["DNA", "GFP"], count)


def test_draws_depend_on_the_name_alone_and_spare_the_own_well():
    donors = made()
    ids = [f"P1/A01/1/{i}" for i in range(50)]
    drawn = draws(ids)
    assert drawn.others.shape == (50, 8, 2)
    chosen = np.concatenate([drawn.shuffled.ravel(), drawn.others.ravel()])
    assert "P1/A01" not in {donors.wells[at] for at in chosen}
    assert len(set(drawn.shuffled[:, 0].tolist())) > 5
    for part, again in zip(drawn, draws(ids[::-1])):
        assert np.array_equal(part, again[::-1])
    for called in (0, 1):
        assert (donors.classes[drawn.others[:, :, called]] != called).all()
    assert set(drawn.texture.tolist()) == {0, 1, 2}


def test_surroundings_have_no_cell():
    around = Views(model(Inside())).surroundings
    assert (around[:, :, 10:22, 10:22] == 7).all()
    assert np.array_equal(around[:, :, :10], made().crops[:, :, :10])


def reliance(these, x, masks, ids=IDS):
    network = these.networks["seed0.final"]
    x, masks, others = (torch.from_numpy(part) for part in (x, masks, draws(ids).others))
    with torch.inference_mode():
        return Views(these).reliance(network, network(x), x, masks, others).numpy()


def test_reliance_is_none_inside_and_large_around(cells):
    x, masks, _ = cells
    assert (reliance(model(Inside()), x, masks) == 0).all()
    x = x.copy()
    x[:, 0, 0, 0] = 2  # all are called class 1 by their corner, surely
    found = reliance(model(Around()), x, masks)
    corner = made().crops[draws(IDS).others[:, :, 1], 0, 0, 0].astype(float)
    lost = np.maximum(0, 1 / (1 + np.exp(-16)) - 1 / (1 + np.exp(-8 * corner)))
    np.testing.assert_allclose(found, lost.mean(1), atol=1e-5)
    assert 0.1 < found.mean() <= 1


def controls(these, cells, name="seed0.final"):
    drawn = draws(IDS)
    given = [torch.from_numpy(part) for part in (*cells, drawn.texture, drawn.shuffled)]
    found = Views(these).controls(name, *given)
    return {control: called.numpy() for control, called in found.items()}


def test_classes_of_each_control(cells):
    x, _, _ = cells
    found = controls(model(Inside()), cells)
    assert list(found) == ["Erased", "Erased_Texture", "Shuffled_DNA", "Shuffled_GFP"]
    middle = (..., SIZE // 2, SIZE // 2)
    assert (found["Erased"] == 0).all()  # the level is −3
    assert np.array_equal(found["Shuffled_DNA"], x[:, 1][middle] > 0)
    donors, drawn = made(), draws(IDS)
    assert np.array_equal(found["Shuffled_GFP"], donors.crops[drawn.shuffled[:, 1], 1][middle] > 0)
    assert np.array_equal(found["Erased_Texture"], donors.textures[drawn.texture, 1][middle] > 0)


def test_control_networks_are_those_of_the_fold(cells):
    class Says(torch.nn.Module):
        def __init__(self, label):
            super().__init__()
            self.label = label

        def forward(self, x):
            return torch.nn.functional.one_hot(torch.full((len(x),), self.label), 2).float()

    others = {"background.final": Says(0), "background.fold2": Says(1)}
    others |= {"permuted.final": Says(1), "permuted.fold2": Says(0), "seed0.fold2": Inside()}
    final = controls(model(Inside(), **others), cells)
    fold = controls(model(Inside(), **others), cells, "seed0.fold2")
    assert set(final["Background"]) == {0} == set(fold["Permuted"])
    assert set(final["Permuted"]) == {1} == set(fold["Background"])


def test_the_company_in_a_batch_changes_nothing(cells):
    torch.manual_seed(2)
    these = model(Network(2, 2, "test_resnet", crop=SIZE, cut=4).eval())
    x, masks, _ = cells
    found = reliance(these, x, masks)
    alone = reliance(these, x[3:4], masks[3:4], IDS[3:4])
    np.testing.assert_allclose(alone, found[3:4], atol=1e-5)
