"""OPC UA client as a sink: values of each decision are written to nodes of a server, such as that of a PLC."""

from __future__ import annotations

import contextlib
import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish.errors import DeliveryError, ServeError
from blemish.extras import explain_missing
from blemish.serve.contracts import StoredDecision
from blemish.serve.line.loop_thread import LoopThread
from blemish.serve.line.secrets import resolved, without_password
from blemish.serve.line.sink_settings import OpcUaClientSettings

if TYPE_CHECKING:
    from asyncua import Client, Node
    from asyncua.ua import VariantType

_RANGES = {
    "SByte": (-(2**7), 2**7 - 1),
    "Byte": (0, 2**8 - 1),
    "Int16": (-(2**15), 2**15 - 1),
    "UInt16": (0, 2**16 - 1),
    "Int32": (-(2**31), 2**31 - 1),
    "UInt32": (0, 2**32 - 1),
    "Int64": (-(2**63), 2**63 - 1),
    "UInt64": (0, 2**64 - 1),
}


class OpcUaClientSink:
    """Writes values in the types of their nodes, all in one request in the order of the description.

    The connection is kept, and made anew after it was lost.

    Raises
    ------
    ServeError
        When a secret is not set, or ``security`` is none.
    MissingExtraError
        Without asyncua.
    """

    needs_images = False

    def __init__(self, settings: OpcUaClientSettings, key: str, base: Path) -> None:
        with explain_missing():
            import asyncua  # noqa: F401

        self.name = settings.name
        self._settings = settings
        self._url = resolved(settings.url, f"{key}.url")
        self._password = None if settings.password is None else resolved(settings.password, f"{key}.password")
        self._security = (
            None if settings.security is None else _security(settings.security, f"{key}.security", base)
        )
        self._shown = without_password(self._url)
        self._loop = LoopThread(f"opcua-{settings.name}")
        self._client: Client | None = None
        self._nodes: list[tuple[str, Node, VariantType]] = []
        logging.getLogger("asyncua").setLevel(logging.ERROR)

    def open(self) -> None:
        """Nothing to do: the first delivery connects."""

    def deliver(self, decision: StoredDecision, image: bytes | None, overlay: bytes | None) -> None:
        """Write the values of one decision.

        Raises
        ------
        DeliveryError
            When the server is away, or refuses a value.
        """
        try:
            self._loop.run(self._write(decision), 3 * self._settings.timeout)
        except DeliveryError:
            raise
        except Exception as error:  # of asyncua, whose errors have no common class with those of sockets
            self._drop()
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DeliveryError(f"{self._shown}: cannot be written ({reason}); check that it runs") from None

    def close(self) -> None:
        """Close the connection."""
        self._drop()
        self._loop.close()

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # it is lost already
                self._loop.run(client.disconnect(), self._settings.timeout)

    async def _write(self, decision: StoredDecision) -> None:
        from asyncua import ua

        if self._client is None:
            await self._connect()
        assert self._client is not None
        values = []
        for field, _, kind in self._nodes:
            try:
                value = value_for(field, decision, kind.name)
            except ValueError as error:
                raise DeliveryError(f"{self._shown}: '{field}' {error}") from None
            values.append(ua.DataValue(ua.Variant(value, kind)))
        results = await self._client.write_values(
            [node for _, node, _ in self._nodes], values, raise_on_partial_error=False
        )
        for (field, node, _), result in zip(self._nodes, results, strict=True):
            if not result.is_good():
                raise DeliveryError(
                    f"{self._shown}: refuses '{field}' at {node} ({result.name}); make that node writable"
                )

    async def _connect(self) -> None:
        from asyncua import Client

        client = Client(self._url, timeout=self._settings.timeout)
        if self._settings.user is not None:
            client.set_user(self._settings.user)
            client.set_password(self._password or "")
        if self._security is not None:
            await client.set_security_string(self._security)
        await client.connect()
        self._client = client
        nodes: list[tuple[str, Node, VariantType]] = []
        for field, identifier in self._settings.nodes.items():
            node = client.get_node(identifier)
            try:
                nodes.append((field, node, await node.read_data_type_as_variant_type()))
            except Exception as error:  # of asyncua, one class for each code of a status
                raise DeliveryError(
                    f"{self._shown}: has no variable {identifier} for '{field}' ({' '.join(str(error).split())}); "
                    "correct it in the description"
                ) from None
        self._nodes = nodes


def _security(text: str, key: str, base: Path) -> str:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) not in (4, 5):
        raise ServeError(
            f"'{key}' is {text!r}; write policy, mode, certificate and key: Basic256Sha256,SignAndEncrypt,cert.der,key.pem"
        )
    return ",".join([*parts[:2], *(str(base / part) for part in parts[2:])])


def value_for(field: str, decision: StoredDecision, kind: str) -> bool | int | float | str | datetime:
    """Value of a field of a decision in a type of OPC UA.

    Raises
    ------
    ValueError
        When the type cannot hold it; saying which can.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> decision = SimpleNamespace(id=70_000, is_anomalous=True)
    >>> value_for("is_anomalous", decision, "Int16"), value_for("id", decision, "String")
    (1, '70000')
    """
    value: Any = len(decision.regions) if field == "regions" else getattr(decision, field)
    if kind == "String":
        return value.isoformat() if isinstance(value, datetime) else str(value)
    if isinstance(value, datetime):
        if kind != "DateTime":
            raise ValueError(f"is a time, which a node of {kind} cannot hold; give one of DateTime or String")
        return value
    if isinstance(value, str):
        raise ValueError(f"is text, which a node of {kind} cannot hold; give one of String")
    if kind == "Boolean":
        if not isinstance(value, bool):
            raise ValueError("is a number, which a node of Boolean cannot hold; give one of Int32 or Double")
        return value
    if kind in ("Float", "Double"):
        return float(value)
    if kind in _RANGES:
        if isinstance(value, float):
            raise ValueError(f"has decimals, which a node of {kind} cannot hold; give one of Float or Double")
        low, high = _RANGES[kind]
        if not low <= int(value) <= high:
            raise ValueError(f"is {value}, which a node of {kind} cannot hold; give one of Int64")
        return int(value)
    raise ValueError(f"cannot be written to a node of {kind}; give one of Boolean, a number or String")
