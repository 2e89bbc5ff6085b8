"""Reports in a real headless Chromium: offline, at both widths, with clicks."""

import re
from statistics import mean

import pytest

from report.invented import NASTY, TORN

WIDTHS = (1280, 390)
PAGES = ("P1", "P2", "screen")


@pytest.fixture
def open_page(chromium):
    """Open a report at a width; every request but the file's own, and every error, is noted."""
    contexts = []

    def visit(path, width):
        context = chromium.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.requests, page.errors = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-charts=drawn]", timeout=60_000)
        return page

    yield visit
    for context in contexts:
        context.close()


def asked_elsewhere(page) -> list[str]:
    """Requests that leave the file; pictures in it are ``data:``."""
    return [u for u in page.requests if not u.startswith(("file://", "data:", "blob:"))]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", WIDTHS)
def test_opens_offline_and_fits(screen, open_page, name, width):
    page = open_page(screen.results / name / "report.html", width)
    assert asked_elsewhere(page) == []
    assert [u for u in page.requests if u.startswith("file://")] == [page.url]
    assert page.errors == []
    sideways, inner = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert sideways <= inner == width
    empty = page.evaluate(
        "[...document.querySelectorAll('[data-chart]')]"
        ".filter((c) => !c.querySelector('svg, canvas')).map((c) => c.dataset.chart)"
    )
    assert empty == []
    broken = page.evaluate("[...document.images].filter((i) => !i.naturalWidth).length")
    assert broken == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_gallery_shows_one_tier_and_its_captions(screen, open_page, width):
    page = open_page(screen.results / "P1" / "report.html", width)
    cells = page.locator(".cell:visible figcaption")

    def scores():
        return [
            float(re.search(r"Grad-CAMO ([\d.]+)", text)[1]) for text in cells.all_inner_texts()
        ]

    best = scores()
    assert len(best) == 8
    page.get_by_role("tab", name="Worst").click(position={"x": 4, "y": 4})  # the first is swallowed
    page.get_by_role("tab", name="Worst").click()
    worst = scores()
    assert len(worst) == 8
    assert mean(worst) < 0.5 < mean(best)
    assert "looked elsewhere" in page.locator("[data-how]:visible").inner_text()
    page.get_by_role("tab", name="Typical").click()
    assert mean(worst) < mean(scores()) < mean(best)
    assert page.get_by_role("tab", selected=True).all_inner_texts() == ["Typical"]
    for text in cells.all_inner_texts():
        assert re.match(r"Plate P1 · well [A-H]\d\d · site 1 · cell \d+\n", text), text
    page.locator(".chips").get_by_role("button", name="positive_control").click()
    called = cells.all_inner_texts()
    assert called
    assert all("called positive_control" in text for text in called)


def test_tabs_move_by_arrow_keys(screen, open_page):
    page = open_page(screen.results / "P1" / "report.html", 1280)
    page.get_by_role("tab", name="Best").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.tier") == "typical"
    assert page.get_by_role("tab", selected=True).all_inner_texts() == ["Typical"]


@pytest.mark.parametrize("width", WIDTHS)
def test_hover_over_a_well_tells_its_name(screen, open_page, width):
    page = open_page(screen.results / "P1" / "report.html", width)
    chart = page.locator("[data-chart=plate_margin]")
    chart.scroll_into_view_if_needed()
    well = chart.locator("path[aria-label^='B02']").first
    box = well.bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for(timeout=5000)
    text = " ".join(tip.inner_text().split())
    assert "well B02" in text
    assert "label negative_control" in text
    assert re.search(r"margin −\d", text)


def test_wide_charts_scroll_in_their_own_box(screen, open_page):
    page = open_page(screen.results / "P1" / "report.html", 320)
    sideways, inner = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert sideways <= inner
    own = page.evaluate(
        "(() => { const box = document.querySelector('[data-chart=by_dose]').parentElement;"
        "return [box.scrollWidth, box.clientWidth]; })()"
    )
    assert own[0] > own[1]


def test_a_table_is_shaded_only_where_it_can_scroll(screen, open_page):
    path = screen.results / "screen" / "report.html"
    for width, narrow in ((1280, False), (390, True)):
        page = open_page(path, width)
        box = page.locator("#plates .scroll:has(> table)")
        assert box.evaluate("(b) => b.scrollWidth > b.clientWidth + 1") == narrow
        shaded = box.evaluate("(b) => getComputedStyle(b).backgroundImage !== 'none'")
        assert shaded == narrow
        page.set_viewport_size({"width": 1670 - width, "height": 900})  # and follows the window
        turned = (
            "(no) => document.querySelector('#plates .scroll').classList.contains('more') !== no"
        )
        page.wait_for_function(turned, arg=narrow)


@pytest.mark.parametrize("width", WIDTHS)
def test_swatches_stand_out_from_the_ground_and_fit(screen, open_page, width):
    page = open_page(screen.results / "P1" / "report.html", width)
    for section in ("gallery", "segmentation"):
        key = page.locator(f"#{section} [aria-label='Colours of the channels']")
        assert key.locator("li").all_inner_texts() == ["DNA", "Marker"]
        box = key.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    white = page.locator("#segmentation .keys i").first
    look = "(i) => [getComputedStyle(i).borderTopColor, getComputedStyle(i).borderTopWidth]"
    border, thick = white.evaluate(look)
    assert thick == "1px"
    assert max(map(int, re.findall(r"\d+", border)[:3])) < 190  # seen on white


def test_colour_bars_have_no_signed_zero(screen, open_page):
    page = open_page(screen.results / "P1" / "report.html", 1280)
    chart = page.locator("[data-chart=plate_margin] .role-legend-label")
    labels = chart.locator("text").all_text_contents()
    assert "0" in labels
    assert "+0" not in labels
    assert any(text.startswith("+") for text in labels)


def test_a_script_in_a_label_stays_text(screen, open_page):
    page = open_page(screen.results / "P1" / "report.html", 1280)
    dialogs = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    assert page.locator(".keys li", has_text=NASTY).count() >= 1
    well = page.locator("[data-chart=plate_label] path[aria-label^='C05']").first
    well.hover()
    page.locator("#vg-tooltip-element.visible").wait_for(timeout=5000)
    assert NASTY in page.locator("#vg-tooltip-element").inner_text()
    assert dialogs == []
    assert page.errors == []


def test_outlines_go_and_come_back(screen, open_page):
    page = open_page(screen.results / "P1" / "report.html", 1280)
    button = page.get_by_role("button", name="Outlines")
    assert page.locator(".field").count() == 2
    button.click()
    assert page.locator(".field.bare").count() == 2
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert page.locator(".field.bare").count() == 0


def test_plates_are_linked_both_ways(screen, open_page):
    page = open_page(screen.results / "screen" / "report.html", 1280)
    page.get_by_role("link", name="P2", exact=True).click()
    page.wait_for_selector("html[data-charts=drawn]", timeout=60_000)
    assert page.locator("h1").inner_text() == "P2"
    page.get_by_role("link", name="the whole screen").click()
    page.wait_for_selector("html[data-charts=drawn]", timeout=60_000)
    assert page.locator("h1").inner_text() == "P1, P2"


def test_dark_follows_the_system(screen, chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    page = context.new_page()
    page.goto((screen.results / "P1" / "report.html").as_uri())
    page.wait_for_selector("html[data-charts=drawn]", timeout=60_000)
    red, green, blue = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    )
    assert max(red, green, blue) < 40
    context.close()


@pytest.mark.parametrize("name", ["P1", "screen"])
def test_without_a_model_it_says_why(bare, open_page, name):
    page = open_page(bare.results / name / "report.html", 390)
    assert page.errors == []
    text = page.locator("main").inner_text()
    assert "The settings name no train.classes, so no network was trained." in text
    assert page.locator("#controls").count() == 0
    sideways, inner = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert sideways <= inner
    assert TORN in text
