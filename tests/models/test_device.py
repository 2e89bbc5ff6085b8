import pytest
import torch

from plateglass.errors import SetupError
from plateglass.models.device import choose


def test_auto_takes_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose("auto") == torch.device("cuda")


def test_a_gpu_that_was_given_and_cannot_be_used_is_said(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert choose("auto") == torch.device("cpu") and capsys.readouterr().out == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert choose("auto") == torch.device("cpu")
    said = capsys.readouterr().out
    assert said.startswith("note: CUDA_VISIBLE_DEVICES is 1, but torch finds no CUDA device")
    assert choose("cpu") == torch.device("cpu") and capsys.readouterr().out == ""


def test_a_device_that_is_not_there_is_named():
    assert choose("cpu") == torch.device("cpu")
    with pytest.raises(SetupError, match=r"run\.device is 'cuda:77', which this machine lacks"):
        choose("cuda:77")
    with pytest.raises(SetupError, match=r"run\.device is 'gpu'"):
        choose("gpu")
