"""Stories that nobody thought of: edits, losses, kills and runs drawn at random.

At the end of each, the plan must come to rest, and all that stands be made of what lies there.
``STORY=<seed>`` in the environment tells one again.
"""

import os
import random

import pytest
from stand_ins import LABELS, Bare, stand_in

from plateglass import jobs, markers
from plateglass.errors import PlateglassError
from plateglass.ledger import Ledger
from plateglass.plan import Plan
from plateglass.stages import STAGES

STEPS = 12
KILLED_AT = [
    (jobs, "_record"),
    (jobs, "keep"),
    (jobs, "write_atomically"),
    (markers, "write"),
    (markers, "remove"),
    (Ledger, "add"),
    (Ledger, "compact"),
]
SETTINGS = [
    ("ingest", "z_step_um", [1.5, None]),
    ("segment", "cells", [{"channel": "C1", "grow_um": 3.0}, None]),
    ("train", "epochs", [1, 2]),
    ("features", "reliance_draws", [4, None]),
    ("attribute", "cells_per_well", [1, 2]),
    ("aggregate", "normalize", ["standardize", None]),
    ("report", "gallery", [3, None]),
    ("platemap", "negative", ["of no well", None, None]),
    ("run", "verify", ["sizes", "full", None, None]),
]


class Story(Bare):
    """A screen to which things happen. ``read``: what ingest last read of each well."""

    def __init__(self, folder, monkeypatch, seed):
        super().__init__(folder)
        self.draw, self.told, self.read, self.unseen = random.Random(seed), [], {}, set()
        self.steps = None  # until a kill
        self.garbled = False
        stand_in(monkeypatch, lambda plate, well, text: self.read.update({(plate, well): text}))
        for owner, name in KILLED_AT:
            monkeypatch.setattr(owner, name, self._killed_around(getattr(owner, name)))

    def _killed_around(self, function):
        def call(*given, **more):
            self._step()
            result = function(*given, **more)
            self._step()
            return result

        return call

    def _step(self):
        if self.steps is not None:
            self.steps -= 1
            if self.steps < 0:
                self.steps = None
                raise KeyboardInterrupt

    # ------------------------------------------------------------------ what may happen
    def a_plate(self):
        return self.draw.choice(self.plates)

    def image_replaced(self):
        plate, well = self.a_plate(), self.draw.choice([*LABELS])
        self.unseen.discard((plate, well))
        letter = self.draw.choice("aaaaabx")
        self.photograph(plate, well, f"{letter}{plate}{well}{self.draw.randrange(3)}")

    def images_of_another_format(self):
        plate, letter = self.a_plate(), self.draw.choice("ab")
        for well in self.draw.sample([*LABELS], 5):
            self.unseen.discard((plate, well))
            self.photograph(plate, well, f"{letter}{plate}{well}0")

    def image_replaced_unseen(self):
        plate, well = self.a_plate(), self.draw.choice([*LABELS])
        if (path := self.raw(plate, well)).exists() and path.read_text()[0] == "a":
            self.unseen.add((plate, well))
            text = path.read_text()
            self.photograph(plate, well, text[:-1] + str((int(text[-1]) + 1) % 10), unseen=True)

    def image_removed(self):
        plate, well = self.a_plate(), self.draw.choice(["A03", "B01", "B02"])
        self.unseen.discard((plate, well))
        self.raw(plate, well).unlink(missing_ok=True)
        self.read.pop((plate, well), None)

    def well_relabelled(self):
        well = self.draw.choice(["A03", "A06", "B01", "B02"])
        self.labels[self.a_plate()][well] = self.draw.choice([*LABELS.values()])
        self.write()

    def training_switched(self):
        plate = self.a_plate()
        self.train[plate] = "no" if self.train[plate] == "yes" else "yes"
        self.write()

    def setting_changed(self):
        section, name, values = self.draw.choice(SETTINGS)
        value = self.draw.choice(values)
        self.settings[section].pop(name, None)
        if value is not None:
            self.settings[section][name] = value
        self.write()

    def plate_in_or_out(self):
        self.plates = ["P1", "P2"] if self.plates == ["P1"] else ["P1"]
        self.write()

    def engines_file_lost(self):
        kind = self.draw.choice(["done/*", "ledger/*", "begun/*", "parts/*/*/*.arrow", "begun"])
        for path in self._one_of(f".plateglass/{kind}"):
            if path.is_dir():
                for note in path.iterdir():
                    note.unlink()
                path.rmdir()
            else:
                path.unlink()

    def marker_torn(self):
        for path in self._one_of(".plateglass/done/*"):
            path.write_text(self.draw.choice(["", '{"a', "{}", "[]"]))

    def digest_flipped(self):
        for path in self._one_of(".plateglass/done/*"):
            name = self.draw.choice(["inputs", "output"])
            path.write_text(path.read_text().replace(f'"{name}": "', f'"{name}": "x'))

    def line_lost(self):
        for path in self._one_of(".plateglass/ledger/*"):
            lines = path.read_bytes().splitlines(keepends=True)
            if lines:
                lines.pop(self.draw.randrange(len(lines)))
            path.write_bytes(b"".join(lines))

    def ledger_flipped(self):
        for path in self._one_of(".plateglass/ledger/*"):
            if not (content := bytearray(path.read_bytes())):  # all of its wells were taken out
                continue
            content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
            path.write_bytes(content)

    def model_garbled(self):
        """At the same size: where no job reads it, only `verify: full` sees it."""
        self.garbled = True
        for path in self._one_of("screen/model/*"):
            path.write_bytes(bytes(path.stat().st_size))

    def model_lost(self):
        for path in self._one_of("screen/model/*"):
            path.unlink()

    def _one_of(self, pattern):
        found = sorted(self.results.glob(pattern))
        return [self.draw.choice(found)] if found else []

    def run_until(self):
        self.run(self.draw, until=self.draw.choice([*STAGES]))

    def run_with_retries(self):
        self.run(self.draw, retries=1)

    def run_killed(self):
        self.steps = self.draw.randrange(80)
        try:
            self.run(self.draw)
        except KeyboardInterrupt:
            pass
        finally:
            self.steps = None

    # ------------------------------------------------------------------ and how it ends
    def happen(self):
        edits = [self.image_replaced, self.setting_changed, self.well_relabelled]
        rare = [self.images_of_another_format, self.image_replaced_unseen, self.image_removed]
        rare += [self.training_switched, self.plate_in_or_out, self.engines_file_lost]
        rare += [self.marker_torn, self.digest_flipped, self.line_lost, self.ledger_flipped]
        rare += [self.model_lost, self.model_garbled]
        runs = [self.run_until, self.run_until, self.run_with_retries, self.run_killed]
        what = self.draw.choice([*edits, *edits, *rare, *runs, *runs])
        self.told.append(what.__name__)
        try:
            what()
        except PlateglassError as error:  # a plan that refuses to begin
            self.told.append(str(error))

    def end(self):
        """Run until no run fails; nothing is to be done then, and all is made of what lies there."""
        if "no" == self.train["P1"] == self.train.get("P2"):
            self.train["P1"] = "yes"
            self.write()
        if self.garbled:
            self.settings["run"]["verify"] = "full"
            self.write()
        for _ in range(4):
            failed = self.run(self.draw)
            self.told.append(f"ends with {failed or 'all done'}")
            if not failed:
                break
        assert not failed
        assert Plan(self.project()).reasons == {}
        lying = {
            (plate, well): self.raw(plate, well).read_text()
            for plate in self.plates
            for well in LABELS
            if self.raw(plate, well).exists()
        }
        assert {of for of in lying if self.read.get(of) != lying[of]} <= self.unseen
        assert self.differences({of: self.read[of] for of in lying}) == []


def tell(folder, monkeypatch, seed):
    folder.mkdir()
    with monkeypatch.context() as patch:
        story = Story(folder, patch, seed)
        try:
            story.run(story.draw)
            for _ in range(STEPS):
                story.happen()
            story.end()
        except Exception:
            print(f"seed {seed}", *story.told, sep="\n  ")
            raise


@pytest.mark.parametrize("number", [5, pytest.param(300, marks=pytest.mark.long)])
def test_any_story_ends_with_what_lies_there(tmp_path, monkeypatch, number):
    first = int(os.environ.get("STORY", random.SystemRandom().randrange(10**6)))
    for seed in range(first, first + number):
        tell(tmp_path / str(seed), monkeypatch, seed)
