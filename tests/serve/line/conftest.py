"""Decisions to deliver."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from blemish.decision.regions import Region
from blemish.serve.contracts import StoredDecision

MakeDecision = Callable[..., StoredDecision]


def _decision(number: int, **fields: Any) -> StoredDecision:
    region = Region(x=4, y=5, width=10, height=8, area=60, peak=2.5, mean=2.0)
    is_anomalous = fields.get("is_anomalous", True)
    values: dict[str, Any] = {
        "id": number,
        "request": f"request-{number}",
        "time": datetime(2026, 3, 1, 12, 0, number % 60, tzinfo=timezone.utc),
        "model": "bolts",
        "model_sha256": "ab" * 32,
        "source": "left",
        "name": f"part-{number}.png",
        "image_sha256": f"{number:064x}",
        "size": (64, 48),
        "score": 1.5 if is_anomalous else 0.25,
        "threshold": 1.0,
        "pixel_threshold": 2.0,
        "p_value": 0.04,
        "is_anomalous": is_anomalous,
        "regions": (region,) if is_anomalous else (),
        "seconds": 0.125,
    }
    return StoredDecision(**{**values, **fields})


@pytest.fixture(scope="session")
def make_decision() -> MakeDecision:
    """``make_decision(number, **fields)``: a decision of the history, rejected with one region unless fields say otherwise."""
    return _decision
