"""Counts of what disturbances led to, one job at a time, as a JSON document that a later run goes on with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.kill import Outcome

FAULTS = ("lost", "doubled", "differing", "refused", "left_overs", "unresumed", "unclear")
"""Counts that have to be 0."""
SUMS = ("trials", "hits", "missed", "restarts", "recovered", *FAULTS)
EXAMPLES = 3
"""Examples that are kept of each job and fault."""


@dataclass
class Counts:
    """Outcomes of the trials of one job; one trial may have several disturbances, and several faults."""

    operations: int = 0
    """File operations of an undisturbed run."""
    trials: int = 0
    hits: int = 0
    """Disturbances that met a running process."""
    missed: int = 0
    """Processes that ended before they could be disturbed."""
    restarts: int = 0
    """Commands that were typed after a disturbance."""
    recovered: int = 0
    """Trials without any fault."""
    lost: int = 0
    doubled: int = 0
    differing: int = 0
    """Trials after which a file or a record is not that of an undisturbed run."""
    refused: int = 0
    """Trials after which no option that the product offers helps."""
    left_overs: int = 0
    """Trials that left a temporary file, a lock, or a process."""
    unresumed: int = 0
    """Trials in which a checkpoint was there, and the product refused without offering to resume it."""
    unclear: int = 0
    """Trials in which a message was no plain line about the disturbance."""
    seconds: float = 0.0
    """Of the disturbed and the repeated commands."""
    refusals: Counter[tuple[str, tuple[str, ...], str]] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def faults(self) -> dict[str, int]:
        """Number of trials with each fault."""
        return {fault: getattr(self, fault) for fault in FAULTS}

    def add(self, outcome: Outcome) -> None:
        """Count one trial."""
        self.trials += 1
        self.hits += outcome.hits
        self.missed += outcome.missed
        self.restarts += outcome.restarts
        self.seconds += outcome.seconds
        for refusal in outcome.refusals:
            self.refusals[refusal.message, refusal.offered, refusal.helped] += 1
        faults = _faults_of(outcome)
        self.recovered += not faults
        for fault in faults:
            setattr(self, fault, getattr(self, fault) + 1)
            examples = self.examples.setdefault(fault, [])
            if len(examples) < EXAMPLES:
                examples.append(_example(outcome))

    def as_json(self) -> dict[str, Any]:
        """The counts as a JSON document."""
        return {
            "operations": self.operations,
            **{key: getattr(self, key) for key in SUMS},
            "seconds": round(self.seconds, 3),
            "refusals": [
                {"message": message, "offered": list(offered), "helped": helped, "times": count}
                for (message, offered, helped), count in self.refusals.most_common()
            ],
            "examples": self.examples,
        }


def from_json(document: Mapping[str, Any]) -> Counts:
    """The counts of :meth:`Counts.as_json`."""
    refusals = Counter(
        {(one["message"], tuple(one["offered"]), one["helped"]): one["times"] for one in document["refusals"]}
    )
    return Counts(**{**document, "refusals": refusals})


def total(counts: Mapping[str, Counts]) -> dict[str, int]:
    """Counts over all jobs."""
    return {key: sum(getattr(count, key) for count in counts.values()) for key in SUMS}


def in_words(counts: Mapping[str, int]) -> str:
    """Counts as a phrase."""
    return ", ".join(f"{count} {key.replace('_', ' ')}" for key, count in counts.items())


def _faults_of(outcome: Outcome) -> list[str]:
    found = outcome.found
    has = {
        "lost": bool(found.lost),
        "doubled": bool(found.doubled),
        "differing": bool(found.wrong),
        "refused": not outcome.recovered,
        "left_overs": bool(found.left_overs),
        "unresumed": outcome.unresumed,
        "unclear": bool(outcome.unclear),
    }
    return [fault for fault, there in has.items() if there]


def _example(outcome: Outcome) -> dict[str, Any]:
    lines = outcome.found.lines
    return {
        "disturbed": outcome.at,
        "refusals": [
            f"{refusal.message} → {refusal.helped or 'none helped'}" for refusal in outcome.refusals
        ],
        "differences": [*lines[:8], *([f"and {len(lines) - 8} more"] if len(lines) > 8 else [])],
        "unclear": outcome.unclear,
        "last_message": outcome.message,
    }
