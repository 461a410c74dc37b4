from __future__ import annotations

import numpy as np

from blemish.jpeg.benchmark.baselines import PILLOW_420
from blemish.jpeg.benchmark.page import busiest, nearest_rate


def test_nearest_rate_by_trying_all() -> None:
    y, x = np.mgrid[:64, :64]
    waves = np.stack([128 + 80 * np.sin(x / (6 + c)) * np.cos(y / 9) for c in range(3)], -1)
    noise = np.random.default_rng(0).normal(0, 6, waves.shape)
    pixels = np.clip(waves + noise, 0, 255).astype(np.uint8)
    sizes = {quality: len(PILLOW_420.encode(pixels, quality)) for quality in range(1, 101)}
    for bpp in (0.01, 1.5, 3.0, 50.0):
        quality, data = nearest_rate(PILLOW_420, pixels, bpp)
        assert len(data) == sizes[quality]
        assert abs(len(data) - bpp * 512) == min(abs(size - bpp * 512) for size in sizes.values())


def test_the_busiest_window_of_an_image_smaller_than_it_is_the_image() -> None:
    assert busiest(np.zeros((5, 300), np.uint8), 160)[0] == slice(0, 5)
    assert busiest(np.zeros((1, 1, 3), np.uint8), 160) == (slice(0, 1), slice(0, 1))
