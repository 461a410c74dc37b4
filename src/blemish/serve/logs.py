"""Log of the server: one JSON object a line, in files that are rotated."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
import threading
from contextlib import suppress
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from pathlib import Path

from blemish.errors import ServeError, printable
from blemish.serve.settings import LogSettings

LOG_FILE = "server.log"
WAITING = 10_000
"""Records that wait to be written."""
CLOSE_SECONDS = 2.0
LOGGER = logging.getLogger("blemish.serve")
"""Logger of the server; fields go by ``extra={"fields": {…}}``."""


class JsonLines(logging.Formatter):
    """Records as JSON objects with ``time`` (UTC, ISO 8601), ``level``, ``message`` and their own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.name != LOGGER.name:
            line["logger"] = record.name
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class ConsoleLines(logging.Formatter):
    """Records as lines for people, with control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
        line = f"{time} {record.levelname.lower()}: {record.getMessage()}" + (
            f" ({fields})" if fields else ""
        )
        if record.exc_info:
            return f"{printable(line)}\n{self.formatException(record.exc_info)}"
        return printable(line)


class BackgroundHandler(logging.handlers.QueueHandler):
    """Hands records to another handler in a thread of its own.

    A disk that hangs, or a terminal that somebody has stopped, would hold up all requests otherwise. Records that find the
    queue full are left out.
    """

    def __init__(self, handler: logging.Handler) -> None:
        self._records: queue.Queue[logging.LogRecord | None] = queue.Queue(WAITING)
        super().__init__(self._records)
        self._handler = handler
        self.setLevel(handler.level)
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """The record as it is: it stays in this process."""
        return record

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave the record out."""

    def close(self) -> None:
        """Write what waits, as far as it can be written within :data:`CLOSE_SECONDS`."""
        with suppress(queue.Full):
            self._records.put(None, timeout=CLOSE_SECONDS)
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            with suppress(OSError):  # of a full disk, which has no room for the last lines either
                self._handler.close()
        super().close()

    def _write(self) -> None:
        while (record := self._records.get()) is not None:
            self._handler.handle(record)


def open_log(home: Path, settings: LogSettings) -> list[logging.Handler]:
    """Write the log into ``server.log`` in the folder ``home``, and to standard error where asked for.

    A file that cannot be written any more, as on a full disk, stops no request.

    Raises
    ------
    ServeError
        When the file cannot be made.
    """
    path = home / LOG_FILE
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = RotatingFileHandler(
            path,
            maxBytes=settings.max_bytes,
            backupCount=settings.files,
            encoding="utf-8",
            errors="backslashreplace",
        )
    except OSError as error:
        raise ServeError(
            f"{path}: cannot be written ({error.strerror or error}); name another folder by --home"
        ) from None
    file.setFormatter(JsonLines())
    handlers: list[logging.Handler] = [file]
    if settings.console:
        console = logging.StreamHandler(sys.stderr)
        console.setFormatter(ConsoleLines())
        console.setLevel(logging.WARNING)
        # Whoever scans the ports of a network sends nonsense, which is no matter of the console.
        console.addFilter(lambda record: record.name == LOGGER.name or record.levelno >= logging.ERROR)
        handlers.append(console)
    handlers = [BackgroundHandler(handler) for handler in handlers]
    # Or each line that does not fit on the disk would be a traceback on the console.
    logging.raiseExceptions = False
    # It warns of each form that is none; the answer says so, and the log has the request.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    for name in (LOGGER.name, "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.setLevel(settings.level)
        logger.propagate = False
        for handler in handlers:
            logger.addHandler(handler)
    return handlers


def close_log(handlers: list[logging.Handler]) -> None:
    """Write what is left, and let go of the files of :func:`open_log`."""
    for handler in handlers:
        for name in (LOGGER.name, "uvicorn.error"):
            logging.getLogger(name).removeHandler(handler)
        handler.close()
