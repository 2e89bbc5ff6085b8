import json

import pytest
import yaml

from plateglass import config, plates
from plateglass.errors import UserError
from plateglass.project import Project
from plateglass.stages import STAGES
from screen import PARTS


@pytest.fixture
def read(tmp_path):
    def make(roles, **train):
        (tmp_path / "map.csv").write_text("well,role\n" + "".join(f"{w},{r}\n" for w, r in roles))
        (tmp_path / "plates.csv").write_text(
            "plate,path,platemap,train\nP1,raw,map.csv,yes\nP2,raw,map.csv,no\n"
        )
        settings = {
            "plates": "plates.csv",
            "results": "results",
            "channels": {"DNA": {"match": "1"}},
            "segment": {"nuclei": {"channel": "DNA"}},
            "train": train,
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
        return Project.read(config.read(tmp_path / "config.yaml"))

    return make


CONTROLS = [("A01", "negative_control"), ("A02", "negative_control"), ("A03", "active")]


def test_a_class_of_one_well_is_refused_with_the_labels_there_are(read):
    with pytest.raises(UserError) as refused:
        read(CONTROLS, classes=["negative_control", "active"])
    said = str(refused.value)
    assert "'active' has 1 training well(s), 2 are needed" in said
    assert "active, negative_control" in said


def test_a_saved_model_must_be_there_and_know_the_channels(read, tmp_path):
    with pytest.raises(UserError, match=r"saved holds no model\.json"):
        read(CONTROLS, model="saved")
    (tmp_path / "saved").mkdir()
    info = {"key": "k", "channels": ["GFP"], "classes": ["negative_control", "active"]}
    (tmp_path / "saved/model.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="sees the channels GFP"):
        read(CONTROLS, model="saved")
    (tmp_path / "saved/model.json").write_text(json.dumps(info | {"channels": ["DNA"]}))
    project = read(CONTROLS, model="saved")
    assert (project.trains, project.has_model, project.model_key()) == (False, True, "k")
    assert set(project.classed("P1")) == {"A01", "A02", "A03"}


def test_what_networks_made_tells_their_own_settings(read, tmp_path):
    """They may wait for a plate with others than the file's; who trains now tells the file's."""
    wells = [*CONTROLS, ("A04", "active")]
    project = read(wells, classes=["negative_control", "active"], epochs=3)
    project.model_dir.mkdir(parents=True)
    info = {"key": "k", "settings": {"epochs": 7}}
    (project.model_dir / "model.json").write_text(json.dumps(info))
    told = {stage: project.provenance(stage)["config"].get("train") for stage in STAGES}
    assert told["ingest"] is None and told["segment"] is None
    assert told["train"]["epochs"] == 3
    for stage in ("features", "attribute", "aggregate"):
        assert told[stage]["epochs"] == 7


def test_units_come_from_negative_controls_else_from_wells_chosen_by_hash(read):
    wells = [f"{row}{column:02d}" for row in "ABCD" for column in range(1, 13)]
    assert read(CONTROLS).units_wells("P1", wells) == ["A01", "A02"]
    project = read([])
    chosen = project.units_wells("P1", wells)
    assert len(chosen) == 24 and chosen == project.units_wells("P1", reversed(wells))
    # what is frozen stays, whatever wells come
    (project.state / "units").mkdir(parents=True)
    (project.state / "units/P1.json").write_text(json.dumps({"wells": chosen}))
    assert project.units_wells("P1", [*wells, "H01", "H02"]) == chosen
    # another stands in for one that is gone, until it is back
    others = set(project.units_wells("P1", set(wells) - {chosen[0]}))
    assert len(others) == 24 and others > set(chosen[1:])
    assert project.units_wells("P1", wells) == chosen


def test_units_wells_that_cannot_be_read_are_passed_over(read):
    project = read(CONTROLS)
    ledger = project.ledger("ingest", "P1")
    ledger.add("A01", parts=PARTS, key=None, quarantine="torn")
    ledger.add("A02", parts=PARTS, key="k2")
    ledger.add("A03", parts=PARTS, key="k3")
    assert project.units_made_from("P1") == ["A02"]
    ledger.add("A02", parts=PARTS, key=None, quarantine="torn")
    assert project.units_made_from("P1") == ["A03"]


def test_a_job_reads_the_platemaps_it_needs_and_no_other(read, monkeypatch):
    asked = []
    reads = plates.read_platemap
    monkeypatch.setattr(plates, "read_platemap", lambda p, c: asked.append(p.name) or reads(p, c))
    project = read([*CONTROLS, ("A04", "active")], classes=["negative_control", "active"])
    assert asked == ["P1"]  # it trains
    assert project.labels("P2")["A03"] == "active" and project.classed("P2")
    assert asked == ["P1", "P2"]
