"""Single good images as the data of a fit: whole images train, validate or calibrate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from blemish.data.appearance import LARGEST, Range, stretch, stretched
from blemish.data.fingerprint import Fingerprint, file_sha256
from blemish.data.image import DEPTH_WORDS, LoadedImage, read_image
from blemish.decision.decision import Unit
from blemish.detectors.contracts import GoodImages
from blemish.detectors.factory import least_side
from blemish.errors import RecipeError, Stopped
from blemish.inspection.calibration import score_images, unit_of_images
from blemish.inspection.detector import Detector
from blemish.inspection.document import Split
from blemish.inspection.square_scores import Scored
from blemish.observer import Observer
from blemish.preprocessing.judged_area import JudgedArea
from blemish.preprocessing.pose import Crop, find_objects, plan_crop
from blemish.preprocessing.transform import Objects, Preprocessing
from blemish.recipes import Recipe
from blemish.report.numbers import counted
from blemish.training.partition import (
    new_and_earlier,
    parts_by_sha256,
    split_continued,
    split_images,
    with_copies_in_groups,
)
from blemish.training.patches import PreprocessedImages
from blemish.training.usable_images import read_images
from blemish.training.warm_start import WarmStart

POSE_IMAGES = 64
"""Training images, at most, that are looked at to decide whether all show one object."""


class ImageSource:
    """Good images of a folder or a list, read and split (:class:`~blemish.training.sources.FitSource`).

    Parameters
    ----------
    path: of the folder, or of the CSV list.
    start: model that the fit goes on from: its images keep their parts, its preprocessing is used.
    good: the label of a list that says good, where it is none of the usual words.
    area: region of interest, the same in every image.

    Raises
    ------
    CalibrationError
        When the images are too few for the false-reject rate.
    FileError, UsageError
        When no image can be used, or the images do not suit ``start``.
    Stopped
        When the observer asked to stop.
    """

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        observer: Observer,
        start: WarmStart | None,
        good: str | None = None,
        area: JudgedArea | None = None,
    ) -> None:
        observer.stage(f"Reading the good images in {path}")
        scale = start.preprocessing.scale if start else None
        self.fingerprint, usable = read_images(path, recipe, observer, scale, good)
        sha256 = {name: file_sha256(item.path) for name, item in usable.items()}
        usable, copies = with_copies_in_groups(usable, sha256)
        self.notes: tuple[str, ...] = ()
        if copies:
            are, stay, them = (
                ("is a copy of another", "stays", "it")
                if copies == 1
                else ("are copies of others", "stay", "them")
            )
            self.notes = (
                f"{counted(copies, 'image')} of these {are}, byte by byte, and {stay} with {them}.",
            )
            observer.stage(self.notes[0])
        before: dict[str, str] = {}
        if start is None:
            parts = split_images(usable, recipe)
        else:
            start.check(path, self.fingerprint)
            usable = {name: start.in_its_group(item, sha256[name]) for name, item in usable.items()}
            before = start.seen
            known = {name: before[digest] for name, digest in sha256.items() if digest in before}
            parts = split_continued(path, usable, known, recipe)
            self.notes = (*self.notes, new_and_earlier(parts, known))
        self._note_narrow_range(recipe, observer)
        self.split: Split = {**parts}
        self.seen = parts_by_sha256(parts, sha256, before)
        now = {sha256[name]: item.group for name, item in usable.items() if item.group is not None}
        self.groups = {**(start.groups if start else {}), **now}
        self._parts = {part: [usable[name] for name in names] for part, names in parts.items()}
        self.preprocessing = start.preprocessing if start else self._choose_preprocessing(recipe, observer)
        if area is not None:
            area.check_orientation(self.fingerprint)
            own = self.preprocessing.area
            self.preprocessing = self.preprocessing.model_copy(update={"area": area.within(own).for_a_fit()})
            self._check_classes()
        self._patches: dict[str, PreprocessedImages] = {}
        for part in ("train", "validation"):
            if self.patches(part).on_disk:
                self._preprocess_all(part, observer)

    def _check_classes(self) -> None:
        """Refuse classes of regions that are too small in the median image."""
        area = self.preprocessing.area
        if area is None or not area.classes:
            return
        own = round(self.fingerprint.height.median), round(self.fingerprint.width.median)
        scale = self.preprocessing.scale_of(*own)
        area.check_classes((max(1, round(own[0] * scale)), max(1, round(own[1] * scale))), own)

    def _note_narrow_range(self, recipe: Recipe, observer: Observer) -> None:
        """Say how little of the range of their type the images use, if that is so."""
        factor = stretch(self.fingerprint.appearance)
        if factor == 1 or recipe.image.range is not None:
            return
        depth = DEPTH_WORDS[self.fingerprint.kind]
        largest = self.fingerprint.appearance[LARGEST].high
        advice = ""
        if self.fingerprint.kind == "uint16":
            bits = math.ceil(math.log2(1 + largest * 65535))
            advice = f"; if they are of {bits} bits, fit with --set image.range={2**bits - 1}"
        note = f"The images use {100 * largest:.2g} % of the range of {depth} values, and are shown brighter{advice}."
        self.notes = (*self.notes, note)
        observer.stage(note)

    def _preprocess_all(self, part: str, observer: Observer) -> None:
        """Fill the disk cache once, before the clock of a budget runs: training and memory bank read it many times."""
        count = len(self._parts[part])
        observer.stage(
            f"Preparing {count} images of {part}; more than fit in memory, so a temporary file keeps them"
        )
        for done in self.patches(part).preprocess_all():
            observer.count(done, count)
            if observer.should_stop():
                raise Stopped(f"stopped after preparing {done} of {count} images, before training")

    def _choose_preprocessing(self, recipe: Recipe, observer: Observer) -> Preprocessing:
        """Channels, scale and crop, by the recipe and, for the pose, by the training images."""
        image = recipe.image
        preprocessing = _scaling(recipe, self.fingerprint)
        if image.pose == "never":
            return preprocessing
        sample = self._parts["train"][:: math.ceil(len(self._parts["train"]) / POSE_IMAGES)]
        poses, scales = [], []
        for done, item in enumerate(sample, start=1):
            if observer.should_stop():
                raise Stopped(f"stopped after looking at {done - 1} of {len(sample)} images, before training")
            loaded = read_image(item.path)
            if image.range is not None:
                loaded = LoadedImage(loaded.path, stretched(loaded.pixels, 65535 / image.range))
            poses.append(find_objects(loaded.floats().mean(0)))
            scales.append(preprocessing.scale_of(loaded.height, loaded.width))
            observer.count(done, len(sample))
        crop, reason = plan_crop(poses, scales, least=least_side(recipe))
        if crop is not None and crop.count > 1 and preprocessing.scale and image.size:
            factor = finer(crop, preprocessing.scale, image.size)
            preprocessing = preprocessing.model_copy(update={"scale": factor * preprocessing.scale})
            scales = [factor * scale for scale in scales]
            crop, reason = plan_crop(poses, scales, least=least_side(recipe))
        each = "" if crop is None or crop.count == 1 else "each "
        note = (
            f"Looking at {reason}"
            + (
                f", {each}in {crop.width} × {crop.height} pixels at a scale of {statistics.median(scales):.3g}"
                if crop
                else ""
            )
            + "."
        )
        observer.stage(note)
        self.notes = (*self.notes, note)
        if crop is None:
            return preprocessing
        counting = [(found[: crop.count], scale) for found, scale in zip(poses, scales, strict=True) if found]
        lengths = [one.length * scale for found, scale in counting for one in found]
        numbers = [len(found) for found in poses if found]
        objects = Objects(
            length=Range(low=min(lengths), high=max(lengths)), least=min(numbers), most=max(numbers)
        )
        return preprocessing.model_copy(update={"crop": crop, "objects": objects})

    def announce(self) -> str:
        return (
            f"{len(self._parts['train'])} images, "
            f"{len(self._parts['validation'])} held out for early stopping, "
            f"{len(self._parts['calibration'])} for the decision"
        )

    def describe(self, part: str) -> str:
        which = {"calibration": "held-out good", "validation": "validation", "train": "training"}[part]
        return f"{len(self._parts[part])} {which} images"

    def patches(self, part: str) -> PreprocessedImages:
        if part not in self._patches:  # once, because it keeps the images in memory
            self._patches[part] = PreprocessedImages(self._parts[part], self.preprocessing)
        return self._patches[part]

    def whole(self, part: str) -> GoodImages:
        groups = [item.group_key for item in self._parts[part]]
        crop = self.preprocessing.crop
        return GoodImages(self.patches(part), groups, is_posed=crop is not None and crop.turned)

    def scores(self, detector: Detector, part: str, observer: Observer) -> Scored:
        return score_images(detector, self._parts[part], observer)

    def unit(self, numbers: Sequence[int]) -> Unit:
        return unit_of_images([self._parts["calibration"][number] for number in numbers])


def finer(crop: Crop, scale: float, size: int) -> float:
    """Factor, at least 1, by which ``scale`` can be finer for the crops together to have as many pixels as a square of ``size``.

    Objects beside much ground would be small at the scale of whole images. No image is enlarged.

    >>> finer(Crop(height=16, width=64, count=4), 0.2, 256), finer(Crop(height=16, width=64, count=4), 0.5, 256)
    (4.0, 2.0)
    """
    height, width = crop.shape
    return max(1.0, min(size / math.sqrt(height * width), 1 / scale))


def _scaling(recipe: Recipe, data: Fingerprint) -> Preprocessing:
    """Preprocessing without pose: each image at its own scale, or all at the one of the median image."""
    image = recipe.image
    if image.range is not None and data.kind != "uint16":
        raise RecipeError(
            f"image.range {image.range} is for images of 16 bits, and these are {DEPTH_WORDS[data.kind]}; leave it out"
        )
    common = image.size is not None and image.scale == "common"
    return Preprocessing(
        channels=data.channels,
        convert=image.channels is not None,
        kind=data.kind,
        range=image.range,
        size=None if common else image.size,
        scale=image.size / min(data.width.median, data.height.median) if common and image.size else None,
    )
