"""Another process with an OPC UA server of asyncua as a PLC has it; it writes what it holds as JSON lines when asked.

python opcua_process.py PORT serve          a server whose variables may be written
python opcua_process.py PORT read LOGINS    connect to a server by each login, and print Objects/Blemish
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from asyncua import Client, Server, ua

URI = "urn:example:plc"
VARIABLES = {
    "Reject": ua.VariantType.Boolean,
    "Code": ua.VariantType.Int16,
    "Decision": ua.VariantType.UInt32,
    "Score": ua.VariantType.Float,
    "Part": ua.VariantType.String,
    "Time": ua.VariantType.DateTime,
}


async def serve(port: int, certificate: str = "", key: str = "") -> None:
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    if certificate:
        await server.load_certificate(certificate)
        await server.load_private_key(key)
        server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
    else:
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    number = await server.register_namespace(URI)
    nodes = {}
    for name, kind in VARIABLES.items():
        empty: Any = "" if name == "Part" else ua.get_win_epoch() if name == "Time" else 0
        node = await server.nodes.objects.add_variable(ua.NodeId(name, number), name, ua.Variant(empty, kind))
        await node.set_writable()
        nodes[name] = node
    locked = await server.nodes.objects.add_variable(ua.NodeId("Locked", number), "Locked", 0)
    nodes["Locked"] = locked
    async with server:
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if line.strip() == "values":
                values = {name: await node.read_value() for name, node in nodes.items()}
                print(json.dumps(values, default=str), flush=True)


async def read(port: int, logins: list[list[str]], security: str = "") -> None:
    found: list[dict[str, Any]] = []
    for login in logins:
        client = Client(f"opc.tcp://127.0.0.1:{port}/blemish")
        if login:
            client.set_user(login[0])
            client.set_password(login[1])
        try:
            await client.set_security_string(security)
            async with client:
                found.append(await values(client))
        except ua.UaError as error:
            found.append({"error": type(error).__name__})
    print(json.dumps(found, default=str), flush=True)


async def values(client: Client) -> dict[str, Any]:
    number = await client.get_namespace_index("urn:blemish:line")
    top = await client.nodes.objects.get_child(f"{number}:Blemish")
    found: dict[str, Any] = {}
    for group in await top.get_children():
        for node in await group.get_children():
            found[node.nodeid.Identifier] = await node.read_value()
    try:
        await client.get_node(ua.NodeId("LastDecision.Id", number)).write_value(1, ua.VariantType.Int64)
    except ua.UaError as error:
        found["write"] = type(error).__name__
    return found


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    if sys.argv[2] == "serve":
        asyncio.run(serve(int(sys.argv[1]), *sys.argv[3:]))
    else:
        asyncio.run(read(int(sys.argv[1]), json.loads(sys.argv[3]), *sys.argv[4:]))
