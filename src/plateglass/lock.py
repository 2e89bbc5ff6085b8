"""One at a time: locks that the system takes back when their holder ends, however it ends.

The whole run holds one in its main process, so that a second Snakemake on the same results, from
whatever folder, stops with a message. Each job holds its plate's: the job of a Snakemake that was
killed may live on, and the next run's job waits for it instead of writing beside it.
"""

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from plateglass.errors import SetupError

# File systems that know no locks: better unguarded than refused.
_UNKNOWN = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


def take(path: Path, wait: bool = False) -> IO[str]:
    """Lock a file; it stays locked while the returned file is open and this process lives.

    Raises
    ------
    SetupError
        Another process holds it (with ``wait``, its end is awaited instead).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="utf-8")
    try:
        _lock(file, wait)
    except BlockingIOError:
        holder = _read(file)
        file.close()
        raise SetupError(
            f"another run is at work on these results ({holder}); wait for it, or end it, and give "
            "the same command again"
        ) from None
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}, {time.strftime('%F %T')}")
    file.flush()
    return file


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock for a block; waits for whoever holds it."""
    with take(path, wait=True):
        yield


def _lock(file: IO[str], wait: bool) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _UNKNOWN:
            return
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        if not wait:
            raise BlockingIOError from error
        print(f"waits for another job of the plate: {_read(file)}", flush=True)
        fcntl.lockf(file, fcntl.LOCK_EX)


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip() or "who it is, is not told"
