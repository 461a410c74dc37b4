from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from blemish.preprocessing.layout import have_colour, image_layout


def part(rng: np.random.Generator) -> np.ndarray:
    return ndimage.gaussian_filter(rng.standard_normal((1, 64, 80)), (0, 3, 3)).astype(np.float32)


def test_the_correlation_is_that_of_the_signal() -> None:
    """Images s + n with equal power of signal and noise: the mean of many others is s, and the correlation √½."""
    rng = np.random.default_rng(0)
    shape = (200, 1, 32, 32)
    signal, noise = rng.standard_normal(shape[1:]), rng.standard_normal(shape)
    layout = image_layout((signal + noise).astype(np.float32))
    assert layout.kind == "aligned view"
    assert layout.has_places
    assert layout.correlation == pytest.approx(0.5**0.5, abs=0.03)


def test_shifted_copies_of_one_object_are_unaligned() -> None:
    rng = np.random.default_rng(1)
    object_ = part(rng)
    images = [np.roll(object_, tuple(rng.integers(0, 64, 2)), (1, 2)) for _ in range(30)]
    layout = image_layout(images)
    assert not layout.has_places
    assert "a part that is missing or displaced but looks normal cannot" in layout.in_words


def test_slow_shading_in_all_images_does_not_align_a_texture() -> None:
    rng = np.random.default_rng(2)
    shading = np.linspace(0, 1, 64, dtype=np.float32)[None, None]
    images = [shading + 0.1 * rng.standard_normal((1, 64, 64), np.float32) for _ in range(30)]
    assert image_layout(images).kind == "unaligned"


def test_a_pose_that_was_found_is_believed() -> None:
    rng = np.random.default_rng(3)
    layout = image_layout([rng.random((1, 40, 40)) for _ in range(4)], is_posed=True)
    assert layout.kind == "posed object"
    assert layout.has_places
    assert "Objects in one pose" in layout.in_words


@pytest.mark.parametrize(
    "images", [[np.zeros((3, 40, 40), np.float32)] * 5, [np.ones((1, 9, 9), np.float32)]]
)
def test_flat_images_and_a_single_one_have_no_places(images: list[np.ndarray]) -> None:
    assert image_layout(images).kind == "unaligned"
    assert image_layout(images).correlation == 0


def grey(seed: int) -> np.ndarray:
    """A grey image in three channels, each with its own noise of a sensor."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((64, 80)), 4)
    values = 0.5 + 0.2 * smooth / smooth.std()
    return (values + 0.03 * rng.standard_normal((3, 64, 80))).clip(0, 1).astype(np.float32)


def test_noise_and_a_faint_cast_are_no_colour() -> None:
    cast = np.array([1.0, 0.99, 0.97], np.float32)[:, None, None]
    assert not have_colour([grey(seed) for seed in range(5)])
    assert not have_colour([grey(seed) * cast for seed in range(5)])
    assert not have_colour([grey(seed)[:1] for seed in range(5)])


def test_a_small_coloured_part_on_grey_is_colour() -> None:
    images = [grey(seed) for seed in range(5)]
    for image in images:
        image[0, 24:40, 24:40] += 0.2
    assert have_colour(images)
    # A single image among many is none of the set.
    assert not have_colour([images[0], *(grey(seed) for seed in range(5, 10))])


def test_places_outside_the_image_have_no_colour() -> None:
    images = [grey(seed) for seed in range(5)]
    for image in images:
        image[:, :, 60:] = np.nan
    assert not have_colour(images)
