"""Drawings of the page: sizes, what shows through a heat map, and images of any depth."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from blemish.decision.regions import Region
from blemish.report.colours import heat
from blemish.serve.drawings import draw_heat, draw_image, draw_overlay


def read(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    image.load()
    return image


def test_an_image_within_the_side_is_drawn_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 31), np.uint8)
    drawn = np.asarray(read(draw_image(pixels, 64)))
    assert (drawn == pixels.transpose(1, 2, 0)).all()


def test_a_large_image_is_reduced_to_the_side() -> None:
    assert read(draw_image(np.zeros((1, 100, 400), np.uint8), 50)).size == (50, 12)
    assert read(draw_heat(np.zeros((400, 100), np.float32), 1.0, 50)).size == (12, 50)


def test_sixteen_bits_grey_become_eight() -> None:
    pixels = np.array([[[0, 257, 65535]]], np.uint16)
    assert np.asarray(read(draw_image(pixels, 64)))[0, :, 0].tolist() == [0, 1, 255]


def test_heat_is_clear_where_the_map_is_low_and_opaque_near_the_pixel_threshold() -> None:
    values = np.array([[0.0, 0.3, 0.5, 0.75, 1.0, 5.0]], np.float32)
    drawn = np.asarray(read(draw_heat(2 * values, 2.0, 64)))
    alpha = drawn[0, :, 3].tolist()
    assert alpha[:2] == [0, 0]
    assert 0 < alpha[2] < 255
    assert alpha[3:] == [255, 255, 255]
    assert (drawn[0, 3:, :3] == heat(2 * values, 2.0)[0, 3:]).all()
    assert np.asarray(read(draw_heat(values, 0.0, 64)))[0, :, 3].tolist() == [0] + 5 * [255]


def test_a_single_bright_pixel_of_a_large_map_stays_bright() -> None:
    values = np.zeros((1000, 1000), np.float32)
    values[777, 333] = 10
    drawn = np.asarray(read(draw_heat(values, 1.0, 100)))
    assert drawn[77, 33, 3] == 255
    assert (drawn[..., 3] > 0).sum() == 1


def test_an_overlay_marks_the_region() -> None:
    image, values = np.full((1, 100, 100), 90, np.uint8), np.zeros((100, 100), np.float32)
    values[40:60, 40:60] = 3
    region = Region(x=40, y=40, width=20, height=20, area=400, peak=3.0, mean=3.0)
    drawn = np.asarray(read(draw_overlay(image, values, 1.0, [region], 100)))
    assert (drawn[0, 0] == 90).all()
    assert (drawn[50, 50] != 90).any()
    assert (drawn == 255).all(-1).sum() > 60  # the box
    # Of an image of few pixels the box would hide everything, so that it is drawn larger.
    assert read(draw_overlay(image[:, :24, :24], values[:24, :24], 1.0, [], 512)).size == (96, 96)
