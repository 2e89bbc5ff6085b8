"""Picture of a report for the README: the page in a headless Chromium, as a PNG.

    python scripts/screenshot_report.py results/demo_2/report.html docs/report.png

Cut to what says most: the head, the plate as it lies, and the gallery below it. Colours are reduced
to a palette so that the file stays under 400 kB.
"""

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, SCALE = 1280, 1.5
LIMIT = 400_000  # bytes
FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--no-first-run"]


def main() -> None:
    """Open the report, take the parts asked for, write one picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--height", type=int, default=1180, help="CSS pixels of each part")
    given = parser.parse_args()
    parts = photograph(given.report, given.chromium, given.height)
    given.picture.parent.mkdir(parents=True, exist_ok=True)
    given.picture.write_bytes(small(beside(parts)))
    print(f"{given.picture}: {given.picture.stat().st_size:,} bytes")


def photograph(report: Path, chromium: str, height: int) -> list[Image.Image]:
    """The head of the page, and its gallery."""
    with sync_playwright() as run:
        browser = run.chromium.launch(executable_path=chromium, args=FLAGS)
        size = {"width": WIDTH, "height": height}
        page = browser.new_page(viewport=size, device_scale_factor=SCALE)
        page.goto(report.resolve().as_uri())
        page.wait_for_selector("html[data-charts=drawn]", timeout=60_000)
        shots = [page.screenshot()]
        if page.locator("#gallery .cell").count():
            page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
            page.evaluate("document.getElementById('gallery').scrollIntoView()")
            page.wait_for_timeout(300)
            shots.append(page.screenshot())
        browser.close()
    return [Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots]


def beside(parts: list[Image.Image], gap: int = 24) -> Image.Image:
    """Pictures side by side on a quiet ground."""
    width = sum(part.width for part in parts) + gap * (len(parts) + 1)
    sheet = Image.new("RGB", (width, parts[0].height + 2 * gap), "#dfe6e4")
    at = gap
    for part in parts:
        sheet.paste(part, (at, gap))
        at += part.width + gap
    return sheet


def small(picture: Image.Image) -> bytes:
    """PNG with a palette, made smaller until it fits."""
    while True:
        buffer = io.BytesIO()
        picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE).save(
            buffer, "PNG", optimize=True
        )
        if buffer.tell() <= LIMIT:
            return buffer.getvalue()
        picture = picture.resize((picture.width * 9 // 10, picture.height * 9 // 10))


if __name__ == "__main__":
    main()
