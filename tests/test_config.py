import textwrap

import pytest

from plateglass import config
from plateglass.errors import UserError

SMALLEST = """
plates: plates.csv
channels: {DNA: {match: "2"}, GFP: {match: "1"}}
segment: {nuclei: {channel: DNA}}
"""


def read(tmp_path, text):
    file = tmp_path / "settings" / "config.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(textwrap.dedent(text))
    return config.read(file)


def test_paths_resolve_against_the_file(tmp_path):
    settings = read(tmp_path, SMALLEST)
    assert settings.plates == tmp_path / "settings" / "plates.csv"
    assert settings.results == tmp_path / "results"
    assert settings.channel_names == ("DNA", "GFP")


def test_a_default_written_out_changes_no_section(tmp_path):
    plain = read(tmp_path, SMALLEST)
    written = read(tmp_path, SMALLEST + "\nattribute: {recipe: default, cells_per_well: 20}\n")
    assert plain.attribute.model_dump() == written.attribute.model_dump()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SMALLEST + "tran: {seeds: 1}", ["tran", "did you mean 'train'"]),
        (SMALLEST + "train: {sedes: 1}", ["train.sedes", "did you mean 'seeds'"]),
        (SMALLEST.replace("{channel: DNA}", "{chanel: DNA}"), ["segment.nuclei.chanel", "channel"]),
        (SMALLEST.replace("{channel: DNA}", "{channel: RNA}"), ["'RNA'", "DNA", "GFP"]),
        (SMALLEST.replace('"1"', '"2"'), ["two channels match '2'"]),
        (SMALLEST.replace("GFP:", "G FP:"), ["'G FP'", "letters"]),
        (SMALLEST + "train: {classes: [a]}", ["at least two"]),
        (SMALLEST + "train: {classes: [a, b], positive: c}", ["'c'", "'a', 'b'"]),
        (SMALLEST + "attribute: {cells_per_well: 0}", ["attribute.cells_per_well"]),
        (SMALLEST + "train: {classes: [1, b]}", ["train.classes.0", "not 1; put it in quotes"]),
        (SMALLEST.replace('"1"', "yes"), ["channels.GFP.match", "not True; put it in quotes"]),
        (SMALLEST.replace('"1"', "2"), ["two channels match '2'"]),
        (
            SMALLEST + "run: {workers: many}",
            ["run.workers", "parse string as an integer, not 'many'"],
        ),
        (SMALLEST + f"run: {{workers: {'m' * 999}}}", [", not 'mmm", "m…"]),
        (SMALLEST + "report: {gallery: 50}", ["report.gallery", "equal to 40, not 50"]),
        ("plates: [", ["no YAML"]),
        ("- a", ["key: value"]),
    ],
)
def test_mistakes_are_named_with_what_to_write(tmp_path, text, words):
    with pytest.raises(UserError) as refused:
        read(tmp_path, text)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("written", ["1", "1.5"])
def test_what_files_call_a_channel_may_be_a_bare_number(tmp_path, written):
    settings = read(tmp_path, SMALLEST.replace('"1"', written))
    assert settings.channels["GFP"].match == written
    assert settings == read(tmp_path, SMALLEST.replace('"1"', f'"{written}"'))


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "mps"])
def test_devices_that_networks_run_on(tmp_path, device):
    assert read(tmp_path, SMALLEST + f"run: {{device: '{device}'}}").run.device == device


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:first", "CPU", "meta", ""])
def test_other_devices_are_refused_with_those_there_are(tmp_path, device):
    with pytest.raises(UserError) as refused:
        read(tmp_path, SMALLEST + f"run: {{device: '{device}'}}")
    said = f"run.device: '{device}' is no device; write auto, cpu, cuda, cuda:N "
    assert said in str(refused.value) and str(refused.value).endswith("or mps")


@pytest.mark.parametrize(
    ("more", "keys"),
    [
        ("classes: [a, b]", "train.classes"),
        ("positive: x", "train.positive"),
        ("classes: [a, b], positive: b", "train.classes and train.positive"),
    ],
)
def test_a_saved_model_has_its_own_classes(tmp_path, more, keys):
    with pytest.raises(UserError) as refused:
        read(tmp_path, SMALLEST + f"train: {{model: saved, {more}}}")
    assert f"{keys} cannot stand beside train.model: a saved model brings its classes" in str(
        refused.value
    )
    assert "[]" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml: cannot be read: No such file"):
        config.read(tmp_path / "nowhere.yaml")


def test_the_schema_knows_every_section():
    schema = config.schema()
    assert set(schema["properties"]) == set(config.Config.model_fields)
    assert schema["additionalProperties"] is False


def test_the_recipes_of_the_settings_are_the_ones_there_are():
    from plateglass.explain.pcim import RECIPES

    annotation = config.AttributeSettings.model_fields["recipe"].annotation
    assert set(annotation.__args__) == set(RECIPES)
