"""The one object that inspects, decides, saves and loads; :mod:`blemish.training.fit` makes it."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from blemish._version import __version__
from blemish.data.fingerprint import Fingerprint
from blemish.data.image import LoadedImage, read_image
from blemish.decision import (
    Guarantee,
    Inspection,
    Region,
    conformal_threshold,
    find_regions,
    image_score,
    needed,
    p_values,
    region_mask,
    train_mean_threshold,
)
from blemish.detectors.ensemble import Ensemble, for_inspection
from blemish.detectors.factory import build_model, networks
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.errors import ImageError, UsageError
from blemish.models import Autoencoder
from blemish.preprocessing.transform import Preprocessing
from blemish.recipes import Recipe
from blemish.storage.model_folder import DETECTOR, Document, load_weights, read_document, write_model
from blemish.storage.model_folder import MODEL_FILE as MODEL_FILE
from blemish.storage.training_record import EnsembleCandidate as EnsembleCandidate
from blemish.storage.training_record import Training as Training

FORMAT = DETECTOR.format
SHEET_FILE = "blemishes.png"
"""In a model folder: what the network was trained to find, where that was synthetic blemishes."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Calibration(_Record):
    """What the decision rests on: good images that neither training nor model selection saw."""

    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    """Maximum of each calibration image's map, at the image's own size."""
    training_scores: tuple[float, ...] = ()
    """Only for the rule ``train-mean``."""
    left_out: dict[str, float] = Field(default_factory=dict)
    """Held-out images that were taken for blemished (``threshold.trim``), with their scores."""
    square: int | None = None
    """Of a model that was fitted on scenes: each score is of a square with sides of so many pixels."""
    groups: int | None = None
    """How many groups the images are of, where several are of one."""


class Ancestor(_Record):
    """A model that another one goes on from."""

    weights_sha256: str
    steps: int
    images: int
    """That it was trained on."""


class ModelFile(Document):
    """``model.json`` of a detector."""

    kind: Literal["detector"] = "detector"
    recipe: Recipe
    preparation: Preprocessing
    calibration: Calibration
    fingerprint: Fingerprint
    split: dict[str, tuple[str, ...]]
    training: Training
    seen: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of every image file that this model or one before it was fitted on, and its part for good."""
    groups: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of those of them that a list gave a group, and that group."""
    lineage: tuple[Ancestor, ...] = ()
    """The models that this one goes on from, the first one first; ``recipe`` tells the length of its training."""


class ScoredImage(NamedTuple):
    """What :meth:`Detector.measure` gives; arrays at the image's own size."""

    score: float
    map: NDArray[np.float32]
    """(H, W), at least 0."""
    reconstruction: NDArray[np.float32] | None
    """(C, H, W) in [0, 1]; None of a model that reconstructs nothing."""


@dataclass(frozen=True)
class Detection:
    """What :meth:`Detector.inspect` finds in one image; arrays at the image's own size."""

    name: str
    size: tuple[int, int]
    """(width, height)."""
    score: float
    threshold: float
    p_value: float
    is_anomalous: bool
    map: NDArray[np.float32]
    """(H, W), at least 0; larger is less like what was learned."""
    level: float
    """Map value above which a pixel belongs to a region."""
    regions: tuple[Region, ...]
    image: NDArray[np.float32]
    """(C, H, W) as read, in [0, 1]."""
    reconstruction: NDArray[np.float32] | None
    """(C, H, W); None of a model that reconstructs nothing."""
    seconds: float

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W), True inside the regions."""
        return region_mask(self.map, self.level)

    def record(self, label: str | None = None) -> Inspection:
        """The line that ``inspections.jsonl`` keeps of this image."""
        return Inspection(
            path=self.name,
            size=self.size,
            score=self.score,
            threshold=self.threshold,
            p_value=self.p_value,
            is_anomalous=self.is_anomalous,
            regions=self.regions,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=self.seconds,
            label=label,
        )


class Detector:
    """A fitted detector: made by :func:`blemish.fit` or :func:`load`, then immutable but for the weights' device.

    Changing the threshold gives a new detector that shares the network:
    :meth:`with_false_reject_rate`, :meth:`with_threshold`.
    """

    def __init__(
        self, model: ReconstructionModel | Ensemble, file: ModelFile, *, device: str = "cpu"
    ) -> None:
        self.model = for_inspection(model, device)
        self.file = file
        self.recipe = file.recipe
        self._device = device
        self.rule = file.recipe.threshold

    @property
    def measure_name(self) -> str:
        """What the map measures, as a report writes it."""
        return self.model.title

    @property
    def autoencoder(self) -> Autoencoder:
        """The network of a model that has one."""
        return next(iter(networks(self.model).values()))

    # -- the decision ------------------------------------------------------------------------------

    @property
    def threshold(self) -> float:
        """Scores above it are rejected."""
        rule = self.rule
        if rule.rule == "fixed":
            assert rule.value is not None
            return rule.value
        if rule.rule == "train-mean":
            return train_mean_threshold(np.array(self.file.calibration.training_scores))
        return conformal_threshold(np.array(self.file.calibration.scores), rule.false_reject_rate)

    @property
    def level(self) -> float:
        """Map values above it form regions: at most the stated share of good images shows any.

        With too few calibration images for that promise, it is the highest value seen in one.
        """
        peaks = np.array(self.file.calibration.peaks)
        if len(peaks) < needed(self.rule.false_reject_rate):
            return float(peaks.max())
        return conformal_threshold(peaks, self.rule.false_reject_rate)

    @property
    def guarantee(self) -> str:
        """What the threshold promises, in words."""
        count = len(self.file.calibration.scores)
        if self.rule.rule == "fixed":
            return f"The threshold {self.threshold:.6g} was set by hand; it carries no promise."
        if self.rule.rule == "train-mean":
            return (
                "The threshold is the mean score of the training images (Kumar et al. 2025); "
                "it carries no promise on how many good images are rejected."
            )
        left_out = len(self.file.calibration.left_out)
        promise = Guarantee(n=count, false_reject_rate=self.rule.false_reject_rate, left_out=left_out)
        square, groups = self.file.calibration.square, self.file.calibration.groups
        if square is None and groups is None:
            return promise.in_words()
        what, each, whole = (
            (f"squares of {square} × {square} pixels", "Squares", "scene")
            if square
            else (f"images of {groups} groups", "Images", "group")
        )
        return (
            f"The threshold is number {promise.rank} of the scores of {count} held-out {what}, ordered by rising "
            f"score. Were {each.lower()} independent of each other, a new good one would be rejected with a chance "
            f"of at most {100 * promise.bound:.3g} %. {each} of one {whole} resemble each other, so this is a guide "
            f"for other {whole}s, and no promise."
        )

    def with_false_reject_rate(self, rate: float) -> Detector:
        """The same detector at another promised false-reject rate, without retraining.

        Raises
        ------
        CalibrationError
            When the calibration images are too few to carry it.
        """
        check_rate(rate)
        return self._with({"rule": "conformal", "false_reject_rate": rate})

    def with_threshold(self, value: float) -> Detector:
        """The same detector with a threshold of your own.

        Raises
        ------
        UsageError
            When ``value`` is not finite.
        """
        if not math.isfinite(value):
            raise UsageError(f"--threshold {value}: choose a finite number, such as {self.threshold:.6g}")
        return self._with({"rule": "fixed", "value": value})

    def _with(self, changes: dict[str, Any]) -> Detector:
        other = Detector(self.model, self.file, device=self._device)
        other.rule = self.rule.model_copy(update=changes)
        _ = other.threshold
        return other

    # -- inspection --------------------------------------------------------------------------------

    def inspect(
        self, source: str | Path | LoadedImage | NDArray[Any], *, name: str | None = None
    ) -> Detection:
        """Score one image and show what is wrong in it.

        Parameters
        ----------
        source: a file, a :class:`~blemish.images.LoadedImage`, or an array (C, H, W) or (H, W) of the depth
            that the model was fitted on.

        Raises
        ------
        ImageError
            When the image cannot be read or is not of the kind that the model was fitted on.
        """
        begun = time.perf_counter()
        if isinstance(source, np.ndarray):
            source = _from_array(source, Path(name or "array"))
        image = source if isinstance(source, LoadedImage) else read_image(Path(source))
        measured = self.measure(image)
        level, threshold = self.level, self.threshold
        calibration = np.array(self.file.calibration.scores)
        return Detection(
            name=name or str(image.path),
            size=image.size,
            score=measured.score,
            threshold=threshold,
            p_value=float(p_values(calibration, measured.score)),
            is_anomalous=measured.score > threshold,
            map=measured.map,
            level=level,
            regions=find_regions(measured.map, level),
            image=image.floats(),
            reconstruction=measured.reconstruction,
            seconds=time.perf_counter() - begun,
        )

    def measure(self, image: LoadedImage) -> ScoredImage:
        """Score, map and reconstruction, before any decision; calibration and inspection both use it.

        Raises
        ------
        ImageError
            When the image is not of the kind that the model was fitted on, or too large for the memory.
        UsageError
            When the model was fitted on scenes.
        """
        if self.file.preparation.modalities:
            names = ", ".join(modality.name for modality in self.file.preparation.modalities)
            raise UsageError(
                f"{image.path}: is one image, and the model was fitted on scenes of {names}; "
                "inspect scenes with blemish.inspection.scenes.inspect_scenes"
            )
        rule = self.recipe.score
        try:
            placed = self.file.preparation.apply(image)
            raw_map, reconstruction = self.examine(placed.pixels)
            return ScoredImage(
                score=image_score(raw_map, kind=rule.name, quantile=rule.quantile, sigma=rule.sigma),
                map=np.maximum(placed.map_back(raw_map), 0),
                reconstruction=(
                    None if reconstruction is None else np.clip(placed.image_back(reconstruction), 0, 1)
                ),
            )
        except UsageError as error:
            raise ImageError(
                image.path, str(error), "inspect larger images, or fit with a smaller --set patch.size"
            ) from None
        except MemoryError:
            raise ImageError(image.path, "does not fit into memory", "cut it into smaller images") from None

    def examine(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Anomaly map (h, w) and reconstruction (C, h, w), if the model has one, of a preprocessed image (C, h, w).

        Raises
        ------
        UsageError
            When the image is too small for the model, or has absent values (NaN) that it cannot take.
        """
        maps = self.model.maps(x)
        return maps.anomaly, maps.reconstruction

    # -- on disk -----------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write ``model.safetensors``, ``model.json`` and ``card.md``; the JSON last, so that it vouches."""
        recipe = self.recipe.model_copy(update={"threshold": self.rule})
        file = self.file.model_copy(update={"recipe": recipe})
        has_sheet = (Path(folder) / SHEET_FILE).is_file()
        return write_model(folder, file, self.model, self.card(has_sheet=has_sheet))

    def card(self, *, has_sheet: bool = False) -> str:
        """The model in a page of Markdown, for people; ``has_sheet`` where ``blemishes.png`` lies beside it."""
        file, recipe = self.file, self.recipe
        data = file.fingerprint
        split = _split_in_words(file)
        curve = "\n".join(
            f"| {look.step} | {look.training:.5f} | {look.validation:.5f} |"
            for look in file.training.history
        )
        return (
            f"# {recipe.title}\n\n"
            f"Recipe `{recipe.name}`, {recipe.paper}. Fitted by Blemish {file.blemish}.\n\n"
            f"{recipe.expect}\n\n"
            f"## The decision\n\n{self.guarantee}\n\n"
            f"Threshold on the score ({recipe.score.name} of the map): {self.threshold:.6g}. "
            f"Level of regions on the map: {self.level:.6g}.\n\n"
            f"## The images\n\n{_described(data, file.preparation)}\n\nSplit: {split}\n\n"
            f"## Training\n\nBest of {file.training.steps} steps at step {file.training.best_step}, "
            f"{file.training.seconds:.0f} s on {file.training.machine_words}"
            + (f", in a budget of {file.training.budget:.0f} s" if file.training.budget else "")
            + ".\n\n"
            + "".join(
                f"Before that: {one.steps} steps on {one.images} images, weights `{one.weights_sha256[:12]}`.\n\n"
                for one in reversed(file.lineage)
            )
            + "".join(f"{note}\n\n" for note in file.training.notes)
            + (
                f"![Good training patches, the same with synthetic blemishes, and what was to be found]({SHEET_FILE})"
                "\n\nTrained to find synthetic blemishes: above good patches, below them the same ones spoiled, at the "
                "bottom what was to be found.\n\n"
                if has_sheet
                else ""
            )
            + f"| step | training loss | held-out loss |\n|---:|---:|---:|\n{curve}\n"
        )


def check_rate(rate: float) -> None:
    """Raise a UsageError for a false-reject rate that no threshold can promise."""
    if not 0 < rate < 1:
        raise UsageError(f"--false-reject-rate {rate:g}: choose a number between 0 and 1, such as 0.05")


def _described(data: Fingerprint, preparation: Preprocessing) -> str:
    plural = "s" if data.channels != 1 else ""
    sizes = (
        f"widths {data.width.min} to {data.width.max}, heights {data.height.min} to {data.height.max} pixels"
    )
    if not preparation.modalities:
        return (
            f"{data.count} images, {data.channels} channel{plural}, {data.kind}, {sizes}; "
            f"SHA-256 {data.sha256}."
        )
    sensors = "\n".join(
        f"| {modality.name} | {modality.channels} | {'yes' if modality.is_grey else 'no'} |"
        for modality in preparation.modalities
    )
    return (
        f"{data.count} scenes, {data.channels} channel{plural}, {sizes}; SHA-256 {data.sha256}.\n\n"
        f"| modality | channels | grey for SSIM |\n|---|---:|---|\n{sensors}"
    )


def _split_in_words(file: ModelFile) -> str:
    square = file.calibration.square
    if square is None:
        return ", ".join(f"{len(names)} for {part}" for part, names in file.split.items()) + "."
    rows = "\n".join(
        f"| {places[0].rpartition(', ')[0]} | "
        + " | ".join(place.rpartition(", ")[2].removeprefix("columns ") for place in places)
        + " |"
        for places in zip(*file.split.values(), strict=True)
    )
    return (
        "the columns of each scene, from left to right; the decision is calibrated on "
        f"{len(file.calibration.scores)} squares of {square} × {square} pixels.\n\n"
        f"| scene | {' | '.join(file.split)} |\n|---|{'---|' * len(file.split)}\n{rows}\n"
    )


def _from_array(array: NDArray[Any], name: Path) -> LoadedImage:
    pixels = array[None] if array.ndim == 2 else array  # (H, W) -> (1, H, W)
    if pixels.ndim != 3:
        raise ImageError(name, f"is an array of shape {array.shape}", "give (C, H, W) or (H, W)")
    if np.issubdtype(pixels.dtype, np.floating):
        pixels = pixels.astype(np.float32)
        if not ((pixels >= 0) & (pixels <= 1)).all():
            raise ImageError(name, "holds values outside 0..1, or NaN", "scale it to 0..1")
    elif pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(name, f"is an array of {pixels.dtype}", "give uint8, uint16 or floats in 0..1")
    return LoadedImage(name, pixels)


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"blemish": __version__}
    for package in ("numpy", "scipy", "pillow", "torch", "lightning"):
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


# -- loading -------------------------------------------------------------------------------------------


def load(folder: str | Path, *, device: str = "cpu") -> Detector:
    """The detector that :meth:`Detector.save` wrote into ``folder``.

    Raises
    ------
    ModelError
        When the folder is no model, incomplete, edited, damaged, or from a newer version of Blemish.
    """
    folder = Path(folder)
    file = read_document(folder, DETECTOR, ModelFile)
    preparation = file.preparation
    model = load_weights(
        folder,
        file,
        lambda: build_model(file.recipe, preparation.channels, preparation.modalities, pretrained=False),
    )
    return Detector(model, file, device=device)
