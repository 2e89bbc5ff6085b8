import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from plateglass import jobs
from plateglass.contents import Contents
from plateglass.models import cohort
from plateglass.models.pool import Pool
from plateglass.models.recipe import load_model
from plateglass.stages import SCREEN, train
from plateglass.wells import Job

NETWORKS = (
    3 + 2 * 3 + 3 * 2
)  # seed 0 and two controls: final and two folds; three channels in halves


@pytest.fixture(scope="module")
def screen(finished, tmp_path_factory):
    return finished.copy(tmp_path_factory.mktemp("train") / "screen")


@pytest.fixture(scope="module")
def trained(screen):
    return screen.results / "screen" / "model"


def test_the_model_says_what_it_is(trained, screen):
    info = json.loads((trained / "model.json").read_text())
    assert info["key"] == Contents(screen.project()).train_key()
    assert info["channels"] == ["Actin", "DNA", "Marker"]
    assert info["crop"] == {"px": 48, "um_per_px": 0.65}
    assert (info["backbone"], info["cut"]) == ("test_resnet", 8)
    assert info["classes"] == ["negative_control", "positive_control"]
    folds = info["folds"]["P1"]  # the training plate's labelled wells, and no others
    assert list(folds) == ["A01", "A02", "A03", "A04", "A05", "A06"]
    for fold in (0, 1):  # both classes in each
        held = {int(well[1:]) < 4 for well, of in folds.items() if of == fold}
        assert held == {True, False}
    assert not (screen.results / ".plateglass" / "train" / info["key"]).exists()


def test_its_tables_have_a_row_for_each_thing(trained):
    channels = pd.read_parquet(trained / "channels.parquet")
    assert channels["channel"].tolist() == ["Actin", "DNA", "Marker"]
    assert channels[["accuracy", "ablation", "single"]].notna().all(axis=None)
    controls = pd.read_parquet(trained / "controls.parquet")
    names = controls["control"] + " " + controls["channel"].fillna("")
    assert [name.strip() for name in names] == [
        "full", "erased Level", "erased Texture", "shuffled Actin", "shuffled DNA",
        "shuffled Marker", "background", "permuted", "erased worse", "column",
    ]  # fmt: skip
    worse = controls.set_index(names.str.strip())["accuracy"]
    assert worse["erased worse"] == max(worse["erased Level"], worse["erased Texture"])
    history = pd.read_parquet(trained / "history.parquet")
    assert history["network"].nunique() == NETWORKS
    assert history[history["network"] == "seed0.fold1"]["epoch"].tolist() == [1, 2]


def test_donors_are_of_training_wells_and_both_classes(trained):
    donors = load_model(trained).donors
    assert set(donors.wells) <= {f"P1/A{c:02d}" for c in range(1, 7)}
    assert np.bincount(donors.classes).tolist() == [train.DONORS, train.DONORS]
    assert donors.crops.shape[1:] == (3, 48, 48)


def test_a_killed_training_resumes_and_ends_the_same(trained, screen, tmp_path, monkeypatch):
    wanted = load_model(trained)
    kept = {f.name: pd.read_parquet(f) for f in trained.glob("*.parquet")}
    (trained / "model.json").unlink()
    count, fit = [], cohort.fit

    def dies(pool, settings, task, *rest):
        count.append(task.name)
        if len(count) == 4:
            raise KeyboardInterrupt
        return fit(pool, settings, task, *rest)

    monkeypatch.setattr(cohort, "fit", dies)
    project, plan = screen.project(), screen.plan()
    key = plan.keys["screen", "train"]
    with pytest.raises(KeyboardInterrupt):
        jobs.run(project, "train", "screen", key, 1)
    assert not (trained / "model.json").exists()
    jobs.run(project, "train", "screen", key, 1)
    assert len(count) == NETWORKS + 1  # the fourth twice
    found = load_model(trained)
    assert found.info == wanted.info
    for name, network in wanted.networks.items():
        for key, value in network.state_dict().items():
            assert found.networks[name].state_dict()[key].equal(value), (name, key)
    for name, table in kept.items():
        pd.testing.assert_frame_equal(pd.read_parquet(trained / name), table)


def test_where_fewer_cells_of_a_well_are_asked_for_they_are_drawn_from_all(screen, tmp_path):
    job = Job("train", SCREEN, screen.project())
    settings = job.config.train

    def pool(name, most):
        config = job.config.model_copy(
            update={"train": settings.model_copy(update={"cells_per_well": most})}
        )
        train.collect(replace(job, project=replace(job.project, config=config)), tmp_path / name)
        return Pool.open(tmp_path / name)

    whole, few, again = pool("whole", None), pool("few", 3), pool("again", 3)
    assert few.names == whole.names
    first = []
    for i, every in enumerate(whole.cells_of):
        assert len(few.crops[i]) == min(3, len(every)) < len(every)
        at = [every.tolist().index(cell) for cell in few.cells_of[i].tolist()]
        for part in ("crops", "masks", "levels"):
            assert np.array_equal(getattr(few, part)[i], getattr(whole, part)[i][at]), part
        assert np.array_equal(again.cells_of[i], few.cells_of[i])
        first.append(at == [0, 1, 2])
    assert not all(first)


def test_weights_are_null_at_chance():
    info = {
        "channels": ["a", "b"],
        "classes": ["no", "yes"],
        "alpha": {"seed0": {"a": 0.9, "b": 0.1}, "seed1": {"a": 0.4, "b": 0.6}},
    }

    pool = SimpleNamespace(crops=[np.random.default_rng(0).normal(size=(9, 2, 8, 8))])

    def table(right):
        rows = [
            {
                "Metadata_Plate": "P",
                "Metadata_Well": f"A{w:02d}",
                "label": label,
                "right": i < right,
            }
            for w in range(8)
            for label in [("no", "yes")[w % 2]]
            for i in range(10)
        ]
        cells = pd.DataFrame(rows)
        other = {"no": "yes", "yes": "no"}
        called = np.where(cells["right"], cells["label"], cells["label"].map(other))
        for name in ("Seed0", "Shuffled_a", "Shuffled_b"):
            cells[f"Metadata_Class_{name}"] = called
        return train.channel_table(info, pool, cells, None)

    chance = table(5)
    assert chance[["log_alpha", "alpha_seed0", "alpha_seed1"]].isna().all(axis=None)
    told = table(9)
    assert told["alpha_seed1"].tolist() == [0.4, 0.6]
    np.testing.assert_allclose(told["log_alpha"], np.log([0.9, 0.1]) / 2 + np.log([0.4, 0.6]) / 2)
    assert told["accuracy"].tolist() == [0.9, 0.9]


def test_copies_are_found_by_their_pixels():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3, 16, 16))
    x[:, 2] = 3 * x[:, 0] + 0.1 * rng.normal(size=(20, 16, 16))

    assert train.copies(SimpleNamespace(crops=[x]), ["a", "b", "c"]) == {"c": "a"}
