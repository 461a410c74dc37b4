"""Secrets of a line: references to environment variables, so that no password stands in a file."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from blemish.errors import ServeError

PREFIX = "BLEMISH_LINE_"
"""What the names of such variables begin with. Whoever may change the line by the page reads no other variable by it."""
_REFERENCE = re.compile(r"\$\{([^}]*)\}")


def check_secret(text: str) -> str:
    """``text``, if it is one reference such as ``${BLEMISH_LINE_PASSWORD}``.

    Raises
    ------
    ValueError
        When it is the secret itself.
    """
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise ValueError(
            f"is the secret itself; write a reference such as ${{{PREFIX}PASSWORD}}, and set that environment variable"
        )
    return check_references(text)


def check_references(text: str) -> str:
    """``text``, if all variables that it refers to may be read.

    Raises
    ------
    ValueError
        For a name that does not begin with :data:`PREFIX`.
    """
    for name in _REFERENCE.findall(text):
        if not re.fullmatch(PREFIX + "[A-Z0-9_]+", name):
            raise ValueError(
                f"refers to ${{{name}}}; the name of a variable of the line begins with {PREFIX} and has capitals, "
                "digits and underscores"
            )
    return text


def check_url(url: str, schemes: frozenset[str]) -> str:
    """``url``, if its scheme is one of ``schemes``, it names a host, and its password is a reference.

    Raises
    ------
    ValueError
        Naming the fault and the remedy; a password that stands in it is not repeated.
    """
    try:
        parts = urlsplit(check_references(url))
        password, host = parts.password, parts.hostname
        _ = parts.port
    except ValueError as error:
        if "refers to" in str(error):
            raise
        raise ValueError("is no URL; write one such as " + _example(schemes)) from None
    if host:
        check_host(host)
    if parts.scheme not in schemes or not host:
        raise ValueError(f"is no URL of {', '.join(sorted(schemes))}; write one such as {_example(schemes)}")
    if password is not None and not _REFERENCE.fullmatch(password):
        raise ValueError(
            f"holds a password; write ${{{PREFIX}PASSWORD}} in its place, and set that environment variable"
        )
    return url


def check_host(host: str) -> str:
    """``host``, if it can be the name or address of a machine.

    Raises
    ------
    ValueError
        For other signs than names have, or parts of more than 63.
    """
    parts = host.rstrip(".").split(".")
    if len(host) > 253 or not all(re.fullmatch(r"[A-Za-z0-9_:%-]{1,63}", part) for part in parts):
        raise ValueError("is no name or address of a machine; write one such as broker.local or 192.168.0.10")
    return host


def _example(schemes: frozenset[str]) -> str:
    return f"{min(schemes)}://192.168.0.10/path"


def resolved(text: str, key: str, environment: Mapping[str, str] | None = None) -> str:
    """``text`` with its references replaced by the values of their variables.

    Parameters
    ----------
    key: of the description, which an error names.

    Raises
    ------
    ServeError
        When a variable is not set.

    Examples
    --------
    >>> resolved("${BLEMISH_LINE_TOKEN}", "sinks[0].token", {"BLEMISH_LINE_TOKEN": "abc"})
    'abc'
    """
    values = os.environ if environment is None else environment

    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise ServeError(
                f"'{key}' needs the environment variable {found[1]}, which is not set; set it where the server starts"
            )
        return values[found[1]]

    return _REFERENCE.sub(value, text)


def without_password(url: str) -> str:
    """``url`` as messages may show it.

    >>> without_password("rtsp://operator:secret@10.0.0.5/stream")
    'rtsp://10.0.0.5/stream'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def trusted_by(ca_file: str | None, key: str, base: Path) -> ssl.SSLContext:
    """Context of TLS that trusts the certificate authorities in ``ca_file``, or those of the system.

    Parameters
    ----------
    key: of the description, for errors.
    base: folder at which relative paths begin.

    Raises
    ------
    ServeError
        When the file cannot be read, or holds no certificates.
    """
    path = None if ca_file is None else base / ca_file
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ServeError(
            f"'{key}' {path}: cannot be read ({error.strerror or error}); give certificates in PEM"
        ) from None
