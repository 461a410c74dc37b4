"""Industrial cameras, by the simulated GenTL producer that comes with the official binding of GenICam."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.serve.line.source_settings import GenicamSettings
from blemish.serve.line.sources import latest
from blemish.serve.line.sources.genicam import PRODUCERS, genicam_source, pixels_of
from blemish.serve.line.sources.latest import CameraSource
from tests.serve.line.sources.cameras import take

genicam = pytest.importorskip("genicam", reason="harvesters is not installed")
pytest.importorskip("harvesters", reason="harvesters is not installed")


@pytest.fixture(autouse=True)
def _simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRODUCERS, str(Path(genicam.__file__).parent))
    monkeypatch.setattr(latest, "FIRST_WAIT", 0.1)


def source(**settings: Any) -> CameraSource:
    return genicam_source(GenicamSettings(name="top", type="genicam", **settings))


def test_frames_have_the_size_and_colours_that_features_ask_for() -> None:
    given = source(serial="1", features={"PixelFormat": "Mono8"})
    found = take(given.frames(), 3)
    state = given.state()
    given.close()
    assert all(isinstance(frame.image, np.ndarray) and frame.image.shape == (400, 400) for frame in found)
    assert all(isinstance(frame.image, np.ndarray) and frame.image.dtype == np.uint8 for frame in found)
    assert state["is_ready"]
    assert state["message"] == ""


def test_two_cameras_of_one_producer_run_side_by_side_and_again() -> None:
    for _ in range(2):
        green, blue = source(serial="1"), source(serial="2")
        one, other = take(green.frames(), 1), take(blue.frames(), 1)
        green.close()
        still = take(blue.frames(), 1)
        blue.close()
        for frame in (*one, *other, *still):
            assert isinstance(frame.image, np.ndarray)
            assert frame.image.shape == (400, 400, 3), "without the alpha channel"
        assert len(one) == len(other) == len(still) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"serial": "77"},
            r"is not there \(serial numbers that are there: 0, 1, 2\); check its cable and 'serial'",
        ),
        ({}, r"is not named \(serial numbers that are there: 0, 1, 2\)"),
        ({"serial": "1", "features": {"Widht": 3}}, "does not take the feature Widht: 3"),
        (
            {"serial": "1", "features": {"PixelFormat": "Mono99"}},
            "does not take the feature PixelFormat: 'Mono99'",
        ),
    ],
)
def test_faults_are_said_and_tried_again(settings: dict[str, Any], words: str) -> None:
    given = source(**settings)
    assert take(given.frames(), 1, 1.0) == []
    given.close()
    assert re.search(words, given.state()["message"]), given.state()


def test_a_camera_without_software_trigger_says_so() -> None:
    given = source(serial="1", software_trigger=True)
    take(given.frames(), 1)
    given.fire()
    message = given.state()["message"]
    given.close()
    assert "cannot be triggered by software" in message


def test_no_producer_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PRODUCERS, str(tmp_path))
    given = source()
    assert take(given.frames(), 1, 0.5) == []
    given.close()
    assert f"there is no GenTL producer in {PRODUCERS}" in given.state()["message"]


def test_pixel_formats_become_grey_or_rgb() -> None:
    values = np.arange(12, dtype=np.uint8)
    assert pixels_of(values, "Mono8", (3, 4)).tolist() == values.reshape(3, 4).tolist()
    deep = (values.astype(np.uint16) << 4) + 1
    assert pixels_of(deep, "Mono12", (3, 4)).tolist() == deep.reshape(3, 4).tolist()
    assert pixels_of(values, "RGB8", (2, 2)).tolist() == values.reshape(2, 2, 3).tolist()
    assert pixels_of(values, "BGR8", (2, 2)).tolist() == values.reshape(2, 2, 3)[..., ::-1].tolist()
    assert pixels_of(values, "BGRa8", (3, 1)).tolist() == values.reshape(3, 1, 4)[..., 2::-1].tolist()


@pytest.mark.parametrize(
    ("kind", "place"),
    [("BayerRG8", (0, 0)), ("BayerBG8", (1, 1)), ("BayerGR8", (0, 1)), ("BayerGB8", (1, 0))],
)
def test_a_mosaic_whose_red_pixels_are_bright_is_red(kind: str, place: tuple[int, int]) -> None:
    mosaic = np.zeros((16, 16), np.uint8)
    mosaic[place[0] :: 2, place[1] :: 2] = 200
    rgb = pixels_of(mosaic.ravel(), kind, (16, 16))[4:12, 4:12]
    assert rgb[..., 0].mean() > 150
    assert rgb[..., 1:].max() < 30


def test_other_formats_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="Mono12Packed, which is not read"):
        pixels_of(np.zeros(6, np.uint8), "Mono12Packed", (2, 2))
    with pytest.raises(ValueError, match="gave 5 values for 2 × 2 pixels of Mono8"):
        pixels_of(np.zeros(5, np.uint8), "Mono8", (2, 2))
