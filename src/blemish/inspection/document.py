"""``model.json`` of a detector: recipe, preprocessing, calibration, split and training as facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from blemish._version import __version__
from blemish.data.fingerprint import Fingerprint
from blemish.decision import Calibration, Decision
from blemish.detectors.contracts import EnsembleCandidate
from blemish.errors import UsageError
from blemish.inspection.upgrade import upgrade_v1
from blemish.preprocessing.transform import Preprocessing
from blemish.recipes import Recipe
from blemish.runtime.record import Export
from blemish.storage.model_folder import DETECTOR, Document
from blemish.storage.training_record import Training

FORMAT = DETECTOR.format
SHEET_FILE = "blemishes.png"
"""In a model folder: training patches with the synthetic anomalies that the network was trained to find."""

Subject = Literal["images", "scenes"]


class SceneColumns(BaseModel):
    """Columns ``start`` to ``stop`` (past the last) of one scene, which one part of the split takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scene: str
    start: int
    stop: int


Split = dict[str, tuple[str | SceneColumns, ...]]
"""Of each part the names of its images, or its columns of each scene."""


class Ancestor(BaseModel):
    """A model that another one goes on from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights_sha256: str
    steps: int
    images: int
    """Number of images that it was trained on."""


class CalibrationWithout(BaseModel):
    """Calibration of scenes that lack some modalities."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: tuple[str, ...]
    """The modalities that are missing."""
    calibration: Calibration


class ModelFile(Document):
    """``model.json`` of a detector."""

    kind: Literal["detector"] = "detector"
    recipe: Recipe
    preprocessing: Preprocessing
    calibration: Calibration | None
    """None where the decision is still to be calibrated."""
    fingerprint: Fingerprint
    split: Split
    training: Training
    candidates: tuple[EnsembleCandidate, ...] = ()
    """Ensembles that were tried; :mod:`blemish.detectors.ensemble_selection` says how one is chosen."""
    seen: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of every image file that this model or one before it was fitted on, and its part for good."""
    groups: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of those of them that a list gave a group, and that group."""
    lineage: tuple[Ancestor, ...] = ()
    """The models that this one goes on from, the first one first; ``recipe`` has the length of its training."""
    without: tuple[CalibrationWithout, ...] = ()
    """For scenes that lack modalities."""
    export: Export | None = None
    """Parts of a model that was exported to another runtime; None of one in torch."""

    @model_serializer(mode="wrap")
    def _without_export(self, serialise: SerializerFunctionWrapHandler) -> dict[str, object]:
        # A model in torch stays readable for versions that know no export, one of images for those without subsets.
        data: dict[str, object] = serialise(self)
        return {key: value for key, value in data.items() if key not in {"export", "without"} or value}

    @classmethod
    def upgraded(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        return upgrade_v1(content)

    @property
    def subject(self) -> Subject:
        """Kind of data that the model was fitted on."""
        return "scenes" if self.preprocessing.modalities else "images"

    @property
    def decision(self) -> Decision | None:
        """The recipe's rule on the calibration; None without calibration."""
        rule = self.recipe.threshold
        if self.calibration is None:
            return None
        return Decision(
            calibration=self.calibration,
            rule=rule.rule,
            false_reject_rate=rule.false_reject_rate,
            value=rule.value,
        )

    def names(self, part: str) -> Iterator[str]:
        """Names of the images, or of the scenes, in one part of the split."""
        for one in self.split.get(part, ()):
            yield one.scene if isinstance(one, SceneColumns) else one

    def check_subject(self, asked: Subject, problem: str, remedy: str) -> None:
        """Refuse to do with the model what only one fitted on ``asked`` can do.

        Raises
        ------
        UsageError
            ``problem``, what the model was fitted on, and the ``remedy``.
        """
        if self.subject != asked:
            modalities = ", ".join(one.name for one in self.preprocessing.modalities)
            own = f"scenes of {modalities}" if modalities else "single images"
            raise UsageError(f"{problem}, and the model was fitted on {own}; {remedy}")


def versions() -> dict[str, str]:
    """Versions of the packages that figures depend on."""
    found = {"blemish": __version__}
    for package in ("numpy", "scipy", "pillow", "torch", "lightning"):
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
