from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.open_scenes import open_scenes, open_useful
from blemish.data.scene_checks import check_scene
from blemish.data.scene_description import MODALITIES_FILE
from blemish.data.scene_reader import SceneReader
from blemish.data.scene_registration import overview, register_scenes
from blemish.data.scenes import find_scenes
from blemish.errors import FileError, ImageError, UsageError
from blemish.observer import Observer

SIDE = 256


def surface(seed: int) -> NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    plane = ndimage.gaussian_filter(rng.random((SIDE, SIDE)), 2)
    return (60000 * (plane - plane.min()) / np.ptp(plane)).astype(np.uint16)


def write_scene(folder: Path, **files: NDArray[Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in files.items():
        tifffile.imwrite(folder / f"{name}.tif", pixels)
    return folder


@pytest.fixture
def paintings(tmp_path: Path) -> Path:
    """A painting whose infrared is displaced, and one whose is not."""
    visible = surface(0)
    infrared = np.roll(50000 - visible // 2, (7, -12), (0, 1))
    write_scene(tmp_path / "eve", visible=visible, infrared=infrared)
    write_scene(tmp_path / "adam", visible=surface(1), infrared=50000 - surface(1) // 2)
    return tmp_path


def test_a_displaced_modality_is_reported_with_offset_and_remedy(paintings: Path) -> None:
    adam, eve = find_scenes(paintings)
    assert open_useful(adam, Observer()).notices == ()
    (notice,) = open_useful(eve, Observer()).notices
    assert notice.startswith("infrared: is displaced by -12.0 pixels across and +7.0 down (confidence ") or (
        notice.startswith("visible: is displaced by +12.0 pixels across and -7.0 down (confidence ")
    )
    assert f"blemish register {eve.folder}" in notice


def test_a_registered_scene_is_read_aligned_and_no_image_changes(paintings: Path) -> None:
    before = {path: path.read_bytes() for path in paintings.rglob("*.tif")}
    adam, eve = register_scenes(paintings, grid="visible")
    assert (adam.transform, adam.agreeing > 0) == (None, True)
    assert eve.transform is not None
    np.testing.assert_allclose(eve.transform, [[1, 0, -12], [0, 1, 7]], atol=0.3)
    assert eve.error < 0.5
    assert {path: path.read_bytes() for path in before} == before
    scenes = find_scenes(paintings)
    with SceneReader(scenes[1]) as reader:
        assert reader.notices == (f"infrared: brought to the grid by its transform in {MODALITIES_FILE}",)
        infrared = reader.read(0, 0, SIDE, SIDE)[0]
        assert np.isnan(infrared[:, :11]).all(), "the infrared lies further right there"
        assert np.isnan(infrared[-6:]).all()
        inside = (slice(2, -10), slice(14, -2))
        expected = (50000 - surface(0) // 2)[inside] / 65535
        assert np.abs(infrared[inside] - expected).mean() < 0.01
        assert not any(check.is_displaced for check in check_scene(reader).values())
    opened = open_scenes(paintings, patch=32, observer=Observer())
    assert [one.transform for one in opened.modalities] == [None, None], (
        "transforms are of scenes, not of models"
    )
    assert [reader.scene.modalities[0].transform is None for reader in opened.readers] == [True, False]


def test_what_else_the_description_says_stays(paintings: Path) -> None:
    path = paintings / MODALITIES_FILE
    path.write_text(
        "# scanned in May\n"
        "modalities:\n"
        "- {name: visible, file: visible.tif}\n"
        "- {name: infrared, file: infrared.tif, range: [0, 65535]}  # 12 bits\n"
        "transforms:\n"
        "  third:\n"
        "    infrared: [[1, 0, 3], [0, 1, 4]]\n"
    )
    register_scenes(path)
    text = path.read_text()
    assert text.startswith("# scanned in May\n")
    assert "# 12 bits" in text
    data = yaml.safe_load(text)
    assert data["grid"] == "visible"
    assert data["transforms"]["third"] == {"infrared": [[1, 0, 3], [0, 1, 4]]}
    assert set(data["transforms"]) == {"third", "eve"}
    register_scenes(path, dry_run=True)
    assert path.read_text() == text


def test_an_unrelated_image_is_not_registered(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "eve", visible=surface(0), infrared=surface(9))
    (found,) = register_scenes(scene, motion="translation")
    assert (found.transform, found.agreeing) == (None, 0)
    assert "not registered" in found.in_words()
    assert not (scene / MODALITIES_FILE).exists()


def test_another_crop_is_refused_until_it_is_registered(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "eve", visible=surface(0), infrared=surface(0)[20:200, 30:250])
    with pytest.raises(ImageError, match="align it by blemish register"):
        SceneReader(find_scenes(scene)[0])
    register_scenes(scene, motion="translation")
    with SceneReader(find_scenes(scene)[0]) as reader:
        assert (reader.height, reader.width) == (SIDE, SIDE)
        infrared, visible = reader.read(100, 100, 50, 50)
    assert np.abs(infrared - visible).max() < 0.06


def test_a_transform_that_leaves_nothing_is_refused(paintings: Path) -> None:
    (paintings / MODALITIES_FILE).write_text(
        "modalities:\n- {name: visible, file: visible.tif}\n- {name: infrared, file: infrared.tif}\n"
        "grid: visible\ntransforms: {eve: {infrared: [[1, 0, 900], [0, 1, 0]]}}\n"
    )
    adam, eve = find_scenes(paintings)
    assert SceneReader(adam).notices == ()
    with pytest.raises(
        ImageError, match=r"infrared.tif: lies beyond the scene by its transform in .* leaves nothing"
    ):
        SceneReader(eve)


@pytest.mark.parametrize(
    ("transforms", "problem"),
    [
        ("{eve: {infrared: [[1, 0, 900], [0, 0, 0]]}}", "write a transform that keeps an area"),
        (
            "{eve: {infra: [[1, 0, 9], [0, 1, 0]]}}",
            "has a transform of 'infra' in 'eve', which is no modality",
        ),
    ],
)
def test_a_wrong_transform_is_one_line(paintings: Path, transforms: str, problem: str) -> None:
    (paintings / MODALITIES_FILE).write_text(
        f"modalities: [{{name: infrared, file: infrared.tif}}]\ntransforms: {transforms}\n"
    )
    with pytest.raises(FileError) as error:
        find_scenes(paintings)
    assert problem in str(error.value)


def test_a_grid_that_is_no_modality_is_refused(paintings: Path) -> None:
    with pytest.raises(UsageError, match="--grid visibel: is no modality"):
        register_scenes(paintings, grid="visibel")


def test_an_overview_is_of_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blemish.data.scene_registration.WHOLE_SIDE", 128)
    monkeypatch.setattr("blemish.data.scene_registration._STRIP_PIXELS", 2 * SIDE * 10)
    scene = write_scene(tmp_path / "eve", visible=surface(0), infrared=surface(1))
    with SceneReader(find_scenes(scene)[0]) as reader:
        pixels, step = overview(reader)
    assert step == 2
    expected = surface(1).reshape(128, 2, 128, 2).mean((1, 3)) / 65535
    np.testing.assert_allclose(pixels[0], expected, atol=1e-5)


def test_values_low_in_their_range_are_reported_and_scaled_by_themselves(tmp_path: Path) -> None:
    low = surface(0) // 16  # 12 bits
    scene = write_scene(tmp_path / "eve", visible=surface(0), infrared=low)
    (notice,) = open_useful(find_scenes(scene)[0], Observer()).notices
    assert notice.startswith("infrared: 99.9 % of its values are below 5.")
    assert "write range: [0, 4095], or range: auto, in modalities.yaml" in notice
    (scene / MODALITIES_FILE).write_text(
        "modalities:\n- {name: visible, file: visible.tif}\n- {name: infrared, file: infrared.tif, range: auto}\n"
    )
    opened = open_scenes(scene, patch=32, observer=Observer())
    ends = opened.modalities[1].range
    assert isinstance(ends, tuple)
    assert (
        pytest.approx(np.quantile(low, 0.001), abs=60),
        pytest.approx(np.quantile(low, 0.999), abs=60),
    ) == ends
    infrared = opened.readers[0].read(0, 0, SIDE, SIDE)[1]
    assert infrared.min() == 0
    assert infrared.max() == 1
    # A model that is fitted on it keeps the numbers, whatever another scene holds.
    darker = write_scene(tmp_path / "adam", visible=surface(0), infrared=low // 2)
    (darker / MODALITIES_FILE).write_text((scene / MODALITIES_FILE).read_text())
    (wanted,) = find_scenes(darker, opened.modalities)
    assert wanted.modalities[1].range == ends
    assert wanted.notices == ()
