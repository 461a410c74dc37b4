from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from blemish.decision.records import Inspection, read_records
from blemish.decision.regions import Region
from blemish.errors import FileError
from blemish.storage.records_log import RecordsLog, append_line


def record(number: int, score: float = 0.1) -> Inspection:
    return Inspection(
        path=f"tile_{number}.png",
        size=(640, 480),
        score=score,
        threshold=0.3,
        p_value=0.05,
        is_anomalous=False,
        regions=(Region(x=1, y=2, width=3, height=4, area=5, peak=0.7, mean=1 / 3),),
        time="2025-01-02T03:04:05.678901Z",
        seconds=0.0123,
        label="crack",
    )


def append_record(path: Path, one: Inspection) -> None:
    """Append as a run does that goes on with what is there."""
    RecordsLog(path, Inspection).append(one)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inspections.jsonl"


def test_numbers_come_back_to_the_last_bit(path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2**63 - 1, 400, dtype=np.int64)
    scores = [s for s in bits.view(np.float64).tolist() if np.isfinite(s)]
    scores += [0.1 + 0.2, 5e-324, 1.7976931348623157e308, 0.0]
    written = [record(i, score) for i, score in enumerate(scores)]
    log = RecordsLog(path, Inspection)
    for one in written:
        log.append(one)
    assert read_records(path) == written


def test_a_record_is_one_line_of_plain_json(path: Path) -> None:
    one = record(0).model_copy(update={"path": "Prüfling\n1.png", "label": None})
    append_record(path, one)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1
    content = json.loads(lines[0])
    assert content["path"] == "Prüfling\n1.png"
    assert content["label"] is None
    assert content["regions"][0]["peak"] == 0.7
    assert read_records(path) == [one]


def test_a_kill_at_any_byte_keeps_the_finished_records_and_the_run_can_go_on(path: Path) -> None:
    for number in range(3):
        append_record(path, record(number))
    whole = path.read_bytes()
    two = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for cut in (two, two + 1, two + 40, len(whole) - 2, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:cut])
        # The third record is whole once all of it but the end of the line is there.
        kept = 3 if cut >= len(whole) - 1 else 2
        assert read_records(path) == [record(i) for i in range(kept)]
        append_record(path, record(9))
        assert read_records(path) == [*(record(i) for i in range(kept)), record(9)]


def test_a_file_cut_within_its_first_record_is_empty_and_starts_anew(path: Path) -> None:
    path.write_bytes(b'{"path": "ti')
    assert read_records(path) == []
    append_record(path, record(0))
    assert read_records(path) == [record(0)]


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        (b"{}", "path: Field required"),
        (b"no json", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"", "Invalid JSON"),
    ],
)
def test_a_corrupt_line_is_named_in_one_line(path: Path, line: bytes, detail: str) -> None:
    append_record(path, record(0))
    append_line(path, line)
    append_line(path, record(2).model_dump_json().encode())
    with pytest.raises(FileError) as error:
        read_records(path)
    assert "line 2" in str(error.value)
    assert detail in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"missing\.jsonl"):
        read_records(tmp_path / "missing.jsonl")
    with pytest.raises(FileError, match="cannot be written"):
        append_line(tmp_path / "no folder" / "inspections.jsonl", b"{}")


def test_a_full_disk_is_an_error_that_names_the_file() -> None:
    with pytest.raises(FileError, match=r"/dev/full.*space"):
        append_line("/dev/full", record(0).model_dump_json().encode())


@pytest.mark.parametrize("field", ["score", "threshold", "p_value", "seconds"])
def test_numbers_that_are_not_finite_make_no_record(field: str) -> None:
    with pytest.raises(ValidationError):
        Inspection.model_validate({**record(0).model_dump(), field: float("nan")})


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        record(0).score = 1.0  # type: ignore[misc]
