"""Triggers by messages, against a real broker that stops and comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from blemish.serve.contracts import utc_now
from blemish.serve.line.source_settings import EachTrigger, HttpTrigger, IntervalTrigger, MqttTrigger
from blemish.serve.line.triggers import MOST_WAITING, AlwaysTrigger, Clock, Messages, Requests, make_trigger
from tests.services import Mosquitto


class Plc:
    """Publishes that a part is in place."""

    def __init__(self, port: int) -> None:
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def say(self, topic: str, text: str = "", *, retain: bool = False) -> None:
        self._client.publish(topic, text, qos=1, retain=retain).wait_for_publish(5)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    found = Mosquitto(tmp_path).start()
    yield found
    found.stop()


def messages(broker: Mosquitto, tmp_path: Path, topic: str = "station/+/part") -> Messages:
    settings = MqttTrigger(type="mqtt", host="127.0.0.1", port=broker.port, topic=topic)
    found = make_trigger(settings, "sources[0].trigger", tmp_path)
    assert isinstance(found, Messages)
    found.open()
    until = time.monotonic() + 10
    while found.problem() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.2)  # until the broker has the subscription
    return found


def test_each_message_fires_once_and_names_the_image(broker: Mosquitto, tmp_path: Path) -> None:
    trigger, plc = messages(broker, tmp_path), Plc(broker.port)
    begun = utc_now()
    for text in ("serial 1", "", "  serial\x1b[31m 2 \n"):
        plc.say("station/4/part", text)
    plc.say("station/4/other", "another topic")
    fired = [trigger.wait(5) for _ in range(3)]
    assert [one.name if one else "missing" for one in fired] == ["serial 1", None, "serial\\x1b[31m 2"]
    assert all(one is not None and one.at is not None and begun <= one.at <= utc_now() for one in fired)
    assert trigger.wait(0.3) is None
    plc.close()
    trigger.close()


def test_a_retained_message_is_no_part_of_now(broker: Mosquitto, tmp_path: Path) -> None:
    plc = Plc(broker.port)
    plc.say("station/4/part", "of yesterday", retain=True)
    trigger = messages(broker, tmp_path)
    assert trigger.wait(0.5) is None
    plc.close()
    trigger.close()


def test_a_broker_that_restarts_is_subscribed_to_again(broker: Mosquitto, tmp_path: Path) -> None:
    trigger = messages(broker, tmp_path)
    broker.stop()
    until = time.monotonic() + 10
    while not trigger.problem() and time.monotonic() < until:
        time.sleep(0.02)
    assert "check that the broker runs" in trigger.problem()
    broker.start()
    until = time.monotonic() + 15
    while trigger.problem() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.2)
    plc = Plc(broker.port)
    plc.say("station/4/part", "after the restart")
    fired = trigger.wait(5)
    assert fired is not None
    assert fired.name == "after the restart"
    plc.close()
    trigger.close()


def test_messages_that_come_too_fast_are_counted(broker: Mosquitto, tmp_path: Path) -> None:
    trigger, plc = messages(broker, tmp_path), Plc(broker.port)
    for _ in range(MOST_WAITING + 3):
        plc.say("station/4/part")
    until = time.monotonic() + 5
    while trigger.dropped < 3 and time.monotonic() < until:
        time.sleep(0.02)
    assert trigger.dropped == 3
    assert trigger.problem() == f"3 triggers came while {MOST_WAITING} waited, and were left out"
    plc.close()
    trigger.close()


def test_each_description_has_its_trigger(tmp_path: Path) -> None:
    for settings, kind in (
        (EachTrigger(), AlwaysTrigger),
        (IntervalTrigger(type="interval", every=2.0), Clock),
        (HttpTrigger(type="http"), Requests),
    ):
        assert type(make_trigger(settings, "sources[0].trigger", tmp_path)) is kind
