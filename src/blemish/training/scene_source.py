"""Scenes of several modalities as the data of a fit: of each, some columns train, validate and calibrate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blemish.data.open_scenes import open_scenes
from blemish.data.scene_reader import SceneReader
from blemish.decision import SceneSquares
from blemish.decision.decision import Unit
from blemish.detectors.contracts import Floats, GoodImages
from blemish.detectors.ensemble import Ensemble
from blemish.detectors.factory import needs_whole_images
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.errors import RecipeError, UsageError
from blemish.inspection.detector import Detector
from blemish.inspection.document import ModelFile, SceneColumns, Split
from blemish.inspection.square_scores import (
    Scored,
    choose_squares,
    least_squares,
    refuse_too_few,
    score_squares,
)
from blemish.inspection.subset_calibration import calibrate_subsets
from blemish.observer import Observer
from blemish.preprocessing.transform import Preprocessing
from blemish.recipes import Recipe
from blemish.training.partition import PARTS, counted
from blemish.training.scene_patches import ScenePatches
from blemish.training.try_recipe import check_recipe
from blemish.training.warm_start import WarmStart


class SceneSource:
    """Scenes of a folder or a description, opened and split (:class:`~blemish.training.sources.FitSource`).

    Parameters
    ----------
    start: model that the fit goes on from, with whose modalities, scales and ranges the scenes are read. A scene is split by
        shares of its width, so that each place keeps its part.

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

    def __init__(
        self, path: Path, recipe: Recipe, observer: Observer, start: WarmStart | None = None
    ) -> None:
        observer.stage(f"Opening the scenes in {path}")
        _refuse_image_settings(recipe)
        modalities = start.preprocessing.modalities if start else ()
        opened = open_scenes(path, patch=recipe.patch.size, observer=observer, modalities=modalities)
        self._scenes, self._patch = opened.readers, recipe.patch.size
        self.fingerprint = opened.fingerprint
        self.seen: dict[str, str] = {}
        self.groups: dict[str, str] = {}
        notices = [f"{scene.name}: {notice}." for scene in self._scenes for notice in scene.notices]
        if start is not None:
            known = sum(scene.name in start.scenes for scene in self._scenes)
            new = len(self._scenes) - known
            notices.insert(0, f"Warm start on {new} new and {known} earlier scenes, by their names.")
        self.notes = tuple(notices)
        self.preprocessing = Preprocessing(
            channels=opened.fingerprint.channels,
            convert=False,
            kind=opened.fingerprint.kind,
            size=None,
            modalities=opened.modalities,
        )
        model = check_recipe(recipe, opened.modalities)
        self._refuse_missing(recipe, model)
        self._takes_absent = model.takes_absent
        self._columns = {part: [getattr(bands, part) for bands in opened.bands] for part in PARTS}
        self.split: Split = {
            part: tuple(
                SceneColumns(scene=scene.name, start=band.start, stop=band.stop)
                for scene, band in zip(self._scenes, columns, strict=True)
            )
            for part, columns in self._columns.items()
        }
        rule = recipe.threshold
        if not rule.hold_out:
            raise RecipeError(
                f"{recipe.name}: threshold.hold_out false is for single images, and {path} holds scenes; leave it out"
            )
        self._side, found = choose_squares(
            self._scenes, self._columns["calibration"], recipe, least=least_squares(rule)
        )
        refuse_too_few(path, len(found), self._side, rule)
        self._squares = {"calibration": found}
        if rule.rule == "train-mean":
            _, self._squares["train"] = choose_squares(
                self._scenes, self._columns["train"], recipe, sides=(self._side,)
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
        return ScenePatches(
            self._scenes, self._columns[part], flips=part == "train", takes_absent=self._takes_absent
        )

    def whole(self, part: str) -> GoodImages:
        scenes = _SceneColumns(self._scenes, self._columns[part])
        return GoodImages(scenes, [scene.name for scene in self._scenes])

    def scores(self, detector: Detector, part: str, observer: Observer) -> Scored:
        return score_squares(detector, self._scenes, self._squares[part], observer)

    def calibrated_without(self, detector: Detector, observer: Observer) -> ModelFile:
        """The document of a calibrated detector with its calibrations for scenes that lack modalities."""
        return calibrate_subsets(detector, self._scenes, self._squares["calibration"], observer)

    def unit(self, numbers: Sequence[int]) -> Unit:
        return SceneSquares(side=self._side)

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
        kind = "is an ensemble" if recipe.members else "has a memory bank"
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
