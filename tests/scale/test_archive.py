"""Jobs on archives, with the work done in this process: counts, parts, resuming, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blemish.data.fingerprint import file_sha256
from blemish.errors import BlemishError, MissingExtraError, ModelError, Stopped
from blemish.jpeg.batch import BatchSettings
from blemish.scale import archive, cluster
from blemish.scale.archive import encode_archive, inspect_archive
from blemish.scale.archive_folder import archive_tables
from blemish.scale.cluster import JobSettings
from blemish.scale.work import ImageWork
from blemish.scale.worker import ArchiveWorker, Attempts


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Work in this process; gives the sizes of the tables that were worked on."""
    worked: list[int] = []

    @contextmanager
    def connected(job: JobSettings) -> Iterator[int]:
        yield 1

    def stored(tables: Iterable[pa.Table]) -> list[Any]:
        return list(tables)

    def result_tables(
        planned: Sequence[pa.Table], work: ImageWork, schema: pa.Schema, job: JobSettings, workers: int
    ) -> Iterator[pa.Table]:
        worker = ArchiveWorker(work, Attempts(), schema)
        for table in planned:
            worked.append(table.num_rows)
            yield worker(table)

    for stand_in in (connected, stored, result_tables):
        monkeypatch.setattr(archive, stand_in.__name__, stand_in)
    return worked


@pytest.fixture
def parts(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "parts")
    (tmp_path / "parts" / "empty.png").write_bytes(b"")
    return tmp_path / "parts"


def names(out: Path) -> list[str]:
    return sorted(name for table in archive_tables(out) for name in table.column("path").to_pylist())


def test_a_job_that_is_stopped_goes_on_where_it_was(
    here: list[int], detector: Any, parts: Path, tmp_path: Path, recorder: Callable[..., Any]
) -> None:
    out = tmp_path / "found"
    with pytest.raises(Stopped, match="stopped after 16 of 25"):
        inspect_archive(detector, [str(parts)], out, observer=recorder(stop_after=0))
    finished = names(out)
    observer = recorder()
    done = inspect_archive(detector, [str(parts)], out, resume=True, observer=observer)
    assert here == [16, 9]
    assert len(finished) == 16
    assert names(out) == sorted(path.name for path in parts.iterdir())
    assert (done.images, done.errors, done.unread, done.done_before) == (25, 1, 0, 16)
    rejected = sum(
        value is True for table in archive_tables(out) for value in table.column("is_anomalous").to_pylist()
    )
    assert done.rejected == rejected
    assert len(observer.problems) == ("empty.png" not in finished)

    nothing = inspect_archive(detector, [str(parts)], out, resume=True)
    assert here == [16, 9], "what is finished is not done again"
    assert nothing.images == 25
    (parts / "3.png").write_bytes((parts / "4.png").read_bytes())
    inspect_archive(detector, [str(parts)], out, resume=True)
    assert here == [16, 9, 1], "an image that changed is done again"


def test_the_copy_of_the_parts_is_that_of_the_output_folder_after_each_run(
    detector: Any, parts: Path, tmp_path: Path, here: list[int], recorder: Callable[..., Any]
) -> None:
    out, place = tmp_path / "found", tmp_path / "copy"
    job = JobSettings(part=1, parts=str(place))
    with pytest.raises(Stopped):
        inspect_archive(detector, [str(parts)], out, job=job, observer=recorder(stop_after=0))
    assert names(place) == names(out) != []
    inspect_archive(detector, [str(parts)], out, job=job, resume=True)
    assert len(names(place)) == 25
    copied = {path.relative_to(place): path.read_bytes() for path in place.rglob("*.*")}
    own = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")}
    assert copied.keys() == own.keys()
    assert [path for path in own if own[path] != copied[path]] == [Path("copy.json")]


def test_the_file_of_an_image_that_has_changed_is_replaced_and_no_other(
    here: list[int], parts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    settings = BatchSettings(quality=50)

    def run(**options: bool) -> dict[str, dict[str, Any]]:
        encode_archive([str(parts)], out, settings=settings, **options)
        return {row["input"]: row for table in archive_tables(out) for row in table.to_pylist()}

    before = run()
    for name in ("3.png", "5.png"):
        (parts / name).write_bytes((parts / "4.png").read_bytes())
    (out / "files" / "5.png.jpg").write_bytes(b"another file")
    after = run(resume=True)
    written = {path.name: file_sha256(path) for path in (out / "files").iterdir()}
    assert after["3.png"]["output_sha256"] == written["3.png.jpg"] == written["4.png.jpg"]
    assert after["3.png"]["output_sha256"] != before["3.png"]["output_sha256"]
    assert (out / "files" / "5.png.jpg").read_bytes() == b"another file"
    rows = [row for table in archive_tables(out) for row in table.to_pylist() if row["input"] == "5.png"]
    assert "where another file is; use --overwrite" in rows[-1]["error"]


@pytest.mark.parametrize("which", ["protect", "model"])
def test_a_folder_without_a_model_is_refused_before_any_worker_starts(
    which: str, parts: Path, tmp_path: Path
) -> None:
    settings = BatchSettings(**{which: tmp_path / "gone"})
    with pytest.raises(ModelError, match="gone"):
        encode_archive([str(parts)], tmp_path / "small", settings=settings)
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize(
    ("on", "full", "line"),
    [
        ("local", False, r"--on local: the cluster does not start \(the node timed out\); try again"),
        (
            "local",
            True,
            "the disk of temporary files is full; free some space, or name another folder by TMPDIR",
        ),
        (
            "host:1",
            True,
            r"--on host:1: no cluster answers \(the node timed out\); start one, or use --on local",
        ),
    ],
)
def test_a_cluster_that_does_not_start_is_one_line(
    monkeypatch: pytest.MonkeyPatch, on: str, full: bool, line: str
) -> None:
    def start(job: JobSettings) -> None:
        raise Exception("the node\n timed out")  # as Ray does

    monkeypatch.setattr(cluster, "_start", start)
    monkeypatch.setattr(cluster, "is_full", lambda folder: full)
    with pytest.raises(BlemishError, match=line), cluster.connected(JobSettings(on)):
        pytest.fail("there is no cluster")


def test_another_address_and_no_ray_are_one_line(
    detector: Any, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for on in ("", "host", "http://host:1", "ray://host"):
        with pytest.raises(BlemishError, match="write local, auto, HOST:PORT or ray://HOST:PORT"):
            inspect_archive(detector, [str(parts)], tmp_path / "found", job=JobSettings(on))
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"ray is not installed.*\[scale\]"):
        inspect_archive(detector, [str(parts)], tmp_path / "found")
    assert not (tmp_path / "found").exists()
