"""Stages that leave digests of what they are made from: the engine without a pixel, thirty runs a second.

What must stand in the end is told by `Bare.differences` from the raw files, settings and labels. It reads
these by `Project`, and votes on formats by `formats.usual_format`, which have tests of their own.
"""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import yaml

from plateglass import config, formats, jobs
from plateglass.errors import DamageError, PlateglassError
from plateglass.files import write_atomically
from plateglass.layouts import Format
from plateglass.ledger import fingerprint
from plateglass.plan import PLATE_TABLES, Plan
from plateglass.project import Project
from plateglass.stages import SCREEN, STAGES
from plateglass.wells import Job, Result

CLASSES = ["negative_control", "positive_control"]
LABELS = dict.fromkeys(["A01", "A02", "A03"], CLASSES[0])
LABELS |= dict.fromkeys(["A04", "A05", "A06"], CLASSES[1])
LABELS |= dict.fromkeys(["B01", "B02"], "treatment")
FORMATS = {
    "a": Format((8, 8), "uint16", 1),
    "b": Format((16, 16), "uint16", 1),
}  # by the first letter
MODEL = ("model.safetensors", "donors.safetensors")
MODEL_TABLES = ("history.parquet", "channels.parquet", "controls.parquet")
# what a job waits for, of what is asked for: as the rules say
BEFORE = {
    "ingest": [],
    "segment": ["ingest"],
    "features": ["segment", "train"],
    "attribute": ["features", "segment", "train"],
    "aggregate": ["attribute", "features", "segment", "train"],
    "report": ["aggregate", "attribute", "features", "segment", "train"],
}


def stand_in(monkeypatch, read: Callable[[str, str, str], None]) -> None:
    """Put these stages in the real ones' place; ``read(plate, well, text)`` hears what ingest reads."""
    modules = {f"plateglass.stages.{stage}": _module(stage, read) for stage in STAGES}
    monkeypatch.setattr(jobs, "importlib", SimpleNamespace(import_module=modules.__getitem__))
    monkeypatch.setattr(jobs, "begin_imports", lambda *given: None)
    monkeypatch.setattr(
        formats,
        "like",
        lambda found, well: FORMATS.get((found.folder / found.planes(well)[0].file).read_text()[0]),
    )


def _part(job: Job, stage: str, well: str) -> str:
    path = job.part(stage, well)
    if not path.exists():
        raise DamageError(path, "is gone")
    return path.read_text()


def _units(job: Job) -> str:
    wells = job.project.units_made_from(job.plate)
    return fingerprint([(well, _part(job, "ingest", well)) for well in wells])


def _model(job: Job) -> str | None:
    model = job.model_dir / "model.json"
    return json.loads(model.read_text())["text"] if job.project.has_model else None


def _module(stage: str, read: Callable[[str, str, str], None]) -> ModuleType:
    module = ModuleType(stage)

    def run(job, wells, **given):
        project, own = job.project, job.project.settings(stage)
        if stage in ("ingest", "attribute"):
            name = {"ingest": "plate.zarr", "attribute": "attribution.zarr"}[stage]
            write_atomically(job.plate_dir / name / "zarr.json", "{}")
        for well in wells:
            content, quarantine, facts = None, None, {}
            if stage == "ingest":
                text = (job.entry.path / f"{well}_s1_w1.tif").read_text()
                read(job.plate, well, text)
                like = FORMATS.get(text[0])
                facts = {"like": str(like)} if like else {}
                if like != given["usual"]:
                    body = quarantine = f"{like}"
                else:
                    body = content = fingerprint(stage, text, own)
            elif stage == "segment":
                body = fingerprint(stage, _part(job, "ingest", well), own)
            elif stage == "features":
                role = project.has_model and well in project.classed(job.plate)
                cells = _part(job, "segment", well)
                body = fingerprint(stage, cells, own, _units(job), _model(job), role)
            else:
                body = fingerprint(stage, _part(job, "features", well), own, _model(job))
            write_atomically(job.part(stage, well), body)
            yield Result(well, content, quarantine, files=[job.part(stage, well)], facts=facts)

    def remove(job, wells):
        for well in wells:
            job.part(stage, well).unlink(missing_ok=True)

    def learn(job, unchanged):
        rows = []
        for plate in job.project.training_plates():
            there, labels = job.of(plate), job.project.classed(plate)
            cells = job.project.ledger("segment", plate).computed()
            cells = [
                (w, labels[w], _part(there, "segment", w)) for w in sorted(labels) if w in cells
            ]
            rows.append((plate, _units(there), cells))
        unchanged()
        return fingerprint(rows, job.project.own("train"))

    def write(job, learnt):
        for name in (*MODEL, *MODEL_TABLES):
            write_atomically(job.model_dir / name, "x")
        model = {"key": job.model, "text": learnt}
        write_atomically(job.model_dir / "model.json", json.dumps(model))

    def run_plate(job):
        project, own = job.project, job.project.settings(stage)
        if stage == "report":
            shown = (job.plate_dir / "cells.parquet").read_text()
            report = fingerprint(shown, own, _model(job))
            write_atomically(job.plate_dir / "report.html", report)
            return
        wells = {name: project.ledger(name, job.plate) for name in project.well_stages()}
        parts = {n: {w: _part(job, n, w) for w in sorted(of)} for n, of in wells.items()}
        rows = sorted(project.maps[job.plate].items())
        for table in PLATE_TABLES:
            write_atomically(job.plate_dir / f"{table}.parquet", fingerprint(parts, rows, own))

    def run_screen(job):
        names, own = job.project.names, job.project.settings(stage)
        if stage == "aggregate":
            made = [(n, (job.results / n / "cells.parquet").read_text()) for n in names]
            write_atomically(job.plate_dir / "wells_selected.parquet", fingerprint(made, own))
        else:
            shown = (job.plate_dir / "wells_selected.parquet").read_text()
            report = fingerprint(shown, own, _model(job))
            write_atomically(job.plate_dir / "report.html", report)

    module.run, module.remove, module.learn, module.write = run, remove, learn, write
    module.run_plate, module.run_screen = run_plate, run_screen
    if stage == "ingest":
        module.finish = lambda job: None
    return module


class Bare:
    """Two plates of eight wells, one letter and a number for an image, run in any order that is allowed."""

    def __init__(self, folder: Path):
        self.folder, self.results, self.clock = folder, folder / "results", 10**18
        self.plates = ["P1", "P2"]
        self.train = {"P1": "yes", "P2": "no"}
        self.labels = {plate: dict(LABELS) for plate in self.plates}
        sections = ("train", "features", "attribute", "aggregate", "report", "platemap", "run")
        self.settings = {
            "plates": "plates.csv",
            "results": "results",
            "channels": {"C1": {"match": "1"}},
            "ingest": {
                "pattern": r"(?P<well>[A-P]\d\d)_s(?P<site>\d)_w(?P<channel>\d)\.tif",
                "pixel_size_um": 0.65,
            },
            "segment": {"nuclei": {"channel": "C1"}},
            **{section: {} for section in sections},
        }
        self.settings["train"] = {"classes": CLASSES}
        for plate in self.plates:
            (folder / "raw" / plate).mkdir(parents=True)
            for well in LABELS:
                self.photograph(plate, well, f"a{plate}{well}")
        self.write()

    def raw(self, plate: str, well: str) -> Path:
        return self.folder / "raw" / plate / f"{well}_s1_w1.tif"

    def photograph(self, plate: str, well: str, text: str, unseen: bool = False) -> None:
        """Another image; ``unseen``: of the same time, and the same size if the text is as long."""
        path = self.raw(plate, well)
        before = path.stat().st_mtime_ns if path.exists() else None
        path.write_text(text)
        self.clock += 10**9
        os.utime(path, ns=(before if unseen and before else self.clock,) * 2)

    def write(self) -> None:
        (self.folder / "config.yaml").write_text(
            yaml.safe_dump({name: section for name, section in self.settings.items() if section})
        )
        lines = ["plate,path,platemap,train"]
        for plate in self.plates:
            lines.append(f"{plate},raw/{plate},{plate}.csv,{self.train[plate]}")
            rows = [f"{well},{label}" for well, label in self.labels[plate].items()]
            (self.folder / f"{plate}.csv").write_text("\n".join(["well,role", *rows]) + "\n")
        (self.folder / "plates.csv").write_text("\n".join(lines) + "\n")

    def project(self) -> Project:
        return Project.read(config.read(self.folder / "config.yaml"))

    def run(self, draw, until: str | None = None, retries: int = 0) -> dict[tuple[str, str], str]:
        """What is planned, in an order drawn among those that the rules allow; what failed, and why."""
        plan, order = Plan(self.project()), list(STAGES)
        left = {of for of in plan.reasons if not until or order.index(of[1]) <= order.index(until)}
        failed: dict[tuple[str, str], str] = {}
        while left:
            ready = sorted(of for of in left if not self._before(plan.project, of) & left)
            job = draw.choice(ready)
            left.discard(job)
            if self._before(plan.project, job) & failed.keys():
                failed[job] = "a job before it"
                continue
            for _ in range(retries + 1):
                try:
                    with contextlib.redirect_stdout(io.StringIO()):
                        jobs.run(self.project(), job[1], job[0], plan.keys[job], 1)
                    failed.pop(job, None)
                    break
                except PlateglassError as error:
                    failed[job] = str(error)
        return failed

    def _before(self, project: Project, job: tuple[str, str]) -> set[tuple[str, str]]:
        plate, stage = job
        if stage == "train":
            return {(name, "segment") for name in project.training_plates()}
        if plate == SCREEN:
            before = {(name, stage) for name in project.names} | {(SCREEN, "train")}
            return before | ({(SCREEN, "aggregate")} if stage == "report" else set())
        return {(SCREEN if name == "train" else plate, name) for name in BEFORE[stage]}

    def differences(self, texts: dict[tuple[str, str], str]) -> list[str]:
        """Files that are not what they would be, made of ``texts``: (plate, well) → image."""
        project, found = self.project(), []
        parts: dict[str, dict[str, dict[str, str]]] = {}
        for plate in project.names:
            images = {well: text for (name, well), text in texts.items() if name == plate}
            votes = sorted(images, key=lambda well: hashlib.blake2b(well.encode()).digest())
            like = {well: FORMATS[images[well][0]] for well in votes if images[well][0] in FORMATS}
            usual, own = formats.usual_format(like), project.settings
            ingest = {
                well: fingerprint("ingest", text, own("ingest"))
                if like.get(well) == usual
                else f"{like.get(well)}"
                for well, text in sorted(images.items())
            }
            segment = {
                well: fingerprint("segment", made, own("segment"))
                for well, made in ingest.items()
                if like.get(well) == usual
            }
            parts[plate] = {"ingest": ingest, "segment": segment}
        units = {plate: self._units_of(project, plate, parts[plate]) for plate in project.names}
        model = None
        if project.has_model:
            rows = [
                (
                    plate,
                    units[plate],
                    [
                        (well, label, parts[plate]["segment"][well])
                        for well, label in sorted(project.classed(plate).items())
                        if well in parts[plate]["segment"]
                    ],
                )
                for plate in project.training_plates()
            ]
            model = fingerprint(rows, project.own("train"))
            if json.loads((project.model_dir / "model.json").read_text())["text"] != model:
                found.append("model.json")
        wanted: dict[str, str] = {}
        for plate, made in parts.items():
            roles, own = project.classed(plate) if project.has_model else {}, project.settings
            made["features"] = {
                well: fingerprint(
                    "features", cells, own("features"), units[plate], model, well in roles
                )
                for well, cells in made["segment"].items()
            }
            if project.has_model:
                made["attribute"] = {
                    well: fingerprint("attribute", features, own("attribute"), model)
                    for well, features in made["features"].items()
                }
            for stage, of in made.items():
                wanted |= {f".plateglass/parts/{plate}/{stage}/{w}.arrow": x for w, x in of.items()}
            rows = sorted(project.maps[plate].items())
            table = fingerprint(made, rows, own("aggregate"))
            wanted |= {f"{plate}/{name}.parquet": table for name in PLATE_TABLES}
            wanted[f"{plate}/report.html"] = fingerprint(table, own("report"), model)
        tables = [(plate, wanted[f"{plate}/cells.parquet"]) for plate in project.names]
        selected = fingerprint(tables, project.settings("aggregate"))
        wanted["screen/wells_selected.parquet"] = selected
        wanted["screen/report.html"] = fingerprint(selected, project.settings("report"), model)
        for name, text in wanted.items():
            path = self.results / name
            if not path.exists() or path.read_text() != text:
                found.append(name)
        for plate in project.names:
            for stage in project.well_stages():
                there = (self.results / ".plateglass/parts" / plate / stage).glob("[!.]*")
                names = {str(path.relative_to(self.results)) for path in there}
                found += sorted(names - wanted.keys())
        return found

    def _units_of(self, project: Project, plate: str, parts: dict[str, dict[str, str]]) -> str:
        ingest, computed = parts["ingest"], parts["segment"].keys()
        chosen = project.negatives(plate, ingest) or sorted(ingest)
        readable = [well for well in chosen if well in computed] or sorted(computed)
        return fingerprint([(well, ingest[well]) for well in readable])
