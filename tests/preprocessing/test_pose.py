"""Objects of known pose: found, turned into one pose, and back."""

from __future__ import annotations

import math
import re
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from blemish.preprocessing.pose import (
    MOST_OBJECTS,
    Crop,
    FoundObject,
    ObjectSearch,
    Pose,
    _otsu,
    crop,
    find_objects,
    kept_poses,
    plan_crop,
    uncrop,
)

GROUND, METAL = 0.8, 0.25


def ramp(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coverage of pixels so far inside an edge."""
    return np.clip(distance + 0.5, 0, 1)


def bolt(
    centre: tuple[float, float], degrees: float, shape: tuple[int, int] = (140, 151), size: float = 1.0
) -> NDArray[np.float64]:
    """A bolt (H, W), 80 pixels long: a head of 20 × 32, then a shank of 60 × 14 that points to ``degrees``.

    ``centre`` is halfway between its ends; degrees are counted from the right, clockwise.
    """
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    along = ((x - centre[1]) * c + (y - centre[0]) * s) / size
    across = np.abs((y - centre[0]) * c - (x - centre[1]) * s) / size
    head = np.minimum(10 - np.abs(along + 30), 16 - across)
    shank = np.minimum(30 - np.abs(along - 10), 7 - across)
    return GROUND + (METAL - GROUND) * ramp(size * np.maximum(head, shank))


def turned_by(found: FoundObject, degrees: float) -> float:
    """Degrees between the direction found and the true one."""
    dy, dx = found.pose.direction
    away = math.degrees(math.atan2(dy, dx)) - degrees
    return (away + 180) % 360 - 180


def found_in(image: NDArray[np.float64]) -> FoundObject:
    return find_objects(image)[0]


@pytest.mark.parametrize("degrees", range(0, 360, 40))
def test_a_bolt_is_found_within_a_pixel_and_a_degree_with_its_head_first(degrees: int) -> None:
    centre = (69.3, 76.6)
    found = found_in(bolt(centre, degrees))
    assert math.dist(found.pose.centre, centre) < 1
    assert abs(turned_by(found, degrees)) < 1
    assert math.hypot(*found.pose.direction) == pytest.approx(1)
    assert found.length == pytest.approx(80, abs=4)
    assert found.breadth == pytest.approx(32, abs=4)
    assert (found.inside, found.plain) == (True, True)
    assert found.share == pytest.approx((20 * 32 + 60 * 14) / (140 * 151), rel=0.25)
    assert found.elongation > 2


@pytest.mark.parametrize(("shape", "size"), [((1100, 1301), 8.0), ((71, 73), 0.5)])
def test_nor_does_the_size_of_the_image_matter(shape: tuple[int, int], size: float) -> None:
    centre = (shape[0] / 2 - 3 * size, shape[1] / 2 + 5.3 * size)
    found = found_in(bolt(centre, 200, shape, size))
    assert math.dist(found.pose.centre, centre) < size
    assert abs(turned_by(found, 200)) < 1
    assert found.length == pytest.approx(80 * size, rel=0.09)


def test_a_large_image_has_no_offset_from_being_made_smaller() -> None:
    found = found_in(bolt((1700.0, 1800.0), 0, (2048, 2048), 4.0))  # far from the middle
    assert math.dist(found.pose.centre, (1700, 1800)) < 1


def test_light_contrast_noise_and_the_sign_of_contrast_change_no_pose() -> None:
    image = bolt((70, 75), 65)
    noise = np.random.default_rng(0).normal(0, 0.01, image.shape)
    for other in (0.3 * image + 0.1, 1 - image, image + noise):
        found = found_in(other)
        assert math.dist(found.pose.centre, (70, 75)) < 1
        assert abs(turned_by(found, 65)) < 1


def test_a_soft_shadow_is_no_part_of_the_object() -> None:
    image = bolt((70, 75), 20)
    shadow = 1 - 0.3 * ndimage.gaussian_filter(ndimage.shift((image < 0.5).astype(float), 10), 8)
    found = found_in(np.where(image < 0.5, image, image * shadow))
    assert math.dist(found.pose.centre, (70, 75)) < 1.5
    assert abs(turned_by(found, 20)) < 2


def test_the_largest_object_comes_first_and_small_ones_do_not_count() -> None:
    large, small = bolt((90, 75), 10), bolt((25, 120), 200, size=0.4)
    (found,) = find_objects(np.minimum(large, small))
    assert math.dist(found.pose.centre, (90, 75)) < 1
    both = find_objects(np.minimum(large, bolt((25, 110), 200, size=0.75)))
    assert [round(one.length) for one in both] == pytest.approx([80, 60], abs=4)
    assert math.dist(both[1].pose.centre, (25, 110)) < 1
    assert abs(turned_by(both[1], 200)) < 1
    assert all(one.plain for one in both)  # the other object is no unevenness of the ground


def several(poses: list[tuple[tuple[float, float], float]]) -> NDArray[np.float64]:
    """Smaller bolts (140, 151), 40 pixels long, at these centres and angles."""
    return np.minimum.reduce([bolt(*pose, size=0.5) for pose in poses])


PLACES = [(35.0, 37.0), (36.0, 112.0), (105.0, 38.0), (104.0, 110.0)]


def test_several_objects_get_a_crop_each() -> None:
    rng = np.random.default_rng(0)
    images = [
        several([(place, float(rng.uniform(0, 360))) for place in PLACES[: 2 + k % 3]]) for k in range(12)
    ]
    size, reason = plan_crop([find_objects(image) for image in images], [1.0] * 12, least=64)
    assert reason == "up to 4 objects on a plain ground, each turned into one pose"
    assert size is not None
    assert (size.count, size.turned) == (4, True)
    assert 40 <= size.width <= 64 <= size.shape[0] == 4 * size.height
    assert size.height <= 32


def test_several_round_objects_are_cut_out_and_not_turned() -> None:
    y, x = np.mgrid[:140, :151]
    discs = GROUND + (METAL - GROUND) * np.maximum.reduce(
        [ramp(15 - np.hypot(y - row, x - column)) for row, column in PLACES]
    )
    size, reason = plan_crop([find_objects(discs)] * 4, [1.0] * 4)
    assert reason == "up to 4 objects on a plain ground, each cut out"
    assert size is not None
    assert (size.count, size.turned, size.height) == (4, False, size.width)


def test_a_stray_piece_in_some_images_leaves_the_largest_object() -> None:
    lone = [find_objects(bolt((70, 75), 40 * k)) for k in range(10)]
    beside = find_objects(np.minimum(bolt((95, 75), 10), bolt((22, 112), 200, size=0.65)))
    assert len(beside) == 2
    size, reason = plan_crop([*lone[:-1], beside], [1.0] * 10)
    assert reason == "one object on a plain ground, each turned into one pose"
    assert size == plan_crop(lone, [1.0] * 10)[0]
    size, reason = plan_crop([*lone[:5], *[beside] * 5], [1.0] * 10)
    assert (size, reason) == (None, "whole images: the objects differ in size")


def test_of_very_many_objects_none_is_told_apart() -> None:
    y, x = np.mgrid[:200, :200]
    grid = np.where((y % 40 > 10) & (y % 40 < 22) & (x % 40 > 10) & (x % 40 < 30), METAL, GROUND)
    assert len(find_objects(grid)) == MOST_OBJECTS + 1
    size, reason = plan_crop([find_objects(grid)] * 4, [1.0] * 4)
    assert size is None
    assert reason == f"whole images: there are more than {MOST_OBJECTS} objects"


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_nothing_is_found_where_nothing_is(value: float) -> None:
    flat = np.full((60, 50), value)
    hardly = flat.copy()
    hardly[20:40, 10:40] += 1e-4
    soft = value * (1 - np.linspace(0, 0.02, 50) * np.ones((60, 1)))
    for image in (flat, hardly, soft):
        assert find_objects(image) == ()


def test_the_level_between_two_classes_is_found_whatever_the_rounding() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        low, high = rng.uniform(0, 0.1, rng.integers(50, 500)), rng.uniform(0.9, 1, rng.integers(50, 500))
        assert 0.09 < _otsu(np.concatenate([low, high])) < 0.91


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (9, 2), (17, 4)])
def test_images_of_a_few_pixels_are_no_trouble(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).random(shape)
    for found in find_objects(noise):
        assert np.isfinite([*found.pose.centre, *found.pose.direction, found.length]).all()


def test_an_object_that_touches_the_border_is_flagged() -> None:
    assert not found_in(bolt((70, 20), 0)).inside


# -- whether images show one posed object -----------------------------------------------------------


def bolts(count: int = 8, **changes: float) -> list[tuple[FoundObject, ...]]:
    return [find_objects(bolt((70 + k % 3, 75), 47 * k, **changes)) for k in range(count)]


def test_bolts_at_every_angle_are_brought_into_one_pose() -> None:
    size, reason = plan_crop(bolts(), [0.5] * 8)
    assert size is not None
    assert reason == "one object on a plain ground, each turned into one pose"
    assert (size.height % 16, size.width % 16) == (0, 0)
    assert 16 <= size.height <= 32  # 32 pixels across and a margin, at half the scale
    assert 48 <= size.width <= 64
    least, _ = plan_crop(bolts(), [0.5] * 8, least=50)
    assert least == Crop(height=64, width=64)


def test_bolts_in_one_pose_are_reported_as_such() -> None:
    _, reason = plan_crop([find_objects(bolt((70, 75), 3 * k)) for k in range(4)], [1.0] * 4)
    assert reason == "one object on a plain ground, all of one pose"


def texture(seed: int) -> NDArray[np.float64]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(140, 151)), 2)
    return 0.5 + 0.2 * noise / noise.std()


def disc() -> NDArray[np.float64]:
    y, x = np.mgrid[:140, :151]
    return GROUND + (METAL - GROUND) * ramp(30 - np.hypot(y - 70, x - 75))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([np.full((140, 151), 0.5)] * 4, "not every one shows an object"),
        ([texture(seed) for seed in range(4)], "ground is not plain|reaches the border|no single object"),
        ([bolt((70, 20), 0)] * 4, "reaches the border"),
        ([disc()] * 4, "no long axis"),
        ([bolt((70, 75), 40 * k, size=1 - 0.15 * k) for k in range(4)], "differ in size"),
        ([bolt((70, 75), 30)] * 9 + [np.full((140, 151), 0.5)], "not every one shows an object"),
    ],
    ids=["nothing", "texture", "border", "disc", "sizes", "one without"],
)
def test_whole_images_are_looked_at_where_there_is_no_such_object(
    images: list[NDArray[np.float64]], words: str
) -> None:
    size, reason = plan_crop([find_objects(image) for image in images], [1.0] * len(images))
    assert size is None
    assert reason.startswith("whole images: ")
    assert re.search(words, reason)


# -- there and back ------------------------------------------------------------------------------------

SIZE = Crop(height=48, width=96)


def test_a_crop_shows_the_bolt_lying_with_its_head_to_the_left() -> None:
    expected = bolt((23.5, 47.5), 0, (48, 96))
    for degrees in range(0, 360, 45):
        shown = crop(bolt((68.7, 77.1), degrees)[None], found_in(bolt((68.7, 77.1), degrees)).pose, SIZE, 1.0)
        assert (shown.shape, shown.dtype) == ((1, 48, 96), np.float32)
        assert np.abs(shown[0] - expected).mean() < 0.02


def test_the_axes_of_a_crop_are_those_of_the_image_where_it_is_not_turned() -> None:
    image = np.random.default_rng(0).random((3, 61, 120))
    shown = crop(image, Pose((30.5, 60.5), (0.0, 1.0)), Crop(height=16, width=32), 1.0)
    own = ndimage.uniform_filter(image, 1)[:, 23:39, 45:77]
    # Four samples a pixel, a quarter off its middle, are a slight blur.
    assert np.corrcoef(shown.ravel(), own.ravel())[0, 1] > 0.95
    turned = crop(image, Pose((30.5, 60.5), (0.0, -1.0)), Crop(height=16, width=32), 1.0)
    np.testing.assert_allclose(turned, shown[:, ::-1, ::-1], atol=1e-6)
    quarter = crop(image, Pose((30.5, 60.5), (1.0, 0.0)), Crop(height=32, width=16), 1.0)
    np.testing.assert_allclose(quarter, np.rot90(shown, axes=(2, 1))[:, ::-1, ::-1].copy(), atol=1e-6)


@pytest.mark.parametrize("degrees", [0, 33, 90, 211])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
def test_back_in_the_image_it_is_what_it_was_inside_and_what_was_asked_for_outside(
    degrees: int, scale: float
) -> None:
    y, x = np.mgrid[:101, :120]
    image = np.stack([0.5 + 0.4 * np.sin(x / 9 + y / 14), x / 120])
    pose = Pose((52.0, 58.5), (math.sin(math.radians(degrees)), math.cos(math.radians(degrees))))
    size = Crop(height=round(32 * scale / 16) * 16 or 16, width=round(64 * scale / 16) * 16)
    outside = np.full((2, 1, 1), -1.0)
    back = uncrop(crop(image, pose, size, scale), pose, (101, 120), scale, outside)
    assert (back.shape, back.dtype) == ((2, 101, 120), np.float32)
    inside = back[0] != -1
    assert np.abs(back - image)[:, inside].max() < 0.06
    assert inside.sum() == pytest.approx(size.height * size.width / scale**2, rel=0.05)
    assert inside[52, 58]
    assert (back[:, ~inside] == -1).all()


def test_beyond_the_border_the_image_is_continued() -> None:
    image = np.tile(np.linspace(0, 1, 40), (1, 40, 1))
    shown = crop(image, Pose((20.0, 0.0), (0.0, 1.0)), Crop(height=16, width=32), 1.0)
    np.testing.assert_array_equal(shown[:, :, :15], 0)
    assert shown[0, :, -1].min() > 0.3


def test_fine_detail_does_not_alias_in_a_much_smaller_crop() -> None:
    board = (np.indices((512, 512)).sum(0) // 2 % 2).astype(float)  # squares of two pixels
    shown = crop(board[None], Pose((255.5, 255.5), (0.0, 1.0)), Crop(height=16, width=16), 1 / 30)
    assert np.abs(shown - 0.5).max() < 0.1


def test_poses_of_images_seen_before_are_not_searched_again() -> None:
    searched: list[tuple[int, ...]] = []

    def keep(search: ObjectSearch) -> ObjectSearch:
        kept: dict[bytes, Any] = {}

        def find(grey: NDArray[np.floating]) -> tuple[FoundObject, ...]:
            if (key := grey.tobytes()) not in kept:
                searched.append(grey.shape)
                kept[key] = search(grey)
            return cast("tuple[FoundObject, ...]", kept[key])

        return find

    image = np.full((64, 96), 0.8)
    image[24:40, 20:76] = 0.2
    expected = find_objects(image)
    assert len(expected) == 1
    with kept_poses(keep):
        assert [find_objects(image), find_objects(image)] == [expected, expected]
    assert searched == [(64, 96)]
    assert find_objects(image) == expected
    assert len(searched) == 1
