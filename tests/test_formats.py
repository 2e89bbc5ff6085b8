"""Which format a plate's images are judged by, and who is asked."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from plateglass import formats
from plateglass.errors import SetupError
from plateglass.formats import SAMPLED, ask, usual_format
from plateglass.layouts import Format, Listing
from plateglass.ledger import Ledger
from plateglass.raw import Raw

SMALL, LARGE = (8, 8), (16, 16)
OWN = {"code": 1, "params": "as set"}


@pytest.fixture
def plate(tmp_path):
    """Function from well → shape (None: no TIFF) to a listing of the images."""

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
        return found

    return write


def names(count):
    return [f"{row}{column:02d}" for row in "ABCDEFGH" for column in range(1, 13)][:count]


def ask_all(found):
    return ask(found, found.wells, {})


def test_a_format_in_words_is_read_again():
    for like in (Format((8, 9), "uint16", 1), Format((2160, 2560), "uint8", 12, 0.108333)):
        assert Format.read(str(like)) == like
    for words in (
        "",
        "8 × 8 uint16",
        "8 × x uint16, 1 plane",
        "8 × 8 uint16, 1 plane, x µm a pixel",
    ):
        with pytest.raises(ValueError):
            Format.read(words)


def test_most_of_the_images_that_can_be_read_decide(plate):
    votes = ask_all(plate({"A01": LARGE, "A02": None, "A03": SMALL, "A04": SMALL, "A05": None}))
    assert sorted(votes) == ["A01", "A03", "A04"]
    assert usual_format(votes) == Format(SMALL, "uint16", 1)


def test_the_pixel_size_is_that_of_most_images_of_the_usual_format():
    small, large = Format(SMALL, "uint16", 1), Format(LARGE, "uint16", 1)
    sized = [replace(small, pixel_size_um=size) for size in (0.65, 0.65, 0.325, None)]
    votes = [*sized, large, large, large]
    assert usual_format(dict(zip(names(7), votes))) == sized[0]
    bare = [sized[0], small, small]  # one that tells a size does not scale the others
    assert usual_format(dict(zip(names(3), bare))) == small


def test_a_plate_without_a_readable_image_has_no_usual_format(plate):
    assert usual_format(ask_all(plate({"A01": None}))).dtype == "unreadable"


def test_beyond_the_sample_wells_are_asked_only_where_none_of_it_could_be_read(plate):
    wells = names(SAMPLED + 10)
    votes = ask_all(plate(dict.fromkeys(wells, SMALL)))
    assert len(votes) == SAMPLED
    broken = plate(dict.fromkeys(votes, None) | dict.fromkeys(wells - votes.keys(), LARGE))
    others = ask_all(broken)
    assert len(others) == 1 and votes.keys().isdisjoint(others)


def test_a_well_more_moves_one_vote_at_most(plate):
    before = ask_all(plate(dict.fromkeys(names(60), SMALL)))
    assert len(before.keys() - ask_all(plate(dict.fromkeys(names(61), SMALL))).keys()) <= 1


def test_kept_wells_that_nothing_is_known_of_take_nobodys_place(plate):
    found = plate(dict.fromkeys(names(96)[::3], SMALL))
    assert len(ask(found, names(96), {})) == SAMPLED
    known = dict.fromkeys(names(96), Format(LARGE, "uint16", 1))
    assert set(ask(found, names(96), known).values()) == {Format(LARGE, "uint16", 1)}


def test_an_image_gone_since_it_was_listed_ends_it(plate, tmp_path):
    found = plate({"A01": SMALL, "A02": SMALL})
    (tmp_path / "A02.tif").unlink()
    with pytest.raises(SetupError, match=r"A02\.tif was there when the job began"):
        ask_all(found)


class Judged:
    """A plate of which ingest judges what was found."""

    def __init__(self, plate, folder):
        self.listed, self.own = plate, OWN
        self.wells = dict.fromkeys(names(5), "signature")
        self.ledger = Ledger(folder / "ledger.jsonl")

    def images(self, shape, wells=None):
        """Other images of these wells, by other signatures; of all, those of before."""
        self.listing = self.listed(
            dict.fromkeys(self.wells, SMALL) | dict.fromkeys(wells or self.wells, shape)
        )
        if wells:
            self.wells |= dict.fromkeys(wells, str(shape))

    def judge(self, *kept):
        config = SimpleNamespace(ingest=SimpleNamespace(pixel_size_um=None))
        project = SimpleNamespace(own=lambda stage: self.own, config=config)
        for well in kept:
            self.listing.drop(well)
        raw = Raw(self.wells, listing=self.listing, kept=frozenset(kept))
        return formats.judge(project, raw, self.ledger)

    def note_results(self, usual, like=None, **facts):
        """Lines of wells that were judged by ``usual``; ``like``: what their own images are like."""
        for well, signature in self.wells.items():
            parts = {**self.own, "in": signature, "usual": str(usual)}
            self.ledger.add(
                well, parts=parts, key="key", files={}, like=str(like or usual), **facts
            )


@pytest.fixture
def judged(plate, tmp_path):
    return Judged(plate, tmp_path)


def test_results_vote_and_no_image_of_theirs_is_opened(judged):
    judged.images(SMALL)
    assert judged.judge() == Format(SMALL, "uint16", 1)
    judged.note_results(Format(SMALL, "uint16", 1))
    judged.images(LARGE)  # of the same size and time: the documented blind spot
    assert judged.judge() == Format(SMALL, "uint16", 1)
    judged.own = OWN | {"params": "others"}  # by which each image is read again
    assert judged.judge() == Format(LARGE, "uint16", 1)


def test_wells_vote_by_what_they_are_like_not_by_what_they_were_judged_by(judged):
    small = Format(SMALL, "uint16", 1)
    judged.images(SMALL)
    judged.note_results(replace(small, pixel_size_um=0.65), like=small)  # others told a size
    assert judged.judge() == small


@pytest.mark.parametrize("words", [None, "8 × 8 uint16"])
def test_a_result_that_does_not_tell_what_it_is_like_has_its_image_asked(judged, words):
    judged.note_results("8 × 8 uint16, 1 plane", like=words)
    if words is None:
        for entry in judged.ledger.values():
            del entry["like"]
    judged.images(LARGE)
    assert judged.judge() == Format(LARGE, "uint16", 1)


def test_images_that_changed_vote_as_they_are_now(judged):
    judged.images(SMALL)
    judged.note_results(Format(SMALL, "uint16", 1))
    judged.images(LARGE, ["A01", "A02", "A03"])
    assert judged.judge() == Format(LARGE, "uint16", 1)


def test_wells_kept_without_images_vote_by_what_was_made_of_them(judged):
    judged.images(SMALL)
    judged.note_results(Format(SMALL, "uint16", 1))
    judged.images(LARGE, ["A01", "A02"])
    assert judged.judge("A03", "A04", "A05") == Format(SMALL, "uint16", 1)
