"""A network camera that speaks RTSP: video and its payload by FFmpeg, the conversation by this server."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import subprocess
import threading
import time
from pathlib import Path

from tests.services import free_port, needs


class RtspCamera:
    """Serves ``rtsp://127.0.0.1:PORT/live`` over TCP (RFC 2326, interleaved).

    Parameters
    ----------
    folder: for the description of the session.
    """

    def __init__(self, folder: Path) -> None:
        self.program, self.port, self._folder = needs("ffmpeg"), free_port(), folder
        self._server: socketserver.ThreadingTCPServer | None = None
        self._video: subprocess.Popen[bytes] | None = None
        self._rtp: socket.socket | None = None
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/live"

    def start(self) -> RtspCamera:
        rtp = self._rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        rtp.bind(("127.0.0.1", 0))
        rtp.settimeout(2)
        file = self._folder / "session.sdp"
        file.unlink(missing_ok=True)
        self._video = subprocess.Popen(
            [
                self.program, "-loglevel", "error", "-re", "-f", "lavfi", "-i", "color=c=0x808080:size=64x48:rate=15",
                "-c:v", "mpeg4", "-g", "5", "-f", "rtp", "-sdp_file", str(file),
                f"rtp://127.0.0.1:{rtp.getsockname()[1]}",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 15
        while not (file.is_file() and "m=video" in file.read_text()):
            assert time.monotonic() < until
            time.sleep(0.05)
        session = file.read_text() + "a=control:track1\r\n"
        camera = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    while (request := self._request()) is not None:
                        camera.requests.append(request[0])
                        self._answer(*request)
                except OSError:
                    return

            def _request(self) -> tuple[str, str] | None:
                first, number = self.rfile.readline().decode(), "0"
                if not first:
                    return None
                while line := self.rfile.readline().decode().strip():
                    if line.lower().startswith("cseq:"):
                        number = line.partition(":")[2].strip()
                return first.split()[0], number

            def _answer(self, method: str, number: str) -> None:
                head, body = ["RTSP/1.0 200 OK", f"CSeq: {number}", "Session: 1"], ""
                if method == "OPTIONS":
                    head.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
                elif method == "DESCRIBE":
                    body = session
                    head += [
                        f"Content-Base: {camera.url}/",
                        "Content-Type: application/sdp",
                        f"Content-Length: {len(body)}",
                    ]
                elif method == "SETUP":
                    head.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
                self.wfile.write(("\r\n".join(head) + "\r\n\r\n" + body).encode())
                if method == "PLAY":
                    threading.Thread(target=self._relay, daemon=True).start()

            def _relay(self) -> None:
                with contextlib.suppress(OSError, ValueError):  # either end is gone
                    while camera._rtp is rtp:
                        packet = rtp.recv(65536)
                        self.wfile.write(b"$\0" + len(packet).to_bytes(2, "big") + packet)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

            def shutdown_request(self, request: object) -> None:
                pass

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Pull the plug: the video ends, and nobody listens any more."""
        if self._video is not None:
            self._video.kill()
            self._video.wait()
        if self._rtp is not None:
            self._rtp.close()
        self._rtp = None
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
