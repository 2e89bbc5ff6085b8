"""How well DCMIX's α ranks channels whose rank is known.

    python tests/benchmarks/dcmix.py --seeds 10                       # planted and contradicting
    python tests/benchmarks/dcmix.py --suites graded mixed --real-data DIR

A row is a suite under one kind of blend. ρ: Spearman of the mean log α over seeds with the
single-channel accuracy, where channels within two standard errors tie, over the most that the ties
leave; mean over the suite's configurations, with the 2.5 % bootstrap quantile over seeds and the
worst configuration. noise: largest α·C of a channel that tells nothing, on any seed. Δ: test
accuracy less that of the same network on all channels side by side. copy: α of a copy over its
original's, range over seeds.
"""

import argparse
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata, spearmanr
from torch import nn

from plateglass.models.dcmix import DCMIX, parameter_groups
from plateglass.synthetic import planted
from plateglass.synthetic.planted import LADDER, Suite, planted_channels

SUITES = ["planted", "contradicting", "graded", "mixed"]
BLENDS = {
    "softmax alone": {"drop": 0.0},
    "with dropping": {"drop": 0.5},
    "dropping, K = 4": {"drop": 0.5, "blends": 4},
}


@dataclass
class Run:
    """One network: α (C,) as handed to users, and its accuracy on held-out crops."""

    alpha: np.ndarray | None
    accuracy: float


def network(channels: int, classes: int, blend: dict | None) -> nn.Module:
    """Three convolutions; a blend of all channels in front unless `blend` is None."""
    front = [] if blend is None else [DCMIX(channels, **blend)]
    width = channels if blend is None else blend.get("blends", 1)
    layers: list[nn.Module] = []
    for wide in (16, 32, 32):
        layers += [nn.Conv2d(width, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if wide != 32 or len(layers) < 6 else []
        width = wide
    return nn.Sequential(
        *front, *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)
    )


def train(suite: Suite, test: Suite, blend: dict | None, seed: int, epochs: int) -> Run:
    """Train on one suite, score on the other."""
    torch.manual_seed(seed)
    channels, classes = suite.crops.shape[1], int(suite.labels.max()) + 1
    model = network(channels, classes, blend)
    x, y = torch.from_numpy(suite.crops), torch.from_numpy(suite.labels)
    steps = epochs * (len(x) // 64)
    optimiser = torch.optim.AdamW(parameter_groups(model, 2e-3, 1e-4))
    rates = [group["lr"] for group in optimiser.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(x))[: len(x) // 64 * 64].split(64):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch], label_smoothing=0.02)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        called = torch.cat([model(c).argmax(1) for c in torch.from_numpy(test.crops).split(500)])
    alpha = None if blend is None else model[0].importance().numpy()
    return Run(alpha, float((called.numpy() == test.labels).mean()))


def alone(suite: Suite, test: Suite, epochs: int) -> np.ndarray:
    """Accuracy of a network trained on each channel alone."""

    def only(s: Suite, channel: int) -> Suite:
        return Suite(s.crops[:, [channel]], s.labels, s.accuracy, s.strength, s.copy_of)

    return np.array(
        [
            train(only(suite, c), only(test, c), None, 0, epochs).accuracy
            for c in range(suite.crops.shape[1])
        ]
    )


def tied(accuracy: np.ndarray, crops: int) -> np.ndarray:
    """Accuracies in which channels within two standard errors of the group's best are equal."""
    result = accuracy.copy()
    order = np.argsort(-accuracy)
    best = order[0]
    for channel in order:
        error = 2 * np.sqrt(accuracy[best] * (1 - accuracy[best]) / crops)
        if accuracy[best] - accuracy[channel] > error:
            best = channel
        result[channel] = accuracy[best]
    return result


def agreement(alpha: np.ndarray, accuracy: np.ndarray) -> float:
    """Spearman of α (seeds, C) with tied accuracies, over the most that a strict order can have."""
    ceiling = spearmanr(rankdata(accuracy, "ordinal"), accuracy)[0]
    return float(spearmanr(np.log(alpha + 1e-9).mean(0), accuracy)[0] / ceiling)


def row(found: list[tuple], seeds: int, draws: int = 1000) -> dict:
    """Sum a suite up. found: per configuration (suite, tied accuracy, α, Δ)."""
    each = [agreement(alpha, accuracy) for _, accuracy, alpha, _ in found]
    rng = np.random.default_rng(0)
    drawn = [
        np.mean([agreement(alpha[pick], accuracy) for _, accuracy, alpha, _ in found])
        for pick in rng.integers(0, seeds, (draws, seeds))
    ]
    noise = [
        (alpha * alpha.shape[1])[:, suite.accuracy <= suite.accuracy.min()].max()
        for suite, _, alpha, _ in found
        if np.isclose(suite.accuracy.min(), 1 / (suite.labels.max() + 1))
    ]
    copies = [
        alpha[:, c] / alpha[:, suite.copy_of[c]]
        for suite, _, alpha, _ in found
        for c in np.flatnonzero(suite.copy_of >= 0)
    ]
    return {
        "rho": float(np.mean(each)),
        "lo": float(np.quantile(drawn, 0.025)),
        "worst": min(each),
        "noise": float(max(noise)) if noise else None,
        "delta": float(np.mean([delta for *_, delta in found])),
        "copy": [float(np.min(copies)), float(np.max(copies))] if copies else None,
    }


def planted_suite(contradicting: bool):
    """Configurations of 3 to 12 channels; complements of one another in their noise alone."""
    kinds = [(2, 0, 1), (4, 1, 1), (6, 1, 2), (8, 2, 2)]
    for k, (rungs, copies, noise) in enumerate(kinds[1:3] if contradicting else kinds):
        ladder = LADDER[:rungs] if rungs > 2 else (LADDER[1], LADDER[4])
        kind = {"ladder": ladder, "copies": copies, "noise": noise}
        # of one seed, so that channels stand in one order; of two numbers, so that crops are others
        learnt, held = (
            planted_channels(n, k, **kind, contradicting=contradicting) for n in (3000, 2000)
        )
        yield learnt, held


def digits(real_data: Path, suite: str):
    """MNIST under rising noise, or the label's digit among random ones."""
    stored = np.load(real_data / "mnist" / "mnist.npz")
    images, labels = stored["images"][:, 4:24, 4:24] / 255.0, stored["labels"].astype(np.int64)
    learnt, held = np.s_[:8000], np.s_[8000:]
    kinds = {
        "graded": [(0.2, 0.7, 1.2, 1.8), (0.3, 0.4, 0.8, 0.9, 1.4, 1.5, 2.2, 3.0)],
        "mixed": [(0.9, 0.6, 0.3, 0.0), (0.8, 0.75, 0.5, 0.45, 0.2, 0.15, 0.0, 0.0)],
    }
    make = getattr(planted, suite)
    for k, kind in enumerate(kinds[suite]):
        yield (
            make(images[learnt], labels[learnt], kind, k),
            make(images[held], labels[held], kind, 100 + k),
        )


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--suites", nargs="+", default=SUITES[:2], choices=SUITES)
    parser.add_argument("--real-data", type=Path, help="folder with mnist/, for graded and mixed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--blends", nargs="*", default=list(BLENDS)[:2], choices=list(BLENDS))
    parser.add_argument("--json", type=Path, help="write the rows and the α of each seed here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.real_data is None and {"graded", "mixed"} & {*arguments.suites}:
        parser.error("graded and mixed need --real-data DIR")
    rows, start = [], time.time()
    print("| suite | α | ρ (lo) | worst | noise | Δ | copy |\n|---|---|---|---|---|---|---|")
    for name in arguments.suites:
        if name in ("planted", "contradicting"):
            pairs = list(planted_suite(name == "contradicting"))
        else:
            pairs = list(digits(arguments.real_data, name))
        beside = []
        for suite, test in pairs:
            known = not np.isnan(suite.accuracy).any()
            accuracy = suite.accuracy if known else alone(suite, test, arguments.epochs)
            whole = [
                train(suite, test, None, seed, arguments.epochs).accuracy
                for seed in range(arguments.seeds)
            ]
            beside.append((tied(accuracy, len(test.labels)), np.mean(whole)))
        for blend in arguments.blends:
            found = []
            for (suite, test), (accuracy, whole) in zip(pairs, beside, strict=True):
                runs = [
                    train(suite, test, BLENDS[blend], seed, arguments.epochs)
                    for seed in range(arguments.seeds)
                ]
                delta = np.mean([run.accuracy for run in runs]) - whole
                found.append((suite, accuracy, np.stack([run.alpha for run in runs]), delta))
            result = row(found, arguments.seeds)
            alphas = [alpha.tolist() for _, _, alpha, _ in found]
            rows.append({"suite": name, "blend": blend, **result, "alpha": alphas})
            noise = "–" if result["noise"] is None else f"{result['noise']:.2f}"
            copy = "–" if result["copy"] is None else "{:.2f} to {:.2f}".format(*result["copy"])
            print(
                f"| {name} | {blend} | {result['rho']:.3f} ({result['lo']:.3f}) | "
                f"{result['worst']:.3f} | {noise} | {result['delta']:+.3f} | {copy} |",
                flush=True,
            )
    print(
        f"\n{arguments.seeds} seeds, {arguments.epochs} epochs, {time.time() - start:.0f} s, "
        f"one thread of {platform.processor() or platform.machine()}, torch {torch.__version__}"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
