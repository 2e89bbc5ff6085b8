"""A screen's results as the stages leave them, invented: tables of 96 wells, images of a few."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from plateglass import config as settings
from plateglass import store, synthetic, tables
from plateglass.colours import colours_of
from plateglass.project import Project
from plateglass.report import fields
from plateglass.stages import report
from plateglass.store.maps import write_maps
from plateglass.wells import Job

CHANNELS = ["DNA", "Marker"]
CROP = 64
CLASSES = ["negative_control", "positive_control"]
RIGHT = {
    "Erased": 0.56,
    "Erased_Texture": 0.62,
    "Background": 0.9,
    "Permuted": 0.5,
    "Shuffled_DNA": 0.9,
    "Shuffled_Marker": 0.52,
}  # share of labelled cells that a control calls right
AUDIT = ("Metadata_Margin", "Metadata_GradCAMO", "Metadata_Enrichment", "Metadata_Reliance")
FEATURE = "Nuclei_AreaShape_Area"
TORN = "ingest: site 1, DNA: H12.tif ends after 12 of 640 rows"
NASTY = "<script>alert('label')</script>"


def whole(folder: Path) -> Job:
    """A screen of two plates with a model, a script for a label, and its reports."""
    job = make(folder, nasty=True)
    for name in ("P1", "P2"):
        report.run_plate(job.of(name))
    report.run_screen(job)
    return job


def make(
    folder: Path, model: bool = True, names: tuple[str, ...] = ("P1", "P2"), nasty: bool = False
) -> Job:
    """Write a screen's results under ``folder`` and return the screen's job."""
    folder.mkdir(parents=True, exist_ok=True)
    sheet = ["plate,path,layout,platemap,train"]
    for number, name in enumerate(names):
        (folder / name).mkdir()
        _platemap(mirrored=number % 2 == 1, nasty=nasty).to_csv(folder / f"{name}.csv", index=False)
        sheet.append(f"{name},{name},pattern,{name}.csv,{'yes' if number == 0 and model else 'no'}")
    (folder / "plates.csv").write_text("\n".join(sheet) + "\n")
    job = _job(folder, model)
    for number, name in enumerate(names):
        _plate(job.of(name), _platemap(number % 2 == 1, nasty), seed=number, model=model)
    if model:
        _model(job.model_dir)
    _selected(job, names)
    return job


def copy(job: Job, folder: Path) -> Job:
    """The same screen, one with a model, in another folder."""
    shutil.copytree(job.results.parent, folder)
    return _job(folder, model=True)


def _job(folder: Path, model: bool) -> Job:
    raw = {
        "plates": "plates.csv",
        "results": "results",
        "channels": {"DNA": {"match": "1"}, "Marker": {"match": "2"}},
        "segment": {"nuclei": {"channel": "DNA"}, "cells": {"channel": "Marker"}},
        "train": {"classes": CLASSES, "positive": "positive_control"} if model else {},
    }
    return Job("report", "screen", Project.read(settings.parse(raw, folder)))


def _platemap(mirrored: bool, nasty: bool) -> pd.DataFrame:
    rows = []
    for row in "ABCDEFGH":
        for column in range(1, 13):
            at = 13 - column if mirrored else column
            level = 0 if at <= 2 else 10 if at == 12 else at - 2
            role = (
                "negative_control" if at <= 2 else "positive_control" if at == 12 else "treatment"
            )
            compound = "vehicle" if at <= 2 else "wortmannin" if row in "ABCD" else "LY294002"
            rows.append((f"{row}{column:02d}", role, compound, level))
    table = pd.DataFrame(rows, columns=["well", "role", "compound", "dose_level"])
    if nasty:
        table.loc[table["well"] == "C05", "role"] = NASTY
    return table


def _plate(job: Job, platemap: pd.DataFrame, seed: int, model: bool) -> None:
    rng = np.random.default_rng(seed)
    sites = _sites(job, platemap, rng)
    used = sites[sites["Metadata_Quarantine"].isna()]
    display = {field.well for field in fields.choose(used, "Focus_DNA")}
    drawn = sorted({"A01", "A12", "D06", "G10"} | display)
    places = _store(job, platemap, drawn, seed)
    cells = []
    for record, count in zip(platemap.to_dict("records"), sites["Count_Cells"]):
        well = record["well"]
        frame = places.get(well, pd.DataFrame({"Metadata_Cell": np.arange(1, count + 1)}))
        frame = frame.assign(Metadata_Plate=job.plate, Metadata_Well=well, Metadata_Site=1)
        for column in ("role", "compound", "dose_level"):
            frame[f"Metadata_{column}"] = record[column]
        frame[FEATURE] = rng.normal(300, 40, len(frame))
        if model:
            _audit(frame, record["dose_level"], rng, explained=well in drawn)
        cells.append(frame)
    table = pd.concat(cells, ignore_index=True)
    wells = platemap.rename(columns=lambda name: f"Metadata_{name}")
    wells = wells.rename(columns={"Metadata_well": "Metadata_Well"}).set_index("Metadata_Well")
    by_well = table.groupby("Metadata_Well")
    wells = wells.assign(Metadata_Plate=job.plate, Metadata_Count_Cells=by_well.size())
    wells = wells.assign(Metadata_Quarantine=None)
    wells = wells.join(by_well[[c for c in AUDIT if c in table]].mean())
    wells = wells.join(by_well[[FEATURE]].median()).reset_index()
    for name, found in {"cells": table, "sites": sites, "wells": wells}.items():
        tables.write(job.plate_dir / f"{name}.parquet", found)
    normalized = wells.assign(Metadata_Normalized_To="16 negative-control wells")
    tables.write(job.plate_dir / "wells_normalized.parquet", normalized)
    if model:
        _maps(job, table[table["Metadata_PCIM_Enrichment"].notna()], rng)


def _sites(job: Job, platemap: pd.DataFrame, rng) -> pd.DataFrame:
    """A site a well; H12 is in quarantine, A12 flagged, G10 out of focus."""
    wells = platemap["well"]
    count = rng.normal(24 - 0.4 * platemap["dose_level"], 2).astype(int)
    focus = rng.lognormal(5, 0.12, len(wells)) * np.where(wells == "G10", 0.3, 1)
    return pd.DataFrame(
        {
            "Metadata_Plate": job.plate,
            "Metadata_Well": wells,
            "Metadata_Site": 1,
            "Metadata_Flag": wells.map({"A12": "saturated: Marker"}),
            "Metadata_Quarantine": wells.map({"H12": TORN}),
            "Focus_DNA": focus,
            "Count_Cells": count,
            "Orphan_Nuclei": 2,
            "Orphan_Cells": 1,
        }
    )


def _audit(frame: pd.DataFrame, level: int, rng, explained: bool) -> None:
    count = len(frame)
    margin = rng.normal(-3 + 6 / (1 + np.exp(-(level - 5))), 1.2, count)
    frame["Metadata_Class"] = np.where(margin > 0, CLASSES[1], CLASSES[0])
    frame["Metadata_Margin"] = margin
    score = rng.beta(6, 4, count)
    score[rng.random(count) < 0.004] = np.nan
    frame["Metadata_GradCAMO"] = score
    frame["Metadata_Enrichment"] = score * 3.6
    frame["Metadata_Reliance"] = rng.beta(1.3, 14, count)
    if level in (0, 10):
        true = CLASSES[level == 10]
        other = CLASSES[level == 0]
        for name, right in RIGHT.items():
            frame[f"Metadata_Class_{name}"] = np.where(rng.random(count) < right, true, other)
    frame["Metadata_PCIM_Enrichment"] = np.where(explained, rng.normal(2.8, 0.4, count), np.nan)


def _store(
    job: Job, platemap: pd.DataFrame, drawn: list[str], seed: int
) -> dict[str, pd.DataFrame]:
    """Images and labels of some wells, and the cells that are in them."""
    kinds = {0: synthetic.NEGATIVE, 10: synthetic.POSITIVE}
    levels = dict(zip(platemap["well"], platemap["dose_level"]))
    wells = {well: kinds.get(levels[well], synthetic.DOSES[2]) for well in drawn}
    spec = synthetic.PlateSpec(
        job.plate, wells, seed=seed, channels=("DNA", "Marker"), size=320, cells=20
    )
    display = {name: (100, 2400, colour) for name, colour in colours_of(CHANNELS).items()}
    places = {}
    for well in drawn:
        site = synthetic.render_site(spec, well, 1)
        store.write_field(job.store, well, 0, site.image, 0.65, CHANNELS, display)
        store.write_well(job.store, well, [1])
        for name, labels in (("nuclei", site.nuclei), ("cells", site.cells)):
            store.write_labels(job.store, well, 0, name, labels)
        numbers = np.unique(site.nuclei[site.nuclei > 0])
        centres = [np.argwhere(site.nuclei[0] == number).mean(0) for number in numbers]
        edge = [bool(min(c) < 16 or max(c) > 304) for c in centres]
        places[well] = pd.DataFrame({"Metadata_Cell": numbers, "Metadata_Edge": edge})
    store.write_plate(job.store, dict.fromkeys(drawn, 1), CHANNELS, job.plate)
    return places


def _maps(job: Job, explained: pd.DataFrame, rng) -> None:
    """Grad-CAM maps that leave the cell as its Grad-CAMO falls, PCIM maps on its middle."""
    y, x = np.mgrid[:CROP, :CROP] - CROP / 2
    for well, rows in explained.groupby("Metadata_Well"):
        shift = 22 * (1 - rows["Metadata_GradCAMO"].fillna(0).to_numpy())[:, None, None]
        noise = ndimage.gaussian_filter(rng.normal(size=(len(rows), CROP, CROP)), (0, 1.2, 1.2))
        found = {
            "site": rows["Metadata_Site"].to_numpy(),
            "cell": rows["Metadata_Cell"].to_numpy(),
            "gradcam": np.exp(-((y - shift) ** 2 + (x + shift) ** 2) / 160).astype(np.float16),
            "pcim": (noise * np.exp(-(y**2 + x**2) / 220)).astype(np.float16),
        }
        write_maps(job.plate_dir / "attribution.zarr", well, found, {})


def _model(folder: Path) -> None:
    folder.mkdir(parents=True)
    info = {
        "format": 1,
        "key": "0123456789abcdef",
        "backbone": "test_resnet",
        "channels": CHANNELS,
        "crop": {"px": CROP, "um_per_px": 0.65},
        "classes": CLASSES,
        "positive": CLASSES[1],
        "seeds": 3,
        "folds": {"P1": {f"{row}01": at % 3 for at, row in enumerate("ABCDEFGH")}},
    }
    (folder / "model.json").write_text(json.dumps(info))
    intervals = {"ablation": ([0.91, 0.52], 0.03), "single": ([0.71, 0.94], 0.05)}
    channels = pd.DataFrame({"channel": CHANNELS, "log_alpha": np.log([0.24, 0.76])})
    for seed, alpha in enumerate(([0.22, 0.78], [0.25, 0.75], [0.26, 0.74])):
        channels[f"alpha_seed{seed}"] = alpha
    channels = channels.assign(accuracy=0.955, accuracy_low=0.93, accuracy_high=0.97)
    for name, (value, half) in intervals.items():
        channels[name] = value
        channels[f"{name}_low"], channels[f"{name}_high"] = (
            channels[name] - half,
            channels[name] + half,
        )
    channels.assign(copy_of=None).to_parquet(folder / "channels.parquet")
    controls = [
        ("full", "", 0.955),
        ("full, seed 1", "", 0.95),
        ("full, seed 2", "", 0.96),
        ("erased", "Level", 0.58),
        ("erased", "Texture", 0.61),
        ("erased", "worse", 0.61),
        ("shuffled", "DNA", 0.91),
        ("shuffled", "Marker", 0.52),
        ("background", "", 0.97),
        ("permuted", "", 0.51),
    ]
    table = pd.DataFrame(controls, columns=["control", "channel", "accuracy"])
    table = table.assign(low=table["accuracy"] - 0.04, high=table["accuracy"] + 0.03)
    table = table.assign(
        wells=24, cells=500, share_negative_control=0.7, share_positive_control=0.3
    )
    column = {"control": "column", "channel": "", "accuracy": 0.03}
    pd.concat([table, pd.DataFrame([column])]).to_parquet(folder / "controls.parquet")
    rng = np.random.default_rng(7)
    names = [f"seed{s}.{part}" for s in range(3) for part in ("final", "fold0", "fold1")]
    rows = []
    for name in [*names, "background.final", "permuted.fold1", "single0.half0", "single1.half1"]:
        for epoch in range(1, 9 if name.startswith("seed") else 5):
            held_out = np.nan if name.endswith("final") else 0.97 - 0.5 * np.exp(-epoch / 2)
            rows.append(
                {
                    "network": name,
                    "epoch": epoch,
                    "loss": 0.7 * np.exp(-epoch / 3) + 0.05 + 0.02 * rng.random(),
                    "accuracy": 1 - 0.5 * np.exp(-epoch / 2) - 0.02 * rng.random(),
                    "held_out": held_out,
                }
            )
    pd.DataFrame(rows).to_parquet(folder / "history.parquet")


def _selected(job: Job, names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(3)
    paths = [job.results / name / "wells.parquet" for name in names]
    both = pd.concat(map(tables.read, paths), ignore_index=True)
    direction = rng.normal(size=12)
    level = both["Metadata_dose_level"].to_numpy() / 10
    for i in range(12):
        both[f"Cells_Embedding_{i:03d}"] = direction[i] * level + rng.normal(0, 0.2, len(both))
    tables.write(job.results / "screen" / "wells_selected.parquet", both)
