"""The README's snippet runs as printed."""

import re
from pathlib import Path

import pytest
import torch
from networks import random_network

from plateglass.explain import gradcamo_score

README = Path(__file__).parents[2] / "README.md"


def snippet(text):
    found = re.search(r"^#+ Explain any classifier$.*?^```python\n(.*?)^```$", text, re.M | re.S)
    return found and found[1]


def test_the_snippet_of_the_readme_runs():
    code = snippet(README.read_text())
    if code is None:
        pytest.fail("README.md has no python block under 'Explain any classifier'")
    steps = [line for line in code.splitlines() if line.strip() and not line.startswith("#")]
    assert len(steps) == 3
    torch.manual_seed(0)
    names = {"model": random_network(0), "images": torch.randn(4, 2, 24, 24)}
    names["masks"] = torch.rand(4, 24, 24) < 0.5
    exec(compile(code, str(README), "exec"), names)
    assert names["maps"].shape == names["audit"].map.shape == (4, 24, 24)
    expected = gradcamo_score(names["audit"].map, names["masks"])[0]
    torch.testing.assert_close(names["audit"].score, expected, equal_nan=True)
    assert (names["maps"] < 0).any() and (names["maps"] > 0).any()  # signed, as the comment says
