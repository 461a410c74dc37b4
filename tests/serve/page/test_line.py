"""The line on the page: images that appear in a folder are decided and shown, and the line is paused and changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.inspection.detector import Detector
from tests.serve.page.browsing import PageServer, until
from tests.serve.serving import png

if TYPE_CHECKING:
    from playwright.sync_api import Page

Draw = Callable[..., NDArray[np.uint8]]
Save = Callable[[Path, NDArray[np.uint8]], Path]
Open = Callable[..., "Page"]


@pytest.fixture
def server(exported: tuple[Detector, Path], tmp_path: Path) -> Iterator[PageServer]:
    """A server that watches the folder ``in`` and puts rejects into ``rejects``."""
    (tmp_path / "in").mkdir()
    description = {
        "sources": [
            {"name": "station", "type": "folder", "path": str(tmp_path / "in"), "settle": 0.1, "poll": 0.2}
        ],
        "sinks": [{"name": "rejects", "type": "folder", "path": str(tmp_path / "rejects")}],
    }
    (tmp_path / "line.yaml").write_text(json.dumps(description))
    running = PageServer(
        f"waves={exported[1]}", tmp_path / "home", "--line", str(tmp_path / "line.yaml")
    ).start()
    yield running
    running.kill()


def test_a_folder_is_watched_paused_and_resumed(
    server: PageServer, draw: Draw, save: Save, tmp_path: Path, open_page: Open
) -> None:
    page = open_page(server.address)
    page.locator("#connection[data-state=on]").wait_for()
    save(tmp_path / "in" / "dot.png", draw(1, dot=True))
    page.locator(".sign.rejected").wait_for()
    assert "dot.png" in page.locator(".sign").inner_text()
    save(tmp_path / "in" / "good.png", draw(100))
    page.locator(".sign.accepted").wait_for()

    page.keyboard.press("6")
    page.locator("[data-name=station]").get_by_text("2 decisions · 1 rejected").wait_for()
    page.locator("[data-name=rejects]").get_by_text("All delivered").wait_for()
    assert [path.name for path in (tmp_path / "rejects").rglob("*.png") if "overlay" not in path.name] != []
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("Paused", exact=True).first.wait_for()
    save(tmp_path / "in" / "later.png", draw(2, dot=True))
    page.wait_for_timeout(800)
    with server.client() as client:
        assert len(client.get("/api/decisions").json()["decisions"]) == 2
    page.get_by_role("button", name="Resume").click()
    page.locator("[data-name=station]").get_by_text("3 decisions").wait_for()


def test_the_description_is_changed_on_the_page_and_checked(
    server: PageServer, draw: Draw, save: Save, tmp_path: Path, open_page: Open
) -> None:
    (tmp_path / "second").mkdir()
    page = open_page(f"{server.address}/#/line")
    page.get_by_text("Change sources and sinks").click()
    page.get_by_label("Folder on the server").first.fill(str(tmp_path / "second"))
    page.get_by_role("button", name="Add a folder as source").click()
    page.get_by_role("button", name="Check and apply").click()
    page.locator("[data-name=folder]").wait_for()
    save(tmp_path / "second" / "dot.png", draw(3, dot=True))
    page.locator("[data-name=folder]").get_by_text("1 decision").wait_for()
    kept = (tmp_path / "line.yaml").read_text() + "".join(
        p.read_text() for p in (tmp_path / "home").glob("line.yaml")
    )
    assert str(tmp_path / "second") in kept

    page.get_by_text("Change sources and sinks").click()
    editor = page.get_by_label("Description of the line")
    editor.fill('{"sources": [{"name": "x", "type": "foldr", "path": "/"}]}')
    page.get_by_role("button", name="Check and apply").click()
    wrong = page.locator("[role=alert]:not([hidden])")
    until(
        page,
        "[...document.querySelectorAll('[role=alert]')].some((e) => !e.hidden && e.textContent.includes('sources'))",
    )
    assert wrong.count() >= 1
    with server.client() as client:
        assert {one["name"] for one in client.get("/api/line").json()["sources"]} == {"station", "folder"}


def test_a_place_is_ignored_from_the_next_image_on(server: PageServer, draw: Draw, open_page: Open) -> None:
    """The dot lies in rows 12 to 19 and columns 20 to 29."""
    assert server.inspect(png(draw(1, dot=True)), "before.png")["is_anomalous"]
    page = open_page(f"{server.address}/#/line")
    until(page, "document.querySelector('.viewer .layers img')?.naturalWidth === 48")
    page.get_by_role("button", name="Ignore: box").click()
    image = page.locator(".viewer .layers img").first.bounding_box()
    assert image is not None
    for x, y in ((12, 5), (38, 28)):
        page.mouse.click(image["x"] + x / 48 * image["width"], image["y"] + y / 40 * image["height"])
    page.get_by_text("Judged places: 0, ignored places: 1").wait_for()
    page.get_by_role("button", name="Save and calibrate").click()
    page.get_by_text("It counts from the next image on").first.wait_for()
    with server.client() as client:
        mask = client.get("/api/models/waves/mask").json()
    assert np.allclose(mask["ignore"], [[[12, 5], [38, 5], [38, 28], [12, 28]]], atol=0.5)
    record = server.inspect(png(draw(1, dot=True)), "after.png")
    assert not record["is_anomalous"]
    page.get_by_role("button", name="Judge the whole image").click()
    page.get_by_text("Judged places: 0, ignored places: 0").wait_for()
    until(page, "fetch('api/models/waves/mask').then((a) => a.json()).then((m) => m.state === 'none')")
    assert server.inspect(png(draw(1, dot=True)), "whole.png")["is_anomalous"]
