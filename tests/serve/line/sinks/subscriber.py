"""A subscriber of MQTT that keeps what it hears."""

from __future__ import annotations

import threading
import time

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion


class Subscriber:
    """Keeps all messages of a broker, also those of a time in which it was not connected."""

    def __init__(self, port: int, client_id: str = "subscriber") -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_disconnect = lambda *_: self._ready.clear()
        self._client.on_message = lambda _, __, message: self.messages.append(
            (message.topic, message.payload)
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()
        assert self.wait()

    def wait(self, seconds: float = 10) -> bool:
        return self._ready.wait(seconds)

    def expect(self, count: int, seconds: float = 10) -> list[tuple[str, bytes]]:
        until = time.monotonic() + seconds
        while len(self.messages) < count and time.monotonic() < until:
            time.sleep(0.02)
        return self.messages

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
