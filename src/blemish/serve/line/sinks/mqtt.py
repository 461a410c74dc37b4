"""MQTT as a sink: a message for each decision at quality of service 1, which the broker confirms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blemish.errors import DeliveryError
from blemish.serve.contracts import StoredDecision
from blemish.serve.line.messages import decision_json, outcome
from blemish.serve.line.mqtt_client import Connection, make_client
from blemish.serve.line.sink_settings import MqttSettings

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessageInfo

ONLINE, OFFLINE = b"online", b"offline"


class MqttSink:
    """Publishes decisions as JSON; one has arrived when the broker has confirmed it.

    A message that is under way when the connection breaks is sent again by the client itself; the next attempt waits for
    it instead of publishing it twice.
    """

    needs_images = False

    def __init__(self, settings: MqttSettings, key: str, base: Path) -> None:
        self.name = settings.name
        self._settings = settings
        client = make_client(settings, key, base)
        status = settings.status_topic
        if status is not None:
            client.will_set(status, OFFLINE, qos=1, retain=True)
        self._connection = Connection(client, settings)
        if status is not None:
            self._connection.greet(status, ONLINE)
        self._under_way: tuple[int, MQTTMessageInfo] | None = None

    def open(self) -> None:
        """Begin to connect to the broker."""
        self._connection.start()

    def deliver(self, decision: StoredDecision, image: bytes | None, overlay: bytes | None) -> None:
        """Publish one decision, and wait for the broker.

        Raises
        ------
        DeliveryError
            When the broker is away, or does not confirm in time.
        """
        if not self._connection.wait(min(1.0, self._settings.timeout)):
            raise DeliveryError(self._connection.problem)
        if self._under_way is None or self._under_way[0] != decision.id:
            topic = topic_of(self._settings.topic, decision)
            message = decision_json(decision).encode()
            info = self._connection.client.publish(topic, message, qos=1, retain=self._settings.retain)
            self._under_way = decision.id, info
        info = self._under_way[1]
        try:
            info.wait_for_publish(self._settings.timeout)
            arrived = info.is_published()
        except (RuntimeError, ValueError) as error:  # of a client that refused it at once
            self._under_way = None
            raise DeliveryError(f"{self._connection.address}: did not take the message ({error})") from None
        if not arrived:
            raise DeliveryError(
                self._connection.problem
                or f"{self._connection.address}: did not confirm within {self._settings.timeout:g} s; check the broker"
            )
        self._under_way = None

    def close(self) -> None:
        """Publish that the line is offline, where that is asked for, and disconnect."""
        if self._settings.status_topic is not None and self._connection.is_up:
            info = self._connection.client.publish(self._settings.status_topic, OFFLINE, qos=1, retain=True)
            info.wait_for_publish(2)
        self._connection.close()


def topic_of(pattern: str, decision: StoredDecision) -> str:
    """Topic of a decision by a pattern with fields; values cannot add levels or wildcards.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> topic_of("a/{source}/{name}", SimpleNamespace(source="left", model="m", name="x/#1", id=1, is_anomalous=False))
    'a/left/x__1'
    """
    values = {
        "source": decision.source,
        "model": decision.model,
        "decision": outcome(decision),
        "name": decision.name,
        "id": str(decision.id),
    }
    for field, value in values.items():
        plain = "".join("_" if char in "/+#\0" else char for char in value)
        pattern = pattern.replace(f"{{{field}}}", plain)
    return pattern
