"""Description of a line, ``line.yaml``: its sources, their triggers, and its sinks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from blemish.errors import ServeError, nearest
from blemish.limits import plain_name
from blemish.serve.line.secrets import check_references, check_secret, check_url

MOST_PARTS = 64
"""Sources, and sinks, of a line."""
LONGEST_WAIT = 86_400.0
"""Seconds of any interval or waiting time, at most: a day."""
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = _SPAN.fullmatch(value.strip())
    if not found:
        raise ValueError("is no time; write seconds as a number, or with a unit, such as 500ms, 2s or 5m")
    return float(found[1]) * _UNITS[found[2]]


def _by_type(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


Name = Annotated[str, AfterValidator(plain_name)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=LONGEST_WAIT, allow_inf_nan=False)]
Secret = Annotated[str, AfterValidator(check_secret)]
Text = Annotated[str, Field(min_length=1, max_length=500)]
Port = Annotated[int, Field(ge=1, le=65535)]
StreamURL = Annotated[
    str,
    AfterValidator(
        lambda url: check_url(url, frozenset(("rtsp", "rtsps", "http", "https", "udp", "rtp", "srt")))
    ),
]
WebURL = Annotated[str, AfterValidator(lambda url: check_url(url, frozenset(("http", "https"))))]
OpcUaURL = Annotated[str, AfterValidator(lambda url: check_url(url, frozenset(("opc.tcp",))))]


class LineSettings(BaseModel):
    """Keys that are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# -- triggers ------------------------------------------------------------------------------------------


class EachTrigger(LineSettings):
    """Every image that the source gives; of a camera, one after the other as fast as the model takes them."""

    type: Literal["each"] = "each"


class IntervalTrigger(LineSettings):
    """One image each ``every`` seconds."""

    type: Literal["interval"]
    every: Seconds


class HttpTrigger(LineSettings):
    """One image for each ``POST /api/line/trigger``."""

    type: Literal["http"]
    timeout: Seconds = Field(5.0, description="how long to wait for an image that is taken after the trigger")


class Broker(LineSettings):
    """An MQTT broker."""

    host: Text
    port: Port | None = Field(None, description="1883, or 8883 with tls")
    user: str | None = None
    password: Secret | None = None
    tls: bool = False
    ca_file: str | None = Field(None, description="certificate authorities in PEM, instead of the system's")
    client_id: str | None = Field(None, max_length=64)

    @model_validator(mode="after")
    def _goes_together(self) -> Broker:
        if self.password is not None and self.user is None:
            raise ValueError("has a password and no user; add user")
        if self.ca_file is not None and not self.tls:
            raise ValueError("has ca_file without tls; add tls: true")
        return self


def _topic_filter(topic: str) -> str:
    levels = check_references(topic).split("/")
    if (
        any(("+" in level or "#" in level) and level not in ("+", "#") for level in levels)
        or "#" in levels[:-1]
    ):
        raise ValueError("is no topic of MQTT; a level is + or #, # only the last, or has neither")
    return topic


class MqttTrigger(Broker):
    """One image for each message; a text in it becomes the name of the image, such as a serial number."""

    type: Literal["mqtt"]
    topic: Annotated[Text, AfterValidator(_topic_filter)]
    timeout: Seconds = Field(5.0, description="how long to wait for an image that is taken after the trigger")


Trigger: TypeAlias = Annotated[
    Annotated[EachTrigger | IntervalTrigger | HttpTrigger | MqttTrigger, Field(discriminator="type")],
    BeforeValidator(_by_type),
]


# -- sources -------------------------------------------------------------------------------------------


class _SourcePart(LineSettings):
    name: Name
    model: Name | None = Field(None, description="name of the model; may be left out where one is served")
    trigger: Trigger = EachTrigger()


class FolderSettings(_SourcePart):
    """Image files that appear in a folder; those that are still being written are waited for."""

    type: Literal["folder"]
    path: Text
    pattern: Text = Field("*", description="of file names; of those that match, images are taken")
    recursive: bool = False
    settle: Seconds = Field(0.5, description="how long a file must stay as it is before it is read")
    poll: Seconds = Field(
        2.0, description="between looks at the folder, also where the system reports changes"
    )
    watch: Literal["auto", "poll"] = Field(
        "auto", description="poll: for shares whose changes nobody reports"
    )
    after: Literal["keep", "move", "delete"] = Field(
        "keep", description="what becomes of a file that is decided"
    )
    move_to: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _moves(self) -> FolderSettings:
        if (self.after == "move") != (self.move_to is not None):
            raise ValueError(
                "has one of 'after: move' and 'move_to' without the other; give both, or neither"
            )
        return self


class VideoSettings(_SourcePart):
    """Frames of a video file, one after the other."""

    type: Literal["video"]
    path: Text
    every_nth: int = Field(1, ge=1, le=1_000_000, description="one frame in so many")
    colour: Literal["rgb", "grey"] = "rgb"
    repeat: bool = Field(False, description="begin again at the end, each time with new numbers")


class _CameraPart(_SourcePart):
    colour: Literal["rgb", "grey"] = "rgb"
    silence: Seconds = Field(5.0, description="without a frame, after which the camera is opened again")


class StreamSettings(_CameraPart):
    """Newest frame of a network camera: RTSP, HTTP (also Motion JPEG), RTP, SRT."""

    type: Literal["stream"]
    url: StreamURL
    transport: Literal["tcp", "udp"] = Field("tcp", description="of RTSP")


class WebcamSettings(_CameraPart):
    """Newest frame of a camera at this machine."""

    type: Literal["webcam"]
    device: str = Field(
        "/dev/video0", description="device of Linux; its name on Windows; its number on macOS"
    )
    size: tuple[Annotated[int, Field(ge=1, le=32768)], Annotated[int, Field(ge=1, le=32768)]] | None = None
    rate: float | None = Field(None, gt=0, le=1000, description="frames a second")


class SnapshotSettings(_SourcePart):
    """One image file by HTTP for each trigger, as many network cameras give it."""

    type: Literal["snapshot"]
    url: WebURL
    token: Secret | None = Field(None, description="sent as Authorization: Bearer")
    timeout: Seconds = 5.0


FeatureValue = bool | int | float | str


class GenicamSettings(_SourcePart):
    """Newest frame of an industrial camera (GigE Vision, USB3 Vision), by harvesters and the maker's GenTL producer.

    Producers are found by the environment variable ``GENICAM_GENTL64_PATH``, as their installers set it.
    """

    type: Literal["genicam"]
    serial: str | None = Field(None, description="serial number; may be left out where there is one camera")
    features: dict[str, FeatureValue] = Field(
        {}, description="of the camera by their standard names, set in order"
    )
    software_trigger: bool = Field(False, description="run TriggerSoftware for each trigger of the line")
    silence: Seconds = 5.0


SourceSettings: TypeAlias = Annotated[
    FolderSettings | VideoSettings | StreamSettings | WebcamSettings | SnapshotSettings | GenicamSettings,
    Field(discriminator="type"),
]


# -- sinks ---------------------------------------------------------------------------------------------

Wants = Literal["all", "rejected"]


class _SinkPart(LineSettings):
    name: Name
    wants: Wants = "all"
    sources: tuple[Name, ...] | None = Field(None, description="decisions of these alone; 'api' are uploads")


class FolderSinkSettings(_SinkPart):
    """Image, overlay and decision of each image as files."""

    type: Literal["folder"]
    path: Text
    wants: Wants = "rejected"
    by_day: bool = Field(False, description="a folder a day, of the machine's own time zone")


class CsvSettings(_SinkPart):
    """A row for each decision."""

    type: Literal["csv"]
    path: Text
    rotate: Literal["never", "daily", "monthly"] = Field(
        "never", description="a new file, dated, each day or month"
    )


class WebhookSettings(_SinkPart):
    """A POST of each decision as JSON."""

    type: Literal["webhook"]
    url: WebURL
    token: Secret | None = Field(None, description="sent as Authorization: Bearer")
    secret: Secret | None = Field(None, description="key of the signature X-Blemish-Signature (HMAC-SHA256)")
    images: bool = Field(False, description="send image and overlay too, as a multipart form")
    timeout: Seconds = 10.0


def _topic(topic: str) -> str:
    known = {"source", "model", "decision", "name", "id"}
    found = set(re.findall(r"\{([^}]*)\}", topic))
    if found - known:
        raise ValueError(f"has the field {{{min(found - known)}}}; there are {', '.join(sorted(known))}")
    if "+" in topic or "#" in topic:
        raise ValueError("is no topic to publish under; leave out + and #")
    return check_references(topic)


class MqttSettings(Broker, _SinkPart):
    """A message for each decision, at quality of service 1."""

    type: Literal["mqtt"]
    topic: Annotated[Text, AfterValidator(_topic)] = "blemish/{source}/{decision}"
    status_topic: Annotated[Text, AfterValidator(_topic)] | None = Field(
        None, description="retained: online, or offline when the server has gone"
    )
    retain: bool = False
    timeout: Seconds = 10.0


class OpcUaServerSettings(_SinkPart):
    """Variables of the last decision, on a server of OPC UA in this process, which a PLC or SCADA reads."""

    type: Literal["opcua-server"]
    host: Text = "127.0.0.1"
    port: Port = 4840
    user: str | None = None
    password: Secret | None = None
    certificate: str | None = Field(
        None, description="in DER or PEM; with it, connections are signed and encrypted"
    )
    private_key: str | None = Field(None, description="in DER or PEM")

    @model_validator(mode="after")
    def _guarded(self) -> OpcUaServerSettings:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError(
                "has one of certificate and private_key without the other; give both, or neither"
            )
        if (self.user is None) != (self.password is None):
            raise ValueError("has one of user and password without the other; give both, or neither")
        if self.user is None and self.host not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError("is reached from other machines without a password; add user and password")
        return self


DecisionField = Literal[
    "id",
    "time",
    "source",
    "name",
    "model",
    "score",
    "threshold",
    "p_value",
    "is_anomalous",
    "regions",
    "seconds",
]


class OpcUaClientSettings(_SinkPart):
    """Values written to the nodes of an OPC UA server, such as that of a PLC."""

    type: Literal["opcua-client"]
    url: OpcUaURL
    nodes: dict[DecisionField, Text] = Field(
        min_length=1, description="node of each value, such as ns=3;s=Reject"
    )
    user: str | None = None
    password: Secret | None = None
    security: str | None = Field(
        None, description="policy, mode, certificate, key: Basic256Sha256,SignAndEncrypt,cert.der,key.pem"
    )
    timeout: Seconds = 4.0

    @model_validator(mode="after")
    def _goes_together(self) -> OpcUaClientSettings:
        if self.password is not None and self.user is None:
            raise ValueError("has a password and no user; add user")
        return self


SinkSettings: TypeAlias = Annotated[
    FolderSinkSettings
    | CsvSettings
    | WebhookSettings
    | MqttSettings
    | OpcUaServerSettings
    | OpcUaClientSettings,
    Field(discriminator="type"),
]


# -- the line ------------------------------------------------------------------------------------------


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
