"""Why something must run, as far as a plan can know it; and in words."""

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from plateglass import markers
from plateglass.contents import Contents
from plateglass.ledger import DAMAGED, todo
from plateglass.plates import well_order
from plateglass.project import Project
from plateglass.stages import SCREEN, STAGES

LOST = "what was stored is damaged"


class Reasons:
    """What a plan can say of wells and networks, by ledgers, listings and the last markers.

    ``raw``: plate → well → signature of its files. ``contents``: what stands.
    """

    def __init__(
        self,
        project: Project,
        raw: dict[str, dict[str, str]],
        contents: Contents,
    ):
        self.project, self._raw, self._contents = project, raw, contents

    def of_wells(
        self, stage: str, plate: str, pending: dict[str, str], retrain: bool
    ) -> dict[str, str]:
        """Wells to do and why, as far as can be known before the stages in front have run."""
        project, ledger = self.project, self.project.ledger(stage, plate)
        lost = markers.lost(project, plate, stage, ledger)
        named = self.named(stage, plate) or "parameters changed"
        if stage == "ingest":
            return todo(ledger, project.wants(stage, plate, self._raw[plate]), lost, named)
        known = project.wants(stage, plate)
        if self._comes_back and stage in ("features", "attribute"):
            known = {well: parts | {"model": self._comes_back} for well, parts in known.items()}
        for well, reason in pending.items():
            if reason != "removed" and well not in known:
                known[well] = {}
        reasons = todo(ledger, known, lost, named)
        for well, reason in pending.items():
            if reason == "removed":
                if well in ledger:
                    reasons[well] = "removed"
            elif reason != DAMAGED or well not in ledger:
                # where it began, not all on the way
                told = well not in ledger or reason.partition(": ")[0] in STAGES
                reasons[well] = reason if told else f"{STAGES[stage].after}: {reason}"
        # of a touched image ingest may make what it made before, and these stay
        of_all = []
        if retrain and stage in ("features", "attribute"):
            of_all.append(f"the model {'is' if self.other_model else 'may be'} trained anew")
        if stage == "features" and self._units_change(plate):
            of_all.append("plate units may change")
        for reason in of_all:
            for well in ledger.keys() | known.keys():
                reasons.setdefault(well, reason)
        return reasons

    def of_training(self, again: bool) -> str:
        """Why networks are trained, or may be; nothing where the job will find them as they shall be.

        ``again``: what stands was lost, and comes back as it was.
        """
        ledger = self.project.ledger("train", SCREEN)
        there = (self.project.model_dir / "model.json").exists()
        if not there and not ledger:
            return "new"
        if self.other_model and not again:
            return self.named("train", SCREEN) or "training wells or their stages changed"
        if again or not there or markers.lost(self.project, SCREEN, "train", ledger):
            return LOST
        return "" if self.other_model is None else "training wells may have changed"

    @cached_property
    def other_model(self) -> bool | None:
        """Whether training gives another model: True, surely; None, surely not.

        False where images must be read again to know. Told by content, as its job decides, and by
        what is known of the stages in front that must run.
        """
        project = self.project
        if self._contents.output("train", SCREEN) != self._contents.train_key():
            return True
        unread = False
        for plate in project.training_plates():
            ingest, labels = project.ledger("ingest", plate), project.classed(plate).keys()
            # as if each image were the one that was read
            read_before = {well: entry["parts"]["in"] for well, entry in ingest.items()}
            raw = {well: read_before.get(well, new) for well, new in self._raw[plate].items()}
            read = todo(ingest, project.wants("ingest", plate, raw)).keys()
            # what is new may end in quarantine, and what was there has no part in the networks
            unsure = read - ingest.computed().keys()
            read -= unsure
            cut = todo(project.ledger("segment", plate), project.wants("segment", plate)).keys()
            units = {w for wells in (ingest, raw) for w in project.units_wells(plate, wells)}
            if read & (units | labels) or cut & labels:
                return True
            unread |= bool(unsure & raw.keys() & (units | labels))
            unread |= any(self._raw[plate][w] != raw[w] for w in (units | labels) & raw.keys())
        return False if unread else None

    @cached_property
    def _comes_back(self) -> str | None:
        """Key of the networks that training puts back, where they are lost."""
        lost = self.project.trains and self.project.model_key() is None
        return self._contents.train_key() if lost else None

    def _units_change(self, plate: str) -> bool:
        """Whether wells that the plate's units are made from come, go, or are to be read again."""
        project, raw = self.project, self._raw[plate]
        ingest = project.ledger("ingest", plate)
        # not those to be read again because their result is damaged: it comes back as it was
        changed = todo(ingest, project.wants("ingest", plate, raw)).keys()
        before, now = (set(project.units_wells(plate, wells)) for wells in (ingest, raw))
        if now.isdisjoint(ingest.computed()):  # in quarantine: others stand in for them
            now |= changed
        return before != now or bool(changed & now)

    def named(self, stage: str, plate: str) -> str:
        """What of a stage's own is not as its last marker tells; nothing where that is not known."""
        marker = self._contents.markers.get((plate, stage))
        try:
            before, code = _flat(marker.said["settings"]), marker.said["code"]
        except (AttributeError, KeyError, TypeError):
            return ""
        now = _flat(self.project.settings(stage))
        names = sorted(n for n in now | before if now.get(n) != before.get(n))
        said = [f"{some(names)} changed"] if names else []
        if code != STAGES[stage].version and not STAGES[stage].wells:  # of wells ledgers tell
            said.append("the stage's code changed")
        return ", ".join(said)


def in_words(stage: str, reasons: dict[str, str]) -> str:
    """One phrase for {well: reason}: how many wells, for which reason."""
    by_reason = defaultdict(list)
    for well, reason in reasons.items():
        by_reason[reason].append(well)
    phrases = []
    for reason, wells in sorted(by_reason.items()):
        if wells == [""]:
            phrases.append(reason)
        elif stage == "demo":
            phrases.append(f"{wells[0]} {reason}")
        else:
            noun = "well" if len(wells) == 1 else "wells"
            phrases.append(f"{len(wells)} {noun}: {reason} ({ranges(wells)})")
    return "; ".join(phrases) or "looking whether anything changed"


def _flat(section: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Name of a setting, as ``train.surroundings.p`` → its value."""
    found: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = value
    return found


def ranges(wells: Iterable[str], most: int = 16) -> str:
    """Wells in the plate's order, neighbours in a row as one: ``A01–A12, B03``.

    As many ranges as a plate of 384 wells has rows.
    """
    found: list[list[str]] = []
    end: tuple[int, str, int] | None = None
    for well in sorted(wells, key=well_order):
        length, row, column = well_order(well)
        if end == (length, row, column - 1):
            found[-1][1:] = [well]
        else:
            found.append([well])
        end = length, row, column
    return some(["–".join(ends) for ends in found], most)


def some(names: list[str], most: int = 6) -> str:
    """The first of the names, and whether there are more."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
