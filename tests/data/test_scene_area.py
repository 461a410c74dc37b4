from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from blemish.data.open_scenes import open_useful, scene_sha256
from blemish.data.scene_area import SceneArea, SceneAreaFiles
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import Scene, find_scenes, looks_like_scenes
from blemish.data.windowed_image import DecodedCache
from blemish.errors import FileError, ImageError
from blemish.observer import Observer
from blemish.training.scene_patches import ScenePatches

Painting = Callable[..., Path]


def save(path: Path, mask: NDArray[np.bool_]) -> Path:
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return path


@pytest.fixture
def folder(painting: Painting, tmp_path: Path) -> Path:
    """A scene of 64 × 96 pixels whose frame of 8 pixels is not of interest, and with a fill of 10 × 12."""
    folder = painting(tmp_path / "eve", 0, height=64, width=96)
    inside = np.zeros((64, 96), np.bool_)
    inside[8:56, 8:88] = True
    save(folder / "roi.png", inside)
    fill = np.zeros((64, 96), np.bool_)
    fill[20:30, 40:52] = True
    save(folder / "exclude.png", fill)
    return folder


def scene_of(folder: Path) -> Scene:
    (scene,) = find_scenes(folder)
    return scene


def test_a_scene_is_judged_in_its_region_of_interest_without_excluded_places(folder: Path) -> None:
    scene = scene_of(folder)
    assert [one.name for one in scene.modalities] == ["infrared", "rgb", "xray"]
    assert not any("roi" in notice or "exclude" in notice for notice in scene.notices)
    expected = np.zeros((64, 96), np.bool_)
    expected[8:56, 8:88] = True
    expected[20:30, 40:52] = False
    with SceneReader(scene) as reader:
        np.testing.assert_array_equal(reader.judged(0, 0, 64, 96), expected)
        np.testing.assert_array_equal(reader.judged(15, 33, 20, 30), expected[15:35, 33:63])
        assert reader.judged_share() == pytest.approx(expected.mean())
    assert any("61 % of the scene is judged" in line for line in open_useful(scene, Observer()).notices)


@pytest.mark.parametrize("scale", [0.5, 2])
def test_a_mask_of_another_resolution_is_brought_to_the_scene(tmp_path: Path, scale: float) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.random((16, 24)) > 0.5
    size = (32, 48)
    expected = np.kron(coarse, np.ones((2, 2), np.bool_)).astype(np.bool_)
    own = coarse if scale == 0.5 else np.kron(expected, np.ones((2, 2), np.bool_))
    tifffile.imwrite(tmp_path / "m.tif", own.astype(np.uint8), tile=(16, 16))
    area = SceneArea(SceneAreaFiles(judged=tmp_path / "m.tif"), size)
    cache = DecodedCache(10**6)
    np.testing.assert_array_equal(area.read(0, 0, *size, cache), expected)
    np.testing.assert_array_equal(area.read(5, 7, 11, 13, cache), expected[5:16, 7:20])


def test_a_description_names_other_files(folder: Path) -> None:
    (folder / "roi.png").rename(folder / "panel.png")
    (folder / "modalities.yaml").write_text(
        "region_of_interest: panel.png\nexclude: fills.png\nmodalities:\n"
        "  - {name: infrared, file: infrared.tif}\n  - {name: rgb, file: rgb.png}\n"
    )
    scene = scene_of(folder)
    assert scene.area == SceneAreaFiles(folder / "panel.png", None)
    assert "fills.png: is not there, so nothing is excluded" in scene.notices
    assert not any("panel.png" in notice for notice in scene.notices)


def test_a_changed_mask_is_other_content(folder: Path) -> None:
    before = scene_sha256(SceneReader(scene_of(folder)))
    save(folder / "exclude.png", np.ones((64, 96), np.bool_) & (np.arange(96) < 20))
    assert scene_sha256(SceneReader(scene_of(folder))) != before


def test_masks_that_cannot_be_used_are_refused(folder: Path) -> None:
    save(folder / "exclude.png", np.ones((64, 96), np.bool_))
    with pytest.raises(
        ImageError, match=r"roi.png: leaves nothing to judge, by roi.png and exclude.png; mark"
    ):
        open_useful(scene_of(folder), Observer())
    save(folder / "exclude.png", np.ones((64, 64), np.bool_))
    with pytest.raises(
        ImageError, match=r"exclude.png: is a mask of 64 × 64 pixels, which is not the scene \(96 × 64"
    ):
        SceneReader(scene_of(folder))
    (folder / "exclude.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"exclude\.png"):
        SceneReader(scene_of(folder))
    save(folder / "exclude.bmp", np.ones((64, 96), np.bool_))
    with pytest.raises(FileError, match="stands beside exclude"):
        scene_of(folder)


def test_masks_do_not_hide_what_scenes_are(folder: Path) -> None:
    assert looks_like_scenes(folder.parent)


def test_patches_of_a_fit_show_nothing_that_is_not_judged(folder: Path) -> None:
    reader, whole = SceneReader(scene_of(folder)), [slice(0, 96)]
    rng = np.random.default_rng(0)
    for takes_absent in (True, False):
        patches = ScenePatches([reader], whole, flips=False, takes_absent=takes_absent)
        drawn = np.stack([patches.draw(rng, 16) for _ in range(40)])
        assert np.isfinite(drawn).all((1, 2, 3)).all() == (not takes_absent)
    (folder / "roi.png").unlink()
    (folder / "exclude.png").unlink()
    with SceneReader(scene_of(folder)) as free:
        assert free.judged(0, 0, 4, 4) is None
