"""The line of a server: between its service, its history and its pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from blemish.errors import ServeError
from blemish.serve.contracts import Frame, NewDecision, StoredDecision
from blemish.serve.history import History
from blemish.serve.line.line import LINE_FILE, ProductionLine
from blemish.serve.line.sink_settings import Wants
from blemish.serve.live import Live
from blemish.serve.service import Outcome, Service

LOGS = "line"
"""Folder in the home of the server for what sources note."""
WAIT = 5.0
"""Seconds that a source waits for a place in the queue."""

Files = Callable[[StoredDecision], tuple[bytes | None, bytes | None]]


def open_line(
    file: Path | None,
    home: Path,
    service: Service[Any],
    history: History,
    live: Live,
    files: Files,
) -> ProductionLine:
    """A line that is not started yet.

    Parameters
    ----------
    file: the description; None is ``line.yaml`` in ``home``, which need not be there.
    files: see :data:`~blemish.serve.line.outbox_worker.Files`.

    Raises
    ------
    ServeError
        When ``file`` does not exist.
    """
    if file is not None and not file.is_file():
        raise ServeError(f"{file}: does not exist; write it as in examples/line.yaml, or leave --line out")

    def submit(frame: Frame, model: str | None) -> Future[Outcome]:
        return service.submit(frame, model, wait=WAIT)

    return ProductionLine(
        (file or home / LINE_FILE).absolute(),
        home / LOGS,
        submit,
        list(service.models),
        history,
        files,
        lambda state: live.publish("line", state),
        2 * service.workers,
    )


def sinks_by_source(line: ProductionLine) -> Callable[[NewDecision], Mapping[str, Wants]]:
    """Sinks that are owed a decision, by its source."""
    return lambda decision: line.sinks_of(decision.source)
