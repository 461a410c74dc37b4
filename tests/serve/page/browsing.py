"""A server in a process of its own that is killed and started again at the same address, and how a browser is started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.services import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Page

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def until(page: Page, expression: str, seconds: float = 20.0) -> None:
    """Wait until an expression of JavaScript holds; the page's policy keeps Playwright's own wait from evaluating one."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(30)


class PageServer:
    """``blemish serve`` on one model.

    Parameters
    ----------
    model: ``NAME=FOLDER``.
    words: further options.
    """

    def __init__(self, model: str, home: Path, *words: str) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.home = home
        self._command = [
            sys.executable,
            "-m",
            "blemish",
            "serve",
            model,
            "--home",
            str(home),
            "--port",
            str(self.port),
        ]
        self._command += words
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> PageServer:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert self.address in line, line + self._process.communicate(timeout=20)[0]
        return self

    def kill(self) -> None:
        """End it at once, as a power failure would."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=60, trust_env=False)

    def inspect(self, content: bytes, name: str) -> dict[str, Any]:
        """Record of one image."""
        with self.client() as client:
            answer = client.post("/api/inspect", content=content, params={"name": name})
        record: dict[str, Any] = answer.json()["results"][0]["record"]
        return record
