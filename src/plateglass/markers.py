"""Markers: files that say what is done, of what it was made, and what their jobs vouch for.

``done/<plate>.<stage>.<key>`` is there once a job has ended; see `keys` for its name.
Whoever asks whether what it vouches for is still there finds out here.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from plateglass.files import digest, write_atomically
from plateglass.keys import Key
from plateglass.ledger import Ledger
from plateglass.project import Project
from plateglass.stages import STAGES


@dataclass(frozen=True)
class Marker:
    """One that stands. What it says is read when first asked for.

    A torn one says nothing, nor does one of a job that began again and did not end (``doubted``).
    """

    path: str
    key: Key
    doubted: bool = False

    @cached_property
    def said(self) -> dict[str, Any]:
        if self.doubted:
            return {}
        try:
            with open(self.path, "rb") as file:  # noqa: PTH123
                said = json.loads(file.read())
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    @property
    def inputs(self) -> str | None:
        """Digest of all that the job's result was made from."""
        return self.said.get("inputs")

    @property
    def output(self) -> str | None:
        """Digest of what came out; of what a whole stage used, which is the same."""
        return self.said.get("output", self.inputs)


def known(state: Path) -> dict[tuple[str, str], Marker]:
    """(plate, stage) → its marker; the latest, where a node's old listing of a share left another."""
    found: dict[tuple[str, str], Marker] = {}
    folder, cut_off = f"{state}/done", set(_names(f"{state}/begun"))
    for name in _names(folder):
        plate, _, rest = name.partition(".")
        stage, _, text = rest.partition(".")
        key, other = Key.read(text), found.get((plate, stage))
        # another text is that of a refused plate
        if str(key) == text and (other is None or other.key.count < key.count):
            found[plate, stage] = Marker(f"{folder}/{name}", key, f"{plate}.{stage}" in cut_off)
    return found


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def begun(project: Project, plate: str, stage: str) -> Path:
    """Path of the note that a job has begun; it stays behind where the job was cut off."""
    return project.state / "begun" / f"{plate}.{stage}"


def write(
    project: Project,
    plate: str,
    stage: str,
    key: str,
    left: list[Path],
    **more: Any,
) -> None:
    """Say that a job is done, and vouch for the files that it ``left``; ``more``: see `Marker`."""
    results = project.config.results
    said: dict[str, Any] = {
        **more,
        "files": {str(file.relative_to(results)): file.stat().st_size for file in left},
    }
    if stage in STAGES:
        # so that a plan can name what changed since
        said |= {"code": STAGES[stage].version, "settings": project.settings(stage)}
        said["parts"] = _parts(project, plate, stage) if STAGES[stage].wells else None
        said["ledger"] = project.ledger_path(stage, plate).exists()
    write_atomically(project.state / "done" / f"{plate}.{stage}.{key}", json.dumps(said))


def remove(project: Project, plate: str, stage: str) -> None:
    """Take back that a stage of a plate is done, whatever the key."""
    for old in (project.state / "done").glob(f"{plate}.{stage}.*"):
        old.unlink(missing_ok=True)  # a node's old listing of a share


def intact(project: Project, plate: str, stage: str, marker: Marker) -> bool:
    """Whether what the marker says the job left is still there (``run.verify`` says how close).

    Always: tables, reports, model files, a store's root and rows by size, parts by name, ledgers by their
    presence. ``sizes``: every file of every well too. ``full``: the bytes of all of them
    (of the zarr.json of a store's root, rows and images, that they are JSON).
    """
    results, verify, said = project.config.results, project.config.run.verify, marker.said
    try:
        for name, size in said["files"].items():
            try:
                found = os.stat(f"{results}/{name}")
            except FileNotFoundError:  # what has a second name comes back by a thin rule
                found = os.stat(f"{results}/.plateglass/tables/{name}")
            if found.st_size != size:
                return False
            if verify == "full" and name.endswith(".json") and not _is_json(f"{results}/{name}"):
                return False
        if said["parts"] and not _parts_are(project, plate, stage, *said["parts"]):
            return False
        if said["ledger"] and not os.path.exists(  # noqa: PTH110
            f"{results}/.plateglass/ledger/{plate}.{stage}.jsonl"
        ):
            return False
    except (OSError, KeyError, TypeError, AttributeError):
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
