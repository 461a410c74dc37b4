from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blemish.data.image import LoadedImage
from blemish.errors import ImageError
from blemish.preprocessing.pose import Crop, Pose, crop
from blemish.preprocessing.transform import PreprocessedImage, Preprocessing


def image(channels: int, kind: str = "uint8") -> LoadedImage:
    pixels = np.random.default_rng(channels).integers(0, 256, (channels, 9, 12)).astype(kind)
    return LoadedImage(Path("part.tif"), pixels)


def test_kept_as_it_is_where_nothing_has_to_change() -> None:
    own = Preprocessing(channels=5, convert=False, kind="uint8", size=None)
    np.testing.assert_array_equal(own.apply(image(5)).pixels, image(5).floats())


@pytest.mark.parametrize(("have", "want"), [(1, 3), (3, 1), (4, 3), (2, 1)])
def test_converted_and_resized_where_wanted(have: int, want: int) -> None:
    prepared = Preprocessing(channels=want, convert=True, kind="uint8", size=18).apply(image(have)).pixels
    assert (prepared.shape, prepared.dtype) == ((want, 18, 24), np.float32)
    assert 0 <= prepared.min() <= prepared.max() <= 1


@pytest.mark.parametrize(
    ("preparation", "given", "words"),
    [
        (Preprocessing(channels=4, convert=True, kind="uint8", size=None), image(1), "1 channels"),
        (Preprocessing(channels=3, convert=True, kind="uint8", size=None), image(5), "5 channels"),
        (Preprocessing(channels=1, convert=False, kind="uint8", size=None), image(3), "has 3 channels"),
        (Preprocessing(channels=1, convert=False, kind="uint16", size=None), image(1), "is 8-bit"),
    ],
    ids=["grey for four channels", "five channels for three", "colour for grey", "8-bit for 16-bit"],
)
def test_an_image_that_does_not_fit_is_refused_by_its_name(
    preparation: Preprocessing, given: LoadedImage, words: str
) -> None:
    with pytest.raises(ImageError, match=words) as refusal:
        _ = preparation.apply(given).pixels
    assert str(refusal.value).startswith("part.tif: ")


# -- one scale for all images ------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "size"), [(1.0, (9, 12)), (0.5, (4, 6)), (2.3, (21, 28)), (0.01, (1, 1))])
def test_one_scale_for_all_keeps_what_is_larger_larger(scale: float, size: tuple[int, int]) -> None:
    own = Preprocessing(channels=2, convert=False, kind="uint8", size=None, scale=scale)
    done = own.apply(image(2))
    assert done.pixels.shape == (2, *size)
    assert own.scaled(9, 12) == size
    assert done.scale == own.scale_of(9, 12) == own.scale_of(900, 12) == scale
    assert done.cells is None


@pytest.mark.parametrize("size", [None, 18])
def test_a_map_comes_back_at_the_images_own_size(size: int | None) -> None:
    own = Preprocessing(channels=1, convert=False, kind="uint8", size=size)
    done = own.apply(image(1))
    assert done.map_back(np.full(done.pixels.shape[1:], 0.7)).shape == (9, 12)
    np.testing.assert_allclose(done.map_back(np.full(done.pixels.shape[1:], 0.7)), 0.7, rtol=1e-6)
    back = done.image_back(done.pixels)
    assert back.shape == done.own.shape == (1, 9, 12)
    assert np.abs(back - done.own).mean() < (0.2 if size else 1e-7)


# -- one pose for all objects --------------------------------------------------------------------------

Draw = Callable[..., np.ndarray]
LYING = Crop(height=32, width=80)


def posing(**changes: object) -> Preprocessing:
    return Preprocessing.model_validate(
        {"channels": 1, "convert": False, "kind": "uint8", "size": None, "crop": LYING, **changes}
    )


def pose_of(placed: PreprocessedImage) -> Pose:
    assert placed.cells is not None
    (one,) = placed.cells.objects
    assert one is not None
    return one.pose


def shown(pixels: np.ndarray) -> LoadedImage:
    return LoadedImage(Path("part.png"), pixels if pixels.ndim == 3 else pixels[None])


def test_bolts_that_lie_anyhow_look_alike(draw_part: Draw) -> None:
    crops = [posing().apply(shown(draw_part(seed))).pixels for seed in range(6)]
    assert all((one.shape, one.dtype) == ((1, 32, 80), np.float32) for one in crops)
    for one in crops[1:]:
        assert np.corrcoef(one.ravel(), crops[0].ravel())[0, 1] > 0.9
    assert posing().scaled(96, 103) == posing().scaled(500, 700) == (32, 80)


def test_at_another_scale_the_crop_keeps_its_size(draw_part: Draw) -> None:
    one = posing(scale=1.0).apply(shown(draw_part(3))).pixels
    half = posing(scale=0.5, crop=Crop(height=16, width=40)).apply(shown(draw_part(3))).pixels
    np.testing.assert_allclose(half, one.reshape(1, 16, 2, 40, 2).mean((2, 4)), atol=0.06)


def test_the_image_comes_back_in_place_and_nothing_is_said_of_the_rest(draw_part: Draw) -> None:
    done = posing().apply(shown(draw_part(4)))
    back = done.image_back(done.pixels)
    assert back.shape == done.own.shape == (1, 96, 103)
    assert np.abs(back - done.own).mean() < 0.01
    looked = done.map_back(np.ones((32, 80)))
    assert set(np.unique(looked)) == {0.0, 1.0}
    assert looked.sum() == pytest.approx(32 * 80, rel=0.02)
    assert looked[done.own[0] < 0.5].all()  # the whole bolt
    np.testing.assert_array_equal(back[0][looked == 0], done.own[0][looked == 0])


def test_a_spot_on_the_map_comes_back_where_it_is_in_the_image(draw_part: Draw) -> None:
    spotted = draw_part(5).astype(float)
    where = np.argwhere(spotted < 90)[40]
    done = posing().apply(shown(draw_part(5)))
    marked = np.zeros((1, 96, 103), np.float32)
    marked[0, where[0] - 1 : where[0] + 2, where[1] - 1 : where[1] + 2] = 1
    back = done.map_back(crop(marked, pose_of(done), LYING, 1.0)[0])
    assert np.abs(np.argwhere(back > 0.5 * back.max()).mean(0) - where).max() < 0.5


def test_one_that_cannot_be_found_is_looked_at_in_the_middle() -> None:
    done = posing().apply(shown(np.full((96, 103), 130, np.uint8)))
    assert done.found == ()
    assert pose_of(done) == ((47.5, 51.0), (0.0, 1.0))
    np.testing.assert_allclose(done.pixels, 130 / 255, rtol=1e-6)
    looked = done.map_back(np.ones((32, 80)))
    assert np.argwhere(looked).mean(0) == pytest.approx((47.5, 51.0), abs=0.6)


def test_colour_is_posed_as_grey_is(draw_part: Draw) -> None:
    grey = draw_part(2)
    colour = np.stack([grey, grey // 2, 255 - grey // 4])
    done = posing(channels=3).apply(shown(colour))
    assert done.pixels.shape == (3, 32, 80)
    np.testing.assert_allclose(done.pixels[0], posing().apply(shown(grey)).pixels[0], atol=0.06)
    assert posing(convert=True).apply(shown(colour)).pixels.shape == (1, 32, 80)


# -- objects at the border -----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 0.6])
@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 30), (45, 0), (50, 40)])
def test_places_of_a_crop_outside_the_image_are_not_judged(
    draw_part: Callable[..., np.ndarray], rows: int, columns: int, scale: float
) -> None:
    size = Crop(height=64, width=96)
    own = Preprocessing(channels=1, convert=False, kind="uint8", size=None, scale=scale, crop=size)
    part = np.ascontiguousarray(draw_part(3, 103, 96)[rows:, columns:])
    done = own.apply(LoadedImage(Path("part.png"), part[None]))
    pose = pose_of(done)
    # The same crop of a larger image, which is 1 where the image is and 0 around it.
    around = 300
    larger = np.zeros((1, part.shape[0] + 2 * around, part.shape[1] + 2 * around))
    larger[:, around:-around, around:-around] = 1
    y, x = pose.centre
    inside = crop(larger, Pose((y + around, x + around), pose.direction), size, scale)[0]
    judged = done.judged(np.ones((64, 96), np.float32))
    assert set(np.unique(judged)) <= {0.0, 1.0}
    clear = np.abs(inside - 0.5) > 0.4
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(judged[clear] == 1, inside[clear] > 0.5)


def test_a_model_is_given_no_invented_pixel(draw_part: Callable[..., np.ndarray]) -> None:
    own = Preprocessing(channels=1, convert=False, kind="uint8", size=None, crop=Crop(height=64, width=96))
    part = np.ascontiguousarray(draw_part(3, 103, 96)[50:])
    done = own.apply(LoadedImage(Path("part.png"), part[None]))
    outside = done.judged(np.ones((64, 96), np.float32)) == 0
    assert 0 < outside.mean() < 0.9
    np.testing.assert_array_equal(np.isnan(done.model_input), outside[None])
    np.testing.assert_array_equal(done.model_input[0][~outside], done.pixels[0][~outside])
    assert np.isfinite(done.pixels).all()  # for networks, which need a value everywhere


def test_whole_images_are_judged_everywhere() -> None:
    own = Preprocessing(channels=5, convert=False, kind="uint8", size=None)
    bright = np.ones((9, 12), np.float32)
    assert own.apply(image(5)).judged(bright) is bright


def test_values_outside_do_not_raise_those_inside(draw_part: Callable[..., np.ndarray]) -> None:
    own = Preprocessing(channels=1, convert=False, kind="uint8", size=None, crop=Crop(height=128, width=160))
    done = own.apply(LoadedImage(Path("part.png"), draw_part(3, 103, 96)[None]))
    below = np.full((128, 160), -2.0, np.float32)
    judged = done.judged(below)
    assert judged.max() == judged.min() == -2
