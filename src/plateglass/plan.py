"""What is stale: made once, in Snakemake's main process, by reading alone.

A (plate, stage) is done where its marker says that it was made of what it would be made of now (see
`contents`), and what it left is there. Where it must run, and comes out as before, what follows stands;
but a plan cannot know that, so all that follows is asked for, and looks.
A job is asked for by a marker that does not exist yet: "must it run" is "is that file absent", and no
times are compared. Inside a job the ledger decides by the well (see jobs.py), so a job that is asked for
without need costs a look and computes nothing.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from plateglass import keys, markers
from plateglass.contents import Contents
from plateglass.errors import PlateglassError, SetupError, UserError
from plateglass.keys import Key
from plateglass.ledger import WHOLE, fingerprint
from plateglass.project import Project
from plateglass.raw import Raw, listed, scan, unreadable
from plateglass.reasons import LOST, Reasons, in_words, ranges, some
from plateglass.stages import SCREEN, STAGES

ROOM = 1.5  # bytes of a store for a byte of raw images, generously
SCANNERS = 8  # plates that are listed at a time, where listing them is waiting
PLATE_TABLES = ("cells", "sites", "wells", "wells_normalized")


class Plan:
    """Keys of all markers, and per (plate, stage) to run the wells and the reasons.

    Attributes
    ----------
    keys : (plate, stage) → the end of the name of its marker, see `Key`
    reasons : (plate, stage) → {well: reason}, for those that must run
    refused : plate → why nothing of it is touched; the other plates run, the exit code is not 0
    notes : sentences for the user that stop nothing

    Raises
    ------
    UserError
        Settings, sheets or a plate never seen before cannot be followed: no job starts.
    """

    def __init__(self, project: Project):
        self.project = project
        self.contents = Contents(project, by_markers=True)
        self.keys: dict[tuple[str, str], str] = {}
        self.reasons: dict[tuple[str, str], dict[str, str]] = {}
        self.refused: dict[str, str] = {}
        self.notes: list[str] = []
        self.raw: dict[str, dict[str, str]] = {}
        self._found: dict[str, Raw] = {}
        self._listed: dict[str, tuple[dict[str, str], str]] = {}
        self._changes: set[tuple[str, str]] = set()  # what may come out otherwise than before
        self._waits = False  # networks, for a training plate that is refused
        self._scan()
        self._why = Reasons(project, self.raw, self.contents)
        self._check_model()
        self._make()
        self._note_platemaps()
        self._note_controls()
        self._note_training()
        self._check_space()
        self._name_leftovers()

    # ------------------------------------------------------------------ the raw plates
    def _scan(self) -> None:
        problems = []
        for name, found in zip(self.project.names, self._look()):
            if isinstance(found, PlateglassError):
                problems.append(str(found))
                continue
            self._found[name], self.raw[name] = found, found.wells
            if found.doubt:
                self.refused[name] = found.doubt
                continue
            run = self.project.config.run
            if name in run.accept_removed and run.missing_raw != "keep":
                self.notes.append(
                    f"plate {name}: as run.accept_removed names it, wells of which the images are gone "
                    "are dropped, however many; take the name out again"
                )
            if found.kept:
                self.notes.append(
                    f"plate {name}: {len(found.kept)} well(s) without (all) their images stay as they were "
                    f"(run.missing_raw: keep): {ranges(found.kept)}"
                )
            if name in self.project.maps.lost:  # and run.missing_raw: keep
                lost = self.project.maps.lost[name]
                self.notes.append(f"{lost}; its copy of the last run is read")
            if found.ignored:
                self.notes.append(
                    f"plate {name}: images that ingest.pattern does not match are left out, as "
                    + ", ".join(found.ignored)
                )
            self._demo(name)
        if problems:
            raise UserError("\n".join(problems))

    def _demo(self, name: str) -> None:
        """Demo plates are rendered by a job of their own where a file is missing."""
        plate = self.project.plate(name)
        if plate.layout != "demo":
            return
        from plateglass.layouts.demo import missing

        absent = missing(plate)
        marker = self.contents.markers.get((name, "demo"))
        key = Key(keys.short(fingerprint("demo", name)), count=marker.key.count if marker else 0)
        if marker is None or absent:
            key = replace(key, count=key.count + bool(marker))
            self.reasons[name, "demo"] = {f"{len(absent)} files": "to render"}
        self.keys[name, "demo"] = str(key)

    def _check_model(self) -> None:
        from plateglass.models.nuclei import check

        check(self.project.config.segment.nuclei.model)

    def _note_platemaps(self) -> None:
        """Wells without images, wells without a row: until all of their plate is done."""
        for name in dict.fromkeys(plate for plate, _ in self.reasons if plate != SCREEN):
            found, rows = self._found[name], self.project.maps[name]
            if absent := sorted(rows.keys() - found.wells.keys()):
                self.notes.append(
                    f"plate {name}: the platemap names {len(absent)} well(s) without images: "
                    f"{some(absent)}"
                )
            if rows and (bare := sorted(found.wells.keys() - rows.keys())):
                self.notes.append(
                    f"plate {name}: {len(bare)} well(s) with images have no row in the platemap: "
                    f"{some(bare)}"
                )

    def _note_controls(self) -> None:
        """Plates with labels of which none is that of the negative controls."""
        negative = self.project.config.platemap.negative
        labels = {plate: set(self.project.labels(plate).values()) for plate in self.project.names}
        bare = [plate for plate, told in labels.items() if told and negative not in told]
        if bare and self.reasons:
            self.notes.append(
                f"no well of {some(bare)} has the label {negative!r} of platemap.negative: its profiles "
                f"are normalised to all its wells; labels there: {some(sorted(labels[bare[0]]))}"
            )

    def _note_training(self) -> None:
        """What of the settings for training does not come to pass."""
        project, train = self.project, self.project.config.train
        if train.classes and not project.has_model and self.reasons:
            self.notes.append(project.why_no_model())
        if (SCREEN, "train") in self.reasons:
            self._check_backbone()
            counts = dict.fromkeys(train.classes, 0) | Counter(
                label
                for plate in project.training_plates()
                for well, label in project.classed(plate).items()
                if well in self.raw[plate]
            )
            label, wells = min(counts.items(), key=lambda item: item[1])
            if wells < 2:
                raise UserError(
                    f"train.classes: {label!r} has {wells} training well(s) with images, 2 are needed to "
                    f"hold wells out; do the platemaps of {some(project.training_plates())} name the wells "
                    "that were photographed?"
                )
            if wells < train.folds:
                self.notes.append(
                    f"train.folds is {train.folds}, but class {label!r} has {wells} training wells with "
                    f"images: {wells} folds are made"
                )

    def _check_backbone(self) -> None:
        """Hours of segmentation shall not come before train says that there is no such backbone."""
        train = self.project.config.train
        # seconds of torch and timm, but not for the default, which fits any crop that may be set
        if {"backbone", "cut"} & train.model_fields_set:
            from plateglass.models.backbone import build

            build(train.backbone, train.blends + 1, crop=train.crop, cut=train.cut)

    def _check_space(self) -> None:
        """Refuse to start what cannot end: stores take about as much room as the raw images."""
        need = 0.0
        for (plate, stage), wells in self.reasons.items():
            if stage == "ingest":
                ledger = self.project.ledger(stage, plate)
                for well in wells:
                    has = sum(size for size, _ in ledger.get(well, {}).get("files", {}).values())
                    need += max(0.0, ROOM * self._found[plate].bytes.get(well, 0) - has)
        folder = self.project.config.results
        while not folder.exists():
            folder = folder.parent
        if self.reasons and not os.access(folder, os.W_OK):
            raise SetupError(
                f"{folder}: cannot be written (mounted read-only, or another user's); mend that, or "
                "set results: to a folder of yours"
            )
        free = shutil.disk_usage(folder).free
        if need > free:
            raise SetupError(
                f"{folder}: {free / 1e9:.1f} GB are free, about {need / 1e9:.1f} GB are needed for "
                "the images; make room, or set results: to another disk"
            )

    def _name_leftovers(self) -> None:
        """Plates that left the sheet keep their results; say which."""
        ledgers = self.project.state / "ledger"
        names = os.listdir(ledgers) if ledgers.is_dir() else []
        known = {name.split(".")[0] for name in names if name[0] != "."}  # else of a killed job
        left = sorted(
            name
            for name in known - set(self.project.names) - {SCREEN}
            if (self.project.config.results / name).is_dir()
        )
        if left:
            self.notes.append(
                f"results of plates that are not in the sheet stay where they are: {some(left)}"
            )

    # ------------------------------------------------------------------ what must run
    def _make(self) -> None:
        project = self.project
        cells = {plate: self._cells(plate) for plate in project.names}
        if project.trains:
            self._train()
        for plate in project.names:
            self._plate(plate, cells[plate])
        others = [(plate, "aggregate") for plate in project.names if plate not in self.refused]
        self._ask_whole("aggregate", SCREEN, others, "plates or their tables changed")
        before = [(SCREEN, "aggregate"), (SCREEN, "train")]
        self._ask_whole("report", SCREEN, before, "tables or the model changed")
        for plate in self.refused:
            for stage in ("demo", *STAGES):
                self.keys.pop((plate, stage), None)
                self.reasons.pop((plate, stage), None)
        for plate, stage in [*self.reasons]:
            if stage != "demo":
                self.keys[plate, stage] = str(self._key(stage, plate))

    def _train(self) -> None:
        """Ask for networks where others come out, or what stands is damaged."""
        stands = self.contents.markers.get((SCREEN, "train"))
        if self._wait():
            self._waits = True
            return
        before = {
            (name, of) for name in self.project.training_plates() for of in ("ingest", "segment")
        }
        same = stands and stands.inputs == self.contents.inputs("train", SCREEN)
        if (not same or before & self._changes) and self._why.other_model is not None:
            self._changes.add((SCREEN, "train"))
        if self._ask("train", SCREEN):
            again = stands is not None and (SCREEN, "train") not in self._changes
            why = self._why.of_training(again)
            self.reasons[SCREEN, "train"] = {"": why} if why else {}

    def _look(self) -> Iterator[Raw | PlateglassError]:
        """The plates as they lie there; where that is mostly waiting (a share), some at a time.

        Where it is not, threads that take turns would double the CPU time.
        """

        def look(name: str) -> Raw | PlateglassError:
            try:
                self.project.maps[name]  # read, and refused, with the plate
                found = scan(self.project, name, lambda wells: self._seen(name, wells))
                doubt = found.doubt or self._platemap_lost(name)
                # a thousand listings would fill the memory
                return replace(found, doubt=doubt, listing=None)
            except PlateglassError as error:
                return error

        left = list(self.project.names)
        took = worked = 0.0
        while left and took < max(0.1, 3 * worked):
            took, worked = took - time.perf_counter(), worked - time.thread_time()
            found = look(left.pop(0))
            took, worked = took + time.perf_counter(), worked + time.thread_time()
            yield found
        if left:
            with ThreadPoolExecutor(SCANNERS) as pool:
                yield from pool.map(look, left)

    def _platemap_lost(self, plate: str) -> str | None:
        """Doubt of a plate whose platemap was there when it was run, and is out of reach now."""
        why = self.project.maps.lost.get(plate)
        if why is None or self.project.config.run.missing_raw == "keep":
            return None
        return f"{why}; nothing was touched. Bring it back, or set run.missing_raw: keep"

    def _seen(self, plate: str, wells: dict[str, str]) -> bool:
        """Whether a marker says that ingest finished with exactly these wells."""
        inputs = self.contents.inputs("ingest", plate, listed(wells))
        self._listed[plate] = wells, inputs
        marker = self.contents.markers.get((plate, "ingest"))
        return marker is not None and marker.inputs == inputs

    def _wait(self) -> bool:
        """Whether networks stay as they are, since a training plate must come back before others.

        Refused half-way, it has pixels without labels; its own jobs have to come first.
        """
        behind = [name for name in self.project.training_plates() if self._left_behind(name)]
        if not behind:
            return False
        ledger = self.project.ledger("train", SCREEN)
        if WHOLE not in ledger or markers.lost(self.project, SCREEN, "train", ledger):
            return False
        self.notes.append(f"the networks stay as they are until {some(behind)} can be run")
        return True

    def _left_behind(self, plate: str) -> bool:
        """Whether a plate that is refused has something to do."""
        return plate in self.refused and any((plate, stage) in self.reasons for stage in STAGES)

    def _cells(self, plate: str) -> dict[str, str]:
        """Ask for a plate's ingest and segment; the wells that segment has to do."""
        pending = self._ask_wells("ingest", plate, [], {})
        if why := unreadable(plate, self._found[plate], pending):
            self.refused.setdefault(plate, why)
        # labels lie in the store that ingest writes to: look
        again = (plate, "ingest") in self.reasons
        return self._ask_wells("segment", plate, [(plate, "ingest")], pending, again=again)

    def _plate(self, plate: str, pending: dict[str, str]) -> None:
        """Ask for a plate's stages after segment."""
        before = [(SCREEN, "train"), (plate, "ingest"), (plate, "segment")]
        for stage in ("features", "attribute") if self.project.has_model else ("features",):
            pending = self._ask_wells(stage, plate, before, pending)
            before.append((plate, stage))
        self._ask_whole("aggregate", plate, before, "wells or the platemap changed")
        before.append((plate, "aggregate"))
        self._ask_whole("report", plate, before, "tables or the model changed")

    def _ask_wells(
        self,
        stage: str,
        plate: str,
        before: list[tuple[str, str]],
        pending: dict[str, str],
        again: bool = False,
    ) -> dict[str, str]:
        """Wells to do and why, of a stage that works by the well; nothing where it need not run."""
        if not self._ask(stage, plate, before, again):
            return {}
        retrain = (SCREEN, "train") in self._changes
        self.reasons[plate, stage] = self._why.of_wells(stage, plate, pending, retrain)
        return self.reasons[plate, stage]

    def _ask_whole(
        self, stage: str, plate: str, before: list[tuple[str, str]], reason: str
    ) -> None:
        if self._ask(stage, plate, before):
            changes, ledger = (plate, stage) in self._changes, self.project.ledger(stage, plate)
            if changes and self._is_made(stage, plate):
                self.reasons[plate, stage] = {}
                return
            if not changes or markers.lost(self.project, plate, stage, ledger):
                why = LOST
            elif (plate, stage) in self.contents.markers or WHOLE in ledger:
                why = self._why.named(stage, plate) or reason
            else:
                why = "new"
            self.reasons[plate, stage] = {"": why}

    def _is_made(self, stage: str, plate: str) -> bool:
        """Whether a job will find its tables or report made of what they would be made of."""
        if plate == SCREEN:
            before = any(
                why
                for (name, of), why in self.reasons.items()
                if of != "report" and name not in self.refused
            )
        else:
            in_front = [(SCREEN, "train"), *((plate, name) for name in STAGES)]
            before = any(self.reasons.get(job) for job in in_front)
        return not before and self._stands(stage, plate)

    def _stands(self, stage: str, plate: str) -> bool:
        """Whether a stage of a whole is there, made of what lies in front as it lies there."""
        ledger = self.project.ledger(stage, plate)
        if ledger.output() != self.contents.inputs(stage, plate):
            return False
        return not markers.lost(self.project, plate, stage, ledger)

    def _ask(
        self, stage: str, plate: str, before: list[tuple[str, str]] = (), again: bool = False
    ) -> bool:
        """Whether a job has to run; and note whether it may come out otherwise than before.

        It may where anything in ``before`` may, or it would be made of something else than it was. Else it
        runs where what it left is damaged, or ``again``.
        """
        marker = self.contents.markers.get((plate, stage))
        if marker is not None:
            self.keys[plate, stage] = str(marker.key)
        if stage != "train" and (
            not self._changes.isdisjoint(before)
            or marker is None
            or marker.inputs != self._inputs(stage, plate)
        ):
            self._changes.add((plate, stage))
        if (plate, stage) in self._changes or marker is None or again:
            return True
        return not markers.intact(self.project, plate, stage, marker)

    def _inputs(self, stage: str, plate: str) -> str:
        """Digest of all that a stage's result would be made from, by the listing too."""
        if stage != "ingest":
            return self.contents.inputs(stage, plate)
        wells, inputs = self._listed.get(plate, (None, ""))
        if wells is not self.raw[plate]:  # wells told as they were
            inputs = self.contents.inputs(stage, plate, listed(self.raw[plate]))
        return inputs

    def _key(self, stage: str, plate: str) -> Key:
        """The key of a job that runs: what it has to find, and what to leave as it was."""
        project, marker = self.project, self.contents.markers.get((plate, stage))
        found = listed(self.raw[plate]) if stage == "ingest" else None
        output = model = None
        if (plate, stage) not in self._changes:
            output = self.contents.output(stage, plate)
        trains_anew = self._waits or (SCREEN, "train") in self._changes
        if project.teaches(plate) and stage in ("ingest", "segment") and not trains_anew:
            model = self.contents.output("train", SCREEN)
        digests = project.basis(stage, plate), found, output, model
        return Key(*map(keys.short, digests), marker.key.count + 1 if marker else 0)

    def force(self) -> None:
        """Ask for what is done, too, by new keys: it is held to what is known now, not to what was then."""
        for plate, stage in self.keys.keys() - self.reasons.keys():
            if stage in STAGES:
                self.keys[plate, stage] = str(self._key(stage, plate))

    def why(self, plate: str, stage: str) -> str:
        """One phrase for a job's message: how many wells, for which reason."""
        return in_words(stage, self.reasons.get((plate, stage), {}))
