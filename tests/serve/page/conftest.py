"""A browser, and a server process with a page to look at."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.serve.page.browsing import ARGUMENTS
from tests.services import needs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SECONDS = 20_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The distribution's Chromium; of a module, because tests of others need the event loop that it occupies."""
    program = needs("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(program), args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """``open_page(address, width=…, locale=…)``: a page of a browser without a past; errors of its scripts fail the test."""
    contexts: list[Any] = []
    errors: list[str] = []

    def opened(
        address: str, *, width: int = 1280, height: int = 800, locale: str = "en", **settings: Any
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, locale=locale, accept_downloads=True, **settings
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda message: (
                errors.append(message.text) if "Content Security Policy" in message.text else None
            ),
        )
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture(scope="module")
def chromium_path() -> Path:
    return Path(shutil.which("chromium") or "chromium")
