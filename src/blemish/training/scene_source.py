"""Scenes of several modalities as the data of a fit: of each, some columns train, validate and calibrate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blemish.data.open_scenes import open_scenes
from blemish.data.scene_reader import SceneReader
from blemish.data.scene_splits import calibration_squares, sides_for
from blemish.decision import needed
from blemish.detectors.contracts import Floats, GoodImages
from blemish.detectors.ensemble import Ensemble
from blemish.detectors.factory import needs_whole_images
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.errors import CalibrationError, RecipeError, UsageError
from blemish.inspection.detector import Detector
from blemish.inspection.scoring import score_squares
from blemish.observer import Observer
from blemish.preprocessing.transform import Preprocessing
from blemish.recipes import Recipe
from blemish.training.part_scores import CalibrationUnit, PartScores
from blemish.training.partition import PARTS, counted, rounded_up
from blemish.training.scene_patches import ScenePatches
from blemish.training.try_recipe import check_recipe


class SceneSource:
    """Scenes of a folder or a description, opened and split (:class:`~blemish.training.sources.FitSource`).

    Raises
    ------
    RecipeError
        When the recipe has settings of images, or parts that do not fit the modalities.
    CalibrationError
        When the scenes give too few squares for the false-reject rate.
    FileError, UsageError
        When no scene can be used, or one lacks a modality that the recipe's network needs.
    Stopped
        When the observer asked to stop.
    """

    def __init__(self, path: Path, recipe: Recipe, observer: Observer) -> None:
        observer.stage(f"Opening the scenes in {path}")
        _refuse_image_settings(recipe)
        opened = open_scenes(path, patch=recipe.patch.size, observer=observer)
        self._scenes, self._patch = opened.readers, recipe.patch.size
        self.fingerprint = opened.fingerprint
        self.seen: dict[str, str] = {}
        self.groups: dict[str, str] = {}
        self.notes = tuple(f"{scene.name}: {notice}." for scene in self._scenes for notice in scene.notices)
        self.preprocessing = Preprocessing(
            channels=opened.fingerprint.channels,
            convert=False,
            kind=opened.fingerprint.kind,
            size=None,
            modalities=opened.modalities,
        )
        self._refuse_missing(recipe, check_recipe(recipe, opened.modalities))
        self._columns = {part: [getattr(bands, part) for bands in opened.bands] for part in PARTS}
        self.split = {
            part: tuple(
                f"{scene.name}, columns {band.start} to {band.stop - 1}"
                for scene, band in zip(self._scenes, columns, strict=True)
            )
            for part, columns in self._columns.items()
        }
        least = needed(recipe.threshold.false_reject_rate) if recipe.threshold.rule == "conformal" else 1
        self._side, found = calibration_squares(
            self._scenes, self._columns["calibration"], sides=sides_for(self._patch), needed=least
        )
        if len(found) < least:
            raise _too_few_squares(path, len(found), self._side, recipe.threshold.false_reject_rate)
        self._squares = {"calibration": found}
        if recipe.threshold.rule == "train-mean":
            _, self._squares["train"] = calibration_squares(
                self._scenes, self._columns["train"], sides=(self._side,), needed=1
            )

    def announce(self) -> str:
        return (
            f"{counted(len(self._scenes), 'scene')} of "
            f"{counted(len(self.preprocessing.modalities), 'modality', 'modalities')}, "
            f"{counted(self.preprocessing.channels, 'channel')}; the last columns are held out for early stopping "
            "and for the decision"
        )

    def describe(self, part: str) -> str:
        which = {"calibration": "held-out squares", "train": "training squares"}[part]
        return f"{len(self._squares[part])} {which} of {self._side} × {self._side} pixels"

    def patches(self, part: str) -> ScenePatches:
        return ScenePatches(self._scenes, self._columns[part], flips=part == "train")

    def whole(self, part: str) -> GoodImages:
        scenes = _SceneColumns(self._scenes, self._columns[part])
        return GoodImages(scenes, [scene.name for scene in self._scenes])

    def scores(self, detector: Detector, part: str, observer: Observer) -> PartScores:
        found = score_squares(detector, self._scenes, self._columns[part], self._squares[part], observer)
        return PartScores(*found)

    def calibration_unit(self, numbers: Sequence[int]) -> CalibrationUnit:
        return CalibrationUnit(square=self._side)

    def _refuse_missing(self, recipe: Recipe, model: ReconstructionModel | Ensemble) -> None:
        """Refuse before training what the network would refuse at its first patch of such a scene."""
        lacking = next((scene for scene in self._scenes if scene.missing), None)
        if lacking is None or model.takes_absent:
            return
        raise UsageError(
            f"{lacking.scene.folder}: has no {', '.join(lacking.missing)}, which {recipe.name} cannot do "
            "without; choose fp-cae-add, fp-cae-concat or fp-cae, or leave the scene out"
        )


class _SceneColumns:
    """Columns of each scene as one image (C, h, w), NaN where absent; read at every use."""

    def __init__(self, scenes: Sequence[SceneReader], columns: Sequence[slice]) -> None:
        self._scenes, self._columns = scenes, columns

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int, /) -> Floats:
        scene, columns = self._scenes[index], self._columns[index]
        return scene.read(0, columns.start, scene.height, columns.stop - columns.start)


def _refuse_image_settings(recipe: Recipe) -> None:
    if needs_whole_images(recipe):
        kind = "is an ensemble" if recipe.members else "has a memory"
        raise RecipeError(f"{recipe.name}: {kind}, which is for images; fit scenes with fp-cae-add")
    for key, share in (("training", recipe.training.trim), ("threshold", recipe.threshold.trim)):
        if share:
            raise RecipeError(f"{recipe.name}: {key}.trim {share} is for images, not for scenes; set it to 0")
    for key, value in (("size", recipe.image.size), ("channels", recipe.image.channels)):
        if value is not None:
            raise RecipeError(
                f"{recipe.name}: image.{key} {value} is for images, and scenes are read as they are; "
                f"leave it out"
            )


def _too_few_squares(source: Path, count: int, side: int, rate: float) -> CalibrationError:
    have = f"{counted(count, 'square')} of {side} × {side} pixels"
    if count == 0:
        return CalibrationError(f"{source}: the scenes give {have} to calibrate on; add scenes")
    return CalibrationError(
        f"{source}: the scenes give {have} to calibrate on, which can promise a false-reject rate of "
        f"{100 / (count + 1):.3g} % at best; {100 * rate:.3g} % needs {needed(rate)}: add scenes, or pass "
        f"--false-reject-rate {rounded_up(1 / (count + 1))}"
    )
