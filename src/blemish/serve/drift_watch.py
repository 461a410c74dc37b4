"""Drift on the line: the sequential test of each model, begun again with each threshold and after many images."""

from __future__ import annotations

from dataclasses import dataclass, field

from blemish.decision.drift import FALSE_ALARM, DriftAlarm
from blemish.inspection.detector import Detector
from blemish.serve.contracts import StoredDecision

SPAN = 10_000
"""Images after which the test begins anew, so that its memory stays bounded; its false-alarm rate is that of one span."""


@dataclass
class Watched:
    """Drift of one model at one threshold."""

    key: tuple[str, float]
    alarm: DriftAlarm
    count: int = 0
    since: int | None = None
    """Number of the first decision of this span."""
    raised_at: int | None = None
    """Number of the decision at which the alarm went off."""


@dataclass
class DriftWatch:
    """Alarms of all models; :meth:`update` is called by one thread."""

    false_alarm: float = FALSE_ALARM
    _watched: dict[str, Watched] = field(default_factory=dict)

    def update(self, decision: StoredDecision, detector: Detector) -> bool:
        """Take one decision in; True at the image at which the alarm goes off.

        Images of another kind do not count: they are rejected whatever they score.
        """
        if decision.other_kind is not None:
            return False
        watched = self._of(decision, detector)
        watched.count += 1
        if watched.since is None:
            watched.since = decision.id
        if watched.alarm.update(decision.score) and watched.raised_at is None:
            watched.raised_at = decision.id
            return True
        return False

    def state(self, model: str) -> dict[str, object]:
        """For the page: ``{"is_drifting": bool, "images": int, "since": number, "raised_at": number, "capital": float}``."""
        watched = self._watched.get(model)
        if watched is None:
            return {"is_drifting": False, "images": 0, "since": None, "raised_at": None, "capital": 1.0}
        return {
            "is_drifting": watched.alarm.gone_off,
            "images": watched.count,
            "since": watched.since,
            "raised_at": watched.raised_at,
            "capital": watched.alarm.capital,
        }

    def _of(self, decision: StoredDecision, detector: Detector) -> Watched:
        key = (decision.model_sha256, decision.threshold)
        found = self._watched.get(decision.model)
        if found is None or found.key != key or found.count >= SPAN:
            alarm = DriftAlarm(
                detector.decision.calibration.scores, decision.threshold, false_alarm=self.false_alarm
            )
            found = self._watched[decision.model] = Watched(key, alarm)
        return found
