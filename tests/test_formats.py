"""Which format a plate's images are judged by, and who is asked."""

from unittest.mock import Mock

import numpy as np
import pytest
import tifffile

from plateglass.errors import SetupError
from plateglass.formats import SAMPLED, ask, judge, noted, usual_format
from plateglass.layouts import Format, Listing
from plateglass.raw import Raw

SMALL, LARGE = (8, 8), (16, 16)


@pytest.fixture
def plate(tmp_path):
    """Function from well → shape (None: no TIFF) to a listing of the images, and their signatures."""

    def write(shapes):
        found = Listing(tmp_path)
        for well, shape in shapes.items():
            path = tmp_path / f"{well}.tif"
            if shape is None:
                path.write_bytes(b"not a TIFF")
            else:
                tifffile.imwrite(path, np.zeros(shape, np.uint16))
            mark = (path.name, path.stat().st_size, 0)
            found.add(path.name, well, (1, "DNA", 0), path.name, None, mark)
        return found, dict.fromkeys(shapes, "as it was")

    return write


def names(count):
    return [f"{row}{column:02d}" for row in "ABCDEFGH" for column in range(1, 13)][:count]


def test_most_of_the_images_that_can_be_read_decide(plate):
    found, wells = plate({"A01": LARGE, "A02": None, "A03": SMALL, "A04": SMALL, "A05": None})
    votes = ask(found, wells)
    assert sorted(votes) == ["A01", "A03", "A04"]
    assert usual_format(votes) == Format(SMALL, "uint16", 1)


def test_a_plate_without_a_readable_image_has_no_usual_format(plate):
    assert usual_format(ask(*plate({"A01": None}))).dtype == "unreadable"


def test_beyond_the_sample_wells_are_asked_only_where_none_of_it_could_be_read(plate):
    found, wells = plate(dict.fromkeys(names(SAMPLED + 10), SMALL))
    votes = ask(found, wells)
    assert len(votes) == SAMPLED
    broken, _ = plate(dict.fromkeys(votes, None) | dict.fromkeys(wells.keys() - votes, LARGE))
    others = ask(broken, wells)
    assert len(others) == 1 and votes.keys().isdisjoint(others)


def test_a_well_more_moves_one_vote_at_most(plate):
    found, wells = plate(dict.fromkeys(names(60), SMALL))
    before = ask(found, wells)
    found, wells = plate(dict.fromkeys(names(61), SMALL))
    assert len(before.keys() - ask(found, wells)) <= 1


def test_a_known_vote_stands_while_the_files_are_as_they_were(plate):
    found, wells = plate({"A01": SMALL, "A02": SMALL, "A03": SMALL})
    known = {well: (signed, Format(LARGE, "uint16", 1)) for well, signed in wells.items()}
    assert ask(found, wells | {"A02": "changed"}, known) == {
        "A01": ("as it was", Format(LARGE, "uint16", 1)),
        "A02": ("changed", Format(SMALL, "uint16", 1)),
        "A03": ("as it was", Format(LARGE, "uint16", 1)),
    }


def test_wells_kept_without_their_images_vote_as_they_did_or_not_at_all(plate):
    found, wells = plate({"A01": SMALL})
    kept = {"A02": "as it was", "A03": "as it was"}
    known = {"A02": ("as it was", Format(LARGE, "uint16", 1))}
    assert sorted(ask(found, wells | kept, known)) == ["A01", "A02"]


def test_an_image_gone_since_it_was_listed_ends_it(plate, tmp_path):
    found, wells = plate({"A01": SMALL, "A02": SMALL})
    (tmp_path / "A02.tif").unlink()
    with pytest.raises(SetupError, match=r"A02\.tif was there when the job began"):
        ask(found, wells)
    found.drop("A02")
    with pytest.raises(SetupError, match="A02 was there when the job began"):
        found.planes("A02")


def test_votes_are_noted_and_asked_anew_by_other_settings(plate, tmp_path):
    found, wells = plate(dict.fromkeys(names(3), SMALL))
    project = Mock(state=tmp_path, trains=False)
    project.ledger.return_value, project.own.return_value = {}, {"params": "one"}
    raw = Raw(wells, listing=found)
    assert judge(project, "P1", raw) == (Format(SMALL, "uint16", 1), None)
    plate(dict.fromkeys(names(3), LARGE))  # by the same signature: not looked at
    assert judge(project, "P1", raw)[0].shape == SMALL
    project.own.return_value = {"params": "other"}
    assert judge(project, "P1", raw)[0].shape == LARGE
    assert noted(project, "P1").turns == 1
    (tmp_path / "formats/P1.json").write_text('{"usual": ')
    assert noted(project, "P1").votes == {}
