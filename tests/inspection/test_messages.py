"""Messages are in the units of the user: sizes of files, with the model's scale where it matters, and remedies that work."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from blemish.data.masks import read_mask
from blemish.errors import FileError, ImageError, RecipeError, UsageError
from blemish.inspection.detector import Detector
from blemish.preprocessing.judged_area import JudgedArea
from blemish.training.fit import fit


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    """A model at half the size of its images of 96 × 80 pixels, and these."""
    folder = tmp_path_factory.mktemp("scaled")
    for seed in range(12):
        pixels = np.random.default_rng(seed).integers(90, 160, (80, 96)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return fit(
        folder, "filter-bank", settings=["image.size=40", "image.pose=never"], false_reject_rate=0.4
    ), folder


def test_an_image_that_is_too_small_is_named_by_its_own_size(
    scaled: tuple[Detector, Path], tmp_path: Path
) -> None:
    Image.new("L", (50, 44)).save(tmp_path / "small.png")
    with pytest.raises(ImageError) as caught:
        scaled[0].inspect(tmp_path / "small.png")
    words = str(caught.value)
    assert "is 50 × 44 pixels (25 × 22 at the model's scale of 0.5), too small for the filters" in words
    assert "at least 64 × 64 pixels, or fit with --set image.scale=each" in words
    # What is advised works.
    Image.new("L", (64, 64)).save(tmp_path / "large.png")
    assert scaled[0].inspect(tmp_path / "large.png").size == (64, 64)


@pytest.mark.parametrize("recipe", ["filter-bank", "blemish"])
def test_images_too_small_to_fit_on_have_a_remedy_that_works(
    recipe: str, tmp_path: Path, tiny: list[str], recorder: Callable[..., Any], quick: list[str]
) -> None:
    for seed in range(10):
        pixels = np.random.default_rng(seed).integers(90, 160, (24, 26)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{seed}.png")
    settings = [*(quick if recipe == "blemish" else []), "image.pose=never"]
    observer = recorder()
    with pytest.raises(FileError):
        fit(
            tmp_path,
            recipe,
            settings=[*settings, "image.size=null"],
            false_reject_rate=0.4,
            observer=observer,
        )
    words = str(observer.problems[0])
    assert "is 26 × 24 pixels, and has to have 32 a side at least" in words
    advised = re.search(r"--set (image\.size=\d+)", words)
    assert advised is not None
    assert fit(tmp_path, recipe, settings=[*settings, advised[1]], false_reject_rate=0.4).threshold > 0


def test_a_size_below_what_the_models_need_is_refused_at_once(scaled: tuple[Detector, Path]) -> None:
    with pytest.raises(RecipeError, match=r"image.size 24 is less than the 32 pixels .* use at least 32"):
        fit(scaled[1], "filter-bank", settings=["image.size=24"], false_reject_rate=0.4)


def test_an_object_of_another_length_is_named_in_pixels_of_the_file(
    posed: tuple[Detector, Path], draw_part: Callable[..., Any]
) -> None:
    part = draw_part(1, 96, 103)
    found = posed[0].inspect(np.pad(part.repeat(3, 0).repeat(3, 1), 8, mode="edge"))
    assert found.other_kind is not None
    named = re.search(r"object of (\d+) pixels, good images have ([\d.]+) to ([\d.]+)", found.other_kind)
    assert named is not None
    # Bolts of 64 pixels, three times as large.
    assert float(named[1]) == pytest.approx(3 * 64, rel=0.1)


# -- channels ------------------------------------------------------------------------------------------


def cube(seed: int, channels: int = 40) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :112]
    spectrum = np.linspace(0.2, 1, channels)[:, None, None]
    values = 30000 + 8000 * np.sin(x / 9) * np.sin(y / 7) * spectrum + rng.normal(0, 600, (channels, 96, 112))
    return values.astype(np.uint16)


def save_cube(path: Path, pixels: np.ndarray[Any, Any]) -> Path:
    if len(pixels) == 1:
        tifffile.imwrite(path, pixels[0], photometric="minisblack")
    else:
        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="separate")
    return path


@pytest.mark.parametrize("recipe", ["blemish", "blemish-small"])
def test_images_of_40_channels_are_fitted_and_inspected(
    recipe: str, tmp_path: Path, quick: list[str]
) -> None:
    (tmp_path / "good").mkdir()
    for seed in range(10):
        save_cube(tmp_path / "good" / f"{seed}.tif", cube(seed))
    detector = fit(tmp_path / "good", recipe, settings=quick, false_reject_rate=0.4)
    marred = cube(100)
    marred[25:30, 40:60, 40:60] += 15000
    assert detector.inspect(save_cube(tmp_path / "bad.tif", marred)).is_anomalous
    with pytest.raises(
        ImageError, match=r"has 3 channels.*fitted on 40; leave it out, or save the 40 channels"
    ):
        detector.inspect(save_cube(tmp_path / "rgb.tif", marred[:3]))


@pytest.mark.parametrize(
    ("usual", "other", "remedy"),
    [
        (3, 40, "leave it out, or save the 3 channels of the others"),
        (40, 3, "leave it out, or save the 40 channels of the others"),
        (3, 1, "--set image.channels=3"),
        (4, 3, "--set image.channels=3, which the others can be turned into"),
    ],
)
def test_the_advice_on_channels_works(
    usual: int, other: int, remedy: str, tmp_path: Path, tiny: list[str], recorder: Callable[..., Any]
) -> None:
    for seed in range(12):
        pixels = cube(seed, other if seed == 11 else usual)
        save_cube(tmp_path / f"{seed:02}.tif", pixels[:, :40, :48])
    observer = recorder()
    fit(tmp_path, "l2-ae", settings=tiny, false_reject_rate=0.4, observer=observer)
    (problem,) = observer.problems
    assert remedy in str(problem)
    if advised := re.search(r"--set (image\.channels=\d)", str(problem)):
        again = recorder()
        fit(tmp_path, "l2-ae", settings=[*tiny, advised[1]], false_reject_rate=0.4, observer=again)
        assert again.problems == []
    else:
        (tmp_path / "11.tif").unlink()
        again = recorder()
        fit(tmp_path, "l2-ae", settings=tiny, false_reject_rate=0.4, observer=again)
        assert again.problems == []


# -- EXIF ----------------------------------------------------------------------------------------------


def turned(path: Path, orientation: int, size: tuple[int, int] = (48, 40)) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", size, 255).save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    ("image", "mask", "words"),
    [
        (6, 1, "whose EXIF orientation is 6, and the mask has none; turn it as EXIF turns its image"),
        (1, 8, r"EXIF turns the mask \(orientation 8\); save the mask without EXIF"),
        (3, 5, r"EXIF turns the mask \(orientation 5\) otherwise than the image \(orientation 3\)"),
    ],
)
def test_exif_is_named_where_mask_and_image_differ_by_it(
    image: int, mask: int, words: str, tmp_path: Path
) -> None:
    picture, path = turned(tmp_path / "image.jpg", image), turned(tmp_path / "mask.png", mask)
    size = (40, 48) if image > 4 else (48, 40)
    with pytest.raises(ImageError, match=words):
        read_mask(path, size=size, image=picture)


def test_exif_is_not_named_where_there_is_none(tmp_path: Path) -> None:
    picture, path = turned(tmp_path / "image.png", 1), turned(tmp_path / "mask.png", 1, (40, 48))
    with pytest.raises(ImageError) as caught:
        read_mask(path, size=(48, 40), image=picture)
    assert "EXIF" not in str(caught.value)
    assert "turn it by 90 degrees" in str(caught.value)


def test_a_region_of_interest_across_the_images_is_refused(
    detector: Detector, good: Path, tiny: list[str]
) -> None:
    words = r"is 40 × 48 pixels, across the images of 48 × 40, .* EXIF"
    with pytest.raises(UsageError, match=words):
        detector.with_judged_area(JudgedArea.of(np.ones((48, 40), bool)))
    Image.new("L", (40, 48), 255).save(good.parent / "across.png")
    with pytest.raises(UsageError, match=words):
        fit(good, "ssim-ae", settings=tiny, false_reject_rate=0.2, mask=good.parent / "across.png")
