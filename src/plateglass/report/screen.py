"""The report of the screen: the plates' tables, the selected profiles and screen/model."""

from typing import Any

import numpy as np
import pandas as pd

from plateglass import store
from plateglass.measure import assay
from plateglass.measure.names import features_of
from plateglass.project import Project
from plateglass.report import audit, charts, plate, provenance, response, words
from plateglass.report.charts import Colours, Plot
from plateglass.report.page import LIMIT, Page, number
from plateglass.report.palette import label_colours
from plateglass.report.wells import Dose, positive, read, wells
from plateglass.wells import Job

MOST = 6000  # wells that a chart of single wells shows; of more, some by a hash of their names
MAPS = 24  # plates that are drawn as grids


def build(job: Job) -> tuple[str, dict[str, str]]:
    """The page's HTML, and the few figures that matter, as lines for the terminal."""
    project, config, page = Project.read(job.config), job.config, Page()
    names = [n for n in project.names if (job.results / n / "wells.parquet").exists()]
    model = plate.model_of(job) if project.has_model else None
    why = None if project.has_model else project.why_no_model()
    tables = [read(job.results / n / "wells.parquet", "Metadata_*") for n in names]
    sites = [read(job.results / n / "sites.parquet") for n in names]
    table, sites = pd.concat(tables, ignore_index=True), pd.concat(sites, ignore_index=True)
    known, dose = wells(table, sites, config)
    called = positive(config, model)
    colours = Colours(
        *map(tuple, label_colours(sorted(set(known["label"])), config.platemap.negative, called))
    )
    cells = {n: plate.labelled(job.results / n / "cells.parquet", config) for n in names}
    value, title = ("margin", f"margin of {called}") if "margin" in known else ("count", "cells")
    rows = _figures(project, known, dose, cells, called)
    sections: dict[str, Any] = {
        "overview": _overview(project, names, known, rows),
        "maps": _maps(page, names, known, value, title),
        "response": _response(page, known, dose, colours, value, title, why),
        "profiles": _profiles(page, job, known, colours),
        "quarantine": plate.quarantine(project, names, sites),
    }
    if model is not None:
        sections |= _model(page, job, project, cells, config, called, model)
    phrase = f"{len(names)} plate{'s' * (len(names) != 1)} ({len(known):,} wells, {len(sites):,} fields)"
    html = page.render(
        "screen.html",
        eyebrow="Screen",
        above=None,
        title=", ".join(names) if len(names) <= 3 else f"{len(names)} plates",
        lede=f"{len(known):,} wells on {len(names)} plate{'s' * (len(names) != 1)}, channels {', '.join(config.channel_names)}.",
        tiles=plate.tiles(known, sections["quarantine"]),
        short=_short(project, rows, sections, why),
        contents=plate.contents(("plates", "Plates"), ("response", "Response"), ("profiles", "Profiles"),
                                model=model is not None),
        labels=colours.pairs,
        model=model,
        methods=words.methods(config, phrase, model),
        provenance=provenance.foot(project),
        **sections,
    )  # fmt: skip
    if len(html.encode()) > LIMIT:
        raise RuntimeError(f"the screen's report is {len(html.encode()):,} bytes, over {LIMIT:,}")
    return html, _summary(known, rows, sections)


def _figures(
    project: Project, known: pd.DataFrame, dose: Dose | None, cells: dict[str, pd.DataFrame], called: str | None
) -> dict[str, dict[str, Any]]:
    """Z′, dose ρ and balanced accuracy of each plate."""
    found: dict[str, dict[str, Any]] = {}
    negative = project.config.platemap.negative
    for name, own in known.groupby("plate", sort=True):
        figures: dict[str, Any] = {}
        if "margin" in own:
            figures = dict(response.quality(own, dose, negative, called, "margin"))
        labelled = cells[str(name)]
        if "Metadata_Class" in labelled:
            classes = labelled[labelled["label"].isin(project.config.train.classes or ())]
            if len(classes):
                figures["balanced accuracy"] = assay.balanced_accuracy(assay.hits(classes, "label"))
        found[str(name)] = figures
    return found


def _overview(
    project: Project, names: list[str], known: pd.DataFrame, rows: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """One row a plate, linked to its report."""
    columns = [("Plate", False), ("Model", False), ("Wells", True), ("Cells", True)]
    means = [(c, t, d) for c, t, d in (("gradcamo", "Grad-CAMO", 2), ("enrichment", "Enrichment", 2),
             ("reliance", "Reliance", 2)) if c in known]  # fmt: skip
    figures = [f for f in ("balanced accuracy", "Z′", "dose ρ") if any(f in r for r in rows.values())]
    columns += [(f[0].upper() + f[1:], True) for f in figures] + [(t, True) for _, t, _ in means]
    lines = []
    for name in names:
        own = known[known["plate"] == name]
        trained = name in project.training_plates()
        line: list[Any] = [{"href": f"../{name}/report.html", "text": name}, "trained on" if trained else "applied" if project.has_model else "none"]
        line += [number(len(own)), number(int(own["count"].sum())) if "count" in own else "–"]
        for figure in figures:
            value = rows[name].get(figure)
            if value is None:
                line.append("–")
            else:
                line.append({"text": number(value.value), "gloss": response.span(value)})
        line += [number(float(own[c].mean()), d) for c, _, d in means]
        lines.append(line)
    gone = [n for n in project.names if n not in names]
    return {
        "table": {"title": "Plates", "columns": [{"name": n, "number": is_n} for n, is_n in columns], "rows": lines},
        "absent": [f"Without tables, so not shown: {', '.join(gone)}."] if gone else [],
    }


def _maps(
    page: Page, names: list[str], known: pd.DataFrame, value: str, title: str
) -> dict[str, Any]:
    """A small grid a plate, all on one scale."""
    if value not in known:
        return {"plots": []}
    kept = ["plate", "well", "row", "column", "label"]
    kept += [c for c in ("compound", "dose", "count", "margin", "gradcamo", "reliance") if c in known]
    tips = [("plate:N", "plate"), ("well:N", "well"), ("label:N", "label")]
    tips += [(f"{c}:N", c) for c in ("compound", "dose") if c in known]
    tips += [(f"{c}:Q", n, f) for c, n, f in (("count", "cells", ",.0f"), ("margin", "margin", "+.1f"),
             ("gradcamo", "Grad-CAMO", ".2f"), ("reliance", "reliance", ".2f")) if c in known]  # fmt: skip
    finite = known[value].dropna()
    domain = (float(finite.min()), float(finite.max())) if len(finite) else None
    plots = []
    for number_, name in enumerate(names[:MAPS]):
        own = known[known["plate"] == name]
        if own.empty:
            continue
        page.table(f"wells_{number_}", own[kept])
        geometry = store.geometry(list(own["well"]))
        page.charts[f"plate_{number_}"] = charts.plate_grid(
            value, title, geometry, charts.tooltip(*tips), "+.1f" if value == "margin" else ",.0f",
            middle=0 if value == "margin" else None, table=f"wells_{number_}", domain=domain,
        )  # fmt: skip
        plots.append(Plot(f"plate_{number_}", name, f"{title[0].upper()}{title[1:]} by well.",
                          max(250, (20 if geometry[1] <= 24 else 15) * geometry[1])))  # fmt: skip
    widest = max((store.geometry(list(g["well"]))[1] for _, g in known.groupby("plate")), default=12)
    lede = "All plates on one scale: a plate that is paler or darker as a whole differs from the others."
    if len(names) > MAPS:
        lede += f" The first {MAPS} of {len(names)} plates are drawn."
    return {"plots": plots, "across": 3 if widest <= 12 else 2 if widest <= 24 else 1,
            "title": f"{title[0].upper()}{title[1:]} on every plate", "lede": lede}  # fmt: skip


def _response(page, known, dose, colours, value, title, why) -> dict[str, Any]:
    if value not in known:
        return {"plots": [], "absent": ["No plate has cell counts."], "lede": ""}
    plots, absent = response.build(page, _some(known), dose, colours, value, title)
    if why:
        absent = [f"{why} The response is shown in cell counts instead.", *absent]
    lede = "Wells of all plates together. Point at a well for its plate." if known["plate"].nunique() > 1 else ""  # fmt: skip
    return {"plots": plots, "absent": absent, "lede": lede}


def _profiles(page: Page, job: Job, known: pd.DataFrame, colours: Colours) -> dict[str, Any]:
    """The selected profiles on their two widest axes."""
    table = read(job.plate_dir / "wells_selected.parquet")
    features = [] if table is None else features_of(list(table.columns))
    if len(features) < 2:
        return {"plots": [], "absent": ["Fewer than two features were left by the selection (wells_selected), so there is no plane to draw."]}
    values = table[features].astype(float)
    whole = values.notna().all(axis=1)
    if whole.sum() < 4:
        return {"plots": [], "absent": ["Fewer than four wells have a whole profile."]}
    scores, shares = principal(values[whole].to_numpy())
    points = pd.DataFrame({
        "plate": table.loc[whole, "Metadata_Plate"].astype(str).to_numpy(),
        "well": table.loc[whole, "Metadata_Well"].astype(str).to_numpy(),
        "x": scores[:, 0], "y": scores[:, 1],
    }).merge(known.drop(columns=["row", "column"]), "left", ["plate", "well"])  # fmt: skip
    points = _some(points)
    plates = points["plate"].nunique()
    kept = [c for c in ("plate", "well", "label", "compound", "dose", "count", "x", "y") if c in points]
    page.table("profiles", points[kept])
    tips = [("plate:N", "plate"), ("well:N", "well"), ("label:N", "label")]
    tips += [(f"{c}:N", c) for c in ("compound", "dose") if c in points]
    page.charts["profiles"] = charts.scatter(
        "profiles", ("x", f"component 1 ({shares[0]:.0%} of the variance)"),
        ("y", f"component 2 ({shares[1]:.0%})"), colours, charts.tooltip(*tips), len(points),
        shape="plate" if 1 < plates <= 6 else None,
    )  # fmt: skip
    plot = Plot(
        "profiles", "Wells by their profiles",
        f"A symbol is a well{', its shape the plate' if 1 < plates <= 6 else ''}: principal components of "
        f"{len(features):,} features, each normalised per plate to the negative controls. Wells that lie "
        "together look alike. If symbols gather by plate rather than by colour, plates still differ after "
        "normalisation.", 320,
    )  # fmt: skip
    return {"plots": [plot], "absent": [], "lede": f"{whole.sum():,} wells, {len(features):,} features kept by the selection."}


def principal(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First two principal components of wells × features, and their shares of the variance.

    Each feature is centred, scaled to unit variance and cut at ±5, so that no single one with a
    long tail draws the plane. Signs are fixed (the largest loading is positive).
    """
    centred = values - values.mean(0)
    spread = centred.std(0)
    scaled = np.clip(centred / np.where(spread > 0, spread, 1), -5, 5)
    scaled -= scaled.mean(0)
    left, singular, loadings = np.linalg.svd(scaled, full_matrices=False)
    signs = np.sign(loadings[np.arange(2), np.abs(loadings[:2]).argmax(1)])
    power = singular**2 / max((singular**2).sum(), 1e-12)
    return left[:, :2] * singular[:2] * signs, power[:2]


def _model(page, job, project, cells, config, called, model) -> dict[str, Any]:
    classes = len(model.get("classes") or config.train.classes) or 2
    trained = set(project.training_plates())
    groups = []
    for title, chosen in (
        ("Trained on (out of fold)", [cells[n] for n in cells if n in trained]),
        ("Never trained on", [cells[n] for n in cells if n not in trained]),
    ):
        if chosen:
            groups.append((title, pd.concat(chosen, ignore_index=True)))
    return {
        "channels": audit.channels(page, job.model_dir, classes),
        "controls": audit.controls(groups, config.platemap, called, classes),
        "history": audit.history(page, job.model_dir),
    }


def _some(wells: pd.DataFrame) -> pd.DataFrame:
    """At most ``MOST`` wells, chosen by a hash of their names."""
    if len(wells) <= MOST:
        return wells
    key = pd.util.hash_pandas_object(wells["plate"] + "/" + wells["well"], index=False)
    return wells.loc[key.sort_values().index[:MOST]].sort_index()


def _short(project: Project, rows: dict[str, dict[str, Any]], sections: dict[str, Any], why: str | None) -> list[dict[str, Any]]:  # fmt: skip
    lines: list[dict[str, Any]] = []
    if why:
        lines.append({"text": f"{why} There is no audit; segmentation, counts and classical features are here.", "warn": True})
    for name, figures in rows.items():
        if figures:
            said = "; ".join(
                f"{f} {number(v.value)}" + (f" ({response.span(v)})" if v.low is not None else "")
                for f, v in figures.items()
            )
            kind = "trained on, out of fold" if name in project.training_plates() else "never trained on"
            lines.append({"text": f"{name} ({kind}): {said}.", "warn": False})
    lines = lines[:6] + ([{"text": f"… and {len(lines) - 6} more plates below.", "warn": False}] if len(lines) > 6 else [])
    return lines + plate.warnings(sections)


def _summary(known: pd.DataFrame, rows: dict[str, dict[str, Any]], sections: dict[str, Any]) -> dict[str, str]:
    """What the terminal says at the end of a run."""
    found = {"wells": number(len(known))}
    if "count" in known:
        found["cells"] = number(int(known["count"].sum()))
    for name, figures in rows.items():
        for figure, value in figures.items():
            found[f"{name}: {figure}"] = f"{number(value.value)} ({response.span(value)})"
    if "enrichment" in known:
        found["Grad-CAMO, enrichment"] = f"{number(float(known['gradcamo'].mean()))}, {number(float(known['enrichment'].mean()), 1)}×"
    return found
