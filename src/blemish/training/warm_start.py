"""Warm start: a fit that goes on from a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

from blemish.data.fingerprint import Fingerprint
from blemish.data.image import DEPTH_WORDS
from blemish.data.items import Item
from blemish.detectors.ensemble import Ensemble
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.errors import RecipeError, UsageError
from blemish.inspection.detector import load
from blemish.inspection.document import Ancestor
from blemish.recipes import Recipe, load_recipe, override
from blemish.training.partition import counted
from blemish.training.runs import PROSE, dotted_settings, setting_text

SHORTER = 5
"""A training that goes on from a model is so many times shorter than that model's first one."""


class WarmStart:
    """The model that a fit goes on from: its weights, recipe and preprocessing, and the parts of its images.

    Parameters
    ----------
    folder: of the model.

    Raises
    ------
    UsageError
        When its document lacks the images that it saw.
    ModelError
        When the folder holds no model that can be loaded.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        detector = load(self.folder, calibrated=False)
        file = detector.file
        self.subject = file.subject
        self.scenes = frozenset(file.names("train")) if file.subject == "scenes" else frozenset()
        """Names of the scenes that it was fitted on."""
        if self.subject == "images" and not file.seen:
            raise UsageError(
                f"{folder}: was made by Blemish {file.blemish}, which did not note which images it saw; "
                "fit a new model"
            )
        self.model = cast("ReconstructionModel | Ensemble", detector.model)
        self.model.reset()  # so that half-time scores do not favour the images of a memory bank
        self.preprocessing = file.preprocessing
        self.seen = file.seen
        self.groups = file.groups
        self.weights_sha256 = file.weights_sha256
        this = Ancestor(
            weights_sha256=file.weights_sha256, steps=file.training.steps, images=len(file.split["train"])
        )
        self.lineage = (*file.lineage, this)
        self._recipe = file.recipe

    def recipe(self, asked: str | Path | Recipe | None, changes: list[str]) -> Recipe:
        """The model's own recipe with a shorter training, and with ``changes`` of training and threshold.

        Raises
        ------
        RecipeError
            When another recipe is asked for, or a change of it.
        """
        own = self._recipe
        if asked is not None:
            name = (asked if isinstance(asked, Recipe) else load_recipe(asked)).name
            if name != own.name:
                raise RecipeError(
                    f"{self.folder}: was fitted with the recipe {own.name} and goes on with it, not with {name}; "
                    "leave --recipe out"
                )
        budget = own.training.budget
        shorter = own.training.model_copy(
            update={
                "steps": max(1, own.training.steps // SHORTER),
                "budget": budget and budget / SHORTER,
            }
        )
        chosen = override(own.model_copy(update={"training": shorter}), changes)
        free = {**PROSE, "training": True, "threshold": True}
        before, now = dotted_settings(own, free), dotted_settings(chosen, free)
        for key in now:
            if before.get(key) != now[key]:
                raise RecipeError(
                    f"{self.folder}: was fitted with {key} {setting_text(before, key)} and goes on with it, not with "
                    f"{now[key]}; leave --set {key} out, or fit a new model"
                )
        return chosen

    def in_its_group(self, item: Item, sha256: str) -> Item:
        """``item`` in the group that an earlier list gave it, if it has none now."""
        return replace(item, group=self.groups.get(sha256)) if item.group is None else item

    def of_full_length(self, chosen: Recipe) -> Recipe:
        """``chosen`` with the length of the first training, which the next warm start takes a fifth of."""
        own = self._recipe.training
        training = chosen.training.model_copy(update={"steps": own.steps, "budget": own.budget})
        return chosen.model_copy(update={"training": training})

    def check(self, source: Path, data: Fingerprint) -> None:
        """Refuse images of other channels or depth than the model's.

        Raises
        ------
        UsageError
            When they differ.
        """
        own = self.preprocessing
        if (data.channels, data.kind) != (own.channels, own.kind):
            raise UsageError(
                f"{source}: holds images of {counted(data.channels, 'channel')}, {DEPTH_WORDS[data.kind]}, and "
                f"{self.folder} was fitted on {counted(own.channels, 'channel')}, {DEPTH_WORDS[own.kind]}; "
                "convert them, or fit a new model"
            )
