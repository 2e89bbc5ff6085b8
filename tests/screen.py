"""A tiny screen of two synthetic plates, run stage by stage without Snakemake."""

import atexit
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import yaml
import zarr
from safetensors.numpy import load_file

from plateglass import config, jobs, synthetic
from plateglass.plan import Plan
from plateglass.project import Project
from plateglass.stages import SCREEN, STAGES
from plateglass.synthetic import DOSES, NEGATIVE, POSITIVE

WELLS = {
    **{f"A{c:02d}": NEGATIVE for c in (1, 2, 3)},
    **{f"A{c:02d}": POSITIVE for c in (4, 5, 6)},
    "B01": DOSES[0],
    "B02": DOSES[3],
}
WELL_STAGES = tuple(name for name, stage in STAGES.items() if stage.wells)
PARTS = {"in": "x", "code": 1, "params": "p"}  # of a ledger's line, where a test writes one
TRAIN = {
    "classes": ["negative_control", "positive_control"],
    "positive": "positive_control",
    "epochs": 2,
    "seeds": 1,
    "folds": 2,
    "crop": 48,
    "batch": 16,
}
SPECS = {
    name: synthetic.tiny(name, wells=WELLS, seed=seed) for name, seed in (("P1", 11), ("P2", 12))
}


@functools.cache
def _rendered() -> Path:
    """The raw plates of every screen, drawn once a process."""
    folder = Path(tempfile.mkdtemp(prefix="plateglass-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, spec in SPECS.items():
        synthetic.render_plate(spec, folder / name)
    return folder


class Screen:
    """Raw plates, settings and results under one folder."""

    def __init__(self, folder: Path, train: bool = True, **settings):
        self.folder = folder
        self.results = folder / "results"
        self.counts: dict[tuple[str, str, str], dict[str, int]] = {}
        self.specs = dict(SPECS)
        shutil.copytree(_rendered(), folder / "raw")
        self.settings = {
            "plates": "plates.csv",
            "results": "results",
            "channels": {c: {"match": c} for c in ("DNA", "Actin", "Marker")},
            "ingest": {"pattern": synthetic.PATTERN, "pixel_size_um": 0.65},
            "segment": {"nuclei": {"channel": "DNA"}, "cells": {"channel": "Actin"}},
            "train": TRAIN if train else {},
            "attribute": {"cells_per_well": 2},
            # fewer than the defaults: tables and reports are made anew in almost every test
            "aggregate": {"select": ["variance_threshold", "drop_na_columns"]},
            "report": {"gallery": 1},
            "run": {"batch": 16},
            **settings,
        }
        self.sheet = {
            name: {"path": f"raw/{name}", "train": "yes" if train and name == "P1" else "no"}
            for name in self.specs
        }
        self.write()

    def write(self) -> None:
        """Settings and sheet as they stand in this object, to their files."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.settings))
        lines = ["plate,path,layout,platemap,train"]
        for name, row in self.sheet.items():
            platemap = row.get("platemap", f"{row['path']}/platemap.csv")
            layout = row.get("layout", "pattern")
            lines.append(f"{name},{row['path']},{layout},{platemap},{row['train']}")
        (self.folder / "plates.csv").write_text("\n".join(lines) + "\n")

    def project(self) -> Project:
        return Project.read(config.read(self.folder / "config.yaml"))

    def plan(self) -> Plan:
        return Plan(self.project())

    def run(self, until: str | None = None) -> list[tuple[str, str, str]]:
        """Do what the plan asks for; returns the (plate, stage, well) that were computed.

        A stage of a whole plate or of the screen counts as the well "".
        """
        plan = self.plan()
        ran = []
        order = [*STAGES]
        record, importlib = jobs._record, jobs.importlib

        def note(job, ledger, parts, result, **facts):
            ran.append((job.plate, job.stage, result.well))
            self.counts[job.plate, job.stage, result.well] = result.counts
            return record(job, ledger, parts, result, **facts)

        def whole(name):
            """The stage's module, whose calls for a whole plate are noted."""
            module, stage = importlib.import_module(name), name.rpartition(".")[2]

            def noted(function):
                def call(job, *more):
                    ran.append((SCREEN if stage == "train" else job.plate, stage, ""))
                    function(job, *more)

                return call

            if stage == "train":
                return SimpleNamespace(learn=module.learn, write=noted(module.write))
            if stage in ("aggregate", "report"):
                both = (module.run_plate, module.run_screen)
                return SimpleNamespace(run_plate=noted(both[0]), run_screen=noted(both[1]))
            return module

        jobs._record, jobs.importlib = note, SimpleNamespace(import_module=whole)
        try:
            pending = sorted(
                plan.reasons, key=lambda ps: (order.index(ps[1]), ps[0] == SCREEN, ps[0])
            )
            for plate, stage in pending:
                if until and order.index(stage) > order.index(until):
                    continue
                jobs.run(self.project(), stage, plate, plan.keys[plate, stage], threads=1)
        finally:
            jobs._record, jobs.importlib = record, importlib
        return ran

    def copy(self, folder: Path) -> "Screen":
        """All of it in another folder, times included: a project that was moved."""
        shutil.copytree(self.folder, folder, copy_function=shutil.copy2, symlinks=True)
        return self._at(folder)

    def from_scratch(self, folder: Path, until: str = "aggregate") -> "Screen":
        """The same raw plates and settings, run anew elsewhere, up to what is compared: all but reports."""
        ignore = shutil.ignore_patterns("results")
        shutil.copytree(self.folder, folder, copy_function=shutil.copy2, ignore=ignore)
        other = self._at(folder)
        other.run(until)
        return other

    def _at(self, folder: Path) -> "Screen":
        other = Screen.__new__(Screen)
        other.__dict__ |= self.__dict__ | {
            "folder": folder,
            "results": folder / "results",
            "counts": {},
            "specs": dict(self.specs),
            "sheet": {name: dict(row) for name, row in self.sheet.items()},
            "settings": dict(self.settings),
        }
        return other

    def raw(self, plate: str, well: str, channel: str = "Marker") -> Path:
        return self.folder / self.sheet[plate]["path"] / f"{plate}_{well}_s1_{channel}.tif"

    def replace_image(self, plate: str, well: str, seed: int = 99) -> None:
        """Another picture of the well, in all channels, with times of their own."""
        from dataclasses import replace

        spec = replace(self.specs[plate], seed=seed)
        other = self.folder / f"other_{plate}_{seed}"
        synthetic.render_plate(replace(spec, wells={well: spec.wells[well]}), other)
        for file in other.glob("*.tif"):
            target = self.raw(plate, well).with_name(file.name)
            file.replace(target)
            os.utime(target, (10**9 + seed, 10**9 + seed))

    def tables(self) -> dict[str, pd.DataFrame]:
        return {name: pd.read_parquet(path) for name, path in self.table_files().items()}

    def table_files(self) -> dict[str, Path]:
        return _files(self.results, "*/*.parquet", "screen/model/*.parquet")


def assert_same(found: Screen, wanted: Screen) -> None:
    """Table for table, pixel for pixel, tensor for tensor: identical, floats to 1e-5, maps to 2e-3.

    Images and labels byte for byte; of the rest values are read where bytes differ.
    """
    for name, ours, theirs in _pairs(found.table_files(), wanted.table_files()):
        ours, theirs = pd.read_parquet(ours), pd.read_parquet(theirs)
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-5, atol=1e-6, obj=name)
    stored = [_files(screen.results, "*/plate.zarr/**/*") for screen in (found, wanted)]
    assert [name for name, *_ in _pairs(*stored)] == []
    tensors = [_files(screen.results, "screen/model/*.safetensors") for screen in (found, wanted)]
    arrays = [_arrays(screen.results) for screen in (found, wanted)]
    for name, ours, theirs in _pairs(*tensors):
        ours, theirs = load_file(ours), load_file(theirs)
        assert ours.keys() == theirs.keys(), name
        for key in ours:
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-5, atol=1e-6, err_msg=key)
    for name, ours, theirs in _pairs(*arrays):
        ours, theirs = (zarr.open_array(folder, mode="r")[...] for folder in (ours, theirs))
        # float16: a last digit
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-5, err_msg=name)


def _pairs(ours: dict[str, Path], theirs: dict[str, Path]) -> list[tuple[str, Path, Path]]:
    """Of files or folders of the same names those whose bytes differ."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    return [
        (name, ours[name], theirs[name])
        for name in sorted(ours)
        if _content(ours[name]) != _content(theirs[name])
    ]


def _content(path: Path) -> dict[str, bytes]:
    files = path.rglob("*") if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file()}


def _files(results: Path, *patterns: str) -> dict[str, Path]:
    found = (path for pattern in patterns for path in results.glob(pattern) if path.is_file())
    return {str(path.relative_to(results)): path for path in found}


def _arrays(results: Path) -> dict[str, Path]:
    """Folders of the maps in attribution.zarr."""
    described = _files(results, "*/attribution.zarr/**/zarr.json").values()
    arrays = [p.parent for p in described if json.loads(p.read_text())["node_type"] == "array"]
    return {str(folder.relative_to(results)): folder for folder in arrays}
