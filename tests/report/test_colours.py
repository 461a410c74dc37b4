from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from blemish.errors import UsageError
from blemish.report.colours import HEAT, displayable, fit_map, heat, overlay, size_within


class Box(NamedTuple):
    x: int
    y: int
    width: int
    height: int


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Relative luminance (WCAG 2.1) of uint8 sRGB."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def test_the_scale_brightens_monotonically_and_is_dark_up_to_its_middle() -> None:
    bright = luminance(HEAT)
    assert (np.diff(bright) > -1e-3).all()
    assert bright[127] < 0.04
    assert bright[-1] > 0.9
    assert np.ptp(bright[127:]) > 20 * np.ptp(bright[:128])


def test_the_same_value_has_the_same_colour_in_every_map(rng: np.random.Generator) -> None:
    faint, strong = rng.uniform(0, 0.05, (7, 9)), rng.uniform(0, 5, (6, 4))
    faint[3, 3] = strong[2, 2] = 0.04
    assert (heat(faint, 0.03)[3, 3] == heat(strong, 0.03)[2, 2]).all()


@pytest.mark.parametrize("middle", [1e-6, 0.031, 1.0, 400.0])
def test_the_middle_and_twice_its_value_are_at_mid_scale_and_at_the_end(middle: float) -> None:
    colours = heat(np.array([[0.0, middle, 2 * middle, 50 * middle]]), middle)
    assert (colours[0] == HEAT[[0, 127, 254, 254]]).all()


def test_a_map_of_a_good_image_is_dark(rng: np.random.Generator) -> None:
    assert luminance(heat(rng.uniform(0, 0.1, (20, 20)), 0.1)).max() < 0.04


def test_with_a_middle_of_zero_every_positive_value_is_bright() -> None:
    assert (heat(np.array([[0.0, 1e-12]]), 0.0)[0] == HEAT[[0, 254]]).all()


@pytest.mark.parametrize("middle", [-0.1, np.nan, np.inf])
def test_an_invalid_middle_is_refused(middle: float) -> None:
    with pytest.raises(UsageError, match="middle of a heat map's scale"):
        heat(np.zeros((2, 2)), middle)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 11])
def test_any_channel_count_becomes_rgb(rng: np.random.Generator, channels: int) -> None:
    image = rng.uniform(0, 1, (channels, 5, 7)).astype(np.float32)
    shown = displayable(image)
    assert shown.shape == (5, 7, 3)
    assert shown.dtype == np.uint8
    expected = {1: image[[0, 0, 0]], 2: image[[0, 0, 0]], 3: image, 4: image[:3]}.get(
        channels, np.broadcast_to(image.mean(axis=0), (3, 5, 7))
    )
    assert np.abs(shown / 255 - expected.transpose(1, 2, 0)).max() <= 0.5 / 255 + 1e-6


def test_values_outside_the_range_are_clipped() -> None:
    assert displayable(np.array([[[-1.0, 2.0]]]))[0, :, 0].tolist() == [0, 255]


def test_reducing_a_map_keeps_the_smallest_defect() -> None:
    anomaly_map = np.zeros((1001, 777))
    anomaly_map[1000, 776] = 3.0
    small = fit_map(anomaly_map, (33, 25))
    assert small.shape == (33, 25)
    assert small[-1, -1] == 3.0
    assert np.count_nonzero(small) == 1


def test_enlarging_a_map_repeats_its_pixels() -> None:
    assert fit_map(np.array([[1, 2]]), (2, 4)).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


def test_every_block_maximum_is_exact(rng: np.random.Generator) -> None:
    anomaly_map = rng.uniform(size=(12, 20))
    assert (fit_map(anomaly_map, (4, 5)) == anomaly_map.reshape(4, 3, 5, 4).max(axis=(1, 3))).all()


@pytest.mark.parametrize(("shape", "size"), [((100, 50), (20, 10)), ((3, 9), (7, 20)), ((1, 5000), (1, 20))])
def test_the_longer_side_has_the_requested_length(shape: tuple[int, int], size: tuple[int, int]) -> None:
    assert size_within(shape, 20) == size


def test_overlay_changes_nothing_at_or_below_the_pixel_threshold(rng: np.random.Generator) -> None:
    image = rng.uniform(0, 1, (3, 31, 45))
    anomaly_map = rng.uniform(0, 0.1, (31, 45))
    anomaly_map[5, 6] = 0.1
    assert (overlay(image, anomaly_map, 0.1) == displayable(image)).all()
    anomaly_map[10:12, 20:23] = 0.3
    changed = (overlay(image, anomaly_map, 0.1) != displayable(image)).any(axis=-1)
    assert changed[10:12, 20:23].all()
    assert changed.sum() == 6


def test_overlay_draws_a_box_around_a_region_and_not_inside_it() -> None:
    image, anomaly_map = np.full((1, 80, 120), 0.5), np.zeros((80, 120))
    drawn = overlay(image, anomaly_map, 1.0, [Box(40, 30, 20, 10)])
    changed = (drawn != displayable(image)).any(axis=-1)
    assert not changed[30:40, 40:60].any()
    for rows, columns in (((40, 45), (40, 60)), ((30, 40), (33, 40)), ((30, 40), (60, 66))):
        assert changed[slice(*rows), slice(*columns)].any()


def test_overlay_outlines_the_ground_truth_mask_outside_it() -> None:
    image, mask = np.full((1, 40, 40), 0.5), np.zeros((40, 40), dtype=bool)
    mask[10:20, 10:20] = True
    changed = (overlay(image, np.zeros((40, 40)), 1.0, mask=mask) != displayable(image)).any(axis=-1)
    assert not changed[mask].any()
    assert changed[9, 10:20].all()
    assert changed[20, 10:20].all()


@pytest.mark.parametrize("shape", [(1, 33, 33), (3, 7, 201), (11, 301, 2), (2, 1, 1)])
def test_overlay_fits_any_size_even_with_regions_at_the_edge(shape: tuple[int, int, int]) -> None:
    _, height, width = shape
    regions = [Box(0, 0, 1, 1), Box(width - 1, height - 1, 1, 1), Box(0, 0, width, height)]
    mask = np.ones((height, width), dtype=bool)
    plain = overlay(np.zeros(shape), np.ones((height, width)), 0.5, regions, mask=mask)
    assert plain.shape == (height, width, 3)
    sized = overlay(np.zeros(shape), np.ones((height, width)), 0.5, regions, mask=mask, side=100)
    assert sized.shape == (*size_within((height, width), 100), 3)
