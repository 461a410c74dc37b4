"""The folder as a sink."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.errors import DeliveryError
from blemish.serve.contracts import StoredDecision
from blemish.serve.line.sink_settings import FolderSinkSettings
from blemish.serve.line.sinks.folder import FolderSink, file_stem
from blemish.storage.leftovers import temporary_name

MakeDecision = Callable[..., StoredDecision]


def image_file(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file, kind)
    return file.getvalue()


def sink(folder: Path, *, by_day: bool = False) -> FolderSink:
    return FolderSink(
        FolderSinkSettings(name="rejects", type="folder", path=str(folder), by_day=by_day), folder
    )


def test_image_overlay_and_decision_are_files_with_the_number_in_their_names(
    tmp_path: Path, make_decision: MakeDecision
) -> None:
    decision = make_decision(17, name="shift 2/part.jpg")
    image, overlay = image_file("JPEG"), image_file("PNG")
    sink(tmp_path / "rejects").deliver(decision, image, overlay)
    assert sorted(path.name for path in (tmp_path / "rejects").iterdir()) == [
        "00000017-part-overlay.png", "00000017-part.jpg", "00000017-part.json",
    ]  # fmt: skip
    assert (tmp_path / "rejects" / "00000017-part.jpg").read_bytes() == image, "the file as it came"
    assert (tmp_path / "rejects" / "00000017-part-overlay.png").read_bytes() == overlay
    content = json.loads((tmp_path / "rejects" / "00000017-part.json").read_text())
    assert content["id"] == 17
    assert content["score"] == decision.score
    assert content["regions"][0]["x"] == 4


def test_the_same_decision_twice_is_there_once(tmp_path: Path, make_decision: MakeDecision) -> None:
    given = sink(tmp_path)
    for _ in range(2):
        given.deliver(make_decision(1), image_file("PNG"), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001-part-1.json", "00000001-part-1.png"]


def test_images_of_one_name_do_not_overwrite_each_other(tmp_path: Path, make_decision: MakeDecision) -> None:
    given = sink(tmp_path)
    for number in (1, 2):
        given.deliver(make_decision(number, name="current.png"), image_file("PNG"), None)
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_a_decision_whose_image_is_no_longer_kept_arrives_without_it(
    tmp_path: Path, make_decision: MakeDecision
) -> None:
    sink(tmp_path).deliver(make_decision(3), None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["00000003-part-3.json"]


def test_a_folder_a_day_is_that_of_the_decision(tmp_path: Path, make_decision: MakeDecision) -> None:
    decision = make_decision(3)
    sink(tmp_path, by_day=True).deliver(decision, None, None)
    day = decision.time.astimezone().date().isoformat()
    assert (tmp_path / day / "00000003-part-3.json").is_file()


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a\\..\\b", "/abs/olute.png", "CON", "x" * 500, "ä" * 200, ""]
)
def test_names_lead_nowhere_else(tmp_path: Path, make_decision: MakeDecision, name: str) -> None:
    sink(tmp_path / "rejects").deliver(make_decision(1, name=name), image_file("PNG"), None)
    assert len(list((tmp_path / "rejects").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["rejects"]
    assert len(file_stem(name).encode()) <= 120


def test_a_folder_that_cannot_be_written_is_a_failed_delivery(
    tmp_path: Path, make_decision: MakeDecision
) -> None:
    (tmp_path / "rejects").write_text("a file in the way")
    with pytest.raises(DeliveryError, match="rejects"):
        sink(tmp_path / "rejects").deliver(make_decision(1), None, None)


@pytest.mark.parametrize("by_day", [False, True])
def test_temporary_files_of_a_killed_server_go_when_the_sink_opens(tmp_path: Path, by_day: bool) -> None:
    folder = tmp_path / "2026-11-30" if by_day else tmp_path
    folder.mkdir(exist_ok=True)
    (killed := subprocess.Popen([sys.executable, "-c", ""])).wait()
    left = folder / f".part-{temporary_name().split('-')[1]}-{killed.pid}-0123456789ab.png"
    kept = folder / "00000001-a.png"
    for made in (left, kept):
        made.touch()
    settings = FolderSinkSettings(name="rejects", type="folder", path=str(tmp_path), by_day=by_day)
    FolderSink(settings, tmp_path).open()
    assert not left.exists()
    assert kept.exists()
