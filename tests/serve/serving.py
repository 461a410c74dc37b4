"""A server in the process of a test, one in a process of its own, and images for both."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from blemish.serve.server import Server

ADDRESS = "http://127.0.0.1"


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Content of a PNG file."""
    written = BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


@dataclass
class Served:
    """A server in this process with a client of it."""

    server: Server
    client: TestClient

    def post(self, content: bytes, **parameters: Any) -> Any:
        """Inspect one image and return its answer."""
        return self.client.post("/api/inspect", content=content, params=parameters)


Serve = Callable[..., Any]


@dataclass
class ServerProcess:
    """``blemish serve`` as a process of its own."""

    process: subprocess.Popen[str]
    address: str

    def client(self, **settings: Any) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=30, trust_env=False, **settings)

    def kill(self) -> None:
        """End it at once, as a power failure would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> tuple[int, str]:
        """Ask it to stop; exit code and what it wrote to standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err
