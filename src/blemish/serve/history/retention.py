"""Retention: old images, and old decisions, are removed by age and size; never what a sink still owes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Connection, delete, func, select

from blemish.serve.contracts import utc_now
from blemish.serve.history.history import History
from blemish.serve.history.kept_images import KeptImages
from blemish.serve.history.rows import HOUR, from_microseconds, to_microseconds
from blemish.serve.history.sums import take_out
from blemish.serve.history.tables import decisions, deliveries, hours, kept_images, outbox, verdicts

_AT_ONCE = 500
"""Decisions that one transaction removes, so that the line need not wait for long."""
_NEWEST = 21
"""Decisions by whose times the clock is judged."""
_SLACK = timedelta(days=1)


class RetentionRule(BaseModel):
    """How long images and decisions are kept; None is without end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_days: float | None = Field(default=None, gt=0, le=36_500)
    """Days after which images and maps are removed."""
    image_bytes: int | None = Field(default=None, ge=0)
    """Size of all kept images and maps; above it the oldest are removed."""
    judged_image_days: float | None = Field(default=None, gt=0, le=36_500)
    """The days of images with a verdict, in place of :attr:`image_days`; above :attr:`image_bytes` they are removed
    last."""
    decision_days: float | None = Field(default=None, gt=0, le=36_500)
    """Days after which the decisions themselves are removed, with their verdicts."""
    keep_judged: bool = True
    """Whether decisions with a verdict stay, whatever their age."""


class Removed(NamedTuple):
    """What a clean-up removed."""

    images: int
    bytes: int
    decisions: int

    def in_words(self) -> str:
        """One line."""
        return (
            f"Removed {self.images} image{'s' * (self.images != 1)} ({self.bytes / 1e6:.1f} MB) and "
            f"{self.decisions} decision{'s' * (self.decisions != 1)}."
        )


def prune(history: History, images: KeptImages, rule: RetentionRule, now: datetime | None = None) -> Removed:
    """Remove what the rule no longer keeps, the oldest first, beside a server or in it.

    Files go before their rows, so that a full disk can be cleared. What a sink still owes stays, and is removed by
    a later clean-up. Ages count from ``now``, but no later than a day after the median time of the newest decisions: a
    clock that jumps ahead removes nothing until the line has run on with it.

    Raises
    ------
    HistoryError
        When the history cannot be read or written.
    """
    with history.database.reading() as connection:
        now = _clock(connection, now or utc_now())
    cleaning = _Cleaning(history, images)
    cleaning.remove_images(kept_images.c.until_delivered)
    for days, of_these in ((rule.image_days, ~_IS_JUDGED), (rule.judged_image_days, _IS_JUDGED)):
        if days is not None:
            cleaning.remove_images(of_these, before=to_microseconds(now - timedelta(days=days)))
    if rule.image_bytes is not None:
        for of_these in (~_IS_JUDGED, _IS_JUDGED):
            cleaning.remove_images(of_these, down_to=rule.image_bytes)
    if rule.decision_days is not None:
        before = to_microseconds(now - timedelta(days=rule.decision_days))
        cleaning.remove_decisions(before, keep_judged=rule.keep_judged)
    cleaning.remove_strays()
    return Removed(cleaning.images_removed, cleaning.bytes_removed, cleaning.decisions_removed)


_IS_OWED = select(outbox.c.id).where(outbox.c.decision == decisions.c.id).exists()
_IS_JUDGED = select(verdicts.c.id).where(verdicts.c.decision == decisions.c.id).exists()


def _clock(connection: Connection, now: datetime) -> datetime:
    query = select(decisions.c.time).order_by(decisions.c.id.desc()).limit(_NEWEST)
    newest = connection.execute(query).scalars().all()
    return min(now, from_microseconds(int(statistics.median(newest))) + _SLACK) if newest else now


class _Cleaning:
    """One clean-up, in many short transactions."""

    def __init__(self, history: History, images: KeptImages) -> None:
        self._history, self._images = history, images
        self.images_removed = self.bytes_removed = self.decisions_removed = 0

    def remove_images(
        self, *conditions: ColumnElement[bool], before: int | None = None, down_to: int | None = None
    ) -> None:
        """Remove the oldest images for which the conditions hold.

        Parameters
        ----------
        before: removes those of earlier times alone.
        down_to: ends once no more bytes than this are left.
        """
        over = None if down_to is None else self._size() - down_to
        if before is not None:
            conditions = (
                *conditions,
                decisions.c.time < before,
                kept_images.c.decision <= self._last(before),
            )
        query = (
            select(kept_images.c.decision, kept_images.c.key, kept_images.c.bytes)
            .join(decisions, decisions.c.id == kept_images.c.decision)
            .where(~_IS_OWED, *conditions)
            .order_by(kept_images.c.decision)
            .limit(_AT_ONCE)
        )
        while over is None or over > 0:
            with self._history.database.reading() as connection:
                found = connection.execute(query).all()
            chosen = []
            for number, key, size in found:
                if over is not None:
                    if over <= 0:
                        break
                    over -= size
                chosen.append((number, key))
            if not chosen:
                return
            self._remove_files(chosen)

    def remove_decisions(self, before: int, *, keep_judged: bool) -> None:
        """Remove decisions of times ``before``, with their images, verdicts and deliveries."""
        conditions = [decisions.c.time < before, ~_IS_OWED, *([~_IS_JUDGED] if keep_judged else [])]
        begin, last = -1, self._last(before)
        while True:
            with self._history.database.reading() as connection:
                query = select(decisions.c.id).where(
                    decisions.c.id > begin, decisions.c.id <= last, *conditions
                )
                numbers = connection.execute(query.order_by(decisions.c.id).limit(_AT_ONCE)).scalars().all()
                kept = connection.execute(
                    select(kept_images.c.decision, kept_images.c.key).where(
                        kept_images.c.decision.in_(numbers)
                    )
                ).all()
            if not numbers:
                return
            self._remove_files([(number, key) for number, key in kept])
            self._history.database.write(partial(_remove_rows, numbers))
            self.decisions_removed += len(numbers)
            begin = numbers[-1]

    def remove_strays(self) -> None:
        """Remove files of decisions that were never stored, a day after they were written, and those of a killed server."""
        self._images.remove_leftovers()
        limit = time.time() - _SLACK.total_seconds()
        some: dict[str, list[Path]] = {}
        for key, paths in self._images.by_key():
            if max(_written(path) for path in paths) < limit:
                some[key] = paths
            if len(some) == _AT_ONCE:
                self._remove_unknown(some)
                some = {}
        self._remove_unknown(some)

    def _remove_unknown(self, some: dict[str, list[Path]]) -> None:
        with self._history.database.reading() as connection:
            query = select(kept_images.c.key).where(kept_images.c.key.in_(list(some)))
            known = set(connection.execute(query).scalars())
        for key in some.keys() - known:
            self.bytes_removed += self._images.remove(key)

    def _remove_files(self, chosen: Sequence[tuple[int, str]]) -> None:
        self.bytes_removed += sum(self._images.remove(key) for _, key in chosen)
        numbers = [number for number, _ in chosen]
        self._history.database.write(
            lambda connection: connection.execute(
                delete(kept_images).where(kept_images.c.decision.in_(numbers))
            )
        )
        self.images_removed += len(chosen)

    def _last(self, before: int) -> int:
        """Largest number that a decision of an earlier time may have; without it, all younger ones would be looked at."""
        query = select(func.max(hours.c.last_id)).where(hours.c.hour <= before // HOUR)
        with self._history.database.reading() as connection:
            found = connection.execute(query).scalar()
        return -1 if found is None else int(found)

    def _size(self) -> int:
        with self._history.database.reading() as connection:
            return int(connection.execute(select(func.sum(kept_images.c.bytes))).scalar() or 0)


def _remove_rows(numbers: Sequence[int], connection: Connection) -> None:
    """Remove decisions and what belongs to them, and take them out of the sums of their hours."""
    columns = [decisions.c[name] for name in ("id", "time", "stream", "is_anomalous", "score", "other_kind")]
    rows = connection.execute(select(*columns).where(decisions.c.id.in_(numbers))).mappings().all()
    take_out(connection, rows)
    for table in (verdicts, deliveries):
        connection.execute(delete(table).where(table.c.decision.in_(numbers)))
    connection.execute(delete(decisions).where(decisions.c.id.in_(numbers)))


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
