"""Which networks a screen needs, and training them side by side in processes of one thread.

Each finished network is saved at once, so that a killed training goes on with the next one.
"""

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from plateglass.config import TrainSettings
from plateglass.files import damage_of, write_atomically
from plateglass.models.backbone import Network
from plateglass.models.controls import draw
from plateglass.models.pool import Pool
from plateglass.models.recipe import write_tensors
from plateglass.models.training import Task, Trained, fit, make

EFFORT = {"background": 0.5, "permuted": 0.5, "single": 0.5}  # share of the epochs
HALVES = 2  # single-channel networks split the wells in two, whatever the folds


def split(names: list[tuple[str, str]], classes: list[int], folds: int) -> list[int]:
    """Fold of each well: by well, stratified by class, in the order of a hash of the names.

    There are no more folds than the smallest class has wells.
    """
    folds = min(folds, *(classes.count(k) for k in set(classes)))
    out = [0] * len(names)
    turn = 0
    for label in sorted(set(classes)):
        wells = [i for i, k in enumerate(classes) if k == label]
        for i in sorted(wells, key=lambda i: draw("/".join(names[i]), "fold", 1 << 62)):
            out[i] = turn % folds
            turn += 1
    return out


def tasks(pool: Pool, settings: TrainSettings, folds: list[int]) -> list[Task]:
    """Every network of a model: ``seed<i>.final`` and ``.fold<j>``, controls, single channels."""

    def task(name: str, fold: int | None, of: list[int] = folds, permuted: bool = False, **more):
        train = [i for i in range(len(pool)) if fold is None or of[i] != fold]
        classes = [pool.classes[i] for i in train]
        if permuted:
            classes = permute(classes, name)
        out = tuple(i for i in range(len(pool)) if i not in train)
        return Task(name, tuple(train), tuple(classes), out, **more)

    parts = [("final", None), *((f"fold{j}", j) for j in sorted(set(folds)))]
    found = [task(f"seed{s}.{p}", j) for s in range(settings.seeds) for p, j in parts]
    if settings.controls:
        for part, j in parts:
            background, permuted = f"background.{part}", f"permuted.{part}"
            found.append(task(background, j, erased=True, effort=EFFORT["background"]))
            found.append(task(permuted, j, permuted=True, effort=EFFORT["permuted"]))
        halves = [fold % HALVES for fold in folds]
        channels = pool.levels[0].shape[1]
        for k in range(channels if channels > 1 else 0):
            for half in sorted(set(halves)):
                name = f"single{k}.half{half}"
                more = {"channels": (k,), "effort": EFFORT["single"]}
                found.append(task(name, half, of=halves, **more))
    return found


def permute(classes: list[int], name: str) -> list[int]:
    """Labels permuted over wells so that they agree with the true ones as much as chance would."""
    rng = np.random.default_rng(draw(name, "permute", 1 << 62))
    true = np.array(classes)
    kinds = np.unique(true)
    chance = np.outer([np.mean(true == k) for k in kinds], [np.sum(true == k) for k in kinds])
    best, least = true, np.inf
    for _ in range(200):
        tried = rng.permutation(true)
        joint = np.array([[np.sum((true == a) & (tried == b)) for b in kinds] for a in kinds])
        if (off := np.abs(joint - chance).sum()) < least:
            best, least = tried, off
    return best.tolist()


def train_all(
    folder: Path,
    cells: Path,
    settings: TrainSettings,
    wanted: list[Task],
    threads: int,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Trained]:
    """Train what is not yet in ``folder``, `threads` networks at a time; all of them by name.

    ``cells`` is the folder of the Pool they learn from.

    DamageError where what was trained before cannot be read.

    On a CPU each network has one torch thread, so that the number of processes changes nothing. On
    another device they are trained one after the other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = [task for task in wanted if not (folder / f"{task.name}.json").exists()]
    done = len(wanted) - len(left)
    progress(done, len(wanted))
    if device.type != "cpu" or threads < 2 or len(left) < 2:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for task in left:
                _train(folder, cells, settings, task, device)
                done += 1
                progress(done, len(wanted))
        finally:
            torch.set_num_threads(before)
    else:
        # "spawn", as a torch that has computed can hang when forked.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(threads, len(left)), context, _one_thread) as processes:
            try:
                given = [
                    processes.submit(_train, folder, cells, settings, task, device) for task in left
                ]
                for finished in as_completed(given):
                    finished.result()
                    done += 1
                    progress(done, len(wanted))
            except BaseException:  # Ctrl-C, too: nobody waits for networks that are half trained
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
    channels = Pool.open(cells).levels[0].shape[1]
    return {task.name: _read(folder, settings, channels, task) for task in wanted}


def _one_thread() -> None:
    """Set a worker up: one torch thread, and an end when the job that started it is killed."""
    torch.set_num_threads(1)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _train(
    folder: Path, cells: Path, settings: TrainSettings, task: Task, device: torch.device
) -> None:
    trained = fit(Pool.open(cells), settings, task, device)
    write_tensors(folder / f"{task.name}.safetensors", trained.network.state_dict())
    write_atomically(folder / f"{task.name}.json", json.dumps(trained.history))


def _read(folder: Path, settings: TrainSettings, channels: int, task: Task) -> Trained:
    channels = len(task.channels) if task.channels else channels
    network: Network = make(settings, channels)
    tensors, history = folder / f"{task.name}.safetensors", folder / f"{task.name}.json"
    with damage_of(tensors, SafetensorError, RuntimeError):
        network.load_state_dict(load_file(tensors))
    with damage_of(history, ValueError):
        return Trained(network.eval(), json.loads(history.read_text()))
