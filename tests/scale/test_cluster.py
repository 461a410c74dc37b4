"""Archives on a real Ray cluster of several node processes, in an object store, and with processes that are killed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from benchmarks.archive.killed_runs import (
    listening_addresses,
    node_processes,
    run_with_kills,
    worker_processes,
)
from blemish.inspection.detector import Detector
from blemish.scale.archive_folder import archive_tables
from tests.services import ObjectStore, free_port

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""Addresses of this machine alone: of IPv4, of IPv4 within IPv6, of IPv6."""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]  # which is started once


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, str]]:
    """Addresses of a cluster of three node processes: for drivers on this machine, and for clients from outside."""
    port = free_port()
    with node_processes(2, client_port=port) as address:
        yield address, f"ray://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def images(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 images in 4 folders, and one that is damaged."""
    folder = tmp_path_factory.mktemp("archive")
    for number in range(4):
        shutil.copytree(good, folder / str(number))
    (folder / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    return folder


def blemish(*words: object, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "blemish", *map(str, words)]
    environment = {**os.environ, **(variables or {})}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def rows(out: Path) -> dict[str, dict[str, Any]]:
    found = [row for table in archive_tables(out) for row in table.to_pylist()]
    by_name = {row.get("path") or row["input"]: row for row in found}
    assert len(by_name) == len(found)
    return by_name


def names_in(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.png")]


def test_killed_workers_and_drivers_lose_and_double_nothing(
    cluster: tuple[str, str], exported: tuple[Detector, Path], images: Path, tmp_path: Path
) -> None:
    run = run_with_kills(
        exported[1],
        [str(images)],
        names_in(images),
        tmp_path / "found",
        cluster[0],
        worker_kills=2,
        driver_kills=1,
        seed=0,
    )
    assert (run.images, run.records, run.lost, run.doubled, run.errors) == (97, 97, 0, 0, 1)
    assert run.driver_kills == 1
    assert run.worker_kills >= 1, "the job may end before the last of them"
    for name, row in rows(tmp_path / "found").items():
        if name != "damaged.png":
            assert row["score"] == exported[0].inspect(images / name).score
    until = time.monotonic() + 120
    while worker_processes():  # they end with their job
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.long
def test_a_client_outside_the_cluster_gets_the_same_records(
    cluster: tuple[str, str], exported: tuple[Detector, Path], images: Path, tmp_path: Path
) -> None:
    ran = blemish("inspect", exported[1], images / "0", "--out", tmp_path / "found", "--on", cluster[1])
    assert ran.returncode == 0, ran.stderr
    found = rows(tmp_path / "found")
    assert found.keys() == set(names_in(images / "0"))
    assert found["3.png"]["score"] == exported[0].inspect(images / "0" / "3.png").score


def test_an_archive_in_an_object_store(exported: tuple[Detector, Path], images: Path, tmp_path: Path) -> None:
    store = ObjectStore()
    try:
        _put(store, images)
        common = ["--on", "local", "--workers", 1, "--json"]
        source = "s3://archive/0"
        inspected, addresses = _watched(
            "inspect", exported[1], source, "--out", tmp_path / "found", "--parts", "s3://archive/found", *common,
            variables=store.variables,
        )  # fmt: skip
        assert addresses, "Ray's processes listen"
        assert addresses <= LOOPBACK
        assert inspected.returncode == 0, inspected.stderr
        assert json.loads(inspected.stdout)["images"] == 24
        for name, row in rows(tmp_path / "found").items():
            assert row["image"] == f"{source}/{name}"
            assert row["score"] == exported[0].inspect(images / "0" / name).score
        own = {
            path.relative_to(tmp_path / "found").as_posix(): path
            for path in (tmp_path / "found").rglob("*.*")
        }
        copied = _sizes(store, "found")
        assert copied == {
            f"found/{name}": path.stat().st_size for name, path in own.items() if name != "copy.json"
        } | {"found/copy.json": copied["found/copy.json"]}
        encoded = blemish(
            "jpeg", "encode", source, "--out", tmp_path / "small", "--files", "s3://archive/small", *common,
            variables=store.variables,
        )  # fmt: skip
        assert encoded.returncode == 0, encoded.stderr
        sizes = {row["output"]: row["bytes_after"] for row in rows(tmp_path / "small").values()}
        assert sizes == {name.removeprefix("small/"): size for name, size in _sizes(store, "small").items()}
    finally:
        store.stop()
    gone = blemish(
        "inspect", exported[1], source, "--out", tmp_path / "gone", "--on", "local", variables=store.variables
    )
    assert gone.returncode == 1
    assert "s3://archive/0: the store does not answer" in gone.stderr
    assert "Traceback" not in gone.stderr


def _watched(*words: object, variables: dict[str, str]) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run a command, and give the addresses on which its processes listened."""
    addresses: set[str] = set()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(blemish, *words, variables=variables)
        while not running.done():
            addresses |= listening_addresses(b"gcs_server", b"raylet", b"ray::")
            wait([running], timeout=0.5)
    return running.result(), addresses


def _filesystem(store: ObjectStore) -> Any:
    from pyarrow.fs import S3FileSystem

    return S3FileSystem(
        access_key="test",
        secret_key="test",
        region="us-east-1",
        endpoint_override=store.variables["AWS_ENDPOINT_URL"],
        allow_bucket_creation=True,
        allow_delayed_open=True,
    )


def _put(store: ObjectStore, images: Path) -> None:
    system = _filesystem(store)
    system.create_dir("archive")
    for path in (images / "0").iterdir():
        with system.open_output_stream(f"archive/0/{path.name}") as file:
            file.write(path.read_bytes())


def _sizes(store: ObjectStore, folder: str) -> dict[str, int]:
    from pyarrow.fs import FileSelector

    listed = _filesystem(store).get_file_info(FileSelector(f"archive/{folder}", recursive=True))
    return {info.path.removeprefix("archive/"): info.size for info in listed if info.is_file}


def test_an_address_without_a_cluster_is_one_line(
    exported: tuple[Detector, Path], images: Path, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        on = f"ray://127.0.0.1:{taken.getsockname()[1]}"
        once = {f"RAY_CLIENT_{which}_CONNECTION_TIMEOUT_S": "1" for which in ("INITIAL", "MAX")}
        ran = blemish("inspect", exported[1], images, "--out", tmp_path / "found", "--on", on, variables=once)
    assert ran.returncode == 1
    assert f"blemish: --on {on}: no cluster answers" in ran.stderr
    assert "Traceback" not in ran.stderr
