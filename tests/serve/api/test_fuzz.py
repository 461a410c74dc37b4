"""Requests that are generated from the server's own description: no answer of 500, and none that is not described."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.serve.fuzz import HOST, INSPECT, Fuzzed, damaged, fuzz_app
from tests.serve.serving import Serve

Draw = Callable[..., NDArray[np.uint8]]


def check(found: Fuzzed, requests: int) -> None:
    assert found.requests >= requests
    assert found.server_errors == 0, found.failures
    assert found.failures == {}
    inspected = found.routes[f"POST {INSPECT} of damaged images"]
    assert len(inspected) > 1, "images are either all refused or all taken"
    assert {"200", "404", "422"} <= set(found.routes["GET /api/decisions/{number}"])


def test_generated_requests_are_answered_as_described(serve: Serve, draw: Draw) -> None:
    with serve(allowed_hosts=(HOST,)) as served:
        check(fuzz_app(served.client.app, 300, 0, draw(0), "waves"), 300)


@pytest.mark.parametrize(
    ("seed", "requests"),
    [pytest.param(1, 1000, marks=pytest.mark.slow), pytest.param(2, 2000, marks=pytest.mark.long)],
)
def test_more_generated_requests_are_answered_as_described(
    serve: Serve, draw: Draw, seed: int, requests: int
) -> None:
    with serve(allowed_hosts=(HOST,)) as served:
        check(fuzz_app(served.client.app, requests, seed, draw(0), "waves"), requests)


def test_an_unexpected_answer_is_counted() -> None:
    found = Fuzzed()
    found.add("GET /a", 200, None)
    found.add("GET /a", 500, "broken\nhere")
    assert (found.requests, found.server_errors) == (2, 1)
    assert list(found.failures.values()) == ["broken\nhere"]


def test_damage_changes_the_bytes() -> None:
    import hypothesis

    content = bytes(range(200))
    seen = set()

    @hypothesis.settings(max_examples=30, database=None, derandomize=True)
    @hypothesis.given(damaged(content))
    def collect(value: bytes) -> None:
        seen.add(value)

    collect()
    assert len(seen - {content}) > 15
