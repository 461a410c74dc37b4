"""Images of another kind: what is named, and what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.data.appearance import (
    Range,
    appearance,
    differences,
    outliers,
    ranges,
    stretch,
    stretched,
    without,
)
from blemish.data.image import LoadedImage


def loaded(pixels: NDArray[np.uint8]) -> LoadedImage:
    return LoadedImage(Path("a.png"), pixels if pixels.ndim == 3 else pixels[None])


def texture(
    seed: int, level: float = 120, contrast: float = 30, size: tuple[int, int] = (60, 80)
) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).standard_normal(size)
    return np.clip(level + contrast * noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def good() -> dict[str, Range]:
    return ranges([appearance(loaded(texture(seed, 115 + seed))) for seed in range(12)])


def test_figures_of_a_known_image() -> None:
    pixels = np.zeros((3, 4, 10), np.uint8)
    pixels[0] = 255
    pixels[:, :, ::2] //= 5  # every second column of red is 51
    found = appearance(loaded(pixels))
    assert found["brightness"] == pytest.approx((255 + 51) / 2 / 255 / 3)
    assert found["sharpness"] == pytest.approx(204 / 255 / 3)
    assert found["colour"] == pytest.approx((255 + 51) / 2 / 255)
    assert (found["width"], found["height"]) == (10, 4)
    assert "colour" not in appearance(loaded(pixels[:1]))


def test_new_good_images_are_of_the_kind(good: dict[str, Range]) -> None:
    for seed in range(100, 140):
        assert differences(appearance(loaded(texture(seed, 112 + seed % 16))), good) == []


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((60, 80), 255, np.uint8), "mean brightness 1, good images have"),
        (np.zeros((60, 80), np.uint8), "mean brightness 0, good images have"),
        (np.full((60, 80), 120, np.uint8), "contrast "),
        (texture(0, contrast=2), "contrast"),
        (np.repeat(np.repeat(texture(0, size=(8, 10)), 8, 0), 8, 1)[:60], "sharpness"),
        (texture(0, size=(120, 160)), "width of 160 pixels, good images have 80"),
        (texture(0, size=(30, 40)), "height of 30 pixels, good images have 60"),
    ],
    ids=["white", "lamp off", "empty", "fog", "blurred", "twice the size", "half the size"],
)
def test_images_of_another_kind_are_named(
    good: dict[str, Range], pixels: NDArray[np.uint8], words: str
) -> None:
    assert words in "; ".join(differences(appearance(loaded(pixels)), good))


def test_sizes_can_be_left_out(good: dict[str, Range]) -> None:
    large = appearance(loaded(texture(0, size=(120, 160))))
    assert differences(large, without(good, ("width", "height"))) == []


def test_a_channel_that_goes_missing_shows_in_the_colour() -> None:
    def coloured(seed: int, blue: float = 1.0) -> LoadedImage:
        grey = texture(seed)
        return loaded(np.stack([grey, grey, (blue * grey).astype(np.uint8)]))

    good = ranges([appearance(coloured(seed)) for seed in range(5)])
    assert differences(appearance(coloured(9)), good) == []
    assert "mean spread between its colours" in "; ".join(differences(appearance(coloured(9, blue=0)), good))


def test_good_images_far_from_the_others_are_named() -> None:
    figures = {f"{seed}.png": appearance(loaded(texture(seed))) for seed in range(20)}
    assert outliers(figures) == {}
    figures["white.png"] = appearance(loaded(np.full((60, 80), 250, np.uint8)))
    figures["large.png"] = appearance(loaded(texture(50, size=(120, 160))))
    found = outliers(figures)
    assert set(found) == {"white.png", "large.png"}
    assert "mean brightness 0.98, where others have 0.469" in found["white.png"]
    assert "width of 160 pixels, where others have 80" in found["large.png"]
    assert outliers({name: figures[name] for name in ("0.png", "white.png")}) == {}


def test_figures_of_a_large_image_are_those_of_some_of_its_rows() -> None:
    tall = np.tile(texture(1), (20, 1))
    assert appearance(loaded(tall))["brightness"] == pytest.approx(
        appearance(loaded(texture(1)))["brightness"], abs=0.01
    )


# -- 10 and 12 bits in files of 16 ---------------------------------------------------------------------


def test_images_of_a_narrow_range_are_stretched_for_people() -> None:
    def of_12_bits(seed: int) -> LoadedImage:
        return LoadedImage(Path("a.tif"), (16 * texture(seed).astype(np.uint16))[None])

    good = ranges([appearance(of_12_bits(seed)) for seed in range(5)])
    factor = stretch(good)
    assert 15 < factor < 25
    shown = stretched(of_12_bits(0).pixels, factor)
    assert shown.dtype == np.uint16
    assert 60000 < shown.max() <= 65535
    assert stretch(ranges([appearance(loaded(texture(0)))])) == 1
    same = texture(0)
    assert stretched(same, 1) is same


def test_a_largest_value_is_no_reason_to_reject(good: dict[str, Range]) -> None:
    bright = texture(3)
    bright[0, 0] = 255
    assert differences(appearance(loaded(bright)), good) == []
