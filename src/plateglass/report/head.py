"""The head of a report: a few figures, a few sentences, the table of contents."""

from typing import Any

from plateglass.report.page import number
from plateglass.report.subject import Subject

FIGURES = (  # column of the wells, name, note, digits, unit
    ("gradcamo", "Grad-CAMO", "attention on the cell, mean of wells", 2, ""),
    ("enrichment", "enrichment", "1 is indifferent", 1, "×"),
    ("reliance", "background reliance", "0 is best", 2, ""),
)


def tiles(subject: Subject, in_quarantine: int) -> list[dict[str, str]]:
    """The figures at the top: name, value, note."""
    wells = subject.wells
    found = [{"name": "wells", "value": number(len(wells)), "note": ""}]
    if "count" in wells:
        counts = wells["count"].dropna()
        note = f"{number(float(counts.median()), 0)} a well (median)"
        found.append({"name": "cells", "value": number(int(counts.sum())), "note": note})
    for column, name, note, digits, unit in FIGURES:
        if column in wells:
            value = f"{number(float(wells[column].mean()), digits)}{unit}"
            found.append({"name": name, "value": value, "note": note})
    left_out = {"name": "in quarantine", "value": number(in_quarantine), "note": "sites and wells"}
    return [*found, left_out]


def line(text: str, warn: bool = False) -> dict[str, Any]:
    """A sentence of the summary; ``warn`` colours its dot."""
    return {"text": text, "warn": warn}


def without_model(subject: Subject) -> list[dict[str, Any]]:
    """Why there is no audit, where there is none."""
    if subject.why is None:
        return []
    rest = "There is no audit; segmentation, counts and classical features are here."
    return [line(f"{subject.why} {rest}", warn=True)]


def failed(controls: dict[str, Any]) -> list[str]:
    """The controls that do not lie where they should: the value, its limit, on which wells."""
    return [
        f"{cell['fails']} ({cell['of']})"
        for row in controls.get("rows", [])
        for cell in row["cells"]
        if cell is not None and cell["alarm"]
    ]


def warnings(controls: dict[str, Any], in_quarantine: int) -> list[dict[str, Any]]:
    """Controls that fail, and that something is in quarantine."""
    found = []
    if bad := failed(controls):
        said = f"Controls that fail: {'; '.join(bad)}."
        found.append(line(f"{said} Read them before you trust the calls.", warn=True))
    if in_quarantine:
        found.append(line("Something is in quarantine: see there what, and why.", warn=True))
    return found


def contents(
    first: list[tuple[str, str]], model: bool, middle: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """The sections of a page as (anchor, name)."""
    audited = [("channels", "Channels"), ("controls", "Controls"), ("training", "Training")]
    last = [
        ("quarantine", "Quarantine"),
        ("methods", "For your paper"),
        ("provenance", "Provenance"),
    ]
    return [*first, *(audited if model else []), *middle, *last]
