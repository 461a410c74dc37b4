"""Routes of the history as a table: CSV for spreadsheets, Parquet for data tools."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, StreamingResponse
from starlette.background import BackgroundTask

from blemish.serve.api.decisions import Wanted
from blemish.serve.api.problems import answers
from blemish.serve.history.export import csv_parts, write_parquet
from blemish.serve.server import Server
from blemish.storage.leftovers import temporary_prefix

router = APIRouter(tags=["history"], responses=answers(401, 422))


@router.get("/api/history.csv", response_class=StreamingResponse)
def history_as_csv(request: Request, which: Wanted) -> StreamingResponse:
    """Decisions as CSV, the oldest first."""
    server: Server = request.app.state.server
    return StreamingResponse(
        csv_parts(server.history, which),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="history.csv"'},
    )


@router.get("/api/history.parquet", response_class=FileResponse, responses=answers(501, 507))
def history_as_parquet(request: Request, which: Wanted) -> FileResponse:
    """Decisions as Parquet, the oldest first."""
    server: Server = request.app.state.server
    handle, name = tempfile.mkstemp(prefix=temporary_prefix(), suffix=".parquet")
    os.close(handle)
    try:
        write_parquet(server.history, Path(name), which)
    except BaseException:  # a request that is cancelled must not leave its file, either
        os.unlink(name)
        raise
    return FileResponse(
        name,
        media_type="application/vnd.apache.parquet",
        filename="history.parquet",
        background=BackgroundTask(os.unlink, name),
    )
