"""Description of a line, ``line.yaml``: its sources, their triggers, and its sinks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from blemish.errors import ServeError, nearest
from blemish.serve.line.settings import LineSettings
from blemish.serve.line.sink_settings import (
    CsvSettings,
    FolderSinkSettings,
    MqttSettings,
    OpcUaClientSettings,
    OpcUaServerSettings,
    SinkSettings,
    Wants,
    WebhookSettings,
)
from blemish.serve.line.source_settings import (
    EachTrigger,
    FolderSettings,
    GenicamSettings,
    HttpTrigger,
    IntervalTrigger,
    MqttTrigger,
    SnapshotSettings,
    SourceSettings,
    StreamSettings,
    VideoSettings,
    WebcamSettings,
)

MOST_PARTS = 64
"""Sources, and sinks, of a line."""


class LineDescription(LineSettings):
    """All of ``line.yaml``."""

    version: Literal[1] = 1
    sources: tuple[SourceSettings, ...] = Field((), max_length=MOST_PARTS)
    sinks: tuple[SinkSettings, ...] = Field((), max_length=MOST_PARTS)

    @model_validator(mode="after")
    def _names(self) -> LineDescription:
        for kind, parts in (("sources", self.sources), ("sinks", self.sinks)):
            names = [part.name for part in parts]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"'{kind}' has the name '{twice[0]}' twice; give each its own")
        known = {"api", *(source.name for source in self.sources)}
        if any(source.name == "api" for source in self.sources):
            raise ValueError("'sources' has the name 'api', which uploads have; take another")
        for number, sink in enumerate(self.sinks):
            for name in sink.sources or ():
                if name not in known:
                    raise ValueError(
                        f"'sinks[{number}].sources' has '{name}'; {nearest(name, sorted(known))}"
                    )
        return self

    def sinks_of(self, source: str) -> dict[str, Wants]:
        """Sinks that want decisions on images of ``source``, by name, with which of them they want."""
        return {
            sink.name: sink.wants for sink in self.sinks if sink.sources is None or source in sink.sources
        }


def read_line(path: str | Path) -> LineDescription:
    """Read ``line.yaml``.

    Raises
    ------
    ServeError
        In one line, naming the file, the key and the remedy.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ServeError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise ServeError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ServeError(
            f"{path}: is not valid YAML ({' '.join(str(error).split())}); correct it there"
        ) from None
    return parse_line({} if data is None else data, str(path))


def parse_line(data: Any, source: str) -> LineDescription:
    """Check a description.

    Parameters
    ----------
    source: what errors call it: the path of the file, or of the request.

    Raises
    ------
    ServeError
        In one line, naming ``source``, the key and the remedy.
    """
    try:
        return LineDescription.model_validate(data)
    except ValidationError as error:
        raise ServeError(f"{source}: {_explain(error.errors()[0])}") from None


def _explain(error: Any) -> str:
    """The first error of the schema in one line; values of secrets are not repeated."""
    key, known = _key(error["loc"])
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        text = str(context["error"])
        return text if not key else f"'{key}' {text}"
    if kind == "extra_forbidden":
        above, dot, last = key.rpartition(".")
        return f"unknown key '{key}'; {nearest(last, known, above + dot)}"
    if kind == "missing":
        return f"key '{key}' is missing; add it"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        part = "trigger" if key.endswith("trigger") else key.partition("[")[0]
        types = [tag for (other, tag) in _TYPES if other == part]
        if kind == "union_tag_invalid":
            return f"'{key}.type' is '{context['tag']}'; {nearest(str(context['tag']), types)}"
        return f"key '{key}.type' is missing; there are {', '.join(types)}"
    if kind in ("model_type", "model_attributes_type", "dict_type", "tuple_type"):
        return f"{repr(key) if key else 'it'} is not written as keys and values; write it as in examples/line.yaml"
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"'{key}' is {str(error['input'])[:100]!r}: {message}; correct it"


def _key(location: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """The key as it is written, such as ``sinks[1].topic``, and the keys that are known beside it."""
    key, kind = "", ""
    model: type[LineSettings] = LineDescription
    for before, part in zip(("", *location), location, strict=False):
        if isinstance(part, int):
            key += f"[{part}]"
        elif (kind, part) in _TYPES and (isinstance(before, int) or before == "trigger"):
            model = _TYPES[kind, part]
        elif part != "[key]":
            key += f".{part}" if key else part
            kind = part if part in ("sources", "sinks", "trigger") else kind
    return key, list(model.model_fields)


def _types(kind: str, *models: type[LineSettings]) -> dict[tuple[str, str], type[LineSettings]]:
    return {(kind, get_args(model.model_fields["type"].annotation)[0]): model for model in models}


_TYPES: dict[tuple[str, str], type[LineSettings]] = {
    **_types("trigger", EachTrigger, IntervalTrigger, HttpTrigger, MqttTrigger),
    **_types(
        "sources",
        FolderSettings,
        VideoSettings,
        StreamSettings,
        WebcamSettings,
        SnapshotSettings,
        GenicamSettings,
    ),
    **_types(
        "sinks",
        FolderSinkSettings,
        CsvSettings,
        WebhookSettings,
        MqttSettings,
        OpcUaServerSettings,
        OpcUaClientSettings,
    ),
}
"""Settings of each type of trigger, source and sink."""
