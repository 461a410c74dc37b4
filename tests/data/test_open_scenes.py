from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from blemish.data.open_scenes import OpenedScenes, open_scenes
from blemish.errors import FileError, Stopped

Painting = Callable[..., Path]


@pytest.fixture
def paintings(painting: Painting, tmp_path: Path) -> Path:
    for seed, name in enumerate(["adam", "eve", "zachary"]):
        painting(tmp_path / "scenes" / name, seed)
    return tmp_path / "scenes"


@pytest.fixture
def recorded(recorder: Any) -> Any:
    return recorder()


def describe(source: Path) -> None:
    """Say what the sensors are, so that a scene may have one alone."""
    listed = "".join(
        f"- {{name: {name}, file: {file}}}\n"
        for name, file in (("infrared", "infrared.tif"), ("rgb", "rgb.png"), ("xray", "xray.tif"))
    )
    (source / "modalities.yaml").write_text(f"modalities:\n{listed}")


def opened(source: Path, recorded: Any) -> OpenedScenes:
    return open_scenes(source, patch=32, observer=recorded)


def test_opened_scenes_hold_modalities_sizes_and_bands(paintings: Path, recorded: Any) -> None:
    found = opened(paintings, recorded)
    assert [reader.name for reader in found.readers] == ["adam", "eve", "zachary"]
    assert [(one.name, one.channels, one.depth) for one in found.modalities] == [
        ("infrared", 1, "uint16"),
        ("rgb", 3, "uint8"),
        ("xray", 1, "uint16"),
    ]
    assert (found.fingerprint.count, found.fingerprint.channels) == (3, 5)
    assert (found.fingerprint.width.max, found.fingerprint.height.min) == (160, 64)
    assert found.bands[0].calibration == slice(120, 160)


def test_the_fingerprint_is_of_names_and_contents(paintings: Path, recorded: Any, tmp_path: Path) -> None:
    before = opened(paintings, recorded).fingerprint.sha256
    assert opened(paintings, recorded).fingerprint.sha256 == before
    path = paintings / "eve" / "infrared.tif"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert opened(paintings, recorded).fingerprint.sha256 != before
    path.write_bytes(content)
    assert opened(paintings, recorded).fingerprint.sha256 == before
    (paintings / "eve").rename(paintings / "judocus")
    assert opened(paintings, recorded).fingerprint.sha256 != before


def test_a_modality_missing_in_one_scene_is_reported(paintings: Path, recorded: Any) -> None:
    (paintings / "eve" / "xray.tif").unlink()
    found = opened(paintings, recorded)
    assert [reader.missing for reader in found.readers] == [(), ("xray",), ()]
    assert len(found.modalities) == 3
    assert "eve: xray: missing, there is no xray.tif" in recorded.stages


def test_a_sensor_missing_in_all_scenes_is_left_out(paintings: Path, recorded: Any) -> None:
    (paintings / "modalities.yaml").write_text(
        "modalities:\n- {name: rgb, file: rgb.png}\n- {name: uv, file: uv.png, channels: 3}\n"
    )
    found = opened(paintings, recorded)
    assert [one.name for one in found.modalities] == ["rgb"]
    assert found.fingerprint.channels == 3
    assert "uv: in none of the scenes; the model is fitted without it" in recorded.stages


def test_all_scenes_are_brought_to_one_scale(paintings: Path, recorded: Any) -> None:
    """One has the X-ray alone, which elsewhere has half the grid's resolution."""
    describe(paintings)
    for name in ("infrared.tif", "rgb.png"):
        (paintings / "eve" / name).unlink()
    found = opened(paintings, recorded)
    assert [(reader.width, reader.height) for reader in found.readers] == [(160, 64)] * 3
    assert [one.scale for one in found.modalities] == [1.0, 1.0, 0.5]


def test_scenes_that_share_no_sensor_keep_their_own_scales(paintings: Path, recorded: Any) -> None:
    """Nothing tells then how the X-ray's pixels compare with the others'."""
    describe(paintings)
    for name in ("adam", "zachary"):
        (paintings / name / "xray.tif").unlink()
    for name in ("infrared.tif", "rgb.png"):
        (paintings / "eve" / name).unlink()
    found = open_scenes(paintings, patch=16, observer=recorded)
    assert [(reader.width, reader.height) for reader in found.readers] == [(160, 64), (80, 32), (160, 64)]
    assert [(one.grid, one.scale) for one in found.modalities] == [(True, 1.0), (False, 1.0), (False, 1.0)]


def test_the_grid_is_that_of_most_scenes(paintings: Path, recorded: Any) -> None:
    for name in ("adam", "zachary"):
        path = paintings / name / "xray.tif"
        tifffile.imwrite(path, tifffile.imread(path).repeat(4, 0).repeat(4, 1))
    found = opened(paintings, recorded)
    assert [one.name for one in found.modalities if one.grid] == ["xray"]
    assert (found.readers[0].width, found.readers[0].height) == (320, 128)
    # Of the third scene the grid is coarser than a patch in each band allows.
    assert [reader.name for reader in found.readers] == ["adam", "zachary"]
    (problem,) = recorded.problems
    assert str(problem).startswith(f"{paintings / 'eve'}: is 80 × 32 pixels, too small")


def test_a_scene_that_cannot_be_used_does_not_stop_the_others(paintings: Path, recorded: Any) -> None:
    path = paintings / "adam" / "infrared.tif"
    path.write_bytes(path.read_bytes()[:-100])
    (paintings / "eve" / "rgb.png").write_bytes(b"no image")
    found = opened(paintings, recorded)
    assert [reader.name for reader in found.readers] == ["zachary"]
    assert [str(problem).split(":")[0] for problem in recorded.problems] == [
        str(path),
        str(paintings / "eve" / "rgb.png"),
    ]
    (paintings / "zachary" / "rgb.png").unlink()
    (paintings / "zachary" / "infrared.tif").write_bytes(b"")
    with pytest.raises(FileError, match="holds no scene that can be used"):
        opened(paintings, recorded)


def test_a_constant_sensor_is_taken_for_missing(paintings: Path, recorded: Any) -> None:
    tifffile.imwrite(paintings / "eve" / "infrared.tif", np.zeros((64, 160), np.uint16))
    found = opened(paintings, recorded)
    assert [reader.missing for reader in found.readers] == [(), ("infrared",), ()]
    (problem,) = recorded.problems
    assert str(problem).startswith(f"{paintings / 'eve' / 'infrared.tif'}: is 0 of full scale")


def test_another_depth_and_uncovered_areas_are_reported(paintings: Path, recorded: Any) -> None:
    path = paintings / "eve" / "infrared.tif"
    tifffile.imwrite(path, (tifffile.imread(path) // 257).astype(np.uint8))
    path = paintings / "zachary" / "infrared.tif"
    pixels = tifffile.imread(path) / np.float32(65535)
    pixels[:32] = np.nan
    tifffile.imwrite(path, pixels)
    found = opened(paintings, recorded)
    assert found.modalities[0].depth == "uint16"
    assert "zachary: infrared: absent from 50 % of the 16 windows that were looked at" in recorded.stages
    assert any(line.startswith("eve: infrared: 8-bit here, 16-bit in most of") for line in recorded.stages)
    assert not any(line.startswith("adam: infrared") for line in recorded.stages)


def test_stopping_while_scenes_are_opened(paintings: Path, recorder: Any) -> None:
    with pytest.raises(Stopped, match="0 of 3 scenes, before training"):
        opened(paintings, recorder(stop_after=0))
