"""The server as a process of its own: start, stop, kill, many requests at once, and clients that misbehave."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.serve.history import History, HistoryFilter
from tests.faults.full_disk import ROOM, SmallDisk, why_not
from tests.serve.serving import ServerProcess, png

Start = Callable[..., ServerProcess]
Draw = Callable[..., NDArray[np.uint8]]


def test_a_request_to_stop_ends_it_well_and_the_history_goes_on_after_a_restart(
    serve_process: Start, draw: Draw, tmp_path: Path
) -> None:
    first = serve_process("--home", tmp_path / "line")
    with first.client() as client:
        found = client.post("/api/inspect", content=png(draw(1)), params={"name": "a.png"}).json()
        number = found["results"][0]["id"]
        # A page that comes back is given what it missed, and then what happens; it would hold the server for ever.
        with client.stream("GET", "/api/live", headers={"Last-Event-ID": str(number - 1)}) as live:
            lines = live.iter_lines()
            assert next_event(lines) == ("decision", found["results"][0]["record"])
            with first.client() as other:
                newer = other.post("/api/inspect", content=png(draw(2))).json()["results"][0]["record"]
            assert next_event(lines) == ("decision", newer)
            code, err = first.stop()
    assert (code, err) == (0, "")
    log = [json.loads(line) for line in (tmp_path / "line" / "server.log").read_text().splitlines()]
    assert {"started", "request", "stopped"} <= {line["message"] for line in log}
    assert log[-1] == {**log[-1], "message": "stopped", "images_not_finished": 0}
    second = serve_process("--home", tmp_path / "line")
    with second.client() as client:
        assert client.get("/api/decisions").json()["decisions"] == [newer, found["results"][0]["record"]]


def next_event(lines: Iterator[str]) -> tuple[str, Any]:
    """The next of server-sent events: its kind and its data."""
    kind = ""
    for line in lines:
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        if line.startswith("data: "):
            return kind, json.loads(line.removeprefix("data: "))
    raise AssertionError("the events have ended")


def kill_among_requests(
    serve_process: Start, draw: Draw, home: Path, requests: int, after: int
) -> tuple[dict[str, Any], set[str]]:
    """Send ``requests`` by 16 clients, kill the server once ``after`` are answered; answers by number, and numbers sent."""
    server = serve_process("--home", home)
    contents = [png(draw(seed, dot=seed % 5 == 0)) for seed in range(20)]
    answered: dict[str, Any] = {}
    sent: set[str] = set()
    lock, enough = threading.Lock(), threading.Event()

    def ask(client: httpx.Client, number: int) -> None:
        request = f"request-{number}"
        if enough.is_set():
            return
        sent.add(request)
        try:
            answer = client.post(
                "/api/inspect", content=contents[number % 20], headers={"X-Request-ID": request}
            )
        except httpx.HTTPError:
            return
        with lock:
            answered[request] = answer.json()["results"][0]["record"]
            if len(answered) >= after:
                enough.set()

    with server.client(limits=httpx.Limits(max_connections=16)) as client, ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask, client, number) for number in range(requests)]
        assert enough.wait(120)
        server.kill()
        for one in asked:
            one.result()
    return answered, sent


def check_history(home: Path, answered: dict[str, Any], sent: set[str]) -> None:
    """Every acknowledged decision is in the history as it was answered, once, and besides those only requests at work."""
    with History.open(home) as history:
        stored = history.page(HistoryFilter(), limit=10**6)
    found = {one.request: one.model_dump(mode="json") for one in stored}
    assert len(found) == len(stored)
    assert [one.id for one in stored] == list(range(len(stored), 0, -1))
    assert {request: found.get(request) for request in answered} == answered
    unanswered = set(found) - set(answered)
    assert unanswered <= sent
    assert len(unanswered) <= 16  # one for each client that waited


def test_a_kill_among_requests_loses_nothing_that_was_acknowledged(
    serve_process: Start, draw: Draw, tmp_path: Path
) -> None:
    answered, sent = kill_among_requests(serve_process, draw, tmp_path / "line", 200, 60)
    check_history(tmp_path / "line", answered, sent)
    again = serve_process("--home", tmp_path / "line")
    with again.client() as client:
        known = next(iter(answered.values()))
        assert client.get(f"/api/decisions/{known['id']}").json() == known
        repeated = client.post(
            "/api/inspect", content=png(draw(1)), headers={"X-Request-ID": "request-1"}
        ).json()["results"][0]["record"]
        assert repeated == answered.get("request-1", repeated)


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 150, 500, 850])
def test_a_kill_in_the_middle_of_a_thousand_requests(
    serve_process: Start, draw: Draw, tmp_path: Path, after: int
) -> None:
    answered, sent = kill_among_requests(serve_process, draw, tmp_path / "line", 1000, after)
    check_history(tmp_path / "line", answered, sent)


@pytest.mark.slow
def test_a_thousand_requests_at_once_are_all_answered_and_the_decided_ones_are_stored(
    serve_process: Start, draw: Draw, tmp_path: Path
) -> None:
    settings = tmp_path / "serve.yaml"
    settings.write_text("limits: {queue: 200}\n")
    server = serve_process("--home", tmp_path / "line", "--settings", settings)
    contents = [png(draw(seed)) for seed in range(10)]
    together = threading.Barrier(1000)

    host = server.address.removeprefix("http://")

    def ask(number: int) -> tuple[int, int | None, bool]:
        connection = http.client.HTTPConnection(host, timeout=300)
        connection.connect()
        together.wait()
        connection.request("POST", "/api/inspect", contents[number % 10])
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        id_ = content["results"][0]["id"] if answer.status == 200 else None
        return answer.status, id_, answer.getheader("retry-after") is not None

    with ThreadPoolExecutor(1000) as pool:
        answers = list(pool.map(ask, range(1000)))
    decided = {number for status, number, _ in answers if status == 200}
    assert {status for status, _, _ in answers} <= {200, 503}
    assert all(has_time for status, _, has_time in answers if status == 503)
    assert len(decided) >= 200
    with server.client() as client:
        assert client.get("/readyz").status_code == 200
    assert server.stop()[0] == 0
    with History.open(tmp_path / "line") as history:
        assert {one.id for one in history.page(HistoryFilter(), limit=10**6)} == decided


@pytest.mark.slow
def test_a_disk_that_is_really_full_loses_nothing_and_work_goes_on_with_room(
    serve_process: Start, draw: Draw, tmp_path: Path
) -> None:
    if problem := why_not(tmp_path / "probe"):
        pytest.skip(f"no disk can be mounted: {problem}")
    with SmallDisk(tmp_path / "disk") as disk:
        home = tmp_path / "disk" / "line"
        server = serve_process("--home", home)
        acknowledged: dict[int, Any] = {}
        with server.client() as client:

            def post(seed: int) -> int:
                answer = client.post("/api/inspect", content=png(draw(seed)))
                if answer.status_code == 200:
                    record = answer.json()["results"][0]["record"]
                    acknowledged[record["id"]] = record
                return answer.status_code

            assert post(0) == 200
            disk.resize(disk.used() + 200_000)
            statuses = [post(seed) for seed in range(1, 200)]
            assert 507 in statuses
            assert set(statuses) <= {200, 507}
            assert client.get("/readyz").status_code == 503
            assert client.get("/healthz").status_code == 200
            full = set(acknowledged)
            assert full == {one["id"] for one in all_decisions(client)}
            disk.resize(ROOM)
            assert post(1000) == 200
            assert client.get("/readyz").status_code == 200
        assert server.stop()[0] == 0
        with History.open(home) as history:
            found = {
                one.id: one.model_dump(mode="json") for one in history.page(HistoryFilter(), limit=10**6)
            }
        assert found == acknowledged
        # Images lost their room first: their decisions say that they are not kept.
        assert any(one["kept"] for one in found.values())


def all_decisions(client: httpx.Client) -> list[Any]:
    """All decisions of the history, page by page."""
    found: list[Any] = []
    while True:
        before = {"before": found[-1]["id"]} if found else {}
        page = client.get("/api/decisions", params={"limit": 100, **before}).json()["decisions"]
        if not page:
            return found
        found += page


@pytest.fixture
def strict(serve_process: Start, tmp_path: Path) -> ServerProcess:
    """A server with little patience."""
    settings = tmp_path / "serve.yaml"
    settings.write_text(
        "limits: {header_seconds: 0.5, body_seconds: 0.5, bytes_a_second: 1000000, body_bytes: 200000, "
        "connections: 20}\nreload_seconds: 0.1\n"
    )
    return serve_process("--settings", settings)


def connect(server: ServerProcess) -> socket.socket:
    host, _, port = server.address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def read_all(connection: socket.socket) -> bytes:
    found = b""
    try:
        while part := connection.recv(2**16):
            found += part
    except ConnectionResetError:
        pass
    return found


def test_clients_that_misbehave_are_cut_off_and_others_are_served(strict: ServerProcess, draw: Draw) -> None:
    def by_byte(text: bytes) -> tuple[bytes, float]:
        begun = time.monotonic()
        with connect(strict) as connection:
            try:
                for byte in text:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.2)
                    if time.monotonic() - begun > 5:
                        break
            except (BrokenPipeError, ConnectionResetError):
                pass
            return read_all(connection), time.monotonic() - begun

    # A byte a second, in the header and in the body, and nothing at all.
    answer, seconds = by_byte(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"x" * 100)
    assert seconds < 5
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
    with connect(strict) as silent:
        assert read_all(silent).startswith(b"HTTP/1.1 408")
    head = b"POST /api/inspect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n"
    with connect(strict) as slow:
        slow.sendall(head + b"\x89PNG")
        answer = read_all(slow)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"more slowly" in answer
    # Nonsense, and a client that hangs up in the middle.
    with connect(strict) as nonsense:
        nonsense.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        answer = read_all(nonsense)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b'{"error"' in answer
    for part in (head[:30], head, head + b"\x89PNG"):
        with connect(strict) as gone:
            gone.sendall(part)
    with connect(strict) as gone:  # after the whole request, before its answer
        content = png(draw(1))
        gone.sendall(head.replace(b"1000", str(len(content)).encode()) + content)
    # An answer to a body that is too large arrives, although the client is still sending.
    with strict.client() as client:
        answer = client.post("/api/inspect", content=bytes(10**7))
        assert answer.status_code == 413
    # More connections than there may be.
    held = [connect(strict) for _ in range(30)]
    time.sleep(0.2)
    assert any(b"503" in read_all(one)[:20] for one in held[20:])
    for one in held:
        one.close()
    time.sleep(0.3)
    with strict.client() as client:
        assert client.get("/readyz").json()["is_ready"]
        assert client.post("/api/inspect", content=png(draw(2))).status_code == 200
    code, err = strict.stop()
    assert (code, err) == (0, "")


def test_a_client_that_does_not_read_its_answers_is_cut_off(strict: ServerProcess) -> None:
    with connect(strict) as connection, strict.client() as client:
        path = "/docs/assets/swagger-ui-bundle.js"
        size = len(client.get(path).content)
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        connection.sendall(request * 50)
        time.sleep(2)
        # What the buffers of the system hold still comes.
        assert len(read_all(connection)) < 25 * size


def test_a_model_folder_that_is_swapped_is_taken_over_while_requests_come(
    serve_process: Start, exported: Any, draw: Draw, tmp_path: Path
) -> None:
    detector, folder = exported
    given = Path(shutil.copytree(folder, tmp_path / "given"))
    other = detector.with_false_reject_rate(0.5).save(tmp_path / "other")
    settings = tmp_path / "serve.yaml"
    settings.write_text("reload_seconds: 0.1\n")
    server = serve_process("--settings", settings, model=given)
    thresholds: set[float] = set()
    ended = threading.Event()

    def ask() -> None:
        content = png(draw(1))
        with server.client() as client:
            while not ended.is_set():
                answer = client.post("/api/inspect", content=content)
                assert answer.status_code == 200
                thresholds.add(answer.json()["results"][0]["record"]["threshold"])

    with ThreadPoolExecutor(2) as pool, server.client() as client:
        asking = [pool.submit(ask) for _ in range(2)]
        (given / "model.json").write_text("{}")
        deadline = time.monotonic() + 30
        while client.get("/api/models/waves").json()["problem"] is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        shutil.rmtree(given)
        shutil.copytree(other, given)
        while (state := client.get("/api/models/waves").json())["version"]["number"] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.2)
        ended.set()
        for one in asking:
            one.result()
    assert state["problem"] is None
    expected = {detector.threshold, detector.with_false_reject_rate(0.5).threshold}
    assert thresholds == expected


def refused(*words: object) -> str:
    """The line with which ``blemish serve`` refuses to start."""
    ran = subprocess.run(
        [sys.executable, "-m", "blemish", "serve", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ},
    )
    assert ran.returncode in (1, 2), ran.stderr
    (line,) = ran.stderr.strip().splitlines()
    assert line.startswith("blemish: ")
    return line.removeprefix("blemish: ")


def test_a_port_and_a_history_have_one_server(serve_process: Start, exported: Any, tmp_path: Path) -> None:
    first = serve_process("--home", tmp_path / "line")
    port = first.address.rpartition(":")[2]
    line = refused(exported[1], "--port", port, "--home", tmp_path / "other")
    assert f"port {port} is in use" in line
    line = refused(exported[1], "--port", "0", "--home", tmp_path / "line")
    assert "is in use by" in line
    with first.client() as client:
        assert client.get("/readyz").status_code == 200
