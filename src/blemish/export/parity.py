"""Agreement of an exported model with the one in torch, on images of its kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from blemish.data.datasets import find_images
from blemish.data.fingerprint import file_sha256
from blemish.data.image import LoadedImage, read_image
from blemish.detectors.contracts import Floats
from blemish.errors import ExportError, FileError, ImageError
from blemish.inspection.detector import Detector
from blemish.inspection.document import ModelFile
from blemish.observer import Observer
from blemish.runtime.record import Parity

IMAGES = 16
"""Images that an export is checked on, at most."""
GENERATED = 4
SCORE_TOLERANCE = 1e-4
"""Largest relative difference of a score."""
MAP_TOLERANCE = 1e-3
"""Largest difference of an anomaly map, relative to its largest value."""
LEAST = 1e-3
"""Score and largest map value below which differences are not read relative to them: there is nothing to see."""


def check_images(file: ModelFile, source: Path | None) -> Sequence[LoadedImage]:
    """Images to check an export on: those of the calibration in ``source``, or other ones there, or generated ones.

    Raises
    ------
    FileError
        When ``source`` holds no image that the model takes.
    """
    if source is None:
        return list(generated_images(file))
    items = find_images(source)
    calibrating = [item for item in items if file.seen.get(file_sha256(item.path)) == "calibration"]
    found = []
    for item in calibrating or items:
        try:
            image = read_image(item.path)
            file.preprocessing.apply(image)
        except ImageError:
            continue  # of an image that the model does not take nothing can be compared
        found.append(image)
        if len(found) == IMAGES:
            break
    if not found:
        raise FileError(source, "holds no image that the model takes", "give images that it was fitted on")
    return found


def generated_images(file: ModelFile) -> Iterator[LoadedImage]:
    """Smooth noise of the sizes, the channels and the depth that the model was fitted on."""
    rng = np.random.default_rng(0)
    own = file.fingerprint
    for number in range(GENERATED):
        # A size that differs from the median one a little, where sizes did.
        height, width = (
            round(spread.median) if number % 2 == 0 else spread.max for spread in (own.height, own.width)
        )
        noise = rng.random((own.channels, height, width), np.float32)
        smooth = ndimage.gaussian_filter(noise, (0, 3, 3)) + 0.2 * noise
        smooth = (smooth - smooth.min()) / max(float(np.ptp(smooth)), 1e-6)
        values = np.float32(0.1) + np.float32(0.8) * smooth
        top = {"uint8": 255, "uint16": file.preprocessing.range or 65535}.get(own.kind)
        pixels = values if top is None else np.round(values * top).astype(own.kind)
        yield LoadedImage(Path(f"generated image {number + 1}"), pixels)


def compared(
    torch_model: Detector, exported: Detector, source: Path | None, observer: Observer | None = None
) -> Parity:
    """Largest differences of ``exported`` from ``torch_model``.

    Parameters
    ----------
    source: images to compare on; None generates some. Of scenes, windows are generated.

    Raises
    ------
    ExportError
        When a score or a map differs by more than the tolerance, or a decision differs.
    FileError
        When ``source`` holds no image that the model takes.
    """
    observer = observer or Observer()
    file = torch_model.file
    is_generated = source is None or file.subject == "scenes"
    pairs = (
        _pairs_of_windows(torch_model, exported)
        if file.subject == "scenes"
        else _pairs_of_images(torch_model, exported, check_images(file, source))
    )
    score = anomaly_map = 0.0
    count = 0
    threshold = None if file.decision is None else file.decision.threshold
    for name, (first, first_map), (second, second_map) in pairs:
        count += 1
        own_score = abs(first - second) / max(abs(first), LEAST)
        own_map = float(np.nanmax(np.abs(first_map - second_map), initial=0.0))
        own_map /= max(float(np.nanmax(np.abs(first_map), initial=0.0)), LEAST)
        if np.isnan(first_map).tobytes() != np.isnan(second_map).tobytes():
            raise ExportError(f"{name}: the exported model has no value elsewhere than the one in torch")
        score, anomaly_map = max(score, own_score), max(anomaly_map, own_map)
        if not own_score <= SCORE_TOLERANCE or not own_map <= MAP_TOLERANCE:
            raise ExportError(
                f"{name}: the exported model gives the score {second:.6g} and torch {first:.6g}, maps differ by "
                f"{own_map:.1e} of their largest value; nothing is written: report it, with the versions of torch and "
                "the runtime"
            )
        # The threshold is the score of one of the calibration images, which is above or below it by rounding alone.
        if threshold is None or abs(first - threshold) <= SCORE_TOLERANCE * abs(threshold):
            continue
        if (first > threshold) != (second > threshold):
            raise ExportError(
                f"{name}: the exported model decides otherwise than torch ({second:.9g} and {first:.9g} at "
                f"the threshold {threshold:.9g}); nothing is written"
            )
    return Parity(images=count, generated=is_generated, score=score, map=anomaly_map)


_Pair = tuple[str, tuple[float, Floats], tuple[float, Floats]]


def _pairs_of_images(first: Detector, second: Detector, images: Sequence[LoadedImage]) -> Iterator[_Pair]:
    for image in images:
        one, other = first.measure(image), second.measure(image)
        yield str(image.path), (one.score, one.map), (other.score, other.map)


def _pairs_of_windows(first: Detector, second: Detector) -> Iterator[_Pair]:
    """Windows of scenes, with absent regions where the model takes them, and once without a modality."""
    rng = np.random.default_rng(0)
    preprocessing = first.file.preprocessing
    side = 2 * first.recipe.patch.size
    for number in range(GENERATED):
        x = rng.random((preprocessing.channels, side, side + 3), np.float32)
        x = ndimage.gaussian_filter(x, (0, 2, 2))
        hidden: tuple[slice, ...] = ()
        if first.model.takes_absent and number:
            x[0, : side // 3, : side // 4] = np.nan
            if number > 1:
                last = preprocessing.modalities[-1].channels
                hidden = (slice(preprocessing.channels - last, preprocessing.channels),)
        maps = [one.model.maps(x, hidden=hidden).anomaly for one in (first, second)]
        scores = [first.score(np.nan_to_num(one)) for one in maps]
        yield f"generated window {number + 1}", (scores[0], maps[0]), (scores[1], maps[1])
