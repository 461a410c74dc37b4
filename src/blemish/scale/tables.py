"""Arrow tables of an archive's results, with the fields of the records that are written elsewhere as JSON lines."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel

from blemish.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

M = TypeVar("M", bound=BaseModel)

PLACE, VERSION, ERROR, BYTES_READ, CPU_SECONDS = "image", "version", "error", "bytes_read", "cpu_seconds"
"""Columns of every result beside the fields of its record: path or URL of the image, what tells a changed one, why there
is no record, and what the image cost."""
FORMER = "former_output_sha256"
"""Column from driver to workers: the file that an earlier record of the image has written."""
LABEL, UNREAD = "label", "unread"
"""Column between workers and driver: whether an image could not be read because its store does not answer."""


def record_fields(model: type[BaseModel]) -> list[pa.Field]:
    """An Arrow field for each field of a record, all of which may be missing.

    >>> from blemish.decision.records import Inspection
    >>> [(field.name, str(field.type)) for field in record_fields(Inspection)[:3]]
    [('path', 'string'), ('size', 'list<item: int64>'), ('score', 'double')]
    """
    import pyarrow as pa

    return [pa.field(name, _arrow_type(field.annotation)) for name, field in model.model_fields.items()]


def _arrow_type(annotation: Any) -> pa.DataType:
    import pyarrow as pa

    plain = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    if annotation in plain:
        return plain[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(record_fields(annotation))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return pa.string()
    if origin is tuple:
        return pa.list_(_arrow_type(arguments[0]))
    if origin in (Union, types.UnionType):
        (one,) = (argument for argument in arguments if argument is not type(None))
        return _arrow_type(one)
    raise TypeError(f"{annotation}: has no column type")


def result_schema(model: type[BaseModel], carried: Sequence[pa.Field]) -> pa.Schema:
    """Columns of the results: the record's, those of every result, and those that are carried along.

    A column ``label`` of the listing is the record's own.

    Raises
    ------
    UsageError
        A column of the listing has the name of another field.
    """
    import pyarrow as pa

    own = [
        pa.field(PLACE, pa.string()),
        pa.field(VERSION, pa.string()),
        pa.field(ERROR, pa.string()),
        pa.field(BYTES_READ, pa.int64()),
        pa.field(CPU_SECONDS, pa.float64()),
    ]
    found = [*record_fields(model), *own]
    there = {field.name for field in found}
    for field in carried:
        if field.name in there and field.name != LABEL:
            raise UsageError(f"the listing has a column {field.name}, as the results have; rename it")
    return pa.schema([*found, *(field for field in carried if field.name not in there)])


def record_of(row: Mapping[str, Any], model: type[M]) -> M | None:
    """The record of a row of the results; None of an image that has none, because of its error."""
    if row[ERROR] is not None:
        return None
    return model.model_validate({name: row[name] for name in model.model_fields})
