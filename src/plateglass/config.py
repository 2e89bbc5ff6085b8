"""Settings: one YAML a run, validated; a section per stage, named as the stage.

A stage's fingerprint is its validated section with the defaults filled in, so key order, comments
and a default written out play no part. ``run`` enters no fingerprint.
"""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from plateglass.colours import colours_of
from plateglass.errors import UserError
from plateglass.measure.names import columns

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")
Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A section of the settings: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PlatemapSettings(Section):
    """Which columns of a platemap mean what; its other columns go along as ``Metadata_*``."""

    well: str = "well"
    label: str = "role"
    negative: str = "negative_control"


class Channel(Section):
    """One channel: what the layout calls it, and how viewers paint it."""

    match: Annotated[str, Field(coerce_numbers_to_str=True)]  # 1 is meant as what files call "1"
    color: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{6}$")] | None = None


class IngestSettings(Section):
    """From the microscope's files to OME-Zarr."""

    pattern: str | None = None
    loaddata: str | None = None
    loaddata_outside: bool = False
    pixel_size_um: Positive | None = None
    z_step_um: Positive | None = None


class NucleiSettings(Section):
    """Nuclei by a Cellpose model: ``nuclei-small``, ``cpsam_v2`` or the path of a model file.

    ``debris``: an object less than this share of the field's typical diameter wide is no nucleus,
    unless the field's border cuts it.
    """

    channel: str
    model: str = "nuclei-small"
    diameter_um: Positive | None = None
    debris: Probability = 0.5


class CellsSettings(Section):
    """Whole cells by seeded watershed on a channel, or nuclei grown by ``grow_um`` without one.

    ``reach_um``: no cell ends farther from its nucleus. ``threshold``: share of the channel's range
    above the background at which a cell begins.
    """

    channel: str | None = None
    grow_um: Positive = 5.0
    reach_um: Positive = 30.0
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.012


class SegmentSettings(Section):
    """Nuclei, cells, and which nucleus lies in which cell."""

    nuclei: NucleiSettings
    cells: CellsSettings = CellsSettings()


class SurroundingsSettings(Section):
    """What training does to the pixels around the cell, so that they are no evidence."""

    how: Literal["keep", "drop", "swap"] = "swap"
    p: Probability = 0.5
    erased: Probability = 0.25  # crops without their cell, taught the classes' shares; of a batch
    weight: Annotated[float, Field(ge=0)] = 2.0


class TrainSettings(Section):
    """The network behind a DCMIX blend; ``model`` applies a saved one instead."""

    classes: tuple[str, ...] = ()
    positive: str | None = None
    model: Path | None = None
    backbone: str = "test_resnet"
    pretrained: bool = False
    cut: Annotated[int, Field(ge=1)] | None = None
    blends: Annotated[int, Field(ge=1)] = 1
    alpha: Literal["simplex", "nonnegative"] = "simplex"
    drop: Probability = 0.5
    surroundings: SurroundingsSettings = SurroundingsSettings()
    crop: Annotated[int, Field(ge=16)] = 64
    epochs: Annotated[int, Field(ge=1)] = 10
    batch: Annotated[int, Field(ge=2)] = 64
    lr: Positive = 2e-3
    seeds: Annotated[int, Field(ge=1)] = 3
    folds: Annotated[int, Field(ge=2)] = 4
    cells_per_well: Annotated[int, Field(ge=1)] | None = None
    controls: bool = True

    @model_validator(mode="after")
    def _a_model_has_its_own_classes(self):
        both = [key for key in ("classes", "positive") if getattr(self, key) not in ((), None)]
        if self.model is not None and both:
            given = " and ".join(f"train.{key}" for key in both)
            raise ValueError(
                f"{given} cannot stand beside train.model: a saved model brings its classes and which "
                f"of them is positive. Leave out {given} to apply it, or train.model to train anew"
            )
        return self

    @model_validator(mode="after")
    def _positive_is_a_class(self):
        if self.classes and len(self.classes) < 2:
            raise ValueError("train.classes needs at least two labels")
        if self.positive is not None and self.positive not in self.classes:
            raise ValueError(
                f"train.positive {self.positive!r} is none of train.classes {list(self.classes)}"
            )
        return self


class FeaturesSettings(Section):
    """What is measured of every cell."""

    classical: bool = True
    reliance_draws: Annotated[int, Field(ge=1)] = 8


class AttributeSettings(Section):
    """PCIM: which pixels decide, for some cells of each well or for all."""

    cells_per_well: Annotated[int, Field(ge=1)] | Literal["all"] = 20
    recipe: Literal[
        "default",
        "untrained",
        "flips",
        "A",
        "C",
        "keep",
        "keep_and_lose",
        "per_channel",
        "black_box",
    ] = "default"


class AggregateSettings(Section):
    """Well tables, normalised and selected by pycytominer."""

    normalize: Literal["mad_robustize", "standardize", "robustize"] = "mad_robustize"
    select: tuple[str, ...] = (
        "variance_threshold",
        "correlation_threshold",
        "drop_na_columns",
    )


class ReportSettings(Section):
    """What the reports show."""

    gallery: Annotated[int, Field(ge=1, le=40)] = 8
    dose: str | None = None


class DaskSettings(Section):
    """A running Dask cluster to spread the wells over, instead of this job's own workers.

    ``scheduler`` is its address (``tcp://…``) or the file that ``--scheduler-file`` wrote.
    """

    scheduler: str


class RunSettings(Section):
    """How the work is done; nothing here changes a result, so nothing here enters a key."""

    device: str = "auto"
    batch: Annotated[int, Field(ge=1)] = 128
    workers: Annotated[int, Field(ge=1)] | None = None
    dask: DaskSettings | None = None
    verify: Literal["tables", "sizes", "full"] = "tables"
    raw_check: Literal["mtime", "ctime"] = "mtime"
    strict: bool = False
    missing_raw: Literal["refuse", "keep"] = "refuse"
    accept_removed: tuple[str, ...] = ()

    @field_validator("device")
    @classmethod
    def _device_is_known(cls, device: str) -> str:
        if not DEVICE.fullmatch(device):
            raise ValueError(
                f"{device!r} is no device; write auto, cpu, cuda, cuda:N (a GPU by its number, from "
                "0) or mps"
            )
        return device


class Config(Section):
    """All settings of a run, as validated; paths are absolute."""

    plates: Path
    results: Path = Path("../results")
    platemap: PlatemapSettings = PlatemapSettings()
    channels: dict[str, Channel]
    ingest: IngestSettings = IngestSettings()
    segment: SegmentSettings
    train: TrainSettings = TrainSettings()
    features: FeaturesSettings = FeaturesSettings()
    attribute: AttributeSettings = AttributeSettings()
    aggregate: AggregateSettings = AggregateSettings()
    report: ReportSettings = ReportSettings()
    run: RunSettings = RunSettings()

    @field_validator("channels")
    @classmethod
    def _names(cls, channels: dict[str, Channel]) -> dict[str, Channel]:
        if not channels:
            raise ValueError("name at least one channel, as  DNA: {match: '1'}")
        for name in channels:
            if not NAME.fullmatch(name):
                raise ValueError(f"channel {name!r} is no name: use letters, digits, '_' and '-'")
        matches = [channel.match for channel in channels.values()]
        for match in matches:
            if matches.count(match) > 1:
                raise ValueError(f"two channels match {match!r}")
        columns(list(channels))  # refuses names whose features would share a column
        return channels

    @model_validator(mode="after")
    def _channels_exist(self):
        for key, name in (
            ("segment.nuclei.channel", self.segment.nuclei.channel),
            ("segment.cells.channel", self.segment.cells.channel),
        ):
            if name is not None and name not in self.channels:
                raise ValueError(f"{key}: {name!r} is none of the channels {list(self.channels)}")
        return self

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Channels in the order of the stores' ``c`` axis: by name, for keys have no order."""
        return tuple(sorted(self.channels))

    @property
    def colours(self) -> dict[str, str]:
        """RRGGBB by channel: as set, else by its name or in turn."""
        usual = colours_of(list(self.channel_names))
        return {name: (self.channels[name].color or usual[name]).upper() for name in usual}

    @property
    def positive(self) -> str | None:
        """The class whose margin is ``Metadata_Margin``: as set, else the last of the classes."""
        return self.train.positive or (self.train.classes[-1] if self.train.classes else None)


def read(path: str | Path) -> Config:
    """Settings from a YAML file; relative paths in it resolve against the file.

    Raises
    ------
    UserError
        The file cannot be read, is no YAML, or a key or value is not allowed; the message names
        the key as ``section.key`` and the nearest known one.
    """
    path = Path(path).absolute()
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise UserError(
            f"{path}: expected settings as 'key: value' lines, found nothing of the kind"
        )
    return parse(raw, path.parent, str(path))


def parse(raw: dict[str, Any], folder: Path, source: str = "settings") -> Config:
    """Validate settings already read; relative paths resolve against ``folder``."""
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise UserError(
            f"{source}:\n" + "\n".join(f"  {_explain(e, raw)}" for e in error.errors())
        ) from error
    changed: dict[str, Any] = {
        "plates": absolute(folder, config.plates),
        "results": absolute(folder, config.results),
    }
    if config.train.model is not None:
        model = absolute(folder, config.train.model)
        changed["train"] = config.train.model_copy(update={"model": model})
    if (dask := config.run.dask) is not None and "://" not in dask.scheduler:
        file = str(absolute(folder, Path(dask.scheduler)))
        dask = dask.model_copy(update={"scheduler": file})
        changed["run"] = config.run.model_copy(update={"dask": dask})
    if "/" in config.segment.nuclei.model:
        file = absolute(folder, Path(config.segment.nuclei.model))
        nuclei = config.segment.nuclei.model_copy(update={"model": str(file)})
        changed["segment"] = config.segment.model_copy(update={"nuclei": nuclei})
    return config.model_copy(update=changed)


def schema() -> dict[str, Any]:
    """JSON schema of the settings (``plateglass schema``), for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def absolute(folder: Path, path: Path, where: str = "settings") -> Path:
    """The path, from ``folder`` where it is relative. UserError for what no file can be called."""
    try:
        return Path(re.sub(r"/\./", "/", str((folder / path.expanduser()).resolve())))
    except (ValueError, RuntimeError, OSError) as error:  # NUL, nobody's home, links in a circle
        raise UserError(f"{where}: {str(path)!r} cannot be a path: {error}") from error


def _explain(error: Any, raw: dict[str, Any]) -> str:
    """One line for one of pydantic's errors: the key, what is wrong, what to write instead."""
    where = [str(part) for part in error["loc"]]
    key = ".".join(where)
    if error["type"] == "extra_forbidden":
        known = _known(where[:-1])
        near = difflib.get_close_matches(where[-1], known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"{key}: no such setting; {hint}"
    if error["type"] == "missing":
        return f"{key}: is missing"
    if error["type"] == "value_error":  # one of ours, which shows the value itself
        message = error["msg"].removeprefix("Value error, ")
    else:
        message = f"{error['msg']}, not {_shown(error['input'])}"
        if error["type"] == "string_type" and isinstance(error["input"], int | float):
            message += "; put it in quotes"
    return f"{key}: {message}" if key else message


def _shown(value: Any) -> str:
    """A value as settings hold it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _known(where: list[str]) -> list[str]:
    """Names of the settings in the section at ``where``."""
    model: Any = Config
    for name in where:
        field = model.model_fields.get(name) if isinstance(model, type) else None
        if field is None:
            return sorted(Channel.model_fields)  # channels.<name>.…
        model = field.annotation
        options = [a for a in getattr(model, "__args__", ()) if hasattr(a, "model_fields")]
        model = options[0] if options and not hasattr(model, "model_fields") else model
    return sorted(getattr(model, "model_fields", Channel.model_fields))
