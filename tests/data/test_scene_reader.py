from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from blemish.data import scene_reader as reading
from blemish.data.image import resize
from blemish.data.modality import Modality
from blemish.data.open_scenes import open_scenes
from blemish.data.scene_description import MODALITIES_FILE
from blemish.data.scene_reader import Probed, SceneReader
from blemish.data.scenes import Scene, find_scenes
from blemish.data.windowed import open_windowed
from blemish.data.windowed_image import DecodedCache
from blemish.errors import ImageError
from blemish.observer import Observer

H, W = 64, 160
INFRARED, RGB, XRAY = slice(0, 1), slice(1, 4), slice(4, 5)

Painting = Callable[..., Path]


@pytest.fixture
def folder(painting: Painting, tmp_path: Path) -> Path:
    return painting(tmp_path / "eve")


@pytest.fixture
def scene(folder: Path) -> Scene:
    return find_scenes(folder)[0]


def described(folder: Path, *modalities: dict[str, Any], **keys: Any) -> Scene:
    (folder / MODALITIES_FILE).write_text(yaml.safe_dump({"modalities": list(modalities), **keys}))
    return find_scenes(folder)[0]


def whole(reader: SceneReader) -> NDArray[np.float32]:
    return reader.read(0, 0, reader.height, reader.width)


def grey(folder: Path, pixels: NDArray[Any], **entry: Any) -> SceneReader:
    """A scene of an RGB image and ``pixels`` in ``grey.tif``, with ``entry`` for YAML."""
    tifffile.imwrite(folder / "grey.tif", pixels)
    return SceneReader(
        described(folder, {"name": "rgb", "file": "rgb.png"}, {"name": "grey", "file": "grey.tif", **entry})
    )


def test_every_sensor_is_scaled_by_its_own_depth_on_one_grid(scene: Scene, folder: Path) -> None:
    with SceneReader(scene) as reader:
        pixels = whole(reader)
    assert (reader.channels, reader.height, reader.width, reader.missing) == (5, H, W, ())
    assert pixels.shape == (5, H, W)
    assert pixels.dtype == np.float32
    assert_array_equal(pixels[INFRARED], tifffile.imread(folder / "infrared.tif")[None] / np.float32(65535))
    rgb = np.asarray(Image.open(folder / "rgb.png")).transpose(2, 0, 1)
    assert_array_equal(pixels[RGB], rgb / np.float32(255))
    half = tifffile.imread(folder / "xray.tif")[None] / np.float32(65535)
    assert_allclose(pixels[XRAY], resize(half, (H, W)), atol=1e-6)
    assert reader.notices == ("xray: brought from 80 × 32 to 160 × 64 pixels",)
    assert reader.depths == {"infrared": "uint16", "rgb": "uint8", "xray": "uint16"}


def test_every_window_is_cut_from_the_whole(scene: Scene) -> None:
    reader = SceneReader(scene)
    pixels = whole(reader)
    rng = np.random.default_rng(0)
    for _ in range(30):
        height, width = rng.integers(1, H + 1), rng.integers(1, W + 1)
        top, left = rng.integers(H - height + 1), rng.integers(W - width + 1)
        window = reader.read(int(top), int(left), int(height), int(width))
        assert_array_equal(window, pixels[:, top : top + height, left : left + width])


@pytest.mark.parametrize("window", [(0, 0, 0, 5), (-1, 0, 5, 5), (H - 4, 0, 5, 5), (0, W - 4, 5, 5)])
def test_windows_outside_the_scene_raise_value_error(scene: Scene, window: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="is not within"):
        SceneReader(scene).read(*window)


def test_a_scene_reader_survives_pickling(scene: Scene) -> None:
    reader = SceneReader(scene, without=["rgb"])
    again = pickle.loads(pickle.dumps(reader))
    assert_array_equal(again.read(3, 4, 20, 30), reader.read(3, 4, 20, 30))
    assert again.missing == ("rgb",)


def test_opening_reads_headers_only(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blemish.data.windowed.read_image", None)
    monkeypatch.setattr("blemish.data.windowed._Tiff.read", None)
    assert SceneReader(scene).height == H


def test_a_missing_modality_is_absent_and_reported(scene: Scene, folder: Path) -> None:
    (folder / "infrared.tif").unlink()
    reader = SceneReader(scene)
    assert reader.missing == ("infrared",)
    assert reader.notices[0] == "infrared: missing, there is no infrared.tif"
    pixels = whole(reader)
    assert np.isnan(pixels[INFRARED]).all()
    assert np.isfinite(pixels[RGB]).all()
    for path in (folder / "rgb.png", folder / "xray.tif"):
        path.unlink()
    with pytest.raises(ImageError, match="eve: holds none of its modalities' files"):
        SceneReader(scene)


def test_a_sensor_can_be_left_out(scene: Scene) -> None:
    reader = SceneReader(scene, without=["infrared"])
    assert reader.missing == ("infrared",)
    assert "infrared: left out" in reader.notices
    assert_array_equal(whole(reader)[1:], whole(SceneReader(scene))[1:])
    assert np.isnan(whole(reader)[INFRARED]).all()
    with pytest.raises(ImageError, match="has no modality left"):
        SceneReader(scene, without=["infrared", "rgb", "xray"])


def test_the_grid_can_be_chosen(folder: Path) -> None:
    names = {"x": "xray.tif", "ir": "infrared.tif"}
    entries = [{"name": name, "file": file} for name, file in names.items()]
    reader = SceneReader(described(folder, *entries, grid="x"))
    assert (reader.height, reader.width) == (H // 2, W // 2)
    pixels = whole(reader)
    assert_array_equal(pixels[0], tifffile.imread(folder / "xray.tif") / np.float32(65535))
    # The infrared loses no light when it shrinks.
    infrared = tifffile.imread(folder / "infrared.tif") / 65535
    assert_allclose(pixels[1].mean(), infrared.mean(), atol=2e-3)


def fitted_on(folder: Path) -> tuple[Modality, ...]:
    """The modalities of a model that was fitted on ``folder``."""
    return open_scenes(folder, patch=32, observer=Observer()).modalities


def test_without_the_grids_own_sensor_the_scale_is_the_models(folder: Path) -> None:
    model = fitted_on(folder)
    assert [(one.name, one.grid, one.scale) for one in model] == [
        ("infrared", True, 1.0),
        ("rgb", False, 1.0),
        ("xray", False, 0.5),
    ]
    before = whole(SceneReader(find_scenes(folder, model)[0]))
    for path in (folder / "infrared.tif", folder / "rgb.png"):
        path.unlink()
    reader = SceneReader(find_scenes(folder, model)[0])
    assert (reader.height, reader.width, reader.missing) == (H, W, ("infrared", "rgb"))
    assert "xray: brought from 80 × 32 to 160 × 64 pixels" in reader.notices
    assert_array_equal(whole(reader)[XRAY], before[XRAY])


def test_odd_sizes_keep_the_scale_to_a_pixel(painting: Painting, tmp_path: Path) -> None:
    folder = painting(tmp_path / "eve")
    for name, size in {"a": (100, 140), "b": (51, 70), "c": (65, 93)}.items():
        tifffile.imwrite(folder / f"{name}.tif", np.random.default_rng(0).random(size, np.float32))
    entries = [{"name": name, "file": f"{name}.tif"} for name in "abc"]
    described(folder, *entries)
    model = fitted_on(folder)
    (folder / "a.tif").unlink()
    reader = SceneReader(find_scenes(folder, model)[0])
    assert reader.height == pytest.approx(100, abs=2)
    assert reader.width == pytest.approx(140, abs=2)
    assert np.isfinite(whole(reader)[1:]).all()


def test_the_grid_of_a_model_is_kept_against_another_yaml(folder: Path) -> None:
    entries = [{"name": name, "file": file} for name, file in (("rgb", "rgb.png"), ("x", "xray.tif"))]
    described(folder, *entries)
    model = fitted_on(folder)
    described(folder, *entries, grid="x")
    (scene,) = find_scenes(folder, model)
    reader = SceneReader(scene)
    assert (reader.height, reader.width) == (H, W)
    assert "x: is not the grid, the model was fitted on the pixels of rgb" in reader.notices


@pytest.mark.parametrize(("height", "width", "fits"), [(32, 81, True), (32, 90, False), (64, 159, True)])
def test_another_shape_is_no_other_resolution(
    scene: Scene, folder: Path, height: int, width: int, fits: bool
) -> None:
    tifffile.imwrite(folder / "xray.tif", np.zeros((height, width), np.uint16))
    if fits:
        assert SceneReader(scene).width == W
        return
    with pytest.raises(ImageError) as caught:
        SceneReader(scene)
    assert "xray.tif: is 90 × 32 pixels, which is not infrared.tif (160 × 64)" in str(caught.value)


def test_a_range_becomes_0_to_1_and_clips(folder: Path) -> None:
    pixels = np.full((H, W), 100, np.int16)
    pixels[0, :3] = -5, 150, 300
    reader = grey(folder, pixels, range=[0, 200])
    assert_allclose(reader.read(0, 0, 1, 4)[3, 0], [0, 0.75, 1, 0.5])


def test_unmeasured_pixels_are_absent(folder: Path) -> None:
    floats = np.full((H, W), 0.5, np.float32)
    floats[0, :4] = np.nan, np.inf, -np.inf, -9999
    reader = grey(folder, floats, no_data=-9999, range=[0, 1])
    assert_array_equal(np.isnan(reader.read(0, 0, 2, 5)[3]), [[True] * 4 + [False], [False] * 5])
    counts = np.full((H, W), 7, np.uint16)
    counts[:, :10] = 0
    reader = grey(folder, counts, no_data=0)
    assert_array_equal(np.isnan(whole(reader)[3]), counts == 0)
    assert np.isfinite(whole(reader)[:3]).all()


def test_no_data_of_several_channels_is_where_all_have_it(folder: Path) -> None:
    rgb = np.full((H, W, 3), 9, np.uint8)
    rgb[0, 0] = 0
    rgb[0, 1, 0] = 0
    Image.fromarray(rgb).save(folder / "rgb.png")
    reader = SceneReader(described(folder, {"name": "rgb", "file": "rgb.png", "no_data": 0}))
    assert_array_equal(np.isnan(reader.read(0, 0, 1, 2)), np.broadcast_to([[[True, False]]], (3, 1, 2)))


def test_absence_at_half_the_resolution_covers_touched_pixels(folder: Path) -> None:
    half = np.full((H // 2, W // 2), 7, np.uint16)
    half[0, 0] = 0
    absent = np.isnan(whole(grey(folder, half, no_data=0))[3])
    expected = np.zeros((H, W), bool)
    expected[:3, :3] = True
    assert_array_equal(absent, expected)


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        (np.full((H, W), 1.5, np.float32), "holds values from 1.5 to 1.5, outside 0..1"),
        (np.full((H, W), -1, np.int32), "holds values of the type int32, whose full range is unknown"),
    ],
)
def test_no_range_is_guessed(folder: Path, pixels: NDArray[Any], problem: str) -> None:
    with pytest.raises(ImageError, match=problem):
        whole(grey(folder, pixels))


def test_other_channels_than_the_modality_has(scene: Scene, folder: Path) -> None:
    Image.fromarray(np.zeros((H, W), np.uint8)).save(folder / "rgb.png")
    with pytest.raises(ImageError, match=r"rgb\.png: has 1 channel where 'rgb' has 3"):
        SceneReader(scene)


def test_another_depth_than_the_models_is_reported(folder: Path) -> None:
    model = [Modality(name="rgb", channels=3, depth="uint16"), Modality(name="infrared", channels=1)]
    (scene,) = find_scenes(folder, model)
    assert SceneReader(scene).notices == (
        "xray.tif: not used, the model does not know it",
        "rgb: 8-bit here, 16-bit in most of what the model is fitted on; each is scaled by its own full range",
    )


def test_several_files_make_one_modality(folder: Path) -> None:
    infrared = tifffile.imread(folder / "infrared.tif")
    for row, column in [(0, 0), (0, 1), (1, 1)]:
        cut = infrared[32 * row : 32 * row + 32, 80 * column : 80 * column + 80]
        tifffile.imwrite(folder / f"ir_{row}_{column}.tif", cut.copy())
    entries = {"name": "rgb", "file": "rgb.png"}, {"name": "ir", "file": "ir_{row}_{column}.tif"}
    reader = SceneReader(described(folder, *entries))
    assert reader.notices == (
        "infrared.tif: not used, no modality of this scene names it",
        "xray.tif: not used, no modality of this scene names it",
        "ir: no file for row 1 column 0, taken as absent",
    )
    expected = infrared / np.float32(65535)
    expected[32:, :80] = np.nan
    assert_array_equal(whole(reader)[3], expected)


def test_a_truncated_file_fails_where_it_is_cut_off(scene: Scene, folder: Path) -> None:
    path = folder / "infrared.tif"
    path.write_bytes(path.read_bytes()[:-200])
    reader = SceneReader(scene)
    assert np.isfinite(reader.read(0, 0, 8, 8)).all()
    with pytest.raises(ImageError, match=r"infrared\.tif: is truncated or damaged"):
        reader.read(H - 8, W - 8, 8, 8)
    with pytest.raises(ImageError, match=r"infrared\.tif"):
        reader.check()


def test_files_decoded_whole_have_a_size_limit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "WHOLE_LIMIT", 3 * H * W - 1)
    with pytest.raises(ImageError, match=r"rgb\.png: can only be decoded whole.*save it as a tiled TIFF"):
        SceneReader(scene)


def test_a_window_decodes_the_tiles_it_touches(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = open_windowed(scene.folder / "infrared.tif").__class__._segment  # type: ignore[attr-defined]
    decoded: list[int] = []

    def spy(self: Any, file: Any, page: Any, index: int) -> Any:
        decoded.append(index)
        return segment(self, file, page, index)

    monkeypatch.setattr("blemish.data.windowed._Tiff._segment", spy)
    cache = DecodedCache(2**20)
    reader = SceneReader(scene, cache=cache)
    reader.read(30, 40, 10, 10)  # tiles of 32: rows 0 and 1, column 1, of five columns
    reader.read(31, 41, 4, 4)
    assert decoded == [1, 6]


def test_probes_find_constant_and_absent_modalities(scene: Scene, folder: Path) -> None:
    assert SceneReader(scene).probed() == dict.fromkeys(("infrared", "rgb", "xray"), Probed(1.0, None))
    tifffile.imwrite(folder / "infrared.tif", np.full((H, W), 13107, np.uint16))
    floats = np.random.default_rng(0).random((H, W), np.float32)
    floats[: H // 2] = np.nan
    tifffile.imwrite(folder / "xray.tif", floats)
    reader = SceneReader(scene, without=["rgb"])
    assert reader.probed() == {"infrared": Probed(1.0, pytest.approx(0.2)), "xray": Probed(0.5, None)}
    tifffile.imwrite(folder / "xray.tif", np.full_like(floats, np.nan))
    assert SceneReader(scene).probed()["xray"] == Probed(0.0, None)


def test_reading_needs_no_torch() -> None:
    script = "import sys, blemish.data.scene_reader, blemish.data.open_scenes; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
