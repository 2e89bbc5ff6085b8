"""Train nuclei-small from scratch, or evaluate a file of it.

    python scripts/train_nuclei_small.py --real-data DIR --out FILE [--seed 0]
    python scripts/train_nuclei_small.py --real-data DIR --out FILE --evaluate

DIR holds ``bbbc039``, ``dsb2018`` and ``twins.csv``. One seed, one thread and the versions printed
give the same file. Nothing is tuned on test images: ``--evaluate --split tune`` reads those
training images that join last, and means something for the file from before, FILE.first.
"""

import argparse
import copy
import hashlib
import platform
import shutil
import time
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tifffile
import torch
from safetensors.torch import save_file
from scipy import ndimage
from torch.nn import functional as F

from plateglass.models import nuclei_small as ns

DEBRIS = 20  # px; truth objects under it are annotation debris
CROP, BATCH = 160, 8
# steps, peak rate, share of crops with painted cytoplasm; the images to tune on join after the first
ROUNDS = ((6_000, 2e-3, 0.0), (2_000, 5e-4, 0.35), (9_000, 1.5e-3, 0.2), (11_000, 1.5e-3, 0.2))
SHARES = {"bbbc039": 0.4, "dsb2018": 0.45, "synthetic": 0.15}
TUNE = 6  # one training group in so many is left out until the end, to tune on


def read_set(root: Path, name: str, split: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """``(file, image, labels)`` of a split; ``train`` and ``tune`` share the set's training side.

    Training images that are twins of another set's test image are dropped.
    """
    table = pd.read_csv(root / name / "split.csv")
    twins = pd.read_csv(root / "twins.csv")
    here, there = ("dsb2018", "bbbc039") if name == "dsb2018" else ("bbbc039", "dsb2018")
    leaked = set(twins.loc[twins[f"{there}_split"] == "test", f"{here}_file"])
    if name == "bbbc039":
        wells = set(twins.loc[twins.dsb2018_split == "test", "bbbc039_well"])
        leaked |= set(table.loc[table.well.isin(wells), "file"])
    group = table["well" if name == "bbbc039" else "tile_group"]
    tune = group.map(lambda g: int(hashlib.sha256(g.encode()).hexdigest(), 16) % TUNE == 0)
    chosen = {
        "test": table.split == "test",
        "train": (table.split == "train") & ~tune & ~table.file.isin(leaked),
        "tune": (table.split == "train") & tune & ~table.file.isin(leaked),
    }[split]
    return [
        (file, *(tifffile.imread(root / name / kind / file) for kind in ("images", "masks")))
        for file in table.file[chosen]
    ]


# --- synthetic fields ---------------------------------------------------------------------------


def synthetic(rng: np.random.Generator, size: int = 360) -> tuple[np.ndarray, np.ndarray]:
    """A field of lobed, textured, partly touching nuclei; one in four has none at all."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    labels = np.zeros((size, size), np.int32)
    image = np.zeros((size, size), np.float32)
    texture = ndimage.gaussian_filter(rng.standard_normal((size, size)), 2).astype(np.float32)
    centre = rng.uniform(20, size - 20, 2)
    for label in range(1, 1 if rng.random() < 0.25 else rng.integers(20, 90)):
        if rng.random() < 0.5:  # beside the last one, else anywhere
            centre = rng.uniform(0, size, 2)
        else:
            centre = centre + ns.DIAMETER * rng.uniform(0.7, 1.1) * _direction(rng)
        angle = np.arctan2(y - centre[0], x - centre[1])
        radius = ns.DIAMETER / 2 * rng.uniform(0.7, 1.2)
        shape = 1 + rng.uniform(0, 0.25) * np.cos(2 * (angle - rng.uniform(0, np.pi)))
        shape += rng.uniform(0, 0.06) * np.cos(3 * (angle - rng.uniform(0, 2 * np.pi)))
        whole = np.hypot(y - centre[0], x - centre[1]) < radius * shape
        inside = whole & (labels == 0)
        if inside.sum() < max(150, 0.6 * whole.sum()):
            continue
        labels[inside] = label
        image[inside] = rng.lognormal(0, 0.4) * (1 + rng.uniform(0, 1.5) * texture[inside])
    image = ndimage.gaussian_filter(image, rng.uniform(0.7, 2))
    haze = ndimage.gaussian_filter(rng.standard_normal((size, size)), rng.uniform(15, 60))
    image += rng.uniform(0, 0.3) * haze / haze.std()
    return image + rng.uniform(0.01, 0.15) * rng.standard_normal(image.shape), labels


def _direction(rng) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.sin(angle), np.cos(angle)])


# --- targets, computed once -----------------------------------------------------------------------


def rescale_labels(labels: np.ndarray, scale: float) -> np.ndarray:
    """Labels at another size with smooth outlines: each object's mask is resampled linearly."""
    shape = tuple(round(n * scale) for n in labels.shape)
    if shape == labels.shape:
        return labels
    factor = [n / m for n, m in zip(shape, labels.shape)]
    best = np.zeros(shape, np.float32)
    cover = np.zeros(shape, np.float32)
    out = np.zeros(shape, np.int32)
    for label, where in enumerate(ndimage.find_objects(labels), 1):
        if where is None:
            continue
        low = [max(0, int((s.start - 2) * f)) for s, f in zip(where, factor)]
        high = [min(n, int((s.stop + 2) * f) + 1) for s, f, n in zip(where, factor, shape)]
        span = [(np.arange(a, b) + 0.5) / f - 0.5 for a, b, f in zip(low, high, factor)]
        grid = np.meshgrid(*span, indexing="ij")
        y0, x0 = (max(0, s.start - 3) for s in where)
        near = labels[y0 : where[0].stop + 3, x0 : where[1].stop + 3] == label
        soft = ndimage.gaussian_filter(near.astype(np.float32), max(0.0, 0.4 / scale - 0.4))
        part = ndimage.map_coordinates(soft, [grid[0] - y0, grid[1] - x0], order=1, mode="nearest")
        view = tuple(slice(a, b) for a, b in zip(low, high))
        cover[view] += part
        better = part > best[view]
        best[view][better] = part[better]
        out[view][better] = label
    out[cover < 0.5] = 0
    return out


def target(image: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """A field at the training diameter: image, flows, weight ``(y, x, 4)`` and labels ``(y, x)``.

    Weights: 0 on debris, up to 3 on outlines, 1 elsewhere.
    """
    areas = np.bincount(labels.ravel(), minlength=1)
    debris = np.isin(labels, np.flatnonzero(areas < DEBRIS))
    diameter = ns.typical_diameter(areas[1:][areas[1:] >= DEBRIS]) or ns.DIAMETER
    scale = ns.DIAMETER / diameter
    labels = rescale_labels(np.where(debris, 0, labels).astype(np.int32), scale)
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)  # gaps crash Cellpose
    shape = labels.shape
    image = ns.resize(torch.from_numpy(ns.normalise(image))[None], shape)[0].numpy()
    flows = ns.dynamics.masks_to_flows_gpu(labels)[0].astype(np.float32)
    edge = (ndimage.maximum_filter(labels, 3) != labels) | (
        ndimage.minimum_filter(labels, 3) != labels
    )
    weight = 1 + 2 * np.exp(-((ndimage.distance_transform_edt(~edge) / 2.5) ** 2) / 2)
    weight[ns.resize_labels(debris, shape)] = 0
    stack = np.stack([image, *flows, weight.astype(np.float32)], -1)
    return {"stack": stack, "labels": labels.astype(np.float32)}


# --- augmentation ---------------------------------------------------------------------------------


def warp(field: dict, matrix: np.ndarray, size: int) -> tuple[np.ndarray, ...]:
    """Crop ``size`` of a field under an affine map ``(2, 3)`` (x, y order, source → crop).

    Returns image, flows ``(2, y, x)`` turned with the field, weight (0 outside), mask.
    """
    stack = cv2.warpAffine(
        field["stack"],
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    labels = cv2.warpAffine(
        field["labels"],
        matrix,
        (size, size),
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    image, dy, dx, weight = np.moveaxis(stack, -1, 0)
    turn = matrix[:, :2] / np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    flows = np.stack([turn[1, 0] * dx + turn[1, 1] * dy, turn[0, 0] * dx + turn[0, 1] * dy])
    inside = cv2.warpAffine(
        np.ones_like(field["labels"]), matrix, (size, size), flags=cv2.INTER_NEAREST
    )
    mask = labels > 0
    return image, flows * mask, weight * inside, mask


def draw_matrix(rng: np.random.Generator, field: dict, size: int) -> np.ndarray:
    """Random place, mirror, turn, scale: 0.7 to 1.4, some far off (for the estimate)."""
    labels = field["labels"]
    centre = rng.uniform(0, 1, 2) * labels.shape
    if rng.random() < 0.5 and labels.any():
        inside = np.argwhere(labels > 0)
        centre = inside[rng.integers(len(inside))] + rng.uniform(-0.3, 0.3, 2) * size
    kind = rng.random()
    scale = np.exp(rng.uniform(np.log(0.7), np.log(1.4)))
    if kind < 0.2:
        scale = np.exp(rng.uniform(np.log(0.35), np.log(2.0)))
    angle = rng.uniform(0, 2 * np.pi)
    if kind > 0.7:  # as it is: pixels are not interpolated
        scale, angle = 1.0, np.pi / 2 * rng.integers(4)
        centre = np.round(centre)
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    turn = np.array([[c, -s], [s, c]]) @ np.diag([rng.choice([-1, 1]), 1])
    # the middle of the crop shows the centre, clamped so that the crop stays on the field
    half = size / 2 / scale
    centre = [
        np.clip(v, min(half, n / 2), max(n - half, n / 2)) for v, n in zip(centre, labels.shape)
    ]
    shift = np.array([size / 2 - 0.5] * 2) - turn @ np.array([centre[1] - 0.5, centre[0] - 0.5])
    return np.hstack([turn, shift[:, None]])


def weather(rng: np.random.Generator, image: np.ndarray, empty: bool) -> np.ndarray:
    """Gain, gamma, blur, haze, noise; a crop without nuclei may be normalised by itself."""
    if empty and rng.random() < 0.5:
        image = ns.normalise(image)
    else:
        image = image * np.exp(rng.uniform(np.log(0.6), np.log(1.7)))
    if rng.random() < 0.4:
        image = np.sign(image) * np.abs(image) ** np.exp(rng.uniform(-0.4, 0.4))
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5))
    if rng.random() < 0.3:
        ramp = np.linspace(-0.5, 0.5, image.shape[0], dtype=np.float32)
        slope = rng.uniform(-0.3, 0.3, 2)
        image = image + slope[0] * ramp[:, None] + slope[1] * ramp[None] + abs(slope).sum() / 2
    if rng.random() < 0.4:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image = image + noise * rng.uniform(0, 0.08) * np.sqrt(0.2 + np.clip(image, 0, 2))
    return image.astype(np.float32)


def cytoplasm(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Dim cells around the nuclei, as many DNA dyes leave them: lobes with borders, no nuclei."""

    def waves(sigma: float) -> np.ndarray:
        noise = cv2.GaussianBlur(rng.standard_normal(image.shape, dtype=np.float32), (0, 0), sigma)
        return noise / noise.std()

    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
    cell = away < rng.uniform(3, 16) * (1 + 0.7 * waves(rng.uniform(5, 15)))
    cell = cv2.GaussianBlur((cell | mask).astype(np.float32), (0, 0), rng.uniform(1, 3))
    level = rng.uniform(0.05, 0.45) * np.percentile(image[mask], rng.uniform(20, 60))
    return image + level * cell * np.clip(1 + 0.4 * waves(rng.uniform(3, 8)), 0, 2)


def batch(rng: np.random.Generator, fields: dict[str, list[dict]], hazy: float):
    """Inputs and flows ``(B, 2, y, x)``, weights and masks ``(B, y, x)``; a share is ``hazy``."""
    rows = []
    for name in rng.choice(list(SHARES), BATCH, p=list(SHARES.values())):
        field = fields[name][rng.integers(len(fields[name]))]
        image, flows, weight, mask = warp(field, draw_matrix(rng, field, CROP), CROP)
        if hazy and rng.random() < hazy and mask.any():
            image = cytoplasm(rng, image, mask)
        rows.append((weather(rng, image, not mask.any()), flows, weight, mask))
    images, flows, weights, masks = (torch.from_numpy(np.stack(c)).float() for c in zip(*rows))
    return ns.encode(images), flows, weights, masks


# --- training -------------------------------------------------------------------------------------


def loss_of(out: torch.Tensor, flows, weights, masks) -> tuple[torch.Tensor, torch.Tensor]:
    """Half the squared error of 5 × flows, and the cross-entropy of the cell probability."""
    error = ((out[:, :2] - ns.STEEPNESS * flows) ** 2).mean(1)
    entropy = F.binary_cross_entropy_with_logits(out[:, 2], masks, reduction="none")
    total = weights.sum()
    return (error * weights).sum() / total / 2, (entropy * weights).sum() / total


def fold(network: ns.UNet) -> dict[str, torch.Tensor]:
    """The shipped form: batch norms folded into the convolutions before them."""
    state, plain = network.state_dict(), ns.UNet()
    out = {}
    for name in plain.state_dict():
        stem, kind = name.rsplit(".", 1)
        norm = f"{stem[:-1]}1."
        if stem.endswith(".0") and norm + "running_var" in state:
            gain = state[norm + "weight"] / torch.sqrt(state[norm + "running_var"] + 1e-5)
            if kind == "weight":
                out[name] = state[name] * gain[:, None, None, None]
            else:
                out[name] = state[norm + "bias"] - state[norm + "running_mean"] * gain
        else:
            out[name] = state[name]
    return {name: tensor.float().contiguous() for name, tensor in out.items()}


def targets(root: Path, split: str) -> dict[str, list[dict]]:
    """Targets of a split's real fields, by set."""
    return {n: [target(i, m) for _, i, m in read_set(root, n, split)] for n in list(SHARES)[:2]}


def train(root: Path, out: Path, seed: int, cache: Path | None = None, resume: bool = False):
    """Train and write the averaged weights to ``out``, also every 500 steps.

    What the first round leaves, without the images to tune on, is kept as ``.first``. What is
    needed to go on is beside ``out`` (``.resume``): a run that was stopped and resumed gives the
    file that one run gives.
    """
    torch.manual_seed(seed)
    start = time.time()
    if cache and cache.exists():
        fields = torch.load(cache, weights_only=False)
    else:
        rng = np.random.default_rng(seed)
        fields = targets(root, "train")
        fields["synthetic"] = [target(*synthetic(rng)) for _ in range(24)]
        if cache:
            torch.save(fields, cache)
    counts = {name: len(part) for name, part in fields.items()}
    print(f"targets of {counts} fields in {time.time() - start:.0f} s", flush=True)
    network = ns.UNet(norm=True).to(memory_format=torch.channels_last)
    average = copy.deepcopy(network)
    kept = torch.load(out.with_suffix(".resume"), weights_only=False) if resume else {"done": -1}
    first, total = 0, sum(steps for steps, _, _ in ROUNDS)
    for number, (steps, rate, hazy) in enumerate(ROUNDS, 1):
        last = first + steps
        if number == 2:
            for name, more in targets(root, "tune").items():
                fields[name] += more
        if kept["done"] <= last:
            begun = kept if first < kept["done"] else None
            span = (first, last, total)
            descend((network, average), fields, out, seed + number, rate, hazy, span, begun)
            network.load_state_dict(average.state_dict())
            if number == 1:
                shutil.copy(out, out.with_suffix(".first"))
        first = last


def descend(
    networks: tuple[ns.UNet, ns.UNet],
    fields: dict[str, list[dict]],
    out: Path,
    seed: int,
    rate: float,
    hazy: float,
    span: tuple[int, int, int],
    begun: dict | None,
) -> None:
    """One round of the rate: a network and its running average, from step to step of all steps."""
    (network, average), (first, last, total) = networks, span
    start, rng, recent = time.time(), np.random.default_rng(seed), []
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, last - first, pct_start=0.05, div_factor=10, final_div_factor=100
    )
    parts = {"network": network, "average": average, "optimizer": optimizer, "schedule": schedule}
    if begun:
        for name, part in parts.items():
            part.load_state_dict(begun[name])
        first, rng.bit_generator.state = begun["done"], begun["rng"]
    for step in range(first + 1, last + 1):
        inputs, *wanted = batch(rng, fields, hazy)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = network(inputs)
        losses = loss_of(predicted.float(), *wanted)
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        schedule.step()
        follow(average, network, min(0.998, step / (step + 20)))
        recent.append([loss.item() for loss in losses])
        if step % 100 == 0:
            flow, cell = np.mean(recent, 0)
            spent = f"{time.time() - start:6.0f} s ({time.process_time():.0f} s of a core)"
            print(f"{step:6d} {spent}  flow {flow:.4f} cell {cell:.4f}", flush=True)
            recent = []
        if step % 500 == 0 or step == last:
            info = {
                "format": ns.FORMAT,
                "seed": str(torch.initial_seed()),
                "steps": f"{step}/{total}",
            }
            save_file(fold(average), out, info)
            kept = {name: part.state_dict() for name, part in parts.items()}
            kept |= {"done": step, "rng": rng.bit_generator.state}
            torch.save(kept, out.with_suffix(".resume"))


@torch.no_grad()
def follow(average: torch.nn.Module, network: torch.nn.Module, decay: float) -> None:
    """Move the running average towards the network, batch statistics with the weights."""
    for slow, fast in zip(average.state_dict().values(), network.state_dict().values()):
        if slow.is_floating_point():
            slow.lerp_(fast, 1 - decay)
        else:
            slow.copy_(fast)


def evaluate(root: Path, model: Path, split: str) -> pd.DataFrame:
    """Mean average precision over a split's images, through the wrapper the workflow uses."""
    from cellpose.metrics import average_precision

    from plateglass.models import nuclei

    segment = nuclei.load(str(model.absolute()))
    rows = []
    for name in list(SHARES)[:2]:
        for file, image, truth in read_set(root, name, split):
            small = np.flatnonzero(np.bincount(truth.ravel()) < DEBRIS)
            truth = np.where(np.isin(truth, small), 0, truth).astype(np.int32)
            start = time.time()
            labels = segment(image)
            row = {"set": name, "file": file[:20], "seconds": time.time() - start}
            row |= {"truth": len(np.unique(truth)) - 1, "found": int(labels.max())}
            if row["truth"]:
                ap = average_precision(truth, labels, threshold=[0.5, 0.75, 0.9])[0]
                row |= {f"AP {t}": float(a) for t, a in zip((0.5, 0.75, 0.9), ap)}
            else:  # no truth: the false objects are the score
                row["false objects"] = row["found"]
            rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    """Train unless told not to, then print the table of figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--real-data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="keep the targets here, for the next run")
    parser.add_argument("--resume", action="store_true", help="go on where a run was stopped")
    parser.add_argument("--evaluate", action="store_true", help="do not train")
    parser.add_argument("--split", choices=["test", "tune", "train"], default="test")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    packages = {p: version(p) for p in ("torch", "cellpose", "numpy", "opencv-python-headless")}
    print(f"seed {arguments.seed}, rounds {ROUNDS}, Python {platform.python_version()}")
    print(packages)
    if not arguments.evaluate:
        train(*(vars(arguments)[n] for n in ("real_data", "out", "seed", "cache", "resume")))
    print(f"sha256 {hashlib.sha256(arguments.out.read_bytes()).hexdigest()}")
    table = evaluate(arguments.real_data, arguments.out, arguments.split)
    print(table.to_string(index=False, float_format="%.3f"))
    print(table.groupby("set").mean(numeric_only=True).to_string(float_format="%.3f"))


if __name__ == "__main__":
    main()
