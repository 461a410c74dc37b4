"""The webhook as a sink, against a receiver that fails, answers late, and goes away."""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from blemish.errors import DeliveryError, ServeError
from blemish.serve.contracts import StoredDecision
from blemish.serve.line.sink_settings import WebhookSettings
from blemish.serve.line.sinks.webhook import ID_HEADER, KEY_HEADER, SIGNATURE_HEADER, TryLater, WebhookSink
from tests.services import own_certificate

MakeDecision = Callable[..., StoredDecision]


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent, and answers with the next of ``answers``, 200 after the last."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.posts: list[tuple[dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/parts"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((dict(self.headers), body))
        status, headers = self.server.answers.pop(0) if self.server.answers else (200, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sink(url: str, **settings: Any) -> WebhookSink:
    return WebhookSink(WebhookSettings(name="mes", type="webhook", url=url, **settings), "sinks[0]", Path())


def test_a_decision_is_posted_as_json_with_its_number_and_key(
    receiver: Receiver, make_decision: MakeDecision
) -> None:
    given = sink(receiver.url)
    given.deliver(make_decision(7), b"image", b"overlay")
    given.close()
    ((headers, body),) = receiver.posts
    content = json.loads(body)
    assert headers[ID_HEADER] == "7"
    assert headers["Content-Type"] == "application/json"
    assert content["id"] == 7
    assert content["is_anomalous"] is True
    assert content["regions"][0]["width"] == 10
    assert not given.needs_images
    assert "Authorization" not in headers


def test_the_key_is_the_same_for_each_attempt_and_of_no_other_decision(
    receiver: Receiver, make_decision: MakeDecision
) -> None:
    receiver.answers = [(500, {})]
    given = sink(receiver.url)
    with pytest.raises(DeliveryError, match="answered 500"):
        given.deliver(make_decision(7), None, None)
    given.deliver(make_decision(7), None, None)
    given.deliver(make_decision(8), None, None)
    given.deliver(make_decision(7, request="of another history"), None, None)
    given.close()
    keys = [headers[KEY_HEADER] for headers, _ in receiver.posts]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_the_signature_is_that_of_the_body(
    receiver: Receiver, make_decision: MakeDecision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLEMISH_LINE_KEY", "shared")
    monkeypatch.setenv("BLEMISH_LINE_TOKEN", "abc")
    given = sink(receiver.url, secret="${BLEMISH_LINE_KEY}", token="${BLEMISH_LINE_TOKEN}")
    given.deliver(make_decision(7), None, None)
    given.close()
    ((headers, body),) = receiver.posts
    assert headers[SIGNATURE_HEADER] == "sha256=" + hmac.new(b"shared", body, hashlib.sha256).hexdigest()
    assert headers["Authorization"] == "Bearer abc"


def test_images_are_parts_of_a_form_where_they_are_asked_for(
    receiver: Receiver, make_decision: MakeDecision
) -> None:
    given = sink(receiver.url, images=True)
    assert given.needs_images
    given.deliver(make_decision(7), b"\x89image", b"\x89overlay")
    given.close()
    ((headers, body),) = receiver.posts
    assert headers["Content-Type"].startswith("multipart/form-data")
    for expected in (b'name="decision"', b'"id": 7', b"\x89image", b"\x89overlay"):
        assert expected in body


@pytest.mark.parametrize("status", [301, 400, 404, 409, 500, 503])
def test_only_success_is_an_arrival(receiver: Receiver, make_decision: MakeDecision, status: int) -> None:
    receiver.answers = [(status, {"Location": "http://127.0.0.1:1/"})]
    given = sink(receiver.url)
    with pytest.raises(DeliveryError, match=f"{receiver.url}: answered {status}"):
        given.deliver(make_decision(1), None, None)
    given.close()
    assert len(receiver.posts) == 1, "redirections are not followed"


def test_a_receiver_may_say_when_to_come_again(receiver: Receiver, make_decision: MakeDecision) -> None:
    receiver.answers = [(503, {"Retry-After": "17"}), (503, {"Retry-After": "999999"})]
    given = sink(receiver.url)
    for seconds in (17, 3600):
        with pytest.raises(TryLater) as error:
            given.deliver(make_decision(1), None, None)
        assert error.value.seconds == seconds
    given.close()


def test_nobody_who_answers_is_a_failed_delivery_without_the_password(
    make_decision: MakeDecision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLEMISH_LINE_PASSWORD", "hunter2")
    given = sink("http://user:${BLEMISH_LINE_PASSWORD}@127.0.0.1:1/parts")
    with pytest.raises(DeliveryError, match=r"http://127\.0\.0\.1:1/parts: gave no answer") as error:
        given.deliver(make_decision(1), None, None)
    given.close()
    assert "hunter2" not in str(error.value)


def test_a_secret_that_is_not_set_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLEMISH_LINE_TOKEN", raising=False)
    with pytest.raises(
        ServeError, match=r"'sinks\[0\].token' needs the environment variable BLEMISH_LINE_TOKEN"
    ):
        sink("http://127.0.0.1:1/", token="${BLEMISH_LINE_TOKEN}")


def test_an_authority_of_the_factory_is_trusted_where_its_file_is_named(
    receiver: Receiver, make_decision: MakeDecision, tmp_path: Path
) -> None:
    file, key = own_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    url = receiver.url.replace("http:", "https:")
    strange, known = sink(url), sink(url, ca_file=str(file))
    with pytest.raises(DeliveryError, match="certificate"):
        strange.deliver(make_decision(1), None, None)
    known.deliver(make_decision(1), None, None)
    strange.close()
    known.close()
    assert len(receiver.posts) == 1
    with pytest.raises(ServeError, match=r"'sinks\[0\].ca_file' .*: cannot be read"):
        sink(url, ca_file=str(tmp_path / "missing.pem"))
