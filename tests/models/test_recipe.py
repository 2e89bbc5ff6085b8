import json

import numpy as np
import pytest
import torch
from pools import made

from plateglass.errors import DataError
from plateglass.models.backbone import Network
from plateglass.models.recipe import load_model, save_model

INFO = {
    "key": "k", "backbone": "test_resnet", "cut": 4, "channels": ["DNA", "GFP"], "blends": 1,
    "alpha_kind": "simplex", "drop": 0.5, "crop": {"px": 32, "um_per_px": 0.65},
    "classes": ["no", "yes"], "folds": {"P1": {"A01": 0}},
}  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    networks = {
        name: Network(2, 2, "test_resnet", crop=32, cut=4).eval()
        for name in ("seed0.final", "seed0.fold0")
    }
    save_model(tmp_path, INFO, networks, made())
    return tmp_path, networks


def test_a_model_comes_back_as_it_was(saved):
    folder, networks = saved
    model = load_model(folder)
    assert model.info["key"] == "k"
    assert list(model.networks) == ["seed0.final", "seed0.fold0"]
    x = torch.randn(2, 2, 32, 32)
    for name, network in networks.items():
        assert torch.equal(model.networks[name](x), network(x))
        assert not model.networks[name].training
    assert np.array_equal(model.donors.crops, made().crops)
    assert model.donors.wells == made().wells
    assert model.fold("P1", "A01") == 0
    assert model.fold("P1", "A02") is model.fold("P9", "A01") is None
    assert {path.name for path in folder.iterdir()} == {
        "model.json",
        "model.safetensors",
        "donors.safetensors",
    }


def test_only_the_networks_wanted(saved):
    assert list(load_model(saved[0], lambda name: "fold" in name).networks) == ["seed0.fold0"]


@pytest.mark.parametrize("file", ["model.json", "model.safetensors", "donors.safetensors"])
def test_a_missing_or_torn_file_is_named(saved, file):
    path = saved[0] / file
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"the model cannot be read .*; delete the folder"):
        load_model(saved[0])
    path.unlink()
    with pytest.raises(DataError, match=file.replace(".", r"\.")):
        load_model(saved[0])


def test_another_format_or_network_is_refused(saved):
    path = saved[0] / "model.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "cut": 8, "crop": {"px": 64}}))
    with pytest.raises(DataError, match=r"seed0\.final does not fit model\.json"):
        load_model(saved[0])
    path.write_text(json.dumps({**info, "format": 9}))
    with pytest.raises(DataError, match="format 9, this version reads 1"):
        load_model(saved[0])
