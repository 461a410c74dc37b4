"""Sources of a fit: good images or scenes, chosen by what is there and by what the recipe is made for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from blemish.data.fingerprint import Fingerprint
from blemish.data.open_scenes import open_scenes
from blemish.data.scene_description import MODALITIES_FILE
from blemish.data.scenes import holds_scenes
from blemish.decision.decision import Unit
from blemish.detectors.contracts import GoodImages
from blemish.detectors.factory import is_for_modalities
from blemish.errors import UsageError
from blemish.inspection.detector import Detector
from blemish.inspection.document import Split
from blemish.inspection.square_scores import Scored
from blemish.observer import Observer
from blemish.preprocessing.judged_area import JudgedArea
from blemish.preprocessing.transform import Preprocessing
from blemish.recipes import Recipe
from blemish.training.image_source import ImageSource
from blemish.training.patches import PatchSource
from blemish.training.scene_source import SceneSource
from blemish.training.try_recipe import check_recipe
from blemish.training.usable_images import read_images
from blemish.training.warm_start import WarmStart


class FitSource(Protocol):
    """Good data of a detector in three parts: ``train``, ``validation`` and ``calibration``.

    It is a :class:`~blemish.detectors.contracts.TrainingSource` that also scores its parts for the decision.
    """

    @property
    def fingerprint(self) -> Fingerprint: ...

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def split(self) -> Split:
        """Names of the images, or columns of the scenes, of each part."""

    @property
    def seen(self) -> dict[str, str]:
        """SHA-256 of each image, those of earlier fits included, and its part."""

    @property
    def groups(self) -> dict[str, str]:
        """SHA-256 of each image of a group, those of earlier fits included, and the group."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the model card."""

    def announce(self) -> str:
        """Amount of data in each part, for the user."""

    def describe(self, part: str) -> str:
        """Number and kind of the scores of ``part``, for the user."""

    def patches(self, part: str) -> PatchSource:
        """Source of random patches of ``part``."""

    def whole(self, part: str) -> GoodImages:
        """Preprocessed images of ``part``, or the columns of its scenes, with the group of each."""

    def scores(self, detector: Detector, part: str, observer: Observer) -> Scored:
        """Scores and map maxima of ``part``.

        Raises
        ------
        ImageError
            When a scene can no longer be read; single images that cannot are reported and left out.
        Stopped
            When the observer asked to stop.
        """

    def unit(self, numbers: Sequence[int]) -> Unit:
        """Unit that the calibration scores of these numbers are measured on."""


def choose_source(
    path: Path,
    recipe: Recipe,
    start: WarmStart | None,
    good: str | None = None,
    area: JudgedArea | None = None,
) -> Callable[[Observer], ImageSource | SceneSource]:
    """The function that reads the data in ``path``: as scenes or as single images.

    Raises
    ------
    UsageError
        For a warm start of a model of images on scenes, or the other way round.
    RecipeError
        When parts of a recipe for images do not fit; of scenes that is known when their modalities are.
    """
    if _are_scenes(path, recipe):
        if area is not None:
            raise UsageError(
                f"{path}: holds scenes, and a region of interest is one of single images; put roi.png or exclude.png into the folder of "
                "each scene"
            )
        if start is not None and start.subject == "images":
            raise UsageError(
                f"{path}: holds scenes, and {start.folder} was fitted on images; fit a new model"
            )
        return lambda observer: SceneSource(path, recipe, observer, start)
    if start is not None and start.subject == "scenes":
        raise UsageError(f"{path}: holds no scenes, and {start.folder} was fitted on such; fit a new model")
    if start is None:
        check_recipe(recipe)
    return lambda observer: ImageSource(path, recipe, observer, start, good, area)


def images_sha256(images: str | Path, recipe: Recipe, good: str | None = None) -> str:
    """SHA-256 in the fingerprint of a model that would be fitted on ``images`` now."""
    path = Path(images)
    if _are_scenes(path, recipe):
        return open_scenes(path, patch=recipe.patch.size, observer=Observer()).fingerprint.sha256
    return read_images(path, recipe, Observer(), good=good)[0].sha256


def describes_scenes(path: Path) -> bool:
    """True if ``path`` is a description of scenes, or a folder with one."""
    if path.name == MODALITIES_FILE or (path / MODALITIES_FILE).is_file():
        return True
    return path.suffix.lower() in {".yaml", ".yml"} and not path.is_dir()


def _are_scenes(path: Path, recipe: Recipe) -> bool:
    """True if ``path`` is opened as scenes: it is described as such, or holds such for a recipe made for modalities."""
    return describes_scenes(path) or (is_for_modalities(recipe) and holds_scenes(path))
