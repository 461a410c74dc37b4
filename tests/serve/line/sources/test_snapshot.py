"""Snapshots of a network camera as a source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from blemish.serve.contracts import utc_now
from blemish.serve.line.source_settings import HttpTrigger, SnapshotSettings
from blemish.serve.line.sources import snapshot
from blemish.serve.line.sources.snapshot import SnapshotSource
from tests.serve.line.sources.cameras import MjpegCamera, jpeg, take


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[MjpegCamera]:
    monkeypatch.setattr(snapshot, "WAIT", 0.05)
    found = MjpegCamera().start()
    yield found
    found.stop()


def source(camera: MjpegCamera, **settings: Any) -> SnapshotSource:
    url = f"{camera.url}/image.jpg"
    trigger = HttpTrigger(type="http")
    return SnapshotSource(
        SnapshotSettings(name="s", type="snapshot", url=url, trigger=trigger, **settings), "sources[0]"
    )


def test_each_image_is_asked_for_when_it_is_wanted(
    camera: MjpegCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLEMISH_LINE_TOKEN", "abc")
    given = source(camera, token="${BLEMISH_LINE_TOKEN}")
    frames = given.frames()
    for number in (1, 2, 3):
        asked = utc_now()
        (frame,) = take(frames, 1)
        assert camera.requests == number
        assert frame.image == jpeg(number)
        assert frame.taken >= asked
    given.close()
    assert camera.headers[0]["Authorization"] == "Bearer abc"


def test_a_camera_that_fails_and_recovers_goes_on(camera: MjpegCamera) -> None:
    given = source(camera)
    frames = given.frames()
    camera.status = 503
    assert take(frames, 1, 0.3) == []
    assert "status 503" in given.state()["message"]
    camera.status = 200
    assert len(take(frames, 1)) == 1
    assert given.state()["is_ready"]
    camera.stop()
    assert take(frames, 1, 0.3) == []
    assert not given.state()["is_ready"]
    camera.start()
    assert len(take(frames, 1)) == 1
    given.close()
