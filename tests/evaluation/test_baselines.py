"""Decisions that need no learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.errors import FileError
from blemish.evaluation.baselines import mean_grey, nearest_image, run_baselines
from blemish.inspection.detector import Detector


def test_the_nearest_image_is_found_whatever_the_exposure() -> None:
    rng = np.random.default_rng(0)
    train = rng.random((5, 60)).astype(np.float32)
    images = np.concatenate([0.3 + 0.4 * train[2:3], rng.random((1, 60))]).astype(np.float32)
    distances = nearest_image(train, images)
    assert distances[0] == pytest.approx(0, abs=1e-3)

    def standard(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return (x - x.mean()) / x.std()

    expected = min(np.sqrt(np.mean((standard(images[1]) - standard(one)) ** 2)) for one in train)
    assert distances[1] == pytest.approx(expected, abs=1e-4)


def test_mean_grey_is_a_distance_to_either_side() -> None:
    train = np.full((3, 4), 0.5, np.float32)
    images = np.array([[0.2] * 4, [0.8] * 4, [0.5] * 4], np.float32)
    np.testing.assert_allclose(mean_grey(train, images), [0.3, 0.3, 0.0], atol=1e-6)


def test_the_detectors_own_images_and_promise_are_used(
    detector: Detector, good: Path, tmp_path: Path
) -> None:
    """Images far brighter than any good one are all found by their mean, and good ones stay within the rate."""
    names = detector.file.split["calibration"]
    for folder, change in (("good", 0), ("bright", 255)):
        (tmp_path / "test" / folder).mkdir(parents=True)
        for name in names[:3]:
            pixels = np.asarray(Image.open(good / name)).astype(int) + change
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                tmp_path / "test" / folder / Path(name).name
            )
    by_name = {one.name: one for one in run_baselines(detector, good, tmp_path)}
    grey = by_name["mean grey level"]
    assert (grey.found, grey.defective, grey.good) == (3, 3, 3)
    assert grey.rejected <= 1
    assert grey.auroc == 1.0
    with pytest.raises(FileError):
        run_baselines(detector, tmp_path / "none", tmp_path)
