"""Health, readiness, metrics, the reference without a network, and errors as answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.serving import Serve, Served, png

Draw = Callable[..., NDArray[np.uint8]]


def test_health_and_readiness(served: Served) -> None:
    assert served.client.get("/healthz").json()["status"] == "ok"
    ready = served.client.get("/readyz")
    assert ready.status_code == 200
    assert set(ready.json()["checks"]) == {"workers", "queue", "history", "disk"}


def test_a_history_that_cannot_be_read_is_not_ready(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("gone")

    monkeypatch.setattr(served.server.history, "page", refuse)
    answer = served.client.get("/readyz")
    assert answer.status_code == 503
    assert "OSError" in answer.json()["checks"]["history"]
    assert served.client.get("/healthz").status_code == 200


def test_metrics_count_what_happened(serve: Serve, draw: Draw) -> None:
    with serve() as served:
        for seed in range(3):
            assert served.post(png(draw(seed))).status_code == 200
        assert served.post(b"no image").status_code == 415
        served.client.get("/made/up/1")
        served.client.get("/made/up/2")
        answer = served.client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        families = {one.name: one.samples for one in text_string_to_metric_families(answer.text)}

        def total(family: str, name: str, **labels: str) -> float:
            return sum(
                one.value
                for one in families[family]
                if one.name == name and labels.items() <= one.labels.items()
            )

        assert total("blemish_decisions", "blemish_decisions_total", model="waves", source="api") == 3
        assert total("blemish_failures", "blemish_failures_total", kind="NoImageError") == 1
        requests = "blemish_http_requests", "blemish_http_requests_total"
        assert total(*requests, route="/api/inspect", status="200") == 3
        assert total(*requests, route="/api/inspect", status="415") == 1
        assert total(*requests, route="other", status="404") == 2
        assert total("blemish_inspection_seconds", "blemish_inspection_seconds_count", model="waves") == 3
        assert total("blemish_queue_images", "blemish_queue_images") == 0
        assert total("blemish_held_bytes", "blemish_held_bytes") == 0
        assert total("blemish_commit_decisions", "blemish_commit_decisions_sum") == 3


def test_the_reference_loads_nothing_from_outside(served: Served) -> None:
    page = served.client.get("/docs")
    assert page.status_code == 200
    found = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(found) == 3
    for address in found:
        assert address.startswith("/docs/")
        assert len(served.client.get(address).content) > 100
    assert "<script>" not in page.text


def test_every_route_describes_itself(served: Served) -> None:
    description = served.client.get("/openapi.json").json()
    for path, methods in description["paths"].items():
        for method, route in methods.items():
            assert route.get("summary"), (method, path)
            assert route.get("description"), (method, path)
    body = description["paths"]["/api/inspect"]["post"]["requestBody"]["content"]
    assert {"multipart/form-data", "application/octet-stream", "image/png"} <= set(body)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("DELETE", "/api/inspect", 405),
        ("GET", "/api/decisions/999999", 404),
        ("GET", "/api/decisions/-5", 404),
        ("GET", "/api/decisions/99999999999999999999999", 404),
        ("GET", "/api/decisions/x", 422),
        ("GET", "/api/decisions?limit=0", 422),
        ("GET", "/api/decisions?since=never", 422),
        ("GET", "/api/what-if?threshold=nan", 422),
        ("GET", "/api/what-if", 422),
        ("GET", "/api/models/none", 404),
        ("PUT", "/api/models/none/threshold", 404),
        ("GET", "/docs/assets/../../../../etc/passwd", 404),
    ],
)
def test_errors_are_one_line_of_json(served: Served, method: str, path: str, status: int) -> None:
    answer = served.client.request(method, path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert "\n" not in answer.json()["error"]


def test_an_unexpected_error_tells_nothing_of_the_inside(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(served.server.history, "page", fail)
    answer = served.client.get("/api/decisions")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "log" in answer.json()["error"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"is_right": "\\ud800"}', '{"is_right": true, "shapes": [1]}', "\xff"]
)
def test_bodies_that_are_no_such_json_are_refused(served: Served, draw: Draw, text: str) -> None:
    number = served.post(png(draw(1))).json()["results"][0]["id"]
    answer = served.client.post(
        f"/api/decisions/{number}/verdict",
        content=text.encode("latin-1"),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["error"]


def test_verdicts_are_kept_and_found(served: Served, draw: Draw) -> None:
    number = served.post(png(draw(21)), name="judged.png").json()["results"][0]["id"]
    path = f"/api/decisions/{number}"
    box = {"kind": "box", "points": [[1, 2], [3, 4]]}
    first = served.client.post(f"{path}/verdict", json={"is_right": False, "label": "dent", "shapes": [box]})
    assert first.status_code == 201
    served.client.post(f"{path}/verdict", json={"is_right": True})
    found = served.client.get(f"{path}/verdicts").json()["verdicts"]
    assert [one["is_right"] for one in found] == [False, True]
    assert found[0]["shapes"] == [{"kind": "box", "points": [[1.0, 2.0], [3.0, 4.0]]}]
    assert served.client.get(path).json()["verdict"] == found[1]
    right = served.client.get("/api/decisions", params={"verdict": "right"}).json()["decisions"]
    assert number in [one["id"] for one in right]


def test_pages_of_the_history_follow_each_other(served: Served, draw: Draw) -> None:
    ids = [served.post(png(draw(30 + n)), name=f"page-{n}.png").json()["results"][0]["id"] for n in range(5)]
    found, before = [], None
    while True:
        parameters = {"limit": 2, "text": "page-", **({} if before is None else {"before": before})}
        page = served.client.get("/api/decisions", params=parameters).json()
        found += [one["id"] for one in page["decisions"]]
        before = page["next"]
        if before is None:
            break
    assert found == ids[::-1]


def test_scores_and_what_if_are_of_the_history(served: Served, draw: Draw) -> None:
    for seed in range(4):
        served.post(png(draw(50 + seed, dot=seed == 3)))
    series = served.client.get("/api/scores").json()
    assert len({len(values) for values in series.values()}) == 1
    assert series["id"] == sorted(series["id"])
    lowest, highest = min(series["score"]), max(series["score"])
    strict = served.client.get("/api/what-if", params={"threshold": lowest - 1}).json()
    assert strict["newly_rejected"] == strict["decisions"] - strict["rejected"]
    lax = served.client.get("/api/what-if", params={"threshold": highest + 1}).json()
    assert lax["newly_accepted"] == lax["rejected"]
    assert all(one["is_anomalous"] for one in lax["changed"])


def test_models_say_what_they_promise_and_take_another_threshold(serve: Serve, draw: Draw) -> None:
    with serve() as served:
        (listed,) = served.client.get("/api/models").json()["models"]
        page = served.client.get("/api/models/waves").json()
        assert listed.items() <= page.items()
        assert page["card"].startswith("#")
        assert page["version"]["number"] == 1
        assert page["runtime"] == "onnx"
        before = served.post(png(draw(1))).json()["results"][0]["record"]
        assert before["threshold"] == listed["threshold"]
        low = before["score"] - 1
        changed = served.client.put("/api/models/waves/threshold", json={"threshold": low})
        assert changed.status_code == 200
        assert (changed.json()["threshold"], changed.json()["is_chosen"]) == (low, True)
        assert changed.json()["false_reject_rate"] is None
        after = served.post(png(draw(1))).json()["results"][0]["record"]
        assert after["is_anomalous"]
        assert after["score"] == before["score"]
        for wrong in (
            {"false_reject_rate": 1e-9},
            {"false_reject_rate": 2},
            {},
            {"threshold": 1, "false_reject_rate": 0.1},
        ):
            assert served.client.put("/api/models/waves/threshold", json=wrong).status_code == 422
        own = served.client.put(
            "/api/models/waves/threshold", content="null", headers={"content-type": "application/json"}
        )
        assert own.json()["threshold"] == listed["threshold"]
        assert json.loads(own.text)["is_chosen"] is False
