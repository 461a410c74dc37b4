"""Kills: a command ended by SIGKILL, typed again, perhaps killed again, and its end state compared with an undisturbed run's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.end_state import Content, Differences, differences, read_state
from tests.faults.fork_server import Command, Ended, ForkServer
from tests.faults.inputs import with_inputs
from tests.faults.scenarios import Scenario

OPTIONS = ("--resume", "--overwrite")
"""Options that a message may offer after a kill, in the order in which they are tried."""
REMOVAL = "remove that folder"
"""What a message offers that begins with the path of a folder; tried where no option helps."""


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
    """What a disturbance of one run led to."""

    scenario: str
    at: str
    """Moment of the first disturbance in words."""
    refusals: tuple[Refusal, ...]
    found: Differences
    recovered: bool
    """True if a command that the product offers ends as the undisturbed run does, whatever it leaves."""
    message: str
    """Last line of the last command."""
    hits: int = 1
    """Disturbances that met a running command."""
    missed: int = 0
    """Commands that ended before they could be disturbed."""
    restarts: int = 0
    """Commands that were typed after the first."""
    unresumed: bool = False
    """True if the product refused without a word of ``--resume``, although a checkpoint was there."""
    unclear: str = ""
    """What a disturbed command said that is no plain message about the disturbance."""
    seconds: float = 0.0


@dataclass
class Repetition:
    """The command as it is typed after a disturbance, with the options that messages offered."""

    ended: Ended
    restarts: int = 0
    seconds: float = 0.0
    refusals: list[Refusal] = field(default_factory=list)
    unresumed: bool = False


class Bench:
    """A fork server, and the folders in which its runs take place.

    Parameters
    ----------
    inputs: folder of the inputs, which several benches may share; what commands print goes beside it.
    folder: for the runs, one at a time.
    """

    def __init__(self, server: ForkServer, inputs: Path, folder: Path) -> None:
        self.server, self.inputs = server, inputs
        self.folder = folder / "run"
        self._log = inputs.with_name(f"{folder.name}.log")
        for made in (inputs, folder):
            made.mkdir(parents=True, exist_ok=True)

    def undisturbed(self, scenario: Scenario, read: str = "") -> Undisturbed:
        """Run a scenario to its end; readings in the folder ``read`` are counted as operations too.

        Raises
        ------
        RuntimeError
            When it does not end with code 0.
        """
        self.begin(scenario)
        ended = self.type(scenario, scenario.words, read=read)
        if ended.code != 0:
            raise RuntimeError(f"{scenario.name}: ended with code {ended.code} undisturbed:\n{self.said()}")
        return Undisturbed(ended.code, ended.operations, ended.seconds, self.state(scenario))

    def kill(self, scenario: Scenario, reference: Undisturbed, places: Sequence[Place]) -> Outcome:
        """Kill a scenario at the first place, type its command again and kill that at the next, and so on; compare.

        Raises
        ------
        RuntimeError
            When it always ends before it can be killed.
        """
        place, missed = places[0], 0
        while True:
            self.begin(scenario)
            killed = self.type(scenario, scenario.words, **_moment(place, reference))
            if killed.killed:
                break
            missed += 1
            if missed == 8:
                raise RuntimeError(f"{scenario.name}: ended before it could be killed:\n{self.said()}")
            place = place.earlier()
        at = _in_words(killed, place, reference)
        hits, seconds = 1, killed.seconds
        again = Repetition(killed)
        for later in places[1:]:
            self.type_again(scenario, reference, again, **_moment(later, reference))
            if not again.ended.killed:
                missed += 1
                break
            hits += 1
        if again.ended.killed:
            self.type_again(scenario, reference, again)
        return self.outcome(
            scenario, reference, again, at=at, hits=hits, missed=missed, seconds=seconds + again.seconds
        )

    def outcome(self, scenario: Scenario, reference: Undisturbed, again: Repetition, **more: Any) -> Outcome:
        """Compare the end state with that of an undisturbed run."""
        left = self.server.settle()
        recovered = again.ended.code == reference.code
        found = differences(reference.state, self.state(scenario)) if recovered else Differences()
        if left:
            found.left_overs.append(f"{left} processes")
        return Outcome(
            scenario=scenario.name,
            refusals=tuple(again.refusals),
            found=found,
            recovered=recovered,
            message=last_line(self.said()),
            restarts=again.restarts,
            unresumed=again.unresumed,
            **more,
        )

    def begin(self, scenario: Scenario) -> None:
        """Make the folder of a run, with what is there before it."""
        self.clear()
        for name, there in scenario.before:
            shutil.copytree(self.inputs / name, self.folder / there)

    def clear(self) -> None:
        """Make the folder of a run, empty."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir()

    def type(self, scenario: Scenario, words: Sequence[str], **more: Any) -> Ended:
        """Run a command of a scenario; ``more`` are fields of :class:`Command`."""
        return self.server.run(
            Command(
                with_inputs(words, self.inputs),
                str(self.folder),
                str(self._log),
                entry=scenario.entry,
                **more,
            )
        )

    def type_again(
        self, scenario: Scenario, reference: Undisturbed, again: Repetition, **moment: Any
    ) -> None:
        """Type the command again, killed at ``moment`` if at all, and where it refuses with the options of its message."""
        has_checkpoint = any(self.folder.rglob("checkpoint/**/state.json"))
        ended = self._repeat(scenario, scenario.after, again, moment)
        if ended.killed or ended.code == reference.code:
            return
        message = self.said()
        offered = tuple(option for option in OPTIONS if option in message)
        again.unresumed |= has_checkpoint and "--resume" not in offered
        helped = ""
        for option in offered:
            ended = self._repeat(scenario, (*scenario.after, option), again, moment)
            if ended.killed or ended.code == reference.code:
                helped = option
                break
        if not helped and REMOVAL in message:
            offered += (REMOVAL,)
            self._remove_named(message)
            ended = self._repeat(scenario, scenario.after, again, moment)
            if ended.killed or ended.code == reference.code:
                helped = REMOVAL
        again.refusals.append(Refusal(self._in_general(message), offered, helped))

    def _remove_named(self, message: str) -> None:
        """Remove the folder of the run that a message begins with."""
        named = self.folder / last_line(message).removeprefix("blemish: ").split(": ")[0]
        if self.folder not in named.parents:
            raise RuntimeError(f"a message names {named} for removal, which is no folder of the run")
        shutil.rmtree(named)

    def _repeat(
        self, scenario: Scenario, words: Sequence[str], again: Repetition, moment: dict[str, Any]
    ) -> Ended:
        again.ended = self.type(scenario, words, **moment)
        again.restarts += 1
        again.seconds += again.ended.seconds
        return again.ended

    def state(self, scenario: Scenario) -> dict[str, Content]:
        """What is in the folder of the run."""
        return read_state(self.folder, scenario.ignored)

    def said(self) -> str:
        """What the last command printed."""
        return self._log.read_text(encoding="utf-8", errors="replace").strip()

    def _in_general(self, message: str) -> str:
        """The last line of a message, without what is of this run alone."""
        line = last_line(message).replace(str(self.folder), "FOLDER").replace(str(self.inputs), "INPUTS")
        return re.sub(r"\d+(\.\d+)?", "N", line)


def _moment(place: Place, reference: Undisturbed) -> dict[str, Any]:
    """Number of the file operation, or seconds, as a field of :class:`Command`."""
    if place.by_operation:
        return {"kill_at": 1 + int(place.share * reference.operations)}
    return {"kill_after": place.share * reference.seconds}


def _in_words(killed: Ended, place: Place, reference: Undisturbed) -> str:
    if place.by_operation:
        return f"before operation {killed.operations} of {reference.operations}, {killed.last}"
    return f"after {place.share * reference.seconds:.3f} of {reference.seconds:.3f} s"


def last_line(text: str) -> str:
    """The last line of what a command printed."""
    return text.rsplit("\n", 1)[-1]
