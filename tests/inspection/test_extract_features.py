from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from blemish.data.image import read_image
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.detectors.ensemble import for_inspection
from blemish.detectors.factory import build_model
from blemish.detectors.feature_grid import Convolutional, encoder_grid
from blemish.errors import FileError, ImageError, Stopped, UsageError
from blemish.inspection import extract_features as extracting
from blemish.inspection.detector import Detector
from blemish.inspection.extract_features import extract_features
from blemish.inspection.features import read_features
from blemish.models import Autoencoder
from blemish.preprocessing.transform import Preprocessing

Make = Callable[..., Detector]
Painting = Callable[..., Path]
HEIGHT, WIDTH = 102, 150


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extracting, "_BLOCK_PIXELS", 48)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, painting: Painting) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    painting(folder / "virgin", 0, height=HEIGHT, width=WIDTH)
    return folder


@pytest.fixture(scope="module")
def detector(scenes: Path, make_detector: Make) -> Detector:
    return make_detector(scenes)


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory, draw: Callable[..., NDArray[np.uint8]]) -> Path:
    folder = tmp_path_factory.mktemp("grey")
    (folder / "left").mkdir()
    Image.fromarray(draw(1, 91, 133)).save(folder / "left" / "a.png")
    Image.fromarray(draw(2, 40, 48)).save(folder / "b.png")
    return folder


def of_images(make_detector: Make, scenes: Path, *recipe: str, size: int | None = None) -> Detector:
    """A detector of grey images of 8 bits, with random weights."""
    file = make_detector(scenes, *recipe).file
    torch.manual_seed(0)
    preprocessing = Preprocessing(channels=1, convert=False, kind="uint8", size=size)
    model = for_inspection(build_model(file.recipe, 1))
    return Detector(model, file.model_copy(update={"preprocessing": preprocessing}))


def encoded(model: Autoencoder, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The latent (d, h, w) of one run over the whole image, as it is without corruption."""
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "at_inspection", (False,) * len(model.at_inspection))
        return model.encode(model.prepare(torch.from_numpy(pixels)[None]).image)[0].numpy()


SMALL = ("patch.size=32", "patch.stride=16")


@pytest.mark.parametrize("recipe", ["fp-cae-add", "fp-cae-concat", "fp-cae"])
def test_blocks_are_one_run_over_the_whole_scene(
    scenes: Path, make_detector: Make, tmp_path: Path, recipe: str
) -> None:
    detector = make_detector(scenes, recipe)
    (features,) = extract_features(detector, scenes, tmp_path).features
    with SceneReader(find_scenes(scenes)[0]) as reader:
        expected = encoded(detector.autoencoder, reader.read(0, 0, HEIGHT, WIDTH))
    assert features.shape == expected.shape == (80, 12, 18)
    assert (features.stride, features.missing) == (8, ())
    assert features.modalities == ("infrared", "rgb", "xray")
    np.testing.assert_allclose(features.array[...], expected, atol=1e-5)
    assert len((tmp_path / "virgin.blocks.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("recipe", "stride"),
    [
        (("ssim-ae", "patch.size=32", "patch.stride=16", "encoder.latent=8"), 16),
        (("dae-mse", *SMALL), 16),
        (("l2-ae", "patch.size=48", "patch.stride=16", "encoder.latent=5"), 16),
    ],
)
def test_blocks_are_one_run_over_the_whole_image(
    grey: Path, scenes: Path, make_detector: Make, tmp_path: Path, recipe: tuple[str, ...], stride: int
) -> None:
    detector = of_images(make_detector, scenes, *recipe)
    done = extract_features(detector, grey, tmp_path)
    assert [features.name for features in done.features] == ["b.png", "left/a.png"]
    for features in done.features:
        expected = encoded(detector.autoencoder, read_image(grey / features.name).floats())
        assert features.stride == stride
        np.testing.assert_allclose(features.array[...], expected, atol=1e-5, err_msg=features.name)


@pytest.mark.parametrize("recipe", [("vae", *SMALL), ("cae-mse", *SMALL)])
def test_an_encoder_of_one_size_is_run_on_patches(
    grey: Path, scenes: Path, make_detector: Make, tmp_path: Path, recipe: tuple[str, ...]
) -> None:
    detector = of_images(make_detector, scenes, *recipe)
    grid = encoder_grid(detector.autoencoder, 1, patch=32, stride=16)
    features = extract_features(detector, grey, tmp_path).features[1]
    if isinstance(grid, Convolutional):
        expected = encoded(detector.autoencoder, read_image(grey / "left" / "a.png").floats())
        np.testing.assert_allclose(features.array[...], expected, atol=1e-5)
        return
    assert features.shape == (detector.autoencoder.bottlenecks[-1].latent_shape[0], 5, 8)
    pixels = read_image(grey / "left" / "a.png").floats()
    # 91 rows take five patches, 32 + 4 · 16 = 96: two rows before and three after
    padded = np.pad(pixels, [(0, 0), (2, 3), (5, 6)], mode="edge")
    for row, column in ((0, 0), (2, 3), (4, 7)):
        patch = padded[:, 16 * row : 16 * row + 32, 16 * column : 16 * column + 32]
        expected = encoded(detector.autoencoder, patch)
        np.testing.assert_allclose(features.array[:, row, column], expected[:, 0, 0], atol=1e-5)
    assert features.offset == (15.5 - 2, 15.5 - 5)


def test_a_place_lies_in_the_middle_of_what_it_sees(detector: Detector) -> None:
    grid = encoder_grid(detector.autoencoder, 5, patch=32, stride=16)
    assert isinstance(grid, Convolutional)
    x = np.random.default_rng(0).random((5, 96, 96), np.float32)
    before = encoded(detector.autoencoder, x)
    first, last = (5 * 8 + reach for reach in grid.reach)
    for row, heeded in ((first - 1, False), (first, True), (last, True), (last + 1, False)):
        changed = x.copy()
        changed[:, row] = 1 - changed[:, row]
        difference = np.abs(encoded(detector.autoencoder, changed)[:, 5] - before[:, 5]).max()
        assert (difference > 1e-5) == heeded, row
    assert grid.centre == sum(grid.reach) / 2


def test_features_are_found_by_pixel(scenes: Path, detector: Detector, tmp_path: Path) -> None:
    (features,) = extract_features(detector, scenes, tmp_path).features
    rows, columns = features.offset[0] + 8 * np.arange(12), features.offset[1] + 8 * np.arange(18)
    for i, j in ((0, 0), (3, 7), (11, 17)):
        for shift in (-3, 0, 3):
            near = features.at(round(rows[i] + shift), round(columns[j] + shift))
            np.testing.assert_array_equal(near, features.array[:, i, j])
    several = features.at([0, 50, HEIGHT - 1], [0, 70, WIDTH - 1])
    assert several.shape == (3, 80)
    np.testing.assert_array_equal(several[0], features.array[:, 0, 0])
    np.testing.assert_array_equal(several[1], features.at(50, 70))
    np.testing.assert_array_equal(several[2], features.array[:, -1, -1])
    for row, column in ((-1, 0), (HEIGHT, 0), (0, WIDTH), (float("nan"), 0)):
        with pytest.raises(UsageError, match="lies outside"):
            features.at(row, column)


def test_pixels_are_those_of_the_file_although_it_was_resized(
    grey: Path, scenes: Path, make_detector: Make, tmp_path: Path
) -> None:
    recipe = ("ssim-ae", *SMALL, "encoder.latent=8")
    half = of_images(make_detector, scenes, *recipe, size=48)
    features = extract_features(half, grey, tmp_path).features[1]
    assert features.size == (91, 133)
    assert features.scale == pytest.approx((48 / 91, 70 / 133))
    i, j = features.places(90, 132)
    assert (int(i), int(j)) == (features.shape[1] - 1, features.shape[2] - 1)
    middle = features.places(45, 66)
    centre = (24 - 0.5 - features.offset[0]) / 16, (35 - 0.5 - features.offset[1]) / 16
    assert [int(place) for place in middle] == pytest.approx(centre, abs=0.5)


def test_absent_pixels_have_no_features(
    scenes: Path, make_detector: Make, tmp_path: Path, recorder: Any
) -> None:
    source = tmp_path / "in"
    shutil.copytree(scenes, source)
    for name in ("infrared.tif", "xray.tif"):
        (source / "virgin" / name).unlink()
    rgba = np.asarray(Image.open(source / "virgin" / "rgb.png").convert("RGBA")).copy()
    rgba[:, 75:, 3] = 0
    detector = make_detector(scenes)
    (whole,) = extract_features(detector, source, tmp_path / "whole").features
    assert whole.missing == ("infrared", "xray")
    assert np.isfinite(whole.array[...]).all()
    import tifffile

    tifffile.imwrite(source / "virgin" / "rgb.tif", rgba[..., :3] * (rgba[..., 3:] > 0))
    (source / "virgin" / "rgb.png").unlink()
    (source / "modalities.yaml").write_text(
        "modalities:\n  - {name: rgb, file: rgb.tif, no_data: 0}\n  - {name: infrared, file: i.tif, channels: 1}\n"
        "  - {name: xray, file: x.tif, channels: 1}\n"
    )
    (half,) = extract_features(detector, source, tmp_path / "half").features
    there = np.isfinite(half.array[...])
    assert (there.all(0) == there.any(0)).all()
    centres = half.offset[1] + 8 * np.arange(half.shape[2])
    np.testing.assert_array_equal(there.all((0, 1)), centres - 3.5 < 75)
    far = centres < 75 - 24
    np.testing.assert_allclose(half.array[...][..., far], whole.array[...][..., far], atol=1e-5)
    observer = recorder()
    stacked = make_detector(scenes, "stacked-ae")
    assert extract_features(stacked, source, tmp_path / "stacked", observer=observer).features == []
    (problem,) = observer.problems
    assert isinstance(problem, ImageError)
    assert "stacked-ae cannot take" in str(problem)


def test_missing_modalities_are_reported(
    scenes: Path, detector: Detector, tmp_path: Path, recorder: Any, painting: Callable[..., Path]
) -> None:
    painting(tmp_path / "in" / "eve")
    Image.new("RGB", (160, 64), (9, 9, 9)).save(tmp_path / "in" / "eve" / "rgb.png")
    (tmp_path / "in" / "eve" / "xray.tif").unlink()
    observer = recorder()
    (features,) = extract_features(detector, tmp_path / "in", tmp_path / "out", observer=observer).features
    assert features.missing == ("rgb", "xray")
    assert "eve: xray: missing, there is no xray.tif" in observer.stages
    (problem,) = observer.problems
    assert "rgb.png: is 0.0352941 of full scale in all 16 windows" in str(problem)


def test_a_stopped_extraction_resumes(
    scenes: Path, detector: Detector, tmp_path: Path, recorder: Any
) -> None:
    (expected,) = extract_features(detector, scenes, tmp_path / "whole").features
    with pytest.raises(Stopped, match="virgin"):
        extract_features(detector, scenes, tmp_path / "out", observer=recorder(stop_after=4))
    with pytest.raises(UsageError, match="already holds what blemish features made"):
        extract_features(detector, scenes, tmp_path / "out")
    (features,) = extract_features(detector, scenes, tmp_path / "out", resume=True).features
    np.testing.assert_array_equal(features.array[...], expected.array[...])
    other = detector.with_file(detector.file.model_copy(update={"weights_sha256": "1"}))
    with pytest.raises(UsageError, match="another weights"):
        extract_features(other, scenes, tmp_path / "out", resume=True)


def test_an_unusable_image_is_skipped(
    grey: Path, scenes: Path, make_detector: Make, tmp_path: Path, recorder: Any
) -> None:
    source = Path(shutil.copytree(grey, tmp_path / "in"))
    (source / "cut.png").write_bytes((grey / "b.png").read_bytes()[:200])
    Image.fromarray(np.zeros((12, 60), np.uint8)).save(source / "strip.png")
    observer = recorder()
    done = extract_features(
        of_images(make_detector, scenes, "ssim-ae", *SMALL), source, tmp_path / "out", observer=observer
    )
    assert len(done.features) == 2
    assert [problem.path.name for problem in observer.problems] == ["cut.png", "strip.png"]


def test_features_of_an_image_that_changed_are_made_anew(
    make_detector: Make, scenes: Path, grey: Path, tmp_path: Path, draw: Callable[..., NDArray[np.uint8]]
) -> None:
    detector = of_images(make_detector, scenes, "ssim-ae", *SMALL)
    source, out = tmp_path / "grey", tmp_path / "out"
    shutil.copytree(grey, source)
    before = {
        one.name: np.asarray(one.array[...]) for one in extract_features(detector, source, out).features
    }
    Image.fromarray(draw(9, 40, 48)).save(source / "b.png")
    after = {
        one.name: np.asarray(one.array[...])
        for one in extract_features(detector, source, out, resume=True).features
    }
    alone = extract_features(detector, source / "b.png", tmp_path / "alone").features[0].array[...]
    np.testing.assert_array_equal(after["b.png"], alone)
    assert not np.array_equal(before["b.png"], after["b.png"])
    np.testing.assert_array_equal(before["left/a.png"], after["left/a.png"])


def test_an_image_whose_features_cannot_take_its_name_is_skipped(
    make_detector: Make, scenes: Path, grey: Path, tmp_path: Path, recorder: type
) -> None:
    detector = of_images(make_detector, scenes, "ssim-ae", *SMALL)
    source = tmp_path / "grey"
    shutil.copytree(grey, source)
    shutil.copy(source / "b.png", source / ("a" * 248 + ".png"))
    recorded = recorder()
    done = extract_features(detector, source, tmp_path / "out", observer=recorded)
    assert len(done.features) == 2
    assert "has a name that its results cannot take" in str(*recorded.problems)


def test_features_of_version_0_1_are_read(scenes: Path, detector: Detector, tmp_path: Path) -> None:
    (features,) = extract_features(detector, scenes, tmp_path).features
    path = features.path / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["picture"] = document["attributes"].pop("image")
    path.write_text(json.dumps(document))
    assert read_features(features.path).size == features.size == (HEIGHT, WIDTH)


def test_reading_names_what_is_wrong(
    grey: Path, scenes: Path, make_detector: Make, detector: Detector, tmp_path: Path
) -> None:
    with pytest.raises(FileError, match="holds no features"):
        read_features(tmp_path)
    (features,) = extract_features(detector, scenes, tmp_path / "one").features
    assert read_features(tmp_path / "one").path == read_features(features.path).path == features.path
    extract_features(of_images(make_detector, scenes, "ssim-ae", *SMALL), grey, tmp_path / "two")
    with pytest.raises(FileError, match=r"features of 2 images .*left/a\.png\.zarr"):
        read_features(tmp_path / "two")
    assert json.loads(json.dumps(features.described()))["shape"] == [80, 12, 18]
    assert "80 features for each of 18 × 12 places, 8 pixels apart" in features.in_words()
    (features.path / "features" / "zarr.json").write_text("{")
    with pytest.raises(FileError, match="cannot be read"):
        read_features(features.path)
