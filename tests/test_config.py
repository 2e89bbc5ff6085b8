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
        ("plates: [", ["no YAML"]),
        ("- a", ["key: value"]),
    ],
)
def test_mistakes_are_named_with_what_to_write(tmp_path, text, words):
    with pytest.raises(UserError) as refused:
        read(tmp_path, text)
    for word in words:
        assert word in str(refused.value)


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
