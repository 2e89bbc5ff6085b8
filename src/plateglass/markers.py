"""Markers: files that say, by their names, what is done, and hold what their jobs vouch for.

``done/<plate>.<stage>.<key>.<repairs>`` is there once a job has ended; the key holds all that its
results depend on. Whoever asks whether they are still there finds out here.
"""

import hashlib
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from plateglass.files import digest, write_atomically
from plateglass.ledger import Ledger
from plateglass.project import Project
from plateglass.stages import STAGES


def path(project: Project, plate: str, stage: str, key: str) -> Path:
    """Path of the marker that says: done, for exactly this key."""
    return project.state / "done" / f"{plate}.{stage}.{key}"


def begun(project: Project, plate: str, stage: str) -> Path:
    """Path of the note that a job has begun; it stays behind where the job was cut off."""
    return project.state / "begun" / f"{plate}.{stage}"


def write(project: Project, plate: str, stage: str, key: str, left: list[Path]) -> None:
    """Say that a job is done, and vouch for the files that it ``left``."""
    results = project.config.results
    vouches: dict[str, Any] = {
        "files": {str(file.relative_to(results)): file.stat().st_size for file in left}
    }
    if stage in STAGES:
        # so that a plan can name what changed since
        vouches |= {"code": STAGES[stage].version, "settings": project.settings(stage)}
        vouches["parts"] = _parts(project, plate, stage) if STAGES[stage].wells else None
        vouches["ledger"] = project.ledger_path(stage, plate).exists()
    write_atomically(path(project, plate, stage, key), json.dumps(vouches))


def read(project: Project, plate: str, stage: str, key: str) -> dict[str, Any]:
    """What a marker vouches for (``OSError``, ``ValueError`` where it is gone or torn)."""
    with open(f"{project.state}/done/{plate}.{stage}.{key}", "rb") as file:  # noqa: PTH123
        return json.loads(file.read())


def remove(project: Project, plate: str, stage: str) -> None:
    """Take back that a stage of a plate is done, whatever the key."""
    for old in (project.state / "done").glob(f"{plate}.{stage}.*"):
        old.unlink()


def remove_later(project: Project, plate: str, stage: str) -> bool:
    """Take back that what comes after a stage is done, of a plate or (``*``) all; whether any was."""
    later = list(STAGES)[list(STAGES).index(stage) + 1 :]
    found = [path for name in later for path in (project.state / "done").glob(f"{plate}.{name}.*")]
    for path in found:
        path.unlink(missing_ok=True)
    return bool(found)


def known(project: Project) -> dict[tuple[str, str], dict[str, int]]:
    """(plate, stage) → the keys of its markers → how many repairs each has seen."""
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    folder = project.state / "done"
    if folder.is_dir():
        for name in os.listdir(folder):
            match name.split("."):
                case [plate, stage, key, repairs] if repairs.isdigit():
                    found[plate, stage][key] = int(repairs)
    return found


def intact(project: Project, plate: str, stage: str, key: str) -> bool:
    """Whether what the marker says the job left is still there (``run.verify`` says how close).

    Always: tables, reports, model files, a store's root and rows by size, parts by name, ledgers by their
    presence. ``sizes``: every file of every well too. ``full``: the bytes of all of them
    (of the zarr.json of a store's root, rows and images, that they are JSON).
    """
    results, verify = project.config.results, project.config.run.verify
    try:
        left = read(project, plate, stage, key)
        for name, size in left["files"].items():
            try:
                found = os.stat(f"{results}/{name}")
            except FileNotFoundError:  # what has a second name comes back by a thin rule
                found = os.stat(f"{results}/.plateglass/tables/{name}")
            if found.st_size != size:
                return False
            if verify == "full" and name.endswith(".json") and not _is_json(f"{results}/{name}"):
                return False
        if left["parts"] and not _parts_are(project, plate, stage, *left["parts"]):
            return False
        if left["ledger"] and not os.path.exists(  # noqa: PTH110
            f"{results}/.plateglass/ledger/{plate}.{stage}.jsonl"
        ):
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if verify == "tables" or (verify == "sizes" and not STAGES[stage].wells):
        return True
    ledger = project.ledger(stage, plate)
    return not damaged(ledger, results / plate, full=verify == "full")


def looks_closely(project: Project, plate: str, stage: str) -> bool:
    """Whether the stage's next job compares bytes: it is told to, or the one before was cut off."""
    return project.config.run.verify == "full" or begun(project, plate, stage).exists()


def lost(project: Project, plate: str, stage: str, ledger: Ledger) -> set[str]:
    """Wells of a stage whose files are damaged, looked at as closely as its next job will."""
    closely = looks_closely(project, plate, stage)
    return damaged(ledger, project.config.results / plate, closely)


def damaged(ledger: Ledger, plate_dir: Path, full: bool = False) -> set[str]:
    """Wells of which a file is absent or has another size (``full``: other bytes) than it left."""
    wells = set()
    for well, entry in ledger.items():
        for name, (size, content) in (entry.get("files") or {}).items():
            file = f"{plate_dir}/{name}"  # a string: thousands at each start
            try:
                whole = os.stat(file).st_size == size
                if whole and full:
                    # JSON without a digest may change its bytes (display windows), not its size
                    whole = digest(Path(file))[1] == content if content else _is_json(file)
            except OSError:
                whole = False
            if not whole:
                wells.add(well)
                break
    return wells


def _is_json(path: str) -> bool:
    try:
        json.loads(Path(path).read_bytes())
    except ValueError:
        return False
    return True


def _parts(project: Project, plate: str, stage: str) -> tuple[int, str]:
    """When the names of a stage's parts last changed (ns), and what stands for them."""
    folder = f"{project.config.results}/.plateglass/parts/{plate}/{stage}"
    try:
        names, when = os.listdir(folder), os.stat(folder).st_mtime_ns
    except FileNotFoundError:
        names, when = [], 0
    text = "\n".join(sorted(name for name in names if name[0] != "."))
    return when, hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _parts_are(project: Project, plate: str, stage: str, when: int, names: str) -> bool:
    """Whether a stage's parts still have these names; they are listed only if the folder changed.

    The engine alone writes there, and a name more or less changes the folder's time. A copied
    project, whose folders are new, is listed.
    """
    folder = f"{project.config.results}/.plateglass/parts/{plate}/{stage}"
    try:
        if os.stat(folder).st_mtime_ns == when:
            return True
    except FileNotFoundError:
        pass
    return _parts(project, plate, stage)[1] == names
