"""Servers of tests: one in this process, and one as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from blemish.inspection.detector import Detector
from blemish.serve.api.app import create_app
from blemish.serve.server import open_server
from blemish.serve.settings import read_settings
from tests.serve.serving import ADDRESS, Serve, Served, ServerProcess


@pytest.fixture(scope="module")
def serve(
    exported: tuple[Detector, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Any]]:
    """``with serve(home=…, limits={…}) as served``: a server of the small exported model in this process."""

    @contextmanager
    def started(**settings: Any) -> Iterator[Served]:
        home = settings.pop("home", None) or tmp_path_factory.mktemp("home")
        models = settings.pop("models", None) or {"waves": exported[1]}
        found = read_settings(None, {"models": models, "home": home, "workers": 2, **settings})
        with open_server(found) as server:
            app = create_app(server)
            with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as client:
                yield Served(server, client)

    return started


@pytest.fixture(scope="module")
def served(serve: Serve) -> Iterator[Served]:
    """A server that the tests of a module share."""
    with serve() as found:
        yield found


@pytest.fixture
def serve_process(exported: tuple[Detector, Path], tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """``serve_process("--home", home)``: starts ``blemish serve`` on the small exported model and waits until it listens."""
    running: list[subprocess.Popen[str]] = []

    def start(*words: object, model: Path | str = exported[1]) -> ServerProcess:
        command = [
            sys.executable,
            "-m",
            "blemish",
            "serve",
            f"waves={model}",
            "--port",
            "0",
            *map(str, words),
        ]
        if "--home" not in command:
            command += ["--home", str(tmp_path / "home")]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+:\d+", line)
        if found is None:
            _, err = process.communicate(timeout=30)
            raise AssertionError(f"the server did not start: {line}{err}")
        return ServerProcess(process, found[0])

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()
