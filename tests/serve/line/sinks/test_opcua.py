"""OPC UA as a sink, against servers and clients of asyncua in another process."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from cryptography.x509.oid import ExtendedKeyUsageOID

from blemish.errors import DeliveryError, ServeError
from blemish.serve.contracts import StoredDecision
from blemish.serve.line.sink_settings import OpcUaClientSettings, OpcUaServerSettings
from blemish.serve.line.sinks.opcua_client import OpcUaClientSink, value_for
from blemish.serve.line.sinks.opcua_server import OpcUaServerSink
from tests.services import free_port

MakeDecision = Callable[..., StoredDecision]
OTHER = Path(__file__).with_name("opcua_process.py")


class Plc:
    """A server of asyncua in a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[str] | None = None

    def start(self, *certificate: str) -> None:
        command = [sys.executable, str(OTHER), str(self.port), "serve", *certificate]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def values(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("values\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="module")
def plc() -> Iterator[Plc]:
    found = Plc()
    found.start()
    yield found
    found.kill()


def client(port: int, nodes: dict[str, str], tmp_path: Path, **settings: Any) -> OpcUaClientSink:
    given = OpcUaClientSettings.model_validate(
        {
            "name": "plc",
            "type": "opcua-client",
            "url": f"opc.tcp://127.0.0.1:{port}",
            "nodes": nodes,
            **settings,
        }
    )
    return OpcUaClientSink(given, "sinks[0]", tmp_path)


def read(port: int, *logins: tuple[str, ...], security: str = "") -> list[dict[str, Any]]:
    """What a client in another process reads of our server by each login."""
    command = [sys.executable, str(OTHER), str(port), "read", json.dumps(logins or [[]]), security]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def server(port: int, tmp_path: Path, **settings: Any) -> OpcUaServerSink:
    given = OpcUaServerSettings(name="opc", type="opcua-server", port=port, **settings)
    found = OpcUaServerSink(given, "sinks[0]", tmp_path)
    found.open()
    return found


def test_values_are_written_in_the_types_of_their_nodes(
    plc: Plc, tmp_path: Path, make_decision: MakeDecision
) -> None:
    nodes = {
        "is_anomalous": "ns=2;s=Reject", "regions": "ns=2;s=Code", "score": "ns=2;s=Score", "name": "ns=2;s=Part",
        "time": "ns=2;s=Time", "id": "ns=2;s=Decision",
    }  # fmt: skip
    given = client(plc.port, nodes, tmp_path)
    decision = make_decision(70_000)
    given.deliver(decision, None, None)
    found = plc.values()
    assert (found["Reject"], found["Code"], found["Decision"]) == (True, 1, 70_000)
    assert found["Score"] == pytest.approx(1.5)
    assert found["Part"] == "part-70000.png"
    assert datetime.fromisoformat(found["Time"]).replace(tzinfo=decision.time.tzinfo) == decision.time
    given.deliver(make_decision(70_001, is_anomalous=False), None, None)
    assert (plc.values()["Reject"], plc.values()["Decision"]) == (False, 70_001)
    given.close()


def test_a_plc_that_restarts_gets_the_next_decisions(
    plc: Plc, tmp_path: Path, make_decision: MakeDecision
) -> None:
    given = client(plc.port, {"id": "ns=2;s=Decision"}, tmp_path, timeout=1)
    given.deliver(make_decision(1), None, None)
    plc.kill()
    with pytest.raises(DeliveryError, match=f"opc.tcp://127.0.0.1:{plc.port}: cannot be written"):
        given.deliver(make_decision(2), None, None)
    plc.start()
    given.deliver(make_decision(2), None, None)
    assert plc.values()["Decision"] == 2
    given.close()


def test_nodes_that_are_missing_locked_or_too_narrow_are_named(
    plc: Plc, tmp_path: Path, make_decision: MakeDecision
) -> None:
    for nodes, words in (
        ({"id": "ns=2;s=Nowhere"}, "has no variable ns=2;s=Nowhere for 'id'"),
        ({"id": "ns=2;s=Locked"}, "refuses 'id' at ns=2;s=Locked"),
        ({"id": "ns=2;s=Code"}, "'id' is 70000, which a node of Int16 cannot hold"),
        ({"score": "ns=2;s=Code"}, "'score' has decimals, which a node of Int16 cannot hold"),
    ):
        given = client(plc.port, nodes, tmp_path)
        with pytest.raises(DeliveryError, match=words):
            given.deliver(make_decision(70_000), None, None)
        given.close()


@pytest.mark.parametrize(
    ("field", "kind", "value"),
    [
        ("is_anomalous", "Boolean", True),
        ("is_anomalous", "Byte", 1),
        ("is_anomalous", "Double", 1.0),
        ("is_anomalous", "String", "True"),
        ("score", "Float", 1.5),
        ("score", "String", "1.5"),
        ("regions", "UInt16", 1),
        ("source", "String", "left"),
        ("time", "String", "2026-03-01T12:00:07+00:00"),
    ],
)
def test_each_field_takes_the_types_that_can_hold_it(
    make_decision: MakeDecision, field: str, kind: str, value: object
) -> None:
    found = value_for(field, make_decision(7), kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("name", "Int32"),
        ("time", "Int64"),
        ("score", "Boolean"),
        ("id", "Boolean"),
        ("id", "NodeId"),
        ("score", "Int64"),
    ],
)
def test_no_value_is_bent_into_a_type(make_decision: MakeDecision, field: str, kind: str) -> None:
    with pytest.raises(ValueError, match="give one of"):
        value_for(field, make_decision(7), kind)


def test_our_server_shows_the_last_decision_and_counters_to_another_process(
    tmp_path: Path, make_decision: MakeDecision
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        given = server(other.getsockname()[1], tmp_path)
        with pytest.raises(DeliveryError, match=r"cannot be served .*; choose another port"):
            given.deliver(make_decision(1), None, None)
    for number in (1, 2, 2, 3):
        given.deliver(make_decision(number, is_anomalous=number == 3), None, None)
    (found,) = read(given._settings.port)
    given.close()
    assert found["LastDecision.Id"] == 3
    assert found["LastDecision.IsAnomalous"] is True
    assert found["LastDecision.Score"] == 1.5
    assert found["LastDecision.PValue"] == 0.04
    assert found["LastDecision.Name"] == "part-3.png"
    assert found["LastDecision.Regions"] == 1
    assert (found["Counters.Accepted"], found["Counters.Rejected"]) == (2, 1), "a repetition counts once"
    assert found["write"] in ("BadNotWritable", "BadUserAccessDenied"), "clients only read"


def test_our_server_asks_for_the_password(
    tmp_path: Path, make_decision: MakeDecision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLEMISH_LINE_PASSWORD", "right")
    given = server(free_port(), tmp_path, user="scada", password="${BLEMISH_LINE_PASSWORD}")
    given.deliver(make_decision(1), None, None)
    right, *wrong = read(
        given._settings.port, ("scada", "right"), ("scada", "wrong"), ("other", "right"), ()
    )  # fmt: skip
    given.close()
    assert right["LastDecision.Id"] == 1
    assert all(tuple(found) == ("error",) for found in wrong), wrong


def certificate(folder: Path, name: str, uri: str) -> tuple[str, str]:
    """A certificate and its key, signed by itself, as OPC UA wants them."""
    key, file = folder / f"{name}-key.pem", folder / f"{name}.der"
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    asyncio.run(
        setup_self_signed_certificate(key, file, uri, socket.gethostname(), uses, {"commonName": name})
    )
    return str(file), str(key)


def test_our_server_with_a_certificate_lets_encrypted_connections_in_alone(
    tmp_path: Path, make_decision: MakeDecision
) -> None:
    own, key = certificate(tmp_path, "server", "urn:blemish:line")
    theirs = certificate(tmp_path, "client", "urn:freeopcua:client")
    given = server(free_port(), tmp_path, certificate=Path(own).name, private_key=Path(key).name)
    given.deliver(make_decision(5), None, None)
    port = given._settings.port
    (found,) = read(port, security=f"Basic256Sha256,SignAndEncrypt,{','.join(theirs)}")
    (plain,) = read(port)
    given.close()
    assert found["LastDecision.Id"] == 5
    assert tuple(plain) == ("error",), plain


def test_an_encrypted_plc_is_written_to(tmp_path: Path, make_decision: MakeDecision) -> None:
    plc = Plc()
    plc.start(*certificate(tmp_path, "plc", "urn:freeopcua:python:server"))
    certificate(tmp_path, "line", "urn:freeopcua:client")
    nodes = {"id": "ns=2;s=Decision"}
    plain = client(plc.port, nodes, tmp_path, timeout=2)
    with pytest.raises(DeliveryError, match="cannot be written"):
        plain.deliver(make_decision(5), None, None)
    plain.close()
    given = client(
        plc.port, nodes, tmp_path, security="Basic256Sha256,SignAndEncrypt,line.der,line-key.pem", timeout=8
    )
    given.deliver(make_decision(5), None, None)
    given.close()
    assert plc.values()["Decision"] == 5
    plc.kill()


def test_security_that_is_none_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(
        ServeError, match=r"'sinks\[0\].security' is 'None'; write policy, mode, certificate and key"
    ):
        client(1, {"id": "ns=2;s=Decision"}, tmp_path, security="None")
