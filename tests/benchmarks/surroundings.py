"""What training does about the surroundings, and what each choice costs: the table of docs/training.md.

    python tests/benchmarks/surroundings.py --real-data DIR                 # all variants, two folds
    python tests/benchmarks/surroundings.py --real-data DIR --only swap --folds 0 1 2 3 --json out.json

Rows A–D of the real plate alone. Each variant is trained with the workflow's own code, once a fold,
and judged by the wells of that fold; dose ρ by the treatment wells of rows A–D, which no network
learns from. acc, GFP, DNA: balanced accuracy on whole crops, with GFP and with DNA of another cell;
erased: the cell grown by 2 px filled, the worse of both fills; call: share of erased cells called
negative; AUC: how well the margins of cells filled with the background's level still rank the
classes, whatever is called; enr: enrichment of Grad-CAMO, all, called negative, called positive;
null: share of empty maps; rel: background reliance; s: CPU seconds a network.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from plateglass import config, crops, jobs
from plateglass.explain.gradcam import gradcam_from_parts, gradcamo_score, upsample
from plateglass.models import cohort, training
from plateglass.models.controls import Draws, Views
from plateglass.models.pool import Pool, centre
from plateglass.models.recipe import Model
from plateglass.plan import Plan
from plateglass.project import Project
from plateglass.stages import train
from plateglass.units import plate_units
from plateglass.wells import Job

PLATE = "sbs_A-D"
# what differs from the defaults, not from config/sbs.yaml
VARIANTS = {
    "keep, erased not taught": {"surroundings": {"how": "keep", "erased": 0}},
    "keep": {"surroundings": {"how": "keep"}},
    "drop, erased not taught": {"surroundings": {"how": "drop", "erased": 0}},
    "swap .3, erased not taught": {"surroundings": {"p": 0.3, "erased": 0}},
    "swap .3, weight .5": {"surroundings": {"p": 0.3, "weight": 0.5}},
    "swap .5, erased not taught": {"surroundings": {"erased": 0}},
    "swap .5, erased not taught, drop .25": {"surroundings": {"erased": 0}, "drop": 0.25},
    "swap .5, weight .5": {"surroundings": {"weight": 0.5}},
    "swap .5, weight .5, drop .25": {"surroundings": {"weight": 0.5}, "drop": 0.25},
    "default: swap .5": {},
    "default, no channel dropping": {"drop": 0},
    "default, two blends": {"blends": 2},
}


def main() -> None:
    """Segment rows A–D, train each variant, print its row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--real-data", type=Path, required=True)
    parser.add_argument("--results", type=Path, help="a run of config/sbs.yaml to read cells from")
    parser.add_argument("--only", nargs="*", help="variants whose name contains one of these")
    parser.add_argument("--folds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        job = prepared(given, Path(scratch))
        pool, treated = cells(job, Path(scratch))
        rows = []
        for name, changes in VARIANTS.items():
            if given.only and not any(part in name for part in given.only):
                continue
            settings = settings_of(job, changes)
            rows.append({"variant": name, **row(settings, pool, treated, given.folds)})
            last = pd.DataFrame(rows[-1:])
            print(last.to_string(index=False, header=len(rows) == 1, float_format="%.3f"))
            if given.json:
                given.json.write_text(json.dumps(rows, indent=1) + "\n")


def settings_of(job: Job, changes: dict) -> config.TrainSettings:
    """The plate's classes, and the defaults but for what a variant changes."""
    train = job.config.train
    around = config.SurroundingsSettings().model_dump() | changes.get("surroundings", {})
    classes = {"classes": train.classes, "positive": train.positive}
    return config.TrainSettings.model_validate(classes | changes | {"surroundings": around})


def prepared(given: argparse.Namespace, scratch: Path) -> Job:
    """Rows A–D ingested and segmented, by this script or by an earlier run."""
    here = Path(__file__).parents[2] / "config" / "sbs.yaml"
    raw = yaml.safe_load(here.read_text())
    folder = (given.real_data / "sbs_rows_A-D").resolve()
    sheet = f"plate,path,layout,platemap,train\n{PLATE},{folder}/images,pattern,{folder}/platemap.csv,yes\n"
    (scratch / "plates.csv").write_text(sheet)
    raw |= {"plates": str(scratch / "plates.csv")}
    raw |= {"results": str((given.results or scratch / "results").resolve())}
    project = Project.read(config.parse(raw, scratch))
    if given.results is None:
        plan = Plan(project)
        for stage in ("ingest", "segment"):
            jobs.run(project, stage, PLATE, plan.keys[PLATE, stage], 1)
    return Job("train", PLATE, project)


def cells(job: Job, scratch: Path) -> tuple[Pool, list[tuple[float, np.ndarray]]]:
    """The control wells as the networks learn from them; dose level and crops of treatment wells."""
    train.collect(job, scratch / "cells")
    project, units = job.project, plate_units(job)
    treated = []
    for well in sorted(project.ledger("segment", PLATE).computed()):
        about = project.maps[PLATE].get(well, {})
        if about.get("role") == "treatment":
            found = train._well(job, well, 0, units)
            x = np.ascontiguousarray(centre(found.crops, job.config.train.crop))
            treated.append((float(about["dose_level"]), x))
    return Pool.open(scratch / "cells"), treated


def row(settings, pool: Pool, treated: list, wanted: list[int]) -> dict:
    """A variant's figures: means over folds of what the left-out wells say."""
    folds = cohort.split(pool.names, pool.classes, settings.folds)
    donors = train.donors(pool, settings.crop)
    channels = ["DNA", "GFP"]
    found, margins = [], []
    for task in cohort.tasks(
        pool, settings.model_copy(update={"seeds": 1, "controls": False}), folds
    ):
        fold = task.name.partition("fold")[2]
        if not fold or int(fold) not in wanted:
            continue
        start = time.process_time()
        network = training.fit(pool, settings, task).network
        spent = time.process_time() - start
        info = {"channels": channels, "classes": list(settings.classes), "folds": {}}
        model = Model(info, {task.name: network}, donors)
        figures = judged(model, task.name, pool, task.held_out, settings.crop)
        alpha = network.blend.importance()[1]
        found.append({**figures, "α GFP": float(alpha), "s": spent})
        with torch.inference_mode():
            logits = [
                torch.cat([network(part) for part in torch.from_numpy(x).split(256)])
                for _, x in treated
            ]
        margins.append([float((one[:, 1] - one[:, 0]).mean()) for one in logits])
    means = pd.DataFrame(found).mean().to_dict()
    return means | {"ρ": float(spearmanr([dose for dose, _ in treated], np.mean(margins, 0))[0])}


def judged(model: Model, name: str, pool: Pool, wells: tuple[int, ...], size: int) -> dict:
    """Accuracy, controls, enrichment and reliance on wells left out."""
    network, views, frames = model.networks[name], Views(model), []
    for i in wells:
        plate, well = pool.names[i]
        ids = [f"{plate}/{well}/{site}/{cell}" for site, cell in pool.cells_of[i]]
        drawn = Draws.of(model.donors, ids, model.info["channels"], 8)
        arrays = (centre(pool.crops[i], size), centre(pool.masks[i], size), pool.levels[i], *drawn)
        tensors = [torch.from_numpy(np.array(part)).split(256) for part in arrays]
        for x, masks, levels, texture, shuffled, others in zip(*tensors):
            with torch.inference_mode():
                maps, _, logits = network.parts(x)
                called = logits.argmax(1)
                coarse = gradcam_from_parts(maps, network.head.weight, called)
                score, enrichment = gradcamo_score(upsample(coarse, masks.shape[1:]), masks)
                frame = {"full": called, "enrichment": enrichment, "null": score.isnan()}
                frame |= views.controls(name, x, masks, levels, texture, shuffled)
                left = network(crops.erase(x, masks, levels))
                frame["left"] = left[:, 1] - left[:, 0]
                frame["reliance"] = views.reliance(network, logits, x, masks, others)
            table = pd.DataFrame({k: np.asarray(v) for k, v in frame.items()})
            frames.append(table.assign(label=pool.classes[i]))
    cells = pd.concat(frames)

    def accuracy(column: str) -> float:
        return float((cells[column] == cells["label"]).groupby(cells["label"]).mean().mean())

    erased = max(("Erased", "Erased_Texture"), key=accuracy)
    enrichment = cells["enrichment"]
    return {
        "acc": accuracy("full"),
        "GFP": accuracy("Shuffled_GFP"),
        "DNA": accuracy("Shuffled_DNA"),
        "erased": accuracy(erased),
        "call": float((cells[erased] == 0).mean()),
        "AUC": float(roc_auc_score(cells["label"] == 1, cells["left"])),
        "enr": float(enrichment.mean()),
        "enr −": float(enrichment[cells["full"] == 0].mean()),
        "enr +": float(enrichment[cells["full"] == 1].mean()),
        "null": float(cells["null"].mean()),
        "rel": float(cells["reliance"].mean()),
    }


if __name__ == "__main__":
    main()
