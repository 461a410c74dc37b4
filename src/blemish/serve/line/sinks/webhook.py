"""Webhook as a sink: a POST of each decision, with the key by which a receiver recognises a repetition."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

import httpx

from blemish._version import __version__
from blemish.errors import DeliveryError
from blemish.serve.contracts import StoredDecision
from blemish.serve.line.messages import decision_json, delivery_key
from blemish.serve.line.secrets import resolved, trusted_by, without_password
from blemish.serve.line.sink_settings import WebhookSettings

ID_HEADER, KEY_HEADER, SIGNATURE_HEADER = "X-Blemish-Decision", "Idempotency-Key", "X-Blemish-Signature"
LONGEST_PAUSE = 3600.0
"""Seconds that a receiver can ask to be left alone, by Retry-After."""


class TryLater(DeliveryError):
    """A receiver that says when to come again, in seconds."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class WebhookSink:
    """Posts decisions as JSON, or with image and overlay as a multipart form.

    A decision has arrived when the answer has a status of 200 to 299. Redirections are not followed, because a POST
    would become a GET.

    Raises
    ------
    ServeError
        When an environment variable of a secret is not set, or the certificate authorities cannot be read.
    """

    def __init__(self, settings: WebhookSettings, key: str, base: Path) -> None:
        self.name, self.needs_images = settings.name, settings.images
        self._url = resolved(settings.url, f"{key}.url")
        self._secret = (
            None if settings.secret is None else resolved(settings.secret, f"{key}.secret").encode()
        )
        headers = {"User-Agent": f"blemish/{__version__}"}
        if settings.token is not None:
            headers["Authorization"] = f"Bearer {resolved(settings.token, f'{key}.token')}"
        trusted = trusted_by(settings.ca_file, f"{key}.ca_file", base)
        self._client = httpx.Client(
            timeout=settings.timeout, headers=headers, follow_redirects=False, verify=trusted
        )

    def open(self) -> None:
        """Nothing to do: each delivery connects where it must."""

    def deliver(self, decision: StoredDecision, image: bytes | None, overlay: bytes | None) -> None:
        """Post one decision.

        Raises
        ------
        DeliveryError
            When nobody answers, or not with success.
        """
        text = decision_json(decision).encode()
        headers = {ID_HEADER: str(decision.id), KEY_HEADER: delivery_key(decision)}
        if self._secret is not None:
            headers[SIGNATURE_HEADER] = "sha256=" + hmac.new(self._secret, text, hashlib.sha256).hexdigest()
        shown = without_password(self._url)
        try:
            if self.needs_images:
                files = {"decision": ("decision.json", text, "application/json")}
                files |= {} if image is None else {"image": ("image", image, "application/octet-stream")}
                files |= {} if overlay is None else {"overlay": ("overlay.png", overlay, "image/png")}
                answer = self._client.post(self._url, headers=headers, files=files)
            else:
                headers["Content-Type"] = "application/json"
                answer = self._client.post(self._url, headers=headers, content=text)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DeliveryError(f"{shown}: gave no answer ({reason}); check that it runs") from None
        if not answer.is_success:
            message = (
                f"{shown}: answered {answer.status_code} {answer.reason_phrase}; see the log of that program"
            )
            pause = answer.headers.get("Retry-After", "")
            if re.fullmatch("[0-9]{1,6}", pause):
                raise TryLater(message, min(float(pause), LONGEST_PAUSE))
            raise DeliveryError(message)

    def close(self) -> None:
        """Close connections."""
        self._client.close()
