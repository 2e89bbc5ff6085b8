"""The real Snakemake over a tiny screen: what the user types and sees."""

import pytest

from plateglass.stages import STAGES
from screen import Screen
from terminal import snakemake


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    screen = Screen(tmp_path_factory.mktemp("workflow"))
    # one well that cannot be read: the run goes on
    screen.raw("P2", "B02").write_bytes(screen.raw("P2", "B02").read_bytes()[:3000])
    screen.said_dry = snakemake(screen, "-n")
    assert not (screen.folder / "results").exists(), "planning wrote something"
    screen.said = snakemake(screen)
    return screen


def test_the_dry_run_says_what_and_why(finished):
    assert "P1 ingest: 8 wells new (A01, A02, A03, A04, A05, A06, …)" in finished.said_dry
    assert "screen train: new" in finished.said_dry
    for word in ("jobid", "input:", "params", "reason:"):
        assert word not in finished.said_dry


def test_the_run_shows_progress_and_where_to_look(finished):
    said = finished.said
    assert "P1 segment: " in said
    assert "8/8 wells" in said
    assert "results/screen/report.html" in said
    assert "results/<plate>/cells.parquet" in said
    assert (finished.results / "screen/report.html").exists()
    assert (finished.results / "P2/report.html").exists()


def test_a_truncated_image_is_quarantined_and_named(finished):
    assert "1 well(s) or site(s) in quarantine" in finished.said
    assert "P2 B02" in finished.said and "P2_B02_s1_Marker.tif" in finished.said
    tables = finished.tables()
    assert "B02" not in set(tables["P2/cells.parquet"]["Metadata_Well"])
    assert "P2_B02_s1_Marker.tif" in (finished.results / "P2/report.html").read_text()


def test_a_second_run_has_nothing_to_do(finished):
    assert "Nothing to be done" in snakemake(finished)


def test_a_deleted_table_comes_back_without_computing(finished):
    table = finished.results / "P1/wells.parquet"
    before = table.read_bytes()
    table.unlink()
    said = snakemake(finished)
    assert not [stage for stage in STAGES if f" {stage}: " in said], said
    assert table.read_bytes() == before


def test_another_report_by_path_and_snakemakes_own(finished, tmp_path):
    snakemake(finished, "results/P1/cells.parquet")
    snakemake(finished, "--report", str(tmp_path / "snakemake.html"))
    page = (tmp_path / "snakemake.html").read_text()
    assert "plateglass" in page


def test_a_mistake_stops_everything_before_any_job(finished):
    sheet = finished.folder / "plates.csv"
    kept = sheet.read_text()
    sheet.write_text(kept.replace("pattern", "patern", 1))
    try:
        code, said = snakemake(finished, check=False)
    finally:
        sheet.write_text(kept)
    assert code != 0
    assert "'patern' is unknown; one of pattern, loaddata, demo" in said
    assert "Traceback" not in said
