"""Row by row of the rerun rule: exactly what must run runs, and what comes out is right."""

import shutil

import pytest
from changes import CHANGES, WELL_STAGES, ends, relabel, set_section, wells

from plateglass.reasons import ranges
from plateglass.stages import SCREEN
from screen import assert_same

QUICK = [pytest.param(change, id=name) for name, change in CHANGES.items() if change.plain]
WHOLE = [
    pytest.param(change, marks=pytest.mark.long, id=name)
    for name, change in CHANGES.items()
    if change.scratch
]
TOLD = [
    pytest.param(name, marks=() if change.plain or "units" in name else pytest.mark.long)
    for name, change in CHANGES.items()
    if not name.endswith("touched")
]


@pytest.fixture
def changed(screen):
    """The copy to edit; whatever a change did to the stages is undone."""
    screen.undo = lambda: None
    yield screen
    screen.undo()


def told(screen):
    """(plate, stage, well) → why it runs, as ``-n`` prints it."""
    reasons = {(*job, w): why for job, of in screen.plan().reasons.items() for w, why in of.items()}
    return {of: why for of, why in reasons.items() if why != "removed"}


@pytest.mark.parametrize("name", TOLD)
def test_the_plan_names_what_will_run(changed, name):
    wanted = set(CHANGES[name].do(changed))
    assert told(changed).keys() == wanted


@pytest.mark.parametrize(
    ("name", "plate", "well", "may"),
    [
        ("an_image_touched", "P2", "A01", "plate units may change"),
        ("a_training_image_touched", "P1", "A02", "the model may be trained anew"),
    ],
)
def test_of_a_touched_image_the_plan_says_what_may_run(changed, name, plate, well, may):
    """Only a look at its pixels can tell, and nothing is said that this could prove wrong."""
    (asked,) = CHANGES[name].do(changed)
    plates = ["P1", "P2"] if plate == "P1" else ["P2"]
    wanted = dict.fromkeys(wells(changed, plates, ["features"]), may)
    wanted |= dict.fromkeys(wells(changed, plates, ["attribute"]), f"features: {may}")
    wanted |= dict.fromkeys(wells(changed, [plate], WELL_STAGES, [well]), "ingest: input changed")
    wanted[asked] = "input changed"
    if plate == "P1":
        wanted[SCREEN, "train", ""] = "training wells may have changed"
    found = told(changed)
    assert found.keys() == wanted.keys() | set(ends(*plates))
    assert {of: found[of] for of in wanted} == wanted


@pytest.mark.parametrize(
    ("certain", "why"),
    [
        (lambda s: set_section(s, "train", epochs=1), "train.epochs changed"),
        (lambda s: relabel(s, "P1", "A06", "treatment"), None),
        (lambda s: relabel(s, "P1", "B01", "negative_control"), None),
        (lambda s: set_section(s, "segment", cells={"channel": "Actin", "reach_um": 12}), None),
        (lambda s: set_section(s, "ingest", pixel_size_um=0.7), None),
        (lambda s: s.raw("P1", "A02").rename(s.folder / "away.tif"), "training wells may"),
        (lambda s: [file.unlink() for file in (s.folder / "raw/P1").glob("*_A02_*")], None),
    ],
)
def test_where_another_model_is_certain_the_plan_says_so(changed, certain, why):
    """Also beside a touched image. Of a file less only a look can tell, as of other pixels."""
    certain(changed)
    changed.raw("P1", "A04").touch()
    found = told(changed)
    may = why == "training wells may"
    model = f"the model {'may be' if may else 'is'} trained anew"
    why = why or "training wells or their stages changed"
    assert found[SCREEN, "train", ""].startswith(why)
    if ("P2", "segment", "B02") not in found:
        assert found["P2", "features", "B02"] == model


def test_a_damaged_model_is_said_to_be_that(changed):
    (changed.results / "screen/model/model.safetensors").write_bytes(b"cut")
    changed.raw("P2", "B01").touch()
    found = told(changed)
    assert found[SCREEN, "train", ""] == "what was stored is damaged"
    assert not [
        why for why in found.values() if "model" in why and why != "tables or the model changed"
    ]


def test_a_controls_units_change_where_it_is_replaced_and_not_where_it_is_damaged(changed):
    shutil.rmtree(changed.results / "P2/plate.zarr/A/2")
    set_section(changed, "run", verify="sizes")
    changed.replace_image("P2", "B01")  # by which features must look
    assert changed.plan().reasons["P2", "features"].keys() == {"B01"}
    changed.replace_image("P2", "A02")
    assert "damaged" in changed.plan().reasons["P2", "ingest"]["A02"]
    assert changed.plan().reasons["P2", "features"].keys() == set(changed.specs["P2"].wells)


def test_wells_are_named_as_ranges_in_the_plates_order():
    assert ranges(["B03", "A02", "A01", "A10", "A12", "A11"]) == "A01–A02, A10–A12, B03"
    assert ranges(["AA01", "Z48", "Z02", "B01", "A48"]) == "A48, B01, Z02, Z48, AA01"
    plate = [f"{row}{column:02d}" for column in range(1, 25) for row in "ABCDEFGHIJKLMNOP"]
    assert ranges(plate) == ", ".join(f"{row}01–{row}24" for row in "ABCDEFGHIJKLMNOP")
    assert ranges(plate[::-1], 2) == "A01–A24, B01–B24, …"
    checkered = [well for well in plate if (ord(well[0]) + int(well[1:])) % 2]
    assert ranges(checkered).count(",") == 16 and ranges(checkered).endswith(", …")


@pytest.mark.parametrize("change", QUICK)
def test_what_runs(changed, finished, change):
    wanted = change.do(changed)
    assert sorted(changed.run()) == sorted(wanted)
    assert changed.plan().reasons == {}
    if not change.scratch:
        assert_same(changed, finished)


@pytest.mark.parametrize("change", WHOLE)
def test_what_runs_and_that_it_equals_a_run_from_scratch(changed, change, tmp_path):
    wanted = change.do(changed)
    assert sorted(changed.run()) == sorted(wanted)
    assert changed.plan().reasons == {}
    assert_same(changed, changed.from_scratch(tmp_path / "scratch"))
