"""The page in a browser, on a server process with a small model: what a person does, and what the server has then."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.inspection.detector import Detector
from blemish.serve.model_versions import ModelVersions
from blemish.serve.verdicts import is_to_test
from tests.serve.page.browsing import PageServer, until
from tests.serve.serving import png

if TYPE_CHECKING:
    from playwright.sync_api import Page

Draw = Callable[..., NDArray[np.uint8]]
Open = Callable[..., "Page"]
VIEWS = ("live", "history", "scores", "what-if", "upload", "line", "models")


@pytest.fixture(scope="module")
def server(
    exported: tuple[Detector, Path], draw: Draw, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PageServer]:
    """A server with a short past: six good images, the fourth and the last one with a dot."""
    home = tmp_path_factory.mktemp("page") / "home"
    second = exported[0].with_threshold(0.01).save(tmp_path_factory.mktemp("second") / "model")
    ModelVersions(home / "models" / "waves").adopt(exported[1])
    ModelVersions(home / "models" / "waves").add(second, "fit 7")
    running = PageServer(f"waves={exported[1]}", home).start()
    for number in range(6):
        running.inspect(png(draw(100 + number, dot=number in (3, 5))), f"part-{number}.png")
    yield running
    running.kill()


def get(server: PageServer, path: str, **query: Any) -> Any:
    with server.client() as client:
        return client.get(path, params=query).json()


def go(page: Page, view: str) -> None:
    page.goto(re.sub(r"#.*", "", page.url) + f"#/{view}")
    until(page, f"document.getElementById('main').dataset.view === '{view.split('/')[0]}'")
    page.locator("h1").first.wait_for(state="attached")
    page.wait_for_load_state("networkidle")


# -- what it shows -------------------------------------------------------------------------------------


def test_the_last_decision_is_a_large_word_and_changes_as_images_come(
    server: PageServer, draw: Draw, open_page: Open
) -> None:
    page = open_page(server.address)
    page.locator("#connection[data-state=on]").wait_for()
    word = page.locator("#last-decision")
    word.wait_for()
    server.inspect(png(draw(300, dot=True)), "live-dot.png")
    page.get_by_text("live-dot.png").first.wait_for()
    assert word.inner_text().strip().lower() == "rejected"
    assert page.locator(".sign.rejected svg").count() == 1
    assert page.locator("#spoken").inner_text() == "Rejected: live-dot.png"
    server.inspect(png(draw(100)), "live-good.png")
    page.locator(".sign.accepted").wait_for()
    assert page.locator("#spoken").inner_text() == "Accepted: live-good.png"
    # A letter of 1 cm is read from three metres; a pixel of a screen is a quarter of a millimetre.
    assert (
        page.evaluate("parseFloat(getComputedStyle(document.getElementById('last-decision')).fontSize)") > 60
    )
    box = word.bounding_box()
    place = page.locator(".sign").bounding_box()
    assert box is not None
    assert place is not None
    assert (
        box["x"] + page.evaluate("document.getElementById('last-decision').scrollWidth")
        <= place["x"] + place["width"]
    )


def test_the_image_lies_below_its_map_and_a_slider_sets_how_much_it_shows(
    server: PageServer, draw: Draw, open_page: Open
) -> None:
    record = server.inspect(png(draw(302, dot=True)), "viewed.png")
    page = open_page(f"{server.address}/#/decision/{record['id']}")
    until(page, "document.querySelector('.viewer img.heat')?.naturalWidth === 48")
    until(page, "document.querySelector('.viewer .layers img')?.naturalHeight === 40")
    page.locator(".opacity").focus()
    page.keyboard.press("End")
    assert page.evaluate("document.querySelector('.heat').style.opacity") == "1"
    page.keyboard.press("m")
    assert page.evaluate("document.querySelector('.heat').style.opacity") == "0"
    regions = page.locator(".regions button")
    assert regions.count() == min(20, len(record["regions"])) > 0
    before = page.evaluate("document.querySelector('.layers').style.transform")
    regions.first.click()
    assert page.evaluate("document.querySelector('.layers').style.transform") != before
    assert page.locator("rect.region.picked").count() == 1


def test_history_is_filtered_and_searched_and_the_address_keeps_it(
    server: PageServer, open_page: Open
) -> None:
    page = open_page(f"{server.address}/#/history")
    page.locator(".thumb").first.wait_for()
    page.get_by_label("Name of the image").fill("part-")
    page.wait_for_url("**text=part-**")
    page.locator(".thumb").nth(5).wait_for()
    assert page.locator(".thumb").count() == 6
    page.locator("select[name=decision]").select_option("rejected")
    page.wait_for_url("**decision=rejected**")
    expected = get(server, "/api/decisions", text="part-", decision="rejected")["decisions"]
    assert 2 <= len(expected) < 6
    shown = f"document.querySelectorAll('.thumb').length === {len(expected)}"
    until(page, shown)
    names = page.locator(".thumb .name").all_inner_texts()
    assert [name.split()[-1] for name in names] == [one["name"] for one in expected]
    page.reload()
    until(page, shown)
    with page.expect_download() as saved:
        page.get_by_role("link", name="CSV").click()
    rows = Path(saved.value.path()).read_text("utf-8-sig").splitlines()
    assert len(rows) == 1 + len(expected)


def test_the_score_chart_has_every_decision_and_opens_one_by_keyboard(
    server: PageServer, open_page: Open
) -> None:
    page = open_page(f"{server.address}/#/scores?span=all")
    chart = page.locator("svg.chart[role=img]")
    chart.wait_for()
    known = get(server, "/api/scores", model="waves", points=1000)
    assert page.locator("svg.chart[role=img] .point").count() == len(known["id"])
    assert page.locator("svg.chart[role=img] .point.rejected").count() == sum(known["is_anomalous"])
    chart.focus()
    page.keyboard.press("Home")
    assert f"Decision {known['id'][0]}," in page.locator(".readout").inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/#/decision/{known['id'][1]}")


# -- what a person does --------------------------------------------------------------------------------


def test_images_are_uploaded_and_a_file_that_is_none_says_so(
    server: PageServer, draw: Draw, open_page: Open
) -> None:
    page = open_page(f"{server.address}/#/upload")
    files = [
        {"name": "up-good.png", "mimeType": "image/png", "buffer": png(draw(303))},
        {"name": "up <b>dot<b>.png", "mimeType": "image/png", "buffer": png(draw(304, dot=True))},
        {"name": "notes.png", "mimeType": "image/png", "buffer": b"no image at all"},
    ]
    page.locator(".drop input[type=file]").set_input_files(files)  # type: ignore[arg-type]
    page.locator(".result .badge.accepted").wait_for()
    page.locator(".result .badge.rejected").wait_for()
    error = page.locator(".result .message.bad")
    error.wait_for()
    assert "is not a PNG" in error.inner_text()
    page.locator("#main").get_by_text("3 of 3 images · 1 rejected · 1 could not be inspected").wait_for()
    assert page.locator(".result b").count() == 0  # the name is text, whatever it holds
    found = get(server, "/api/decisions", text="up ")["decisions"]
    assert [one["name"] for one in found] == ["up <b>dot<b>.png"]


def test_a_verdict_with_a_box_is_given_by_keyboard_alone(
    server: PageServer, draw: Draw, open_page: Open
) -> None:
    record = server.inspect(png(draw(305, dot=True)), "judged.png")
    page = open_page(f"{server.address}/#/decision/{record['id']}")
    until(page, "document.querySelector('.viewer .layers img')?.naturalWidth === 48")
    page.keyboard.press("b")
    page.keyboard.press("Space")  # a corner in the middle, (24, 20)
    for _ in range(10):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    page.get_by_text("Marked places: 1").wait_for()
    page.get_by_label("Kind of defect").fill("dot")
    page.get_by_label("Kind of defect").press("Tab")
    page.keyboard.press("r")
    page.get_by_text("Stored: the decision on judged.png is right.").first.wait_for()
    (verdict,) = get(server, f"/api/decisions/{record['id']}/verdicts")["verdicts"]
    assert verdict["is_right"] is True
    assert verdict["label"] == "dot"
    (shape,) = verdict["shapes"]
    assert shape["kind"] == "box"
    assert np.allclose(shape["points"], [[24, 20], [28.8, 15.2]])
    page.keyboard.press("w")
    page.get_by_text("Stored: the decision on judged.png is wrong.").first.wait_for()
    assert [
        one["is_right"] for one in get(server, f"/api/decisions/{record['id']}/verdicts")["verdicts"]
    ] == [True, False]


def test_a_polygon_is_drawn_in_pixels_of_the_image_also_when_it_is_enlarged(
    server: PageServer, draw: Draw, open_page: Open
) -> None:
    record = server.inspect(png(draw(306)), "polygon.png")
    page = open_page(f"{server.address}/#/decision/{record['id']}")
    until(page, "document.querySelector('.viewer .layers img')?.naturalWidth === 48")
    page.get_by_role("button", name="Enlarge").click()
    page.get_by_role("button", name="Polygon").click()
    image = page.locator(".viewer .layers img").first.bounding_box()
    assert image is not None
    corners = [(20, 15), (30, 15), (26, 24)]
    for x, y in corners:
        page.mouse.click(image["x"] + x / 48 * image["width"], image["y"] + y / 40 * image["height"])
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Wrong").click()
    page.get_by_text("Stored: the decision on polygon.png is wrong.").first.wait_for()
    (shape,) = get(server, f"/api/decisions/{record['id']}/verdicts")["verdicts"][0]["shapes"]
    assert np.allclose(shape["points"], corners, atol=0.3)


def test_what_if_shows_which_decisions_change_and_applies_a_threshold(
    server: PageServer, open_page: Open
) -> None:
    page = open_page(f"{server.address}/#/what-if?span=all")
    slider = page.locator("#threshold")
    slider.wait_for()
    before = get(server, "/api/models/waves")["threshold"]
    page.get_by_label("Threshold of the image score").nth(1).fill("0.4")
    expected = get(server, "/api/what-if", model="waves", threshold=0.4)
    page.get_by_text(re.compile(f"{expected['newly_accepted']} decisions? change")).wait_for()
    lower = min(get(server, "/api/scores", model="waves")["score"]) - 0.001
    page.get_by_label("Threshold of the image score").nth(1).fill(str(lower))
    expected = get(server, "/api/what-if", model="waves", threshold=lower)
    assert expected["newly_rejected"] > 0
    page.get_by_text(re.compile(f"^{expected['newly_rejected']} decisions? change")).wait_for()
    until(page, f"document.querySelectorAll('.thumb').length === {len(expected['changed'])}")
    assert get(server, "/api/models/waves")["threshold"] == before  # nothing yet
    slider.focus()
    page.keyboard.press("End")
    page.get_by_role("button", name=re.compile("^Apply")).click()
    page.get_by_text(re.compile("New images are decided by")).first.wait_for()
    applied = get(server, "/api/models/waves")
    assert applied["threshold"] > before
    assert applied["false_reject_rate"] is None
    page.get_by_role("button", name="Threshold of the model").click()
    page.get_by_text("The threshold of the model counts again.").first.wait_for()
    assert get(server, "/api/models/waves")["threshold"] == before


def test_a_version_is_compared_promoted_and_rolled_back(server: PageServer, open_page: Open) -> None:
    page = open_page(f"{server.address}/#/models")
    row = page.locator("tr[data-version='2']")
    row.get_by_role("button", name="Compare").click()
    page.get_by_text("Version 2 compared with version 1").wait_for()
    page.get_by_text("Newly rejected").wait_for()
    found = get(server, "/api/models/waves/comparison")["result"]
    assert found["compared"] > 0
    # The same model with a threshold below every score rejects what it rejected before, and the rest.
    assert found["newly_accepted"] == 0
    assert found["newly_rejected"] == len(found["changed"]) > 0
    row.get_by_role("button", name="Promote").click()
    row.get_by_text("runs").wait_for()
    assert get(server, "/api/models/waves")["version"]["number"] == 2
    page.get_by_role("button", name="Roll back to version 1").click()
    page.locator("tr[data-version='1']").get_by_text("runs").wait_for()
    assert get(server, "/api/models/waves")["version"]["number"] == 1


def test_good_images_are_dropped_collected_and_removed(
    server: PageServer, draw: Draw, open_page: Open
) -> None:
    to_fit = (png(draw(seed)) for seed in range(310, 350))
    content = next(one for one in to_fit if not is_to_test(hashlib.sha256(one).hexdigest()))
    record = server.inspect(content, "fine.png")
    with server.client() as client:
        client.post(
            f"/api/decisions/{record['id']}/verdict", json={"is_right": True, "label": "good"}
        ).raise_for_status()
    page = open_page(f"{server.address}/#/models")
    files = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": png(draw(n))} for n in (1, 2, 2)]
    page.locator(".drop input[type=file]").set_input_files(files)  # type: ignore[arg-type]
    page.get_by_text("2 good images are collected.").wait_for()
    page.get_by_role("button", name="Collect").click()
    page.get_by_text("1 image added; there already: 0; kept unseen for comparisons: 0.").wait_for()
    assert get(server, "/api/good-images") == {"model": "waves", "count": 3}
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Remove all").click()
    page.get_by_text("0 good images are collected.").wait_for()


# -- for everybody -------------------------------------------------------------------------------------


def test_the_language_is_that_of_the_browser_and_can_be_changed(server: PageServer, open_page: Open) -> None:
    page = open_page(server.address, locale="de-AT")
    page.get_by_role("link", name="Verlauf").wait_for()
    assert page.evaluate("document.documentElement.lang") == "de"
    # Problems too, of an answer by its key, and of a state by the English text of its parts.
    go(page, "upload")
    none: Any = {"name": "notes.png", "mimeType": "image/png", "buffer": b"no image at all"}
    page.locator(".drop input[type=file]").set_input_files([none])
    error = page.locator(".result .message.bad")
    error.wait_for()
    assert error.inner_text().startswith("notes.png: ist kein Bild im Format PNG, ")
    assert error.inner_text().endswith("; es umwandeln")
    state = "http://x: gave no image (status 404); check the camera"
    said = page.evaluate("async (text) => (await import('/page/messages.js')).translated(text)", state)
    assert said == "http://x: gab kein Bild (Status 404); die Kamera prüfen"
    page.get_by_label("Sprache").select_option("en")
    page.get_by_role("link", name="History").wait_for()
    page.reload()
    page.get_by_role("link", name="History").wait_for()
    assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("locale", ["en", "de"])
def test_nothing_is_wider_than_a_phone(server: PageServer, open_page: Open, locale: str) -> None:
    page = open_page(server.address, width=360, height=740, locale=locale)
    wide = {}
    for view in (*VIEWS, "decision/4"):
        go(page, view)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > 360:
            wide[view] = width
    assert wide == {}


def test_keys_lead_everywhere_with_a_visible_focus(server: PageServer, open_page: Open) -> None:
    page = open_page(server.address)
    page.locator("#last-decision").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    seen = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        shown = page.evaluate(
            "[document.activeElement.outerHTML.slice(0, 80), getComputedStyle(document.activeElement).outlineStyle,"
            " parseFloat(getComputedStyle(document.activeElement).outlineWidth)]"
        )
        assert shown[1] == "solid", shown
        assert shown[2] >= 2, shown
        seen.add(shown[0])
    assert len(seen) == 14
    for number, view in enumerate(VIEWS, start=1):
        page.locator("#main").focus()
        page.keyboard.press(str(number))
        page.wait_for_url(f"**/#/{view}")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def test_every_control_has_a_name(server: PageServer, open_page: Open) -> None:
    page = open_page(server.address)
    nameless = {}
    for view in (*VIEWS, "decision/4"):
        go(page, view)
        found = page.evaluate(
            """[...document.querySelectorAll('button, a, input, select, textarea, [tabindex="0"], progress, svg[role=img]')]
               .filter((e) => !e.closest('[hidden]') && e.getAttribute('aria-hidden') !== 'true')
               .filter((e) => !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim()))
               .map((e) => e.outerHTML.slice(0, 120))"""
        )
        if found:
            nameless[view] = found
        until(page, "document.querySelectorAll('h1').length === 1")
    assert nameless == {}


def test_colours_follow_the_system_and_the_switch(server: PageServer, open_page: Open) -> None:
    page = open_page(server.address, color_scheme="dark")
    theme = "document.documentElement.dataset.theme"
    until(page, f"{theme} === 'dark'")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()  # light
    assert page.evaluate(theme) == "light"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    page.reload()
    until(page, f"{theme} === 'light'")
    page.locator("#theme").click()
    assert page.evaluate(theme) == "dark"


# -- when the server goes ------------------------------------------------------------------------------


def test_the_page_goes_on_by_itself_after_a_kill_and_nothing_is_lost(
    server: PageServer, draw: Draw, open_page: Open
) -> None:
    page = open_page(f"{server.address}/#/history")
    page.locator("#connection[data-state=on]").wait_for()
    newest = server.inspect(png(draw(311, dot=True)), "before-the-kill.png")
    server.kill()
    page.locator("#connection[data-state=off]").wait_for()
    server.start()
    page.locator("#connection[data-state=on]").wait_for()
    page.locator(f".thumb[data-id='{newest['id']}']").wait_for()
    again = server.inspect(png(draw(312)), "after-the-kill.png")
    assert again["id"] == newest["id"] + 1


def test_a_server_with_a_key_asks_for_it_once(
    exported: tuple[Detector, Path], draw: Draw, tmp_path: Path, open_page: Open
) -> None:
    key = "correct-horse-battery-staple"
    (tmp_path / "key").write_text(key)
    server = PageServer(
        f"waves={exported[1]}", tmp_path / "home", "--key-file", str(tmp_path / "key")
    ).start()
    try:
        page = open_page(f"{server.address}/#/upload")
        page.get_by_label("Key", exact=True).fill("wrong-horse-battery-staple")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("This key is wrong.").wait_for()
        assert page.locator(".drop").count() == 0
        page.get_by_label("Key", exact=True).fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.locator(".drop input[type=file]").set_input_files(
            {"name": "a.png", "mimeType": "image/png", "buffer": png(draw(1))}  # type: ignore[arg-type]
        )
        page.locator(".result .badge").wait_for()
        page.reload()
        page.locator(".drop").wait_for()
    finally:
        server.kill()
