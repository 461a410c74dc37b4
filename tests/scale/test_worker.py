"""Work on tables of images, without a cluster: scores of ``Detector.inspect``, errors as rows, images that kill."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel

from blemish.data.fingerprint import file_sha256
from blemish.decision import Inspection
from blemish.errors import FileError, ImageError
from blemish.inspection.detector import Detector
from blemish.jpeg.batch import BatchSettings, EncodedFile
from blemish.scale import worker as worker_module
from blemish.scale.listing import look_at
from blemish.scale.tables import ERROR, UNREAD, record_of, result_schema
from blemish.scale.work import EncodingWork, ImageWork, InspectionWork, contents
from blemish.scale.worker import BLAMED_AFTER, CAREFUL_AFTER, ArchiveWorker, Attempts, planned_row


def results(work: ImageWork, sources: list[str], attempts: Attempts | None = None) -> list[dict[str, object]]:
    listing = look_at(sources)
    carried = [field.name for field in listing.carried]
    rows = pa.Table.from_pylist([planned_row(one, carried) for one in listing.images()])
    worker = ArchiveWorker(work, attempts or Attempts(), result_schema(work.record, listing.carried))
    found: list[dict[str, object]] = worker(rows).to_pylist()
    return found


@pytest.fixture
def parts(good: Path, tmp_path: Path) -> Path:
    """Two good images, and between them one that is damaged."""
    for name, source in (("1.png", "3.png"), ("3.png", "7.png")):
        (tmp_path / "parts").mkdir(exist_ok=True)
        shutil.copy(good / source, tmp_path / "parts" / name)
    (tmp_path / "parts" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    return tmp_path / "parts"


def test_records_are_those_of_the_detector_and_a_damaged_image_is_a_row(
    fitted: tuple[Detector, Path], parts: Path
) -> None:
    first, damaged, last = results(InspectionWork(contents(fitted[1])), [str(parts)])
    for row in (first, last):
        record = record_of(row, Inspection)
        path = parts / str(row["path"])
        expected = fitted[0].inspect(path, name=path.name).record(None, file_sha256(path))
        assert record is not None
        apart = {"time": "", "seconds": 0.0}
        assert record.model_copy(update=apart) == expected.model_copy(update=apart)
        assert row["bytes_read"] == path.stat().st_size
    assert damaged["path"] == "2.png"
    assert str(damaged[ERROR]).startswith(f"{parts / '2.png'}: ")
    assert damaged["sha256"] == file_sha256(parts / "2.png")
    assert damaged["score"] is None
    assert [row[UNREAD] for row in (first, damaged, last)] == [False] * 3


def test_encoded_files_lie_below_the_root_and_another_file_there_stays(parts: Path, tmp_path: Path) -> None:
    settings = BatchSettings(quality=50)
    work = EncodingWork(settings, settings.fingerprint(), str(tmp_path / "small"))
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "3.png.jpg").write_bytes(b"of somebody else")
    first, damaged, taken = results(work, [str(parts)])
    record = record_of(first, EncodedFile)
    assert record is not None
    assert file_sha256(tmp_path / "small" / record.output) == record.output_sha256
    assert record.bytes_after == (tmp_path / "small" / record.output).stat().st_size
    assert damaged[ERROR] is not None
    assert "where another file is; use --overwrite" in str(taken[ERROR])
    assert (tmp_path / "small" / "3.png.jpg").read_bytes() == b"of somebody else"
    again = results(work, [str(parts)])[0]
    assert record_of(again, EncodedFile) == record, "what a killed worker wrote is taken as it is"


@dataclass
class FailingWork:
    """Work that fails by the name of the image, as :class:`ImageWork`."""

    record: type[BaseModel] = Inspection
    name_field: str = "path"

    def prepare(self, folder: Path) -> None:
        assert folder.is_dir()

    def work_on(self, path: Path, name: str, sha256: str, former: str | None = None) -> BaseModel:
        raise {
            "1.png": FileError("/full", "the disk is full", "free some space"),
            "2.png": ImageError(path, "is a test", "leave it"),
            "3.png": ZeroDivisionError("by\nzero"),
        }[name]

    def rejects(self, record: Mapping[str, object]) -> bool:
        return False


def test_what_is_not_of_the_image_is_not_finished_and_a_defect_of_ours_is_a_row(parts: Path) -> None:
    full, own, defect = results(FailingWork(), [str(parts)])
    assert (full[UNREAD], own[UNREAD], defect[UNREAD]) == (True, False, False)
    assert own[ERROR] == f"{parts / '2.png'}: is a test; leave it"
    assert "ZeroDivisionError: by zero" in str(defect[ERROR])


@pytest.mark.parametrize("moment", ["listed", "read"])
def test_an_image_that_changes_has_no_result(
    fitted: tuple[Detector, Path],
    good: Path,
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    def change() -> None:
        shutil.copy(parts / "3.png", parts / "1.png")

    if moment == "read":
        inspect = Detector.inspect

        def changing(self: Detector, *given: Any, **more: Any) -> Any:
            change()
            return inspect(self, *given, **more)

        monkeypatch.setattr(Detector, "inspect", changing)
    for work in (
        InspectionWork(contents(fitted[1])),
        EncodingWork(BatchSettings(), "", str(tmp_path / "files")),
    ):
        shutil.copy(good / "3.png", parts / "1.png")
        listing = look_at([str(parts)])
        planned = [planned_row(one, []) for one in listing.images()][:1]
        if moment == "listed":
            change()
        elif isinstance(work, EncodingWork):
            monkeypatch.setattr(worker_module, "file_sha256", lambda path: "of the former content")
        worker = ArchiveWorker(work, Attempts(), result_schema(work.record, listing.carried))
        (row,) = worker(pa.Table.from_pylist(planned)).to_pylist()
        assert row[UNREAD]
        assert row[ERROR] == f"{parts / '1.png'}: has changed since it was listed; go on with --resume"
    assert not (tmp_path / "files").exists()


def test_an_image_that_ends_its_worker_each_time_is_given_up(parts: Path) -> None:
    class Killed(BaseException):
        """Stands for SIGKILL."""

    class KillingWork(FailingWork):
        def work_on(self, path: Path, name: str, sha256: str, former: str | None = None) -> BaseModel:
            if name == "2.png":
                raise Killed
            raise ImageError(path, "is a test", "leave it")

    attempts, kills = Attempts(), 0
    while True:
        try:
            rows = results(KillingWork(), [str(parts)], attempts)
            break
        except Killed:
            kills += 1
            assert kills < 20
    assert kills == CAREFUL_AFTER + BLAMED_AFTER
    assert ["ends the process" in str(row[ERROR]) for row in rows] == [False, True, False]
