"""History as a table for other programs: CSV for spreadsheets, Parquet for data tools."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from blemish.extras import explain_missing
from blemish.inspection.exports import plain_cell
from blemish.serve.contracts import StoredDecision
from blemish.serve.history.history import EVERYTHING, History
from blemish.serve.history.selection import HistoryFilter
from blemish.storage.atomic import atomic_path

COLUMNS = (
    "id",
    "time",
    "model",
    "source",
    "name",
    "rejected",
    "score",
    "threshold",
    "p_value",
    "pixel_threshold",
    "other_kind",
    "width",
    "height",
    "regions",
    "region_x",
    "region_y",
    "region_width",
    "region_height",
    "region_peak",
    "class",
    "seconds",
    "verdict",
    "label",
    "operator",
    "note",
    "verdict_time",
    "image_kept",
    "image_sha256",
    "model_sha256",
    "request",
)
"""Columns of the CSV; ``region_…`` is the box of the strongest region, ``verdict`` is ``right`` or ``wrong``."""
_AT_ONCE = 2000


def csv_parts(history: History, wanted: HistoryFilter = EVERYTHING) -> Iterator[bytes]:
    """Content of the CSV in parts, for an answer or a file; the oldest decision first, UTF-8 with a byte order mark.

    What a spreadsheet would take for a formula begins with an apostrophe.

    Raises
    ------
    HistoryError
        When the history cannot be read.
    """
    yield _csv([COLUMNS], "\ufeff")  # by which Excel knows that it is UTF-8
    decisions = history.all(wanted)
    while some := list(islice(decisions, _AT_ONCE)):
        yield _csv(map(_cells, some))


def write_csv(history: History, path: str | Path, wanted: HistoryFilter = EVERYTHING) -> int:
    """Write the CSV of :func:`csv_parts`, whole or not at all; how many decisions it holds.

    Raises
    ------
    FileError
        When it cannot be written.
    HistoryError
        When the history cannot be read.
    """
    rows = -1
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for part in csv_parts(history, wanted):
            file.write(part)
            rows += part.count(b"\r\n")
    return rows


def write_parquet(history: History, path: str | Path, wanted: HistoryFilter = EVERYTHING) -> int:
    """Write a Parquet file, whole or not at all; how many decisions it holds.

    Its columns are those of a decision, with all regions and classes as lists, and those of its newest verdict.

    Raises
    ------
    MissingExtraError
        Without pyarrow.
    FileError
        When it cannot be written.
    HistoryError
        When the history cannot be read.
    """
    with explain_missing():
        import pyarrow as arrow
        from pyarrow import parquet
    schema, rows = _schema(arrow), 0
    decisions = history.all(wanted)
    with (
        atomic_path(path) as temporary,
        parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        while some := list(islice(decisions, _AT_ONCE)):
            writer.write_table(arrow.Table.from_pylist([_record(one) for one in some], schema=schema))
            rows += len(some)
    return rows


def _csv(rows: Iterable[Iterable[Any]], begin: str = "") -> bytes:
    text = io.StringIO(newline="")
    text.write(begin)
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _cells(decision: StoredDecision) -> list[Any]:
    region = decision.regions[0] if decision.regions else None
    first = decision.classes[0] if decision.classes else None
    verdict = decision.verdict
    return [
        decision.id,
        decision.time.isoformat(),
        plain_cell(decision.model),
        plain_cell(decision.source),
        plain_cell(decision.name),
        int(decision.is_anomalous),
        decision.score,
        decision.threshold,
        decision.p_value,
        decision.pixel_threshold,
        plain_cell(decision.other_kind or ""),
        *decision.size,
        len(decision.regions),
        *((region.x, region.y, region.width, region.height, region.peak) if region else ("",) * 5),
        plain_cell(first.name) if first else "",
        decision.seconds,
        *_verdict_cells(decision),
        verdict.time.isoformat() if verdict else "",
        int(decision.kept),
        decision.image_sha256,
        decision.model_sha256,
        plain_cell(decision.request),
    ]


def _verdict_cells(decision: StoredDecision) -> list[str]:
    verdict = decision.verdict
    if verdict is None:
        return [""] * 4
    note = " ".join(verdict.note.splitlines())  # one line a decision, also for programs that split at lines
    texts = (verdict.label or "", verdict.operator, note)
    return ["right" if verdict.is_right else "wrong", *map(plain_cell, texts)]


def _record(decision: StoredDecision) -> dict[str, Any]:
    record = decision.model_dump(exclude={"verdict", "size", "kept", "until_delivered", "kept_bytes"})
    verdict = decision.verdict
    judged = (
        None
        if verdict is None
        else verdict.model_dump(include={"is_right", "label", "operator", "note", "time"})
    )
    shapes = [] if verdict is None else [shape.model_dump() for shape in verdict.shapes]
    return {
        **record,
        "width": decision.size[0],
        "height": decision.size[1],
        "image_kept": decision.kept,
        "verdict": None if judged is None else {**judged, "shapes": shapes},
    }


def _schema(arrow: Any) -> Any:
    text, number, whole, truth = arrow.string(), arrow.float64(), arrow.int64(), arrow.bool_()
    time = arrow.timestamp("us", tz="UTC")
    region = arrow.struct(
        [
            *((name, whole) for name in ("x", "y", "width", "height", "area")),
            ("peak", number),
            ("mean", number),
            ("region_class", text),
        ]
    )
    of_class = arrow.struct(
        [("name", text), ("score", number), ("threshold", number), ("is_above", truth), ("peak", number)]
    )
    shape = arrow.struct([("kind", text), ("points", arrow.list_(arrow.list_(number)))])
    verdict = arrow.struct(
        [
            ("is_right", truth),
            ("label", text),
            ("shapes", arrow.list_(shape)),
            ("operator", text),
            ("note", text),
            ("time", time),
        ]
    )
    return arrow.schema(
        [
            ("id", whole),
            ("time", time),
            ("model", text),
            ("model_sha256", text),
            ("source", text),
            ("name", text),
            ("request", text),
            ("image_sha256", text),
            ("width", whole),
            ("height", whole),
            ("is_anomalous", truth),
            ("score", number),
            ("threshold", number),
            ("pixel_threshold", number),
            ("p_value", number),
            ("other_kind", text),
            ("regions", arrow.list_(region)),
            ("classes", arrow.list_(of_class)),
            ("seconds", number),
            ("image_kept", truth),
            ("verdict", verdict),
        ]
    )
