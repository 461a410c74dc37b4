"""Connection to an MQTT broker that comes back by itself, for the sink and the trigger."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from blemish.extras import explain_missing
from blemish.serve.line.secrets import resolved, trusted_by
from blemish.serve.line.settings import Broker

if TYPE_CHECKING:
    from paho.mqtt.client import Client

FIRST_WAIT, LONGEST_WAIT = 1, 30
"""Seconds before a lost connection is tried again; doubled each time."""


def make_client(broker: Broker, key: str, base: Path) -> Client:
    """A client of ``broker`` that is not connected yet.

    Parameters
    ----------
    key: of the description, for errors.
    base: folder at which relative paths begin.

    Raises
    ------
    ServeError
        When a secret is not set, or the certificate authorities cannot be read.
    MissingExtraError
        Without paho-mqtt.
    """
    with explain_missing():
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion
    client = Client(CallbackAPIVersion.VERSION2, client_id=broker.client_id or "")
    if broker.user is not None:
        secret = None if broker.password is None else resolved(broker.password, f"{key}.password")
        client.username_pw_set(broker.user, secret)
    if broker.tls:
        client.tls_set_context(trusted_by(broker.ca_file, f"{key}.ca_file", base))
    client.reconnect_delay_set(FIRST_WAIT, LONGEST_WAIT)
    return client


class Connection:
    """A client that connects in the background, and what to say about it.

    Parameters
    ----------
    client: callbacks of its own, such as ``on_message``, may be set before.
    """

    def __init__(self, client: Client, broker: Broker) -> None:
        self.client = client
        self.address = f"{broker.host}:{broker.port or (8883 if broker.tls else 1883)}"
        self.problem = f"{self.address}: is not connected yet"
        self._is_up = threading.Event()
        self._subscriptions: list[str] = []
        self._greetings: list[tuple[str, bytes]] = []
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_connect_fail = self._failed
        host, _, port = self.address.rpartition(":")
        client.connect_async(host, int(port), keepalive=15)

    def subscribe(self, topic: str) -> None:
        """Subscribe to ``topic`` now, and after each connection."""
        self._subscriptions.append(topic)

    def greet(self, topic: str, message: bytes) -> None:
        """Publish a retained message after each connection."""
        self._greetings.append((topic, message))

    def start(self) -> None:
        """Begin to connect, in a thread of the client."""
        self.client.loop_start()

    @property
    def is_up(self) -> bool:
        """Whether the broker is connected."""
        return self._is_up.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until the broker is connected; whether it is."""
        return self._is_up.wait(seconds)

    def close(self) -> None:
        """Say goodbye, and end the thread."""
        self.client.disconnect()
        self.client.loop_stop()
        self._is_up.clear()

    def _connected(self, client: Client, _: object, __: object, reason: object, ___: object = None) -> None:
        if getattr(reason, "is_failure", False):
            self.problem = f"{self.address}: refuses the connection ({reason}); check user and password"
            return
        for topic in self._subscriptions:
            client.subscribe(topic, qos=1)
        for topic, message in self._greetings:
            client.publish(topic, message, qos=1, retain=True)
        self.problem = ""
        self._is_up.set()

    def _disconnected(self, *arguments: object) -> None:
        self._is_up.clear()
        if not self.problem:
            self.problem = (
                f"{self.address}: the connection is lost, and tried again; check that the broker runs"
            )

    def _failed(self, *arguments: object) -> None:
        self._is_up.clear()
        self.problem = f"{self.address}: cannot be reached, and is tried again; check that the broker runs"
