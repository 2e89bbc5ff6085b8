"""How one network is trained: what a batch is made of, the loss, the average that is kept.

Half of what is here fights one temptation: neighbours share the treatment, so a network is as right
without the cell (docs/methods.md). Surroundings are swapped for those of any class, and crops whose
cell is erased are taught to say no more than how common each class is among the training wells.
"""

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from plateglass import crops
from plateglass.config import TrainSettings
from plateglass.models.backbone import Network
from plateglass.models.dcmix import parameter_groups
from plateglass.models.pool import Batch, Pool, centre

MARGIN = 8  # px that stored crops exceed the network's, for jitter
JITTER = 3  # px
GAIN, OFFSET, NOISE = (
    0.2,
    0.02,
    0.02,
)  # per channel: e^(GAIN·z), OFFSET·z; noise up to NOISE, plate units
SMOOTHING = 0.05  # of labels: some cells of a well do not answer its treatment
AVERAGE = 0.97  # of weights over steps; a single last step is a lottery
DECAY = 0.05
JUDGED = 40  # held-out cells a well that are judged each epoch


@dataclass(frozen=True)
class Task:
    """One network: its name, the wells (numbers in the pool) it learns from, those held out.

    classes : of the wells of ``train``; a control may have permuted them.
    erased : learn from crops without the cell (the *background* control).
    channels : numbers of the channels it sees, all where None.
    effort : share of the settings' epochs.
    """

    name: str
    train: tuple[int, ...]
    classes: tuple[int, ...]
    held_out: tuple[int, ...] = ()
    erased: bool = False
    channels: tuple[int, ...] | None = None
    effort: float = 1.0


@dataclass
class Trained:
    """A finished network and a row an epoch: network, epoch, loss, accuracy, held_out."""

    network: Network
    history: list[dict]


def make(settings: TrainSettings, channels: int, pretrained: bool = False) -> Network:
    """An untrained network as the settings describe it."""
    return Network(
        channels,
        len(settings.classes),
        settings.backbone,
        crop=settings.crop,
        cut=settings.cut,
        blends=settings.blends,
        alpha=settings.alpha,
        drop=settings.drop,
        pretrained=pretrained,
    )


def fit(
    pool: Pool,
    settings: TrainSettings,
    task: Task,
    device: torch.device | str = "cpu",
    watch: Callable[[int, int], None] = lambda done, of: None,
) -> Trained:
    """Train one network. Equal tasks give equal networks, whatever else runs beside them.

    `watch` is told epochs done and their number.
    """
    seed = int.from_bytes(hashlib.blake2b(task.name.encode(), digest_size=4).digest())
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # DCMIX and initial weights draw from torch's own
        torch.manual_seed(seed)
        return _fit(pool, settings, task, torch.device(device), rng, watch)


def _fit(pool, settings, task, device, rng, watch) -> Trained:
    channels = len(task.channels) if task.channels else pool.levels[0].shape[1]
    network = make(settings, channels, settings.pretrained).to(device).train()
    network = network.to(memory_format=torch.channels_last)  # 1.5 times as fast on CPUs
    average = copy.deepcopy(network).eval()
    epochs = max(1, round(settings.epochs * task.effort))
    steps = max(1, pool.cells(list(task.train)) // settings.batch)
    optimiser = torch.optim.AdamW(parameter_groups(network, settings.lr, DECAY))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: rate(t, epochs * steps))
    history = []
    for epoch in range(epochs):
        losses, right = [], []
        for step in range(steps):
            x, target, sure = batch(pool, settings, task, rng)
            x, target = x.to(device, memory_format=torch.channels_last), target.to(device)
            logits = network(x)
            loss = functional.cross_entropy(logits, target, reduction="none")
            optimiser.zero_grad()
            loss.mul(weigh(settings, sure, len(x)).to(device)).sum().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            network.settle()
            follow(average, network, epoch * steps + step)
            losses.append(float(loss[:sure].detach().mean()))
            right.append(float((logits[:sure].argmax(1) == target[:sure].argmax(1)).float().mean()))
        judged = _held_out(average, pool, settings, task, device)
        history.append(
            {
                "network": task.name,
                "epoch": epoch + 1,
                "loss": float(np.mean(losses)),
                "accuracy": float(np.mean(right)),
                "held_out": judged,
            }
        )
        watch(epoch + 1, epochs)
    average.settle()
    return Trained(average.cpu().to(memory_format=torch.contiguous_format), history)


def rate(step: int, steps: int) -> float:
    """Share of the learning rate: up over the first tenth, then down a cosine."""
    return min(1.0, (step + 1) / (0.1 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def weigh(settings: TrainSettings, sure: int, size: int) -> torch.Tensor:
    """Weight of each row's loss: the mean over labelled crops, plus the erased ones by their weight."""
    weights = torch.full((size,), 1 / sure)
    weights[sure:] *= settings.surroundings.weight
    return weights


@torch.no_grad()
def follow(average: Network, network: Network, step: int) -> None:
    """Move the average towards the network: its weights and the norms' statistics."""
    keep = min(AVERAGE, (1 + step) / (10 + step))
    now = network.state_dict()
    for name, kept in average.state_dict().items():
        if kept.is_floating_point():
            kept.mul_(keep).add_(now[name], alpha=1 - keep)
        else:
            kept.copy_(now[name])


def batch(
    pool: Pool, settings: TrainSettings, task: Task, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Crops (n, C, crop, crop), targets (n, classes) as shares, and how many rows have a label.

    The rows after those are erased crops, whose target is the classes' shares of the training wells.
    """
    kinds = len(settings.classes)
    wells, labels = list(task.train), list(task.classes)
    wanted = torch.arange(settings.batch)[torch.randperm(settings.batch, generator=rng)] % kinds
    x, masks, levels = _move(pool.draw(wells, labels, wanted, rng), settings.crop, rng)
    target = functional.one_hot(wanted, kinds).float()
    target = target * (1 - SMOOTHING) + SMOOTHING / kinds
    if task.erased:
        x, sure = _without(pool, x, masks, levels, wells, rng), len(x)
    else:
        natural, sure = x, len(x)
        x = _surround(pool, settings, (x, masks, levels), wells, labels, rng)
        silent = round(settings.batch * settings.surroundings.erased)
        if silent:
            mostly = torch.rand(silent, generator=rng) < 0.9
            source = torch.where(_wide(mostly, x), natural[:silent], x[:silent])
            source = _without(pool, source, masks[:silent], levels[:silent], wells, rng)
            x = torch.cat([x, source])
            common = torch.bincount(torch.tensor(labels), minlength=kinds) / len(labels)
            target = torch.cat([target, common.expand(silent, kinds)])
    return _light(x[:, list(task.channels)] if task.channels else x, rng), target, sure


def _surround(
    pool: Pool,
    settings: TrainSettings,
    own: Batch,
    wells: list[int],
    labels: list[int],
    rng: torch.Generator,
) -> torch.Tensor:
    """Some crops with other surroundings: a level for `drop`, those of a cell of any class for `swap`."""
    x, masks, levels = own
    how, p = settings.surroundings.how, settings.surroundings.p
    chosen = torch.nonzero(torch.rand(len(x), generator=rng) < p)[:, 0]
    if how == "keep" or len(chosen) == 0:
        return x
    if how == "drop":
        others = levels[chosen][..., None, None].expand_as(x[chosen])
    else:
        kinds = torch.randint(len(settings.classes), (len(chosen),), generator=rng)
        others, theirs, level = _move(pool.draw(wells, labels, kinds, rng), settings.crop, rng)
        gone = (
            torch.rand(len(chosen), generator=rng) < 0.5
        )  # the donor's own cell peeps out of ours
        others = torch.where(_wide(gone, others), crops.erase(others, theirs, level), others)
    x = x.clone()
    x[chosen] = crops.swap(x[chosen], masks[chosen], others)
    return x


def _without(pool, x, masks, levels, wells, rng) -> torch.Tensor:
    """Crops with the cell erased, half to the background's level, half to a real texture."""
    plain = crops.erase(x, masks, levels)
    texture = pool.texture(wells, len(x), rng)
    if texture is None:
        return plain
    size = x.shape[-1]
    textured = crops.erase(x, masks, texture[..., :size, :size])
    return torch.where(_wide(torch.rand(len(x), generator=rng) < 0.5, x), plain, textured)


def _move(batch: Batch, size: int, rng: torch.Generator) -> Batch:
    """Cut to size off centre by up to JITTER px, turned and flipped; in eight groups a batch."""
    x, masks, levels = batch
    middle = x.shape[-1] // 2 - size // 2
    moved, marks = x.new_empty(*x.shape[:2], size, size), masks.new_empty(len(x), size, size)
    for part in torch.arange(len(x)).chunk(8):
        top, left = torch.randint(
            middle - JITTER, middle + JITTER + 1, (2,), generator=rng
        ).tolist()
        turns, flip = int(torch.randint(4, (1,), generator=rng)), torch.rand(1, generator=rng) < 0.5
        for source, goal in ((x, moved), (masks, marks)):
            piece = source[part][..., top : top + size, left : left + size]
            goal[part] = torch.rot90(piece.flip(-1) if flip else piece, turns, (-2, -1))
    return moved, marks, levels


def _light(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Another gain and offset by channel, and some noise: stains and lamps differ."""
    shape = (*x.shape[:2], 1, 1)
    gain = torch.exp(GAIN * torch.randn(shape, generator=rng))
    offset = OFFSET * torch.randn(shape, generator=rng)
    noise = NOISE * torch.rand(len(x), 1, 1, 1, generator=rng)
    return x * gain + offset + noise * torch.randn(x.shape, generator=rng)


def _wide(flags: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return flags.reshape(-1, *[1] * (like.ndim - 1))


@torch.no_grad()
def _held_out(network, pool, settings, task, device) -> float | None:
    """Balanced accuracy on some cells of each held-out well, whole crops; None without such wells."""
    right: dict[int, list[float]] = {}
    for well in task.held_out:
        x = centre(pool.crops[well][:JUDGED], settings.crop)
        m = centre(pool.masks[well][:JUDGED], settings.crop)
        x = torch.from_numpy(np.ascontiguousarray(x))
        if task.erased:
            m = torch.from_numpy(np.ascontiguousarray(m))
            x = crops.erase(x, m, torch.from_numpy(np.array(pool.levels[well][:JUDGED])))
        x = x[:, list(task.channels)] if task.channels else x
        called = network(x.to(device)).argmax(1).cpu()
        right.setdefault(pool.classes[well], []).extend((called == pool.classes[well]).tolist())
    return float(np.mean([np.mean(hits) for hits in right.values()])) if right else None
