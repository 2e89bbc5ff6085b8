"""The pages of the repository name what there is."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from plateglass import config, plates
from plateglass.config import Config
from plateglass.layouts.pattern import index
from plateglass.models.recipe import load_model
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


GUID = "3B5A9C1E-0F42-4D7A-9A6B-1C2D3E4F5A6B"
# Names as microscopes write them: where each belongs (well, site, channel), None where it is left out.
EXPORTED = {
    "ImageXpress": {
        "TimePoint_1/exp_B02_s1_w1.TIF": ("B02", 1, "1"),
        "TimePoint_1/my_exp_P24_s12_w2.tif": ("P24", 12, "2"),
        "TimePoint_1/exp_B03_w1.TIF": ("B03", 1, "1"),
        f"TimePoint_1/exp_B02_s2_w1{GUID}.tif": ("B02", 2, "1"),
        "TimePoint_1/exp_B02_s1_w1_thumb.TIF": None,
        f"TimePoint_1/exp_B02_s2_w1_thumb{GUID}.tif": None,
        "TimePoint_2/exp_B02_s1_w1.TIF": None,
        "exp.HTD": None,
    },
    "Operetta, Opera Phenix": {
        "Images/r02c03f05p01-ch2sk1fk1fl1.tiff": ("B03", 5, "2"),
        "Images/r16c24f10p01-ch1sk1fk1fl1.tiff": ("P24", 10, "1"),
        "Images/r02c03f05p02-ch2sk1fk1fl1.tiff": None,
        "Images/r02c03f05p01-ch2sk2fk1fl1.tiff": None,
        "Images/Index.idx.xml": None,
    },
    "CellVoyager": {
        "exp_B02_T0001F001L01A01Z01C01.tif": ("B02", 1, "1"),
        "AssayPlate_Greiner_#655090_P24_T0001F012L01A03Z01C02.tif": ("P24", 12, "2"),
        "exp_B02_T0001F001L01A01Z02C01.tif": None,
        "exp_B02_T0002F001L01A01Z01C01.tif": None,
        "DC_sCMOS #1_CAM1_BP445_45.tif": None,
        "MeasurementDetail.mrf": None,
    },
}


def patterns():
    """(microscope, example, pattern) of each row of the table in config/README.md."""
    text = (ROOT / "config" / "README.md").read_text()
    return re.findall(r"^\| ([^|`]+) \| `([^`]+)` \| `([^`]+)` \|$", text, re.M)


def test_config_readme_has_a_pattern_for_each_microscope():
    assert [row[0] for row in patterns()] == list(EXPORTED)


@pytest.mark.parametrize(("microscope", "example", "pattern"), patterns())
def test_config_readmes_patterns_take_what_microscopes_write(microscope, example, pattern):
    names = EXPORTED[microscope]
    assert names[example] is not None
    files = [(name, lambda: (1, 2)) for name in names]
    found = index(files, pattern, {"1": "1", "2": "2"}, "here", Path())
    taken = {p.file: p[:3] for well in found.wells for p in found.planes(well)}
    assert taken == {name: place for name, place in names.items() if place is not None}


def printed(header):
    """The CSV of that header that config/README.md prints."""
    text = (ROOT / "config" / "README.md").read_text()
    block = re.search(rf"^    {header}\n(?:    .+\n)+", text, re.M)[0]
    return re.sub("^    ", "", block, flags=re.M)


def test_config_readmes_sheet_and_platemap_are_read(tmp_path):
    (tmp_path / "plates.csv").write_text(printed("plate,path,layout,platemap,train"))
    (tmp_path / "P1_map.csv").write_text(printed("well,role,.*"))
    raw = {
        "plates": "plates.csv",
        "channels": {"DNA": {"match": "1"}},
        "segment": {"nuclei": {"channel": "DNA"}},
    }
    settings = config.parse(raw, tmp_path)
    sheet = plates.read_sheet(settings)
    assert [(p.name, p.layout, p.train) for p in sheet] == [
        ("P1", "pattern", True),
        ("P2", "pattern", False),
    ]
    roles = {well: row["role"] for well, row in plates.read_platemap(sheet[0], settings).items()}
    assert roles == {"B02": "negative_control", "B03": "positive_control", "B04": ""}


@pytest.mark.parametrize(("how", "keeps"), [("cp -a", True), ("cp -r", False)])
def test_config_readme_says_which_copies_keep_the_times_of_raw_images(tmp_path, how, keeps):
    assert f"`{how}`" in (ROOT / "config" / "README.md").read_text()
    image = tmp_path / "raw" / "A01.tif"
    image.parent.mkdir()
    image.touch()
    os.utime(image, ns=(0, 10**18))
    subprocess.run([*how.split(), image.parent, tmp_path / "copy"], check=True)
    assert ((tmp_path / "copy" / "A01.tif").stat().st_mtime_ns == 10**18) == keeps


def test_citation_names_the_three_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert [r["url"].rpartition("/")[2] for r in citation["references"]] == [
        "2308.16637",
        "2403.17615",
        "2412.02275",
    ]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.M | re.S)


def test_the_pages_code_finds_a_cells_pixels_and_explains_it(finished, monkeypatch):
    """That of tables.md, and explain.md's on the crops of a screen."""
    monkeypatch.chdir(finished.folder)
    names = {}
    for code in blocks("tables.md"):
        exec(code, names)
    assert names["image"].shape[0] == 3 and names["mask"].any()
    row = finished.tables()["P1/cells.parquet"].query(
        "Metadata_Well == 'B01' and Metadata_Site == 1 and Metadata_Cell == 5"
    )
    assert int(names["mask"].sum()) == row["Cells_AreaShape_Area"].item()
    assert len(names["maps"]) == len(names["explained"]) == 2
    model = load_model(finished.results / "screen/model").networks["seed0.final"]
    exec(blocks("explain.md")[-1], found := {"model": model})
    assert len(found["audit"].score) == len(found["numbers"]) == found["cells"].max()
    assert found["masks"].any((1, 2)).all()


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
