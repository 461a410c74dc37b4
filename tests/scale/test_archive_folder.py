"""The output folder of an archive: parts whole or not there, nothing lost or doubled by kills at any moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from blemish.decision import Inspection
from blemish.errors import FileError, UsageError
from blemish.scale.archive_folder import LOG_FILE, PARTS, ArchiveFolder, archive_tables
from blemish.scale.tables import result_schema
from blemish.scale.work import InspectionWork

SCHEMA = result_schema(Inspection, [])


def rows(
    names: Sequence[str], *, sha256: str = "a", version: str = "1", error: str | None = None
) -> pa.Table:
    same = {"sha256": sha256, "version": version, "error": error}
    return pa.Table.from_pylist(
        [{"path": name, "is_anomalous": name == "0", **same} for name in names], schema=SCHEMA
    )


def opened(path: Path, *, resume: bool = False, threshold: float = 1.0) -> ArchiveFolder:
    return ArchiveFolder(path, InspectionWork({}), {"threshold": threshold}, ["threshold"], resume=resume)


def names(path: Path) -> list[str]:
    return [name for table in archive_tables(path) for name in table.column("path").to_pylist()]


def test_results_are_written_once_by_name_and_hash(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    part = folder.add(rows(["0", "1"]))
    assert part is not None
    assert (part.images, part.rejected, part.errors) == (2, 1, 0)
    assert folder.add(rows(["1", "0"], version="2")) is None
    folder.add(rows(["1", "2"], sha256="b"))
    folder.close()
    assert sorted(names(tmp_path)) == ["0", "1", "1", "2"]


def test_the_newest_result_of_an_image_that_has_changed_is_left(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.add(rows(["0", "1"]))
    folder.add(rows(["2", "3"]))
    folder.add(rows(["4"]))
    folder.drop_superseded()
    assert names(tmp_path) == ["0", "1", "2", "3", "4"]
    folder.close()
    folder = opened(tmp_path, resume=True)
    folder.add(rows(["1", "2", "3"], sha256="b", version="2"))
    folder.drop_superseded()
    folder.close()
    assert names(tmp_path) == ["0", "4", "1", "2", "3"]
    folder = opened(tmp_path, resume=True)
    assert [part.images for part in folder.parts] == [1, 1, 3]
    assert folder.is_finished("1", "2")
    assert not folder.is_finished("1", "1")
    folder.close()


def test_an_error_takes_the_place_of_an_error_alone(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.add(rows(["0"]))
    folder.add(rows(["1"], error="damaged"))
    folder.add(rows(["0", "1"], sha256="b", version="2", error="damaged"))
    folder.drop_superseded()
    assert names(tmp_path) == ["0", "0", "1"]
    folder.close()
    folder = opened(tmp_path, resume=True)
    folder.add(rows(["0", "1"], sha256="c", version="3"))
    folder.drop_superseded()
    folder.close()
    assert names(tmp_path) == ["0", "1"]
    assert [one for table in archive_tables(tmp_path) for one in table.column("sha256").to_pylist()] == [
        "c",
        "c",
    ]


def test_a_resumed_archive_knows_what_is_finished(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.add(rows(["0", "1"]))
    folder.close()
    with pytest.raises(UsageError, match="already holds"):
        opened(tmp_path)
    with pytest.raises(UsageError, match="another threshold"):
        opened(tmp_path, resume=True, threshold=2.0)
    folder = opened(tmp_path, resume=True)
    finished = {
        (name, version): folder.is_finished(name, version) for name in ("0", "2") for version in ("1", "2")
    }
    folder.close()
    assert [key for key, value in finished.items() if value] == [("0", "1")]


def test_a_part_without_its_line_is_kept_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    for start in (0, 2, 4):
        folder.add(rows([str(start), str(start + 1)]))
    folder.close()
    log = (tmp_path / LOG_FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / LOG_FILE).write_bytes(
        b"".join(log[:2]) + log[2][:20]
    )  # as a kill within the last line leaves it
    second = tmp_path / PARTS / "part-00000002.parquet"
    second.write_bytes(second.read_bytes()[:-1])
    (tmp_path / PARTS / "part-00000009.parquet").write_bytes(b"PAR1")
    folder = opened(tmp_path, resume=True)
    assert sorted(part.name for part in folder.parts) == ["part-00000001.parquet", "part-00000003.parquet"]
    assert sorted(names(tmp_path)) == ["0", "1", "4", "5"]
    assert not folder.is_finished("2", "1")
    folder.add(rows(["2", "3", "4"]))
    folder.close()
    assert sorted(names(tmp_path)) == ["0", "1", "2", "3", "4", "5"]


def test_an_image_is_listed_once_and_a_name_is_of_one_image(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    assert folder.first("a", "/x/a")
    assert not folder.first("a", "/x/a")
    with pytest.raises(FileError, match="under the name a"):
        folder.first("a", "/y/a")
    folder.close()
