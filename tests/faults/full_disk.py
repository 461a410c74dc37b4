"""Full disks: a command on a disk that is too small for it, and again when there is room."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from types import TracebackType

from tests.faults.kill import Bench, Outcome, Repetition, Undisturbed, last_line
from tests.faults.scenarios import Scenario

PAGE = os.sysconf("SC_PAGE_SIZE")
ROOM = 256 * 2**20
"""Bytes of a disk on which everything has room."""


class SmallDisk:
    """A disk in memory (tmpfs), whose size can be changed while it is in use. Only root can mount it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        _mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder))

    def resize(self, size: int) -> None:
        """Give it ``size`` bytes; never fewer than are used."""
        size = max(size, self.used(), PAGE)  # 0 would be no limit
        _mount("-o", f"remount,size={size}", str(self.folder))

    def used(self) -> int:
        """Bytes that are used."""
        state = os.statvfs(self.folder)
        return (state.f_blocks - state.f_bfree) * state.f_frsize

    def close(self) -> None:
        """Take it away with its content."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def __enter__(self) -> SmallDisk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def why_not(folder: Path) -> str | None:
    """Why no disk can be mounted at ``folder``; None where one can."""
    try:
        SmallDisk(folder).close()
    except (OSError, RuntimeError) as error:
        return str(error)
    return None


def fill(bench: Bench, disk: SmallDisk, scenario: Scenario, reference: Undisturbed, size: int) -> Outcome:
    """Run a scenario on a disk of ``size`` bytes, make room, type it again, and compare.

    A command that goes on when there is room again gets it while it runs.
    """
    bench.begin(scenario)
    disk.resize(size)
    relief = threading.Timer(2 * reference.seconds, disk.resize, [ROOM])
    if scenario.goes_on:
        relief.start()
    ended = bench.type(scenario, scenario.words)
    relief.cancel()
    if relief.ident is not None:
        relief.join()
    disk.resize(ROOM)
    again = Repetition(ended)
    unclear = "" if ended.code == reference.code else _unclear(bench.said(), ended.timed_out)
    if ended.code != reference.code:
        bench.type_again(scenario, reference, again)
    outcome = bench.outcome(
        scenario,
        reference,
        again,
        at=f"disk of {size} bytes",
        hits=int(ended.code != reference.code or scenario.goes_on),
        missed=int(ended.code == reference.code and not scenario.goes_on),
        unclear=unclear,
        seconds=ended.seconds + again.seconds,
    )
    lost = [line for line in outcome.found.lost if not _is_one_of(line, scenario.not_kept)]
    return replace(outcome, found=replace(outcome.found, lost=lost))


def _is_one_of(line: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(line, pattern) for pattern in patterns)


def _unclear(said: str, timed_out: bool) -> str:
    """What is wrong with the message of a command that met a full disk; empty where it says so in one line."""
    if timed_out:
        return "did not end"
    if "Traceback" in said:
        return f"a traceback: {last_line(said)}"
    names_it = any(word in last_line(said) for word in ("is full", "space"))
    return "" if names_it else f"does not say that the disk is full: {last_line(said)}"


def _mount(*words: str) -> None:
    ran = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise RuntimeError(f"mount: {ran.stderr.strip()}")
