"""Messages of sinks: a decision as JSON and as flat values, the same in all of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from blemish.serve.contracts import StoredDecision

_OURS_ALONE = {"kept", "kept_bytes", "until_delivered", "verdict", "request"}
"""Fields that say how the history keeps a decision, not what was decided."""


def decision_fields(decision: StoredDecision) -> dict[str, Any]:
    """A decision as JSON values: its number, time, model, source, image, score, threshold, regions and classes."""
    return decision.model_dump(mode="json", exclude=_OURS_ALONE & set(type(decision).model_fields))


def decision_json(decision: StoredDecision) -> str:
    """:func:`decision_fields` as text."""
    return json.dumps(decision_fields(decision), ensure_ascii=False, allow_nan=False)


def delivery_key(decision: StoredDecision) -> str:
    """Key by which a receiver recognises a decision that it has had: the same for each attempt, of no other decision.

    Its number alone would come again after a history is deleted.
    """
    return f"{decision.id}-{hashlib.sha256(decision.request.encode()).hexdigest()[:16]}"


def outcome(decision: StoredDecision) -> str:
    """``rejected`` or ``accepted``."""
    return "rejected" if decision.is_anomalous else "accepted"
