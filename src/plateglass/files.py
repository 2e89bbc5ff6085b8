"""Files that are whole or not there, and what is in them; knows no plates."""

import hashlib
import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write under a temporary name, then rename: readers see the old text or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError:  # a full disk: leave no half behind to fill it
        temporary.unlink(missing_ok=True)
        raise


def digest(path: Path) -> tuple[int, str]:
    """Size and digest of a file's bytes."""
    with path.open("rb") as file:
        key = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
        return file.tell(), key
