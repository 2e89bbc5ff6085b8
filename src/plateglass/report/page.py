"""One self-contained HTML file from a template: charts, tables, scripts and styles inside.

The file opens offline and asks for nothing: a Content-Security-Policy forbids every request and
every script but the ones written here (by hash), so that a platemap's label stays text even if an
escape were forgotten. The Vega libraries stand in the file once; all charts are data.
"""

import base64
import functools
import hashlib
import json
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from plateglass.files import write_atomically

LIMIT = 5_000_000  # bytes: what a report may weigh


@dataclass
class Page:
    """Charts (Vega-Lite specifications by name) and the tables that they draw from.

    ``kept``: the folder in which what all pages share is kept, None for nowhere.
    """

    kept: Path | None = None
    charts: dict[str, dict] = field(default_factory=dict)
    tables: dict[str, dict] = field(default_factory=dict)

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Keep ``frame`` for charts that name it; floats to four digits, missing as null."""
        self.tables[name] = {c: [_plain(v) for v in frame[c]] for c in frame.columns}

    def render(self, template: str, **context: Any) -> str:
        """The page's HTML. The same charts, tables and context give the same bytes."""
        script, bundle = _asset("page.js"), vega(self.kept)
        loader = jinja2.PackageLoader("plateglass.report")
        environment = jinja2.Environment(
            loader=loader,
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        environment.filters["number"] = number
        return environment.get_template(template).render(
            **context,
            charts_drawn=bool(self.charts),
            style=Markup(_asset("style.css")),
            script=Markup(script),
            bundle=Markup(bundle),
            policy=_policy(script, bundle),
            payload=Markup(_json({"charts": self.charts, "tables": self.tables})),
        )


def number(value: Any, digits: int = 2) -> str:
    """A number as people write it: 9,216 cells; 0.74; 1.3 × 10⁵ never; – where there is none."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "–"
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    text = f"{float(value):,.{digits}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")


def vega(kept: Path | None = None) -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, from the vl-convert package; no download.

    Bundling them takes half the time of a small report, so the folder ``kept`` keeps the script for the
    next, under a name that tells its version and digest.
    """
    name = f"vega-{version('vl-convert-python')}"
    for path in kept.glob(f"{name}-*.js") if kept else ():
        script = path.read_bytes().decode(errors="replace")
        if path.name == f"{name}-{_digest(script)}.js":
            return script
    script = _bundled()
    if kept:
        write_atomically(kept / f"{name}-{_digest(script)}.js", script)
    return script


@functools.cache
def _bundled() -> str:
    import vl_convert

    return vl_convert.javascript_bundle().replace("</script", "<\\/script")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _asset(name: str) -> str:
    return files("plateglass.report").joinpath("templates", name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON that may stand inside <script>: nothing in it can end the element or begin another."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _policy(*scripts: str) -> str:
    """Forbid every request; allow these scripts, inline styles and pictures inside the file."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _plain(value: Any) -> Any:
    """What JSON can hold of a table's cell."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return str(value)
