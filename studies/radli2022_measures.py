"""Measurements of Rádli & Czúni 2022: reconstruction, areas under curves, spread of the pose."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from blemish.data.image import read_image, resize
from blemish.data.layouts import read_labelled
from blemish.data.masks import read_masks
from blemish.decision import PixelMetrics
from blemish.errors import FileError
from blemish.inspection.detector import Detector
from blemish.layers.rotation import loss_by_angle
from blemish.models.alignment import Rotation
from blemish.preprocessing.tiling import TilePlan
from blemish.similarity import MSE, SSIM
from studies.protocol import autoencoder_of
from studies.radli2022_cloth import Floats, Masks
from studies.radli2022_columns import CURVES, PRETRAINED

CURVE_ANGLES = 181
BATCH = 16


class Tests(NamedTuple):
    """Patches that are measured."""

    good: Floats
    """(G, C, P, P) in [0, 1], held out."""
    bad: Floats
    """(B, C, P, P)."""
    masks: Masks
    """(B, P, P)."""
    angles: Floats | None
    """(G,) radians at which the good ones lie, where that is known."""


def dataset_tests(detector: Detector, data: Path, defect: str | None) -> Tests:
    """Patches side by side of the good and the bad test images, reduced as for training.

    Parameters
    ----------
    defect: the only type of bad images that counts; None for all.
    """
    good: list[Floats] = []
    bad: list[Floats] = []
    masks: list[Masks] = []
    side = detector.recipe.patch.size
    for item in read_labelled(data).items:
        if item.split == "train" or not (item.is_good or (item.masks and defect in (None, item.label))):
            continue
        image = read_image(item.path)
        x = detector.file.preprocessing.apply(image).pixels
        plan = TilePlan(x.shape[1:], (side, side), (side, side))
        for _, patches in plan.tiles(x, batch=len(plan)):
            (good if item.is_good else bad).extend(patches)
        marked = read_masks(item.masks, size=image.size)
        if not item.is_good and marked is not None:
            mask = marked[None].astype(np.float32)
            reduced = resize(mask, x.shape[1:]) if mask.shape[1:] != x.shape[1:] else mask
            for _, patches in plan.tiles(reduced, batch=len(plan)):
                masks.extend(patches[:, 0] > 0.5)
    if not good or not bad:
        which = "no good test images" if not good else "no bad test images with masks"
        raise FileError(data, f"has {which}", "give a data set with both")
    return Tests(np.stack(good), np.stack(bad), np.stack(masks), None)


def reconstruct(detector: Detector, images: Floats) -> Floats:
    """(N, C, P, P) in [0, 1]."""
    with torch.inference_mode():
        done = [
            autoencoder_of(detector)(torch.from_numpy(images[first : first + BATCH])).reconstruction.clamp(
                0, 1
            )
            for first in range(0, len(images), BATCH)
        ]
    reconstructions: Floats = torch.cat(done).numpy()
    return reconstructions


def residuals(x: Floats, y: Floats) -> dict[str, Floats]:
    """The maps (N, P, P) of both residuals, at least 0."""
    pair = torch.from_numpy(x), torch.from_numpy(y)
    return {
        name: measure(data_range=1.0).distance_map(*pair)[:, 0].numpy()
        for name, measure in (("SSIM", SSIM), ("MSE", MSE))
    }


def measure(detector: Detector, tests: Tests) -> dict[str, Any]:
    """One network's figures: reconstruction of good patches, areas of bad ones, spread of the pose."""
    good = reconstruct(detector, tests.good)
    similarity = 1 - SSIM(data_range=1.0).distance(torch.from_numpy(tests.good), torch.from_numpy(good))
    maps = residuals(tests.bad, reconstruct(detector, tests.bad))
    areas: dict[str, Any] = {}
    for name, values in maps.items():
        metrics = PixelMetrics()
        for values_of_one, mask in zip(values, tests.masks, strict=True):
            metrics.update(values_of_one, mask)
        result = metrics.result()
        areas[name] = {key: getattr(result, key) for key in CURVES} | {
            "intervals": {key: result.intervals.get(key) for key in CURVES}
        }
    training = detector.file.training
    return {
        "mse": float(np.mean((255 * (tests.good - good)) ** 2)),
        "ssim": float(similarity.mean()),
        "areas": areas,
        "pose": pose(detector, tests.good, tests.angles)._asdict(),
        "steps": training.steps,
        "best_step": training.best_step,
        "training_seconds": training.seconds,
        "machine": training.machine_words,
        "settings": detector.recipe.model_dump(
            mode="json", include={"image", "patch", "alignment", "training", "loss"}
        ),
    }


class Pose(NamedTuple):
    """Spread of the pose after alignment, up to half turns; all in degrees."""

    spread: float
    """Circular standard deviation of the pose; near 0 where all images have one pose."""
    misses: float
    """Share of images more than 15° from the mean pose."""
    unturned: float
    """Share of images in which no orientation dominates, so that they are left as they are."""
    poses: tuple[float, ...]
    """Angle of each image from the mean pose, -90 to 90."""


def pose(detector: Detector, images: Floats, angles: Floats | None) -> Pose:
    """Pose of ``images`` (N, C, P, P) after the alignment of ``detector``.

    Where the ``angles`` (N,) at which they lie are not known, they are measured against the angle at which
    each image's gradient loss is least.
    """
    aligner = aligner_of(detector)
    with torch.inference_mode():
        x = torch.from_numpy(images)
        turned = aligner.angle(x)
        lain = -_steepest(aligner, x) if angles is None else torch.from_numpy(angles)
        unturned = aligner.modulation(x) < aligner.least_modulation
        if aligner.strategy not in PRETRAINED:
            unturned = torch.zeros_like(unturned)
        # Up to half turns: angles are doubled for the mean, and halved after.
        twice = 2 * (turned + lain)
        mean = torch.polar(torch.ones_like(twice), twice).mean()
        off = torch.remainder(twice - mean.angle() + math.pi, 2 * math.pi) - math.pi
        return Pose(
            spread=math.degrees(math.sqrt(-2 * math.log(min(1.0, max(float(mean.abs()), 1e-9)))) / 2),
            misses=float((off.abs() / 2 > math.radians(15)).float().mean()),
            unturned=float(unturned.float().mean()),
            poses=tuple(torch.rad2deg(off / 2).tolist()),
        )


def aligner_of(detector: Detector) -> Rotation:
    aligner = autoencoder_of(detector).alignment
    assert isinstance(aligner, Rotation)
    return aligner


def _steepest(aligner: Rotation, x: torch.Tensor) -> torch.Tensor:
    """(N,) the angle at which each image's loss is least, by trying them all."""
    angles = torch.linspace(0, math.pi, CURVE_ANGLES)[:-1]
    return angles[loss_by_angle(aligner.view(x), angles).argmin(dim=1)]
