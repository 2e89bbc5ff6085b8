"""ROAD gaps, planted pixels and seconds of attribution maps: the table of docs/benchmarks.md.

    python tests/benchmarks/attribution.py --synthetic [--retrain]
    python tests/benchmarks/attribution.py --results results --plate sbs_E-F

The first draws crops whose deciding pixels are known and trains two networks on them; with --retrain
it removes each map's most relevant pixels instead and trains anew without them. The second takes
labelled wells of a plate that was run (its store, parts and model) and asks two networks of the
model that never saw them. Intervals are bootstrapped over wells within each class; *first* is printed
where the paired interval of PCIM's difference to the best rival excludes 0, else *tie*.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from plateglass.explain import gradcam_from_parts, pcim, rivals
from plateglass.explain.fidelity import (
    average_precision,
    cell_share,
    deletion,
    impute,
    insertion,
    ranking,
    road_gap,
)
from plateglass.explain.pcim import RECIPES

DRAWS = 1000
BATCH = 64
REMOVED = 0.1  # of a crop's pixels, before networks are trained anew


@dataclass
class Cells:
    """Crops with what is known of them, and the networks asked about them."""

    x: Tensor
    masks: Tensor
    wells: np.ndarray  # names
    classes: np.ndarray  # of the well
    own: nn.Module
    other: nn.Module
    planted: Tensor | None = None

    def target(self) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.own(x).argmax(1) for x in self.x.split(BATCH)])


def rows(recipes: list[str]) -> dict:
    """Maps by name: ``method(network, x, target)``. PCIM's rows first."""
    known = {f"PCIM {name}": _pcim(name) for name in recipes}
    blurs = (2.0, 4.0, 8.0)
    return known | {
        "IG signed, blurs 2 4 8": lambda f, x, t: rivals.integrated_gradients(f, x, t, blurs),
        "IG absolute, zero": lambda f, x, t: rivals.integrated_gradients(
            f, x, t, (), 16, signed=False
        ),
        "gradient × input, absolute": rivals.gradient_input,
        "SmoothGrad": rivals.smoothgrad,
        "Grad-CAM": _gradcam,
        "intensity": lambda f, x, t: rivals.intensity(x),
        "|x − blur|": lambda f, x, t: rivals.edges(x),
        "centred Gaussian": lambda f, x, t: rivals.centre(x),
        "random": lambda f, x, t: rivals.random(x),
    }


def _pcim(name: str):
    def maps(network, x, target):
        found = pcim(network, x, target, name)
        return found.sum(1) if found.ndim == x.ndim else found

    return maps


def _gradcam(network, x, target):
    with torch.no_grad():
        maps, _, _ = network.parts(x)
        return gradcam_from_parts(maps, network.head.weight, target, x.shape[2:])


def judge(cells: Cells, method, diagnostics: bool = False) -> dict[str, np.ndarray]:
    """Each measure of one kind of map, by cell."""
    target = cells.target()
    batches = list(zip(cells.x.split(BATCH), target.split(BATCH)))
    start = time.perf_counter()
    maps = torch.cat([method(cells.own, x, t) for x, t in batches])
    seconds = (time.perf_counter() - start) / len(maps)
    found = {"own": [], "other": []} | ({"deletion": [], "insertion": []} if diagnostics else {})
    for (x, t), m in zip(batches, maps.split(BATCH)):
        found["own"].append(road_gap(cells.own, x, m, t))
        found["other"].append(road_gap(cells.other, x, m, t))
        if diagnostics:
            found["deletion"].append(deletion(cells.own, x, m, t, steps=8))
            found["insertion"].append(insertion(cells.own, x, m, t, steps=8))
    measures = {name: torch.cat(parts).numpy() for name, parts in found.items()}
    measures["enrichment"] = cell_share(maps, cells.masks)[1].numpy()
    if cells.planted is not None:
        measures["planted"] = average_precision(maps, cells.planted).numpy()
    measures["ms"] = np.full(len(maps), 1e3 * seconds)
    return measures


def interval(values: np.ndarray, cells: Cells) -> tuple[float, float, float]:
    """Mean, and 95 % bootstrap interval over wells within each class."""
    rng = np.random.default_rng(0)
    by_well = {w: values[cells.wells == w] for w in np.unique(cells.wells)}
    groups = {
        c: [by_well[w] for w in np.unique(cells.wells[cells.classes == c])]
        for c in np.unique(cells.classes)
    }
    means = []
    for _ in range(DRAWS):
        drawn = [g[i] for g in groups.values() for i in rng.integers(len(g), size=len(g))]
        means.append(np.nanmean(np.concatenate(drawn)))
    low, high = np.percentile(means, (2.5, 97.5))
    return float(np.nanmean(values)), float(low), float(high)


def report(cells: Cells, recipes: list[str], title: str, diagnostics: bool = False) -> dict:
    """Print the table, and where PCIM's default stands; returns the figures."""
    print(f"\n{title}: {len(cells.x)} cells of {len(set(cells.wells))} wells\n")
    table = {}
    measures = ["own", "other", *(["planted"] if cells.planted is not None else [])]
    beside = ["enrichment", *(["deletion", "insertion"] if diagnostics else []), "ms"]
    print("| map | " + " | ".join([*measures, "own by class", *beside]) + " |")
    print("|---" * (2 + len(measures) + len(beside)) + "|")
    for name, method in rows(recipes).items():
        table[name] = judge(cells, method, diagnostics)
        columns = []
        for measure in measures:
            mean, low, high = interval(table[name][measure], cells)
            columns.append(f"{mean:.3f} ({low:.3f}–{high:.3f})")
        by_class = [table[name]["own"][cells.classes == c].mean() for c in np.unique(cells.classes)]
        columns.append(" / ".join(f"{value:.3f}" for value in by_class))
        columns += [f"{np.nanmean(table[name][d]):.2f}" for d in beside]
        print(f"| {name} | " + " | ".join(columns) + " |", flush=True)
    _standing(table, measures, f"PCIM {recipes[0]}", cells)
    return {
        name: {m: interval(values, cells) for m, values in found.items()}
        for name, found in table.items()
    }


def _standing(table: dict, measures: list[str], first: str, cells: Cells) -> None:
    """Where a row stands beside the best rival and the untrained blend, cell by cell."""
    wells = np.unique(cells.wells)
    few = min(len(np.unique(cells.wells[cells.classes == c])) for c in np.unique(cells.classes)) < 4
    for measure in measures:
        best = max(
            (name for name in table if not name.startswith("PCIM")),
            key=lambda name: np.nanmean(table[name][measure]),
        )
        for name in (best, "PCIM untrained"):
            if name not in table or name == first:
                continue
            away = table[first][measure] - table[name][measure]
            mean, low, high = interval(away, cells)
            word = "first" if low > 0 else "behind" if high < 0 else "tie"
            print(f"{measure}: {first} less {name} {mean:+.3f} ({low:+.3f} to {high:+.3f}): {word}")
            if few:  # an interval over two wells of a class says little: the wells themselves
                by_well = (f"{w} {np.nanmean(away[cells.wells == w]):+.3f}" for w in wells)
                print("    by well: " + ", ".join(by_well))


def planted(seed: int, bright_field: bool = False, n: int = 120) -> Cells:
    """Cells of two classes told by their granules, round or long; two networks trained on others."""
    x, _, _, labels = draw_cells(1200, 2 * seed + 1000, bright_field)
    own, other = (train(x, labels, seed=2 * seed + k) for k in (0, 1))
    x, masks, deciding, labels = draw_cells(n, 2 * seed + 1001, bright_field)
    wells = np.array([f"{label}{i % 8}" for i, label in enumerate(labels.tolist())])
    cells = Cells(x, masks, wells, labels.numpy(), own, other, deciding)
    for network in (own, other):
        network.requires_grad_(False)
    accuracy = (cells.target() == labels).float().mean()
    print(f"synthetic seed {seed}: accuracy {accuracy:.3f}", file=sys.stderr)
    return cells


def retrained(seed: int, bright_field: bool, recipes: list[str]) -> dict[str, float]:
    """Remove and retrain (Hooker 2019): accuracy of networks that learn without what each map names.

    The most relevant tenth of each crop's pixels is imputed, in crops to learn from and in those held
    out. Lower is better: what is left tells less.
    """
    x, _, deciding, labels = draw_cells(1200, 2 * seed + 1000, bright_field)
    held, _, there, wanted = draw_cells(600, 2 * seed + 1001, bright_field)
    asked = train(x, labels, seed=2 * seed).requires_grad_(False)

    def without(method, crops: Tensor, planted: Tensor) -> Tensor:
        left = []
        for part, known in zip(crops.split(BATCH), planted.split(BATCH)):
            called = asked(part).argmax(1)
            maps = method(asked, part, called) if method else known.float()
            order = ranking(maps)
            gone = torch.zeros_like(order, dtype=torch.bool)
            gone.scatter_(1, order[:, -round(REMOVED * order.shape[1]) :], True)
            left.append(impute(part, gone.view(maps.shape)))
        return torch.cat(left)

    def accuracy(network: nn.Module, crops: Tensor) -> float:
        called = torch.cat([network(part).argmax(1) for part in crops.split(BATCH)])
        return float((called == wanted).float().mean())

    found = {"nothing removed": accuracy(asked, held)}
    print("| pixels removed by | accuracy of a network trained without them |\n|---|---|")
    print(f"| nothing removed | {found['nothing removed']:.3f} |", flush=True)
    for name, method in (rows(recipes) | {"the planted pixels": None}).items():
        anew = train(without(method, x, deciding), labels, seed=2 * seed + 1).requires_grad_(False)
        found[name] = accuracy(anew, without(method, held, there))
        print(f"| {name} | {found[name]:.3f} |", flush=True)
    return found


def draw_cells(n: int, seed: int, bright_field: bool, size: int = 64):
    """Crops (n, 2, size, size), the cell's mask, the deciding pixels, the class.

    Channel 0 nuclei; channel 1 cytoplasm with 3 to 6 granules, round (class 0) or long (class 1), and
    a smooth bright decoy; neighbours have granules of either kind. Bright field: granules are dark.
    """
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    grid = np.mgrid[:size, :size]
    x = np.zeros((n, 2, size, size), np.float32)
    masks, deciding = np.zeros((2, n, size, size), bool)
    labels = rng.integers(0, 2, n)

    def disc(centre, axes, angle):
        y, z = grid[0] - centre[0], grid[1] - centre[1]
        along, across = (
            y * np.cos(angle) + z * np.sin(angle),
            z * np.cos(angle) - y * np.sin(angle),
        )
        return (along / axes[0]) ** 2 + (across / axes[1]) ** 2 < 1

    for i in range(n):
        for cell in range(1 + rng.integers(1, 4)):
            turn = rng.uniform(0, 2 * np.pi)
            away = 30 * np.array([np.sin(turn), np.cos(turn)]) * (cell > 0)
            centre = size / 2 + away
            shape = disc(centre, rng.uniform((13, 11), (18, 15)), rng.uniform(0, np.pi))
            if cell:
                shape &= ~masks[i]
            else:
                masks[i] = shape
            nucleus = disc(centre + rng.normal(0, 1.5, 2), rng.uniform(5, 8, 2), 0)
            x[i, 0] += nucleus * rng.uniform(0.6, 1.2)
            x[i, 1] += shape * rng.uniform(0.25, 0.5)
            inside = np.argwhere(ndimage.binary_erosion(shape, iterations=2))
            if not len(inside):
                continue
            long = labels[i] if cell == 0 else rng.integers(0, 2)
            granules = np.zeros((size, size))
            for y, z in inside[rng.integers(len(inside), size=rng.integers(3, 7))]:
                if not long:
                    granules[y, z] += 6 * rng.uniform(0.7, 1.3)
                    continue
                angle = rng.uniform(0, np.pi)
                for step in np.linspace(-4, 4, 12):
                    at = np.rint((y + step * np.sin(angle), z + step * np.cos(angle))).astype(int)
                    if (at >= 0).all() and (at < size).all():
                        granules[tuple(at)] = rng.uniform(0.8, 1.2)
            granules = ndimage.gaussian_filter(granules, 0.9)
            if cell == 0:
                deciding[i] = granules > 0.25 * granules.max()
            x[i, 1] += -granules if bright_field else granules
            decoy = inside[rng.integers(len(inside))]
            far = ((grid - decoy[:, None, None]) ** 2).sum(0)
            x[i, 1] += rng.uniform(0.4, 0.9) * np.exp(-far / 18)
        x[i] = ndimage.gaussian_filter(x[i], (0, 0.6, 0.6)) + rng.normal(0, 0.04, x[i].shape)
    return *map(torch.from_numpy, (x, masks, deciding)), torch.from_numpy(labels)


class Small(nn.Module):
    """Seven convolutions to an 8 × 8 map, pooling, a linear head."""

    def __init__(self, channels: int, width: int = 24):
        super().__init__()
        widths = (width, width, 2 * width, 2 * width, 4 * width, 4 * width, 4 * width)
        layers, before = [], channels
        for k, after in enumerate(widths):
            layers += [nn.Conv2d(before, after, 3, 1 + k % 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        self.body, self.head = nn.Sequential(*layers), nn.Linear(before, 2)

    def parts(self, x):
        maps = self.body(x)
        embedding = maps.mean((2, 3))
        return maps, embedding, self.head(embedding)

    def forward(self, x):
        return self.parts(x)[2]


def train(x: Tensor, labels: Tensor, seed: int, epochs: int = 8) -> nn.Module:
    """A network of its own seed, flips and transpositions in training."""
    torch.manual_seed(seed)
    network = Small(x.shape[1])
    steps = epochs * (len(x) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (BATCH,))
        crops = x[rows]
        flips = torch.rand(3)
        crops = crops.flip(2) if flips[0] < 0.5 else crops
        crops = crops.flip(3) if flips[1] < 0.5 else crops
        crops = crops.transpose(2, 3) if flips[2] < 0.5 else crops
        loss = nn.functional.cross_entropy(network(crops), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def plate_cells(results: Path, plate: str, per_well: int, names: tuple[str, str]) -> Cells:
    """Cells of a plate's labelled wells that no network was trained on."""
    import pandas as pd

    from plateglass import crops, store, tables
    from plateglass.models.recipe import load_model

    model = load_model(results / "screen" / "model")
    cells = pd.read_parquet(results / plate / "cells.parquet")
    provenance = tables.provenance(results / plate / "cells.parquet")
    label = "Metadata_" + provenance["config"]["platemap"]["label"]
    cells = cells[cells[label].isin(model.info["classes"])]
    cells = cells[cells["Metadata_Fold"].isna()] if "Metadata_Fold" in cells else cells
    size = model.info["crop"]["px"]
    scale = model_units(results, plate, provenance, cells)
    x, masks, wells, classes = [], [], [], []
    for well, rows in cells.groupby("Metadata_Well"):
        drawn = rows.sample(min(per_well, len(rows)), random_state=0)
        for field, site in enumerate(store.sites(results / plate / "plate.zarr", well)):
            here = drawn[drawn["Metadata_Site"] == site]
            if here.empty:
                continue
            root = results / plate / "plate.zarr"
            image = scale.apply(store.read_field(root, well, field)[:, 0])
            labels, nuclei = (
                store.read_labels(root, well, field, n)[0] for n in ("cells", "nuclei")
            )
            cut = crops.cut(image, labels, size, nuclei, only=here["Metadata_Cell"].to_numpy())
            x.append(cut[0])
            masks.append(cut[1])
            wells += [well] * len(here)
            classes += [rows[label].iloc[0]] * len(here)
    networks = [model.networks[name].eval().requires_grad_(False) for name in names]
    crop = torch.from_numpy(np.concatenate(x))
    return Cells(
        crop, torch.from_numpy(np.concatenate(masks)), np.array(wells), np.array(classes), *networks
    )


def model_units(results: Path, plate: str, provenance: dict, cells):
    """Plate units as the features stage had them: from the ingest parts of the negative controls."""
    import pandas as pd

    from plateglass import parts
    from plateglass.units import Units

    setting = provenance["config"]["platemap"]
    wells = sorted(
        cells.loc[
            cells[f"Metadata_{setting['label']}"] == setting["negative"], "Metadata_Well"
        ].unique()
    )
    folder = results / ".plateglass" / "parts" / plate / "ingest"
    sites = pd.concat([parts.read(folder / f"{well}.arrow") for well in wells])
    channels = list(provenance["config"]["channels"])
    background = {c: float(sites[f"Background_{c}"].median()) for c in channels}
    scale = {c: max(1.0, float(sites[f"P99_{c}"].median()) - background[c]) for c in channels}
    return Units(background, scale, tuple(wells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--bright-field", action="store_true", help="dark granules")
    parser.add_argument("--retrain", action="store_true", help="remove and retrain")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--results", type=Path)
    parser.add_argument("--plate", default="sbs_E-F")
    parser.add_argument("--cells", type=int, default=27, help="cells a well")
    parser.add_argument("--networks", nargs=2, default=["seed0.final", "seed1.final"])
    parser.add_argument("--recipes", nargs="+", default=["default", "untrained"], choices=RECIPES)
    parser.add_argument("--diagnostics", action="store_true", help="deletion and insertion too")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    if given.synthetic:
        for seed in given.seeds:
            kind = "bright field" if given.bright_field else "fluorescence"
            if given.retrain:
                print(f"\nremove and retrain, {kind}, {seed}\n")
                figures[f"retrained {seed}"] = retrained(seed, given.bright_field, given.recipes)
                continue
            cells = planted(seed, given.bright_field)
            figures[f"synthetic {seed}"] = report(
                cells, given.recipes, f"synthetic, {kind}, {seed}", given.diagnostics
            )
    if given.results:
        cells = plate_cells(given.results, given.plate, given.cells, tuple(given.networks))
        figures[given.plate] = report(cells, given.recipes, given.plate, given.diagnostics)
    if not figures:
        parser.error("give --synthetic, or --results DIR of a finished run")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
