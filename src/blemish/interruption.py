"""Handle Ctrl-C and the system's requests to end as a request to stop: the current step or image is finished first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_REQUESTS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
]
"""Ctrl-C, the end of the machine or service, of the terminal; on Windows Ctrl-Break."""


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a stop was asked for; a second request interrupts at once.

    A request is Ctrl-C, or a signal to end: SIGTERM, or SIGHUP unless it is ignored, as under ``nohup``. Outside the
    main thread signals cannot be caught, and the function always returns False.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def note(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    caught = {
        number: signal.signal(number, note)
        for number in _REQUESTS
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield asked.is_set
    finally:
        for number, before in caught.items():
            signal.signal(number, before)
