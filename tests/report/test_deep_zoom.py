"""The page of deep zoom in a real browser, opened from the disk."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from blemish.observer import Observer
from blemish.report.deep_zoom import render_deep_zoom_page
from blemish.report.layer_files import LayerFiles
from blemish.report.save_settings import SaveSettings
from tests.report.stacks import make_stack, make_values
from tests.serve.page.browsing import ARGUMENTS, until
from tests.services import needs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZE = (1040, 1390)
SECONDS = 60


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page with its tiles."""
    folder = tmp_path_factory.mktemp("zoom")
    LayerFiles(folder, SaveSettings(("page",), dpi=254), Observer()).save(
        make_stack(make_values(*SIZE), dpi=254), "a"
    )
    return folder / "zoom/eve"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = needs("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield found
        found.close()


Asked = list[str]


@pytest.fixture
def opened(browser: Browser, home: Path) -> Iterator[Callable[..., tuple[Page, Asked]]]:
    """``opened(width=…, color_scheme=…)``: the page from the disk, and the addresses that it asked for."""
    contexts: list[Any] = []
    errors: list[str] = []

    def opened(width: int = 1280, **settings: Any) -> tuple[Page, Asked]:
        context = browser.new_context(viewport={"width": width, "height": 720}, offline=True, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * SECONDS)
        asked: Asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.on("requestfailed", lambda request: errors.append(request.url))
        page.goto((home / "index.html").as_uri())
        settled(page)
        return page, asked

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


def settled(page: Page) -> None:
    """Wait until all tiles that are wanted are drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    until(page, "document.getElementById('canvas').dataset.waiting === '0'", SECONDS)


def pixel(page: Page, x: float, y: float) -> np.ndarray:
    """Colour of the page at a place of the window, as it is on the screen."""
    from io import BytesIO

    shot = page.screenshot(clip={"x": x, "y": y, "width": 1, "height": 1})
    return np.asarray(Image.open(BytesIO(shot)).convert("RGB"))[0, 0].astype(int)


def on_screen(page: Page, x: float, y: float) -> tuple[float, float]:
    """Place in the window of a place of the scene."""
    state = page.evaluate(
        "(() => { const {x, y, zoom} = document.getElementById('canvas').dataset;"
        "const c = document.getElementById('canvas'); return [+x, +y, +zoom, c.clientWidth, c.clientHeight]; })()"
    )
    cx, cy, zoom, width, height = state
    return width / 2 + (x - cx) * zoom, height / 2 + (y - cy) * zoom


def set_amount(page: Page, value: int) -> None:
    page.locator("#amount").fill(str(value))
    settled(page)


def tile_levels(asked: Asked, layer: str) -> set[int]:
    """Factors of the tiles of a layer that were asked for."""
    found = re.findall(rf"/{re.escape(layer)}/\d+,\d+,(\d+),\d+/(\d+),\d+/0/", "\n".join(asked))
    return {round(int(width) / int(size)) for width, size in found}


def test_the_page_opens_from_the_disk_and_loads_nothing_else(opened: Any, home: Path) -> None:
    page, asked = opened()
    assert all(url.startswith(home.as_uri()) for url in asked)
    assert len(asked) > 2
    assert page.title() == "Eve <1510>"
    assert page.get_by_role("heading", level=1).inner_text() == "Eve <1510>"


def test_zoom_changes_the_tiles(opened: Any) -> None:
    page, asked = opened(width=900)
    assert 1 not in tile_levels(asked, "image-visible")
    page.locator("#canvas").focus()
    page.keyboard.press("1")
    settled(page)
    assert 1 in tile_levels(asked, "image-visible")
    assert page.locator("#zoom").inner_text() == "100 %"
    before = len(asked)
    page.keyboard.press("0")
    settled(page)
    assert len(asked) == before, "tiles that are there are not asked for again"


def test_tiles_lie_where_the_scene_has_them(opened: Any) -> None:
    """At three zooms the colour on the screen is that of the image at this place."""
    values = make_values(*SIZE)["visible"]
    page, _ = opened()
    page.locator("#regions").uncheck()
    set_amount(page, 0)
    page.locator("#canvas").focus()
    for key in ("0", "1", "+"):
        page.keyboard.press(key)
        settled(page)
        for x, y in ((600, 480), (740, 400), (800, 590)):
            expected = values[:, y - 2 : y + 3, x - 2 : x + 3].mean((1, 2)) * 255
            assert np.abs(pixel(page, *on_screen(page, x + 0.5, y + 0.5)) - expected).max() < 25, (key, x, y)


def test_fader_and_curtain(opened: Any) -> None:
    page, _ = opened()
    page.locator("#regions").uncheck()
    page.locator("#above").select_option("image-infra red#1")
    x, y = on_screen(page, 500, 700)
    set_amount(page, 0)
    below = pixel(page, x, y)
    set_amount(page, 100)
    above = pixel(page, x, y)
    assert np.abs(above - below).max() > 40
    set_amount(page, 50)
    assert np.abs(pixel(page, x, y) - (above + below) / 2).max() <= 3
    page.get_by_label("curtain", exact=True).check()
    set_amount(page, 10)
    assert np.abs(pixel(page, x, y) - above).max() <= 2
    set_amount(page, 90)
    assert np.abs(pixel(page, x, y) - below).max() <= 2
    width = page.evaluate("document.getElementById('canvas').clientWidth")
    page.mouse.move(0.9 * width, 300)  # the curtain follows the pointer
    page.mouse.down()
    page.mouse.move(0.2 * width, 300, steps=4)
    page.mouse.up()
    settled(page)
    assert abs(float(page.locator("#amount").input_value()) - 20) <= 1
    assert np.abs(pixel(page, x, y) - above).max() <= 2


def test_layers_are_switched_by_keys_and_lists(opened: Any) -> None:
    page, asked = opened()
    assert page.locator("#above").input_value() == "residual"
    page.locator("#canvas").focus()
    page.keyboard.press("x")
    assert page.locator("#below").input_value() == "residual"
    page.keyboard.press("n")
    assert page.locator("#above").input_value() == "image-infra red#1"
    settled(page)
    assert any("image-infra%20red%231/" in url for url in asked)
    assert page.locator("#note-below").inner_text() == "Mid-scale is 0.5."
    page.keyboard.press("c")
    assert page.get_by_label("curtain", exact=True).is_checked()
    page.keyboard.press("[")
    assert page.locator("#amount").input_value() == "45"
    page.keyboard.press("r")
    assert not page.locator("#regions").is_checked()


def test_a_region_of_the_table_is_zoomed_to(opened: Any, home: Path) -> None:
    page, _ = opened()
    regions = json.loads((home.parents[1] / "regions/eve.geojson").read_text())["features"]
    assert page.locator("button.region").count() == len(regions) == 2
    assert "24" in page.locator("tbody tr").first.inner_text()  # 40 × 60 pixels of 0.1 mm
    page.get_by_role("button", name="Zoom to region 1").click()
    settled(page)
    x, y, width, height = regions[0]["properties"]["box"]
    left, top = on_screen(page, x, y)
    right, bottom = on_screen(page, x + width, y + height)
    view = page.evaluate("[canvas.clientWidth, canvas.clientHeight]")
    assert 0 < left < right < view[0]
    assert 0 < top < bottom < view[1]
    assert bottom - top > view[1] / 5
    page.get_by_role("button", name="Whole scene").click()
    settled(page)
    x, y, width, height = regions[1]["properties"]["box"]
    page.mouse.click(*on_screen(page, x + width / 2, y + height / 2))
    assert "chosen" in (page.locator("tbody tr").nth(1).get_attribute("class") or "")


def test_the_scale_bar_has_its_length(opened: Any) -> None:
    page, _ = opened()
    for key in ("0", "1", "+"):
        page.locator("#canvas").press(key)
        settled(page)
        length, unit = page.locator("#scale span").inner_text().split()
        millimetres = float(length) * {"µm": 0.001, "mm": 1, "cm": 10, "m": 1000}[unit]
        width = page.evaluate("document.querySelector('#scale i').getBoundingClientRect().width")
        zoom = float(page.locator("#canvas").get_attribute("data-zoom"))
        assert width / zoom == pytest.approx(millimetres / 0.1, rel=0.02)
        assert 20 < width <= 120.5


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_the_contrast_of_wcag_aa(opened: Any, scheme: str) -> None:
    page, _ = opened(color_scheme=scheme)
    found = page.evaluate(
        """[...document.querySelectorAll("aside *")].filter((one) => one.checkVisibility() && [...one.childNodes].some(
        (node) => node.nodeType === 3 && node.textContent.trim())).map((one) => {
          let under = one;
          while (getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") under = under.parentElement;
          return [one.textContent.trim().slice(0, 30), getComputedStyle(one).color, getComputedStyle(under).backgroundColor];
        })"""
    )
    assert len(found) > 20
    for text, colour, ground in found:
        light, dark = sorted([luminance(colour), luminance(ground)], reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, colour, ground)


def test_everything_fits_a_telephone(opened: Any) -> None:
    page, _ = opened(width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#canvas").bounding_box()["height"] > 300


def test_controls_have_names(opened: Any) -> None:
    page, _ = opened()
    for role, names in {
        "combobox": ("Above", "Below"),
        "slider": ("Opacity of the layer above",),
        "button": ("Zoom in", "Zoom out", "Whole scene", "Swap", "Zoom to region 2"),
        "application": ("Eve <1510>",),
    }.items():
        for name in names:
            assert page.get_by_role(role, name=name, exact=True).count() == 1, name  # type: ignore[arg-type]


def test_no_text_becomes_markup() -> None:
    values = {name: image[:, :60, :70] for name, image in make_values(80, 90).items()}
    stack = make_stack(values, title="</script><b>x", notes=("<img src=x>",))
    text = render_deep_zoom_page(stack)
    assert "<b>" not in text
    assert "<img" not in text
    assert text.count("</script>") == 2
    assert not re.search(r"https?://", text)
