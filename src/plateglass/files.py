"""Files that are whole or not there, and what is in them; knows no plates."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from plateglass.errors import DamageError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write under a temporary name, then rename: readers see the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError:  # a full disk: leave no half behind to fill it
        temporary.unlink(missing_ok=True)
        raise


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
