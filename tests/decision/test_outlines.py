from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from blemish.decision.outlines import outline, region_collection


def filled(rings: list[list[tuple[int, int]]], shape: tuple[int, int]) -> np.ndarray:
    """The mask of rings by the even-odd rule, at the centres of pixels."""
    inside = np.zeros(shape, bool)
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    for ring in rings:
        for (x0, y0), (x1, y1) in pairwise(ring):
            if x0 == x1:  # all to the right of a vertical edge changes sides
                inside ^= (x > x0) & (y > min(y0, y1)) & (y < max(y0, y1))
    return inside


@pytest.mark.parametrize("seed", range(6))
def test_outlines_hold_exactly_the_mask(seed: int) -> None:
    mask = ndimage.gaussian_filter(np.random.default_rng(seed).random((40, 50)), 0.7 + 0.3 * seed) > 0.5
    np.testing.assert_array_equal(filled(outline(mask), mask.shape), mask)


@pytest.mark.parametrize(
    ("mask", "rings"),
    [
        ([[1, 0], [0, 1]], 1),  # joined at a corner
        ([[1, 1, 1], [1, 0, 1], [1, 1, 1]], 2),  # a hole
        ([[1, 0, 1]], 2),
        ([[0, 0]], 0),
    ],
)
def test_one_ring_for_each_boundary(mask: list[list[int]], rings: int) -> None:
    found = outline(mask)
    assert len(found) == rings
    assert all(ring[0] == ring[-1] for ring in found)


def test_statistics_of_a_region_are_those_of_its_pixels() -> None:
    values = np.zeros((50, 60), np.float32)
    image = Image.new("L", (60, 50))
    ImageDraw.Draw(image).ellipse((10, 8, 35, 30), fill=1)
    inside = np.asarray(image) > 0
    values[inside] = np.random.default_rng(0).uniform(1, 2, inside.sum())
    values[45, 55] = 9
    infrared = np.random.default_rng(1).random((50, 60)).astype(np.float32)
    found = region_collection(values, 0.5, size=(50, 60), means_of={"infrared": infrared}, dpi=254, most=10)
    strongest, ellipse = (feature["properties"] for feature in found["features"])
    assert strongest["box"] == [55, 45, 1, 1]
    assert ellipse["pixels"] == inside.sum()
    assert ellipse["square_millimetres"] == pytest.approx(inside.sum() * 0.1**2)
    assert ellipse["share"] == pytest.approx(inside.mean())
    assert ellipse["mean"] == pytest.approx(values[inside].mean())
    assert ellipse["mean of infrared"] == pytest.approx(infrared[inside].mean())
    assert "pixels of the scene" in found["coordinates"]
    json.dumps(found, allow_nan=False)


def test_regions_of_a_reduced_map_end_at_the_edge_of_the_scene() -> None:
    values = np.zeros((5, 4), np.float32)
    values[4, 2:] = 1
    (feature,) = region_collection(values, 0.5, size=(17, 14), factor=4)["features"]
    assert feature["properties"]["box"] == [8, 16, 6, 1]
    assert feature["properties"]["pixels"] == 6
    assert np.max(feature["geometry"]["coordinates"][0], axis=0).tolist() == [14, 17]


def test_only_the_strongest_regions_are_kept() -> None:
    values = np.zeros((3, 40), np.float32)
    values[1, ::2] = np.arange(1, 21)
    found = region_collection(values, 0.5, size=(3, 40), most=3)
    assert [feature["properties"]["score"] for feature in found["features"]] == [20, 19, 18]
