"""A run's settings, sheet and platemaps, and what each well is to be made from."""

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from plateglass import plates
from plateglass.config import Config
from plateglass.errors import DataError, UserError
from plateglass.ledger import Ledger, fingerprint
from plateglass.stages import SCREEN, STAGES, earlier

UNITS_WELLS = 24  # where a plate has no negative controls; chosen by a hash, then kept


class Platemaps(dict[str, dict[str, dict[str, str]]]):
    """Plate → its platemap, read when first asked for: a job needs one or two of a thousand.

    Of a platemap that is out of reach (on a share that is not mounted) the copy that the last job of
    its plate kept is read, and ``lost`` says so: other plates' jobs must know its training wells.
    """

    def __init__(self, sheet: Iterable[plates.Plate], config: Config):
        super().__init__()
        self._sheet, self._config = {plate.name: plate for plate in sheet}, config
        self.lost: dict[str, str] = {}

    def __missing__(self, plate: str) -> dict[str, dict[str, str]]:
        entry = self._sheet[plate]
        try:
            self[plate] = plates.read_platemap(entry, self._config)
        except UserError as error:
            copy = self.copy_of(plate)
            if not isinstance(error.__cause__, OSError) or not copy.exists():
                raise
            self[plate] = plates.read_platemap(replace(entry, platemap=copy), self._config)
            self.lost[plate] = str(error)
        return self[plate]

    def copy_of(self, plate: str) -> Path:
        """Where a plate's jobs keep a copy of its platemap; of another name, another copy.

        The file's name alone: projects and shares are moved.
        """
        name = f"{plate}.{fingerprint(self._sheet[plate].platemap.name)[:8]}.csv"
        return self._config.results / ".plateglass" / "platemaps" / name


@dataclass(frozen=True)
class Project:
    """What the user wrote, validated and joined; reads the state on disk, writes nothing."""

    config: Config
    sheet: tuple[plates.Plate, ...]
    maps: Platemaps
    _own: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    _until: dict[str, str] = field(default_factory=dict, repr=False)
    _settings: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    _labels: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    _platemaps: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, config: Config) -> "Project":
        """Read the sheet and the training plates' platemaps (``UserError`` for what is wrong).

        The others are read when asked for; the plan, which comes before any job, asks for all.
        """
        sheet = plates.read_sheet(config)
        project = cls(config, sheet, Platemaps(sheet, config))
        project._check_training()
        return project

    def only(self, plate: str) -> "Project":
        """The project as a worker on a plate's wells needs it: a plate of a thousand."""
        sheet = (self.plate(plate),)
        return Project(self.config, sheet, Platemaps(sheet, self.config))

    # ------------------------------------------------------------------ who is who
    @property
    def state(self) -> Path:
        return self.config.results / ".plateglass"

    @cached_property
    def names(self) -> list[str]:
        """The plates' names, sorted: the sheet's order changes no result."""
        return sorted(plate.name for plate in self.sheet)

    @cached_property
    def _by_name(self) -> dict[str, plates.Plate]:
        return {plate.name: plate for plate in self.sheet}

    def plate(self, name: str) -> plates.Plate:
        return self._by_name[name]

    def labels(self, plate: str) -> dict[str, str]:
        """Label by well, where the platemap gives one."""
        if plate not in self._labels:
            column = self.config.platemap.label
            self._labels[plate] = {
                w: x for w, row in self.maps[plate].items() if (x := row[column])
            }
        return self._labels[plate]

    def training_plates(self) -> list[str]:
        """The plates of ``train: yes`` that have training wells."""
        return self._training

    @cached_property
    def _training(self) -> list[str]:
        return [p for p in self.names if self.plate(p).train and self.classed(p)]

    def classed(self, plate: str) -> dict[str, str]:
        """Label by well, where it is one of ``train.classes`` (or of the applied model's)."""
        classes = self.config.train.classes
        if self.config.train.model is not None:
            classes = self._info().get("classes", ())
        return {w: label for w, label in self.labels(plate).items() if label in classes}

    @property
    def trains(self) -> bool:
        return self.config.train.model is None and bool(self.training_plates())

    def teaches(self, plate: str) -> bool:
        """Whether the screen's networks learn from a plate."""
        return self.trains and plate in self.training_plates()

    @property
    def has_model(self) -> bool:
        """Whether networks are applied; without, classical features alone are computed."""
        return self.config.train.model is not None or self.trains

    @property
    def model_dir(self) -> Path:
        return self.config.train.model or self.config.results / "screen" / "model"

    def why_no_model(self) -> str:
        """The sentence that reports print where no network was applied."""
        if not self.config.train.classes:
            return "The settings name no train.classes, so no network was trained."
        return "No plate of the sheet says train: yes, so no network was trained."

    def model_key(self) -> str | None:
        """Key of the model on disk; None where there is none."""
        return self._info().get("key")

    def _info(self) -> dict[str, Any]:
        try:
            return json.loads((self.model_dir / "model.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}

    # ------------------------------------------------------------------ plate units
    def units_wells(self, plate: str, wells: Iterable[str]) -> list[str]:
        """The wells that a plate's units are chosen to be made from, of those in ``wells``.

        The negative controls; without any, 24 wells chosen by a hash of their names, or all where there
        are fewer. The first 24 are kept: wells that come later move none of them, and
        for one that is gone another stands in until it is back. Whether they can be read plays no
        part, so that the plan, which cannot know, chooses as the jobs do.
        """
        wells = set(wells)
        if controls := self.negatives(plate, wells):
            return controls
        kept = wells.intersection(self.frozen_units(plate))
        return sorted(kept.union(_by_hash(wells - kept, UNITS_WELLS - len(kept))))

    def frozen_units(self, plate: str) -> list[str]:
        """The wells that were kept, of a plate without negative controls that had as many."""
        try:
            return json.loads((self.state / "units" / f"{plate}.json").read_text())["wells"]
        except (FileNotFoundError, KeyError, TypeError, ValueError):
            return []

    def negatives(self, plate: str, wells: Iterable[str]) -> list[str]:
        """The negative controls among ``wells``, sorted."""
        labels, negative = self.labels(plate), self.config.platemap.negative
        return sorted(well for well in wells if labels.get(well) == negative)

    def units_made_from(self, plate: str, ingest: Ledger | None = None) -> list[str]:
        """The units wells that can be read; where none of them can, others by hash.

        ``ingest`` is the plate's ledger, where it is read already.
        """
        ingest = ingest or self.ledger("ingest", plate)
        computed = ingest.computed()
        chosen = [well for well in self.units_wells(plate, ingest) if well in computed]
        return chosen or _by_hash(computed, UNITS_WELLS)

    def units_key(self, plate: str) -> str:
        """Content key of a plate's units: the wells' names and what ingest made of them."""
        ingest = self.ledger("ingest", plate)
        return fingerprint([(w, ingest[w]["key"]) for w in self.units_made_from(plate, ingest)])

    # ------------------------------------------------------------------ what results are made from
    def own(self, stage: str) -> dict[str, Any]:
        """What of code and settings a stage's results depend on: its version, and a key of these."""
        if stage not in self._own:
            self._own[stage] = {
                "code": STAGES[stage].version,
                "params": fingerprint(self.settings(stage)),
            }
            if stage == "report":
                self._own[stage]["no_model"] = None if self.has_model else self.why_no_model()
        return self._own[stage]

    def basis(self, stage: str, plate: str) -> str:
        """Digest of what settings and platemaps say of a stage of a plate, and of the stages before it.

        A job reads them anew. By this it knows whether they are those that it was planned with.
        """
        maps: Any = None
        if stage == "ingest":
            maps = self.config.colours  # no result, but viewers and reports paint by them
        elif stage in ("aggregate", "report") and plate != SCREEN:
            maps = self.platemap_key(plate)
        elif stage in ("aggregate", "report"):
            maps = self.names
        elif stage in ("features", "attribute"):
            called = sorted(self.classed(plate)) if self.has_model else []
            maps = called, self.negatives(plate, self.labels(plate))
        elif stage == "train":
            maps = [
                (sorted(self.classed(name).items()), self.negatives(name, self.labels(name)))
                for name in self.training_plates()
            ]
        model = None
        if self.config.train.model is not None and "train" in earlier(stage):
            model = self.model_key()
        if stage not in self._until:
            self._until[stage] = fingerprint([self.own(name) for name in self._used(stage)])
        return fingerprint(self._until[stage], maps, model)

    def _used(self, stage: str) -> list[str]:
        """The stage and those before it, as far as this project has them."""
        unused = ("train", "attribute") if not self.has_model else () if self.trains else ("train",)
        return [name for name in [*earlier(stage), stage] if name not in unused]

    def settings(self, stage: str) -> dict[str, Any]:
        """The settings that a stage's results depend on, named as in their file."""
        if stage not in self._settings:
            self._settings[stage] = self._read_settings(stage)
        return self._settings[stage]

    def _read_settings(self, stage: str) -> dict[str, Any]:
        config = self.config
        own = getattr(config, stage).model_dump(mode="json")
        if stage == "ingest":
            return {
                stage: own,
                "channels": {k: {"match": c.match} for k, c in config.channels.items()},
            }
        if stage == "segment":
            from plateglass.models.nuclei import content_key

            own["nuclei"]["model"] = content_key(config.segment.nuclei.model)
        elif stage == "train":
            own.pop("model")
            own["positive"] = config.positive
        elif stage == "aggregate":
            return {stage: own, "platemap": config.platemap.model_dump()}
        elif stage == "report":
            colours = {name: {"color": colour} for name, colour in config.colours.items()}
            return {stage: own, "channels": colours, "train": {"positive": config.positive}}
        return {stage: own}

    def ledger_path(self, stage: str, plate: str) -> Path:
        return self.state / "ledger" / f"{plate}.{stage}.jsonl"

    def ledger(self, stage: str, plate: str) -> Ledger:
        return Ledger(self.ledger_path(stage, plate))

    def well_stages(self) -> list[str]:
        """The stages by the well that this project has; attribute asks for a network."""
        wanted = (stage.name for stage in STAGES.values() if stage.wells)
        return [name for name in wanted if name != "attribute" or self.has_model]

    def wants(
        self,
        stage: str,
        plate: str,
        raw: dict[str, str] | None = None,
        usual: str | None = None,
    ) -> dict[str, dict]:
        """Well → the parts its result is to be made from, by the ledger of the stage before.

        ``raw`` is needed for ingest: signature of each well's files. ``usual`` is the format by which
        they are judged; without, as in a plan, which opens no image, it is taken for what it was.
        """
        own = self.own(stage)
        if stage == "ingest":
            if raw is None:
                raise ValueError("ingest is made from the raw listing")
            ledger, wants = self.ledger(stage, plate), {}
            for well, signature in raw.items():
                wants[well] = {**own, "in": signature}
                before = ledger[well]["parts"].get("usual") if well in ledger else None
                if judged_by := usual or before:
                    wants[well]["usual"] = judged_by
            return wants
        if stage in ("features", "attribute"):
            own = {**own, "model": self.model_key() if self.has_model else None}
        before = self.ledger(STAGES[stage].after or "", plate).computed()
        wants = {well: {**own, "in": entry["key"]} for well, entry in before.items()}
        if stage == "features":
            units, classed = self.units_key(plate), self.classed(plate)
            for well, parts in wants.items():
                parts |= {"units": units, "controls": self.has_model and well in classed}
        return wants

    def platemap_key(self, plate: str) -> str:
        """Content key of a platemap: of the order of its columns too, which is the tables'."""
        if plate not in self._platemaps:
            rows = sorted(self.maps[plate].items())
            self._platemaps[plate] = fingerprint(list(rows[0][1]) if rows else [], rows)
        return self._platemaps[plate]

    def taught(self, stage: str, plate: str) -> str:
        """Digest of what networks learn from a stage of a training plate: units, or labelled cells."""
        if stage == "ingest":
            return self.units_key(plate)
        segmented, classed = self.ledger(stage, plate).computed(), self.classed(plate)
        return fingerprint(
            [
                (well, classed[well], segmented[well]["key"])
                for well in sorted(classed)
                if well in segmented
            ]
        )

    def provenance(self, stage: str) -> dict[str, Any]:
        """What a stage's tables, stores and reports say of their making.

        Of it and of the stages before it, the versions and the settings that results depend on (the
        model of nuclei by its content key). What no key of theirs holds would be told wrongly after it
        changed.
        """
        from plateglass import __version__

        made_by: dict[str, Any] = {}
        used = self._used(stage)
        for name in used:
            _merge(made_by, self.settings(name))
        if (
            "train" in earlier(stage)
            and self.has_model
            and (taught := self._info().get("settings"))
        ):
            made_by["train"] = taught  # the networks as they are may wait for their plates
        return {
            "plateglass": __version__,
            "config": made_by,
            "stages": {name: STAGES[name].version for name in used},
            "model": self.model_key() if self.has_model else None,
        }

    def _check_training(self) -> None:
        config = self.config
        if config.train.model is not None:
            if self.model_key() is None:
                raise UserError(
                    f"train.model: {config.train.model} holds no model.json; "
                    "give the folder that a run wrote to results/screen/model"
                )
            own, theirs = config.channel_names, tuple(self._info().get("channels", ()))
            if own != theirs:
                raise UserError(
                    f"train.model: {config.train.model} sees the channels {', '.join(theirs)}; name "
                    f"the channels of the settings so (they are {', '.join(own)}), by what they stain"
                )
            return
        trained = [p for p in self.names if self.plate(p).train]
        if not trained or not config.train.classes:
            return
        for plate in trained:
            if self.plate(plate).platemap is None:
                raise UserError(
                    f"plate {plate}: train is yes, but {config.plates} gives it no platemap"
                )
        for label in config.train.classes:
            wells = [f"{p}:{w}" for p in trained for w, x in self.labels(p).items() if x == label]
            if len(wells) < 2:
                seen = sorted({x for p in trained for x in self.labels(p).values()})
                raise UserError(
                    f"train.classes: {label!r} has {len(wells)} training well(s), 2 are needed to "
                    f"hold wells out; labels in column {config.platemap.label!r} of the training "
                    f"plates: {', '.join(seen) or 'none'}"
                )


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Settings that several stages have a share in (channels), in one."""
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = copy.deepcopy(value)


def _by_hash(wells: Iterable[str], most: int) -> list[str]:
    return sorted(sorted(wells, key=lambda w: fingerprint("units", w))[:most])


def check_identifiers(plate: str) -> str:
    """A plate's name as a job got it from the command line; guards paths made from it."""
    from plateglass.config import NAME

    if plate != SCREEN and not NAME.fullmatch(plate):
        raise DataError(f"{plate!r} is no plate's name")
    return plate
