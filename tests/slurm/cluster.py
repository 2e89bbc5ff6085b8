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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = {
    "munged": "munge",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
}
DAEMONS = ("munged", "slurmctld", "slurmd")
ACCOUNTING = ("mariadbd", "slurmdbd")
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

# Without these lines there is no accounting: sacct, sacctmgr and sshare fail.
WITH_ACCOUNTS = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePass={folder}/munge.socket
AccountingStoragePort={port}
AccountingStorageEnforce=associations
"""
ACCOUNTS = """\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={storage}
StorageUser=root
StorageLoc=slurm
"""


@dataclass
class Cluster:
    """A running cluster: its folder with slurm.conf, and its daemons by name."""

    folder: Path
    daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self, daemon: str, *options: str, there: Callable[[], bool] = lambda: True) -> None:
        """Start a daemon and wait until it is ``there``."""
        self.daemons[daemon] = start(daemon, *options)
        _until(there, daemon, self.folder)

    def stop(self, daemon: str) -> None:
        """End a daemon: politely, then not."""
        process = self.daemons.pop(daemon)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def missing() -> str | None:
    """Why no cluster can be started here; None where it can."""
    absent = [name for name in DAEMONS if _found(name) is None]
    if absent and (os.getuid() != 0 or shutil.which("apt-get") is None):
        return f"{', '.join(absent)} not installed, and no root with apt to install them"
    return None


def install(*daemons: str) -> None:
    """Install the daemons that are absent; apt starts no service of them."""
    packages = {PACKAGES[name] for name in daemons if _found(name) is None}
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *sorted(packages)]):
        if packages:
            subprocess.run(["apt-get", "-qq", *command], check=True, env=quiet, capture_output=True)


@contextlib.contextmanager
def cluster(accounting: str | None = None) -> Iterator[Cluster]:
    """A running cluster, whose slurm.conf ``SLURM_CONF`` names meanwhile.

    With ``accounting``, the name of an account, there is a slurmdbd, too, and jobs must name that
    account or have it as their user's. On the way out jobs are cancelled, daemons ended, and the
    folder is deleted.
    """
    install(*DAEMONS, *(ACCOUNTING if accounting else ()))
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    before = {name: os.environ.get(name) for name in ("SLURM_CONF", "PATH")}
    os.environ["SLURM_CONF"] = f"{folder}/slurm.conf"
    os.environ["PATH"] = f"{folder}/bin:{os.environ['PATH']}"
    running = Cluster(folder)
    try:
        _write(folder)
        munge = [f"--{what}-file={folder}/munge.{what}" for what in ("key", "pid", "log", "seed")]
        socket = folder / "munge.socket"
        munge += ["-F", "--force", f"--socket={socket}"]
        running.start("munged", *munge, there=socket.exists)
        if accounting:
            _keep_accounts(running, accounting)
        running.start("slurmctld", "-D", there=lambda: "UP" in ask("scontrol", "ping"))
        running.start("slurmd", "-D", there=lambda: "idle" in ask("sinfo", "-h", "-o", "%T"))
        yield running
    finally:
        if "slurmctld" in running.daemons:
            ask("scancel", "--state=PENDING", f"--user={getpass.getuser()}")
            ask("scancel", "--signal=KILL", "--full", f"--user={getpass.getuser()}")
            with contextlib.suppress(TimeoutError):
                _until(lambda: not ask("squeue", "-h").strip(), "the last job", folder)
        for daemon in reversed([*running.daemons]):
            running.stop(daemon)
        for process in processes(folder):  # what a job left behind that was stopped or slow to end
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        shutil.rmtree(folder)


def _keep_accounts(running: Cluster, account: str) -> None:
    """MariaDB and slurmdbd, with this cluster, one account, and this user in it."""
    folder, user = running.folder, getpass.getuser()
    storage, port = _free_ports(2)
    data = [f"--datadir={folder}/mariadb", f"--user={user}"]
    make = [str(_found("mariadb-install-db")), *data, "--auth-root-authentication-method=normal"]
    subprocess.run(make, check=True, capture_output=True)
    address = [f"--port={storage}", "--bind-address=127.0.0.1", f"--socket={folder}/mariadb.socket"]
    ping = ("mariadb-admin", f"--socket={folder}/mariadb.socket", "ping")
    quiet = [f"--pid-file={folder}/mariadb.pid", f"--log-error={folder}/mariadb.log"]
    there = lambda: "alive" in ask(*ping)  # noqa: E731
    running.start("mariadbd", "--no-defaults", *data, *address, *quiet, there=there)
    settings = folder / "slurmdbd.conf"
    lines = ACCOUNTS.format(folder=folder, user=user, storage=storage, port=port)
    settings.write_text(lines)
    settings.chmod(0o600)
    with (folder / "slurm.conf").open("a") as file:
        file.write(WITH_ACCOUNTS.format(folder=folder, port=port))
    running.start("slurmdbd", "-D", there=lambda: "Name" in ask("sacctmgr", "list", "qos"))
    for what in (
        ["cluster", "loopback"],
        ["account", account],
        ["user", user, f"account={account}"],
    ):
        subprocess.run(["sacctmgr", "-i", "add", *what], check=True, capture_output=True)


def processes(folder: Path) -> dict[int, str]:
    """Processes that belong to the cluster, by their arguments or environment: id → command line."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            said = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            around = (process / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if int(process.name) != os.getpid() and str(folder) in said + around:
            found[int(process.name)] = said
    return found


def start(daemon: str, *options: str) -> subprocess.Popen:
    """A daemon in the foreground, which the kernel kills when this process is gone."""
    bound = ["setpriv", "--pdeathsig", "KILL", str(_found(daemon)), *options]
    return subprocess.Popen(
        bound, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def ask(*command: str) -> str:
    """What a SLURM command prints; nothing where it fails."""
    return subprocess.run(command, capture_output=True, text=True).stdout


def _found(name: str) -> str | None:
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


def _write(folder: Path) -> None:
    """Keys, folders and settings."""
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
    configuration.write_text(SETTINGS.format(folder=folder, **given))
    devices = "".join(f"Name=gpu File={file}\n" for file in PRETENDED_GPUS)
    (folder / "gres.conf").write_text(devices)
    # Snakemake's job steps drop all SLURM_* variables but a few before they call srun
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={configuration} exec {_found("srun")} "$@"\n')
    srun.chmod(0o755)


def _free_ports(number: int) -> list[int]:
    held = [socket.socket() for _ in range(number)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def _until(there, what: str, folder: Path, seconds: float = 90) -> None:
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
