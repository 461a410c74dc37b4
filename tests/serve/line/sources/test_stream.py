"""Network cameras and webcams as sources: the newest frame, cameras that go away and come back."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.serve.contracts import utc_now
from blemish.serve.line.source_settings import StreamSettings, WebcamSettings
from blemish.serve.line.sources import latest
from blemish.serve.line.sources.latest import CameraSource
from blemish.serve.line.sources.stream import stream_source, webcam_source
from tests.serve.line.sources.cameras import MjpegCamera, jpeg, take
from tests.serve.line.sources.rtsp import RtspCamera
from tests.services import free_port, needs


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest, "FIRST_WAIT", 0.1)
    monkeypatch.setattr(latest, "LONGEST_WAIT", 0.3)


@pytest.fixture
def camera() -> Iterator[MjpegCamera]:
    found = MjpegCamera().start()
    yield found
    found.stop()


def stream(url: str, **settings: Any) -> CameraSource:
    return stream_source(StreamSettings(name="belt", type="stream", url=url, **settings), "sources[0]")


def test_motion_jpeg_is_passed_on_as_the_files_that_came(camera: MjpegCamera) -> None:
    given = stream(f"{camera.url}/stream")
    begun = utc_now()
    found = take(given.frames(), 3)
    given.close()
    known = {jpeg(number) for number in range(16)}
    assert all(frame.image in known for frame in found)
    assert all(
        Image.open(BytesIO(frame.image)).size == (64, 48) for frame in found if isinstance(frame.image, bytes)
    )
    assert all(begun <= frame.taken <= utc_now() for frame in found)
    assert len({frame.request for frame in found}) == len({frame.name for frame in found}) == 3
    assert {frame.source for frame in found} == {"belt"}


def test_a_slow_model_gets_the_newest_frame_and_no_backlog(camera: MjpegCamera) -> None:
    given = stream(f"{camera.url}/stream")
    frames = given.frames()
    take(frames, 1)
    begun = utc_now()
    time.sleep(1.0)
    asked = utc_now()
    (first, second) = take(frames, 2)
    state = given.state()
    given.close()
    assert (first.taken - begun).total_seconds() > 0.5, "of some twenty frames the newest"
    assert second.taken > asked
    assert state["dropped"] >= 5
    assert state["frames"] >= state["dropped"] + 3


def test_frames_may_wait_where_each_is_a_part(camera: MjpegCamera) -> None:
    given = stream(f"{camera.url}/stream", waiting=100)
    frames = given.frames()
    take(frames, 1)
    time.sleep(0.5)
    found = take(frames, 8)
    state = given.state()
    given.close()
    taken = [frame.taken for frame in found]
    assert taken == sorted(taken)
    assert state["dropped"] == 0


def test_a_camera_that_disappears_and_comes_back_goes_on(camera: MjpegCamera) -> None:
    given = stream(f"{camera.url}/stream", silence=1)
    frames = given.frames()
    assert len(take(frames, 2)) == 2
    assert given.state() | {"frames": 0, "dropped": 0} == {
        "is_ready": True, "message": "", "frames": 0, "dropped": 0, "losses": 0,
    }  # fmt: skip
    camera.stop()
    until = time.monotonic() + 10
    while given.state()["is_ready"] and time.monotonic() < until:
        take(frames, 1, 0.1)
    state = given.state()
    assert not state["is_ready"]
    assert f"http://127.0.0.1:{camera.port}/stream" in state["message"]
    assert state["losses"] == 1
    gone = utc_now()
    camera.start()
    (frame,) = take(frames, 1)
    assert frame.taken > gone
    assert given.state()["is_ready"]
    given.close()


def test_a_camera_that_says_nothing_is_opened_again(camera: MjpegCamera) -> None:
    given = stream(f"{camera.url}/stream", silence=0.5)
    frames = given.frames()
    take(frames, 1)
    camera.is_silent = True
    until = time.monotonic() + 10
    while given.state()["is_ready"] and time.monotonic() < until:
        take(frames, 1, 0.1)
    assert not given.state()["is_ready"]
    camera.is_silent = False
    before = camera.requests
    assert len(take(frames, 1)) == 1
    assert camera.requests > before - 1
    given.close()


def test_a_camera_that_is_not_there_yet_is_waited_for_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BLEMISH_LINE_PASSWORD", "hunter2")
    camera = MjpegCamera()
    camera.asks_for_password = True
    camera.port = free_port()
    given = stream(f"http://user:${{BLEMISH_LINE_PASSWORD}}@127.0.0.1:{camera.port}/stream")
    frames = given.frames()
    assert take(frames, 1, 0.8) == []
    state = given.state()
    assert not state["is_ready"]
    assert "check the camera" in state["message"]
    assert "hunter2" not in state["message"]
    camera.start()
    assert len(take(frames, 1)) == 1
    assert camera.headers[-1]["Authorization"].startswith("Basic ")
    given.close()
    camera.stop()


@pytest.mark.slow
def test_a_stream_of_ffmpeg_that_ends_and_comes_back_is_decoded(tmp_path: Path) -> None:
    program, port = needs("ffmpeg"), free_port()
    command = [
        program, "-loglevel", "error", "-re", "-f", "lavfi", "-i", "color=c=0x808080:size=64x48:rate=10", "-t", "5",
        "-c:v", "mpeg2video", "-g", "5", "-f", "mpegts", "-listen", "1", f"http://127.0.0.1:{port}/live.ts",
    ]  # fmt: skip
    given = stream(f"http://127.0.0.1:{port}/live.ts", colour="grey", silence=2)
    frames = given.frames()
    for _ in range(2):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        (frame,) = take(frames, 1, 20)
        assert isinstance(frame.image, np.ndarray)
        assert frame.image.shape == (48, 64)
        assert abs(float(frame.image.mean()) - 128) < 8
        process.wait(20)
    given.close()


def test_an_rtsp_camera_that_loses_its_power_and_comes_back_goes_on(tmp_path: Path) -> None:
    camera = RtspCamera(tmp_path).start()
    given = stream(camera.url, silence=1.5)
    frames = given.frames()
    (frame,) = take(frames, 1, 20)
    assert isinstance(frame.image, np.ndarray)
    assert frame.image.shape == (48, 64, 3)
    assert abs(float(frame.image.mean()) - 128) < 8
    assert camera.requests[:4] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    camera.stop()
    until = time.monotonic() + 15
    while given.state()["is_ready"] and time.monotonic() < until:
        take(frames, 1, 0.1)
    assert camera.url in given.state()["message"]
    gone = utc_now()
    camera.start()
    (frame,) = take(frames, 1, 20)
    assert frame.taken > gone
    given.close()
    camera.stop()


def test_closing_does_not_wait_for_a_camera(camera: MjpegCamera) -> None:
    camera.is_silent = True
    given = stream(f"{camera.url}/stream", silence=2)
    take(given.frames(), 1, 0.3)
    begun = time.monotonic()
    given.close()
    assert time.monotonic() - begun < 8


def test_a_webcam_is_read_by_the_driver_of_the_system() -> None:
    # No machine of the tests has a webcam; FFmpeg's own generator is an input device as v4l2 is one.
    settings = WebcamSettings(name="bench", type="webcam", device="testsrc=size=64x48:rate=20", colour="rgb")
    given = webcam_source(settings, driver="lavfi")
    found = take(given.frames(), 2)
    given.close()
    assert all(isinstance(frame.image, np.ndarray) and frame.image.shape == (48, 64, 3) for frame in found)


def test_a_webcam_that_is_missing_is_said(tmp_path: Path) -> None:
    given = webcam_source(WebcamSettings(name="bench", type="webcam", device=str(tmp_path / "video9")))
    assert take(given.frames(), 1, 0.6) == []
    assert str(tmp_path / "video9") in given.state()["message"]
    given.close()
