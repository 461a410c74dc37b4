from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.jpeg import quality
from blemish.jpeg.ssimulacra2 import Ssimulacra2


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    image = np.full((height, width, 3), 120.0)
    for octave in range(1, 8):
        for channel in range(3):
            coarse = rng.normal(0, 9, (2**octave, 2**octave)).astype(np.float32)
            image[..., channel] += np.asarray(Image.fromarray(coarse).resize((width, height), 3))
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def decoded(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


@pytest.mark.parametrize("size", [(225, 256), (257, 233)])
@pytest.mark.parametrize("level", [10, 50, 95])
def test_scores_are_those_of_the_package(size: tuple[int, int], level: int) -> None:
    from ssimulacra2 import compute_ssimulacra2

    pixels = photograph(*size)
    other = decoded(pixels, level)
    files = [io.BytesIO(), io.BytesIO()]
    for file, image in zip(files, (pixels, other), strict=True):
        Image.fromarray(image).save(file, "PNG")
    assert Ssimulacra2(pixels).score(other) == pytest.approx(compute_ssimulacra2(*files), abs=0.05)


def test_the_same_image_has_100_and_coarser_files_have_less() -> None:
    pixels = photograph(240, 240)
    scorer = Ssimulacra2(pixels)
    scores = [scorer.score(decoded(pixels, level)) for level in (90, 50, 20)]
    assert scorer.score(pixels) == 100
    assert 100 > scores[0] > scores[1] > scores[2]


def test_an_original_is_prepared_once_and_another_one_anew() -> None:
    one, other = photograph(240, 240), photograph(240, 256)
    low = decoded(one, 30)
    first = quality.ssimulacra2(one, low)
    assert quality._beside(one) is quality._beside(one)
    assert quality.ssimulacra2(other, other) == 100
    assert quality.ssimulacra2(one, low) == first
