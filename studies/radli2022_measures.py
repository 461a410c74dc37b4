"""Measurements of Rádli & Czúni 2022: reconstruction, areas under curves, spread of the pose."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from blemish.data.datasets import find_images
from blemish.data.image import read_image, resize
from blemish.data.items import Item
from blemish.data.layouts import read_labelled
from blemish.data.masks import read_masks
from blemish.decision import PixelMetrics
from blemish.errors import FileError
from blemish.evaluation.reconstruction_baselines import BLURRED, FLAT, aligned_mean, blurred, flat
from blemish.inspection.detector import Detector
from blemish.layers.affine import AffineRange, affine_cut
from blemish.layers.rotation import loss_by_angle
from blemish.models.alignment import LocalisationNetwork, Rotation
from blemish.preprocessing.tiling import TilePlan
from blemish.preprocessing.transform import Preprocessing
from blemish.similarity import MSE, SSIM
from studies.protocol import autoencoder_of, held_out
from studies.radli2022_cloth import Floats, Masks
from studies.radli2022_columns import CURVES, PRETRAINED

CURVE_ANGLES = 181
BATCH = 16
MEAN_PATCH, MEAN_ALIGNED = "mean training patch", "mean training patch, aligned"


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

    @property
    def has_defect(self) -> NDArray[np.bool_]:
        """(B,) whether a bad patch holds a pixel of a defect."""
        return np.asarray(self.masks.any(axis=(1, 2)))

    def facts(self) -> dict[str, Any]:
        """Numbers of patches and share of defect pixels, as the results keep them."""
        return {
            "good": len(self.good),
            "bad": len(self.bad),
            "side": int(self.good.shape[-1]),
            "empty": int((~self.has_defect).sum()),
            "defect_share": float(self.masks.mean()),
        }


def bad_items(data: Path, defect: str | None) -> list[Item]:
    """The bad test images of ``data`` with masks, of the type ``defect`` alone if one is given.

    Raises
    ------
    FileError
        When there is none.
    """
    found = [
        item
        for item in read_labelled(data).items
        if item.split != "train" and not item.is_good and item.masks and defect in (None, item.label)
    ]
    if not found:
        which = (
            "no bad test images with masks" if defect is None else f"no test images of '{defect}' with masks"
        )
        raise FileError(data, f"has {which}", "give a data set with some")
    return found


class Patches(NamedTuple):
    """Way from the images of a data set to patches."""

    preprocessing: Preprocessing
    side: int
    transforms: AffineRange
    """All 0 for patches as they lie, side by side."""

    def of(self, items: Sequence[Item]) -> tuple[Floats, Masks]:
        """Patches (N, C, P, P) and masks (N, P, P) of ``items``, transformed at random, but always in the same way.

        Windows that hold every transform lie side by side, or overlap where the image ends; the patch is cut from the
        middle of the transformed window, and its mask with it.
        """
        patches: list[Tensor] = []
        masks: list[Tensor] = []
        window = self.transforms.side(self.side)
        for number, item in enumerate(items):
            image = read_image(item.path)
            x = self.preprocessing.apply(image).pixels
            mask = np.zeros((1, *x.shape[1:]), np.float32)
            marked = None if item.is_good else read_masks(item.masks, size=image.size)
            if marked is not None:
                mask = marked[None].astype(np.float32)
                mask = resize(mask, x.shape[1:]) if mask.shape[1:] != x.shape[1:] else mask
            plan = TilePlan(x.shape[1:], (window, window), (self.side, self.side))
            both = np.concatenate([x, mask])
            for _, windows in plan.tiles(both, batch=len(plan)):
                cut = torch.from_numpy(np.ascontiguousarray(windows))
                if any(self.transforms):
                    generator = torch.Generator().manual_seed(number)
                    cut = affine_cut(cut, self.transforms.draw(len(cut), self.side, generator), self.side)
                patches.append(cut[:, :-1])
                masks.append(cut[:, -1] > 0.5)
        return torch.cat(patches).contiguous().numpy(), torch.cat(masks).numpy()


def held_out_items(detector: Detector, good: Path) -> list[Item]:
    """Good images that ``detector`` was calibrated on, which no training has seen."""
    by_name = {item.name: item for item in find_images(good)}
    return [by_name[name] for name in detector.file.names("calibration")]


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
    training = detector.file.training
    return {
        **measure_reconstructions(tests, partial(reconstruct, detector)),
        "pose": pose(detector, tests.good, tests.angles)._asdict(),
        "steps": training.steps,
        "best_step": training.best_step,
        "held_out": held_out(training.history),
        "training_seconds": training.seconds,
        "machine": training.machine_words,
        "settings": detector.recipe.model_dump(
            mode="json", include={"image", "patch", "augmentation", "alignment", "training", "loss"}
        ),
    }


def measure_reconstructions(tests: Tests, reconstruct: Callable[[Floats], Floats]) -> dict[str, Any]:
    """Reconstruction of good patches, and areas of the residuals of bad ones in both readings of "bad"."""
    good = reconstruct(tests.good)
    similarity = 1 - SSIM(data_range=1.0).distance(torch.from_numpy(tests.good), torch.from_numpy(good))
    maps = residuals(tests.bad, reconstruct(tests.bad))
    everything = np.ones(len(tests.bad), bool)
    return {
        "mse": float(np.mean((255 * (tests.good - good)) ** 2)),
        "ssim": float(similarity.mean()),
        "areas": {name: _areas(values, tests.masks, everything) for name, values in maps.items()},
        "areas_defective": {
            name: _areas(values, tests.masks, tests.has_defect) for name, values in maps.items()
        },
    }


def _areas(maps: Floats, masks: Masks, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """Areas under the curves of the pixels of the ``chosen`` patches."""
    metrics = PixelMetrics()
    for values, mask in zip(maps[chosen], masks[chosen], strict=True):
        metrics.update(values, mask)
    result = metrics.result()
    return {key: getattr(result, key) for key in CURVES} | {
        "intervals": {key: result.intervals.get(key) for key in CURVES}
    }


# -- without a network ---------------------------------------------------------------------------------


def measure_baselines(tests: Tests, training: Floats) -> list[dict[str, Any]]:
    """Figures of flat grey, blur, and the mean of the ``training`` patches (N, C, P, P), as they lie and aligned.

    Aligned is each patch by the angle at which its own gradient loss is least, which the paper's transformer is trained
    to find, and by its brighter half.
    """
    mean = training.mean(axis=0)
    aligned = aligned_mean(SteepestRotation(training.shape[1], training.shape[-1]), training)
    ways: dict[str, Callable[[Floats], Floats]] = {
        FLAT: flat,
        BLURRED: blurred,
        MEAN_PATCH: lambda x: mean,
        MEAN_ALIGNED: aligned,
    }
    return [
        {"name": name, **measure_reconstructions(tests, partial(_one_by_one, way))}
        for name, way in ways.items()
    ]


def _one_by_one(way: Callable[[Floats], Floats], images: Floats) -> Floats:
    return np.stack([way(x) for x in images])


class SteepestRotation(Rotation):
    """Alignment by the angle of least gradient loss of each image, found by trying all, without any training."""

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__(channels=channels, patch=patch, strategy="frozen", pretraining=1)
        self.localisation = cast("LocalisationNetwork", _LeastLoss())
        self.eval()


class _LeastLoss(nn.Module):
    def forward(self, view: Tensor) -> Tensor:
        return _least_angle(view)


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
    return _least_angle(aligner.view(x))


def _least_angle(view: torch.Tensor) -> torch.Tensor:
    angles = torch.linspace(0, math.pi, CURVE_ANGLES)[:-1]
    return angles[loss_by_angle(view, angles).argmin(dim=1)]
