"""OPC UA server as a sink: variables of the last decision, which a PLC or SCADA reads or subscribes to."""

from __future__ import annotations

import hmac
import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish._version import __version__
from blemish.errors import DeliveryError
from blemish.extras import explain_missing
from blemish.serve.contracts import StoredDecision
from blemish.serve.line.loop_thread import LoopThread
from blemish.serve.line.secrets import resolved
from blemish.serve.line.sink_settings import OpcUaServerSettings

if TYPE_CHECKING:
    from asyncua import Node, Server

NAMESPACE = "urn:blemish:line"
PATH = "/blemish"
WAIT = 30.0
"""Seconds to start the server, whose address space takes some on a slow machine, and for any write."""
VARIABLES = (
    ("Time", "DateTime"),
    ("Source", "String"),
    ("Name", "String"),
    ("Model", "String"),
    ("Score", "Double"),
    ("Threshold", "Double"),
    ("PValue", "Double"),
    ("IsAnomalous", "Boolean"),
    ("OtherKind", "String"),
    ("Regions", "Int32"),
    ("Seconds", "Double"),
    ("Id", "Int64"),
)
"""Variables of ``LastDecision`` with their types, in the order in which they are written: the number last, so that a
subscriber who waits for it finds the others in place."""
COUNTERS = ("Accepted", "Rejected")
"""Decisions since the start of this server, of type Int64."""


class OpcUaServerSink:
    """Holds ``Objects/Blemish/LastDecision`` and ``Objects/Blemish/Counters`` in the namespace ``urn:blemish:line``.

    Nodes have the same identifiers in every version, such as ``ns=2;s=LastDecision.IsAnomalous``. Clients cannot write
    them.

    Raises
    ------
    ServeError
        When a secret is not set.
    MissingExtraError
        Without asyncua.
    """

    needs_images = False

    def __init__(self, settings: OpcUaServerSettings, key: str, base: Path) -> None:
        with explain_missing():
            import asyncua  # noqa: F401

        self.name = settings.name
        self.endpoint = f"opc.tcp://{settings.host}:{settings.port}{PATH}"
        self._settings, self._base = settings, base
        self._password = None if settings.password is None else resolved(settings.password, f"{key}.password")
        self._loop = LoopThread(f"opcua-{settings.name}")
        self._server: Server | None = None
        self._nodes: dict[str, Node] = {}
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._last = 0
        self.problem = ""

    def open(self) -> None:
        """Start the server before the first decision, so that a PLC can connect; a fault comes again with a delivery."""
        self._start()

    def deliver(self, decision: StoredDecision, image: bytes | None, overlay: bytes | None) -> None:
        """Write the variables of one decision.

        Raises
        ------
        DeliveryError
            When the server cannot be started, as where another one has its port.
        """
        if self._server is None and not self._start():
            raise DeliveryError(self.problem)
        counter = "Rejected" if decision.is_anomalous else "Accepted"
        counts = {**self._counts, counter: self._counts[counter] + (decision.id != self._last)}
        try:
            self._loop.run(self._write(variables_of(decision), counts), WAIT)
        except Exception as error:  # of asyncua, whose errors have no common class with those of sockets
            raise DeliveryError(f"{self.endpoint}: {error}; see the log") from None
        self._counts, self._last = counts, decision.id

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._loop.run(self._server.stop(), WAIT)
            self._server = None
        self._loop.close()

    # -- the server --------------------------------------------------------------------------------

    def _start(self) -> bool:
        try:
            with socket.socket(socket.AF_INET6 if ":" in self._settings.host else socket.AF_INET) as probe:
                # Before the address space is made, which takes long on a slow machine.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
                probe.bind((self._settings.host, self._settings.port))
            self._server = self._loop.run(self._started(), WAIT)
        except OSError as error:
            self.problem = (
                f"{self.endpoint}: cannot be served ({error.strerror or error}); choose another port"
            )
        except Exception as error:  # of certificates, in many classes
            self.problem = (
                f"{self.endpoint}: cannot be served ({' '.join(str(error).split())}); check its settings"
            )
        else:
            self.problem = ""
        return not self.problem

    async def _started(self) -> Server:
        from asyncua import Server, ua
        from asyncua.crypto.permission_rules import User, UserRole

        settings, expected = self._settings, self._password

        class Users:
            def get_user(
                self,
                iserver: Any,
                username: str | None = None,
                password: str | None = None,
                certificate: Any = None,
            ) -> User | None:
                if expected is None:
                    return User(role=UserRole.User)
                is_right = hmac.compare_digest(str(password).encode(), expected.encode())
                return (
                    User(role=UserRole.User, name=username)
                    if is_right and username == settings.user
                    else None
                )

        logging.getLogger("asyncua").setLevel(logging.ERROR)
        server = Server(user_manager=Users())
        await server.init()
        server.set_endpoint(self.endpoint)
        server.set_server_name("Blemish")
        await server.set_application_uri(NAMESPACE)
        await server.set_build_info("urn:blemish", "Blemish", "Blemish", __version__, "0", ua.get_win_epoch())
        if expected is not None:
            server.set_identity_tokens([ua.UserNameIdentityToken])
        if settings.certificate is not None and settings.private_key is not None:
            await server.load_certificate(str(self._base / settings.certificate))
            await server.load_private_key(str(self._base / settings.private_key))
            server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        else:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        number = await server.register_namespace(NAMESPACE)
        top = await server.nodes.objects.add_object(
            ua.NodeId("Blemish", number), ua.QualifiedName("Blemish", number)
        )
        for group, names in (
            ("LastDecision", VARIABLES),
            ("Counters", [(name, "Int64") for name in COUNTERS]),
        ):
            above = await top.add_object(ua.NodeId(group, number), ua.QualifiedName(group, number))
            for name, kind in names:
                wanted = ua.VariantType[kind]
                self._nodes[f"{group}.{name}"] = await above.add_variable(
                    ua.NodeId(f"{group}.{name}", number),
                    ua.QualifiedName(name, number),
                    ua.Variant(_EMPTY[kind] if kind != "DateTime" else ua.get_win_epoch(), wanted),
                )
        await server.start()
        return server

    async def _write(self, values: dict[str, Any], counts: dict[str, int]) -> None:
        from asyncua import ua

        for name in COUNTERS:
            await self._nodes[f"Counters.{name}"].write_value(counts[name], ua.VariantType.Int64)
        for name, kind in VARIABLES:
            await self._nodes[f"LastDecision.{name}"].write_value(values[name], ua.VariantType[kind])


_EMPTY: dict[str, Any] = {"String": "", "Double": 0.0, "Boolean": False, "Int32": 0, "Int64": 0}


def variables_of(decision: StoredDecision) -> dict[str, Any]:
    """Values of :data:`VARIABLES`."""
    return {
        "Id": decision.id,
        "Time": decision.time,
        "Source": decision.source,
        "Name": decision.name,
        "Model": decision.model,
        "Score": decision.score,
        "Threshold": decision.threshold,
        "PValue": decision.p_value,
        "IsAnomalous": decision.is_anomalous,
        "OtherKind": decision.other_kind or "",
        "Regions": len(decision.regions),
        "Seconds": decision.seconds,
    }
