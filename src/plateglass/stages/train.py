"""train: networks behind a DCMIX blend, judged by the wells they were not shown.

Training wells' crops are cut once to ``.plateglass/train/<key>``; every network, the controls and the
single-channel ones learn from there, side by side. Out-of-fold cells then give the channels' and the
controls' tables. ``model.json`` is written last: without it there is no model.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from plateglass import crops, store, tables
from plateglass.errors import DataError
from plateglass.files import damage_of
from plateglass.measure import assay
from plateglass.models import cohort, device
from plateglass.models.batches import across
from plateglass.models.controls import Donors, Draws, Views, draw
from plateglass.models.pool import Pool, Well, centre
from plateglass.models.recipe import Model, save_model
from plateglass.models.training import MARGIN, Trained
from plateglass.units import COPIES, Units, plate_units
from plateglass.wells import Job

DONORS = 128  # cells a class
BATCH = 128


@dataclass(frozen=True)
class Learnt:
    """The networks of a screen by their tasks' names, the cells they learnt from, and the folds."""

    pool: Pool
    folds: list[int]
    trained: dict[str, Trained]


def learn(job: Job, unchanged: Callable[[], None]) -> Learnt:
    """Train all networks of the screen, in the engine's folder; resumes what it began.

    ``unchanged`` raises where training wells are not what they were when the job began: it is asked
    before their crops count.
    """
    settings = job.config.train
    scratch = _scratch(job)
    if not (scratch / "cells" / "wells.json").exists():
        collect(job, scratch / "cells", unchanged)
    with damage_of(scratch / "cells", ValueError, KeyError):
        pool = Pool.open(scratch / "cells")
    folds = cohort.split(pool.names, pool.classes, settings.folds)
    wanted = cohort.tasks(pool, settings, folds)
    trained = cohort.train_all(
        scratch,
        scratch / "cells",
        settings,
        wanted,
        job.threads,
        device.choose(job.config.run.device),
        lambda done, of: job.progress(done, of, "networks"),
    )
    return Learnt(pool, folds, trained)


def write(job: Job, learnt: Learnt) -> None:
    """Judge what was learnt, and write ``results/screen/model``."""
    pool, folds, trained = learnt.pool, learnt.folds, learnt.trained
    settings, key = job.config.train, job.model
    info = describe(job, pool, folds, trained)
    model = Model(
        info,
        {name: t.network for name, t in trained.items() if not name.startswith("single")},
        donors(pool, settings.crop),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cells = judge(model, pool, folds)
    alone = judge_alone(trained, pool, folds, settings.crop) if settings.controls else None
    torch.set_num_threads(threads)
    folder = job.results / "screen" / "model"
    provenance = {**job.project.provenance("train"), "model": key}
    rows = [row for t in trained.values() for row in t.history]
    (folder / "model.json").unlink(missing_ok=True)  # an old model never stands beside new tables
    tables.write(folder / "history.parquet", pd.DataFrame(rows), provenance)
    channels = channel_table(info, pool, cells, alone)
    tables.write(folder / "channels.parquet", channels, provenance)
    tables.write(folder / "controls.parquet", control_table(info, cells), provenance)
    info["accuracy"] = float(channels["accuracy"].iloc[0])
    if channels["log_alpha"].isna().all():  # at chance accuracy α means nothing
        info["alpha"] = None
    save_model(folder, info, model.networks, model.donors)
    shutil.rmtree(_scratch(job).parent)  # and what a killed job of other wells or settings left


def _scratch(job: Job) -> Path:
    return job.state / "train" / str(job.model)


# ---------------------------------------------------------------------- what is learnt from
def collect(job: Job, folder: Path, unchanged: Callable[[], None] = lambda: None) -> None:
    """Write the crops of all training wells to ``folder``, as a Pool opens it; see `learn`.

    Raises
    ------
    DataError
        A class has fewer than two wells with cells, so none can be held out.
    """
    settings = job.config.train
    project = job.project
    count = dict.fromkeys(settings.classes, 0)

    def wells() -> Iterator[Well]:
        for plate in project.training_plates():
            own = job.of(plate)
            units = plate_units(own)
            chosen = project.units_wells(plate, project.ledger("ingest", plate))
            if not set(chosen) & set(units.wells):
                # others that stand in for them would change the networks behind the plan's back
                raise DataError(
                    f"plate {plate}: none of the wells that its units are made from can be read "
                    f"({', '.join(chosen[:6])}); mend their images, or let the plate not train"
                )
            segmented = project.ledger("segment", plate).computed()
            for well, label in sorted(project.classed(plate).items()):
                if well in segmented:
                    found = _well(own, well, settings.classes.index(label), units)
                    if len(found.crops):
                        count[label] += 1
                        yield found
        for label, number in count.items():
            if number < 2:
                raise DataError(
                    f"train.classes: {label!r} has {number} training well(s) with cells, 2 are needed "
                    "to hold wells out; see the quarantined wells in the report"
                )
        unchanged()

    Pool.create(folder, wells())


def _well(job: Job, well: str, label: int, units: Units) -> Well:
    """A training well; at most ``train.cells_per_well`` of its cells, chosen by a hash."""
    side, most = job.config.train.crop + MARGIN, job.config.train.cells_per_well
    channels = len(job.config.channel_names)
    textures = [np.zeros((0, channels, side, side), np.float32)]
    pieces = [(textures[0], textures[0][:, 0] > 0, textures[0][:, :, 0, 0], np.zeros((0, 2), int))]
    for field, site in enumerate(store.sites(job.store, well)):
        image = units.apply(store.read_field(job.store, well, field)[:, 0])
        nuclei = store.read_labels(job.store, well, field, "nuclei")[0]
        cells = store.read_labels(job.store, well, field, "cells")[0]
        x, masks, numbers, _ = crops.cut(image, cells, side, nuclei)
        level = np.tile(crops.background(image, cells), (len(x), 1))
        pieces.append((x, masks, level, np.stack([np.full(len(x), site), numbers], 1)))
        if (patch := crops.texture(image, cells, side)) is not None:
            textures.append(patch[None])
    parts = [np.concatenate(part) for part in zip(*pieces)]
    if most is not None and len(parts[0]) > most:
        ids = [f"{job.plate}/{well}/{site}/{cell}" for site, cell in parts[3]]
        kept = sorted(sorted(range(len(ids)), key=lambda i: draw(ids[i], "train", 1 << 62))[:most])
        parts = [part[kept] for part in parts]
    x, masks, levels, who = parts
    return Well((job.plate, well), label, x, masks, levels, np.concatenate(textures), who)


def donors(pool: Pool, size: int) -> Donors:
    """As many cells of each class, spread over its wells, with the fields' textures."""
    found, names = [], []
    for k in sorted(set(pool.classes)):
        wells = [i for i, label in enumerate(pool.classes) if label == k]
        for turn in range(DONORS):
            well = wells[turn % len(wells)]
            plate_well = "/".join(pool.names[well])
            at = draw(plate_well, f"donor.{turn}", len(pool.crops[well]))
            crop = centre(pool.crops[well][at], size).astype(np.float16)
            mask = np.ascontiguousarray(centre(pool.masks[well][at], size))
            found.append((crop, mask, pool.levels[well][at], k))
            names.append(plate_well)
    x, masks, levels, classes = zip(*found)
    textures = [centre(patch, size).astype(np.float16) for of in pool.textures for patch in of]
    empty = np.zeros((0, *x[0].shape), np.float16)
    return Donors(
        np.stack(x),
        np.stack(masks),
        np.stack(levels).astype(np.float32),
        np.array(classes, np.int64),
        np.stack(textures[:64]) if textures else empty,
        names,
    )


def describe(job: Job, pool: Pool, folds: list[int], trained: dict[str, Trained]) -> dict:
    """The model's ``model.json``, less what is measured afterwards."""
    settings = job.config.train
    plate, well = pool.names[0]
    by_plate: dict[str, dict[str, int]] = {}
    for (plate_, well_), fold in zip(pool.names, folds):
        by_plate.setdefault(plate_, {})[well_] = fold
    channels = job.config.channel_names
    alpha = {
        f"seed{s}": dict(
            zip(channels, trained[f"seed{s}.final"].network.blend.importance().tolist())
        )
        for s in range(settings.seeds)
    }
    return {
        "key": job.model,
        "settings": job.project.settings("train")["train"],
        "backbone": settings.backbone,
        "cut": trained["seed0.final"].network.cut,
        "channels": list(channels),
        "blends": settings.blends,
        "alpha_kind": settings.alpha,
        "drop": settings.drop,
        "crop": {
            "px": settings.crop,
            "um_per_px": store.pixel_size(job.of(plate).store, well)[0],
        },
        "units": {
            name: {"background": u.background, "scale": u.scale}
            for name in by_plate
            for u in [plate_units(job.of(name))]
        },
        "classes": list(settings.classes),
        "positive": job.config.positive,
        "folds": by_plate,
        "seeds": settings.seeds,
        "alpha": alpha,
    }


# ---------------------------------------------------------------------- what came of it
def judge(model: Model, pool: Pool, folds: list[int]) -> pd.DataFrame:
    """Each training cell out of fold: label, class by seed 0, by the other seeds, by each control."""
    names = model.info["classes"]
    size = model.info["crop"]["px"]
    frames = []
    views = Views(model)
    for fold in sorted(set(folds)):
        look = _OutOfFold(model, views, fold)
        wells = [i for i, of in enumerate(folds) if of == fold]
        for i, called in across(_cells(model, pool, wells, size), look, BATCH, model.device):
            frame = pd.DataFrame({c: np.array(names)[k] for c, k in zip(look.columns, called)})
            frame.insert(0, "label", names[pool.classes[i]])
            frame.insert(0, "Metadata_Well", pool.names[i][1])
            frame.insert(0, "Metadata_Plate", pool.names[i][0])
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


class _OutOfFold:
    """Classes of a batch by each seed's network of a fold and by each control; names in `columns`."""

    def __init__(self, model: Model, views: Views, fold: int):
        self.model, self.views, self.fold = model, views, fold
        self.columns: list[str] = []

    @torch.inference_mode()
    def __call__(self, x: torch.Tensor, *views: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = {
            f"Metadata_Class_Seed{s}": self.model.networks[f"seed{s}.fold{self.fold}"](x).argmax(1)
            for s in range(self.model.info["seeds"])
        }
        kept = self.views.controls(f"seed0.fold{self.fold}", x, *views)
        found |= {f"Metadata_Class_{control}": called for control, called in kept.items()}
        self.columns = list(found)
        return tuple(found.values())


def _cells(model: Model, pool: Pool, wells: list[int], size: int) -> Iterator:
    """Wells of a pool as items of `across`: crops, masks, levels and draws of their cells."""
    for i in wells:
        plate, well = pool.names[i]
        ids = [f"{plate}/{well}/{site}/{cell}" for site, cell in pool.cells_of[i]]
        drawn = Draws.of(model.donors, ids, model.info["channels"], 0)
        x, masks = (np.asarray(centre(part[i], size)) for part in (pool.crops, pool.masks))
        yield i, (x, masks, np.asarray(pool.levels[i]), drawn.texture, drawn.shuffled)


def judge_alone(
    trained: dict[str, Trained], pool: Pool, folds: list[int], size: int
) -> pd.DataFrame:
    """Each training cell by the single-channel networks of the half that left it out."""
    frames = []
    for i, (plate, well) in enumerate(pool.names):
        frame = pd.DataFrame({"label": np.full(len(pool.crops[i]), pool.classes[i])})
        frame.insert(0, "Metadata_Well", well)
        frame.insert(0, "Metadata_Plate", plate)
        x = torch.from_numpy(np.ascontiguousarray(centre(pool.crops[i], size)))
        for k in range(x.shape[1]):
            if one := trained.get(f"single{k}.half{folds[i] % cohort.HALVES}"):
                with torch.inference_mode():
                    logits = torch.cat([one.network(part[:, [k]]) for part in x.split(BATCH)])
                frame[f"single{k}"] = logits.argmax(1).numpy()
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _accuracy(cells: pd.DataFrame, column: str) -> assay.Interval:
    return assay.balanced_accuracy(assay.hits(cells, "label", column))


def channel_table(
    info: dict, pool: Pool, cells: pd.DataFrame, alone: pd.DataFrame | None
) -> pd.DataFrame:
    """A row a channel: mean log α and α by seed (null at chance), ablation, accuracy alone, copies.

    Accuracies are out of fold on training wells, seed 0, with 95 % intervals over wells.
    """
    channels, seeds = info["channels"], list(info["alpha"])
    full = _accuracy(cells, "Metadata_Class_Seed0")
    chance = 1 / len(info["classes"])
    told = (full.value - 0.05 if full.low is None else full.low) > chance
    twins = copies(pool, channels)
    rows = []
    for k, channel in enumerate(channels):
        alphas = {seed: info["alpha"][seed][channel] if told else math.nan for seed in seeds}
        row = {
            "channel": channel,
            "log_alpha": float(np.mean([math.log(max(a, 1e-12)) for a in alphas.values()])),
            **{f"alpha_{seed}": a for seed, a in alphas.items()},
            "accuracy": full.value,
            "accuracy_low": full.low,
            "accuracy_high": full.high,
        }
        shuffled = _accuracy(cells, f"Metadata_Class_Shuffled_{channel}")
        single = assay.Interval(math.nan, None, None, 0)
        if alone is not None and f"single{k}" in alone:
            single = _accuracy(alone, f"single{k}")
        for name, figure in (("ablation", shuffled), ("single", single)):
            row |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        row["copy_of"] = twins.get(channel)
        rows.append(row)
    table = pd.DataFrame(rows)
    numbers = [name for name in table if name not in ("channel", "copy_of")]
    return table.astype({name: "float64" for name in numbers} | {"copy_of": "string"})


def copies(pool: Pool, channels: list[str]) -> dict[str, str]:
    """Channels whose pixels correlate > .9 with one before them: channel → the one before."""
    each = [x[:50, :, ::2, ::2] for x in pool.crops]
    pixels = np.concatenate([x.transpose(1, 0, 2, 3).reshape(len(channels), -1) for x in each], 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        alike = np.atleast_2d(np.corrcoef(pixels))
    return {
        channels[b]: channels[a]
        for b in range(len(channels))
        for a in reversed(range(b))
        if alike[a, b] > COPIES
    }


def control_table(info: dict, cells: pd.DataFrame) -> pd.DataFrame:
    """A row a control: balanced accuracy out of fold with its interval, shares of the classes called.

    *column* is a difference of shares, not an accuracy: negative wells' cells called positive in
    their last column less in their first.
    """
    names, rows = info["classes"], []

    def add(control: str, channel: str, column: str) -> float:
        figure = _accuracy(cells, column)
        shares = cells[column].value_counts(normalize=True)
        rows.append(
            {
                "control": control,
                "channel": channel,
                "accuracy": figure.value,
                "low": figure.low,
                "high": figure.high,
                "wells": figure.wells,
                "cells": len(cells),
                **{f"share_{name}": float(shares.get(name, 0.0)) for name in names},
            }
        )
        return figure.value

    for seed in range(info["seeds"]):
        add("full" if seed == 0 else f"full, seed {seed}", "", f"Metadata_Class_Seed{seed}")
    for column in [c for c in cells if c.startswith("Metadata_Class_") and "_Seed" not in c]:
        control, _, channel = column.removeprefix("Metadata_Class_").partition("_")
        add(control.lower(), channel, column)
    erased = [row for row in rows if row["control"] == "erased"]
    worse = max(erased, key=lambda row: row["accuracy"])
    for row in erased:
        row["channel"] = row["channel"] or "Level"
    rows.append({**worse, "channel": "worse"})
    rows.append({"control": "column", "channel": "", "accuracy": _column(info, cells)})
    table = pd.DataFrame(rows)
    return table.astype({"wells": "Int64", "cells": "Int64", "low": "float64", "high": "float64"})


def _column(info: dict, cells: pd.DataFrame) -> float:
    others = cells[cells["label"] != info["positive"]]
    column = others["Metadata_Well"].str.extract(r"(\d+)$")[0].astype(int)
    called = (others["Metadata_Class_Seed0"] == info["positive"]).groupby(column).mean()
    return float(called.iloc[-1] - called.iloc[0]) if len(called) > 1 else math.nan
