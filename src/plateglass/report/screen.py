"""The report of the screen: the plates' tables, the selected profiles and screen/model."""

from typing import Any

import pandas as pd

from plateglass.measure import assay
from plateglass.report import (
    audit,
    basis,
    charts,
    grids,
    head,
    profiles,
    provenance,
    quarantine,
    response,
    words,
)
from plateglass.report.page import Page, number
from plateglass.report.subject import Subject
from plateglass.wells import Job

TOLD = 6  # plates that have a sentence in the summary
MEANS = (("gradcamo", "Grad-CAMO"), ("enrichment", "Enrichment"), ("reliance", "Reliance"))
ACCURACY, Z_PRIME, DOSE = "balanced accuracy", "Z′", "dose ρ"

Figures = dict[str, dict[str, assay.Interval]]
"""Plate → name of a figure → its value and interval."""


@charts.unchecked
def build(job: Job) -> tuple[str, dict[str, str]]:
    """The page's HTML, and the few figures that matter, as lines for the terminal."""
    page, subject = Page(kept=job.state), Subject.read(job, _with_tables(job))
    figures = {plate: _figures(subject, plate) for plate in subject.plates}
    sections: dict[str, Any] = {
        "overview": _overview(subject, figures),
        "grids": grids.of_screen(page, subject),
        "response": response.build(page, subject),
        "profiles": profiles.build(page, subject),
        "quarantine": quarantine.build(subject.sites),
    }
    if subject.model is not None:
        sections["channels"] = audit.channels(page, job.model_dir, len(subject.classes))
        sections["controls"] = audit.controls(_columns(subject), subject)
        sections["history"] = audit.history(page, job.model_dir)
    count, plates = len(subject.plates), _plural(len(subject.plates), "plate")
    wells = f"{len(subject.wells):,} wells"
    html = page.render(
        "screen.html",
        eyebrow="Screen",
        above=None,
        title=", ".join(subject.plates) if count <= 3 else plates,
        lede=f"{wells} on {plates}, channels {', '.join(subject.config.channel_names)}.",
        tiles=head.tiles(subject, sections["quarantine"]["count"]),
        short=_short(subject, figures, sections),
        contents=head.contents(
            [("plates", "Plates"), ("response", "Response"), ("profiles", "Profiles")],
            subject.model is not None,
            [],
        ),
        labels=subject.colours.pairs,
        model=subject.model,
        methods=words.methods(
            subject.config,
            f"{plates} ({wells}, {len(subject.sites):,} fields)",
            subject.model,
            basis.of(subject),
            z_prime=any(Z_PRIME in own for own in figures.values()),
        ),
        provenance=provenance.foot(subject.project),
        **sections,
    )
    return html, _summary(subject, figures, sections)


def _with_tables(job: Job) -> list[str]:
    """The sheet's plates that have tables: a refused plate may have none."""
    return [name for name in job.project.names if (job.results / name / "wells.parquet").exists()]


def _figures(subject: Subject, plate: str) -> dict[str, assay.Interval]:
    """Balanced accuracy, Z′ and dose ρ of a plate, as far as it has them."""
    found = {}
    cells = subject.cells[plate]
    if "Metadata_Class" in cells and subject.model is not None:
        known = cells[cells["label"].isin(subject.classes)]
        if len(known):
            found[ACCURACY] = assay.balanced_accuracy(assay.hits(known, "label"))
    own = subject.wells[subject.wells["plate"] == plate]
    return found | response.quality(own, subject.dose, subject.negative, subject.positive)


def _overview(subject: Subject, figures: Figures) -> dict[str, Any]:
    """One row a plate, linked to its report."""
    project, wells = subject.project, subject.wells
    shown = [f for f in (ACCURACY, Z_PRIME, DOSE) if any(f in own for own in figures.values())]
    means = [(column, title) for column, title in MEANS if column in wells]
    titles = ["Wells", "Cells", *(f[0].upper() + f[1:] for f in shown), *(t for _, t in means)]
    rows = []
    for plate in subject.plates:
        own = wells[wells["plate"] == plate]
        used = "trained on" if subject.trained(plate) else "applied"
        row: list[Any] = [
            {"href": f"../{plate}/report.html", "text": plate},
            used if subject.model is not None else "none",
            number(len(own)),
            number(int(own["count"].sum())) if "count" in own else "–",
        ]
        for name in shown:
            figure = figures[plate].get(name)
            gloss = {} if figure is None else {"gloss": response.span(figure)}
            row.append({"text": number(figure.value), **gloss} if figure is not None else "–")
        rows.append(row + [number(float(own[column].mean())) for column, _ in means])
    absent = [f"No Z′ {of}: {why}." for why, of in _no_z_prime(subject).items()]
    gone = [name for name in project.names if name not in subject.plates]
    columns = [{"name": name, "number": False} for name in ("Plate", "Model")]
    columns += [{"name": name, "number": True} for name in titles]
    if gone:
        absent.append(f"Without tables, so not shown: {', '.join(gone)}.")
    return {"table": {"title": "Plates", "columns": columns, "rows": rows}, "absent": absent}


def _no_z_prime(subject: Subject) -> dict[str, str]:
    """Why plates have no Z′ → which plates, as a phrase."""
    found: dict[str, list[str]] = {}
    for plate in subject.plates:
        own = subject.wells[subject.wells["plate"] == plate].dropna(axis="columns", how="all")
        why = response.no_z_prime(own, subject.negative, subject.positive)
        if why is not None:
            found.setdefault(why, []).append(plate)
    return {why: f"on {basis.named(tuple(plates))}" for why, plates in found.items()}


def _columns(subject: Subject) -> list[audit.Column]:
    """The controls' table: what train found, and all plates that it never saw together."""
    others = [cells for plate, cells in subject.cells.items() if not subject.trained(plate)]
    columns: list[audit.Column] = [("Training wells, out of fold", None)]
    if others:
        columns.append(("Plates never trained on", pd.concat(others, ignore_index=True)))
    return columns


def _short(subject: Subject, figures: Figures, sections: dict[str, Any]) -> list[dict[str, Any]]:
    """What the report says, in a few sentences."""
    lines = head.without_model(subject)
    told = [(plate, own) for plate, own in figures.items() if own]
    for plate, own in told[:TOLD]:
        said = [f"{name} {number(f.value)} ({response.span(f)})" for name, f in own.items()]
        kind = "trained on, out of fold" if subject.trained(plate) else "never trained on"
        lines.append(head.line(f"{plate} ({kind}): {'; '.join(said)}."))
    if len(told) > TOLD:
        lines.append(head.line(f"The other {_plural(len(told) - TOLD, 'plate')} stand below."))
    return lines + head.warnings(sections.get("controls", {}), sections["quarantine"]["count"])


def _summary(subject: Subject, figures: Figures, sections: dict[str, Any]) -> dict[str, str]:
    """What the terminal says at the end of a run."""
    wells = subject.wells
    found = {"wells": number(len(wells))}
    if "count" in wells:
        found["cells"] = number(int(wells["count"].sum()))
    for plate, own in list(figures.items())[:TOLD]:
        for name, figure in own.items():
            found[f"{plate}: {name}"] = f"{number(figure.value)} ({response.span(figure)})"
    if without := _no_z_prime(subject):
        found["no Z′"] = "; ".join(f"{of}: {why}" for why, of in without.items())
    for column, title in MEANS:
        if column in wells:
            found[title] = number(float(wells[column].mean()))
    if bad := head.failed(sections.get("controls", {})):
        found["controls that fail"] = "; ".join(bad)
    return found


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
