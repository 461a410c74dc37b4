"""Settings of the sinks of a line."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from blemish.serve.line.secrets import check_references
from blemish.serve.line.settings import (
    Broker,
    Host,
    LineSettings,
    Name,
    OpcUaURL,
    Port,
    Seconds,
    Secret,
    Text,
    WebURL,
)

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
    ca_file: Text | None = Field(None, description="certificate authorities in PEM, instead of the system's")
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
    host: Host = "127.0.0.1"
    port: Port = 4840
    user: Text | None = None
    password: Secret | None = None
    certificate: Text | None = Field(
        None, description="in DER or PEM; with it, connections are signed and encrypted"
    )
    private_key: Text | None = Field(None, description="in DER or PEM")

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
    user: Text | None = None
    password: Secret | None = None
    security: Text | None = Field(
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
