"""What a job's process imports, seen in a process of its own."""

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
with third_party.imports():
    import torch._dynamo
    print(type(sys.modules["torch._dynamo"]).__name__)
    print(torch._dynamo.config.__name__, torch._dynamo.utils.counters.__class__.__name__)
print(type(sys.modules["torch._dynamo"]).__name__, torch._dynamo.disable.__module__)
"""


def test_networks_need_no_compiler_and_who_asks_more_of_it_gets_it():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "True True False",
        "False False",
        "_Compiler",
        "torch._dynamo.config defaultdict",
        "module torch._dynamo.decorators",
    ]
