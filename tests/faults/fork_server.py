"""Fork server: a process that has loaded torch and Blemish once, and forks a child for each command.

A child runs the command line of the product in a folder of its own, as a process that a user started would, and is sent
SIGKILL at a chosen file operation or after a chosen time. Linux alone: it waits by ``pidfd_open``, and finds the folder
of an operation that is relative to a descriptor in ``/proc``.

The server reads requests as lines of JSON from its standard input, and answers each with one line.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

ENTRY = "blemish.__main__:main"
TIME_LIMIT = 300.0
"""Seconds after which a command counts as one that does not end."""
SETTLE_LIMIT = 90.0
"""Seconds after which a process that a killed command left counts as one that does not end; agents of Ray take 60 to notice."""
ROOT = Path(__file__).resolve().parents[2]

_PR_SET_CHILD_SUBREAPER = 36  # of linux/prctl.h
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Audit events of file operations, the number of their paths, and the place of the descriptors these are relative to.
_OPERATIONS = {
    "os.chmod": (1, 2),
    "os.link": (2, 2),
    "os.mkdir": (1, 2),
    "os.remove": (1, 1),
    "os.rename": (2, 2),
    "os.rmdir": (1, 1),
    "os.symlink": (2, 2),
    "os.truncate": (1, None),
    "shutil.rmtree": (1, 1),
}
_READINGS = frozenset({"open", "os.listdir", "os.scandir"})
# Constants of the trainer that no setting reaches, in the server alone: a checkpoint at every look, so that kills fall
# between checkpoints of a training of seconds, and few held-out patches, for time.
_CONSTANTS = {"CHECKPOINT_SECONDS": 0.0, "VALIDATION_PATCHES": 4}


@dataclass(frozen=True)
class Command:
    """A command, where it runs, and when it is killed."""

    words: tuple[str, ...]
    folder: str
    """Working folder; operations below it are counted, and ``tmp`` in it is the folder for temporary files."""
    log: str
    """Path of a file for stdout and stderr, outside of ``folder``."""
    kill_at: int | None = None
    """Number of the file operation before which it is killed, from 1."""
    kill_after: float | None = None
    """Seconds after which it is killed."""
    entry: str = ENTRY
    """Module and function, separated by a colon."""
    read: str = ""
    """Folder of which readings and listings count as operations too."""
    victim: str = ""
    """File that changes under the command at an operation."""
    substitute: str = ""
    """File whose content the victim gets; without one the victim vanishes."""
    change_at: int | None = None
    """Number of the operation before which the victim changes, from 1."""


@dataclass(frozen=True)
class Ended:
    """End of a command."""

    code: int
    """Exit code; that of a killed one is the number of the signal, negative."""
    operations: int
    """File operations until its end, or until it was killed by one; 0 where it was killed after a time."""
    last: str
    """The operation before which it was killed, in words."""
    seconds: float
    timed_out: bool = False

    @property
    def killed(self) -> bool:
        """True if it was killed as asked, and not for want of time."""
        return self.code == -signal.SIGKILL and not self.timed_out


class ForkServer:
    """A running fork server; one command runs at a time. It loads Blemish before its first command of the product."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            # Messages are searched for options, so none may be broken into lines.
            "COLUMNS": "1000",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            text=True,
        )

    def run(self, command: Command) -> Ended:
        """Run one command to its end.

        Raises
        ------
        RuntimeError
            When the server has ended.
        """
        return Ended(**self._answer(asdict(command)))

    def settle(self) -> int:
        """Wait for processes that killed commands left; the number of those that do not end, which are killed.

        Raises
        ------
        RuntimeError
            When the server has ended.
        """
        left: int = self._answer({})["left"]
        return left

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"the fork server has ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the server."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# -- in the server -------------------------------------------------------------------------------------


def serve() -> None:
    """Answer requests until the standard input ends."""
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    loaded = False
    # Worker processes of a killed command become children of this one, which can then wait for them.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    for line in sys.stdin:
        request = json.loads(line)
        if not request:
            os.write(answers, json.dumps({"left": _settle()}).encode() + b"\n")
            continue
        command = Command(**{**request, "words": tuple(request["words"])})
        if command.entry == ENTRY and not loaded:
            _load()
            loaded = True
        os.write(answers, json.dumps(asdict(_run(command))).encode() + b"\n")


def _load() -> None:
    """Import every module of the package, compile the functions of the JPEG encoder, and set the constants."""
    import numpy as np
    import torch

    import blemish

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(blemish.__path__, "blemish."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    from blemish.decision import PixelMetrics, bootstrap_interval
    from blemish.jpeg.encoder import Encoder

    Encoder().encode(np.zeros((16, 16, 3), np.uint8), quality=50)
    trainer = importlib.import_module("blemish.training.trainer")
    for name, value in _CONSTANTS.items():
        _set(trainer, name, value)
    evaluating = importlib.import_module("blemish.evaluation.evaluate")
    _set(evaluating, "PixelMetrics", partial(PixelMetrics, resamples=20))
    figures = importlib.import_module("blemish.evaluation.figures")
    _set(figures, "bootstrap_interval", partial(bootstrap_interval, resamples=20))
    gc.freeze()  # else a collection in a child copies all pages


def _set(module: Any, name: str, value: Any) -> None:
    if not hasattr(module, name):
        raise AttributeError(f"{module.__name__} has no {name}; the fork server is out of date")
    setattr(module, name, value)


def _run(command: Command) -> Ended:
    """Fork a child for ``command``, kill it when its time has come, and wait for its end."""
    reading, writing = os.pipe()
    begun = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _become(command, writing)
    os.close(writing)
    ending = os.pidfd_open(child)
    limit = TIME_LIMIT if command.kill_after is None else command.kill_after
    ended = bool(select.select([ending], [], [], limit)[0])
    if not ended:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    seconds = time.perf_counter() - begun
    os.close(ending)
    with open(reading, encoding="utf-8") as pipe:
        told = pipe.read()
    operations, _, last = told.partition(" ")
    return Ended(
        code=os.waitstatus_to_exitcode(status),
        operations=int(operations or 0),
        last=last,
        seconds=seconds,
        timed_out=not ended and command.kill_after is None,
    )


def _settle() -> int:
    """Wait for all children, and kill those that do not end; their number."""
    until = time.monotonic() + SETTLE_LIMIT
    left = 0
    while True:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return left
        if found == 0 and time.monotonic() > until:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
            for child in map(int, children):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            left += len(children)
        elif found == 0:
            time.sleep(0.02)


# -- in the child --------------------------------------------------------------------------------------


def _become(command: Command, pipe: int) -> NoReturn:
    """Run ``command`` in this process, which ends with it."""
    code = 1
    operations = _Operations(command, pipe)
    try:
        _set_up(command)
        sys.addaudithook(operations)
        module, _, name = command.entry.partition(":")
        try:
            getattr(importlib.import_module(module), name)()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        operations.tell()
        os._exit(code)  # without the end of the server


def _set_up(command: Command) -> None:
    """Give this process streams, a folder, a temporary folder and random numbers of its own."""
    log = os.open(command.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 -- open as long as the process
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    temporary = os.path.join(command.folder, "tmp")
    os.makedirs(temporary, exist_ok=True)
    os.environ["TMPDIR"] = temporary
    tempfile.tempdir = (
        temporary  # else Python tries out the folder with a file, which is no file of the product
    )
    os.chdir(command.folder)
    sys.argv = ["blemish", *command.words]
    # Children of one server would else share their unseeded numbers, and seem to be deterministic.
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


class _Operations:
    """Audit hook that counts file operations below a folder, and kills its process or changes an input at one of them."""

    def __init__(self, command: Command, pipe: int) -> None:
        self._command, self._pipe, self._count, self._is_busy = command, pipe, 0, False
        self._root = os.path.join(os.path.realpath(command.folder), "")
        self._read = os.path.join(os.path.realpath(command.read), "") if command.read else ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._is_busy:
            return
        below = [
            path for path in _paths_of(event, arguments) if os.path.join(path, "").startswith(self._root)
        ]
        if self._read and event in _READINGS and isinstance(arguments[0], str | os.PathLike):
            path = os.path.abspath(os.fspath(arguments[0]))
            below += [path] if os.path.join(path, "").startswith(self._read) else []
        if not below:
            return
        self._count += 1
        last = f"{event} {os.path.relpath(below[-1], self._root)}"
        if self._count == self._command.kill_at:
            self.tell(last)
            os.kill(os.getpid(), signal.SIGKILL)
        if self._count == self._command.change_at:
            self._is_busy = True
            change(self._command.victim, self._command.substitute)
            self._is_busy = False

    def tell(self, last: str = "") -> None:
        """Write the count to the server, and the operation before which this process ends."""
        os.write(self._pipe, f"{self._count} {last}".encode("utf-8", "backslashreplace"))


def change(victim: str, substitute: str) -> None:
    """Let ``victim`` vanish, or give it the content of ``substitute``, as one who saves it in place does."""
    if substitute:
        content = Path(substitute).read_bytes()
        with open(victim, "wb") as file:
            file.write(content)
    elif os.path.exists(victim):
        os.unlink(victim)


def _paths_of(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """Absolute paths that an operation is about to change; none for events that change no file."""
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, int) or not isinstance(flags, int) or not flags & _WRITING:
            return []
        return [os.path.abspath(os.fsdecode(path))]
    if event not in _OPERATIONS:
        return []
    count, at = _OPERATIONS[event]
    paths = []
    for number, path in enumerate(arguments[:count]):
        if isinstance(path, int):
            continue
        descriptor = None if at is None or len(arguments) <= at + number else arguments[at + number]
        folder = (
            os.readlink(f"/proc/self/fd/{descriptor}")
            if isinstance(descriptor, int) and descriptor >= 0
            else ""
        )
        paths.append(os.path.abspath(os.path.join(folder, os.fsdecode(path))))
    return paths


if __name__ == "__main__":
    serve()
