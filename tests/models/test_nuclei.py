import pickle
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from plateglass.errors import DataError, SetupError, UserError
from plateglass.models import nuclei


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    """No network, no models of the user: what is loaded must be here."""

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("CELLPOSE_LOCAL_MODELS_PATH", str(tmp_path / "models"))


def test_an_unknown_name_is_refused_with_the_nearest_known_one():
    with pytest.raises(UserError, match=r"'nuclei-smal' is no model, did you mean 'nuclei-small'"):
        nuclei.load("nuclei-smal")
    with pytest.raises(UserError, match="'cyto3' is no model"):
        nuclei.check("cyto3")


def test_published_weights_that_are_not_here_are_named_with_source_and_place(tmp_path):
    with pytest.raises(SetupError) as error:
        nuclei.load("cpsam_v2")
    assert "https://huggingface.co/mouseland/cellpose-sam/resolve/main/cpsam_v2" in str(error.value)
    assert str(tmp_path / "models" / "cpsam_v2") in str(error.value)


def test_a_path_without_a_file_is_refused(tmp_path):
    with pytest.raises(SetupError, match=str(tmp_path / "mine")):
        nuclei.check(str(tmp_path / "mine"))


def test_a_file_in_the_models_folder_is_found_by_its_name(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "ours").write_bytes(b"x")
    assert nuclei.check("ours") == tmp_path / "models" / "ours"


@pytest.mark.parametrize(
    "state", [{"W2": torch.zeros(192, 3, 8, 8)}, {"conv.weight": torch.ones(3)}]
)
def test_weights_of_another_network_are_refused_by_their_keys(tmp_path, state):
    torch.save(state, tmp_path / "other")
    with pytest.raises(SetupError, match="not a Cellpose 4 model"):
        nuclei.load(str(tmp_path / "other"))


def test_a_file_that_runs_code_when_unpickled_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("harm").mkdir, ())

    (tmp_path / "evil").write_bytes(pickle.dumps({"W2": Evil()}))
    with pytest.raises(SetupError, match="cannot be read as model weights"):
        nuclei.load(str(tmp_path / "evil"))
    assert not (tmp_path / "harm").exists()


def test_a_safetensors_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(SetupError, match="not a nuclei-small-1 file"):
        nuclei.load(str(path))
    save_file(load_file(nuclei.SMALL), path)  # the right tensors without the format's name
    with pytest.raises(SetupError, match="not a nuclei-small-1 file"):
        nuclei.load(str(path))
    path.write_bytes(b"not this")
    with pytest.raises(SetupError, match="cannot be read"):
        nuclei.load(str(path))


def test_the_content_key_follows_the_weights_and_not_the_name(tmp_path):
    state = {"W2": torch.zeros(4), "b": torch.arange(3.0)}
    keys = {}
    for name, change in (("one", 0.0), ("two", 0.0), ("three", 1e-6)):
        torch.save({**state, "b": state["b"] + change}, tmp_path / name)
        keys[name] = nuclei.content_key(str(tmp_path / name))
    assert keys["one"] == keys["two"] != keys["three"]
    (tmp_path / "plain").write_bytes(nuclei.SMALL.read_bytes())
    assert nuclei.content_key(str(tmp_path / "plain")) == nuclei.content_key("nuclei-small")


def test_planning_imports_neither_torch_nor_cellpose():
    code = (
        "import sys; from plateglass.models import nuclei; nuclei.content_key('nuclei-small');"
        "nuclei.check('nuclei-small');"
        "print([m for m in ('torch', 'cellpose', 'numpy') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_one_plane_may_have_its_axis_and_more_are_refused():
    segment = nuclei.OfPlanes(lambda image, diameter: image.astype(np.int32))
    image = np.arange(6).reshape(2, 3)
    assert (segment(image) == image).all()
    assert (segment(image[None]) == image[None]).all()
    with pytest.raises(DataError, match=r"\(2, 2, 3\)"):
        segment(np.zeros((2, 2, 3)))


@pytest.mark.long
def test_a_cellpose_file_by_path_segments_through_cellpose(tmp_path):
    """All weights zero and stored once: the keys fit, the network runs and finds nothing."""
    from plateglass.models import third_party

    vit = third_party.load("cellpose.vit")

    with torch.device("meta"):
        shapes = {k: t.shape for k, t in vit.CPSAM().state_dict().items()}
    torch.save({k: torch.zeros(1).expand(s) for k, s in shapes.items()}, tmp_path / "zeros")
    found = nuclei.load(str(tmp_path / "zeros"))(np.random.default_rng(0).random((1, 64, 64)))
    assert found.shape == (1, 64, 64)
    assert found.dtype == np.int32
    assert not found.any()
