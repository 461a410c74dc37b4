"""A server that is killed with decisions in its outbox: each is delivered at least once, with its number and key."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Draw
from tests.serve.serving import ServerProcess, png
from tests.services import free_port


class Mes(ThreadingHTTPServer):
    """A receiver of webhooks that can be told to fail."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.posts: list[tuple[int, str]] = []
        self.fails = False
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Mes

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.server.fails:
            assert self.headers["X-Blemish-Decision"] == str(body["id"])
            self.server.posts.append((body["id"], self.headers["Idempotency-Key"]))
        self.send_response(503 if self.server.fails else 204)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def mes() -> Iterator[Mes]:
    with Mes(free_port()) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield server
        server.shutdown()


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come about in time"
        time.sleep(0.05)


def test_kills_in_the_middle_lose_no_file_and_no_delivery(
    serve_process: Callable[..., ServerProcess], mes: Mes, tmp_path: Path, draw: Draw
) -> None:
    incoming, home, file = tmp_path / "incoming", tmp_path / "home", tmp_path / "line.yaml"
    incoming.mkdir()
    count = 60
    for number in range(count):
        (incoming / f"{number:03d}.png").write_bytes(png(draw(number)))
    address = f"http://127.0.0.1:{mes.server_address[1]}/"
    line = {
        "sources": [{"name": "in", "type": "folder", "path": "incoming", "settle": 0.05, "after": "move", "move_to": "done"}],
        "sinks": [{"name": "mes", "type": "webhook", "url": address}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(line))

    def decided(server: ServerProcess) -> int:
        with server.client() as client:
            return len(client.get("/api/decisions", params={"limit": 200}).json()["decisions"])

    mes.fails = True
    first = serve_process("--home", home, "--line", file)
    until(lambda: decided(first) >= 10)
    first.kill()
    assert mes.posts == [], "all of it is in the outbox"
    mes.fails = False
    second = serve_process("--home", home, "--line", file)
    until(lambda: len(mes.posts) >= 15)
    second.kill()
    third = serve_process("--home", home, "--line", file)
    until(lambda: decided(third) == count and len({number for number, _ in mes.posts}) == count)
    with third.client() as client:
        stored = {
            one["id"]: one["name"]
            for one in client.get("/api/decisions", params={"limit": 200}).json()["decisions"]
        }
        assert client.get("/api/line").json()["outbox"] == []
    assert third.stop()[0] == 0
    assert sorted(stored.values()) == [f"{number:03d}.png" for number in range(count)], (
        "none twice, none lost"
    )
    assert sorted(path.name for path in (tmp_path / "done").iterdir()) == sorted(stored.values())
    assert {number for number, _ in mes.posts} == set(stored)
    keys: dict[int, set[str]] = {}
    for number, key in mes.posts:
        keys.setdefault(number, set()).add(key)
    assert all(len(found) == 1 for found in keys.values()), "a repetition has the key of the first"
    assert len({key for found in keys.values() for key in found}) == count
    order = list(dict.fromkeys(number for number, _ in mes.posts))
    assert order == sorted(order), "first arrivals are in order"
