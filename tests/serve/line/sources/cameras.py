"""Cameras of tests: a Motion JPEG server that goes away and comes back, and files of video."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from blemish.serve.contracts import Frame


def picture(number: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """An even image whose value tells its number."""
    return np.full((height, width, 3), (number * 16) % 256, np.uint8)


def number_of(pixels: NDArray[Any]) -> int:
    """Number of the image that :func:`picture` made, also after lossy compression."""
    return round(float(pixels.mean()) / 16)


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(number)).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_video(path: Path, count: int = 12, codec: str = "mpeg4") -> Path:
    """A video of ``count`` images of :func:`picture`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 2_000_000
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode())
    return path


class MjpegCamera:
    """A network camera: Motion JPEG at ``/stream``, one image at ``/image.jpg``; each image is numbered.

    Parameters
    ----------
    rate: images a second.
    """

    def __init__(self, rate: float = 20) -> None:
        self.rate, self.port, self.requests = rate, 0, 0
        self.headers: list[dict[str, str]] = []
        self.is_silent = self.asks_for_password = False
        self.status = 200
        self._server: ThreadingHTTPServer | None = None
        self._stop = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> MjpegCamera:
        camera = self
        self._stop.clear()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.requests += 1
                camera.headers.append(dict(self.headers))
                if camera.asks_for_password and "Authorization" not in self.headers:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                    self.end_headers()
                    return
                if self.path == "/image.jpg":
                    self.send_response(camera.status)
                    self.end_headers()
                    self.wfile.write(jpeg(camera.requests))
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                number = 0
                while not camera._stop.is_set():
                    if not camera.is_silent:
                        content = jpeg(number % 16)
                        number += 1
                        head = (
                            f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
                        )
                        try:
                            self.wfile.write(head.encode() + content + b"\r\n")
                        except OSError:
                            return
                    camera._stop.wait(1 / camera.rate)

            def log_message(self, *arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def stop(self) -> None:
        self._stop.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def take(frames: Iterator[Frame | None], count: int, seconds: float = 15.0) -> list[Frame]:
    """The first ``count`` frames, or as many as come within ``seconds``."""
    found: list[Frame] = []
    until = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < until:
        frame = next(frames)
        if frame is not None:
            found.append(frame)
    return found
