from __future__ import annotations

import numpy as np

from blemish.data.modality import Modality
from blemish.demo.linear_baseline import linear_maps

SENSORS = [Modality(name="rgb", channels=3), Modality(name="infrared", channels=1)]


def test_what_is_linear_leaves_nothing_and_what_is_hidden_stays() -> None:
    """Infrared is a sum of the colours, but for a square that only it shows."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(2):
        rgb = rng.random((3, 60, 80))
        images.append(np.concatenate([rgb, 0.2 * rgb[:1] + 0.3 * rgb[2:] + 0.1]).astype(np.float32))
    test = images[1].copy()
    test[3, 20:40, 20:40] += 0.4
    (found,) = linear_maps(images[:1], [test], SENSORS)
    assert found.shape == (2, 60, 80)
    assert found[1, 25:35, 25:35].min() > 0.35
    assert found[1, :, 60:].max() < 1e-4


def test_an_image_that_nothing_predicts_differs_by_its_distance_from_the_mean() -> None:
    rng = np.random.default_rng(1)
    image = rng.random((4, 120, 120)).astype(np.float32)
    (found,) = linear_maps([image], [image], SENSORS)
    assert abs(float(found[1].mean()) - 0.25) < 0.01  # of a uniform value from its mean
