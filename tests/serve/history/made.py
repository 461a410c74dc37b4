"""Decisions that tests of the server store."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from blemish.serve.contracts import NewDecision

BEGIN = datetime(2026, 3, 2, 6, 30, tzinfo=timezone.utc)


def decision(place: int, **changed: Any) -> NewDecision:
    """One decision, accepted, a second after the one before it."""
    fields = {
        "request": f"request {place}",
        "time": BEGIN + timedelta(seconds=place),
        "model": "screw",
        "model_sha256": "5" * 64,
        "source": "folder",
        "name": f"frame_{place:06}.png",
        "image_sha256": f"{place:064}",
        "size": (64, 48),
        "score": 0.25,
        "threshold": 0.75,
        "pixel_threshold": 1.5,
        "p_value": 0.5,
        "is_anomalous": False,
        "seconds": 0.03,
    }
    return NewDecision.model_validate({**fields, **changed})


def many(count: int, begin: int = 0) -> list[NewDecision]:
    """Decisions of which every fifth is rejected."""
    return [
        decision(place, score=0.9 if place % 5 == 4 else place % 7 / 10, is_anomalous=place % 5 == 4)
        for place in range(begin, begin + count)
    ]
