"""Reconstructions without learning: their figures by an independent computation, and where they find nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity
from sklearn.metrics import roc_auc_score

from blemish.data.datasets import find_images
from blemish.data.image import read_image
from blemish.data.layouts import read_labelled
from blemish.data.masks import read_masks
from blemish.evaluation.reconstruction_baselines import (
    BLURRED,
    FLAT,
    MEAN,
    ReconstructionBaseline,
    aligned_mean,
    blurred,
    flat,
    mean_image,
    reconstruction_baselines,
    residual_maps,
)
from blemish.models.alignment import Rotation
from blemish.preprocessing.transform import Preprocessing
from blemish.recipes.schema import ScoreSettings

pytestmark = pytest.mark.usefixtures("few_resamples")
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def rows(dataset: Path, few_resamples: None) -> dict[tuple[str, str], ReconstructionBaseline]:
    found = reconstruction_baselines(
        Preprocessing(channels=1, convert=False, kind="uint8", size=None),
        find_images(dataset / "train" / "good"),
        dataset,
        score=ScoreSettings(name="mean"),
    )
    return {(row.name, row.residual): row for row in found}


def test_pixel_figures_are_those_of_scikit_learn(
    rows: dict[tuple[str, str], ReconstructionBaseline], dataset: Path
) -> None:
    train = np.stack([read_image(item.path).floats() for item in find_images(dataset / "train" / "good")])
    ways = {
        FLAT: lambda x: np.full_like(x, np.median(x)),
        BLURRED: lambda x: ndimage.gaussian_filter(x, (0, 4, 4)),
        MEAN: lambda x: train.mean(0),
    }
    assert {name for name, _ in rows} == set(ways)
    items = [item for item in read_labelled(dataset).items if item.split != "train"]
    for name, way in ways.items():
        maps: dict[str, list[Floats]] = {"mse": [], "ssim": []}
        truths = []
        for item in items:
            image = read_image(item.path)
            x = image.floats()
            y = way(x)
            maps["mse"].append(((x - y)[0] ** 2).ravel())
            similarity = structural_similarity(
                x[0],
                y[0],
                data_range=1,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                full=True,
            )[1]
            maps["ssim"].append((1 - similarity).clip(0).ravel())
            mask = read_masks(item.masks, size=image.size)
            truths.append(np.zeros(x.size, bool) if mask is None else mask.ravel())
        for residual, values in maps.items():
            expected = roc_auc_score(np.concatenate(truths), np.concatenate(values))
            assert rows[name, residual].pixel.auroc == pytest.approx(expected, abs=2e-3), (name, residual)
            scores = [one.mean() for one in values]
            expected = roc_auc_score([not item.is_good for item in items], scores)
            assert rows[name, residual].image_auroc == pytest.approx(expected, abs=1e-6)


def test_flat_grey_keeps_the_median_and_a_blur_the_mean() -> None:
    x = np.random.default_rng(0).random((2, 40, 40)).astype(np.float32)
    np.testing.assert_allclose(flat(x)[:, 3, 4], np.median(x, axis=(1, 2)))
    np.testing.assert_allclose(blurred(x).mean((1, 2)), x.mean((1, 2)), atol=2e-2)
    assert blurred(x).std() < 0.3 * x.std()
    assert [name for name, values in residual_maps(x, x).items() if values.max() < 1e-6] == ["mse", "ssim"]
    small = x[:, :9]
    assert list(residual_maps(small, small)) == ["mse"]


def test_the_mean_counts_present_values_and_needs_one_size() -> None:
    images = [np.array([[[0.2, np.nan]]], np.float32), np.array([[[0.4, 0.6]]], np.float32)]
    mean = mean_image(images)
    assert mean is not None
    np.testing.assert_allclose(mean, [[[0.3, 0.6]]], atol=1e-7)
    assert mean_image([*images, np.zeros((1, 2, 2), np.float32)]) is None
    assert mean_image([]) is None


class KnownAngle(Rotation):
    """Alignment that is given the angle of each image in the order in which they come."""

    def __init__(self, angles: list[float]) -> None:
        super().__init__(channels=1, patch=64, strategy="unaligned")
        self.known = iter(angles)

    def angle(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([next(self.known) for _ in x])


def test_the_aligned_mean_stands_in_the_pose_of_each_image() -> None:
    """Bars at several angles: their mean is a bar only where they are turned into one pose."""
    angles = [0.3, 1.1, -0.7]
    bars = [bar(angle) for angle in angles]
    reconstruct = aligned_mean(KnownAngle([*(-angle for angle in angles), -angles[0]]), bars)
    aligned = reconstruct(bars[0])
    plain = mean_image(bars)
    assert plain is not None
    inner = (0, slice(16, -16), slice(16, -16))
    error, without = (np.abs(y - bars[0])[inner].mean() for y in (aligned, plain))
    assert error < 0.2 * without


def bar(angle: float) -> Floats:
    """(1, 64, 64) with a soft bar that lies horizontally after a turn by -angle, counter-clockwise."""
    y, x = np.mgrid[:64, :64] - 31.5
    across = np.sin(angle) * x + np.cos(angle) * y
    return (0.5 + 0.4 * np.exp(-((across / 5) ** 2)))[None].astype(np.float32)
