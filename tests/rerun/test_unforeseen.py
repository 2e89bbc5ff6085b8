"""Wells that come out otherwise than a plan could know: the next run looks at all that is made of them."""

import json
import os
import random
import shutil

import pytest
import tifffile
from changes import CHANNELS, put_back, relabel, remove_images, set_section
from stand_ins import LABELS, Bare, stand_in

from plateglass import jobs, store
from plateglass.contents import Contents
from plateglass.errors import DamageError, DataError, UserError
from plateglass.models import cohort
from plateglass.plan import Plan
from plateglass.stages import SCREEN, STAGES
from screen import Screen, assert_same


def replace_unseen(screen, plate, well):
    """Another picture at the same sizes and times: the documented blind spot."""
    paths = [screen.raw(plate, well, channel) for channel in CHANNELS]
    times = [path.stat().st_mtime_ns for path in paths]
    screen.replace_image(plate, well)
    for path, time in zip(paths, times):
        os.utime(path, ns=(time, time))


def tell(screen, wells, size):
    """The pixel size in µm that the headers of P1's images tell; None for nothing."""
    how = {"ome": True, "metadata": {"PhysicalSizeX": size, "axes": "YX"}} if size else {}
    for well in wells:
        for channel in CHANNELS:
            path = screen.raw("P1", well, channel)
            tifffile.imwrite(path, tifffile.imread(path), **how)


def run_one(screen, plan, plate, stage):
    jobs.run(screen.project(), stage, plate, plan.keys[plate, stage], 1)


def killed_at(monkeypatch, stage, well):
    """Die when the well of the stage is stored, and not yet noted."""
    record = jobs._record

    def die(job, ledger, parts, result, **facts):
        if (job.stage, result.well) == (stage, well):
            raise KeyboardInterrupt
        return record(job, ledger, parts, result, **facts)

    monkeypatch.setattr(jobs, "_record", die)


@pytest.fixture
def alone(tmp_path):
    """One plate without networks, of which headers tell the pixel size."""
    screen = Screen(tmp_path / "alone", train=False)
    del screen.sheet["P2"], screen.specs["P2"], screen.settings["ingest"]["pixel_size_um"]
    screen.write()
    return screen


@pytest.mark.long
def test_the_screens_tables_made_meanwhile_are_made_again(screen, tmp_path):
    replace_unseen(screen, "P2", "B01")
    (screen.results / ".plateglass/parts/P2/ingest/B01.arrow").unlink()
    relabel(screen, "P1", "B02", "reference")
    plan = screen.plan()
    with pytest.raises(DataError, match="B01 came out otherwise"):
        run_one(screen, plan, "P2", "ingest")
    for plate in ("P1", SCREEN):  # which Snakemake goes on with
        for stage in ("aggregate", "report"):
            run_one(screen, plan, plate, stage)
    screen.run()
    assert screen.plan().reasons == {}
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


@pytest.mark.long
def test_a_job_tried_again_does_not_hide_that_a_well_came_out_otherwise(screen, tmp_path):
    replace_unseen(screen, "P2", "B01")
    (screen.results / ".plateglass/parts/P2/ingest/B01.arrow").unlink()
    relabel(screen, "P2", "B02", "reference")
    plan = screen.plan()
    with pytest.raises(DataError, match="B01 came out otherwise"):
        run_one(screen, plan, "P2", "ingest")
    with pytest.raises(DataError, match="P2 ingest: wells came out otherwise"):
        run_one(screen, plan, "P2", "ingest")
    screen.run()
    assert screen.plan().reasons == {}
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


@pytest.mark.long
def test_a_lost_ledger_hides_no_other_image(screen, tmp_path):
    replace_unseen(screen, "P2", "B01")
    screen.project().ledger_path("ingest", "P2").unlink()
    with pytest.raises(DataError, match="P2 ingest: wells came out otherwise"):
        screen.run()
    screen.run()
    assert screen.plan().reasons == {}
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


@pytest.mark.long
@pytest.mark.parametrize(("plate", "well"), [("P2", "B01"), ("P1", "A04")])
def test_an_image_changed_unseen_in_a_detour_of_the_settings(screen, tmp_path, plate, well):
    set_section(screen, "ingest", z_step_um=2.0)
    screen.run(until="ingest")
    replace_unseen(screen, plate, well)
    del screen.settings["ingest"]["z_step_um"]
    screen.write()
    screen.run()
    assert screen.plan().reasons == {}
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


@pytest.mark.long
def test_a_pixel_size_that_turns_to_and_fro_while_nothing_trains(tmp_path):
    screen = Screen(tmp_path / "screen")
    del screen.sheet["P2"], screen.specs["P2"], screen.settings["ingest"]["pixel_size_um"]

    def run(size, train, until=None):
        screen.sheet["P1"]["train"] = train
        screen.write()
        tell(screen, ["B01", "B02"], size)
        for path in (screen.raw("P1", w, c) for w in ("B01", "B02") for c in CHANNELS):
            os.utime(path, ns=(10**18 + bool(size),) * 2)
        screen.run(until=until)

    tell(screen, ["A01", "A02", "A03"], 0.65)
    for size in (0.65, None, 0.65):
        run(size, "no", until="ingest")
    run(0.65, "yes")
    run(None, "no", until="ingest")
    run(None, "yes")
    assert screen.plan().reasons == {}
    assert screen.project().model_key() == Contents(screen.project()).train_key()
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


@pytest.mark.long
def test_a_job_tried_again_does_not_hide_that_training_wells_came_out_otherwise(tmp_path):
    """By another pixel size, which images of other wells tell."""
    screen = Screen(tmp_path / "screen")
    del screen.sheet["P2"], screen.specs["P2"], screen.settings["ingest"]["pixel_size_um"]
    screen.write()
    tell(screen, ["A01", "A02", "A03"], 0.65)
    screen.run()
    tell(screen, ["B01", "B02"], 0.65)  # five of eight
    plan = screen.plan()
    assert (SCREEN, "train") not in plan.reasons
    for _ in range(2):  # by --retries, or put back into a queue
        with pytest.raises(
            DataError, match="P1 ingest: training wells came out otherwise than before"
        ):
            run_one(screen, plan, "P1", "ingest")
    assert (SCREEN, "train", "") in screen.run()
    assert screen.plan().reasons == {}
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


@pytest.mark.long
@pytest.mark.parametrize("lost", [False, True])
def test_wells_added_to_others_vote_with_what_these_are_like(alone, tmp_path, lost):
    """Of eight wells three tell a size, of eleven six: it is the plate's, whatever was made before."""
    tell(alone, ["A01", "A02", "A03"], 0.65)
    alone.run()
    assert store.pixel_size(alone.results / "P1/plate.zarr", "A01")[0] == 1
    for well in ("B03", "B04", "B05"):
        for channel in CHANNELS:
            shutil.copy2(alone.raw("P1", "A01", channel), alone.raw("P1", well, channel))
    alone.run()
    assert store.pixel_size(alone.results / "P1/plate.zarr", "A06")[0] == 0.65
    if lost:
        alone.project().ledger_path("ingest", "P1").unlink()
        alone.run()
    assert alone.plan().reasons == {}
    assert_same(alone, alone.from_scratch(tmp_path / "scratch"))


@pytest.mark.long
def test_a_pixel_size_that_turns_behind_a_detour_of_the_settings_trains_anew(tmp_path):
    screen = Screen(tmp_path / "screen")
    del screen.sheet["P2"], screen.specs["P2"], screen.settings["ingest"]["pixel_size_um"]
    screen.settings["segment"]["cells"] = {"channel": "Actin", "reach_um": 3.1}
    screen.write()
    tell(screen, ["A01", "A02", "A03", "B01", "B02"], 0.97)
    screen.run()
    tell(screen, ["B01", "B02"], None)
    set_section(screen, "ingest", z_step_um=2.0)
    screen.run(until="ingest")
    del screen.settings["ingest"]["z_step_um"]
    screen.write()
    assert (SCREEN, "train", "") in screen.run()
    assert screen.plan().reasons == {}
    assert_same(screen, screen.from_scratch(tmp_path / "scratch"))


@pytest.mark.long
def test_a_quarantined_well_that_a_killed_job_had_stored_is_taken_out_again(
    alone, tmp_path, monkeypatch
):
    tell(alone, alone.specs["P1"].wells, 0.65)
    tell(alone, ["B01"], 0.325)
    alone.run()
    assert [well for _, well, _ in jobs.quarantined(alone.project())] == ["B01"]
    set_section(alone, "ingest", pixel_size_um=0.65)
    killed_at(monkeypatch, "ingest", "B01")
    with pytest.raises(KeyboardInterrupt):
        alone.run()
    monkeypatch.undo()
    del alone.settings["ingest"]["pixel_size_um"]
    alone.write()
    alone.run()
    assert "B01" not in store.wells(alone.results / "P1/plate.zarr")
    assert alone.plan().reasons == {}
    assert_same(alone, alone.from_scratch(tmp_path / "scratch"))


def test_a_lost_part_of_a_quarantined_well_comes_back(alone, tmp_path):
    alone.raw("P1", "B01").write_bytes(b"no TIFF")
    alone.run()
    part = alone.results / ".plateglass/parts/P1/ingest/B01.arrow"
    whole = part.read_bytes()
    part.unlink()
    assert alone.run() == [("P1", "ingest", "B01")]
    assert part.read_bytes() == whole
    assert alone.plan().reasons == {}


@pytest.mark.long
def test_maps_of_a_well_that_a_killed_job_had_stored_go_with_its_images(
    screen, finished, monkeypatch
):
    for channel in CHANNELS:
        shutil.copy2(screen.raw("P2", "B02", channel), screen.raw("P2", "B04", channel))
    killed_at(monkeypatch, "attribute", "B04")
    with pytest.raises(KeyboardInterrupt):
        screen.run()
    monkeypatch.undo()
    assert "B04" in store.wells(screen.results / "P2/attribution.zarr")
    remove_images(screen, "P2", "B04")
    screen.run()
    assert not (screen.results / ".plateglass/parts/P2/attribute/B04.arrow").exists()
    assert screen.plan().reasons == {}
    assert_same(screen, finished)


@pytest.mark.long
def test_a_plate_without_controls_that_fills_while_it_is_run_has_the_units_of_all(alone, tmp_path):
    alone.settings["platemap"] = {"negative": "of no well"}
    alone.write()
    kept = [remove_images(alone, "P1", well) for well in ("A03", "A04", "B01")]
    alone.run()
    for images in kept:
        put_back(images)
    alone.run()
    assert alone.plan().reasons == {}
    assert_same(alone, alone.from_scratch(tmp_path / "scratch"))


@pytest.mark.long
def test_torn_crops_that_a_killed_training_left_are_cut_again(screen, monkeypatch):
    screen.replace_image("P1", "A02")
    with monkeypatch.context() as patch:
        patch.setattr(cohort, "train_all", lambda *given: json.loads("no JSON"))
        with pytest.raises(ValueError):
            screen.run()
    (crops,) = (screen.results / ".plateglass/train").glob("*/cells/0.crops.npy")
    crops.write_bytes(crops.read_bytes()[:50])
    with pytest.raises(DamageError, match="what is lost is made anew"):
        screen.run()
    assert (SCREEN, "train", "") in screen.run()
    assert screen.plan().reasons == {}


@pytest.mark.long
def test_what_a_training_left_that_nobody_asks_for_any_more_goes(screen, monkeypatch):
    screen.replace_image("P1", "A02")
    with monkeypatch.context() as patch:
        patch.setattr(cohort, "train_all", lambda *given: json.loads("no JSON"))
        with pytest.raises(ValueError):
            screen.run()
    screen.replace_image("P1", "A02", seed=100)
    screen.run()
    assert not (screen.results / ".plateglass/train").exists()


@pytest.mark.long
def test_jobs_that_are_forced_long_after_are_held_to_nothing_of_then(screen):
    """Their markers' names tell which networks stood then, and training wells are others by now."""
    screen.replace_image("P1", "B01")
    screen.run()
    relabel(screen, "P1", "A06", "treatment")
    screen.run()
    plan, ledgers = screen.plan(), screen.results.glob(".plateglass/ledger/*")
    told = {path: path.read_bytes() for path in ledgers}
    plan.force()
    for plate, stage in sorted(
        plan.keys, key=lambda of: (list(STAGES).index(of[1]), of[0] == SCREEN)
    ):
        run_one(screen, plan, plate, stage)
    assert told == {path: path.read_bytes() for path in told}  # nothing was computed
    assert screen.plan().reasons == {}


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """Stages without pixels, and their modules."""
    stand_in(monkeypatch, lambda plate, well, text: None)
    return Bare(tmp_path)


def all_is_made_of_what_lies_there(bare):
    texts = {(p, w): bare.raw(p, w).read_text() for p in bare.plates for w in LABELS}
    return Plan(bare.project()).reasons == {} and bare.differences(texts) == []


def test_training_wells_that_another_run_changed_meanwhile_are_learnt_anew(bare, monkeypatch):
    """Locks are of plates: train holds the screen's alone."""
    train = jobs.importlib.import_module("plateglass.stages.train")
    learn, plan = train.learn, Plan(bare.project())

    def meanwhile(job, unchanged):
        bare.photograph("P1", "A01", "aother")
        other = Plan(bare.project())
        for stage in ("ingest", "segment"):
            run_one(bare, other, "P1", stage)
        return learn(job, unchanged)

    for stage in ("ingest", "segment"):
        run_one(bare, plan, "P1", stage)
    monkeypatch.setattr(train, "learn", meanwhile)
    with pytest.raises(DataError, match="came out otherwise while their crops were cut"):
        run_one(bare, plan, SCREEN, "train")
    assert not (bare.results / "screen/model/model.json").exists()
    monkeypatch.setattr(train, "learn", learn)
    assert bare.run(random.Random(0)) == {}
    assert all_is_made_of_what_lies_there(bare)


@pytest.mark.parametrize("garbled", ["the key", "model.json", "model.safetensors", "a digit"])
def test_networks_that_are_not_what_train_left_are_trained_again(bare, garbled):
    """At the same size, so that no plan sees it before a job applies them."""
    assert bare.run(random.Random(0)) == {}
    model = bare.results / "screen/model/model.json"
    whole = model.read_text()
    path = model if garbled in ("the key", "a digit") else model.with_name(garbled)
    if path.name == garbled:
        path.write_bytes(bytes(path.stat().st_size))
    else:
        said = json.loads(whole)
        name = "key" if garbled == "the key" else "text"
        model.write_text(json.dumps({**said, name: "x" + said[name][1:]}))
    bare.photograph("P2", "B01", "aother")
    failed = bare.run(random.Random(0))
    assert "is not what train left; give the same command again" in failed["P2", "features"]
    assert bare.run(random.Random(0)) == {}
    assert model.read_text() == whole
    assert all_is_made_of_what_lies_there(bare)


def test_what_killed_jobs_half_wrote_goes_and_stands_for_no_plate(bare):
    assert bare.run(random.Random(0)) == {}
    half = [
        bare.results / "P2/.cells.parquet.4711",
        bare.results / ".plateglass/ledger/.P2.aggregate.jsonl.4711",
        bare.results / ".plateglass/done/.P2.aggregate.x.4711",
        bare.results / ".plateglass/parts/P2/features/.A01.arrow.4711",
    ]
    others = [
        bare.results / "P2/.notes.2026",
        bare.results / ".plateglass/ledger/.gone.ingest.jsonl.4711",
    ]
    for path in (*half, *others):
        path.write_text("half")
    bare.settings["features"]["reliance_draws"] = 4
    bare.write()
    assert not any(note.startswith("results of plates") for note in Plan(bare.project()).notes)
    assert bare.run(random.Random(0)) == {}
    assert not any(path.exists() for path in half)
    assert all(path.exists() for path in others)


def test_a_demo_plate_taken_from_the_sheet_meanwhile_is_told(bare):
    with pytest.raises(UserError, match="plate P9 was taken from the sheet after this run"):
        jobs.run(bare.project(), "demo", "P9", "0.0.0.0.0", 1)
