"""Screenshots of the guide to the line: ``python -m tests.serve.page.screenshots`` writes them to docs/guides/images.

A small model is fitted on generated parts, a server watches a folder, and a browser goes through the views. It takes some
minutes; ``--model FOLDER`` takes an exported model of an earlier run instead.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from blemish.demo.generated import DEFECTS, make_sample
from blemish.demo.run import PLANS
from tests.serve.page.browsing import ARGUMENTS, PageServer, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OUT = Path(__file__).parents[3] / "docs" / "guides" / "images"
FAMILY, GOOD, NEW = "rod", 80, 44
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def write_part(path: Path, kind: str, seed: int) -> Path:
    """Write one generated part."""
    sample = make_sample(
        FAMILY, kind, seed=seed, size=PLANS[FAMILY].size, strength=1.5 if kind != "good" else 1.0
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sample.image[0]).save(path)
    return path


def fitted_model(folder: Path) -> Path:
    """Fit the demo's model on good parts, and export it."""
    import blemish
    from blemish.export.export_model import export_model

    for seed in range(GOOD):
        write_part(folder / "good" / f"part-{seed:03}.png", "good", seed)
    plan = PLANS[FAMILY]
    model = folder / "model"
    blemish.fit(folder / "good", plan.recipe, settings=plan.settings, false_reject_rate=0.1, out=model)
    export_model(model, folder / "rod-ends", images=folder / "good")
    return folder / "rod-ends"


def parts_of_the_line(folder: Path) -> list[Path]:
    """Good parts with a defective one among every four."""
    kinds = [*DEFECTS[FAMILY]] * 2
    found = []
    for number in range(NEW):
        is_bad = number % 4 == 3
        kind = kinds[number // 4] if is_bad else "good"
        found.append(write_part(folder / f"part-{1000 + number}.png", kind, 5000 + number))
    return found


def kind_of(name: str) -> str:
    """Kind of defect of such a part, by its number."""
    number = int(Path(name).stem.removeprefix("part-")) - 1000
    return ([*DEFECTS[FAMILY]] * 2)[number // 4].replace("_", " ")


def save(page: Page, out: Path, name: str) -> None:
    """Screenshot of the window as WebP, as small as its text stays sharp."""
    page.wait_for_load_state("networkidle")
    page.mouse.move(2, 2)
    page.wait_for_timeout(400)
    image = Image.open(io.BytesIO(page.screenshot()))
    out.mkdir(parents=True, exist_ok=True)
    image.convert("RGB").save(out / f"{name}.webp", quality=82, method=6)
    print(out / f"{name}.webp", (out / f"{name}.webp").stat().st_size)


def opened(browser: Browser, server: PageServer, view: str, **settings: Any) -> Page:
    """A page in a browser without a past."""
    settings = {"viewport": DESK, "locale": "en", "color_scheme": "light", **settings}
    page = browser.new_context(**settings).new_page()
    page.goto(f"{server.address}/#/{view}")
    page.locator("#connection[data-state=on]").wait_for(state="attached")
    return page


def record(
    server: PageServer, out: Path, incoming: Path, parts: list[Path], good: Path, browser: Browser
) -> None:
    """Go through the views."""
    live = opened(browser, server, "live")
    for part in parts:
        shutil.copy(part, incoming)
        time.sleep(0.15)
    with server.client() as client:
        while len(found := client.get("/api/decisions", params={"limit": 500}).json()["decisions"]) < len(
            parts
        ):
            time.sleep(0.3)
        rejected = next(
            one
            for one in found
            if one["is_anomalous"] and len(one["regions"]) == 1 and int(one["name"][5:9]) % 4 == 3
        )
        for one in found[:14]:
            client.post(f"/api/decisions/{one['id']}/verdict", json={"is_right": True, "operator": "Kim"})
    until(live, f"document.querySelector('.sign strong')?.textContent === '{found[0]['name']}'")
    save(live, out, "live")
    dark = opened(browser, server, "live", color_scheme="dark")
    save(dark, out, "live-dark")
    phone = opened(browser, server, "live", viewport=PHONE, device_scale_factor=1.5)
    save(phone, out, "phone")
    german = opened(
        browser, server, "history", locale="de", viewport=PHONE, device_scale_factor=1.5, color_scheme="dark"
    )
    german.locator(".thumb img").first.wait_for()
    save(german, out, "phone-dark")

    page = opened(browser, server, f"decision/{rejected['id']}")
    page.locator(".regions button").first.click()
    page.keyboard.press("b")
    region = rejected["regions"][0]
    image = page.locator(".viewer .layers img").first.bounding_box()
    assert image is not None
    scale = image["width"] / rejected["size"][0]
    for x, y in (
        (region["x"] - 2, region["y"] - 2),
        (region["x"] + region["width"] + 2, region["y"] + region["height"] + 2),
    ):
        page.mouse.click(image["x"] + x * scale, image["y"] + y * scale)
    page.get_by_label("Kind of defect").fill(kind_of(rejected["name"]))
    save(page, out, "decision")
    page.goto(f"{server.address}/#/scores")
    page.locator("svg.chart[role=img]").wait_for()
    save(page, out, "scores")
    page.goto(f"{server.address}/#/what-if")
    page.locator("#threshold").wait_for()
    with server.client() as client:
        scores = sorted(client.get("/api/scores").json()["score"])
    accepted = [score for score in scores if score <= found[0]["threshold"]]
    page.locator("input[type=number]").fill(f"{accepted[-4]:.3f}")
    page.locator(".thumb").first.wait_for()
    save(page, out, "what-if")
    page.goto(f"{server.address}/#/line")
    page.get_by_role("button", name="Ignore: polygon").wait_for()
    page.set_viewport_size({"width": 1280, "height": 1010})
    draw_area(page)
    page.evaluate("window.scrollTo(0, 0)")
    save(page, out, "line")
    fit(page, server, good, out)


def draw_area(page: Page) -> None:
    """Ignore a corner of the image."""
    page.get_by_role("button", name="Ignore: box").click()
    page.locator(".viewer").scroll_into_view_if_needed()
    image = page.locator(".viewer .layers img").first.bounding_box()
    assert image is not None
    for x, y in ((0.02, 0.02), (0.3, 0.16)):
        page.mouse.click(image["x"] + x * image["width"], image["y"] + y * image["height"])


def fit(page: Page, server: PageServer, good: Path, out: Path) -> None:
    """Fit a second version from the page, and compare it."""
    page.goto(f"{server.address}/#/models")
    files = sorted(good.iterdir())[:60]
    page.locator(".drop input[type=file]").set_input_files([str(path) for path in files])
    page.get_by_text(f"{len(files)} good images are collected.").wait_for(timeout=120_000)
    page.locator("summary", has_text="Recipe and settings").click()
    page.get_by_label("Settings, KEY=VALUE").fill("\n".join(PLANS[FAMILY].settings))
    page.locator("summary", has_text="Recipe and settings").click()
    page.locator("select:has(option[value='5m'])").select_option("")
    page.get_by_label("False-reject rate").select_option("0.1")
    page.locator("#start-fit").click()
    page.get_by_text(re.compile("good images: |on [0-9]+ good images")).first.wait_for(timeout=300_000)
    page.locator("article progress[max]").wait_for(timeout=240_000)
    page.evaluate("window.scrollTo(0, 0)")
    save(page, out, "fit")
    page.locator("article[data-fit='1'][data-state=finished]").wait_for(timeout=600_000)
    page.locator("tr[data-version='2']").get_by_role("button", name="Compare").click()
    page.get_by_text("Newly rejected").wait_for(timeout=240_000)
    page.set_viewport_size(DESK)
    page.evaluate("window.scrollTo(0, 0)")
    save(page, out, "models")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--model", type=Path, help="exported model of an earlier run, beside its folder good/"
    )
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = given.model or fitted_model(folder)
        incoming = folder / "in"
        incoming.mkdir()
        description = {
            "sources": [{"name": "station 3", "type": "folder", "path": str(incoming), "settle": 0.1}],
            "sinks": [
                {"name": "rejects", "type": "folder", "path": str(folder / "rejects")},
                {"name": "shift book", "type": "csv", "path": str(folder / "decisions.csv")},
            ],
        }
        (folder / "line.yaml").write_text(json.dumps(description))
        server = PageServer(f"rod-ends={model}", folder / "home", "--line", str(folder / "line.yaml")).start()
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=given.chromium, args=ARGUMENTS)
                record(
                    server,
                    given.out,
                    incoming,
                    parts_of_the_line(folder / "parts"),
                    model.parent / "good",
                    browser,
                )
                browser.close()
        finally:
            server.kill()


if __name__ == "__main__":
    main()
