import ctypes
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from plateglass import __version__, cli


def test_version_and_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"plateglass {__version__}\n"
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = capsys.readouterr().out
    assert "exit codes:" in said and "snakemake --cores all" in said


def test_the_schema_is_json(capsys):
    assert cli.main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "segment" in schema["required"]


def test_mistakes_end_with_a_message_and_their_code(tmp_path, capsys):
    code = cli.main(["ingest", "P1", "--key", "0.0", "--config", str(tmp_path / "none.yaml")])
    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith("plateglass: ") and "none.yaml" in said and "Traceback" not in said


def test_a_job_that_the_cluster_ends_leaves_as_on_ctrl_c(tmp_path, capsys, monkeypatch):
    cleared = []

    def job(*_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            cleared.append(True)

    monkeypatch.setattr("plateglass.jobs.run", job)
    monkeypatch.setattr(cli, "_project", lambda _: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert cli.main(["ingest", "P1", "--key", "0.0"]) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert cleared
    assert "stopped by SIGTERM; finished wells are kept" in capsys.readouterr().err


def test_planning_imports_no_torch():
    """What a no-op run costs: the plan's imports stay light."""
    code = (
        "import sys, plateglass.workflow, plateglass.layouts.pattern, plateglass.models.nuclei;"
        "heavy = {'torch', 'zarr', 'pandas', 'numpy', 'scipy', 'cellpose'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# the signal comes while an object is deleted, where Python ignores what is raised, three times over
SWALLOWED = """
import signal, sys, time
from plateglass import cli

class Deleted:
    left = 3
    def __del__(self):
        Deleted.left -= 1
        signal.raise_signal(signal.{name})

cli.heed_signals()
if signal.{name} == signal.SIGINT:
    signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    while Deleted.left:
        Deleted()
        time.sleep(0 if Deleted.left else 30)
except KeyboardInterrupt as stop:
    sys.exit(f"stopped {{stop}}")
"""


@pytest.mark.parametrize(("name", "said"), [("SIGTERM", "stopped SIGTERM"), ("SIGINT", "stopped ")])
def test_a_stop_that_python_swallows_is_raised_again(name, said):
    script = SWALLOWED.format(name=name)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"{said}\n")


LIBRARIES = """
import ctypes, sys
from plateglass import cli
if sys.argv[1] == "set up":
    cli.set_up_libraries()
import numpy as np

class Mallinfo2(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Mallinfo2
before = libc.mallinfo2().hblks
batch = np.ones(3 * 2**20)  # 24 MiB
print(libc.mallinfo2().hblks - before)  # how many were fetched from the kernel each by itself
import torch
from plateglass.models import device
print(torch.get_num_threads())
device.choose("cpu", 2)
print(torch.get_num_threads())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33 or newer")
def test_a_job_keeps_memory_and_its_libraries_one_thread_whatever_snakemake_gives():
    # jobs that ran in this process have set it up
    given = {name: value for name, value in os.environ.items() if name not in cli.IN_JOBS}
    given |= dict.fromkeys(cli.ONE_THREAD, "2") | {"OMP_DISPLAY_ENV": "verbose"}

    def ask(*how):
        command = [sys.executable, "-c", LIBRARIES, *how]
        done = subprocess.run(command, capture_output=True, text=True, env=given, check=True)
        asleep = "GOMP_SPINCOUNT = '0'" in done.stderr  # as torch's OpenMP has read it
        return [int(line) for line in done.stdout.split()], asleep

    assert ask("set up") == ([0, 1, 2], True)
    (fetched, *_), asleep = ask("not")
    assert (fetched, asleep) == (1, False)
