"""What a job's process imports, seen in a process of its own."""

import os
import subprocess
import sys

CODE = """
import sys
import torch
from plateglass.models import backbone, nuclei, third_party

nuclei.load("nuclei-small")
backbone.build("resnet18", 3, crop=64)
print(*(name in sys.modules for name in ("timm", "cellpose.dynamics", "cellpose.models")))
print(*(name in sys.modules for name in ("torch._dynamo", "torch._dynamo.utils")))
print(third_party.load("wants_more").config.__name__)
from torchvision.ops import roi_align
print(roi_align.__globals__["is_compile_supported"]("cpu"))
import torch._dynamo
print(torch._dynamo.disable.__module__, torch._dynamo.utils.is_compile_supported("cpu"))
"""


def test_networks_need_no_compiler_and_who_asks_more_of_it_gets_it(tmp_path):
    (tmp_path / "wants_more.py").write_text("import torch._dynamo.config as config\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    said = done.stdout.splitlines()
    assert said[:3] == ["True True False", "False False", "torch._dynamo.config"]
    asked, later = said[3], said[4].split()[1]
    assert asked == later, "torchvision is not told what torch says"
    assert said[4].split()[0] == "torch._dynamo.decorators"
