"""A tiny screen of two synthetic plates, run stage by stage without Snakemake."""

import os
from pathlib import Path

import pandas as pd
import yaml

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
TRAIN = {
    "classes": ["negative_control", "positive_control"],
    "positive": "positive_control",
    "epochs": 2,
    "seeds": 1,
    "folds": 2,
    "crop": 48,
    "batch": 16,
}


class Screen:
    """Raw plates, settings and results under one folder."""

    def __init__(self, folder: Path, train: bool = True, **settings):
        self.folder = folder
        self.results = folder / "results"
        self.counts: dict[tuple[str, str, str], dict[str, int]] = {}
        self.specs = {
            "P1": synthetic.tiny("P1", wells=WELLS, seed=11),
            "P2": synthetic.tiny("P2", wells=WELLS, seed=12),
        }
        for name, spec in self.specs.items():
            synthetic.render_plate(spec, folder / "raw" / name)
        self.settings = {
            "plates": "plates.csv",
            "results": "results",
            "channels": {c: {"match": c} for c in ("DNA", "Actin", "Marker")},
            "ingest": {"pattern": synthetic.PATTERN, "pixel_size_um": 0.65},
            "segment": {"nuclei": {"channel": "DNA"}, "cells": {"channel": "Actin"}},
            "train": TRAIN if train else {},
            "attribute": {"cells_per_well": 2},
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
            lines.append(f"{name},{row['path']},pattern,{platemap},{row['train']}")
        (self.folder / "plates.csv").write_text("\n".join(lines) + "\n")

    def project(self) -> Project:
        return Project.read(config.read(self.folder / "config.yaml"))

    def plan(self) -> Plan:
        return Plan(self.project())

    def run(self, threads: int = 1, until: str | None = None) -> list[tuple[str, str, str]]:
        """Do what the plan asks for; returns the (plate, stage, well) that were computed.

        A stage of a whole plate or of the screen counts as the well "".
        """
        project, plan = self.project(), self.plan()
        ran = []
        order = [*STAGES]
        record, train = jobs._record, jobs.importlib.import_module

        def note(job, ledger, parts, result):
            ran.append((job.plate, job.stage, result.well))
            self.counts[job.plate, job.stage, result.well] = result.counts
            record(job, ledger, parts, result)

        def trained(name):
            if name == "plateglass.stages.train":
                ran.append((SCREEN, "train", ""))
            return train(name)

        jobs._record = note
        try:
            pending = sorted(
                plan.reasons, key=lambda ps: (order.index(ps[1]), ps[0] == SCREEN, ps[0])
            )
            for plate, stage in pending:
                if until and order.index(stage) > order.index(until):
                    continue
                if not STAGES[stage].wells:
                    ran.append((plate, stage, ""))
                jobs.run(project, stage, plate, plan.keys[plate, stage], threads)
        finally:
            jobs._record = record
        return ran

    def raw(self, plate: str, well: str, channel: str = "Marker") -> Path:
        return self.folder / "raw" / plate / f"{plate}_{well}_s1_{channel}.tif"

    def replace_image(self, plate: str, well: str, seed: int = 99) -> None:
        """Another picture of the well, in all channels, with times of their own."""
        from dataclasses import replace

        spec = replace(self.specs[plate], seed=seed)
        other = self.folder / f"other_{plate}_{seed}"
        synthetic.render_plate(replace(spec, wells={well: spec.wells[well]}), other)
        for file in other.glob("*.tif"):
            target = self.folder / "raw" / plate / file.name
            file.replace(target)
            os.utime(target, ns=(10**18, 10**18))

    def tables(self) -> dict[str, pd.DataFrame]:
        return {
            str(path.relative_to(self.results)): pd.read_parquet(path)
            for path in sorted(self.results.glob("*/*.parquet"))
        }


def assert_same(found: Screen, wanted: Screen) -> None:
    """Table for table, and pixel for pixel in the stores: identical, floats to 1e-5."""
    ours, theirs = found.tables(), wanted.tables()
    assert list(ours) == list(theirs)
    for name in ours:
        pd.testing.assert_frame_equal(ours[name], theirs[name], rtol=1e-5, atol=1e-6, obj=name)
    files = {
        p.relative_to(found.results): p.read_bytes()
        for p in found.results.glob("*/plate.zarr/**/*")
        if p.is_file()
    }
    others = {
        p.relative_to(wanted.results): p.read_bytes()
        for p in wanted.results.glob("*/plate.zarr/**/*")
        if p.is_file()
    }
    assert files.keys() == others.keys()
    assert [name for name in files if files[name] != others[name]] == []
