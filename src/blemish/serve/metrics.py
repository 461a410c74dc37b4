"""Metrics of the server in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from blemish._version import __version__

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
GROUPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server, in a registry of its own, so that a process can hold two servers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "blemish_http_requests", "Requests by route and status.", ["route", "method", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "blemish_http_request_seconds", "Seconds from the header of a request to the end of its answer.", ["route"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.decisions = Counter(
            "blemish_decisions", "Stored decisions.", ["model", "source", "decision"], registry=self.registry
        )
        self.failures = Counter(
            "blemish_failures", "Images without a decision, by what was in the way.", ["model", "kind"],
            registry=self.registry,
        )  # fmt: skip
        self.inspection_seconds = Histogram(
            "blemish_inspection_seconds", "Seconds of decoding and inspection of one image.", ["model"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.decision_seconds = Histogram(
            "blemish_decision_seconds", "Seconds from the receipt of an image to its stored decision.", ["model"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.commits = Histogram(
            "blemish_commit_decisions", "Decisions that were stored in one transaction.",
            buckets=GROUPS, registry=self.registry,
        )  # fmt: skip
        self.queued = Gauge(
            "blemish_queue_images", "Images that wait for a decision.", registry=self.registry
        )
        self.held = Gauge(
            "blemish_held_bytes", "Bytes of requests that are in memory.", registry=self.registry
        )
        self.loads = Counter(
            "blemish_model_loads", "Times that new content of a model was looked at.", ["model", "outcome"],
            registry=self.registry,
        )  # fmt: skip
        Gauge("blemish_version", "Version of Blemish.", ["version"], registry=self.registry).labels(
            __version__
        ).set(1)

    def measure(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a value that is measured whenever the metrics are read."""
        self.registry.register(_Measured(name, text, value))

    def text(self) -> bytes:
        """All metrics, in the text format 0.0.4 of Prometheus."""
        return generate_latest(self.registry)


class _Measured(Collector):
    def __init__(self, name: str, text: str, value: Callable[[], float]) -> None:
        self._name, self._text, self._value = name, text, value

    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            yield GaugeMetricFamily(self._name, self._text, value=self._value())
        except Exception:  # whatever is measured may be away, and the other metrics say so
            return
