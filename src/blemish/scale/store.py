"""Files of object stores, by their URLs, through fsspec."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from blemish.errors import FileError, ImageError, UsageError
from blemish.limits import MAX_IMAGE_BYTES
from blemish.storage.atomic import write_bytes

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")

PROTOCOLS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "http", "https", "file")
"""Protocols that are read: others of fsspec run programs, or read out of archives."""
_BLOCK = 2**20
_TRIES = 3
_PAUSE = 1.0
"""Seconds before the second try of a request; each further one waits twice as long."""


class UnreachableStoreError(FileError):
    """A store that does not answer, so that nothing is known of its files."""


class Stored(NamedTuple):
    """A file of a store: its URL, and what changes with its content, such as size and time."""

    url: str
    version: str


def is_url(location: str) -> bool:
    """True of a URL, False of a path of this machine."""
    return "://" in location


def below(location: str, name: str) -> str:
    """The URL or path of the file ``name`` below ``location``."""
    return f"{location.rstrip('/')}/{name}" if is_url(location) else str(Path(location) / name)


def listed_files(url: str) -> Iterator[Stored]:
    """All files below a URL, folder by folder, without hidden ones; the file itself where it is one.

    Raises
    ------
    UsageError
        A protocol that is not read, or whose package is not installed.
    FileError
        There is no such folder, or the store does not answer.
    """
    system, path = _system(url)
    protocol = url.partition("://")[0]
    info = _tried(url, lambda: system.info(path))
    if info["type"] == "file":
        yield Stored(url, _version(info))
        return
    for _, _, files in system.walk(path, detail=True, on_error="raise"):
        for name, found in sorted(files.items()):
            if not name.startswith(".") and "/." not in found["name"].removeprefix(path):
                yield Stored(f"{protocol}://{found['name'].lstrip('/')}", _version(found))


def fetch(url: str, target: Path) -> str:
    """Write the content of ``url`` to the file ``target``, piece by piece, and give its SHA-256.

    Raises
    ------
    ImageError
        There is no such file, it may not be read, or it is larger than any image.
    UnreachableStoreError
        The store does not answer, after several tries.
    UsageError
        A protocol that is not read, or whose package is not installed.
    """
    system, path = _system(url)
    return _tried(url, lambda: _copied(system, path, url, target))


def _copied(system: AbstractFileSystem, path: str, url: str, target: Path) -> str:
    digest, size = hashlib.sha256(), 0
    with system.open(path, "rb") as source, target.open("wb") as copy:
        while block := source.read(_BLOCK):
            size += len(block)
            if size > MAX_IMAGE_BYTES:
                raise ImageError(url, f"is larger than {MAX_IMAGE_BYTES} bytes", "cut it into smaller images")
            digest.update(block)
            copy.write(block)
    return digest.hexdigest()


def write_file(location: str, data: bytes) -> None:
    """Write ``data`` to a path or URL, whole or not at all.

    Raises
    ------
    FileError
        When it cannot be written.
    """
    if not is_url(location):
        write_bytes(location, data)
        return
    system, path = _system(location)
    if location.startswith("file://"):  # stores have no folders
        system.makedirs(os.path.dirname(path), exist_ok=True)
    # A request that stores an object has all of it, or fails.
    _tried(location, lambda: system.pipe_file(path, data))


def read_file(location: str) -> bytes | None:
    """Content of a file of this machine or of a store; None where there is none.

    Raises
    ------
    FileError
        When it cannot be read.
    """
    try:
        if not is_url(location):
            return Path(location).read_bytes()
        system, path = _system(location)
        content: bytes = _tried(location, lambda: system.cat_file(path))
    except FileNotFoundError:
        return None
    except ImageError as error:
        if error.problem == _ABSENT:
            return None
        raise
    except OSError as error:
        raise FileError(location, f"cannot be read ({error.strerror})", "check the path") from error
    return content


def sha256_of(location: str) -> str | None:
    """SHA-256 of a file of this machine or of a store; None where there is none.

    Raises
    ------
    FileError
        When it cannot be read.
    """
    content = read_file(location)
    return None if content is None else hashlib.sha256(content).hexdigest()


def remove_file(location: str) -> None:
    """Remove a file of this machine or of a store, if it is there.

    Raises
    ------
    FileError
        When it cannot be removed.
    """
    try:
        if not is_url(location):
            Path(location).unlink(missing_ok=True)
            return
        system, path = _system(location)
        _tried(location, lambda: system.rm_file(path))
    except ImageError as error:
        if error.problem != _ABSENT:
            raise
    except OSError as error:
        raise FileError(location, f"cannot be removed ({error.strerror})", "check the path") from error


@contextmanager
def opened(location: str) -> Iterator[Any]:
    """A file of this machine or of a store, open for reading.

    Raises
    ------
    FileError
        When it cannot be opened.
    """
    if is_url(location):
        system, path = _system(location)
        with _tried(location, lambda: system.open(path, "rb")) as file:
            yield file
        return
    with ExitStack() as held:
        try:
            file = held.enter_context(Path(location).open("rb"))
        except OSError as error:
            raise FileError(location, f"cannot be read ({error.strerror})", "check the path") from error
        yield file


_ABSENT = "does not exist"


def _tried(url: str, request: Callable[[], T]) -> T:
    """The answer to a request, which is tried several times where the store does not answer."""
    pause = _PAUSE
    for attempt in range(_TRIES):
        try:
            return request()
        except FileNotFoundError:
            raise ImageError(url, _ABSENT, "check the URL") from None
        except PermissionError:
            raise ImageError(url, "no permission to read it", "check the credentials") from None
        except OSError as error:
            text = " ".join(str(error).split())
            if "ACCESS_DENIED" in text:
                raise ImageError(url, "no permission to read it", "check the credentials") from None
            if attempt == _TRIES - 1:
                raise UnreachableStoreError(
                    url,
                    f"the store does not answer ({text[:200]})",
                    "check the address, and go on with --resume",
                ) from None
        time.sleep(pause)
        pause *= 2
    raise AssertionError("a request ends with an answer or an error")


def _version(info: dict[str, Any]) -> str:
    """What changes with the content of a file, as its store tells without reading it."""
    for key in ("ETag", "etag", "md5Hash", "content_md5"):
        if info.get(key):
            return str(info[key]).strip('"')
    changed = info.get("mtime") or info.get("LastModified") or info.get("created") or ""
    return f"{info.get('size')} {changed}".strip()


def _system(url: str) -> tuple[AbstractFileSystem, str]:
    protocol, _, path = url.partition("://")
    if protocol not in PROTOCOLS or "::" in url:
        raise UsageError(f"{url}: cannot be read; give a path, or a URL of {', '.join(PROTOCOLS)}")
    if protocol in ("s3", "s3a"):
        return _s3(), path
    import fsspec

    try:
        found = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UsageError(f"{url}: {' '.join(str(error).split())}") from None
    return found[0], str(found[1])


@lru_cache(maxsize=1)
def _s3() -> AbstractFileSystem:
    """S3 by pyarrow's own client, with the credentials and region of AWS's variables and files, and its endpoint's."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import S3FileSystem

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options = {"endpoint_override": endpoint} if endpoint else {}
    # Small files are stored by one request, instead of the three of an upload in parts.
    return ArrowFSWrapper(S3FileSystem(allow_delayed_open=True, **options))
