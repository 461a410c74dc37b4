"""Lossless optimisation of JPEG data that others made, in a process of its own.

libjpeg ends the process that it runs in when it meets data that it cannot go on with, and no exception handler sees
that. Here such an end is an error of the one file, and the next file gets a new process.

Run as a module, this file is that process: it answers each block of data on its standard input with one on its
standard output, a block being a status byte, the length in 8 bytes, and the content.
"""

from __future__ import annotations

import atexit
import math
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO

from blemish.limits import SECONDS_A_BYTE, SECONDS_OF_NATIVE_CODE

_DONE, _REFUSED = b"\0", b"\1"


class NativeCodeError(Exception):
    """Data that native code refused, that ended its process, or that it took too long with."""


class NativeProcess:
    """The process, started when it is first needed and again after each end.

    Parameters
    ----------
    command: of the process, for tests.
    seconds: that it may take with one file, beside those for its size.
    """

    def __init__(self, command: list[str] | None = None, seconds: float = SECONDS_OF_NATIVE_CODE) -> None:
        self._seconds = seconds
        self._command = command or [sys.executable, "-m", __name__]
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._parent = 0

    def run(self, data: bytes) -> bytes:
        """The answer to ``data``.

        Raises
        ------
        NativeCodeError
            There is none; the message says why.
        """
        with self._lock:
            child = self._running()
            assert child.stdin is not None
            assert child.stdout is not None
            seconds = self._seconds + len(data) * SECONDS_A_BYTE
            late = threading.Timer(seconds, child.kill)
            late.start()
            try:
                _write(child.stdin, _DONE, data)
                found = _read(child.stdout)
            except OSError:  # a broken pipe
                found = None
            finally:
                in_time = late.is_alive()
                late.cancel()
            if found is None:
                self._end(child)
                raise NativeCodeError("it ends the decoder" if in_time else f"it takes over {seconds:.0f} s")
        status, content = found
        if status != _DONE:
            raise NativeCodeError(content.decode(errors="replace"))
        return content

    def close(self) -> None:
        """End the process, if it runs; the next data start another."""
        with self._lock:
            if self._child is not None and self._parent == os.getpid():
                self._end(self._child)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._parent != os.getpid():  # a forked copy must not share the pipes
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Ctrl-C in a terminal is for the main process alone.
                start_new_session=True,
            )
            self._parent = os.getpid()
        return self._child

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._child = None


def _write(pipe: IO[bytes], status: bytes, content: bytes) -> None:
    pipe.write(status + len(content).to_bytes(8, "big"))
    pipe.write(content)
    pipe.flush()


def _read(pipe: IO[bytes]) -> tuple[bytes, bytes] | None:
    """Status and content of one block; None where it breaks off."""
    head = pipe.read(9)
    if len(head) < 9:
        return None
    length = int.from_bytes(head[1:], "big")
    content = pipe.read(length)
    return (head[:1], content) if len(content) == length else None


_optimiser = NativeProcess()
atexit.register(_optimiser.close)


def optimise(data: bytes) -> bytes:
    """The same coefficients in the smallest file that mozjpeg's lossless transcoding makes of them.

    Raises
    ------
    NativeCodeError
        mozjpeg cannot read ``data``.
    """
    return _optimiser.run(data)


def main() -> None:
    """Answer blocks of data until the input ends."""
    import mozjpeg_lossless_optimization

    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while (block := _read(source)) is not None:
        if hasattr(signal, "alarm"):  # ends this process should it outlive the main one
            signal.alarm(math.ceil(SECONDS_OF_NATIVE_CODE + len(block[1]) * SECONDS_A_BYTE) + 1)
        try:
            answer = _DONE, mozjpeg_lossless_optimization.optimize(block[1])
        except Exception as error:  # one refused file must not end the process that serves the others
            answer = _REFUSED, f"{type(error).__name__}: {error}".encode()
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        _write(sink, *answer)


if __name__ == "__main__":
    main()
