"""The folder as a source: slow writers, restarts, what becomes of files that are done."""

from __future__ import annotations

import io
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.errors import BlemishError
from blemish.serve.contracts import Frame
from blemish.serve.line.source_settings import FolderSettings
from blemish.serve.line.sources.folder import UNREADABLE, FolderSource


def png(seed: int, side: int = 64) -> bytes:
    file = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    (tmp_path / "incoming").mkdir()
    return tmp_path / "incoming"


def source(incoming: Path, **settings: Any) -> FolderSource:
    settings = {"settle": 0.1, "poll": 0.2, **settings}
    move_to = incoming.parent / settings["move_to"] if "move_to" in settings else None
    given = FolderSettings(name="in", type="folder", path=str(incoming), **settings)
    return FolderSource(given, incoming, incoming.parent / "line" / "in.jsonl", move_to)


def take(frames: Iterator[Frame | None], count: int, seconds: float = 8.0) -> list[Frame]:
    """The first ``count`` frames, or as many as come within ``seconds``."""
    found: list[Frame] = []
    until = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < until:
        frame = next(frames)
        if frame is not None:
            found.append(frame)
    return found


def nothing(frames: Iterator[Frame | None], seconds: float = 0.6) -> bool:
    return take(frames, 1, seconds) == []


def test_images_come_in_the_order_of_their_change_with_the_bytes_of_the_file(incoming: Path) -> None:
    for number, age in ((1, 30), (2, 20), (0, 10)):
        path = incoming / f"{number}.png"
        path.write_bytes(png(number))
        os.utime(path, (time.time() - age,) * 2)
    (incoming / "notes.txt").write_text("no image")
    (incoming / ".hidden.png").write_bytes(png(9))
    given = source(incoming)
    found = take(given.frames(), 3)
    given.close()
    assert [frame.name for frame in found] == ["1.png", "2.png", "0.png"]
    assert [frame.image for frame in found] == [png(1), png(2), png(0)]
    assert {frame.source for frame in found} == {"in"}
    assert found[0].taken.timestamp() == pytest.approx(time.time() - 30, abs=5)


def test_only_names_of_the_pattern_are_taken(incoming: Path) -> None:
    (incoming / "left-1.png").write_bytes(png(1))
    (incoming / "right-1.png").write_bytes(png(2))
    (incoming / "below").mkdir()
    (incoming / "below" / "left-2.png").write_bytes(png(3))
    flat, deep = source(incoming, pattern="left-*"), source(incoming, pattern="left-*", recursive=True)
    assert [frame.name for frame in take(flat.frames(), 2, 1.0)] == ["left-1.png"]
    assert sorted(frame.name for frame in take(deep.frames(), 2)) == ["below/left-2.png", "left-1.png"]
    flat.close()
    deep.close()


@pytest.mark.parametrize("watch", ["auto", "poll"])
def test_a_file_that_is_still_being_written_is_waited_for(incoming: Path, watch: str) -> None:
    content = png(5, side=128)
    given = source(incoming, watch=watch, settle=0.3)
    frames = given.frames()
    assert nothing(frames, 0.3)

    def write_slowly() -> None:
        with open(incoming / "slow.png", "wb") as file:
            for start in range(0, len(content), len(content) // 8 + 1):
                file.write(content[start : start + len(content) // 8 + 1])
                file.flush()
                time.sleep(0.1)

    writer = threading.Thread(target=write_slowly)
    writer.start()
    (frame,) = take(frames, 1)
    writer.join()
    given.close()
    assert frame.image == content


@pytest.mark.skipif(
    os.name != "posix" or not Path("/proc").is_dir(), reason="closed files are reported by inotify"
)
def test_a_writer_that_pauses_longer_than_a_file_must_settle_is_waited_for(incoming: Path) -> None:
    content = png(5)
    given = source(incoming, settle=0.05)
    frames = given.frames()
    assert nothing(frames, 0.3)
    with open(incoming / "slow.png", "wb") as file:
        file.write(content[:1000])
        file.flush()
        assert nothing(frames, 0.6)
        file.write(content[1000:])
    (frame,) = take(frames, 1)
    given.close()
    assert frame.image == content


def test_a_file_that_is_moved_into_the_folder_comes_at_once(incoming: Path, tmp_path: Path) -> None:
    given = source(incoming, poll=30)
    frames = given.frames()
    assert nothing(frames, 0.3)
    (tmp_path / "a.png").write_bytes(png(1))
    os.rename(tmp_path / "a.png", incoming / "a.png")
    begun = time.monotonic()
    assert [frame.name for frame in take(frames, 1)] == ["a.png"]
    assert time.monotonic() - begun < 5, "the change was reported, not found by the next look"
    given.close()


def test_files_that_are_done_stay_and_are_not_given_again_after_a_restart(incoming: Path) -> None:
    for number in range(3):
        (incoming / f"{number}.png").write_bytes(png(number))
    first = source(incoming)
    given = take(first.frames(), 3)
    for frame in given[:2]:
        first.done(frame)
    first.close()
    again = source(incoming)
    frames = again.frames()
    (left,) = take(frames, 1)
    assert left.name == given[2].name
    assert left.request == given[2].request, "the history stores it once"
    again.done(left)
    assert nothing(frames)
    again.close()


def test_the_same_name_with_another_content_is_another_image(incoming: Path) -> None:
    given = source(incoming)
    frames = given.frames()
    requests = set()
    for seed in range(2):
        (incoming / "current.png").write_bytes(png(seed))
        (frame,) = take(frames, 1)
        assert frame.image == png(seed)
        given.done(frame)
        requests.add(frame.request)
    (incoming / "current.png").write_bytes(png(1))
    (frame,) = take(frames, 1)
    requests.add(frame.request)
    given.close()
    assert len(requests) == 3, "an image that is brought again is inspected again"


def test_done_files_are_moved_and_none_is_overwritten(incoming: Path) -> None:
    given = source(incoming, after="move", move_to="done")
    frames = given.frames()
    for seed in range(2):
        (incoming / "current.png").write_bytes(png(seed))
        (frame,) = take(frames, 1)
        given.done(frame)
    assert list(incoming.iterdir()) == []
    assert (incoming.parent / "done" / "current.png").read_bytes() == png(0)
    assert (incoming.parent / "done" / "current-2.png").read_bytes() == png(1)
    assert nothing(frames)
    given.close()


def test_done_files_are_deleted_where_that_is_asked_for(incoming: Path) -> None:
    given = source(incoming, after="delete")
    (incoming / "a.png").write_bytes(png(1))
    (frame,) = take(given.frames(), 1)
    assert (incoming / "a.png").exists()
    given.done(frame)
    assert not (incoming / "a.png").exists()
    given.close()


def test_a_file_that_changed_before_it_was_done_stays_and_is_given_again(incoming: Path) -> None:
    given = source(incoming, after="delete")
    frames = given.frames()
    (incoming / "a.png").write_bytes(png(1))
    (old,) = take(frames, 1)
    (incoming / "a.png").write_bytes(png(2))
    given.done(old)
    (new,) = take(frames, 1)
    assert new.image == png(2)
    given.done(new)
    assert not (incoming / "a.png").exists()
    given.close()


def test_a_file_without_an_image_is_put_aside_and_the_rest_goes_on(incoming: Path) -> None:
    given = source(incoming, after="move", move_to="done")
    frames = given.frames()
    (incoming / "bad.png").write_bytes(b"no image")
    (bad,) = take(frames, 1)
    given.refused(bad, "is no image")
    (incoming / "good.png").write_bytes(png(1))
    assert [frame.name for frame in take(frames, 1)] == ["good.png"]
    assert (incoming / UNREADABLE / "bad.png").read_bytes() == b"no image"
    assert given.state()["message"] == "bad.png: is no image"
    given.close()


def test_a_file_without_an_image_stays_where_files_are_kept_and_is_tried_again_once_it_changes(
    incoming: Path,
) -> None:
    given = source(incoming)
    frames = given.frames()
    (incoming / "a.png").write_bytes(b"no image")
    (bad,) = take(frames, 1)
    given.refused(bad, "is no image")
    assert nothing(frames)
    (incoming / "a.png").write_bytes(png(1))
    assert [frame.image for frame in take(frames, 1)] == [png(1)]
    given.close()


def test_an_empty_file_waits_for_its_content(incoming: Path) -> None:
    given = source(incoming)
    frames = given.frames()
    (incoming / "a.png").touch()
    assert nothing(frames)
    (incoming / "a.png").write_bytes(png(1))
    assert len(take(frames, 1)) == 1
    given.close()


def test_a_folder_that_disappears_and_comes_back_goes_on(incoming: Path) -> None:
    given = source(incoming)
    frames = given.frames()
    assert nothing(frames, 0.3)
    assert given.state()["is_ready"]
    shutil.rmtree(incoming)
    assert nothing(frames, 0.5)
    assert not given.state()["is_ready"]
    assert "is not there" in given.state()["message"]
    incoming.mkdir()
    (incoming / "a.png").write_bytes(png(1))
    assert len(take(frames, 1)) == 1
    assert given.state()["is_ready"]
    given.close()


def test_a_file_that_cannot_be_moved_says_so_and_is_given_again(incoming: Path) -> None:
    given = source(incoming, after="move", move_to="done")
    frames = given.frames()
    (incoming / "a.png").write_bytes(png(1))
    (frame,) = take(frames, 1)
    (incoming.parent / "done").write_text("a file in the way")
    with pytest.raises(BlemishError, match="cannot be moved"):
        given.done(frame)
    (incoming.parent / "done").unlink()
    (again,) = take(frames, 1)
    assert again.request == frame.request
    given.done(again)
    assert (incoming.parent / "done" / "a.png").is_file()
    given.close()


def test_the_log_forgets_files_that_are_gone(incoming: Path) -> None:
    given = source(incoming)
    frames = given.frames()
    for seed in range(3):
        (incoming / f"{seed}.png").write_bytes(png(seed))
    for frame in take(frames, 3):
        given.done(frame)
    given.close()
    log = incoming.parent / "line" / "in.jsonl"
    assert len(log.read_text().splitlines()) == 3
    (incoming / "0.png").unlink()
    again = source(incoming)
    assert nothing(again.frames(), 0.3)
    again.close()
    assert len(log.read_text().splitlines()) == 2
