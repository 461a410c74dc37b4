"""The detector: preprocessing, anomaly model and decision as one object; :mod:`blemish.training.fit` makes it."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from blemish.data.appearance import SIZES, appearance, differences, stretch, without
from blemish.data.frames import from_memory
from blemish.data.image import LoadedImage, read_image
from blemish.decision import Decision, find_regions, image_score, region_threshold
from blemish.decision.classes import (
    class_scores,
    class_threshold,
    rejecting_peak,
    with_classes,
)
from blemish.detectors.contracts import AnomalyModel, TrainableModel
from blemish.detectors.scoring import ArrayReader, score_blocks, whole
from blemish.errors import (
    ImageError,
    MissingExtraError,
    ModelError,
    TooSmallError,
    UsageError,
    within_memory,
)
from blemish.extras import explain_missing
from blemish.inspection.card import model_card, model_in_html, model_in_one_line
from blemish.inspection.detection import Detection, ScoredImage
from blemish.inspection.document import SHEET_FILE, ModelFile
from blemish.inspection.export_guide import GUIDE_FILE, export_guide
from blemish.inspection.export_settings import SETTINGS_FILE, export_settings
from blemish.inspection.judge import judge
from blemish.recipes import Recipe
from blemish.recipes.schema import ThresholdSettings
from blemish.runtime.model import ExportedModel, assembled
from blemish.storage.model_folder import (
    DETECTOR,
    WEIGHTS_FILE,
    load_weights,
    read_document,
    vouched,
    weights_of,
    write_model,
)

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn

    from blemish.models import Autoencoder
    from blemish.preprocessing.judged_area import JudgedArea
    from blemish.preprocessing.transform import PreprocessedImage


class Detector:
    """A fitted detector: made by :func:`blemish.fit` or :func:`load`, immutable.

    Changing the threshold gives a new detector that shares the model: :meth:`with_false_reject_rate`,
    :meth:`with_threshold`.

    Parameters
    ----------
    model: gives anomaly maps of preprocessed images or scenes.
    file: all facts about it; without a calibration there is no decision.
    """

    def __init__(self, model: AnomalyModel, file: ModelFile) -> None:
        self.model = model
        self.file = file

    def __repr__(self) -> str:
        return f"Detector({model_in_one_line(self.file)})"

    def _repr_html_(self) -> str:
        """Card for notebooks: recipe, images, threshold and guarantee."""
        return model_in_html(self.file)

    @property
    def recipe(self) -> Recipe:
        """Recipe of the model, its threshold rule included."""
        return self.file.recipe

    @property
    def rule(self) -> ThresholdSettings:
        """Rule that sets the threshold."""
        return self.file.recipe.threshold

    @property
    def measure_name(self) -> str:
        """Quantity that the anomaly map holds, as a report names it."""
        return self.model.title

    @property
    def autoencoder(self) -> Autoencoder:
        """The first network of the model.

        Raises
        ------
        UsageError
            When the model has none.
        """
        if self.file.export is not None:
            raise UsageError(
                "the model is exported, and this needs the one in torch; give the folder that blemish fit made"
            )
        from blemish.detectors.factory import networks

        found = networks(self.model) if isinstance(self.model, TrainableModel) else {}
        if not found:
            raise UsageError("the model has no network; fit a recipe with an encoder")
        return next(iter(found.values()))

    # -- the decision ------------------------------------------------------------------------------

    @property
    def decision(self) -> Decision:
        """Threshold, p-values and guarantee.

        Raises
        ------
        UsageError
            When the detector is not calibrated.
        """
        found = self.file.decision
        if found is None:
            raise UsageError("the detector is not calibrated, so it cannot decide; see blemish calibrate")
        return found

    @property
    def threshold(self) -> float:
        """Threshold of the image score; scores above it are rejected."""
        return self.decision.threshold

    @property
    def pixel_threshold(self) -> float:
        """Pixel threshold; map values above it form regions, on at most the promised share of good images.

        With too few calibration images for that promise, it is the highest value of all their maps.
        """
        return self.decision.pixel_threshold

    @property
    def class_thresholds(self) -> dict[str, float]:
        """Threshold of the score of each class of regions; empty without classes."""
        area, threshold = self.file.preprocessing.area, self.threshold
        classes = () if area is None else area.classes
        return {one.name: class_threshold(threshold, one.scale) for one in classes}

    @property
    def level(self) -> float:
        """The former name of :attr:`pixel_threshold`."""
        warnings.warn(
            "Detector.level is now Detector.pixel_threshold; the old name goes with the next release",
            FutureWarning,
            stacklevel=2,
        )
        return self.pixel_threshold

    @property
    def guarantee(self) -> str:
        """Guarantee of the threshold, in words."""
        return self.decision.guarantee

    def with_false_reject_rate(self, rate: float) -> Detector:
        """The same detector at another promised false-reject rate, without retraining.

        Raises
        ------
        UsageError
            When ``rate`` is not between 0 and 1.
        CalibrationError
            When the calibration images are too few for it.
        """
        return self._with(self.decision.with_false_reject_rate(rate))

    def with_threshold(self, value: float) -> Detector:
        """The same detector with a threshold set by hand.

        Raises
        ------
        UsageError
            When ``value`` is not finite.
        """
        return self._with(self.decision.with_threshold(value))

    def _with(self, decision: Decision) -> Detector:
        rule = self.rule.model_copy(
            update={
                "rule": decision.rule,
                "false_reject_rate": decision.false_reject_rate,
                "value": decision.value,
            }
        )
        recipe = self.recipe.model_copy(update={"threshold": rule})
        return self.with_file(self.file.model_copy(update={"recipe": recipe}))

    def with_judged_area(self, area: JudgedArea) -> Detector:
        """The same detector that judges only what lies in ``area``, and in its own area if it has one.

        The threshold stays: the largest value in a part of a map is never above that of the whole, so the promise holds.
        Places keep the classes of the model; where ``area`` has classes, they count only in the same class.

        Raises
        ------
        UsageError
            When the model was fitted on scenes, has not the classes of ``area``, or nothing is left to judge.
        """
        self.file.check_subject("images", "a region of interest is one of single images", "use roi.png")
        area.check_orientation(self.file.fingerprint)
        own = self.file.preprocessing
        if own.area is None or not own.area.classes:
            area = area.for_a_fit()
            if area.classes:
                raise UsageError(
                    f"--mask: has the classes {', '.join(area.names)}, and the model was fitted without classes of "
                    "regions; fit it with this mask, or mark one area"
                )
        preprocessing = own.model_copy(update={"area": area.within(own.area)})
        return self.with_file(self.file.model_copy(update={"preprocessing": preprocessing}))

    def with_file(self, file: ModelFile) -> Detector:
        """The same anomaly model with other facts."""
        return Detector(self.model, file)

    # -- inspection --------------------------------------------------------------------------------

    def inspect(
        self, source: str | Path | LoadedImage | NDArray[Any] | Image.Image, *, name: str | None = None
    ) -> Detection:
        """Score one image, decide, and find the regions of its anomalies.

        Parameters
        ----------
        source: a file, a :class:`~blemish.data.image.LoadedImage`, an array (H, W), (C, H, W) or (H, W, C) in RGB order
            of the depth that the model was fitted on, or an image of Pillow.

        Raises
        ------
        ImageError
            When the image cannot be read or is not of the kind that the model was fitted on.
        UsageError
            When the model was fitted on scenes.
        """
        begun = time.perf_counter()
        if not isinstance(source, (str, Path, LoadedImage)):
            source = from_memory(source, Path(name or "array"), channels=self.file.preprocessing.channels)
        image = source if isinstance(source, LoadedImage) else read_image(Path(source))
        scored = self.measure(image)
        decision = self.decision
        threshold, pixel_threshold = decision.threshold, decision.pixel_threshold
        is_above = scored.score > threshold
        classes = class_scores(scored.classes, threshold)
        level = region_threshold(
            scored.map, pixel_threshold, is_anomalous=is_above, peak=rejecting_peak(classes)
        )
        regions = find_regions(scored.map, level)
        area = self.file.preprocessing.area
        if classes and area is not None:
            regions = with_classes(regions, scored.map, area.labels(*scored.map.shape), area.names)
        return Detection(
            name=name or str(image.path),
            size=image.size,
            score=scored.score,
            threshold=threshold,
            p_value=decision.p_value(scored.score),
            is_anomalous=is_above or scored.other_kind is not None,
            map=scored.map,
            pixel_threshold=pixel_threshold,
            region_threshold=level,
            regions=regions,
            loaded=image,
            planes=scored.planes,
            seconds=time.perf_counter() - begun,
            other_kind=scored.other_kind,
            classes=classes,
            brightness=stretch(self.file.fingerprint.appearance),
        )

    def measure(self, image: LoadedImage) -> ScoredImage:
        """Score, anomaly map and reconstruction, before any decision; calibration and inspection both use it.

        Raises
        ------
        ImageError
            When the image is not of the kind that the model was fitted on, or too large for the memory.
        UsageError
            When the model was fitted on scenes.
        """
        self.file.check_subject(
            "images",
            f"{image.path}: is one image",
            "inspect scenes with blemish.inspection.scenes.inspect_scenes",
        )
        try:
            with within_memory(image.path):
                placed = self.file.preprocessing.apply(image)
                anomaly, reconstruction = self.examine(placed.model_input)
                anomaly_map = placed.map_back(anomaly)
                shown = np.maximum(anomaly_map, 0, out=anomaly_map if anomaly_map.flags.writeable else None)
                score, classes = judge(self.score, placed, anomaly, shown)
                return ScoredImage(
                    score=score,
                    map=shown,
                    classes=classes,
                    planes=None if reconstruction is None else partial(_planes, placed, reconstruction),
                    other_kind=self._other_kind(image, placed),
                )
        except TooSmallError as error:
            size = image.height, image.width
            own = self.file.preprocessing
            larger = f"--set image.size={error.least}" if own.scale is None else "--set image.scale=each"
            raise error.of_image(image.path, size, own.scale_of(*size), larger) from None
        except UsageError as error:
            problem, _, remedy = str(error).partition("; ")
            raise ImageError(image.path, problem, remedy or "leave it out") from None

    def _other_kind(self, image: LoadedImage, placed: PreprocessedImage) -> str | None:
        """By what an image is of another kind than the good ones; None of one that is of their kind."""
        file = self.file
        if self.recipe.image.other_kinds == "accept":
            return None
        # Images that are each resized to one size may have any.
        good = without(file.fingerprint.appearance, SIZES if file.preprocessing.size is not None else ())
        found = [*differences(appearance(image), good), *file.preprocessing.unlike(placed)]
        return "; ".join(found) or None

    def examine(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Anomaly map (h, w) and reconstruction (C, h, w), if there is one, of a preprocessed image (C, h, w).

        Raises
        ------
        UsageError
            When the image is too small for the model, or has absent values (NaN) that the model cannot take.
        """
        reader = ArrayReader(x)
        (found,) = score_blocks(self.model, reader, [whole(reader)])
        return found.maps.anomaly, found.maps.reconstruction

    def score(self, anomaly_map: NDArray[np.floating[Any]]) -> float:
        """Score of an anomaly map (h, w) by the recipe's rule."""
        rule = self.recipe.score
        return image_score(anomaly_map, kind=rule.name, quantile=rule.quantile, sigma=rule.sigma)

    # -- on disk -----------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write ``model.safetensors``, ``model.json`` and ``card.md``; the JSON last, so that it vouches.

        An exported model has its graphs beside them, and for other programs ``README.md`` and ``settings.json``.

        Raises
        ------
        FileError
            When they cannot be written.
        """
        has_sheet = (Path(folder) / SHEET_FILE).is_file()
        card = self.card(has_sheet=has_sheet)
        if isinstance(self.model, ExportedModel):
            guide = export_guide(self.file, self.model).encode()
            settings = json.dumps(export_settings(self.file, self.model.export), indent=2) + "\n"
            files = {**self.model.graphs, GUIDE_FILE: guide, SETTINGS_FILE: settings.encode()}
            return write_model(folder, self.file, self.model.weights, card, files)
        return write_model(folder, self.file, weights_of(_module(self.model)), card)

    def card(self, *, has_sheet: bool = False) -> str:
        """The model in a page of Markdown; ``has_sheet`` where ``blemishes.png`` lies beside it."""
        sees_areas = bool(getattr(self.model, "sees_areas", False))
        return model_card(self.file, has_sheet=has_sheet, sees_areas=sees_areas)


def _planes(placed: PreprocessedImage, reconstruction: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    # No name holds a plane while the next one is made.
    return map(_clipped, placed.planes_back(reconstruction))


def _clipped(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.clip(plane, 0, 1, out=plane if plane.flags.writeable else None)


# -- loading -------------------------------------------------------------------------------------------


def load(folder: str | Path, *, device: str = "cpu", calibrated: bool = True) -> Detector:
    """Load the detector that :meth:`Detector.save` wrote into ``folder``.

    Parameters
    ----------
    device: of torch, for the anomaly model.
    calibrated: whether to refuse a model without a calibration that holds for today's scores.

    Raises
    ------
    ModelError
        When the folder is no model, incomplete, edited, damaged, from a newer version of Blemish, or to be
        calibrated again.
    """
    folder = Path(folder)
    file = read_document(folder, DETECTOR, ModelFile)
    if calibrated and file.calibration is None:
        raise ModelError(
            folder,
            f"was calibrated by Blemish {file.blemish} on scores of scenes that inspection no longer gives",
            f"run blemish calibrate {folder} {file.subject.upper()} --out NEW, which does not train",
        )
    if file.export is not None:
        return _load_exported(folder, file)
    try:
        with explain_missing():
            from blemish.detectors.ensemble import for_inspection
            from blemish.detectors.factory import build_model, upgrade_state_dict
    except MissingExtraError as error:
        raise MissingExtraError(
            f"{folder}: {error}; or run blemish export where torch is installed"
        ) from None

    preprocessing = file.preprocessing
    model = load_weights(
        folder,
        file,
        lambda: build_model(file.recipe, preprocessing.channels, preprocessing.modalities, pretrained=False),
        lambda weights: upgrade_state_dict(weights, file.recipe),
    )
    return Detector(for_inspection(model, device), file)


def _load_exported(folder: Path, file: ModelFile) -> Detector:
    record = file.export
    assert record is not None
    weights = vouched(folder / WEIGHTS_FILE, file.weights_sha256)
    graphs = {name: vouched(folder / name, digest) for name, digest in record.graphs.items()}
    rule = file.recipe.score
    score = partial(image_score, kind=rule.name, quantile=rule.quantile, sigma=rule.sigma)
    return Detector(assembled(record, weights, graphs, score, folder), file)


def _module(model: AnomalyModel) -> nn.Module:
    """The torch module that ``model`` is."""
    if not hasattr(model, "state_dict"):
        raise UsageError("only detectors whose model is a torch module can be saved")
    return cast("nn.Module", model)
