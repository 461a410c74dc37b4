"""Reconstructions without learning, for the maps and scores that a residual gives on its own.

An anomaly map that compares an image with its reconstruction answers to edges and texture even where the reconstruction
is a grey surface. A network whose map is not above that of these baselines has shown nothing of what it learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

from blemish.data.image import read_image
from blemish.data.items import Item
from blemish.data.labels import GOOD
from blemish.data.layouts import read_labelled
from blemish.data.masks import read_masks
from blemish.decision import PixelMetrics, PixelResult, image_score, roc_auc
from blemish.errors import FileError, ImageError, Stopped
from blemish.observer import Observer
from blemish.preprocessing.absent import filled, inside_places
from blemish.preprocessing.transform import Preprocessing
from blemish.recipes.schema import ScoreSettings

if TYPE_CHECKING:
    from blemish.models.contracts import Alignment

Floats = NDArray[np.float32]
Reconstruct = Callable[[Floats], Floats]
"""Image (C, h, w) in [0, 1] to its reconstruction, of the same shape."""

BLUR = 4.0
"""Standard deviation of the blur, in pixels of the preprocessed image."""
FLAT, BLURRED, MEAN = "flat grey", f"blurred by {BLUR:g} pixels", "mean training image"
RESIDUALS = ("mse", "ssim")
WINDOW = 11
"""Side of the window of SSIM."""


class ReconstructionBaseline(BaseModel):
    """Figures of one reconstruction without learning, by one residual."""

    model_config = ConfigDict(frozen=True)

    name: str
    residual: str
    """Name of the measure."""
    image_auroc: float | None
    """None where a class is absent."""
    pixel: PixelResult


def flat(x: Floats) -> Floats:
    """The median of each channel, everywhere.

    >>> flat(np.array([[[0.1, 0.2, 0.9]]], np.float32))
    array([[[0.2, 0.2, 0.2]]], dtype=float32)
    """
    return np.broadcast_to(np.median(x, axis=(1, 2), keepdims=True), x.shape).astype(np.float32)


def blurred(x: Floats) -> Floats:
    """The image after a Gaussian blur of ``BLUR`` pixels; the border is mirrored."""
    return np.asarray(ndimage.gaussian_filter(x, (0, BLUR, BLUR), mode="reflect"), dtype=np.float32)


def mean_image(images: Iterable[Floats]) -> Floats | None:
    """Mean (C, h, w) of images, of each place over those that have it (not NaN); None where sizes differ."""
    total: NDArray[np.float64] | None = None
    for x in images:
        if total is None:
            total, count = np.zeros(x.shape), np.zeros(x.shape)
        if x.shape != total.shape:
            return None
        total += np.nan_to_num(x)
        count += ~np.isnan(x)
    return None if total is None else (total / np.maximum(count, 1)).astype(np.float32)


def aligned_mean(alignment: Alignment, images: Iterable[Floats]) -> Reconstruct:
    """The mean of ``images`` (C, P, P) in the pose that ``alignment`` gives them, turned back into each image's own."""
    import torch

    with torch.inference_mode():
        mean = mean_image(alignment(torch.from_numpy(x)[None]).image[0].numpy() for x in images)
    assert mean is not None

    def reconstruct(x: Floats) -> Floats:
        with torch.inference_mode():
            aligned = alignment(torch.from_numpy(x)[None])
            turned: Floats = alignment.restore(torch.from_numpy(mean)[None], aligned)[0].numpy()
        return turned

    return reconstruct


def residual_maps(x: Floats, y: Floats) -> dict[str, Floats]:
    """Map (h, w), at least 0, of each of ``RESIDUALS`` between an image and its reconstruction (C, h, w).

    SSIM is left out of images that are smaller than its window.
    """
    import torch

    from blemish.similarity import MSE, SSIM

    a, b = (torch.from_numpy(np.ascontiguousarray(one))[None] for one in (x, y))
    measures = {"mse": MSE(data_range=1.0)} | (
        {"ssim": SSIM(data_range=1.0)} if min(x.shape[1:]) >= WINDOW else {}
    )
    return {name: measure.distance_map(a, b)[0, 0].clamp(min=0).numpy() for name, measure in measures.items()}


def reconstruction_baselines(
    preprocessing: Preprocessing,
    train: Sequence[Item],
    dataset: str | Path,
    *,
    score: ScoreSettings,
    alignments: dict[str, Alignment] | None = None,
    good_label: str | None = None,
    observer: Observer | None = None,
) -> tuple[ReconstructionBaseline, ...]:
    """Evaluate flat grey, blur and mean training image by each residual on the test images of ``dataset``.

    Maps are of the preprocessed images, at the images' own size, as those of a detector are.

    Parameters
    ----------
    train: good images for the mean, which is left out where their preprocessed sizes differ.
    score: rule for the score of a map.
    alignments: by name, of networks that bring images into one pose, for a mean in the pose of each; left out where the
        preprocessed images are not square, as these networks need them.

    Raises
    ------
    FileError
        When ``dataset`` cannot be read or has no test images.
    Stopped
        When the observer asked to stop.
    """
    observer = observer or Observer()
    items = [item for item in read_labelled(Path(dataset), good_label).items if item.split != "train"]
    if not items:
        raise FileError(dataset, "has no labelled test images", "add test/good and test/<defect> folders")
    observer.stage(f"Evaluating reconstructions without learning on {len(items)} test images in {dataset}")
    good = [preprocessing.apply(read_image(item.path)).model_input for item in train]
    methods: dict[str, Reconstruct] = {FLAT: flat, BLURRED: blurred}
    mean = mean_image(good)
    if mean is not None:
        methods[MEAN] = lambda x: mean
    is_square = mean is not None and mean.shape[1] == mean.shape[2]
    for name, alignment in (alignments or {}).items() if is_square else ():
        methods[f"{MEAN}, aligned by {name}"] = aligned_mean(alignment.eval(), good)
    pixels: dict[tuple[str, str], PixelMetrics] = {}
    scores: dict[tuple[str, str], list[float]] = {}
    is_defective: list[bool] = []
    for done, item in enumerate(items, start=1):
        if observer.should_stop():
            raise Stopped(f"stopped after {done - 1} of {len(items)} images")
        try:
            image = read_image(item.path)
        except ImageError as problem:
            observer.problem(problem)
            continue
        placed = preprocessing.apply(image)
        inside = inside_places(placed.model_input)
        x = filled(placed.model_input, inside)
        is_good = item.label in (GOOD, None)
        mask = None if is_good else read_masks(item.masks, size=image.size)
        is_defective.append(not is_good)
        for name, reconstruct in methods.items():
            y = reconstruct(x)
            if y.shape != x.shape:
                raise ImageError(item.path, "has another size than the training images", "leave it out")
            for residual, values in residual_maps(x, y).items():
                if inside is not None:
                    values = np.where(inside, values, 0).astype(np.float32)
                key = name, residual
                pixels.setdefault(key, PixelMetrics())
                scores.setdefault(key, []).append(
                    image_score(
                        placed.judged(values), kind=score.name, quantile=score.quantile, sigma=score.sigma
                    )
                )
                if is_good or (mask is not None and mask.any()):
                    shown = np.maximum(placed.map_back(values), 0)
                    pixels[key].update(shown, mask, group=str(item.label))
        observer.count(done, len(items))
    both = len(set(is_defective)) == 2
    return tuple(
        ReconstructionBaseline(
            name=name,
            residual=residual,
            image_auroc=roc_auc(is_defective, scores[name, residual]) if both else None,
            pixel=metrics.result(),
        )
        for (name, residual), metrics in pixels.items()
    )
