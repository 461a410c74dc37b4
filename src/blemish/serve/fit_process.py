"""Process of a fit: the commands ``blemish fit`` and ``blemish export``, and the progress that they print."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

PROGRESS_SECONDS = "1"
_COUNT = re.compile(r"  (?:step )?(\d+) of (\d+), (.*)")
_SKIPPED, _ERROR = "skipped ", "blemish: "
_NO_ERRORS = re.compile(r"blemish: (finished, but |.*; go on with: )")
"""Of a fit that left files out, and of one that was asked to stop."""


class FitProgress(BaseModel):
    """Progress of a fit by the lines that it has printed."""

    stage: str = ""
    done: int | None = None
    total: int | None = None
    line: str = ""
    """Newest line of progress, such as the step and the time that is left."""
    problems: list[str] = []
    """Files that could not be used."""
    error: str | None = None

    def take(self, line: str) -> None:
        """Take in a line of standard error.

        >>> progress = FitProgress()
        >>> for line in ("training", "  step 20 of 80, 0:12 left at most, ssim 0.1, 9 images/s"):
        ...     progress.take(line)
        >>> progress.stage, progress.done, progress.total
        ('training', 20, 80)
        """
        line = line.rstrip()
        counted = _COUNT.fullmatch(line)
        if counted:
            self.done, self.total, self.line = int(counted[1]), int(counted[2]), counted[3]
        elif line.startswith(_SKIPPED):
            self.problems.append(line.removeprefix(_SKIPPED))
        elif line.startswith(_ERROR):
            if not _NO_ERRORS.match(line):
                self.error = line.removeprefix(_ERROR)
        elif line:
            self.stage, self.done, self.total, self.line = line.strip(), None, None, ""


def begin(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start ``blemish`` with these words, in a session of its own, with its lines appended to ``log``.

    The process outlives a killed server, which finds it again by :func:`is_alive`. It runs with low priority: the line comes
    first. Settings of the server in the environment, the key among them, are not handed on.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BLEMISH_")}
    environment.pop("FORCE_COLOR", None)
    environment |= {"BLEMISH_PROGRESS_SECONDS": PROGRESS_SECONDS, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    nice = shutil.which("nice")
    words = [sys.executable, "-m", "blemish", *command]
    if nice is not None:
        words = [nice, "-n", "10", *words]
    flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    with log.open("ab") as lines:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=lines,
            env=environment,
            start_new_session=True,
            creationflags=flags,
        )


def ask_to_stop(process: int) -> None:
    """Ask a fit to stop after its step or image, so that it can be resumed."""
    with suppress(OSError):
        os.kill(process, getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))


def is_alive(process: int, folder: Path) -> bool:
    """Whether the process of a fit in ``folder`` still runs; another program that was given its number does not count."""
    words = Path(f"/proc/{process}/cmdline")
    if words.exists():
        try:
            return f"{folder}{os.sep}".encode() in words.read_bytes()
        except OSError:
            return False
    if Path("/proc/self").exists():
        return False
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def new_lines(log: Path, offset: int) -> Iterator[tuple[str, int]]:
    """Whole lines of ``log`` after ``offset`` bytes, each with the offset of its end."""
    try:
        with log.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield line.decode("utf-8", "replace"), offset
    except FileNotFoundError:
        return
