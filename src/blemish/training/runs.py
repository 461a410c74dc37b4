"""Runs of fits, of detectors and of JPEG encoders: output folder, checkpoint, identity and settings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from blemish.data.fingerprint import Fingerprint
from blemish.data.maps import write_image
from blemish.errors import ModelError, RecipeError, UsageError
from blemish.inspection.document import SHEET_FILE
from blemish.observer import Observer
from blemish.recipes.schema import TrainingSettings
from blemish.storage.model_folder import CHECKPOINT, MODEL_FILE, refuse_finished_model
from blemish.storage.run_folder import refuse_contradiction, refuse_unwritable
from blemish.storage.training_record import Machine, Training
from blemish.training.checkpoint import STATE_FILE
from blemish.training.contracts import Cropping, Trainable, Trimming
from blemish.training.patches import PatchSource
from blemish.training.plateau import PlateauWatch
from blemish.training.processes import Processes
from blemish.training.trainer import Trainer


class NetworkRecipe(Protocol):
    """Recipe of a network that is trained, of a detector or of a JPEG encoder."""

    @property
    def name(self) -> str: ...

    @property
    def patch(self) -> PatchSides: ...

    @property
    def training(self) -> TrainingSettings: ...

    def model_dump(self, *, mode: str, exclude: Any) -> dict[str, Any]: ...


class PatchSides(Protocol):
    """Training patches."""

    @property
    def size(self) -> int:
        """Side in pixels."""


class FittedDocument(Protocol):
    """Document of a fitted model."""

    @property
    def fingerprint(self) -> Fingerprint: ...


class FittedModel(Protocol):
    """Fitted detector or JPEG encoder."""

    @property
    def recipe(self) -> BaseModel: ...

    @property
    def file(self) -> FittedDocument: ...

    def save(self, folder: str | Path, /) -> Path: ...


Fitted = TypeVar("Fitted", bound=FittedModel)

PROSE = {"title": True, "paper": True, "expect": True, "needs": True}
"""Keys of a recipe that describe it in words and change no figure."""


def output_folder(out: str | Path | None, *, resume: bool, overwrite: bool) -> Path | None:
    """``out`` as a path.

    Raises
    ------
    UsageError
        For options that contradict each other.
    """
    refuse_contradiction(resume=resume, overwrite=overwrite)
    if resume and out is None:
        raise UsageError("resume needs the folder that holds the checkpoint; give out")
    return None if out is None else Path(out)


def is_unfinished(folder: Path) -> bool:
    """True if ``folder`` holds the checkpoint of a fit that was interrupted."""
    return any((folder / CHECKPOINT).rglob(STATE_FILE))


def claim_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or that holds an earlier fit, unless that is resumed or overwritten.

    Raises
    ------
    UsageError, ModelError
        Naming the folder and the option.
    """
    refuse_unwritable(folder, ModelError)
    unfinished = is_unfinished(folder)
    if overwrite:
        shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
        return
    if unfinished:
        # A model beside the checkpoint is what an interrupted --overwrite has yet to replace.
        if resume:
            return
        raise UsageError(
            f"{folder}: holds the checkpoint of an unfinished fit; go on with --resume, or pass --overwrite to "
            "begin anew"
        )
    refuse_finished_model(folder)


def train_for(
    folder: Path | None,
    model: Trainable,
    recipe: NetworkRecipe,
    images: PatchSource,
    validation: PatchSource,
    *,
    machine: Machine,
    data: Fingerprint,
    split: Mapping[str, Sequence[object]],
    resume: bool,
    observer: Observer,
    trimming: Trimming | None = None,
    plateau: PlateauWatch | None = None,
    warm_start_sha256: str | None = None,
    network: str = "",
    processes: Processes | None = None,
) -> Training:
    """Train ``model`` in place, with its checkpoint in ``folder``.

    Parameters
    ----------
    data, split: of the images; a checkpoint of others, or of another recipe, is refused.
    resume: continue from the checkpoint, if there is one.
    trimming: for ``training.trim``.
    plateau: of a network for modalities.
    warm_start_sha256: SHA-256 of the weights that ``model`` has from an earlier training, pretraining included.
    network: name of it among several of one model, each of which has a checkpoint of its own.
    processes: that train together; by default there is one.

    Raises
    ------
    RecipeError
        When the recipe has a ``training.trim`` and there is no ``trimming``.
    Stopped
        When the observer asked to stop; the checkpoint is in ``folder``.
    """
    if recipe.training.trim and trimming is None:
        raise RecipeError(f"{recipe.name}: training.trim is for detectors; set it to 0")
    checkpoint = folder / CHECKPOINT / network if folder else None
    side = recipe.patch.size
    state = Trainer(
        model,
        images,
        validation,
        recipe.training,
        patch=model.drawn_side(side) if isinstance(model, Cropping) else side,
        machine=machine,
        checkpoint=checkpoint,
        identity={
            **_identity(recipe, data, split),
            **({"model to go on from": warm_start_sha256} if warm_start_sha256 else {}),
        },
        resume=resume and checkpoint is not None and (checkpoint / STATE_FILE).exists(),
        pretrained=warm_start_sha256 is not None,
        trimming=trimming,
        plateau=plateau,
        stop=observer.should_stop,
        on_progress=observer.training,
        processes=processes,
    ).run()
    return Training(
        steps=state.step,
        best_step=state.best_step,
        best_loss=state.best_loss,
        seconds=state.seconds,
        machine=machine,
        history=tuple(state.history),
        budget=recipe.training.budget,
        left_out=tuple(str(split["train"][number]) for number in state.left_out or ()),
    )


def _identity(
    recipe: NetworkRecipe, data: Fingerprint, split: Mapping[str, Sequence[object]]
) -> dict[str, object]:
    """Facts that a checkpoint must share with a run that resumes it."""
    later = {
        "score": True,
        "threshold": True,
        "training": {"steps", "budget", "patience", "device"},
        "image": {"other_kinds"},
    }
    return {
        **dotted_settings(recipe, {**PROSE, **later}),
        "set of images": data.sha256,
        "split": {part: len(names) for part, names in split.items()},
    }


def finish(fitted: FittedModel, folder: Path, sheet: NDArray[np.uint8] | None = None) -> None:
    """Save ``fitted``, with the contact sheet (H, W, 3) of its synthetic anomalies, and remove the checkpoint."""
    if sheet is None:
        (folder / SHEET_FILE).unlink(missing_ok=True)  # of the model before
    else:
        write_image(folder / SHEET_FILE, sheet.transpose(2, 0, 1) / 255)
    fitted.save(folder)
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def fitted_once(
    folder: Path,
    recipe: BaseModel,
    *,
    title: str,
    observer: Observer,
    load: Callable[[Path], Fitted],
    fit: Callable[[bool], Fitted],
    sha256: Callable[[], str],
    images: str = "images",
) -> Fitted:
    """Fit ``recipe`` into ``folder``; a finished fit is loaded, a stopped one is resumed.

    Parameters
    ----------
    title: stage for the observer before a fit.
    load: reads a finished fit.
    fit: fits into ``folder``; its argument is whether to resume.
    sha256: of the images as they are now.
    images: their name in messages.

    Raises
    ------
    UsageError
        When the finished fit has other settings, or is of other images.
    """
    if os.path.exists(folder / MODEL_FILE):
        fitted = load(folder)
        refuse_other_settings(folder, fitted.recipe, recipe)
        if sha256() != fitted.file.fingerprint.sha256:
            raise UsageError(
                f"{folder}: was fitted on other {images}; choose another --out, or remove that folder"
            )
        return fitted
    observer.stage(title)
    return fit(is_unfinished(folder))


def refuse_other_settings(model: Path, before: BaseModel, now: BaseModel) -> None:
    """Refuse the folder ``model``, fitted with the recipe ``before``, in place of a fit with the recipe ``now``.

    Raises
    ------
    UsageError
        Naming the first setting that differs, with both its values.
    """
    fitted, asked = dotted_settings(before, PROSE), dotted_settings(now, PROSE)
    for key in [*asked, *fitted]:
        if fitted.get(key) != asked.get(key):
            raise UsageError(
                f"{model}: was fitted with {key} {setting_text(fitted, key)}, not {setting_text(asked, key)}; "
                f"choose another --out, or remove that folder"
            )


def setting_text(settings: dict[str, Any], key: str) -> str:
    """Value of a setting in a message."""
    return str(settings[key]) if key in settings else "unset"


def dotted_settings(recipe: BaseModel | NetworkRecipe, without: dict[str, Any]) -> dict[str, Any]:
    """``recipe`` as dotted keys and their values, ``without`` some keys."""
    chosen = recipe.model_dump(mode="json", exclude=without)
    return {
        f"{group}.{key}".removesuffix("."): value
        for group, content in chosen.items()
        for key, value in (content.items() if isinstance(content, dict) else [("", content)])
    }
