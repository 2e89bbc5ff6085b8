import json
import multiprocessing
import signal
import threading

import pytest
import torch
from pools import quick

from plateglass.models import cohort

NAMES = [("P1", f"{row}{column:02d}") for row in "ABCD" for column in (1, 2, 12)]
CLASSES = [0, 0, 1] * 4


def test_wells_are_split_by_class_and_whole():
    folds = cohort.split(NAMES, CLASSES, 4)
    for fold in range(4):
        held = [CLASSES[i] for i in range(12) if folds[i] == fold]
        assert sorted(held) == [0, 0, 1]
    shuffled = cohort.split(NAMES[::-1], CLASSES[::-1], 4)
    assert shuffled[::-1] == folds  # the names decide, not the order


def test_no_more_folds_than_the_smallest_class_has_wells():
    assert set(cohort.split(NAMES[:6], CLASSES[:6], 4)) == {0, 1}


def test_no_network_learns_from_a_well_it_is_judged_by(pool):
    folds = cohort.split(pool.names, pool.classes, 3)
    tasks = cohort.tasks(pool, quick(seeds=2, folds=3), folds)
    assert len({task.name for task in tasks}) == len(tasks) == 2 * 4 + 2 * 4 + 2 * 2
    for task in tasks:
        assert not set(task.train) & set(task.held_out)
        assert sorted((*task.train, *task.held_out)) == list(range(6))
        if "fold" in task.name and not task.name.startswith("permuted"):
            assert {folds[i] for i in task.held_out} == {int(task.name[-1])}
            assert list(task.classes) == [pool.classes[i] for i in task.train]
        if task.name.endswith("final"):
            assert task.held_out == ()
    assert [t.name for t in cohort.tasks(pool, quick(controls=False), folds)] == [
        "seed0.final",
        "seed0.fold0",
        "seed0.fold1",
        "seed0.fold2",
    ]


def test_permuted_labels_agree_by_chance():
    true = [0] * 6 + [1] * 3
    tried = cohort.permute(true, "permuted.fold0")
    assert sorted(tried) == true
    assert sum(a and b for a, b in zip(true, tried)) == 1  # of three, a third
    assert tried == cohort.permute(true, "permuted.fold0")


@pytest.fixture
def few(pool):
    settings = quick(epochs=1)
    return settings, cohort.tasks(pool, settings, [0, 0, 0, 1, 1, 1])[:3]


def states(trained):
    return {name: one.network.state_dict() for name, one in trained.items()}


def same(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(a[name][key], b[name][key]) for name in a for key in a[name]
    )


@pytest.mark.long
def test_two_processes_give_what_one_gives(few, pool_folder, tmp_path):
    settings, tasks = few
    cpu, seen = torch.device("cpu"), []
    one = cohort.train_all(tmp_path / "1", pool_folder, settings, tasks, 1, cpu)
    two = cohort.train_all(
        tmp_path / "2", pool_folder, settings, tasks, 2, cpu, lambda *at: seen.append(at)
    )
    assert same(states(one), states(two))
    assert {n: t.history for n, t in one.items()} == {n: t.history for n, t in two.items()}
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.fixture
def heard():
    """SIGINT as a terminal's child has it: whoever is started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_waits_for_no_network(few, pool_folder, tmp_path):
    settings, tasks = few
    settings = settings.model_copy(update={"epochs": 10**5})  # hours, were they waited for

    def stop_soon(done, of):
        main = threading.main_thread().ident
        threading.Timer(8, signal.pthread_kill, [main, signal.SIGINT]).start()

    with pytest.raises(KeyboardInterrupt):
        cpu = torch.device("cpu")
        cohort.train_all(tmp_path / "c", pool_folder, settings, tasks, 2, cpu, stop_soon)
    assert multiprocessing.active_children() == []
    assert not list((tmp_path / "c").glob("*.json"))


def test_a_killed_training_goes_on_where_it_was(few, pool_folder, tmp_path, monkeypatch):
    settings, tasks = few
    cpu = torch.device("cpu")
    whole = cohort.train_all(tmp_path / "whole", pool_folder, settings, tasks, 1, cpu)
    started, fit = [], cohort.fit

    def dies_at_the_second(pool, settings, task, *rest):
        started.append(task.name)
        if started.count(tasks[1].name) == 1 and task.name == tasks[1].name:
            raise KeyboardInterrupt
        return fit(pool, settings, task, *rest)

    monkeypatch.setattr(cohort, "fit", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        cohort.train_all(tmp_path / "cut", pool_folder, settings, tasks, 1, cpu)
    resumed = cohort.train_all(tmp_path / "cut", pool_folder, settings, tasks, 1, cpu)
    names = [task.name for task in tasks]
    assert started == [names[0], names[1], names[1], names[2]]
    assert same(states(resumed), states(whole))


def test_a_half_written_network_does_not_count(few, pool_folder, tmp_path):
    settings, tasks = few
    (tmp_path / f"{tasks[0].name}.safetensors").write_bytes(b"torn")
    found = cohort.train_all(tmp_path, pool_folder, settings, tasks[:1], 1, torch.device("cpu"))
    assert len(found[tasks[0].name].history) == 1
    assert json.loads((tmp_path / f"{tasks[0].name}.json").read_text())
