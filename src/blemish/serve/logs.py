"""Log of the server: one JSON object a line, in files that are rotated."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from pathlib import Path

from blemish.errors import ServeError, printable
from blemish.serve.settings import LogSettings

LOG_FILE = "server.log"
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
    logging.raiseExceptions = (
        False  # or each line that does not fit on the disk would be a traceback on the console
    )
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
