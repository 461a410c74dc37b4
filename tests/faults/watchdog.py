"""Calls in child processes, watched for time, memory, and an end of the process that nobody asked for.

Each child is forked from this process, in which everything is loaded, and runs a batch of calls. It reports every
outcome through a pipe, so that what kills it is blamed on the right call; the rest of its batch goes to a new child.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import blemish
from blemish.errors import BlemishError

Outcome = Literal["fine", "refused", "wrong", "uncaught", "exit", "hang"]
Call = Callable[[], None]

_MEBIBYTE = 2**20
_POLL = 0.2  # seconds
_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_OWN_CODE = f"{Path(blemish.__file__).parent}{os.sep}"


class Wrong(Exception):
    """A result that is not what it must be."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one call.

    seconds: a longer call is ended, as ``hang``. address_space: bytes of the process. growth: bytes of resident
    memory that a call may take on top of what was there before.
    """

    seconds: float = 60
    address_space: int = 8 * 2**30
    growth: int = 300 * _MEBIBYTE


@dataclass(frozen=True)
class Result:
    """What a call did.

    type and message: of an exception that is neither expected nor caught, or of the end of the process. place: the
    line that raised it, and the last line of Blemish above it. growth: bytes of resident memory at the peak of the
    call on top of those before it.
    """

    index: int
    outcome: Outcome
    type: str = ""
    message: str = ""
    place: str = ""
    growth: int = 0
    seconds: float = 0


@dataclass
class _Child:
    pid: int
    pipe: int
    errors: int
    left: list[int]
    since: float
    text: bytes = b""
    status: int = 0


def watched(
    call: Callable[[int], Call], batches: Sequence[Sequence[int]], limits: Limits, workers: int = 1
) -> Iterator[Result]:
    """Results of ``call(index)()`` for every index of the batches, as they are known.

    Parameters
    ----------
    call: prepares a call in the child, outside what is measured: ``BlemishError`` from what it returns is
        ``refused``, ``Wrong`` is ``wrong``, any other exception ``uncaught``.
    batches: indices, a child process for each batch.
    limits: of each call.
    workers: children at a time.
    """
    waiting = [list(batch) for batch in batches if batch]
    waiting.reverse()
    running: list[_Child] = []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(_start(call, waiting.pop(), limits))
            ready, _, _ = select.select([child.pipe for child in running], [], [], _POLL)
            for child in list(running):
                ended = _has_ended(child)  # before the pipe is emptied, so that nothing is written after it
                yield from _received(child, ended or child.pipe in ready)
                if not ended and time.monotonic() - child.since <= limits.seconds:
                    continue
                running.remove(child)
                yield from _closed(child, ended, limits)
                if child.left:
                    waiting.append(child.left)
    finally:
        for child in running:
            _kill(child)
            os.waitpid(child.pid, 0)


# -- the parent's side ---------------------------------------------------------------------------------


def _start(call: Callable[[int], Call], batch: list[int], limits: Limits) -> _Child:
    read, write = os.pipe()
    errors, name = tempfile.mkstemp()
    os.unlink(name)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _run_batch(call, batch, limits, write, errors)
    os.close(write)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)  # in the child as well: whichever comes first
    os.set_blocking(read, False)
    return _Child(pid, read, errors, batch, time.monotonic())


def _received(child: _Child, readable: bool) -> Iterator[Result]:
    while readable:
        try:
            text = os.read(child.pipe, 2**16)
        except BlockingIOError:
            break
        if not text:
            break
        child.text += text
    *lines, child.text = child.text.split(b"\n")
    for line in lines:
        result = Result(**json.loads(line))
        assert result.index == child.left[0]
        del child.left[0]
        child.since = time.monotonic()
        yield result


def _has_ended(child: _Child) -> bool:
    pid, status = os.waitpid(child.pid, os.WNOHANG)
    if pid:
        child.status = status
    return bool(pid)


def _kill(child: _Child) -> None:
    with contextlib.suppress(ProcessLookupError):  # its own children may be left when it has ended
        os.killpg(child.pid, signal.SIGKILL)


def _closed(child: _Child, ended: bool, limits: Limits) -> Iterator[Result]:
    """Blame a call for the end of the child, unless its batch was finished."""
    _kill(child)
    if not ended:
        os.waitpid(child.pid, 0)
    said = os.pread(child.errors, 2**16, 0).decode(errors="replace").split("\n")
    os.close(child.pipe)
    os.close(child.errors)
    if not child.left:
        return
    index = child.left.pop(0)
    message = next((line.strip() for line in reversed(said) if line.strip()), "")
    if not ended:
        yield Result(index, "hang", f"over {limits.seconds:g} s", message)
        return
    code = os.waitstatus_to_exitcode(child.status)
    kind = signal.Signals(-code).name if code < 0 else f"exit({code})"
    yield Result(index, "exit", kind, message)


# -- the child's side ----------------------------------------------------------------------------------


def _run_batch(
    call: Callable[[int], Call], batch: Sequence[int], limits: Limits, pipe: int, errors: int
) -> None:
    """Run the calls of a batch and end the process."""
    try:
        os.setpgid(0, 0)  # what a call starts ends with it
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        with contextlib.suppress(ValueError, OSError):  # not everywhere can it be limited
            resource.setrlimit(resource.RLIMIT_AS, (limits.address_space, limits.address_space))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for index in batch:
            os.ftruncate(errors, 0)
            os.lseek(errors, 0, os.SEEK_SET)
            result = _measured(index, call(index))  # an error of the preparation ends the child
            os.write(pipe, json.dumps(vars(result)).encode() + b"\n")
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(70)


def _measured(index: int, call: Call) -> Result:
    before = _resident_before()
    begun = time.perf_counter()
    try:
        call()
        result = Result(index, "fine")
    except BlemishError:
        result = Result(index, "refused")
    except Wrong as error:
        result = Result(index, "wrong", "Wrong", _shortened(error), _place(error))
    except BaseException as error:  # SystemExit and panics of extension modules, too
        result = Result(index, "uncaught", type(error).__name__, _shortened(error), _place(error))
    seconds = round(time.perf_counter() - begun, 3)
    return replace(result, growth=max(0, _peak() - before), seconds=seconds)


def _shortened(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(_OWN_CODE)]
    found = [*own[-1:], *frames[-1:]]
    names = [f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}" for frame in found]
    return " > ".join(dict.fromkeys(names))


def _status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise LookupError(field)


def _resident_before() -> int:
    if not _CLEAR_REFS.exists():
        return _peak()
    _CLEAR_REFS.write_text("5")  # the peak becomes what is resident now
    return _status("VmRSS:")


def _peak() -> int:
    if _CLEAR_REFS.exists():
        return _status("VmHWM:")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def measures() -> dict[str, Any]:
    """How time and memory are measured here, for a document of results."""
    return {"resident memory": "VmHWM" if _CLEAR_REFS.exists() else "ru_maxrss"}
