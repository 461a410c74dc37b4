"""A line in operation: ``blemish serve`` with a client beside it, until all images are decided and delivered.

The client sends each image of ``line/uploads`` with a number of its own until it has an answer, and writes down which
were answered; typed again after a kill, it goes on with the others. At the end the decisions of the history and the
rows of the sink are written to files without what differs from run to run: times, and the numbers of decisions, whose order
depends on which image came first.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import httpx

LINE = Path("line")
ACKNOWLEDGED = Path("acknowledged")
TIME_LIMIT = 90.0
"""Seconds after which the line counts as one that does not finish."""
SAME = ("name", "source", "model", "decision", "score", "threshold", "p_value", "image_sha256")
"""Fields of a decision that each run gives the same image."""


def serve_until_done() -> None:
    """Serve as the command line says, beside the client; the exit code is 1 where the client failed."""
    from blemish.__main__ import main

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sys.argv += ["--port", str(port)]
    failed = threading.Event()

    def work() -> None:
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", timeout=TIME_LIMIT, trust_env=False
            ) as client:
                _bring(client)
        except BaseException:
            failed.set()
            traceback.print_exc()
        os.kill(os.getpid(), signal.SIGTERM)

    client = threading.Thread(target=work, daemon=True)
    client.start()
    main()
    client.join()
    if failed.is_set():
        sys.exit(1)


def _bring(client: httpx.Client) -> None:
    until = time.monotonic() + TIME_LIMIT
    # Opened once, so that answers are written down without a file operation that a kill could be bound to.
    log = os.open(ACKNOWLEDGED, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    done = os.read(log, 10**6).decode().split()
    for path in sorted((LINE / "uploads").iterdir()):
        while path.name not in done:
            answer = _ask(client, "POST", "/api/inspect", until, content=path.read_bytes(), path=path)
            if answer is not None and answer.status_code == 200:
                os.write(log, f"{path.name}\n".encode())
                break
    os.close(log)
    while True:
        state = _ask(client, "GET", "/api/line", until)
        waiting = [path for path in (LINE / "incoming").iterdir() if path.is_file()]
        if not waiting and state is not None and state.is_success and not state.json()["outbox"]:
            break
        time.sleep(0.02)
    found = client.get("/api/decisions", params={"limit": 200}).raise_for_status().json()["decisions"]
    _write(LINE / "decisions.jsonl", found)
    with open(LINE / "decisions.csv", encoding="utf-8-sig", newline="") as file:
        _write(LINE / "delivered.jsonl", list(csv.DictReader(file)))
    rejects = [
        {"name": path.name.partition("-")[2], "image_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in (LINE / "rejects").glob("*.png")
    ]
    _write(LINE / "rejects.jsonl", rejects)


def _ask(
    client: httpx.Client, method: str, address: str, until: float, path: Path | None = None, **more: Any
) -> httpx.Response | None:
    """The answer of the server; None where it does not listen yet.

    Raises
    ------
    TimeoutError
        When the line does not finish in time.
    """
    if time.monotonic() > until:
        raise TimeoutError(f"{method} {address}: not answered in time")
    if path is not None:
        more |= {"params": {"name": path.name}, "headers": {"X-Request-ID": path.stem}}
    try:
        answer = client.request(method, address, **more)
    except httpx.TransportError:
        answer = None
    if answer is None or not answer.is_success:
        time.sleep(0.02)
    return answer


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    lines = [
        json.dumps({key: record[key] for key in SAME if key in record}, sort_keys=True) for record in records
    ]
    path.write_text("".join(f"{line}\n" for line in sorted(lines)), encoding="utf-8")
