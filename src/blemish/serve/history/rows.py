"""Rows of the tables from decisions and verdicts, and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import RowMapping

from blemish.errors import printable
from blemish.serve.contracts import NewDecision, NewVerdict, StoredDecision, Verdict

HOUR = 3_600_000_000
"""Microseconds."""
Row: TypeAlias = Mapping[str, Any] | RowMapping
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SAME = ("score", "threshold", "pixel_threshold", "p_value", "seconds", "other_kind", "image_sha256")
"""Columns that hold what the decision's field of that name holds."""


class Stream(NamedTuple):
    """Model and source of decisions."""

    model: str
    model_sha256: str
    source: str


def to_microseconds(time: datetime) -> int:
    """Whole microseconds since 1970 in UTC; a time without a zone is one of UTC.

    >>> to_microseconds(datetime(1970, 1, 1, 0, 0, 1))
    1000000
    """
    aware = time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(value: int) -> datetime:
    """Time in UTC.

    >>> from_microseconds(1_000_000).isoformat()
    '1970-01-01T00:00:01+00:00'
    """
    return _EPOCH + timedelta(microseconds=value)


def image_key(decision: NewDecision) -> str:
    """Name of the kept files of a decision: a request, which anybody may choose, is no name of a file.

    Of two images under one request, of which the history takes the first, neither replaces the other.
    """
    chosen = f"{printable(decision.image_sha256)} {printable(decision.request)}"
    return hashlib.sha256(chosen.encode()).hexdigest()[:32]


def stream_of(decision: NewDecision) -> Stream:
    """Model and source of a decision, as they are stored."""
    return Stream(printable(decision.model), printable(decision.model_sha256), printable(decision.source))


def decision_row(decision: NewDecision, number: int, stream: int) -> dict[str, Any]:
    """Row of the table of decisions.

    Characters that no database takes, such as NUL in the name of an upload, are escaped.
    """
    return {
        "id": number,
        "time": to_microseconds(decision.time),
        "stream": stream,
        "is_anomalous": int(decision.is_anomalous),
        "width": decision.size[0],
        "height": decision.size[1],
        "request": printable(decision.request),
        "name": printable(decision.name),
        "regions": _as_json([region.model_dump(mode="json") for region in decision.regions]),
        "classes": _as_json([one.model_dump(mode="json") for one in decision.classes]),
        **{column: getattr(decision, column) for column in _SAME},
    }


def stored_decision(
    row: Row, stream: Stream, kept: tuple[int, bool] | None, verdict: Verdict | None
) -> StoredDecision:
    """Decision of a row; ``kept`` holds the bytes of its files and whether they are for sinks alone, if they are there."""
    return StoredDecision(
        id=row["id"],
        request=row["request"],
        time=from_microseconds(row["time"]),
        **stream._asdict(),
        name=row["name"],
        size=(row["width"], row["height"]),
        is_anomalous=bool(row["is_anomalous"]),
        regions=json.loads(row["regions"]),
        classes=json.loads(row["classes"]),
        kept=kept is not None,
        kept_bytes=kept[0] if kept else 0,
        until_delivered=kept is not None and kept[1],
        verdict=verdict,
        **{column: row[column] for column in _SAME},
    )


def verdict_row(decision: int, verdict: NewVerdict, now: datetime) -> dict[str, Any]:
    """Row of the table of verdicts, without its number."""
    return {
        "decision": decision,
        "time": to_microseconds(now),
        "is_right": verdict.is_right,
        "label": None if verdict.label is None else printable(verdict.label),
        "shapes": _as_json([shape.model_dump(mode="json") for shape in verdict.shapes]),
        "operator": printable(verdict.operator),
        "note": _text(verdict.note),
    }


def verdict_of(row: Row) -> Verdict:
    """Verdict of a row."""
    return Verdict(
        id=row["id"],
        decision=row["decision"],
        time=from_microseconds(row["time"]),
        is_right=bool(row["is_right"]),
        label=row["label"],
        shapes=json.loads(row["shapes"]),
        operator=row["operator"],
        note=row["note"],
    )


def _text(text: str) -> str:
    """Text of several lines, each without what no database takes."""
    return "\n".join(printable(line) for line in text.splitlines())


def _as_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
