"""Settings of the sources of a line, and of their triggers."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from blemish.serve.line.secrets import check_references
from blemish.serve.line.settings import (
    Broker,
    LineSettings,
    Name,
    Seconds,
    Secret,
    StreamURL,
    Text,
    WebURL,
    by_type,
)

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
    BeforeValidator(by_type),
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
    move_to: Text | None = None

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


Waiting = Annotated[int, Field(ge=1, le=1000, description="frames that may wait; 1 is the newest alone")]


class _CameraPart(_SourcePart):
    colour: Literal["rgb", "grey"] = "rgb"
    silence: Seconds = Field(5.0, description="without a frame, after which the camera is opened again")
    waiting: Waiting = 1


class StreamSettings(_CameraPart):
    """Newest frame of a network camera: RTSP, HTTP (also Motion JPEG), RTP, SRT."""

    type: Literal["stream"]
    url: StreamURL
    transport: Literal["tcp", "udp"] = Field("tcp", description="of RTSP")


class WebcamSettings(_CameraPart):
    """Newest frame of a camera at this machine."""

    type: Literal["webcam"]
    device: Text = Field(
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

    @model_validator(mode="after")
    def _waits(self) -> SnapshotSettings:
        if isinstance(self.trigger, EachTrigger):
            raise ValueError(
                "has no trigger to ask the camera by; add one: {type: interval, every: 2s}, http or mqtt"
            )
        return self


FeatureValue = bool | int | float | Text


class GenicamSettings(_SourcePart):
    """Newest frame of an industrial camera (GigE Vision, USB3 Vision), by harvesters and the maker's GenTL producer.

    Producers are found by the environment variable ``GENICAM_GENTL64_PATH``, as their installers set it.
    """

    type: Literal["genicam"]
    serial: Text | None = Field(None, description="serial number; may be left out where there is one camera")
    features: dict[str, FeatureValue] = Field(
        {}, description="of the camera by their standard names, set in order"
    )
    software_trigger: bool = Field(False, description="run TriggerSoftware for each trigger of the line")
    silence: Seconds = Field(
        5.0, description="without a frame, after which a free-running camera is opened again"
    )
    waiting: Waiting = 1


SourceSettings: TypeAlias = Annotated[
    FolderSettings | VideoSettings | StreamSettings | WebcamSettings | SnapshotSettings | GenicamSettings,
    Field(discriminator="type"),
]
