"""MQTT as a sink, against a real broker that stops and comes back."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blemish.errors import DeliveryError, ServeError
from blemish.serve.contracts import StoredDecision
from blemish.serve.line.sink_settings import MqttSettings
from blemish.serve.line.sinks.mqtt import MqttSink
from tests.serve.line.sinks.subscriber import Subscriber
from tests.services import Mosquitto, own_certificate

MakeDecision = Callable[..., StoredDecision]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    found = Mosquitto(tmp_path).start()
    yield found
    found.stop()


def sink(broker: Mosquitto, tmp_path: Path, **settings: Any) -> MqttSink:
    given = MqttSettings(name="mqtt", type="mqtt", host="127.0.0.1", port=broker.port, **settings)
    found = MqttSink(given, "sinks[0]", tmp_path)
    found.open()
    return found


def deliver(given: MqttSink, decision: StoredDecision, seconds: float = 15) -> int:
    """Deliver as a worker does, until it arrives; the number of failed attempts."""
    failures, until = 0, time.monotonic() + seconds
    while True:
        with contextlib.suppress(DeliveryError):
            given.deliver(decision, None, None)
            return failures
        failures += 1
        assert time.monotonic() < until
        time.sleep(0.1)


def test_decisions_are_messages_in_order_under_topics_of_their_own(
    broker: Mosquitto, tmp_path: Path, make_decision: MakeDecision
) -> None:
    subscriber = Subscriber(broker.port)
    given = sink(broker, tmp_path, topic="line-1/{source}/{decision}")
    for number in range(1, 6):
        deliver(given, make_decision(number, is_anomalous=number == 3, source="left/+"))
    found = subscriber.expect(5)
    given.close()
    subscriber.close()
    assert [json.loads(payload)["id"] for _, payload in found] == [1, 2, 3, 4, 5]
    assert [topic for topic, _ in found][2] == "line-1/left__/rejected", "a name adds no level"
    assert {topic for topic, _ in found} == {"line-1/left__/rejected", "line-1/left__/accepted"}


def test_a_broker_that_restarts_gets_what_was_decided_meanwhile(
    broker: Mosquitto, tmp_path: Path, make_decision: MakeDecision
) -> None:
    subscriber = Subscriber(broker.port)
    given = sink(broker, tmp_path, timeout=1)
    deliver(given, make_decision(1))
    assert len(subscriber.expect(1)) == 1
    broker.stop()
    with pytest.raises(DeliveryError, match=f"127.0.0.1:{broker.port}: "):
        given.deliver(make_decision(2), None, None)
    broker.start()
    assert subscriber.wait()
    failures = deliver(given, make_decision(2))
    deliver(given, make_decision(3))
    found = [json.loads(payload)["id"] for _, payload in subscriber.expect(3)]
    given.close()
    subscriber.close()
    assert sorted(set(found)) == [1, 2, 3]
    assert [number for place, number in enumerate(found) if number not in found[:place]] == [1, 2, 3]
    assert failures >= 0


def test_a_broker_that_is_not_there_yet_is_waited_for(tmp_path: Path, make_decision: MakeDecision) -> None:
    broker = Mosquitto(tmp_path)
    given = sink(broker, tmp_path, timeout=1)
    with pytest.raises(DeliveryError, match=r"check that the broker runs|is not connected yet"):
        given.deliver(make_decision(1), None, None)
    broker.start()
    deliver(given, make_decision(1))
    given.close()
    broker.stop()


def test_the_status_is_retained_and_says_when_the_line_has_gone(broker: Mosquitto, tmp_path: Path) -> None:
    given = sink(broker, tmp_path, status_topic="line-1/status")
    subscriber = Subscriber(broker.port)
    assert subscriber.expect(1)[-1] == ("line-1/status", b"online")
    given._connection.client._sock_close()  # type: ignore[attr-defined]  # as a kill does, without a goodbye
    given._connection.client.loop_stop()
    assert subscriber.expect(2)[-1] == ("line-1/status", b"offline")
    subscriber.close()
    late = Subscriber(broker.port, client_id="late")
    assert late.expect(1)[-1] == ("line-1/status", b"offline")
    late.close()


def test_a_wrong_password_is_said(
    tmp_path: Path, make_decision: MakeDecision, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Mosquitto(tmp_path, users={"line": "right"}).start()
    monkeypatch.setenv("BLEMISH_LINE_PASSWORD", "wrong")
    bad = sink(broker, tmp_path, user="line", password="${BLEMISH_LINE_PASSWORD}")
    time.sleep(0.3)
    with pytest.raises(DeliveryError, match="refuses the connection"):
        bad.deliver(make_decision(1), None, None)
    bad.close()
    monkeypatch.setenv("BLEMISH_LINE_PASSWORD", "right")
    good = sink(broker, tmp_path, user="line", password="${BLEMISH_LINE_PASSWORD}")
    deliver(good, make_decision(1))
    good.close()
    broker.stop()


def test_certificates_that_cannot_be_read_are_said_at_the_start(tmp_path: Path) -> None:
    broker = MqttSettings(name="m", type="mqtt", host="127.0.0.1", tls=True, ca_file="missing.pem")
    with pytest.raises(ServeError, match=r"'sinks\[0\].ca_file' .*missing.pem: cannot be read"):
        MqttSink(broker, "sinks[0]", tmp_path)


def test_an_encrypted_broker_is_trusted_where_its_authority_is_named(
    tmp_path: Path, make_decision: MakeDecision
) -> None:
    file, key = own_certificate(tmp_path)
    broker = Mosquitto(tmp_path, certificate=(file, key)).start()
    strange = sink(broker, tmp_path, tls=True)
    with pytest.raises(DeliveryError, match=f"127.0.0.1:{broker.port}: "):
        strange.deliver(make_decision(1), None, None)
    strange.close()
    known = sink(broker, tmp_path, tls=True, ca_file=file.name)
    deliver(known, make_decision(1))
    known.close()
    broker.stop()
