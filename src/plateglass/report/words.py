"""What the reports say in prose: the methods paragraph, its references, the controls explained."""

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from plateglass import __version__
from plateglass.config import Config
from plateglass.report.basis import Basis

NORMALISED = {
    "mad_robustize": "median and median absolute deviation",
    "standardize": "mean and standard deviation",
    "robustize": "median and interquartile range",
}

SELECTION = {
    "drop_na_columns": "missing values",
    "variance_threshold": "variance",
    "correlation_threshold": "correlation",
    "blocklist": "pycytominer's blocklist",
    "drop_outliers": "outliers",
    "noise_removal": "noise between replicates",
}


class _Citations:
    """Numbers references in the order in which the text cites them."""

    def __init__(self) -> None:
        self.cited: list[str] = []

    def __call__(self, *names: str) -> str:
        for name in names:
            if name not in self.cited:
                self.cited.append(name)
        return "[" + ", ".join(str(self.cited.index(name) + 1) for name in names) + "]"


def methods(
    config: Config, what: str, model: dict[str, Any] | None, basis: Basis, z_prime: bool
) -> dict[str, Any]:
    """Paragraphs and references for a paper, with the settings of this run.

    what: the plates and wells as a phrase ("plate P1 (48 wells, …)"); model: model.json, or None
    where no network was applied; basis: what values are in units of; z_prime: whether the report
    gives a Z′.
    """
    cite = _Citations()
    paragraphs = [_images(config, what, cite)]
    if model is not None:
        paragraphs += [_network(config, model, basis, cite), _audit(config, z_prime, cite)]
    paragraphs.append(_profiles(config, basis, cite))
    known = json.loads(
        files("plateglass.report").joinpath("templates", "references.json").read_text("utf-8")
    )
    references = [known[name].format(version=__version__) for name in cite.cited]
    return {"paragraphs": paragraphs, "references": references}


def _images(config: Config, what: str, cite: _Citations) -> str:
    nuclei, cells = config.segment.nuclei, config.segment.cells
    model = nuclei.model.rsplit("/", 1)[-1]
    name = "the model nuclei-small (trained for plateglass)" if model == "nuclei-small" else model
    papers = ("cellpose", "cellposesam") if model.startswith("cpsam") else ("cellpose",)
    grown = (
        f"cells by a watershed on {cells.channel} seeded by the nuclei"
        if cells.channel
        else f"cells by growing the nuclei by {cells.grow_um:g} µm"
    )
    return (
        f"Images of {what} were analysed with plateglass {__version__} {cite('plateglass')}, a "
        f"Snakemake workflow {cite('snakemake')}, and are kept as OME-Zarr 0.5 {cite('omezarr')}. "
        f"Nuclei were segmented in {nuclei.channel} with Cellpose {cite(*papers)} and {name}, {grown}. "
        "Cells that touch the edge of a field were kept and marked."
    )


def _network(config: Config, model: dict[str, Any], basis: Basis, cite: _Citations) -> str:
    train, side, seeds = config.train, model["crop"]["px"], model["seeds"]
    text = (
        "Intensities were expressed in plate units: background subtracted and divided by the "
        f"median 99th percentile of {basis.intensities}, by channel. A network with the backbone "
        f"“{model['backbone']}” of timm {cite('timm')} behind a DCMIX blend of "
        f"{_listed(model['channels'])} {cite('dcmix')} was trained on crops of {side} × {side} pixels "
        f"around single nuclei to tell {_listed(model['classes'])} apart, with {seeds} "
        f"seed{'' if seeds == 1 else 's'}. "
    )
    if train.model is not None:
        return f"{text}The model had been trained before (key {model['key']})."
    how = train.surroundings.how
    if how != "keep":
        done = "blanked" if how == "drop" else "exchanged with those of another cell"
        text += (
            f"In training the surroundings of a cell were {done} with probability "
            f"{train.surroundings.p:g}. "
        )
    if train.surroundings.erased:
        text += (
            "Crops whose cell was erased were shown besides, with the classes' shares among the "
            "training wells as their target. "
        )
    if train.drop:
        text += (
            f"Channels were dropped at random (p = {train.drop:g}; an addition of plateglass to the "
            "published method). "
        )
    folds = {fold for wells in model["folds"].values() for fold in wells.values()}
    return (
        f"{text}Values of training wells are out-of-fold ({len(folds)} folds by well): no cell is "
        "scored by a network that saw its well."
    )


def _audit(config: Config, z_prime: bool, cite: _Citations) -> str:
    attribute = config.attribute
    some = (
        "every cell"
        if attribute.cells_per_well == "all"
        else f"{attribute.cells_per_well} cells a well, drawn by hash"
    )
    text = (
        f"Attention was audited by Grad-CAMO {cite('gradcamo')}: the share of the Grad-CAM map "
        f"{cite('gradcam')} of the predicted class that lies on the cell's own mask, and its "
        "enrichment, that share divided by the mask's share of the crop. Background reliance is the "
        f"mean drop of the class's probability over {config.features.reliance_draws} draws of "
        "surroundings from wells of another class. Pixel attributions are pixel-wise channel "
        f"isolation mixing {cite('pcim')} (after its abstract; objectives and fills are those of "
        f"plateglass' recipe “{attribute.recipe}”) for {some}. "
    )
    if z_prime:
        text += f"Plate quality is Z′ {cite('zprime')} of the well means of the margin. "
    return f"{text}Intervals are 95 % bootstrap intervals over wells, stratified by class (1,000 draws)."


def _profiles(config: Config, basis: Basis, cite: _Citations) -> str:
    measured = (
        f"Area, shape, intensity and texture were measured with cp_measure {cite('cpmeasure')} under "
        f"CellProfiler's names {cite('cellprofiler')}. "
        if config.features.classical
        else ""
    )
    normal = NORMALISED[config.aggregate.normalize]
    steps = _listed(
        [SELECTION.get(step, step.replace("_", " ")) for step in config.aggregate.select]
    )
    return (
        f"{measured}Well profiles are medians over cells, normalised {basis.profiles} "
        f"({normal}) and selected by {steps} with pycytominer {cite('pycytominer')}."
    )


def _listed(names: list[str] | tuple[str, ...]) -> str:
    names = [str(name) for name in names]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True)
class Control:
    """How a control is called and read. ``want``: where it should lie."""

    name: str
    gloss: str
    want: str  # "high", "chance", "zero" or "" where there is nothing to want
    alarm: float = 0.0  # how far from where it should lie before the report warns
    fails: str = ""  # what is wrong, of {value}, {alarm} and {chance}, where it warns


CONTROLS = {
    "full": Control(
        "All as it is",
        "The network on whole crops: the accuracy that the rows below question.",
        "high",
        0.8,
        "balanced accuracy is {value}, below {alarm}",
    ),
    "erased": Control(
        "Cell erased",
        "The cell's own pixels are filled, once with the level of the field's background and once with "
        "real background from elsewhere; the worse is shown. What is left above chance is told by the "
        "surroundings alone.",
        "chance",
        0.2,
        "accuracy with the cell erased is {value}, more than {alarm} away from chance at {chance}",
    ),
    "background": Control(
        "Trained without cells",
        "A network trained on crops whose cell is erased, for fewer epochs: what it found in the "
        "surroundings, which may hold more. High is a property of the plate (neighbours share the "
        "treatment), and the reason why the row above has to be low.",
        "",
    ),
    "permuted": Control(
        "Labels permuted",
        "A network trained with labels exchanged between wells. It must be at chance; else something "
        "leaks from training into scoring.",
        "chance",
        0.2,
        "accuracy with labels permuted is {value}, more than {alarm} away from chance at {chance}",
    ),
    "shuffled": Control(
        "{channel} shuffled between cells",
        "That channel is exchanged with another cell's. The further accuracy falls, the more the call "
        "depends on it.",
        "",
    ),
    "column": Control(
        "Called positive: last column less first",
        "Share of negative-control cells called positive in the last column that has such wells, less "
        "that in the first. Zero unless the network learnt where a well lies.",
        "zero",
        0.1,
        "the share of negative-control cells called positive in the last column less that in the "
        "first is {value}, beyond ±{alarm}",
    ),
    "other": Control("{channel}", "A control of a later version.", ""),
}
