"""Row by row of the rerun rule: exactly what must run runs, and what comes out is right."""

import pytest
from changes import CHANGES

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
]


@pytest.fixture
def changed(screen):
    """The copy to edit; whatever a change did to the stages is undone."""
    screen.undo = lambda: None
    yield screen
    screen.undo()


@pytest.mark.parametrize("name", TOLD)
def test_the_plan_names_what_will_run(changed, name):
    """What ``-n`` prints, and nothing else; of a touched image only a look at its pixels can tell."""
    wanted = set(CHANGES[name].do(changed))
    told = {
        (*job, well)
        for job, wells in changed.plan().reasons.items()
        for well, reason in wells.items()
        if reason != "removed"
    }
    assert wanted < told if name == "an_image_touched" else wanted == told


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
