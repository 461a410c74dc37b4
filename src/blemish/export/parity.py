"""Agreement of an exported model with the one in torch, on images of its kind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from blemish.data.datasets import find_images
from blemish.data.fingerprint import file_sha256
from blemish.data.image import LoadedImage, read_image
from blemish.detectors.combination import CombinedModel
from blemish.detectors.contracts import Floats
from blemish.errors import ExportError, FileError, ImageError
from blemish.inspection.detector import Detector
from blemish.inspection.document import ModelFile
from blemish.observer import Observer
from blemish.runtime.model import ExportedModel
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


def compared(torch_model: Detector, exported: Detector, source: Path | None, observer: Observer) -> Parity:
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
    file = torch_model.file
    images = None if file.subject == "scenes" else check_images(file, source)
    pairs = (
        _pairs_of_windows(torch_model, exported)
        if images is None
        else _pairs_of_images(torch_model, exported, images)
    )
    threshold = None if file.decision is None else file.decision.threshold
    count = GENERATED if images is None else len(images)
    score = anomaly_map = 0.0
    done = 0
    for pair in pairs:
        own_score, own_map = pair.differences()
        score, anomaly_map = max(score, own_score), max(anomaly_map, own_map)
        if not own_score <= SCORE_TOLERANCE or not own_map <= MAP_TOLERANCE:
            raise ExportError(
                f"{pair.name}: the exported model gives the score {pair.scores[1]:.6g} and torch {pair.scores[0]:.6g}, "
                f"maps differ by {own_map:.1e} of their largest value; nothing is written: report it, with the versions of "
                "torch and the runtime"
            )
        if pair.is_whole and threshold is not None and pair.decides_otherwise(threshold):
            raise ExportError(
                f"{pair.name}: the exported model decides otherwise than torch ({pair.scores[1]:.9g} and "
                f"{pair.scores[0]:.9g} at the threshold {threshold:.9g}); nothing is written"
            )
        if pair.is_whole:
            done += 1
            observer.count(done, count)
    return Parity(images=count, generated=source is None or images is None, score=score, map=anomaly_map)


class _Pair(NamedTuple):
    """Scores and maps of one image, by torch and by the exported model."""

    name: str
    scores: tuple[float, float]
    maps: tuple[Floats, Floats]
    is_whole: bool
    """Whether they are of the whole model, not of a member."""
    least: float = LEAST
    """Value below which differences are not read relative to the score and the map."""

    def differences(self) -> tuple[float, float]:
        """Of the score and of the map, relative; infinite where only one of them has a value."""
        first, second = self.maps
        largest = max(float(np.nanmax(np.abs(first), initial=0.0)), self.least)
        is_absent = np.isnan(first)
        if not np.array_equal(is_absent, np.isnan(second)):
            return math.inf, math.inf
        difference = float(np.abs(first - second)[~is_absent].max(initial=0.0)) / largest
        return abs(self.scores[0] - self.scores[1]) / max(abs(self.scores[0]), self.least), difference

    def decides_otherwise(self, threshold: float) -> bool:
        """True if only one of the scores is above ``threshold``, and that not by rounding.

        The threshold is the score of one of the calibration images, which is above or below it by rounding alone.
        """
        if abs(self.scores[0] - threshold) <= SCORE_TOLERANCE * abs(threshold):
            return False
        return (self.scores[0] > threshold) != (self.scores[1] > threshold)


def _pairs_of_images(first: Detector, second: Detector, images: Sequence[LoadedImage]) -> Iterator[_Pair]:
    for image in images:
        one, other = first.measure(image), second.measure(image)
        yield _Pair(str(image.path), (one.score, other.score), (one.map, other.map), True)
        x = first.file.preprocessing.apply(image).model_input
        yield from _pairs_of_members(first, second, x, str(image.path))


def _pairs_of_members(first: Detector, second: Detector, x: Floats, name: str) -> Iterator[_Pair]:
    """Maps of each member of an ensemble: of an image that is unlike all good ones, one member may hide the others.

    Below its least evidence a member has found nothing, and the ensemble takes its usual score for that value at least. A
    network gives scores far below, of which every rounding is a large part.
    """
    own = second.model.model if isinstance(second.model, ExportedModel) else second.model
    if not isinstance(first.model, CombinedModel) or not isinstance(own, CombinedModel):
        return
    for number, exported in zip(first.model.used, own.models, strict=True):
        model = first.model.models[number]
        maps = model.maps(x).anomaly, exported.maps(x).anomaly
        least = max(LEAST, getattr(model, "least_evidence", 0.0))
        scores = first.score(maps[0]), first.score(maps[1])
        yield _Pair(f"{name}, {exported.title}", scores, maps, False, least)


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
        maps = first.model.maps(x, hidden=hidden).anomaly, second.model.maps(x, hidden=hidden).anomaly
        scores = first.score(np.nan_to_num(maps[0])), first.score(np.nan_to_num(maps[1]))
        yield _Pair(f"generated window {number + 1}", scores, maps, True)
