"""The report of one plate: its own files and screen/model, nothing else."""

from typing import Any

from plateglass.report import (
    audit,
    basis,
    charts,
    fields,
    gallery,
    grids,
    head,
    provenance,
    quarantine,
    response,
    words,
)
from plateglass.report.page import LIMIT, Page, number
from plateglass.report.subject import Subject
from plateglass.wells import Job

QUALITIES = (86, 72, 56, 38)  # of pictures: the first that keeps the page under its limit
GOOD_Z_PRIME = 0.4  # below, the summary's dot warns


@charts.unchecked
def build(job: Job) -> str:
    """The page's HTML, at most ``LIMIT`` bytes."""
    subject = Subject.read(job, [job.plate])
    page = Page(kept=job.state)
    sections = _sections(page, subject)
    for quality in QUALITIES:
        sections["gallery"] = gallery.build(subject, quality)
        sections["fields"] = fields.build(subject, quality)
        html = _render(page, subject, sections)
        if len(html.encode()) <= LIMIT:
            break
    return html


def _sections(page: Page, subject: Subject) -> dict[str, Any]:
    """All but the pictures."""
    found: dict[str, Any] = {
        "heatmaps": grids.of_plate(page, subject),
        "response": response.build(page, subject),
        "quarantine": quarantine.build(subject.sites),
    }
    if subject.model is not None:
        plate, model_dir = subject.plates[0], subject.job.model_dir
        columns: list[audit.Column] = [(f"Plate {plate}", subject.cells[plate])]
        if not subject.trained(plate):
            columns.append(("Training wells, out of fold", None))
        found["channels"] = audit.channels(page, model_dir, len(subject.classes))
        found["controls"] = audit.controls(columns, subject)
        found["history"] = audit.history(page, model_dir)
    return found


def _render(page: Page, subject: Subject, sections: dict[str, Any]) -> str:
    plate, wells, fields_ = subject.plates[0], len(subject.wells), len(subject.sites)
    middle = [("gallery", "Gallery"), ("segmentation", "Segmentation")]
    return page.render(
        "plate.html",
        eyebrow="Plate",
        above={"href": "../screen/report.html", "text": "the whole screen"},
        title=plate,
        lede=_lede(subject),
        tiles=head.tiles(subject, sections["quarantine"]["count"]),
        short=_short(subject, sections),
        contents=head.contents(
            [("plate", "Plate"), ("response", "Response")], subject.model is not None, middle
        ),
        labels=subject.colours.pairs,
        model=subject.model,
        methods=words.methods(
            subject.config,
            f"plate {plate} ({wells:,} wells, {fields_:,} fields)",
            subject.model,
            basis.of(subject),
            z_prime="Z′" in sections["response"]["found"],
        ),
        provenance=provenance.foot(subject.project),
        **sections,
    )


def _lede(subject: Subject) -> str:
    channels = ", ".join(subject.config.channel_names)
    text = f"{len(subject.wells):,} wells, {len(subject.sites):,} fields, channels {channels}. "
    if subject.model is None:
        return text
    if subject.trained(subject.plates[0]):
        return f"{text}Its control wells trained the model; their values are out-of-fold."
    return f"{text}The model was never trained on this plate."


def _short(subject: Subject, sections: dict[str, Any]) -> list[dict[str, Any]]:
    """What the report says, in a few sentences."""
    lines = head.without_model(subject)
    for name, figure in sections["response"]["found"].items():
        said = response.span(figure)
        said = f"95 % interval {said}" if figure.low is not None else f"{said} for an interval"
        said = f"{number(figure.value)} ({said}; {figure.wells:,} wells)."
        if name == "Z′":
            verb = "separate with" if figure.value > 0 else "overlap:"
            text = f"The controls {verb} Z′ = {said}"
            lines.append(head.line(text, warn=not figure.value >= GOOD_Z_PRIME))
        else:
            lines.append(head.line(f"The treated wells follow the dose with Spearman ρ = {said}"))
    why = response.no_z_prime(subject.wells, subject.negative, subject.positive)
    if why is not None:
        lines.append(head.line(f"Z′ cannot be given: {why}.", warn=True))
    cells = subject.cells[subject.plates[0]]
    if "Metadata_GradCAMO" in cells and len(cells):
        score = cells["Metadata_GradCAMO"]
        half, empty = float((score.dropna() > 0.5).mean()), float(score.isna().mean())
        none = f"{empty:.1%} have an empty map and no score" if empty else "no map is empty"
        text = (
            f"For {half:.0%} of the cells more than half of the attention lies on the cell itself"
        )
        lines.append(head.line(f"{text}; {none}.", warn=half < 0.5 or empty > 0.05))
    return lines + head.warnings(sections.get("controls", {}), sections["quarantine"]["count"])
