"""The stage: files where they belong, the same bytes each time, and lines where something lacks."""

import json
import re

import pytest

from plateglass import tables
from plateglass.errors import DamageError
from plateglass.project import Project
from plateglass.report import gallery, page, pictures, plate, screen
from plateglass.report.subject import Subject
from plateglass.wells import Job
from report import invented


@pytest.fixture(scope="module")
def job(once, tmp_path_factory):
    """A copy, from which tests take things away."""
    screen = once("invented", invented.whole)
    return invented.copy(screen, tmp_path_factory.mktemp("copy") / "screen").of("P1")


@pytest.fixture(scope="module")
def html(job):
    return (job.plate_dir / "report.html").read_text(encoding="utf-8")


def test_a_report_is_one_file_under_five_megabytes(job, html):
    assert len(html.encode()) <= page.LIMIT
    assert not re.search(r'(src|href)="(https?:)?//', html)
    assert not list(job.plate_dir.glob(".report*"))


def test_the_same_tables_give_the_same_bytes(job, html):
    assert plate.build(job) == html
    assert not re.search(r"20\d\d-\d\d-\d\d", html.replace(page.vega(), ""))


def test_every_card_says_plate_well_site_cell(html):
    where = re.findall(r"<b>(Plate P1 · well [A-H]\d\d · site 1 · cell \d+)</b>", html)
    assert len(where) == 24


def test_foot_says_what_made_it(job, html):
    foot = html.split('<footer id="provenance">')[1]
    assert "0123456789abcdef" in foot
    assert "ingest 1" in foot or re.search(r"ingest \d+", foot)
    assert "cells_per_well" in foot


def test_methods_cite_what_they_name_and_tell_what_was_done(html):
    text = html.split('id="methods-text"')[1].split("</div>")[0]
    assert "out-of-fold (3 folds by well)" in text  # of four that were asked for
    cited = {int(n) for found in re.findall(r"\[([\d, ]+)\]", text) for n in found.split(",")}
    assert cited == set(range(1, text.count("<li>") + 1))
    for paper in ("2308.16637", "2403.17615", "2412.02275"):
        assert paper in text


def test_too_heavy_a_page_takes_coarser_pictures(job, html, monkeypatch):
    monkeypatch.setattr(plate, "LIMIT", len(html.encode()) - 1)
    assert len(plate.build(job).encode()) < len(html.encode())


def test_screen_writes_its_page_and_the_figures_for_the_terminal(job, html):
    page_ = (job.results / "screen" / "report.html").read_text(encoding="utf-8")
    assert 'href="../P1/report.html"' in page_
    assert len(page_.encode()) <= page.LIMIT
    said = json.loads((job.state / "summary.json").read_text())
    assert said["wells"] == "192"
    failing = re.search(r"Controls that fail: ([^<]*?)\. Read", page_)
    assert (failing and failing[1]) == said.get("controls that fail")
    assert re.fullmatch(r"0\.\d\d \(0\.\d\d to 0\.\d\d\)", said["P1: Z′"])


def test_what_lacks_is_left_out_with_a_line(job, html, tmp_path):
    (job.plate_dir / "attribution.zarr").rename(tmp_path / "attribution.zarr")
    wells = job.plate_dir / "wells.parquet"
    whole = tables.read(wells)
    try:
        tables.write(wells, whole.drop(columns=["Metadata_dose_level", "Metadata_Reliance"]))
        left = plate.build(job)
        assert "attribution.zarr explains no cell of this plate." in left
        assert "Not shown, because the tables do not have it: Reliance on background." in left
        assert "no column with at least three doses" in left
    finally:
        tables.write(wells, whole)
        (tmp_path / "attribution.zarr").rename(job.plate_dir / "attribution.zarr")


def test_a_lost_shard_is_told_and_makes_no_page_without_pictures(job, html):
    subject = Subject.read(job, ["P1"])
    lost = next((job.store / "A" / "1" / "0" / "0").rglob("c/0/0/0/0"))
    kept = lost.read_bytes()
    lost.unlink()
    try:
        with pytest.raises(DamageError, match="pixels are missing; give the same command again"):
            gallery.build(subject, 80)
    finally:
        lost.write_bytes(kept)


def test_the_screen_reads_no_more_of_the_cells_than_it_counts(job, html):
    cells = Subject.read(job.of("screen"), ["P1", "P2"]).cells["P2"]
    assert set(cells["label"]) == {"negative_control", "positive_control"}
    assert "Metadata_GradCAMO" not in cells


@pytest.fixture
def unsized(monkeypatch):
    """Stores whose pixel size nothing told: ingest took 1 µm a pixel."""
    monkeypatch.setattr(pictures.store, "pixel_size", lambda root, well, field=0: (1.0, 1.0))


def test_bars_are_in_pixels_where_nothing_tells_a_pixels_size(job, html, unsized):
    bars = re.compile(r"The bars? (?:is|are) (?:[^<]*?)(?:px|µm|pixels)")
    assert len(bars.findall(html)) == 3
    assert "px" not in "".join(bars.findall(html))
    left = plate.build(job)
    assert len(re.findall(r"The bar is \d+\spx\.</figcaption>", left)) == 2
    assert re.search(r"The bar is \d+\spx of the images", left)
    assert "The bars are in pixels of the images" in left
    assert not re.search(r"The bar is \d+\sµm", left)


def test_composite_pictures_have_one_key_of_channels_a_section(html):
    for section in ("gallery", "segmentation"):
        own = html.split(f'<section id="{section}">')[1].split("</section>")[0]
        [key] = re.findall(r'aria-label="Colours of the channels">(.*?)</ul>', own, re.DOTALL)
        assert re.findall(r"</i>(\w+)</li>", key) == ["DNA", "Marker"]
        assert len(set(re.findall(r"background: (#[0-9A-Fa-f]{6})", key))) == 2


def test_why_there_is_no_z_prime_is_told_everywhere(job, html):
    settings = job.config.platemap.model_copy(update={"negative": "dmso"})
    config = job.config.model_copy(update={"platemap": settings})
    other = Job("report", "screen", Project.read(config))
    why = "no well with a margin is labelled “dmso” (platemap.negative)"
    left = plate.build(other.of("P1"))
    assert f"Z′ cannot be given: {why}." in left
    assert "Z′ cannot be given" not in html
    page_, said = screen.build(other)
    assert f"No Z′ on P1, P2: {why}." in page_
    assert said["no Z′"] == f"on P1, P2: {why}"
    for text in (left, page_):
        methods = text.split('id="methods-text"')[1].split("</div>")[0]
        assert "Z′" not in methods
        assert "chosen by a hash of their names" in methods
