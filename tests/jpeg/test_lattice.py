from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.jpeg.lattice import ON_LATTICE, lattice_share


def photograph(side: int = 256, seed: int = 0) -> NDArray[np.uint8]:
    """Noise of which every octave has the same contrast, as in photographs."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), 120.0)
    for octave in range(1, 8):
        coarse = rng.normal(0, 14, (2**octave, 2**octave)).astype(np.float32)
        image += np.asarray(Image.fromarray(coarse).resize((side, side), 3))[..., None]
    image += rng.normal(0, 3, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def decoded(pixels: NDArray[np.uint8], **options: object) -> NDArray[np.uint8]:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **options)  # type: ignore[arg-type]
    return np.asarray(Image.open(stream))


@pytest.mark.parametrize("seed", range(3))
def test_a_lossless_image_lies_on_no_lattice(seed: int) -> None:
    assert 0.2 < lattice_share(photograph(seed=seed)) < ON_LATTICE - 0.1


@pytest.mark.parametrize("quality", [30, 50, 75, 85])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_a_decoded_jpeg_lies_on_its_lattice(quality: int, subsampling: int) -> None:
    again = decoded(photograph(), quality=quality, subsampling=subsampling)
    assert lattice_share(again) > ON_LATTICE
    assert lattice_share(again[..., 1]) > 0  # grey images, too


def test_halving_and_shifting_take_it_away() -> None:
    again = decoded(photograph(512), quality=75)
    assert lattice_share(again) > ON_LATTICE
    assert lattice_share(np.asarray(Image.fromarray(again).reduce(2))) < ON_LATTICE
    assert lattice_share(again[3:, 5:]) < ON_LATTICE


def test_what_cannot_tell_counts_as_none() -> None:
    assert lattice_share(np.zeros((4, 4), np.uint8)) == 0
    assert lattice_share(np.full((64, 64, 3), 9, np.uint8)) == 0
