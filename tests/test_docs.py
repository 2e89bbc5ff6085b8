"""The pages of the repository name what there is."""

import re
from pathlib import Path

import pytest
import yaml

from plateglass.config import Config
from plateglass.plates import COLUMNS

ROOT = Path(__file__).parents[1]


def keys(section=Config):
    """Names of the settings: those with a value, not the sections that hold them."""
    for key, field in section.model_fields.items():
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        sections = [kind for kind in inner if hasattr(kind, "model_fields")]
        if not sections:
            yield key
        for kind in sections:
            yield from keys(kind)


@pytest.mark.parametrize("key", sorted({*keys(), *COLUMNS}))
def test_config_readme_explains_each_key_and_column(key):
    text = (ROOT / "config" / "README.md").read_text()
    assert re.search(rf"`(\w+\.)*{key}`|{{{key}: ", text), f"config/README.md omits {key}"


def test_config_readme_names_no_key_that_is_not_there():
    text = (ROOT / "config" / "README.md").read_text()
    known = {*keys(), *COLUMNS, "channels", "dask", "surroundings"}
    named = {name.rpartition(".")[2] for name in re.findall(r"\*\*`([\w.]+)`\*\*", text)}
    assert named <= known, named - known


def test_citation_names_the_three_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert [r["url"].rpartition("/")[2] for r in citation["references"]] == [
        "2308.16637",
        "2403.17615",
        "2412.02275",
    ]


def promised():
    """Names of the tests in docs/promises.md."""
    text = (ROOT / "docs" / "promises.md").read_text()
    short = re.search(r"`P` stands for\s+`([^`]+)`", text)[1]
    found = re.findall(r"`((?:tests/[^`]*::|P\[)[^`]+)`", text)
    return sorted({re.sub(r"^P(?=\[)", short, name) for name in found})


def test_every_test_that_a_promise_names_is_there(collected):
    """By its full name in files that this run looked into; else the function stands in its file."""
    names = promised()
    assert len(names) > 60
    functions = {name.partition("[")[0] for name in collected}
    whole = {name.partition("::")[0] for name in collected} if len(functions) > 300 else set()
    for name in names:
        file, _, test = name.partition("::")
        assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text(), name
        assert file not in whole or name in (collected if "[" in name else functions), name


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "THIRD_PARTY.md", "CHANGELOG.md"])
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text()):
        assert (ROOT / target).exists(), f"{page} links to {target}"
