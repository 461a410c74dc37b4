"""Several objects of an image, each in a cell of its own, and back."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.data.appearance import Range
from blemish.data.image import LoadedImage
from blemish.preprocessing.cells import make_cells
from blemish.preprocessing.pose import Crop, find_objects
from blemish.preprocessing.transform import Objects, PreprocessedImage, Preprocessing

SHAPE = (128, 144)
SIZE = Crop(height=32, width=48, count=4)
PLACES = [(32.0, 36.0), (31.0, 108.0), (96.0, 37.0), (97.0, 109.0)]


def pin(centre: tuple[float, float], degrees: float) -> NDArray[np.float64]:
    """Darkness (H, W) of a pin of 40 × 16 pixels, with a head at its left end when ``degrees`` is 0."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float64)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    along, across = (
        (x - centre[1]) * c + (y - centre[0]) * s,
        np.abs((y - centre[0]) * c - (x - centre[1]) * s),
    )
    head = np.minimum(6 - np.abs(along + 14), 8 - across)
    shank = np.minimum(14 - np.abs(along - 6), 4 - across)
    return np.clip(np.maximum(head, shank) + 0.5, 0, 1)


def pins(places: list[tuple[float, float]], seed: int = 0) -> NDArray[np.uint8]:
    """Image (1, H, W) of pins in any orientation."""
    angles = np.random.default_rng(seed).uniform(0, 360, len(places))
    dark = np.maximum.reduce([pin(place, angle) for place, angle in zip(places, angles, strict=True)])
    return np.asarray(200 - 150 * dark, dtype=np.uint8)[None]


def placed(image: NDArray[np.uint8], **changes: object) -> PreprocessedImage:
    own = {"channels": 1, "convert": False, "kind": "uint8", "size": None, "crop": SIZE, **changes}
    return Preprocessing.model_validate(own).apply(LoadedImage(Path("pins.png"), image))


def filled(done: PreprocessedImage) -> list[int]:
    assert done.cells is not None
    return [number for number, one in enumerate(done.cells.objects) if one is not None]


def cells_of(plane: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    return [plane[start : start + SIZE.height] for start in range(0, 128, SIZE.height)]


def test_each_object_lies_in_the_same_pose_in_its_cell() -> None:
    done = placed(pins(PLACES))
    assert done.pixels.shape == (1, 128, 48) == (1, *SIZE.shape)
    upright = Crop(height=32, width=48)
    alone = make_cells(find_objects(200 / 255 - 0.6 * pin((64.0, 72.0), 0)), upright, 1.0, SHAPE)
    expected = alone.take((200 / 255 - 0.6 * pin((64.0, 72.0), 0))[None])[0]
    for cell in cells_of(done.pixels[0]):
        assert np.corrcoef(cell.ravel(), expected.ravel())[0, 1] > 0.97


@pytest.mark.parametrize(("count", "cells"), [(1, [2]), (2, [1, 3]), (3, [0, 2, 3]), (4, [0, 1, 2, 3])])
def test_fewer_objects_are_spread_over_the_cells_and_the_rest_is_absent(count: int, cells: list[int]) -> None:
    done = placed(pins(PLACES[:count]))
    assert filled(done) == cells
    for number, cell in enumerate(cells_of(done.model_input[0])):
        assert bool(np.isnan(cell).all()) == (number not in cells)
    judged = cells_of(done.judged(np.ones(SIZE.shape, np.float32)))
    assert [number for number, cell in enumerate(judged) if cell.any()] == cells


def test_of_more_objects_than_cells_the_largest_are_inspected() -> None:
    image = np.minimum(pins(PLACES), pins([(64.0, 72.0)]))
    done = placed(image, crop=SIZE.model_copy(update={"count": 2}))
    assert len(done.found) == 5
    assert done.pixels.shape == (1, 64, 48)
    assert filled(done) == [0, 1]


def test_a_spot_in_a_cell_comes_back_on_its_object() -> None:
    image = pins(PLACES, seed=3)
    done = placed(image)
    for number, place in enumerate(sorted(PLACES)):
        values = np.zeros(SIZE.shape, np.float32)
        values[number * 32 + 16, 24] = 1  # the middle of the object
        back = done.map_back(values)
        where = np.array(np.unravel_index(back.argmax(), SHAPE))
        assert np.abs(where - place).max() < 2
        assert back.sum() == pytest.approx(1, abs=0.5)


def test_the_image_comes_back_in_place_and_the_rest_is_its_own() -> None:
    done = placed(pins(PLACES, seed=1))
    back = done.image_back(done.pixels)
    assert np.abs(back - done.own).mean() < 0.01
    reached = done.map_back(np.ones(SIZE.shape, np.float32)) > 0
    assert reached[done.own[0] < 0.5].all()  # all of every object
    np.testing.assert_array_equal(back[0][~reached], done.own[0][~reached])


def test_a_crop_leaves_its_neighbour_out() -> None:
    """Two pins so close that the crop of each reaches the other."""
    near = [(48.0, 72.0), (72.0, 72.0)]
    dark = np.maximum(pin(near[0], 0), pin(near[1], 0))
    done = placed(np.asarray(200 - 150 * dark, dtype=np.uint8)[None], crop=Crop(height=48, width=64, count=2))
    assert filled(done) == [0, 1]
    lone = placed(
        np.asarray(200 - 150 * pin(near[0], 0), dtype=np.uint8)[None], crop=Crop(height=48, width=64)
    )
    for cell in np.split(done.model_input[0], 2):
        assert np.isnan(cell).mean() == pytest.approx(0.25)  # half-way between them
        assert (cell < 0.5).sum() == (lone.model_input[0] < 0.5).sum()
    # Every place is judged once: a map of ones comes back as ones, and no value lies in both cells.
    back = done.map_back(np.concatenate([np.full((48, 64), 1.0), np.full((48, 64), 2.0)]))
    assert set(np.unique(back)) == {0.0, 1.0, 2.0}
    assert back[48, 72] == 1
    assert back[72, 72] == 2


def test_objects_that_are_not_turned_keep_their_orientation() -> None:
    size = Crop(height=48, width=48, count=4, turned=False)
    image = pins(PLACES, seed=2)
    done = placed(image, crop=size)
    for number, (y, x) in enumerate(sorted(PLACES)):
        cell = done.pixels[0, number * 48 : (number + 1) * 48]
        own = image[0, round(y) - 24 : round(y) + 24, round(x) - 24 : round(x) + 24] / 255
        assert np.corrcoef(cell.ravel(), own.ravel())[0, 1] > 0.9


def test_another_number_or_size_of_objects_is_of_another_kind() -> None:
    objects = Objects(length=Range(low=39, high=42), least=2, most=3)
    own = Preprocessing(
        channels=1,
        convert=False,
        kind="uint8",
        size=None,
        crop=Crop(height=32, width=48, count=3),
        objects=objects,
    )

    def unlike(image: NDArray[np.uint8]) -> list[str]:
        return own.unlike(own.apply(LoadedImage(Path("pins.png"), image)))

    assert unlike(pins(PLACES[:2])) == unlike(pins(PLACES[:3])) == []
    assert unlike(pins(PLACES[:1])) == ["1 object is found, in good images 2 to 3"]
    assert unlike(pins(PLACES)) == ["4 objects are found, in good images 2 to 3"]
    assert unlike(np.full((1, *SHAPE), 200, np.uint8)) == ["no object is found"]
    shorter = pins(PLACES[:2])
    half = np.asarray(200 - 150 * pin((32.0, 36.0), 0) * (np.mgrid[:128, :144][1] < 40), np.uint8)
    shorter[0, :64, :72] = half[:64, :72]
    (words,) = unlike(shorter)
    assert words == "object of 26 pixels, good images have 39 to 42"
