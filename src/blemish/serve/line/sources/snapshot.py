"""Snapshot address of a network camera as a source: one image file by HTTP for each trigger."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx

from blemish.errors import ServeError
from blemish.serve.contracts import Frame, utc_now
from blemish.serve.line.secrets import resolved, without_password
from blemish.serve.line.source_settings import SnapshotSettings
from blemish.serve.line.sources.latest import frame_name

MOST_BYTES = 256 * 2**20
WAIT = 1.0
"""Seconds after a failure before the camera is asked again."""


class SnapshotSource:
    """Asks for an image each time one is wanted, and passes the file on as it came.

    Raises
    ------
    ServeError
        When a secret is not set.
    """

    is_live = True

    def __init__(self, settings: SnapshotSettings, key: str) -> None:
        self.name = settings.name
        self._url = resolved(settings.url, f"{key}.url")
        headers = {}
        if settings.token is not None:
            headers["Authorization"] = f"Bearer {resolved(settings.token, f'{key}.token')}"
        self._client = httpx.Client(timeout=settings.timeout, headers=headers, follow_redirects=False)
        self._closed = threading.Event()
        self._state: dict[str, Any] = {"is_ready": True, "message": "", "frames": 0}

    def frames(self) -> Iterator[Frame | None]:
        """A new image each time; None where the camera did not give one."""
        while not self._closed.is_set():
            taken = utc_now()
            try:
                content = self._fetch()
            except (httpx.HTTPError, httpx.InvalidURL, ServeError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                self._state |= {
                    "is_ready": False,
                    "message": f"{without_password(self._url)}: gave no image ({reason}); check the camera",
                }
                yield None
                self._closed.wait(WAIT)
                continue
            self._state |= {"is_ready": True, "message": "", "frames": self._state["frames"] + 1}
            yield Frame(content, frame_name(self.name, taken), self.name, taken)

    def _fetch(self) -> bytes:
        content = bytearray()
        with self._client.stream("GET", self._url) as answer:
            if answer.status_code != 200:
                raise ServeError(f"status {answer.status_code}")
            for part in answer.iter_bytes():
                content += part
                if len(content) > MOST_BYTES:
                    raise ServeError(f"more than {MOST_BYTES} bytes")
        return bytes(content)

    def fire(self) -> None:
        """Nothing to do: the camera is asked when the image is wanted."""

    def done(self, frame: Frame) -> None:
        """Nothing to do."""

    def refused(self, frame: Frame, reason: str) -> None:
        """Show the reason."""
        self._state |= {"message": reason}

    def state(self) -> dict[str, Any]:
        """Whether the last request gave an image, or why not."""
        return dict(self._state)

    def close(self) -> None:
        """Close connections."""
        self._closed.set()
        self._client.close()
