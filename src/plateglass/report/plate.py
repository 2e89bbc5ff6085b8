"""The report of one plate: its own files and screen/model, nothing else."""

import functools
import json
from pathlib import Path
from typing import Any

import pandas as pd

from plateglass import store
from plateglass.config import Config
from plateglass.errors import DataError
from plateglass.project import Project
from plateglass.report import audit, charts, fields, gallery, maps, provenance, response, words
from plateglass.report.charts import Colours, Plot
from plateglass.report.page import LIMIT, Page, number
from plateglass.report.palette import label_colours
from plateglass.report.wells import Dose, focus_column, platemap_column, positive, read, wells
from plateglass.wells import Job

QUALITIES = (86, 72, 56, 38)  # of pictures: the first that keeps the page under its limit

HEATMAPS = (
    ("label", "Layout", "Which well got what, as the platemap says.", None),
    ("count", "Cells", "Cells found. Few may mean a toxic treatment, a bad dispense, or a failed segmentation.", ",.0f"),
    ("focus", "Focus", "Sharpness of the nuclear channel (median of the well's sites; higher is sharper). Only comparable within a plate.", ".3~s"),
    ("margin", "Margin", "How strongly cells are called {positive}: mean over the well's cells; 0 is undecided.", "+.1f"),
    ("gradcamo", "Grad-CAMO", "Share of the network's attention that lies on the cell itself, mean over cells.", ".2f"),
    ("reliance", "Reliance on background", "How much of its certainty the network loses on other surroundings: 0 is best.", ".2f"),
)  # fmt: skip


def build(job: Job) -> str:
    """The page's HTML, at most ``LIMIT`` bytes."""
    for quality in QUALITIES:
        html = _build(job, quality)
        if len(html.encode()) <= LIMIT:
            break
    return html


def _build(job: Job, quality: int) -> str:
    project = Project.read(job.config)
    config = job.config
    page = Page()
    sites = read(job.plate_dir / "sites.parquet")
    table = read(job.plate_dir / "wells.parquet", "Metadata_*", "Count_*")
    if table is None or sites is None:
        raise DataError(f"plate {job.plate}: wells.parquet or sites.parquet is missing; run again")
    model = model_of(job) if project.has_model else None
    known, dose = wells(table, sites, config)
    negative = config.platemap.negative
    colours = Colours(
        *map(tuple, label_colours(sorted(set(known["label"])), negative, positive(config, model)))
    )
    cells = labelled(job.plate_dir / "cells.parquet", config)
    kept = [c for c in known if c not in ("plate", "dose_rank")]
    page.table("wells", known[kept])
    why = None if project.has_model else project.why_no_model()
    sections: dict[str, Any] = {
        "heatmaps": _heatmaps(page, known, colours, positive(config, model)),
        "response": _response(page, known, dose, colours, config, model, why),
        "gallery": _gallery(job, cells, model, why, quality),
        "fields": _fields(job, sites, quality),
        "quarantine": quarantine(project, [job.plate], sites),
    }
    if model is not None:
        classes = len(model.get("classes") or config.train.classes) or 2
        sections["channels"] = audit.channels(page, job.model_dir, classes)
        sections["controls"] = audit.controls(
            [(f"Plate {job.plate}", cells)], config.platemap, positive(config, model), classes
        )
        sections["history"] = audit.history(page, job.model_dir)
    phrase = f"plate {job.plate} ({len(known)} wells, {len(sites)} fields)"
    return page.render(
        "plate.html",
        eyebrow="Plate",
        above={"href": "../screen/report.html", "text": "the whole screen"},
        title=job.plate,
        lede=_lede(job, known, sites, model is not None),
        tiles=tiles(known, sections["quarantine"]),
        short=short(sections, known, cells, config, model, why),
        contents=contents(("plate", "Plate"), ("response", "Response"), model=model is not None,
                          middle=(("gallery", "Gallery"), ("segmentation", "Segmentation"))),
        labels=colours.pairs,
        model=model,
        methods=words.methods(config, phrase, model),
        provenance=provenance.foot(project),
        **sections,
    )


def model_of(job: Job) -> dict[str, Any]:
    """model.json of the model in use."""
    return json.loads((job.model_dir / "model.json").read_text())


def _lede(job: Job, known: pd.DataFrame, sites: pd.DataFrame, trained: bool) -> str:
    role = (
        "Its control wells trained the model; their values are out-of-fold."
        if job.entry.train
        else "The model was never trained on this plate."
    )
    return (
        f"{len(known):,} wells, {len(sites):,} fields, channels {', '.join(job.config.channel_names)}. "
        + (role if trained else "")
    )


def _heatmaps(
    page: Page, known: pd.DataFrame, colours: Colours, positive: str | None
) -> dict[str, Any]:
    geometry = store.geometry(list(known["well"]))
    tips = [("well:N", "well"), ("label:N", "label")]
    tips += [(f"{c}:N", c) for c in ("compound", "dose") if c in known]
    forms = {name: form for name, _, _, form in HEATMAPS} | {"enrichment": ".2f"}
    titles = {name: title for name, title, _, _ in HEATMAPS} | {"enrichment": "enrichment"}
    figures = [c for c in ("count", "focus", "margin", "gradcamo", "enrichment", "reliance") if c in known]  # fmt: skip
    least = max(250, (20 if geometry[1] <= 24 else 15) * geometry[1])
    plots, missing = [], []
    for name, title, caption, form in HEATMAPS:
        if name not in known:
            missing.append(title)
            continue
        own = [name] if name in figures else []
        rest = [c for c in figures if c != name]
        shown = [(f"{c}:Q", titles[c].lower(), forms[c]) for c in own + rest]
        page.charts[f"plate_{name}"] = charts.plate_grid(
            name, title, geometry, charts.tooltip(*tips, *shown), form or "",
            middle=0 if name == "margin" else None,
            colours=colours if name == "label" else None,
        )  # fmt: skip
        plots.append(Plot(f"plate_{name}", title, caption.format(positive=positive), least))
    absent = [f"Not shown, because the tables do not have it: {', '.join(missing)}."] * bool(
        missing
    )
    across = 3 if geometry[1] <= 12 else 2 if geometry[1] <= 24 else 1
    return {"plots": plots, "absent": absent, "across": across}


def _response(page, known, dose: Dose | None, colours, config, model, why) -> dict[str, Any]:
    value, title = ("margin", f"margin of {positive(config, model)}")
    lede = (
        "The margin says how strongly a cell is called positive rather than anything else; a well's value "
        "is the mean over its cells."
    )
    absent = []
    if "margin" not in known:
        absent.append(
            f"{why or 'The tables have no margin.'} The response is shown in cell counts instead."
        )
        value, title, lede = "count", "cells", ""
    if value not in known:
        return {
            "plots": [],
            "absent": [*absent, "No cell counts either."],
            "lede": "",
            "table": None,
        }
    plots, more = response.build(page, known, dose, colours, value, title)
    found: dict[str, Any] = {}
    table = None
    if value == "margin":
        given = (config.platemap.negative, positive(config, model), value)
        found = response.quality(known, dose, *given)
        table = response.quality_table(found, response.wells_of(known, found, *given))
    return {"plots": plots, "absent": absent + more, "lede": lede, "table": table, "found": found}


def _gallery(job: Job, cells: pd.DataFrame, model, why: str | None, quality: int) -> dict[str, Any]:
    none: dict[str, Any] = {"cards": [], "absent": []}
    if model is None:
        return {
            **none,
            "absent": [f"{why} So no cell was called, and there is nothing to look behind."],
        }
    if "Metadata_GradCAMO" not in cells or cells["Metadata_GradCAMO"].notna().sum() == 0:
        return {**none, "absent": ["No cell of this plate has a Grad-CAMO score."]}
    path = job.plate_dir / "attribution.zarr"
    explained = maps.explained(path, cells)
    if explained.empty:
        return {
            **none,
            "absent": ["No cell of this plate was explained (attribution.zarr has none)."],
        }
    try:
        chosen = gallery.choose(explained, job.config.report.gallery)
        reader = functools.partial(maps.read, path)
        found = gallery.draw(
            job.store, job.plate, chosen, reader, maps.crop(model), quality
        )
    except DataError as error:
        return {**none, "absent": [f"The gallery is left out: {error}"]}
    found["absent"] = []
    found["lede"] = (
        "Each cell as the network saw it, then what it looked at. Grad-CAM says where in the crop the call "
        "was made; PCIM says which pixels carry it. The thin line is the outline of the cell that was called."
    )
    found["caption"] = (
        f"Drawn from {len(explained):,} explained cells, those at the rim of a field left out where others "
        f"exist; the bar is {found['bar']} µm. Maps are scaled cell by cell: compare places, not brightness. "
        "PCIM is signed; shown is the evidence for the call."
    )
    return found


def _fields(job: Job, sites: pd.DataFrame, quality: int) -> dict[str, Any]:
    focus = focus_column(job.config)
    kept = sites
    if "Metadata_Quarantine" in sites:
        kept = sites[sites["Metadata_Quarantine"].fillna("") == ""]
    if "Count_Cells" not in kept or kept.empty:
        return {"pictures": [], "absent": ["No site of this plate was segmented."]}
    drawn, absent = [], []
    for field in fields.choose(kept, focus):
        row = kept[(kept["Metadata_Well"] == field.well) & (kept["Metadata_Site"] == field.site)]
        try:
            drawn.append(
                fields.draw(job.store, job.plate, field, int(row["Count_Cells"].iloc[0]), quality)
            )
        except (DataError, ValueError) as error:
            absent.append(f"{field.title} is left out: {error}")
    orphans = [c for c in ("Orphan_Nuclei", "Orphan_Cells") if c in kept]
    lost = f" On the whole plate {int(kept[orphans].sum().sum()):,} orphans (a nucleus without a cell or the reverse) were left out." if orphans else ""  # fmt: skip
    return {
        "pictures": drawn,
        "absent": absent,
        "lede": "Judge by eye: an outline should follow what you see, one per cell. Worst is by cell count or focus, "
        f"whichever is farther below the plate's median.{lost}",
        "legend": [("nuclei", fields.NUCLEI), ("cells", fields.CELLS)],
    }


def quarantine(project: Project, plates: list[str], sites: pd.DataFrame) -> dict[str, Any]:
    """Sites and wells left out, with their reasons."""
    rows = []
    if "Metadata_Quarantine" in sites:
        out = sites[sites["Metadata_Quarantine"].fillna("") != ""]
        for row in out.to_dict("records"):
            rows.append([str(row.get("Metadata_Plate", plates[0])), row["Metadata_Well"],
                         str(row.get("Metadata_Site", "")), str(row["Metadata_Quarantine"])])  # fmt: skip
    if not rows:
        return {
            "table": None,
            "absent": ["Nothing is in quarantine: every site of every well could be used."],
            "count": 0,
        }
    columns = [{"name": n, "number": False} for n in ("Plate", "Well", "Site", "Reason")]
    return {
        "table": {"title": "Quarantine", "columns": columns, "rows": rows},
        "absent": [],
        "lede": "These could not be computed and are in no table. Mend or replace the image and run again: "
        "only what is concerned is computed anew.",
        "count": len(rows),
    }


def tiles(known: pd.DataFrame, out: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures at the head of a report."""
    found = [{"name": "wells", "value": number(len(known)), "note": ""}]
    if "count" in known:
        counts = known["count"].dropna()
        found.append({"name": "cells", "value": number(int(counts.sum())),
                      "note": f"{number(float(counts.median()), 0)} a well (median)"})  # fmt: skip
    if "gradcamo" in known:
        found.append({"name": "Grad-CAMO", "value": number(float(known["gradcamo"].mean())),
                      "note": "attention on the cell, mean of wells"})  # fmt: skip
    if "enrichment" in known:
        found.append({"name": "enrichment", "value": f"{number(float(known['enrichment'].mean()), 1)}×",
                      "note": "1 is indifferent"})  # fmt: skip
    if "reliance" in known:
        found.append({"name": "background reliance", "value": number(float(known["reliance"].mean())),
                      "note": "0 is best"})  # fmt: skip
    found.append(
        {"name": "in quarantine", "value": number(out["count"]), "note": "sites and wells"}
    )
    return found


def short(sections, known, cells, config, model, why) -> list[dict[str, Any]]:
    """What the report says, in a few sentences."""
    lines: list[dict[str, Any]] = []
    if why:
        lines.append(
            {
                "text": f"{why} There is no audit; segmentation, counts and classical features are here.",
                "warn": True,
            }
        )
    for name, figure in sections["response"]["found"].items():
        said = response.span(figure)
        said = f"95 % interval {said}" if figure.low is not None else f"{said} for an interval"
        if name == "Z′":
            text = f"The controls separate with Z′ = {number(figure.value)} ({said}; {figure.wells} wells)."
            lines.append({"text": text, "warn": not figure.value >= 0.4})
        else:
            text = f"The treated wells follow the dose with Spearman ρ = {number(figure.value)} ({said}; {figure.wells} wells)."
            lines.append({"text": text, "warn": False})
    if "Metadata_GradCAMO" in cells and len(cells):
        score = cells["Metadata_GradCAMO"]
        half = float((score.dropna() > 0.5).mean())
        empty = float(score.isna().mean())
        lines.append({"text": f"For {half:.0%} of the cells more than half of the attention lies on the cell itself; "
                      f"{empty:.1%} have an empty map and no score.", "warn": empty > 0.05})  # fmt: skip
    return lines + warnings(sections)


def warnings(sections: dict[str, Any]) -> list[dict[str, Any]]:
    """Controls that fail and what is in quarantine, in a sentence each."""
    lines = []
    for row in (sections.get("controls") or {}).get("rows", []):
        for cell in row["cells"]:
            if cell is not None and cell["alarm"]:
                text = f"{row['name']}: {cell['value']}, {cell['verdict']}. Read Controls before you trust the calls."
                lines.append({"text": text, "warn": True})
    if sections["quarantine"]["count"]:
        lines.append({"text": "Something is in quarantine: see there which wells or sites, and why.", "warn": True})
    return lines


def contents(
    *first: tuple[str, str], model: bool, middle: tuple[tuple[str, str], ...] = ()
) -> list[tuple[str, str]]:
    """The sections of a page as (anchor, name)."""
    audited = (("channels", "Channels"), ("controls", "Controls"), ("training", "Training"))
    last = (("quarantine", "Quarantine"), ("methods", "For your paper"), ("provenance", "Provenance"))
    return [*first, *(audited if model else ()), *middle, *last]


def labelled(path: Path, config: Config) -> pd.DataFrame:
    """The ``Metadata_*`` columns of a plate's cells, their label besides as ``label``."""
    cells = read(path, "Metadata_*")
    if cells is None:
        return pd.DataFrame()
    label = platemap_column(cells, config.platemap.label)
    return cells if label is None else cells.assign(label=label)
