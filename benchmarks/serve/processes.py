"""Servers and clients of the benchmarks: ``blemish serve`` in a process of its own, and clients that cost little."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple


class Running(NamedTuple):
    """A server and where it listens."""

    process: subprocess.Popen[str]
    host: str
    port: int

    def memory(self) -> int:
        """Bytes that the process has in memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found is not None
        return 1024 * int(found[1])

    def processor_seconds(self) -> float:
        """Seconds of processor time, of all threads together."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(model: Path, home: Path, *words: str) -> Iterator[Running]:
    """``blemish serve`` on ``model`` for as long as the block lasts."""
    command = [
        sys.executable,
        "-m",
        "blemish",
        "serve",
        str(model),
        "--home",
        str(home),
        "--port",
        "0",
        *words,
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://(\S+):(\d+)", process.stdout.readline())
        if found is None:
            raise SystemExit("the server did not start")
        yield Running(process, found[1], int(found[2]))
    finally:
        process.terminate()
        process.wait()


class Answered(NamedTuple):
    """Answers of one turn."""

    seconds: float
    """Of the whole turn."""
    latencies: list[float]
    statuses: dict[int, int]
    scores: dict[int, float]
    """By the place of the image."""

    @property
    def rate(self) -> float:
        """Images decided a second."""
        return self.statuses.get(200, 0) / self.seconds


def post_all(running: Running, images: Sequence[bytes], requests: int, clients: int) -> Answered:
    """Send ``requests`` by so many clients, each over one connection, as quickly as they are answered."""
    statuses: dict[int, int] = {}
    scores: dict[int, float] = {}
    latencies: list[float] = []
    lock, numbers = threading.Lock(), iter(range(requests))

    def work() -> None:
        connection = http.client.HTTPConnection(running.host, running.port, timeout=120)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                connection.close()
                return
            place = number % len(images)
            begun = time.perf_counter()
            connection.request("POST", "/api/inspect", images[place], {"Content-Type": "image/png"})
            answer = connection.getresponse()
            content = answer.read()
            seconds = time.perf_counter() - begun
            with lock:
                latencies.append(seconds)
                statuses[answer.status] = statuses.get(answer.status, 0) + 1
                if answer.status == 200 and place not in scores:
                    scores[place] = json.loads(content)["results"][0]["record"]["score"]

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for one in [pool.submit(work) for _ in range(clients)]:
            one.result()
    return Answered(time.perf_counter() - begun, latencies, statuses, scores)


def quantile(values: Sequence[float], share: float) -> float:
    """Value below which ``share`` of the values lie, one of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def get_json(running: Running, path: str) -> Any:
    """Answer to one GET."""
    connection = http.client.HTTPConnection(running.host, running.port, timeout=120)
    connection.request("GET", path)
    found = json.loads(connection.getresponse().read())
    connection.close()
    return found
