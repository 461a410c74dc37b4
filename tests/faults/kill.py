"""A kill: one command ended by SIGKILL, typed again, and its end state compared with that of an undisturbed run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.end_state import Content, Differences, differences, read_state
from tests.faults.fork_server import Command, Ended, ForkServer
from tests.faults.inputs import with_inputs
from tests.faults.scenarios import Scenario

OPTIONS = ("--resume", "--overwrite")
"""Options that a message may offer after a kill, in the order in which they are tried."""


@dataclass(frozen=True)
class Place:
    """Moment of a kill: as a share of the file operations, or of the time, of the undisturbed run."""

    share: float
    """0 to 1."""
    by_operation: bool

    def earlier(self) -> Place:
        """Half of it, for a run that had ended before."""
        return Place(self.share / 2, self.by_operation)


@dataclass(frozen=True)
class Undisturbed:
    """What a scenario does when nothing disturbs it."""

    code: int
    operations: int
    seconds: float
    state: dict[str, Content]


@dataclass(frozen=True)
class Refusal:
    """A message with which the product refused, and what followed."""

    message: str
    offered: tuple[str, ...]
    """Options in the message."""
    helped: str
    """The one that helped; empty where none did."""


@dataclass(frozen=True)
class Outcome:
    """What a kill led to."""

    scenario: str
    at: str
    """Moment of the kill in words."""
    refusals: tuple[Refusal, ...]
    found: Differences
    recovered: bool
    """True if a command that the product offers ends as the undisturbed run does, whatever it leaves."""
    unresumed: bool
    """True if the product refused without a word of ``--resume``, although a checkpoint was there."""
    seconds: float
    message: str
    """Last line of the last command."""


class Bench:
    """A fork server, and the folders in which its runs take place."""

    def __init__(self, server: ForkServer, inputs: Path, folder: Path) -> None:
        self.server, self.inputs = server, inputs
        self._folder, self._log = folder / "run", folder / "log"
        for made in (inputs, folder):
            made.mkdir(parents=True, exist_ok=True)

    def undisturbed(self, scenario: Scenario) -> Undisturbed:
        """Run a scenario to its end.

        Raises
        ------
        RuntimeError
            When it does not end with code 0.
        """
        self._begin(scenario)
        ended = self._type(scenario, scenario.words)
        if ended.code != 0:
            raise RuntimeError(f"{scenario.name}: ended with code {ended.code} undisturbed:\n{self._said()}")
        return Undisturbed(ended.code, ended.operations, ended.seconds, read_state(self._folder))

    def kill(self, scenario: Scenario, reference: Undisturbed, place: Place) -> Outcome:
        """Kill a scenario at ``place``, type its command again, and compare.

        Raises
        ------
        RuntimeError
            When it always ends before it can be killed.
        """
        for _ in range(8):
            self._begin(scenario)
            killed = self._type(scenario, scenario.words, *_moment(place, reference))
            if killed.killed:
                break
            place = place.earlier()
        else:
            raise RuntimeError(f"{scenario.name}: ended before it could be killed:\n{self._said()}")
        has_checkpoint = any(self._folder.rglob("checkpoint/**/state.json"))
        ended = self._type(scenario, scenario.after)
        seconds = killed.seconds + ended.seconds
        refusals: tuple[Refusal, ...] = ()
        unresumed = False
        if ended.code != reference.code:
            message = self._said()
            offered = tuple(option for option in OPTIONS if option in message)
            unresumed = has_checkpoint and "--resume" not in offered
            helped = ""
            for option in offered:
                ended = self._type(scenario, (*scenario.after, option))
                seconds += ended.seconds
                if ended.code == reference.code:
                    helped = option
                    break
            refusals = (Refusal(self._in_general(message), offered, helped),)
        recovered = ended.code == reference.code
        return Outcome(
            scenario=scenario.name,
            at=_in_words(killed, place, reference),
            refusals=refusals,
            found=differences(reference.state, read_state(self._folder)) if recovered else Differences(),
            recovered=recovered,
            unresumed=unresumed,
            seconds=seconds,
            message=_last_line(self._said()),
        )

    def _begin(self, scenario: Scenario) -> None:
        """Make the folder of a run, with what is there before it."""
        if self._folder.exists():
            shutil.rmtree(self._folder)
        self._folder.mkdir()
        for name, there in scenario.before:
            shutil.copytree(self.inputs / name, self._folder / there)

    def _type(
        self,
        scenario: Scenario,
        words: Sequence[str],
        kill_at: int | None = None,
        kill_after: float | None = None,
    ) -> Ended:
        return self.server.run(
            Command(
                with_inputs(words, self.inputs),
                str(self._folder),
                str(self._log),
                kill_at,
                kill_after,
                scenario.entry,
            )
        )

    def _said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace").strip()

    def _in_general(self, message: str) -> str:
        """The last line of a message, without what is of this run alone."""
        line = _last_line(message).replace(str(self._folder), "FOLDER").replace(str(self.inputs), "INPUTS")
        return re.sub(r"\d+(\.\d+)?", "N", line)


def _moment(place: Place, reference: Undisturbed) -> tuple[int | None, float | None]:
    """Number of the file operation, or seconds."""
    if place.by_operation:
        return 1 + int(place.share * reference.operations), None
    return None, place.share * reference.seconds


def _in_words(killed: Ended, place: Place, reference: Undisturbed) -> str:
    if place.by_operation:
        return f"before operation {killed.operations} of {reference.operations}, {killed.last}"
    return f"after {place.share * reference.seconds:.3f} of {reference.seconds:.3f} s"


def _last_line(text: str) -> str:
    return text.rsplit("\n", 1)[-1]
