"""What a job's process imports, seen in a process of its own."""

import subprocess
import sys


def of(code):
    """The words that the code prints."""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return " ".join(said.stdout.split())


def test_networks_need_neither_cellpose_models_nor_the_compiler_which_is_there_for_others():
    assert (
        of("""
import sys
import torch
from plateglass.models import backbone, nuclei
nuclei.load("nuclei-small")
backbone.build("resnet18", 3, crop=64)
print("cellpose.dynamics" in sys.modules, "cellpose.models" in sys.modules)
print("timm" in sys.modules, "torch._dynamo" in sys.modules, "torch._dynamo.utils" in sys.modules)
print(torch._dynamo.disable.__module__, torch._dynamo.utils.is_compile_supported.__module__)
""")
        == "True False True False False torch._dynamo.decorators torch._dynamo.utils"
    )


def test_who_asks_more_of_the_compiler_gets_it():
    assert (
        of("""
import sys
from plateglass.models import third_party
with third_party.imports():
    import torch._dynamo
    print(type(sys.modules["torch._dynamo"]).__name__)
    print(torch._dynamo.config.__name__, torch._dynamo.utils.counters.__class__.__name__)
print(type(sys.modules["torch._dynamo"]).__name__, hasattr(torch._dynamo, "explain"))
""")
        == "_Compiler torch._dynamo.config defaultdict module True"
    )
