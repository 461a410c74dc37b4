"""Programs of the distribution that tests need: found where they are installed, or a reason to skip."""

from __future__ import annotations

import getpass
import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

FOLDERS = (
    "/usr/sbin",
    "/usr/local/sbin",
    *sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True),
    *(str(Path(__file__).parents[1] / folder / "bin") for folder in (".venv-moto", ".venv-ome-zarr")),
)
"""Folders that are not on the path of every user; the last two are made by ``make services``."""


def needs(program: str) -> str:
    """Path of ``program``; without it the test is skipped, or fails where ``BLEMISH_NEEDS_SERVICES=1``."""
    found = shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), *FOLDERS]))
    if found is None:
        reason = f"{program} is not installed"
        if os.environ.get("BLEMISH_NEEDS_SERVICES") == "1":
            pytest.fail(f"{reason}, and BLEMISH_NEEDS_SERVICES=1 asks for it")
        pytest.skip(reason)
    return found


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 20.0) -> None:
    """Wait until ``process`` listens on ``port``.

    Raises
    ------
    AssertionError
        When it ends before, or does not in time.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"{process.args!r} does not listen on port {port}")


def own_certificate(folder: Path, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate for ``host`` that is its own authority, and its key, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, key_file = folder / "own.pem", folder / "own-key.pem"
    file.write_bytes(signed.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return file, key_file


class Mosquitto:
    """An MQTT broker of its own on a port of its own, which may be stopped and started again.

    Parameters
    ----------
    folder: for its settings.
    users: names and passwords; anybody may connect without them.
    certificate: with its key, for TLS.
    """

    def __init__(
        self, folder: Path, users: dict[str, str] | None = None, certificate: tuple[Path, Path] | None = None
    ) -> None:
        self.program = needs("mosquitto")
        self.port = free_port()
        self._settings = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {'false' if users else 'true'}"]
        lines.append(f"user {getpass.getuser()}")  # as root it would become one who may not read these files
        # As a factory has it: over a restart it knows who subscribed, and keeps messages for them.
        lines += ["persistence true", f"persistence_location {folder}/"]
        if certificate is not None:
            lines += [f"certfile {certificate[0]}", f"keyfile {certificate[1]}"]
        if users:
            passwords = folder / "passwords"
            passwords.write_text("".join(f"{user}:{password}\n" for user, password in users.items()))
            subprocess.run([needs("mosquitto_passwd"), "-U", str(passwords)], check=True)
            lines.append(f"password_file {passwords}")
        self._settings.write_text("\n".join([*lines, ""]))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Mosquitto:
        """Start it, and wait until it listens."""
        command = [self.program, "-c", str(self._settings)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_port(self.port, self._process)
        return self

    def stop(self) -> None:
        """Stop it; its connections break."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


class PostgreSQL:
    """A PostgreSQL server of its own on a port of its own, which may be killed and started again.

    It refuses to run as root; then it runs as the user ``postgres`` of the distribution, in a folder of that user.
    """

    def __init__(self) -> None:
        self._server, initdb = needs("postgres"), needs("initdb")
        self.port = free_port()
        self.url = f"postgresql://blemish@127.0.0.1:{self.port}/postgres"
        self.folder = Path(tempfile.mkdtemp(prefix="blemish-postgresql-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._as_user: dict[str, Any] = {"cwd": self.folder}
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            self._as_user |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        command = [
            initdb,
            "-D",
            str(self.folder / "data"),
            "-U",
            "blemish",
            "--auth=trust",
            "-E",
            "UTF8",
            "-N",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self._as_user)

    def start(self) -> PostgreSQL:
        """Start it, and wait until it answers."""
        settings = ["-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.folder)]
        command = [self._server, "-D", str(self.folder / "data"), *settings]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._as_user
        )
        wait_for_port(self.port, self._process)
        ready = [needs("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        until = time.monotonic() + 20
        while subprocess.run(ready, check=False).returncode:
            assert time.monotonic() < until, "PostgreSQL does not answer"
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """End it as a power failure does: without finishing anything."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(20)
            self._process = None

    def remove(self) -> None:
        """Stop it and remove its files."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class ObjectStore:
    """A store that speaks S3, of a process of its own on a port of its own (moto's server), without any bucket."""

    def __init__(self) -> None:
        self.port = free_port()
        self.variables = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        command = [needs("moto_server"), "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_port(self.port, self._process, 120)

    def stop(self) -> None:
        """Stop it, with all that it holds."""
        self._process.terminate()
        self._process.wait(10)
