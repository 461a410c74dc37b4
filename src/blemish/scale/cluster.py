"""Connection to Ray: a cluster of this process alone, or one that is there already."""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from blemish.errors import BlemishError, MissingExtraError, UsageError
from blemish.extras import install_line
from blemish.storage.leftovers import full_temporary_disk, is_full
from blemish.workers import cores

LOCAL, AUTO, LOOPBACK = "local", "auto", "127.0.0.1"
_ADDRESS = re.compile(r"(ray://)?[^\s/:]+:[0-9]+")
_STORE_BYTES = 256 * 2**20
"""Of the object store of a local cluster, which holds names and records, no images."""


@dataclass(frozen=True)
class JobSettings:
    """How a job is run, without any influence on its results."""

    on: str = "local"
    """The cluster: ``local``, ``auto`` (the one that this machine is part of), ``HOST:PORT``, or ``ray://HOST:PORT``."""
    workers: int | None = None
    """Processes; one for each core of the cluster without."""
    in_flight: int = 2
    """Tables of images that wait at each worker or are worked on."""
    part: int = 4096
    """Images of a part of the results, at least."""
    seconds: float = 30.0
    """Time after which a smaller part is written too; a killed driver loses no more."""
    parts: str | None = None
    """Folder or URL that finished parts are copied to."""

    @property
    def is_client(self) -> bool:
        """Whether the cluster is reached from outside, through its client server."""
        return self.on.startswith("ray://")

    def check(self) -> None:
        """Refuse what cannot be started.

        Raises
        ------
        UsageError
            ``on`` is no address, or there are no workers.
        MissingExtraError
            Ray is not installed.
        """
        if self.on not in (LOCAL, AUTO) and not _ADDRESS.fullmatch(self.on):
            raise UsageError(f"--on {self.on}: write local, auto, HOST:PORT or ray://HOST:PORT")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"{self.workers} workers; give at least 1")
        if find_spec("ray") is None:  # not imported before its environment is set
            raise MissingExtraError(f"--on {self.on}: ray is not installed; {install_line('scale')}")


@contextmanager
def connected(job: JobSettings) -> Iterator[int]:
    """Connect to Ray for the block, and give the number of workers.

    A local cluster listens to this machine's loopback address alone, asks for a token that only its own processes know,
    has no dashboard, and ends with the block. No usage statistics are sent.

    Raises
    ------
    BlemishError
        There is no such cluster, or it does not let this process in.
    """
    with _environment(job.on):
        import ray

        try:
            with _without_stderr():  # where Ray writes of its own log
                _start(job)
        except Exception as error:  # Ray raises bare ones
            raise _unstarted(job, error) from None
        try:
            yield job.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        finally:
            ray.shutdown()


def _unstarted(job: JobSettings, error: Exception) -> BlemishError:
    """Why there is no cluster, as an error of one line."""
    reason = " ".join(str(error).split())[:200]
    if job.on != LOCAL:
        return BlemishError(f"--on {job.on}: no cluster answers ({reason}); start one, or use --on local")
    if is_full(tempfile.gettempdir()):
        return full_temporary_disk()
    return BlemishError(f"--on local: the cluster does not start ({reason}); try again, or leave --on out")


def _start(job: JobSettings) -> None:
    import ray

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if job.on != LOCAL:
        ray.init(address=job.on, **quiet)
        return
    ray.init(
        address="local",
        num_cpus=job.workers or cores(),
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        **quiet,
    )
    if ray.util.get_node_ip_address() != LOOPBACK:
        ray.shutdown()
        raise RuntimeError("Ray was imported before, and would listen to other machines")


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Send what native code writes to stderr nowhere."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@lru_cache(maxsize=1)
def _token() -> str:
    return secrets.token_hex(32)


@contextmanager
def _environment(on: str) -> Iterator[None]:
    """Set the variables by which Ray is configured, as long as the block lasts."""
    wanted = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
    }
    if on == LOCAL:
        # Named for other systems, this is what makes every process of a local cluster use the loopback address alone.
        wanted["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        wanted |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
