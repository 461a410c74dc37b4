"""The server as a process of its own: start, stop, kill, and clients that misbehave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.serve.serving import ServerProcess, png

Start = Callable[..., ServerProcess]
Draw = Callable[..., NDArray[np.uint8]]


def test_a_request_to_stop_ends_it_well_and_the_history_goes_on_after_a_restart(
    serve_process: Start, draw: Draw, tmp_path: Path
) -> None:
    first = serve_process("--home", tmp_path / "line")
    with first.client() as client:
        found = client.post("/api/inspect", content=png(draw(1)), params={"name": "a.png"}).json()
    code, err = first.stop()
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "line" / "server.log").read_text().splitlines()]
    assert {"started", "request", "stopped"} <= {line["message"] for line in lines}
    assert lines[-1] == {**lines[-1], "message": "stopped", "images_not_finished": 0}
    second = serve_process("--home", tmp_path / "line")
    with second.client() as client:
        assert client.get("/api/decisions").json()["decisions"] == [found["results"][0]["record"]]
