"""Files that are whole or not there, and what is in them; knows no plates."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from plateglass.errors import DamageError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write under, renamed at the end: readers see the old file or the whole new one.

    Where the block fails, the old one stays and no half is left to fill the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path, of: str = "") -> None:
    """Delete what killed jobs left of `replacing` where no other writes now: of names that begin so."""
    for path in folder.glob(f".{of}*.*"):
        if path.suffix[1:].isdecimal() and path.is_file():
            path.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write the whole content, or leave what was there."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def damage_of(path: Path, *torn: type[Exception]) -> Iterator[None]:
    """Name a file that is absent, or of which its reader says ``torn``; the machine's faults pass.

    Raises
    ------
    DamageError
        In place of these. pyarrow says OSError of a torn file too, but without a number.
    """
    try:
        yield
    except (OSError, *torn) as error:
        if getattr(error, "errno", None) not in (None, errno.ENOENT):
            raise
        raise DamageError(path, f"cannot be read ({error})") from error


def digest(path: Path) -> tuple[int, str]:
    """Size and digest of a file's bytes."""
    with path.open("rb") as file:
        key = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
        return file.tell(), key
