"""The methods text says what values are in units of, also where negative controls lack."""

import dataclasses
import shutil

import pytest

from plateglass import tables
from plateglass.report import basis, response, words
from plateglass.report.subject import Subject

WHOLE = "all 96 wells with cells: the plate has 0 negative-control well(s) with cells"


@pytest.fixture
def subject(screen, tmp_path):
    """Both plates; their tables may be changed."""
    folder = screen.results
    for name in ("P1", "P2"):
        shutil.copytree(
            folder / name, tmp_path / name, ignore=lambda _, n: {x for x in n if "zarr" in x}
        )
    found = Subject.read(screen, ["P1", "P2"])

    class Elsewhere:
        """The screen's job with copied results."""

        results, config = tmp_path, screen.config

    return dataclasses.replace(found, job=Elsewhere())


def unlabelled(subject, *plates):
    """The same subject where ``plates`` have no negative controls."""
    wells = subject.wells.copy()
    at = wells["plate"].isin(plates) & (wells["label"] == subject.negative)
    wells.loc[at, "label"] = "another name"
    for plate in plates:
        path = subject.job.results / plate / "wells_normalized.parquet"
        tables.write(path, tables.read(path).assign(Metadata_Normalized_To=WHOLE))
    return dataclasses.replace(subject, wells=wells)


def text(subject, config, z_prime=True):
    found = words.methods(config, "plates", subject.model, basis.of(subject), z_prime)
    return " ".join(found["paragraphs"])


def test_with_negative_controls_it_says_so(subject, screen):
    said = text(subject, screen.config)
    assert "median 99th percentile of the plate's negative-control wells, by channel" in said
    assert "normalised per plate to the negative controls (median and" in said
    assert "hash of their names" not in said


def test_without_any_it_names_what_was_used_instead(subject, screen):
    said = text(unlabelled(subject, "P1", "P2"), screen.config)
    assert "negative-control wells" not in said
    assert "up to 24 of its wells chosen by a hash of their names" in said
    assert "no readable well is labelled “negative_control”" in said
    assert "normalised per plate to all wells with cells" in said


def test_one_plate_without_is_named(subject, screen):
    said = text(unlabelled(subject, "P2"), screen.config)
    assert "the plate's negative-control wells or, on P2, of up to 24" in said
    assert "to the negative controls or, on P2, to all wells with cells" in said


def test_controls_that_ingest_could_not_read_make_no_units(subject):
    sites = subject.sites.copy()
    negative = subject.wells[subject.wells["label"] == subject.negative]
    own = sites["Metadata_Plate"].eq("P1") & sites["Metadata_Well"].isin(
        negative.loc[negative["plate"] == "P1", "well"]
    )
    sites.loc[own, "Metadata_Quarantine"] = "segment: too few"
    assert basis.of(dataclasses.replace(subject, sites=sites)).hashed == ()
    sites.loc[own, "Metadata_Quarantine"] = "ingest: torn"
    assert basis.of(dataclasses.replace(subject, sites=sites)).hashed == ("P1",)


def test_without_a_table_that_tells_it_names_no_wells(subject, screen):
    for plate in subject.plates:
        (subject.job.results / plate / "wells_normalized.parquet").unlink()
    assert "normalised per plate (median" in text(subject, screen.config)


def test_a_report_without_z_prime_has_none_in_its_methods(subject, screen):
    assert "Z′" in text(subject, screen.config)
    assert "Z′" not in text(subject, screen.config, z_prime=False)


def test_the_backbone_is_a_name_in_quotes(subject, screen):
    assert "A network with the backbone “test_resnet” of timm [" in text(subject, screen.config)


def test_why_there_is_no_z_prime(subject):
    wells = subject.wells
    names = subject.negative, subject.positive
    assert response.no_z_prime(wells, *names) is None
    why = response.no_z_prime(wells, "dmso", subject.positive)
    assert why == "no well with a margin is labelled “dmso” (platemap.negative)"
    one = wells[wells["label"].ne(subject.positive) | ~wells["label"].duplicated()]
    assert "only one well" in response.no_z_prime(one, *names)
    assert response.no_z_prime(wells.drop(columns="margin"), *names) is None
