"""The video file as a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.errors import ServeError
from blemish.serve.line.source_settings import VideoSettings
from blemish.serve.line.sources.video import VideoSource
from tests.serve.line.sources.cameras import number_of, take, write_video


def source(path: Path, **settings: Any) -> VideoSource:
    given = VideoSettings(name="tape", type="video", path=str(path), **settings)
    return VideoSource(given, path, path.parent / "line" / "tape.jsonl")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "shift.mp4")


def test_all_frames_come_once_in_order_and_then_the_source_ends(video: Path, tmp_path: Path) -> None:
    given = source(video)
    found = [frame for frame in given.frames() if frame is not None]
    arrays = [frame.image for frame in found]
    assert all(isinstance(array, np.ndarray) and array.shape == (48, 64, 3) for array in arrays)
    assert [number_of(array) for array in arrays if isinstance(array, np.ndarray)] == list(range(12))
    assert found[3].name == "shift.mp4-000003"
    assert len({frame.request for frame in found}) == 12
    assert given.state()["message"] == "shift.mp4: all frames were given"


def test_one_in_n_is_taken_and_grey_has_no_colours(video: Path) -> None:
    found = [frame for frame in source(video, every_nth=5, colour="grey").frames() if frame is not None]
    arrays = [frame.image for frame in found]
    assert [frame.name[-6:] for frame in found] == ["000000", "000005", "000010"]
    assert all(isinstance(array, np.ndarray) and array.shape == (48, 64) for array in arrays)


def test_a_restart_goes_on_after_the_last_frame_that_was_done(tmp_path: Path) -> None:
    path = write_video(tmp_path / "shift.mp4")
    first = source(path)
    given = take(first.frames(), 5)
    for frame in given[:4]:
        first.done(frame)
    first.close()
    again = [frame for frame in source(path).frames() if frame is not None]
    assert [frame.name[-6:] for frame in again] == [f"{number:06d}" for number in range(4, 12)]
    assert again[0].request == given[4].request, "the history stores it once"


def test_another_recording_under_the_same_name_begins_anew(tmp_path: Path) -> None:
    path = write_video(tmp_path / "shift.mp4")
    first = source(path)
    for frame in take(first.frames(), 5):
        first.done(frame)
    write_video(path, count=6)
    assert len([frame for frame in source(path).frames() if frame is not None]) == 6


def test_a_video_that_repeats_gives_new_numbers_each_time(video: Path) -> None:
    given = source(video, repeat=True, every_nth=6)
    found = take(given.frames(), 6)
    given.close()
    assert [frame.name[-6:] for frame in found] == ["000000", "000006"] * 3
    assert len({frame.request for frame in found}) == 6


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.mp4", None, "cannot be read"),
        ("empty.mp4", b"", "is no video"),
        ("text.mp4", b"no video at all" * 100, "is no video"),
        ("list.mp4", b"ffconcat version 1.0\nfile shift.mp4\n", "is no video"),
        (
            "list.m3u8",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nshift.mp4\n#EXT-X-ENDLIST\n",
            "is no video",
        ),
    ],
)
def test_files_that_are_no_video_are_one_line(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    write_video(tmp_path / "shift.mp4")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    given = source(tmp_path / name)
    with pytest.raises(ServeError, match=words) as error:
        take(given.frames(), 1)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert not given.state()["is_ready"]
