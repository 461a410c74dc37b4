"""Settings of a line: values that its parts share, all of them checked."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from blemish.limits import plain_name
from blemish.serve.line.secrets import check_host, check_secret, check_url

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


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has a line break or another control character; leave it out")
    return text


def by_type(value: Any) -> Any:
    """A part that is written as its type alone."""
    return {"type": value} if isinstance(value, str) else value


Name = Annotated[str, AfterValidator(plain_name)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=LONGEST_WAIT, allow_inf_nan=False)]
Secret = Annotated[str, AfterValidator(check_secret)]
Text = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_one_line)]
Host = Annotated[str, AfterValidator(check_host)]
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


class Broker(LineSettings):
    """An MQTT broker."""

    host: Host
    port: Port | None = Field(None, description="1883, or 8883 with tls")
    user: Text | None = None
    password: Secret | None = None
    tls: bool = False
    ca_file: Text | None = Field(None, description="certificate authorities in PEM, instead of the system's")
    client_id: Annotated[Text, Field(max_length=64)] | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> Broker:
        if self.password is not None and self.user is None:
            raise ValueError("has a password and no user; add user")
        if self.ca_file is not None and not self.tls:
            raise ValueError("has ca_file without tls; add tls: true")
        return self
