"""A finished screen of any number of plates, for timing the plan: no pixel is computed.

Raw files are real and tiny. The first two plates' jobs run through the engine, with stages in the real
ones' place that leave their files' names and nothing in them; so ledgers, markers and tables are where
planning looks for them, and it finds nothing to do. All other plates have other names for the files of
the second one, raw files too: a thousand plates in a minute. Parts are one folder with many names.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import yaml

from plateglass import config, jobs, markers
from plateglass.contents import Contents
from plateglass.files import write_atomically
from plateglass.ledger import Ledger, fingerprint
from plateglass.plan import PLATE_TABLES, Plan
from plateglass.project import Project
from plateglass.raw import listed
from plateglass.stages import SCREEN, STAGES
from plateglass.wells import Job, Result

ROLES = ("negative_control", "positive_control", *["treatment"] * 10)  # by column
PATTERN = r"(?P<well>[A-P]\d\d)_s(?P<site>\d)_w(?P<channel>\d)\.tif"
LEVELS = 4  # of an image's pyramid
ENDINGS = {
    "ingest": (".arrow",),
    "segment": (".arrow", ".sites.arrow"),
    "features": (".arrow", ".maps.npz"),
    "attribute": (".arrow",),
}  # of the files that a stage's part of a well consists of
MODEL_TABLES = ("history.parquet", "channels.parquet", "controls.parquet")


def wells_of(count: int) -> list[str]:
    """The first wells of a 384-well plate, row by row."""
    return [f"{row}{column:02d}" for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)][:count]


def write_raw(
    folder: Path, plates: int, wells: Sequence[str], sites: int = 1, channels: int = 1
) -> Path:
    """Plates of one-byte images with platemaps, a sheet and settings; returns the settings' file."""
    lines = ["plate,path,platemap,train"]
    rows = ["well,role,compound,dose"]
    rows += [f"{w},{ROLES[int(w[1:]) % 12]},c{i},{i % 8}" for i, w in enumerate(wells)]
    for number in range(1, plates + 1):
        name = f"P{number:04d}"
        plate = folder / "raw" / name
        plate.mkdir(parents=True)
        for well in wells:
            for site in range(1, sites + 1):
                for channel in range(1, channels + 1):
                    file = f"{well}_s{site}_w{channel}.tif"
                    if number > 2:
                        os.link(folder / "raw/P0002" / file, plate / file)
                    else:
                        (plate / file).write_bytes(b"x")
        (plate / "platemap.csv").write_text("\n".join(rows) + "\n")
        lines.append(f"{name},raw/{name},raw/{name}/platemap.csv,{'no' if number > 1 else 'yes'}")
    (folder / "plates.csv").write_text("\n".join(lines) + "\n")
    settings = {
        "plates": "plates.csv",
        "results": "results",
        "channels": {f"C{c}": {"match": str(c)} for c in range(1, channels + 1)},
        "ingest": {"pattern": PATTERN},
        "segment": {"nuclei": {"channel": "C1"}},
        "train": {"classes": ["negative_control", "positive_control"]},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def finish(settings: Path) -> Project:
    """Run every job of the plan, with stages that compute nothing in the real ones' place."""
    project = Project.read(config.read(settings))
    # each job writes its ledger in the end; a line at a time would take most of the minutes
    with patch.object(Ledger, "add", lambda ledger, well, **e: ledger.update({well: e})):
        plan = Plan(project)
        whole = {pair: plan.reasons.pop(pair) for pair in _of_screen(plan)}
        others = {plate: plan.reasons.pop((plate, stage)) for plate, stage in _others(plan)}
        run(project, plan)
        contents = Contents(project, by_markers=True)
        for plate in others:
            _like(project, plan, contents, plate, "P0002")
        plan.reasons = whole
        run(project, plan)
    if reasons := Plan(project).reasons:
        raise AssertionError(f"the fabricated screen is not finished: {reasons}")
    return project


def _of_screen(plan: Plan) -> list[tuple[str, str]]:
    return [pair for pair in plan.reasons if pair[0] == SCREEN and pair[1] != "train"]


def _others(plan: Plan) -> list[tuple[str, str]]:
    return [pair for pair in plan.reasons if pair[0] not in ("P0001", "P0002", SCREEN)]


def _like(project: Project, plan: Plan, contents: Contents, plate: str, model: str) -> None:
    """Give the files of a finished plate a second name each, as another plate's."""
    results, state = project.config.results, project.state
    for folder in (results, state / "tables"):
        (folder / plate).mkdir(parents=True)
        for file in (folder / model).iterdir():
            if file.is_file():
                (folder / plate / file.name).hardlink_to(file)
    (results / plate / "plate.zarr").mkdir()
    (results / plate / "plate.zarr/zarr.json").hardlink_to(results / model / "plate.zarr/zarr.json")
    (state / "parts" / plate).mkdir(parents=True)
    for stage in STAGES:
        if (plate, stage) not in plan.keys:
            continue
        (state / f"ledger/{plate}.{stage}.jsonl").hardlink_to(
            state / f"ledger/{model}.{stage}.jsonl"
        )
        if STAGES[stage].wells:
            (state / "parts" / plate / stage).symlink_to(state / "parts/P0001" / stage)
        left = contents.markers[model, stage].said["files"]
        own = [results / name.replace(f"{model}/", f"{plate}/", 1) for name in left]
        inputs = contents.inputs(stage, plate, listed(plan.raw[plate]))
        said = {"inputs": inputs}
        if STAGES[stage].wells:
            said["output"] = contents.output(stage, plate)
        markers.write(project, plate, stage, plan.keys[plate, stage], own, **said)


def run(project: Project, plan: Plan) -> None:
    """Do what the plan asks for, in its order."""
    order = list(STAGES)
    stand_ins = {f"plateglass.stages.{stage}": _stand_in(stage) for stage in STAGES}
    stand_ins = patch.dict(sys.modules, stand_ins)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere), stand_ins:
        for plate, stage in sorted(
            plan.reasons, key=lambda ps: (order.index(ps[1]), ps[0] == SCREEN, ps[0])
        ):
            jobs.run(project, stage, plate, plan.keys[plate, stage], threads=1)


def _stand_in(stage: str) -> ModuleType:
    """A stage's module that leaves what the stage leaves, but the wells' arrays and tables."""
    module = ModuleType(stage)
    shared: list[Path] = []

    def run(job: Job, wells: list[str], **given) -> Iterator[Result]:
        parts = job.part(stage, wells[0]).parent
        parts.parent.mkdir(parents=True, exist_ok=True)
        if parts.exists():
            pass
        elif not shared:
            parts.mkdir()
            for well in wells:
                for ending in ENDINGS[stage]:
                    (parts / f"{well}{ending}").touch()
            shared.append(parts)
        else:  # the same listing, without a million files
            parts.symlink_to(shared[0], target_is_directory=True)
        sites = len(list(job.entry.path.glob(f"{wells[0]}_s*_w1.tif")))
        if stage == "ingest":
            write_atomically(job.store / "zarr.json", "{}")
        for well in wells:
            stored = {name: (70_000, "0123456789abcdef") for name in _files(stage, well, sites)}
            content = None
            if stage == "ingest":
                content = fingerprint((job.entry.path / f"{well}_s1_w1.tif").stat().st_size)
            yield Result(well, content=content, stored=stored)

    def run_plate(job: Job) -> None:
        names = ["report.html"] if stage == "report" else [f"{t}.parquet" for t in PLATE_TABLES]
        for name in names:
            (job.plate_dir / name).write_text("x")

    def run_screen(job: Job) -> None:
        name = "report.html" if stage == "report" else "wells_selected.parquet"
        (job.plate_dir / name).write_text("x")

    def write(job: Job, learnt: None) -> None:
        for name in ("model.safetensors", "donors.safetensors", *MODEL_TABLES):
            write_atomically(job.model_dir / name, "x")
        write_atomically(job.model_dir / "model.json", json.dumps({"key": job.model}))

    module.run, module.learn, module.write = run, lambda job, unchanged: None, write
    module.run_plate, module.run_screen = run_plate, run_screen
    module.remove = lambda job, wells: None
    return module


def _files(stage: str, well: str, sites: int) -> list[str]:
    """Names of the files that a stage notes in its ledger: as many and as long as real ones."""
    here = f"plate.zarr/{well[0]}/{int(well[1:])}"
    if stage == "ingest":
        names = [f"{here}/zarr.json"]
        for site in range(sites):
            names.append(f"{here}/{site}/zarr.json")
            for level in range(LEVELS):
                names += [f"{here}/{site}/{level}/{end}" for end in ("zarr.json", "c/0/0/0/0")]
        return names
    if stage == "segment":
        levels = [f"{n}/{end}" for n in range(LEVELS) for end in ("zarr.json", "c/0/0/0")]
        return [
            f"{here}/{site}/labels/{label}/{end}"
            for site in range(sites)
            for label in ("nuclei", "cells")
            for end in ("zarr.json", *levels)
        ]
    part = f"../.plateglass/parts/P0001/{stage}/{well}"
    if stage == "features":
        return [f"{part}.arrow", f"{part}.maps.npz"]
    maps = f"attribution.zarr/{here[11:]}"
    arrays = ("cell", "gradcam", "pcim", "site", "x", "y")
    files = [f"{maps}/{array}/{end}" for array in arrays for end in ("c/0", "zarr.json")]
    return [f"{part}.arrow", *files, f"{maps}/zarr.json"]
