"""What a report is about: the wells, sites and cells of its plates, and the model."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from plateglass.config import Config
from plateglass.errors import DamageError
from plateglass.measure import assay
from plateglass.project import Project
from plateglass.report.charts import Colours
from plateglass.report.palette import label_colours
from plateglass.report.wells import Dose, platemap_column, platemap_name, read, wells
from plateglass.stages import SCREEN
from plateglass.wells import Job


@dataclass(frozen=True)
class Subject:
    """One plate, or all plates of a screen.

    ``wells`` and ``dose`` as ``wells.wells`` gives them; ``cells`` by plate, their ``Metadata_*``
    columns and ``label``; ``model`` is model.json, None where no network was applied.
    """

    job: Job
    project: Project
    plates: tuple[str, ...]
    sites: pd.DataFrame
    wells: pd.DataFrame
    dose: Dose | None
    cells: dict[str, pd.DataFrame]
    model: dict[str, Any] | None

    @classmethod
    def read(cls, job: Job, plates: list[str]) -> "Subject":
        """Read the tables of ``plates``; DamageError where one is missing."""
        project = job.project
        found: dict[str, list[pd.DataFrame]] = {"wells": [], "sites": []}
        model = None
        if project.has_model:
            model = json.loads((job.model_dir / "model.json").read_text(encoding="utf-8"))
        cells = {}
        for plate in plates:
            folder = job.results / plate
            for name, pieces in found.items():
                table = read(
                    folder / f"{name}.parquet", "Metadata_*", "Count_*", "Focus_*", "Orphan_*"
                )
                if table is None:
                    raise DamageError(folder / f"{name}.parquet", "is missing")
                pieces.append(table)
            cells[plate] = _cells(folder / "cells.parquet", job, model)
        sites = pd.concat(found["sites"], ignore_index=True)
        table, dose = wells(pd.concat(found["wells"], ignore_index=True), sites, job.config)
        return cls(job, project, tuple(plates), sites, table, dose, cells, model)

    @property
    def config(self) -> Config:
        return self.job.config

    @property
    def why(self) -> str | None:
        """Why there is no model; None where there is one."""
        return None if self.model is not None else self.project.why_no_model()

    def trained(self, plate: str) -> bool:
        """Whether the model's networks learnt from wells of this plate, in this project or before."""
        return self.model is not None and plate in self.model["folds"]

    @property
    def negative(self) -> str:
        return self.config.platemap.negative

    @property
    def positive(self) -> str | None:
        """The class whose margin is Metadata_Margin."""
        return self.config.positive if self.model is None else self.model["positive"]

    @property
    def classes(self) -> list[str]:
        """What a cell can be called; nothing without a model."""
        return [] if self.model is None else self.model["classes"]

    @functools.cached_property
    def colours(self) -> Colours:
        """The labels' colours, the same in every chart."""
        labels = sorted(set(self.wells["label"]))
        names, colours = label_colours(labels, self.negative, self.positive)
        return Colours(tuple(names), tuple(colours))

    @property
    def value(self) -> str:
        """What wells answer with: the margin, or cell counts where no network was applied."""
        return "margin" if "margin" in self.wells else "count"

    @property
    def value_title(self) -> str:
        return f"margin of {self.positive}" if self.value == "margin" else "cells"


def _cells(path: Path, job: Job, model: dict[str, Any] | None) -> pd.DataFrame:
    """A plate's cells with their ``label``; of a screen's plates only what its controls count."""
    wanted: tuple[str, ...] = ("Metadata_*",)
    if job.plate == SCREEN:
        label = platemap_name(job.config.platemap.label)
        wanted = (*assay.WELL, label, "Metadata_Class", "Metadata_Class_*")
    cells = read(path, *wanted)
    if cells is None:
        return pd.DataFrame()
    found = platemap_column(cells, job.config.platemap.label)
    cells = cells.assign(label="" if found is None else found)
    if job.plate == SCREEN and model is not None:
        cells = cells[cells["label"].isin(model["classes"])]
    return cells
