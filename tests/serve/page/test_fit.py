"""A fit from the page with ``blemish fit`` itself: progress, a kill in the middle, comparison, promotion, roll-back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.inspection.detector import Detector
from blemish.serve.verdicts import is_to_test
from tests.serve.page.browsing import PageServer
from tests.serve.serving import png

if TYPE_CHECKING:
    from playwright.sync_api import Page

Draw = Callable[..., NDArray[np.uint8]]
Open = Callable[..., "Page"]
LONG = 120_000


@pytest.fixture
def server(exported: tuple[Detector, Path], tmp_path: Path) -> Iterator[PageServer]:
    running = PageServer(f"waves={exported[1]}", tmp_path / "home").start()
    yield running
    with running.client() as client:
        for fit in client.get("/api/fits").json()["fits"]:
            if fit["state"] == "running":  # it would outlive the server
                client.delete(f"/api/fits/{fit['id']}")
    running.kill()


def confirm_defects(server: PageServer, draw: Draw, count: int) -> None:
    """Inspect defective images that are not for tests, and say that they are defective."""
    content = [png(draw(seed, dot=True)) for seed in range(300, 330)]
    to_choose = [one for one in content if not is_to_test(hashlib.sha256(one).hexdigest())]
    for one in to_choose[:count]:
        record = server.inspect(one, "dot.png")
        with server.client() as client:
            verdict = {"is_right": record["is_anomalous"], "label": "dot"}
            client.post(f"/api/decisions/{record['id']}/verdict", json=verdict)


def refuse_defects_that_cannot_choose(page: Page) -> None:
    """Ask for defects with a recipe of one model, and take it back."""
    assert "5 confirmed defects can choose" in page.locator("#defects-note").inner_text()
    choose = page.get_by_label("Use confirmed defects to choose weights")
    assert not choose.is_checked()
    choose.check()
    page.locator("#start-fit").click()
    page.locator("#alert", has_text="ssim-ae has nothing for defects to choose from").wait_for()
    choose.uncheck()


def start_fit(page: Page, settings: list[str], draw: Draw, *, with_defects: bool = False) -> None:
    """Drop good images and start a fit with the settings of a small recipe."""
    page.locator("#main h1").wait_for(state="attached")
    files: list[Any] = [
        {"name": f"{n}.png", "mimeType": "image/png", "buffer": png(draw(n))} for n in range(24)
    ]
    page.locator(".drop input[type=file]").set_input_files(files)
    page.get_by_text("24 good images are collected.").wait_for()
    page.locator("summary", has_text="Recipe and settings").click()
    page.locator("select:has(option[value=ssim-ae])").select_option("ssim-ae")
    page.get_by_label("Settings, KEY=VALUE").fill("\n".join(settings))
    page.locator("select:has(option[value='5m'])").select_option("")
    page.get_by_label("False-reject rate").select_option("0.2")
    if with_defects:
        refuse_defects_that_cannot_choose(page)
    page.locator("#start-fit").click()


@pytest.mark.slow
def test_a_fit_becomes_a_version_that_is_compared_promoted_and_rolled_back(
    server: PageServer, draw: Draw, tiny: list[str], open_page: Open
) -> None:
    server.inspect(png(draw(100)), "past.png")
    confirm_defects(server, draw, 5)
    page = open_page(f"{server.address}/#/models")
    # Other weights than those that run, which were fitted on these images as well.
    start_fit(page, [*tiny, "training.seed=3"], draw, with_defects=True)
    fit = page.locator("article[data-fit='1']")
    fit.locator("progress").wait_for()
    page.locator("article[data-fit='1'][data-state=finished]").wait_for(timeout=LONG)
    fit.get_by_text("It is version 2 of waves.").wait_for()
    with server.client() as client:
        assert client.get("/api/models/waves").json()["version"]["number"] == 1  # it does not run by itself
    fit.get_by_role("button", name="Compare").click()
    page.get_by_text("Newly rejected").wait_for()
    page.get_by_role("button", name="Promote version 2").click()
    page.locator("tr[data-version='2']").get_by_text("runs").wait_for()
    record = server.inspect(png(draw(1, dot=True)), "after.png")
    with server.client() as client:
        model = client.get("/api/models/waves").json()
    assert model["version"]["number"] == 2
    assert record["model_sha256"] == model["model_sha256"]
    page.get_by_role("button", name="Roll back to version 1").click()
    page.locator("tr[data-version='1']").get_by_text("runs").wait_for()
    assert server.inspect(png(draw(2)), "back.png")["model_sha256"] != record["model_sha256"]


@pytest.mark.slow
def test_a_fit_goes_on_while_the_server_is_killed_and_stops_and_resumes(
    server: PageServer, draw: Draw, tiny: list[str], open_page: Open
) -> None:
    long = [one for one in tiny if not one.startswith(("training.steps", "training.validate_every"))]
    page = open_page(f"{server.address}/#/models")
    start_fit(page, [*long, "training.steps=100000", "training.validate_every=100"], draw)
    fit = page.locator("article[data-fit='1']")
    fit.get_by_text("left at most").first.wait_for(timeout=LONG)
    server.kill()
    page.locator("#connection[data-state=off]").wait_for()
    server.start()
    page.locator("#connection[data-state=on]").wait_for()
    page.locator("article[data-fit='1'][data-state=running]").wait_for()
    with server.client() as client:
        before = client.get("/api/fits/1").json()["progress"]["done"]
        while (client.get("/api/fits/1").json()["progress"]["done"] or 0) <= (before or 0):
            page.wait_for_timeout(200)  # it still trains
    fit.get_by_role("button", name="Stop").click()
    page.locator("article[data-fit='1'][data-state=stopped]").wait_for(timeout=LONG)
    fit.get_by_role("button", name="Go on").click()
    page.locator("article[data-fit='1'][data-state=running]").wait_for()
    fit.get_by_text("left at most").first.wait_for(timeout=LONG)
    fit.get_by_role("button", name="Stop").click()
    page.locator("article[data-fit='1'][data-state=stopped]").wait_for(timeout=LONG)
