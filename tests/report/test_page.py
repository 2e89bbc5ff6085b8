import base64
import hashlib
import json
import re
from html import unescape

import altair as alt
import jsonschema
import numpy as np
import pandas as pd
import pytest
from altair.utils.schemapi import validate_jsonschema

from plateglass.report import page as pages
from plateglass.report.page import Page, number


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (9216, 2, "9,216"),
        (np.int64(3), 2, "3"),
        (0.745, 1, "0.7"),
        (-0.25, 2, "−0.25"),
        (-0.001, 2, "0.00"),
        (1234.5, 0, "1,234"),
        (None, 2, "–"),
        (float("nan"), 2, "–"),
    ],
)
def test_numbers_as_people_write_them(value, digits, text):
    assert number(value, digits) == text


def test_a_table_travels_as_columns_that_json_can_hold():
    page = Page()
    frame = pd.DataFrame(
        {
            "well": ["A01", None],
            "margin": [1.23456789, np.nan],
            "count": pd.array([3, None], dtype="Int64"),
            "edge": [True, False],
        }
    )
    page.table("wells", frame)
    assert page.tables["wells"] == {
        "well": ["A01", None],
        "margin": [1.235, None],
        "count": [3, None],
        "edge": [True, False],
    }


def test_nothing_in_a_payload_ends_its_script_element():
    text = pages._json({"label": "</script><script>alert(1)</script><!--", "line": "a\u2028b"})
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text)["label"] == "</script><script>alert(1)</script><!--"


def test_the_policy_allows_the_scripts_of_the_page_and_no_request(screen):
    html = (screen.results / "P1" / "report.html").read_text(encoding="utf-8")
    policy = unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1])
    assert "default-src 'none'" in policy
    assert "http" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


@pytest.mark.parametrize("name", ["P1", "screen"])
@pytest.mark.parametrize("of", ["screen", "bare"])
def test_every_chart_is_what_vega_lite_says_a_chart_is(request, of, name):
    page = request.getfixturevalue(of).results / name / "report.html"
    script = r'<script type="application/json"[^>]*>(.*?)</script>'
    payload = re.search(script, page.read_text(encoding="utf-8"), re.DOTALL)[1]
    charts, schema = json.loads(payload)["charts"], alt.load_schema()
    assert len(charts) > 2
    for chart in charts.values():
        validate_jsonschema(chart, schema)
    with pytest.raises(jsonschema.ValidationError):
        validate_jsonschema(chart | {"mark": "no mark"}, schema)


def test_vega_stands_in_the_page_once(screen):
    html = (screen.results / "P1" / "report.html").read_text(encoding="utf-8")
    assert html.count(pages.vega()) == 1
    assert "</script" not in pages.vega()


def test_vega_is_bundled_once_for_all_pages_and_again_where_the_kept_script_is_damaged(
    tmp_path, monkeypatch
):
    made = []
    monkeypatch.setattr(pages, "_bundled", lambda: made.append(1) or "// é\r\nvega")
    assert pages.vega(tmp_path) == pages.vega(tmp_path) == pages.vega()
    assert len(made) == 2  # the last has nowhere to look
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"\xff")
    assert pages.vega(tmp_path) == pages.vega(tmp_path) == "// é\r\nvega"
    assert len(made) == 3
