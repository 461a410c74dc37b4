"""Changed inputs: an image vanishes, gets other content, or is cut off while a command reads it; then all is as it was."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.faults.end_state import Content, Record
from tests.faults.fork_server import change
from tests.faults.inputs import IMAGE_FOLDERS
from tests.faults.kill import Bench, Outcome, Repetition, last_line
from tests.faults.scenarios import Scenario

KINDS = ("vanishes", "changes", "is cut off")


def changeable(scenario: Scenario) -> bool:
    """Whether a scenario reads images of an input folder that can be changed, by the same words before and after."""
    return _images_of(scenario) is not None and not scenario.before and not scenario.again


class InputChanges:
    """Trials of one scenario, each with one file that changes under it.

    What a disturbed run writes must be true: each of its records is one that a run on the files of before or of after
    would have written, never one of both, unless it says what could not be read.
    """

    def __init__(self, bench: Bench, scenario: Scenario) -> None:
        self._bench, self._scenario = bench, scenario
        name = _images_of(scenario)
        assert name is not None
        self._folder = bench.inputs / name
        # The second image and one of the last: some are read before them, and some after.
        images = [path for path in sorted(self._folder.rglob("*")) if path.suffix in (".png", ".tif", ".jpg")]
        self._victims = [images[1], images[-2]]
        self._others = bench.inputs.parent / f"others of {scenario.name}"
        if self._others.exists():
            shutil.rmtree(self._others)
        self._others.mkdir(parents=True)
        for victim in self._victims:
            shutil.copy2(victim, self._others / f"original {victim.name}")
            (self._others / f"cut {victim.name}").write_bytes(
                victim.read_bytes()[: victim.stat().st_size // 2]
            )
            shutil.copy(images[0], self._others / f"other {victim.name}")
        self.reference = bench.undisturbed(scenario, str(self._folder))
        self._after: dict[tuple[Path, str], dict[str, Content]] = {}

    def trial(self, share: float, number: int) -> Outcome:
        """Change a file at ``share`` of the operations, put it back, type the command again, and compare."""
        bench, scenario = self._bench, self._scenario
        victim = self._victims[number // len(KINDS) % len(self._victims)]
        kind = KINDS[number % len(KINDS)]
        change_at = 1 + int(share * self.reference.operations)
        possible = self._records_after(victim, kind)
        bench.begin(scenario)
        substitute = self._substitute(victim, kind)
        ended = bench.type(
            scenario, scenario.words,
            read=str(self._folder), victim=str(victim), substitute=substitute, change_at=change_at,
        )  # fmt: skip
        said, found = bench.said(), bench.state(scenario)
        was_hit = not _is_same(victim, self._original(victim))
        self._restore(victim)
        unclear = _unclear(said, ended.code, ended.timed_out, victim) or self._untrue(found, possible)
        again = Repetition(ended)
        bench.type_again(scenario, self.reference, again)
        return bench.outcome(
            scenario,
            self.reference,
            again,
            at=f"{victim.name} {kind} before operation {change_at} of {self.reference.operations}",
            hits=int(was_hit),
            missed=int(not was_hit),
            unclear=unclear,
            seconds=ended.seconds + again.seconds,
        )

    def _substitute(self, victim: Path, kind: str) -> str:
        parts = {"vanishes": "", "changes": "other", "is cut off": "cut"}
        return str(self._others / f"{parts[kind]} {victim.name}") if parts[kind] else ""

    def _original(self, victim: Path) -> Path:
        return self._others / f"original {victim.name}"

    def _restore(self, victim: Path) -> None:
        """Put the file back with its content and its times."""
        temporary = victim.with_name(".original")
        shutil.copy2(self._original(victim), temporary)
        os.replace(temporary, victim)

    def _records_after(self, victim: Path, kind: str) -> dict[str, Content]:
        """End state of a run on the changed files."""
        if (victim, kind) not in self._after:
            change(str(victim), self._substitute(victim, kind))
            self._bench.begin(self._scenario)
            self._bench.type(self._scenario, self._scenario.words)
            self._after[victim, kind] = self._bench.state(self._scenario)
            self._restore(victim)
        return self._after[victim, kind]

    def _untrue(self, found: dict[str, Content], after: dict[str, Content]) -> str:
        """The first record that neither the files of before nor those of after give; empty where there is none."""
        for name, content in found.items():
            if not name.endswith(".jsonl") or not isinstance(content, Counter):
                continue
            known = {**_records(self.reference.state, name), **_records(after, name)}
            for record in content:
                if record not in known and not _says_what_failed(record):
                    return f"a record of no content that the file had: {name}: {record[0]}"
        return ""


def _records(state: dict[str, Content], name: str) -> Counter[Record]:
    content = state.get(name)
    return content if isinstance(content, Counter) else Counter()


def _says_what_failed(record: Record) -> bool:
    try:
        document = json.loads(record[1])
    except ValueError:
        return False
    return isinstance(document, dict) and bool(document.get("error"))


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and one.read_bytes() == other.read_bytes()


def _unclear(said: str, code: int, timed_out: bool, victim: Path) -> str:
    """What is wrong with what a disturbed command printed; empty where it ended well, or named the file or its folder."""
    if timed_out or code < 0:
        return "did not end by itself"
    if "Traceback" in said:
        return f"a traceback: {last_line(said)}"
    if code != 0 and victim.name not in said and victim.parent.name not in said:
        return f"does not name the file: {last_line(said)}"
    return ""


def _image_folders(scenario: Scenario) -> Iterator[str]:
    for name in scenario.inputs:
        if name in IMAGE_FOLDERS:
            yield name


def _images_of(scenario: Scenario) -> str | None:
    return next(_image_folders(scenario), None)
