"""A SLURM cluster of one node on loopback, with two pretended GPUs: munge, slurmctld, slurmd.

    python tests/slurm/cluster.py COMMAND ...   # runs the command with SLURM_CONF set, then stops all

All keys, sockets, logs and states lie in one temporary folder, ports are free ones, and the daemons
are children that the kernel ends with their parent: nothing is left, whatever becomes of the tests.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")
DAEMONS = ("munged", "slurmctld", "slurmd")
PRETENDED_GPUS = ("/dev/null", "/dev/zero")  # SLURM wants a device file each
SETTINGS = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,batch_sched_delay=1
KillWait=5
MinJobAge=3600
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here; None where it can."""
    absent = [name for name in DAEMONS if _found(name) is None]
    if absent and (os.getuid() != 0 or shutil.which("apt-get") is None):
        return f"{', '.join(absent)} not installed, and no root with apt to install them"
    return None


def install() -> None:
    """Install the daemons where they are not; they are not started as services."""
    if all(_found(name) for name in DAEMONS):
        return
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        subprocess.run(["apt-get", "-qq", *command], check=True, env=quiet, capture_output=True)


@contextlib.contextmanager
def cluster(settings: str = "") -> Iterator[Path]:
    """A running cluster, as the path of its slurm.conf, which ``SLURM_CONF`` names meanwhile.

    ``settings`` are further lines of slurm.conf. On the way out jobs are cancelled, daemons ended,
    and the folder is deleted.
    """
    install()
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    configuration = _write(folder, settings)
    before = {name: os.environ.get(name) for name in ("SLURM_CONF", "PATH")}
    os.environ["SLURM_CONF"] = str(configuration)
    os.environ["PATH"] = f"{folder}/bin:{os.environ['PATH']}"
    daemons = []
    try:
        munge = [f"--{what}-file={folder}/munge.{what}" for what in ("key", "pid", "log", "seed")]
        daemons.append(start("munged", "-F", "--force", f"--socket={folder}/munge.socket", *munge))
        _until(lambda: (folder / "munge.socket").exists(), "munged", folder)
        daemons += [start("slurmctld", "-D"), start("slurmd", "-D")]
        _until(lambda: "idle" in ask("sinfo", "-h", "-o", "%T"), "the node", folder)
        yield configuration
    finally:
        if len(daemons) == 3:
            ask("scancel", "--state=PENDING", f"--user={getpass.getuser()}")
            ask("scancel", "--signal=KILL", "--full", f"--user={getpass.getuser()}")
            with contextlib.suppress(TimeoutError):
                _until(lambda: not ask("squeue", "-h").strip(), "the last job", folder, 30)
        for daemon in reversed(daemons):
            stop(daemon)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        shutil.rmtree(folder)


def start(daemon: str, *options: str) -> subprocess.Popen:
    """A daemon in the foreground, which the kernel kills when this process is gone."""
    bound = ["setpriv", "--pdeathsig", "KILL", str(_found(daemon)), *options]
    return subprocess.Popen(
        bound, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def stop(daemon: subprocess.Popen) -> None:
    """End a daemon: politely, then not."""
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def ask(*command: str) -> str:
    """What a SLURM command prints; nothing where it fails."""
    return subprocess.run(command, capture_output=True, text=True).stdout


def _found(name: str) -> str | None:
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


def _write(folder: Path, settings: str) -> Path:
    """Keys, folders and settings; returns the path of slurm.conf."""
    folder.chmod(0o755)
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    controller, node = _free_ports(2)
    given = {"controller": controller, "node": node, "gpus": len(PRETENDED_GPUS)}
    given |= {"host": socket.gethostname().split(".")[0], "user": getpass.getuser()}
    configuration = folder / "slurm.conf"
    configuration.write_text(SETTINGS.format(folder=folder, **given) + settings)
    devices = "".join(f"Name=gpu File={file}\n" for file in PRETENDED_GPUS)
    (folder / "gres.conf").write_text(devices)
    # Snakemake's job steps drop all SLURM_* variables but a few before they call srun
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={configuration} exec {_found("srun")} "$@"\n')
    srun.chmod(0o755)
    return configuration


def _free_ports(number: int) -> list[int]:
    held = [socket.socket() for _ in range(number)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def _until(there, what: str, folder: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            logs = "".join(f"\n{log.name}:\n{log.read_text()}" for log in folder.glob("*.log"))
            raise TimeoutError(f"SLURM on loopback: {what} is not there in {seconds} s{logs}")
        time.sleep(0.2)


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with cluster():
        sys.exit(subprocess.run(sys.argv[1:]).returncode)
