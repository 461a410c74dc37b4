"""Figures of an evaluation: of images and pixels, or of the squares and pixels of scenes, as facts and as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from blemish.data.fingerprint import Fingerprint
from blemish.decision import (
    PixelResult,
    accepted_and_rejected,
    accuracy_at,
    average_precision,
    bootstrap_interval,
    f1_at,
    f1_max,
    roc_auc,
)
from blemish.recipes import Recipe
from blemish.storage.training_record import Training, upgrade_training_v1

IMAGE_FIGURES = ("auroc", "ap", "f1max", "f1", "accuracy", "good_accepted", "bad_rejected")


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True)


class MetricValue(_Figures):
    """A metric with its 95 % bootstrap interval; None where a class is absent."""

    value: float | None
    low: float | None
    high: float | None


class ModalityPixels(_Figures):
    """Pixel figures of the map of one modality; None where nothing is marked."""

    auroc: float | None
    ap: float | None


class ImageResult(_Figures):
    """Image-level figures of one defect type against all good images, or of all types."""

    good: int
    defective: int
    figures: dict[str, MetricValue]


class FalseRejects(_Figures):
    """Good test images rejected, beside what the guarantee allows."""

    rejected: int
    good: int
    ratio: float
    promised: float | None
    low: float | None
    high: float | None
    """95 % interval of the ratio that the guarantee allows for so many images."""
    within: bool | None


class Evaluation(_Figures):
    """Evaluation of a detector, the content of ``evaluation.json``."""

    dataset: str
    recipe: str
    threshold: float
    level: float
    guarantee: str
    image: dict[str, ImageResult]
    """Results by defect type; "all" is overall."""
    pixel: PixelResult
    unit: Literal["image", "square"] = "image"
    """What the figures of ``image`` are of: images, or scored squares of scenes."""
    modalities: dict[str, dict[str, ModalityPixels]] = Field(default_factory=dict)
    """Of scenes, by what is marked and by modality: figures of the map of the modality against its prediction from the
    others."""
    false_rejects: FalseRejects | None
    without_mask: int
    """Defective images left out of the pixel figures, because their mask is missing or empty."""
    skipped: tuple[str, ...]
    seen: int = 0
    """Test images that the model was fitted or calibrated on, known by the bytes of their files."""
    seconds: float
    milliseconds_per_image: float
    settings: Recipe
    training: Training
    images: Fingerprint
    """Fingerprint of the good images that were fitted on."""
    items_sha256: str
    """SHA-256 of the test images, with their labels and masks."""
    versions: dict[str, str]
    command: str = ""

    @field_validator("training", mode="before")
    @classmethod
    def _read_v1(cls, training: Any) -> Any:
        """Evaluations of earlier versions hold the training as format 1 of ``model.json`` does."""
        if isinstance(training, Mapping) and isinstance(training.get("machine"), str):
            return upgrade_training_v1(training)
        return training

    @property
    def warning(self) -> str:
        """What the figures are not, where the model has seen test images; empty otherwise."""
        if not self.seen:
            return ""
        count = sum(image.good + image.defective for name, image in self.image.items() if name == "all")
        return (
            f"The model was fitted or calibrated on {self.seen} of these {count} images (the same bytes): the figures "
            "are not those of images that it has never seen."
        )

    def in_words(self) -> str:
        """The main figures as a few lines for people."""
        lines = [
            *([self.warning] if self.warning else []),
            f"{'':<14}{self.unit:^34}{'pixel':^26}",
            _row("", "AUROC", "95 %", "rejected", "AUROC", "AUPRO"),
        ]
        for name, image in self.image.items():
            pixel = self.pixel if name == "all" else self.pixel.groups.get(name)
            auroc = image.figures["auroc"]
            lines.append(
                _row(
                    name,
                    number_text(auroc.value),
                    f"{number_text(auroc.low)}–{number_text(auroc.high)}",
                    number_text(image.figures["bad_rejected"].value),
                    number_text(pixel.auroc if pixel else None),
                    number_text(pixel.aupro_30 if pixel else None),
                )
            )
        if self.false_rejects:
            rejects = self.false_rejects
            line = f"Good {self.unit}s rejected: {rejects.rejected} of {rejects.good} ({100 * rejects.ratio:.1f} %)"
            if rejects.low is not None and rejects.high is not None:
                where = "inside" if rejects.within else "OUTSIDE"
                line += f", {where} the {100 * rejects.low:.1f} to {100 * rejects.high:.1f} % that the promise allows"
            elif rejects.promised is not None:
                line += f"; the calibration aims at {100 * rejects.promised:.3g} %"
            lines.append(line + ".")
        for kind, modalities in self.modalities.items():
            figures = ", ".join(
                f"{name} {number_text(one.auroc)} / {number_text(one.ap)}" for name, one in modalities.items()
            )
            lines.append(f"{kind}, not predicted by the other modalities (AUROC / AP): {figures}")
        return "\n".join(lines)


def image_results(
    labels: NDArray[np.str_], scores: NDArray[np.float64], threshold: float
) -> dict[str, ImageResult]:
    types = sorted(set(labels.tolist()) - {"good"})
    chosen = {name: (labels == "good") | (labels == name) for name in types}
    return {
        name: image_result(labels[keep] != "good", scores[keep], threshold)
        for name, keep in {"all": np.ones(len(labels), dtype=bool), **chosen}.items()
    }


def image_result(truth: NDArray[np.bool_], scores: NDArray[np.float64], threshold: float) -> ImageResult:
    metrics: dict[str, Callable[[NDArray[np.bool_], NDArray[np.float64]], float]] = {
        "auroc": roc_auc,
        "ap": average_precision,
        "f1max": lambda labels, values: f1_max(labels, values)[0],
        "f1": lambda labels, values: f1_at(labels, values, threshold),
        "accuracy": lambda labels, values: accuracy_at(labels, values, threshold),
        "good_accepted": lambda labels, values: accepted_and_rejected(labels, values, threshold)[0],
        "bad_rejected": lambda labels, values: accepted_and_rejected(labels, values, threshold)[1],
    }
    figures = {}
    for name, metric in metrics.items():
        low, high = bootstrap_interval(metric, truth, scores)
        figures[name] = MetricValue(value=finite(metric(truth, scores)), low=finite(low), high=finite(high))
    return ImageResult(good=int((~truth).sum()), defective=int(truth.sum()), figures=figures)


def pixel_figure(result: PixelResult, key: str) -> str:
    low, high = result.intervals.get(key, (None, None))
    return with_interval(MetricValue(value=getattr(result, key), low=low, high=high))


def with_interval(figure: MetricValue) -> str:
    if figure.low is None:
        return number_text(figure.value)
    return f"{number_text(figure.value)} [{number_text(figure.low)}, {number_text(figure.high)}]"


def number_text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _row(*cells: str) -> str:
    widths = (14, 8, 14, 12, 13, 13)
    first, *rest = cells
    return f"{first:<14}" + "".join(f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))


def finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
