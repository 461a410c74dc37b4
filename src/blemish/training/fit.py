"""From a folder of good images, or of scenes that several sensors saw, to a calibrated detector."""

from __future__ import annotations

import inspect
import math
import os
import shutil
import stat
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel

from blemish._version import __version__
from blemish.data.datasets import Item, find_images
from blemish.data.fingerprint import Fingerprint, file_sha256, fingerprint
from blemish.data.image import DEPTH_WORDS, image_info, read_image
from blemish.data.maps import write_image
from blemish.data.modality import Modality
from blemish.data.open_scenes import open_scenes
from blemish.data.scene_description import MODALITIES_FILE
from blemish.data.scene_splits import calibration_squares, sides_for
from blemish.data.scenes import holds_scenes
from blemish.data.splits import plan_split, split_good
from blemish.decision import at_most, needed, trimmed
from blemish.decision.conformal import Trim
from blemish.detectors.ensemble_selection import select_ensemble
from blemish.errors import (
    CalibrationError,
    FileError,
    ImageError,
    ModelError,
    RecipeError,
    Stopped,
    UsageError,
)
from blemish.inspection.detector import (
    FORMAT,
    SHEET_FILE,
    Ancestor,
    Calibration,
    Detector,
    EnsembleCandidate,
    ModelFile,
    Training,
    check_rate,
    load,
    versions,
)
from blemish.inspection.scoring import score_squares
from blemish.models import Autoencoder, build, contact_sheet
from blemish.models.registry import RESIDUALS, TERMS
from blemish.observer import Observer
from blemish.preprocessing.pose import find_pose, plan_crop
from blemish.preprocessing.tiling import smallest_side
from blemish.preprocessing.transform import Preprocessing
from blemish.recipes import Recipe, load_recipe, override
from blemish.recipes.schema import ThresholdSettings, seconds_in
from blemish.storage.model_folder import MODEL_FILE, weights_sha256
from blemish.training.checkpoint import STATE_FILE
from blemish.training.device import Machine, choose_machine
from blemish.training.patches import PatchSource, PreprocessedImages, RandomPatches, raising
from blemish.training.scene_patches import ScenePatches
from blemish.training.trainer import Trainable, Trimming, train

if TYPE_CHECKING:
    from blemish.jpeg.deep.model import DeepEncoder
    from blemish.jpeg.deep.recipe import DeepRecipe

    Fitted = TypeVar("Fitted", Detector, DeepEncoder)

DEFAULT_RECIPE = "blemish"
DEFAULT_FOR_SCENES = "fp-cae-add"
CHECKPOINT = "checkpoint"
PARTS = ("train", "validation", "calibration")
# What a recipe says in words: it changes no figure.
WORDS = {"title": True, "paper": True, "expect": True, "needs": True}
LOOKED_AT = 64
"""Training images that tell whether all show one object."""
SHOWN = 8
"""Training patches on the contact sheet of synthetic blemishes."""
SHORTER = 5
"""A training that goes on from a model is so many times shorter than that model's first one."""


def fit(
    images: str | Path,
    recipe: str | Path | Recipe | None = None,
    *,
    settings: Sequence[str] = (),
    false_reject_rate: float | None = None,
    budget: str | float | None = None,
    continue_from: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> Detector:
    """Learn what the good images in ``images`` look like, and calibrate the reject decision on them.

    Going on from a model begins with its weights, its recipe and its preparation, and trains for a fifth of its
    recipe's steps or budget, unless ``settings`` or ``budget`` say how long. An image that the model, or one
    before it, has seen keeps its part for good, and is known by the bytes of its file whatever it is called: what
    calibrated never trains, what trained or stopped the training never calibrates. New images are split as
    always. Training draws on all training images that ``images`` holds, new and old, and the decision rests
    on the calibration images that it holds, new and old: no training has seen one of them.

    Parameters
    ----------
    images: a folder of good images, or a CSV list, of which test and defective images are not read; or
        scenes (:func:`blemish.data.scenes.find_scenes`). Any recipe takes scenes that a ``modalities.yaml``
        describes, with all their channels together. Recipes for several sensors also take folders of
        images for scenes (:func:`blemish.data.scenes.holds_scenes`); other images they take for one modality.
    recipe: a name, the path of a YAML file, or a recipe; ``blemish`` where none is given, and ``fp-cae-add`` for
        scenes that a ``modalities.yaml`` describes.
    settings: ``key=value`` overrides of the recipe, as ``--set`` takes them; of a model to go on from, only those
        of ``training`` and ``threshold``.
    false_reject_rate: share of good images that may be rejected, instead of the recipe's.
    budget: seconds of training, or a text such as "5m", instead of the recipe's number of steps.
    continue_from: folder of a model to go on from.
    out: folder for the model and, while training, the checkpoint; without it nothing is written.
    resume: go on from the checkpoint in ``out``; where training had not begun, begin it.
    overwrite: replace a model or checkpoint that is already in ``out``.
    observer: told what is going on, and of each image that cannot be used; the others are.

    Raises
    ------
    CalibrationError
        Before training, when the images are too few to promise the false-reject rate.
    Stopped
        When the observer asked to stop; the checkpoint is in ``out``.
    RecipeError, FileError, UsageError
        In one line that names the setting or the file, and the mend.
    """
    observer = observer or Observer()
    folder = output_folder(out, resume=resume, overwrite=overwrite)
    source = Path(images)
    start = None if continue_from is None else _Start(continue_from)
    changes = list(settings)
    if budget is not None:
        changes.append(f"training.budget={_seconds(budget)}")
    if false_reject_rate is not None:
        check_rate(false_reject_rate)
        changes += ["threshold.rule=conformal", f"threshold.false_reject_rate={false_reject_rate}"]
    if start is not None:
        chosen = start.recipe(recipe, changes)
    else:
        default = DEFAULT_FOR_SCENES if _describes_scenes(source) else DEFAULT_RECIPE
        given = default if recipe is None else recipe
        chosen = override(given if isinstance(given, Recipe) else load_recipe(given), changes)
    are_scenes = _are_scenes(source, chosen)
    if are_scenes and start is not None:
        raise UsageError(f"{source}: holds scenes, and going on from a model is for images; fit a new model")
    if not are_scenes and start is None:
        check_recipe(chosen)
    machine = choose_machine(chosen.training.device, chosen.training.precision)
    if folder is not None:
        claim_folder(folder, resume=resume, overwrite=overwrite)

    material: _Material = (
        _Scenes(source, chosen, observer) if are_scenes else _Images(source, chosen, observer, start)
    )
    preparation = material.preparation
    length = f" for {chosen.training.budget:.0f} s" if chosen.training.budget else ""
    observer.stage(f"Training {chosen.name}{length} on {material.announced()}; {machine}")
    torch.manual_seed(chosen.training.seed)
    model = start.model if start else build(chosen, preparation.channels, modalities=preparation.modalities)
    file = ModelFile(
        format=FORMAT,
        blemish=__version__,
        versions=versions(),
        recipe=chosen,
        preparation=preparation,
        calibration=Calibration(scores=(), peaks=(), square=material.square),
        fingerprint=material.fingerprint,
        split=material.split,
        training=_UNTRAINED,
        seen=material.seen,
        groups=material.groups,
        lineage=start.lineage if start else (),
        weights_sha256="",
    )

    def half_trained() -> Detector:
        return Detector(model, file, device=machine.device)

    training = train_for(
        folder,
        model,
        chosen,
        material.patches("train"),
        material.patches("validation"),
        machine=machine,
        data=material.fingerprint,
        split=material.split,
        resume=resume,
        observer=observer,
        trimming=material.trimming(half_trained, chosen, observer),
        going_on_from=start.weights_sha256 if start else None,
    )
    candidates: tuple[EnsembleCandidate, ...] = ()
    remembered: tuple[str, ...] = ()
    if model.memory is not None:
        candidates, remembered = material.remember(Detector(model, file), observer)
    notes = (
        *_left_out(training, chosen),
        *remembered,
        *_notes(model, material.patches("calibration"), chosen),
    )
    for note in notes:
        observer.stage(note)
    file = file.model_copy(
        update={
            "recipe": start.of_full_length(chosen) if start else chosen,
            "training": training.model_copy(
                update={"notes": (*material.notes, *notes), "candidates": candidates}
            ),
            "weights_sha256": weights_sha256(model),
        }
    )
    detector = Detector(model, file)
    observer.stage(f"Calibrating the decision on {material.scored('calibration')}")
    scores, peaks = material.measure(detector, "calibration", observer)
    training_scores: tuple[float, ...] = ()
    if chosen.threshold.rule == "train-mean":
        observer.stage(f"Scoring {material.scored('train')}, whose mean is the threshold")
        training_scores, _ = material.measure(detector, "train", observer)
    detector = Detector(model, _calibrated(file, scores, peaks, training_scores, material.count_groups))
    if folder is not None:
        finish(detector, folder, _sheet(model, material.patches("train"), chosen))
    return detector


_UNTRAINED = Training(steps=0, best_step=0, best_loss=None, seconds=0, machine="", history=())


def _seconds(budget: str | float) -> float:
    try:
        seconds = seconds_in(budget) if isinstance(budget, str) else float(budget)
    except ValueError as error:
        raise UsageError(f"--budget {budget}: {error}") from None
    if not 0 < seconds < float("inf"):
        raise UsageError(f"--budget {budget}: give more than 0 seconds")
    return seconds


def _calibrated(
    file: ModelFile,
    scores: tuple[float, ...],
    peaks: tuple[float, ...],
    training_scores: tuple[float, ...],
    count_groups: Callable[[Sequence[int]], int | None],
) -> ModelFile:
    """``file`` with its calibration, without the share of largest scores that is taken for blemished."""
    left_out = trimmed(scores, file.recipe.threshold.trim)
    names = file.split["calibration"]
    stay = [number for number in range(len(scores)) if number not in left_out]
    calibration = file.calibration.model_copy(
        update={
            "scores": tuple(scores[number] for number in stay),
            "peaks": tuple(peaks[number] for number in stay),
            "training_scores": training_scores,
            "left_out": {names[number]: scores[number] for number in left_out},
            "groups": count_groups(stay),
        }
    )
    if left_out:
        split = {**file.split, "calibration": tuple(names[number] for number in stay)}
        file = file.model_copy(update={"split": split})
    return file.model_copy(update={"calibration": calibration})


def _left_out(training: Training, recipe: Recipe) -> tuple[str, ...]:
    """What became of ``training.trim``."""
    trim = recipe.training.trim
    if not trim:
        return ()
    if not training.left_out:
        return (
            f"training.trim {trim} left out no training image: that would be less than one, or training ended "
            "before half time.",
        )
    return (
        f"Left out of the second half of training, as {_worst_in_words(trim)} of the training images at half "
        f"time: {', '.join(training.left_out)}. If they are blemished, remove them; if they are all good, "
        "fit without training.trim.",
    )


def _worst_in_words(trim: Trim) -> str:
    return "the outlying" if trim == "auto" else f"the worst {100 * trim:g} %"


class _Start:
    """The model that a fit goes on from."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        detector = load(self.folder)
        file = detector.file
        if file.preparation.modalities:
            raise UsageError(
                f"{folder}: was fitted on scenes, and going on from a model is for images; fit a new model"
            )
        if not file.seen:
            raise UsageError(
                f"{folder}: was made by Blemish {file.blemish}, which did not note which images it saw; "
                "fit a new model"
            )
        self.model = detector.model
        if self.model.memory is not None:  # or half-time scores would favour the images that it holds
            self.model.memory.forget()
        self.preparation = file.preparation
        self.seen = file.seen
        self.groups = file.groups
        self.weights_sha256 = file.weights_sha256
        this = Ancestor(
            weights_sha256=file.weights_sha256, steps=file.training.steps, images=len(file.split["train"])
        )
        self.lineage = (*file.lineage, this)
        self._recipe = file.recipe

    def recipe(self, asked: str | Path | Recipe | None, changes: list[str]) -> Recipe:
        """The model's own, made shorter, with ``changes`` of training and threshold.

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
        free = {**WORDS, "training": True, "threshold": True}
        before, now = dotted_settings(own, free), dotted_settings(chosen, free)
        for key in now:
            if before.get(key) != now[key]:
                raise RecipeError(
                    f"{self.folder}: was fitted with {key} {_said(before, key)} and goes on with it, not with "
                    f"{now[key]}; leave --set {key} out, or fit a new model"
                )
        return chosen

    def grouped(self, item: Item, sha256: str) -> Item:
        """``item`` in the group that an earlier list gave it, where it has none now."""
        return replace(item, group=self.groups.get(sha256)) if item.group is None else item

    def of_full_length(self, chosen: Recipe) -> Recipe:
        """``chosen`` with the length of the first training, of which the next fifth is taken."""
        own = self._recipe.training
        training = chosen.training.model_copy(update={"steps": own.steps, "budget": own.budget})
        return chosen.model_copy(update={"training": training})

    def check(self, source: Path, data: Fingerprint) -> None:
        """Refuse images of another kind than the model's."""
        own = self.preparation
        if (data.channels, data.kind) != (own.channels, own.kind):
            raise UsageError(
                f"{source}: holds images of {_counted(data.channels, 'channel')}, {DEPTH_WORDS[data.kind]}, and "
                f"{self.folder} was fitted on {_counted(own.channels, 'channel')}, {DEPTH_WORDS[own.kind]}; "
                "convert them, or fit a new model"
            )


class _Material(Protocol):
    """What a model is fitted on, in three parts: ``train``, ``validation`` and ``calibration``."""

    fingerprint: Fingerprint
    preparation: Preprocessing
    split: dict[str, tuple[str, ...]]
    seen: dict[str, str]
    """SHA-256 of each image, also of those before, and its part."""
    groups: dict[str, str]
    """SHA-256 of each image of a group, also of those before, and that group."""
    notes: tuple[str, ...]
    """What the model card is to say of it."""

    @property
    def square(self) -> int | None:
        """Side of the squares that are scored; None where whole images are."""

    def count_groups(self, numbers: Sequence[int]) -> int | None:
        """How many groups some calibration images are of, by number; None where each is one by itself."""

    def announced(self) -> str:
        """How much of it does what, for the user."""

    def scored(self, part: str) -> str:
        """What of ``part`` is scored, for the user."""

    def patches(self, part: str) -> PatchSource:
        """To draw patches of ``part`` from."""

    def measure(
        self, detector: Detector, part: str, observer: Observer
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Scores and map maxima of ``part``."""

    def remember(
        self, detector: Detector, observer: Observer
    ) -> tuple[tuple[EnsembleCandidate, ...], tuple[str, ...]]:
        """Fill the memory of ``detector``'s model; what was tried, and what came of it in words."""

    def trimming(
        self, half_trained: Callable[[], Detector], recipe: Recipe, observer: Observer
    ) -> Trimming | None:
        """What ``training.trim`` of ``recipe`` asks for."""


class _Images:
    """Good images, each for itself; whole ones train, validate or calibrate."""

    square = None

    def __init__(self, source: Path, recipe: Recipe, observer: Observer, start: _Start | None) -> None:
        observer.stage(f"Reading the good images in {source}")
        self.fingerprint, usable = _read(source, recipe, observer, start.preparation.scale if start else None)
        sha256 = {name: file_sha256(item.path) for name, item in usable.items()}
        self.notes: tuple[str, ...] = ()
        before: dict[str, str] = {}
        if start is None:
            self.split = _split(usable, recipe)
        else:
            start.check(source, self.fingerprint)
            usable = {name: start.grouped(item, sha256[name]) for name, item in usable.items()}
            before = start.seen
            known = {name: before[digest] for name, digest in sha256.items() if digest in before}
            self.split = _split_going_on(source, usable, known, recipe)
            self.notes = (_new_and_old(self.split, known),)
        self.seen = _seen(self.split, sha256, before)
        now = {sha256[name]: item.group for name, item in usable.items() if item.group is not None}
        self.groups = {**(start.groups if start else {}), **now}
        self._parts = {part: [usable[name] for name in names] for part, names in self.split.items()}
        self.preparation = start.preparation if start else self._prepared(recipe, observer)
        self._patches: dict[str, PreprocessedImages] = {}
        for part in ("train", "validation"):
            if self.patches(part).on_disk:
                self._prepare_all(part, observer)

    def _prepare_all(self, part: str, observer: Observer) -> None:
        """Once, and before the clock of a budget runs, since training and memory ask for each many times."""
        count = len(self._parts[part])
        observer.stage(
            f"Preparing {count} images of {part}; more than fit in memory, so a temporary file keeps them"
        )
        for done in self.patches(part).prepare_all():
            observer.count(done, count)
            if observer.should_stop():
                raise Stopped(f"stopped after preparing {done} of {count} images, before training")

    def _prepared(self, recipe: Recipe, observer: Observer) -> Preprocessing:
        """How these images are to be seen, by the recipe and by what they show."""
        image, data = recipe.image, self.fingerprint
        common = image.size is not None and image.scale == "common"
        preparation = Preprocessing(
            channels=data.channels,
            convert=image.channels is not None,
            kind=data.kind,
            size=None if common else image.size,
            scale=image.size / min(data.width.median, data.height.median) if common and image.size else None,
        )
        if image.pose == "never":
            return preparation
        looked_at = self._parts["train"][:: math.ceil(len(self._parts["train"]) / LOOKED_AT)]
        found, scales = [], []
        for done, item in enumerate(looked_at, start=1):
            if observer.should_stop():
                raise Stopped(
                    f"stopped after looking at {done - 1} of {len(looked_at)} images, before training"
                )
            shown = read_image(item.path)
            found.append(find_pose(shown.floats().mean(0)))
            scales.append(preparation.scale_of(shown.height, shown.width))
            observer.count(done, len(looked_at))
        crop, reason = plan_crop(found, scales, least=smallest_side(recipe.patch.size))
        told = f"Looking at {reason}" + (f", in {crop.width} × {crop.height} pixels" if crop else "") + "."
        observer.stage(told)
        self.notes = (*self.notes, told)
        return preparation.model_copy(update={"crop": crop})

    def count_groups(self, numbers: Sequence[int]) -> int | None:
        calibrating = self._parts["calibration"]
        count = len({calibrating[number].group_key for number in numbers})
        return count if count < len(numbers) else None

    def announced(self) -> str:
        return (
            f"{len(self._parts['train'])} images, "
            f"{len(self._parts['validation'])} held out for early stopping, "
            f"{len(self._parts['calibration'])} for the decision"
        )

    def scored(self, part: str) -> str:
        which = {"calibration": "held-out good", "train": "training"}[part]
        return f"{len(self._parts[part])} {which} images"

    def patches(self, part: str) -> PreprocessedImages:
        if part not in self._patches:  # once: it keeps images in memory
            self._patches[part] = PreprocessedImages(self._parts[part], self.preparation)
        return self._patches[part]

    def measure(
        self, detector: Detector, part: str, observer: Observer
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return _measure(detector, self._parts[part], observer)

    def remember(
        self, detector: Detector, observer: Observer
    ) -> tuple[tuple[EnsembleCandidate, ...], tuple[str, ...]]:
        names = self.split["train"]
        observer.stage(f"Remembering {len(names)} training images")
        groups = (
            [item.group_key for item in self._parts["train"]],
            [item.group_key for item in self._parts["validation"]],
        )
        done = select_ensemble(detector, self.patches("train"), self.patches("validation"), observer, groups)
        if not done.left_out:
            return done.candidates, (done.words,)
        forgotten = ", ".join(names[number] for number in done.left_out)
        said = f"Not remembered, as the training images least like all others: {forgotten}."
        return done.candidates, (done.words, said)

    def trimming(
        self, half_trained: Callable[[], Detector], recipe: Recipe, observer: Observer
    ) -> Trimming | None:
        trim = recipe.training.trim
        if not trim:
            return None

        def worst() -> tuple[int, ...]:
            observer.stage(f"Half time: scoring {self.scored('train')} to leave out {_worst_in_words(trim)}")
            doing = "leaving out the worst; the half-trained network"
            scores, _ = _measure(half_trained(), self._parts["train"], observer, doing)
            return trimmed(scores, trim)

        return Trimming(worst, self.patches("train").without)


class _Scenes:
    """Panels of several sensors; of each, some columns train, some validate and some calibrate."""

    def __init__(self, source: Path, recipe: Recipe, observer: Observer) -> None:
        observer.stage(f"Opening the scenes in {source}")
        _refuse_image_settings(recipe)
        opened = open_scenes(source, patch=recipe.patch.size, observer=observer)
        self._panels, self._patch = opened.readers, recipe.patch.size
        self.fingerprint = opened.fingerprint
        self.seen: dict[str, str] = {}
        self.groups: dict[str, str] = {}
        self.notes = tuple(f"{panel.name}: {notice}." for panel in self._panels for notice in panel.notices)
        self.preparation = Preprocessing(
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
                f"{panel.name}, columns {band.start} to {band.stop - 1}"
                for panel, band in zip(self._panels, columns, strict=True)
            )
            for part, columns in self._columns.items()
        }
        least = needed(recipe.threshold.false_reject_rate) if recipe.threshold.rule == "conformal" else 1
        self.square, found = calibration_squares(
            self._panels, self._columns["calibration"], sides=sides_for(self._patch), needed=least
        )
        if len(found) < least:
            raise _too_few_squares(source, len(found), self.square, recipe.threshold.false_reject_rate)
        self._squares = {"calibration": found}
        if recipe.threshold.rule == "train-mean":
            _, self._squares["train"] = calibration_squares(
                self._panels, self._columns["train"], sides=(self.square,), needed=1
            )

    def count_groups(self, numbers: Sequence[int]) -> int | None:
        return None

    def announced(self) -> str:
        return (
            f"{_counted(len(self._panels), 'scene')} of "
            f"{_counted(len(self.preparation.modalities), 'modality', 'modalities')}, "
            f"{_counted(self.preparation.channels, 'channel')}; the last columns are held out for early stopping "
            "and for the decision"
        )

    def scored(self, part: str) -> str:
        which = {"calibration": "held-out squares", "train": "training squares"}[part]
        return f"{len(self._squares[part])} {which} of {self.square} × {self.square} pixels"

    def patches(self, part: str) -> PatchSource:
        return ScenePatches(self._panels, self._columns[part], flips=part == "train")

    def measure(
        self, detector: Detector, part: str, observer: Observer
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return score_squares(detector, self._panels, self._columns[part], self._squares[part], observer)

    def remember(
        self, detector: Detector, observer: Observer
    ) -> tuple[tuple[EnsembleCandidate, ...], tuple[str, ...]]:
        raise AssertionError("recipes with a memory are refused for scenes")

    def trimming(
        self, half_trained: Callable[[], Detector], recipe: Recipe, observer: Observer
    ) -> Trimming | None:
        return None

    def _refuse_missing(self, recipe: Recipe, model: Autoencoder) -> None:
        """Say before training what the network would refuse at its first patch of such a panel."""
        lacking = next((panel for panel in self._panels if panel.missing), None)
        if lacking is None or model.encoder.takes_absent:
            return
        raise UsageError(
            f"{lacking.scene.folder}: has no {', '.join(lacking.missing)}, which {recipe.name} cannot do "
            "without; choose fp-cae-add, fp-cae-concat or fp-cae, or leave the scene out"
        )


def _are_scenes(source: Path, recipe: Recipe) -> bool:
    """Whether ``source`` is opened as scenes, by what is there and what ``recipe`` is made for."""
    if _describes_scenes(source):
        return True
    parts = [RESIDUALS.get(recipe.residual.name), *(TERMS.get(term.name) for term in recipe.loss)]
    for_sensors = any("modalities" in inspect.signature(part).parameters for part in parts if part)
    return for_sensors and holds_scenes(source)


def _describes_scenes(source: Path) -> bool:
    if source.name == MODALITIES_FILE or (source / MODALITIES_FILE).is_file():
        return True
    return source.suffix.lower() in {".yaml", ".yml"} and not source.is_dir()


def _refuse_image_settings(recipe: Recipe) -> None:
    if recipe.memory is not None:
        raise RecipeError(f"{recipe.name}: has a memory, which is for images; fit scenes with fp-cae-add")
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
    have = f"{_counted(count, 'square')} of {side} × {side} pixels"
    if count == 0:
        return CalibrationError(f"{source}: the scenes give {have} to calibrate on; add scenes")
    return CalibrationError(
        f"{source}: the scenes give {have} to calibrate on, which can promise a false-reject rate of "
        f"{100 / (count + 1):.3g} % at best; {100 * rate:.3g} % needs {needed(rate)}: add scenes, or pass "
        f"--false-reject-rate {_rounded_up(1 / (count + 1))}"
    )


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _notes(model: Autoencoder, images: PatchSource, recipe: Recipe) -> tuple[str, ...]:
    """What became of an alignment, seen on one patch of each of ``images``."""
    if model.alignment is None:
        return ()
    patches = RandomPatches(images, recipe.patch.size, seed=recipe.training.seed, start=0, stop=len(images))
    poseless = 0
    for patch in raising(patches[index] for index in range(len(patches))):
        poseless += int(model.alignment.poseless(patch[None]).sum())
    if poseless == 0:
        return ()
    return (
        f"{poseless} of {len(images)} held-out patches have no dominant orientation and were left unturned; "
        "where that is most of them, a recipe without alignment serves as well.",
    )


def check_recipe(recipe: Recipe, modalities: Sequence[Modality] = ()) -> Autoencoder:
    """Try the parts of ``recipe`` on empty patches, so that what does not fit is found before hours of work.

    The untrained network is returned. Without ``modalities`` the patches are images of as many channels as the
    recipe says, or three.

    Raises
    ------
    RecipeError
        Naming the recipe, the part and the mend.
    """
    channels = sum(modality.channels for modality in modalities) or recipe.image.channels or 3
    # Two, where training has as many: batch normalisation cannot learn from one.
    patches = torch.zeros(min(2, recipe.training.batch), channels, recipe.patch.size, recipe.patch.size)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model = build(recipe, channels, modalities=modalities)
            model.loss(patches)
            model.examine(patches)
            if model.pretraining:
                model.pretraining_loss(patches)
    except UsageError as error:
        raise RecipeError(f"{recipe.name}: {error}") from None
    if recipe.memory is not None and recipe.threshold.rule == "train-mean":
        raise RecipeError(
            f"{recipe.name}: threshold.rule train-mean scores the training images, which its memory knows by heart; "
            "set threshold.rule=conformal"
        )
    return model


def _sheet(model: Autoencoder, images: PatchSource, recipe: Recipe) -> NDArray[np.uint8] | None:
    """Training patches with and without their synthetic blemishes, where ``model`` is trained on such."""
    if not any(corruption.name == "blemishes" for corruption in recipe.corruption):
        return None
    patches = RandomPatches(images, recipe.patch.size, seed=recipe.training.seed, start=0, stop=SHOWN)
    batch = torch.stack(list(raising(patches[index] for index in range(SHOWN))))
    return contact_sheet(model, batch, recipe.training.seed)


def _read(
    images: Path, recipe: Recipe, observer: Observer, scale: float | None = None
) -> tuple[Fingerprint, dict[str, Item]]:
    """The fingerprint of all good images that can be used, and those images by name.

    ``scale`` is that of the model to go on from, where it has one.
    """
    patch, image = recipe.patch.size, recipe.image
    side: int | None = patch if image.size is None else None
    if image.size is not None and image.scale == "common":
        scale = scale or _common_scale(_good_images(images), image.size, patch)
        side = math.ceil(patch / scale)

    def mend(shorter: int) -> str:
        if image.size is not None:
            return "leave it out, or fit with --set image.scale=each"
        side = shorter // 16 * 16
        smaller = f"--set patch.size={side} --set patch.stride={side // 2} or " if side else ""
        return f"leave it out, or fit with {smaller}--set image.size={patch}"

    return usable_images(
        images,
        channels=recipe.image.channels,
        patch=side,
        mend=mend,
        observer=observer,
    )


def _common_scale(items: Sequence[Item], size: int, patch: int) -> float:
    """By which the median of ``items`` comes to ``size``, without those that are then less than half a patch."""
    sides = []
    for item in items:
        with suppress(ImageError):  # spoken of when the whole file is read
            info = image_info(item.path)
            sides.append((info.width, info.height))
    while sides:
        scale: float = size / min(statistics.median(some) for some in zip(*sides, strict=True))
        stay = [both for both in sides if min(both) >= smallest_side(math.ceil(patch / scale))]
        if len(stay) == len(sides):
            return scale
        sides = stay
    return 1.0


def _good_images(images: Path) -> list[Item]:
    return [item for item in find_images(images) if item.is_good is not False and item.split != "test"]


def images_sha256(images: str | Path, recipe: Recipe) -> str:
    """What the fingerprint of ``images`` would be in a model fitted on them now."""
    source = Path(images)
    if _are_scenes(source, recipe):
        return open_scenes(source, patch=recipe.patch.size, observer=Observer()).fingerprint.sha256
    return _read(source, recipe, Observer())[0].sha256


def _split(usable: dict[str, Item], recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Names for training, validation and calibration; refuses a promise that they cannot carry."""
    rule = recipe.threshold
    least = _to_hold_out(rule)
    _, validation, calibration = plan_split(len(usable), needed=least)
    if rule.rule == "conformal" and calibration < least:
        most = len(usable) // 2  # plan_split holds out no more than half
        raise CalibrationError(
            f"{len(usable)} good images can promise a false-reject rate of {100 * _best(most, rule):.3g} % at "
            f"best, with {most} of them held out to calibrate on; {100 * rule.false_reject_rate:.3g} % needs "
            f"{least} to calibrate on: give at least {2 * least} good images, or pass "
            f"--false-reject-rate {_rounded_up(_best(most, rule))}"
        )
    split = split_good(
        list(usable),
        seed=recipe.training.seed,
        validation=validation,
        calibration=calibration,
        groups=_things(usable),
    )
    return {"train": split.train, "validation": split.validation, "calibration": split.calibration}


def _things(usable: dict[str, Item]) -> dict[str, tuple[str, bool]]:
    return {name: item.group_key for name, item in usable.items()}


def _to_hold_out(rule: ThresholdSettings) -> int:
    """How many calibration images carry the promise of ``rule`` once it has left out its share of them."""
    count = least = needed(rule.false_reject_rate)
    while count - int(at_most(rule.trim) * count + 1e-9) < least:
        count += 1
    return count


def _best(count: int, rule: ThresholdSettings) -> float:
    """The lowest rate that ``count`` calibration images can promise."""
    return 1 / (count - int(at_most(rule.trim) * count + 1e-9) + 1)


def _split_going_on(
    source: Path, usable: dict[str, Item], known: dict[str, str], recipe: Recipe
) -> dict[str, tuple[str, ...]]:
    """:func:`_split` where the images in ``known``, and with them their groups, have their part already."""
    things = _things(usable)
    settled = {things[name]: part for name, part in known.items()}
    joining = {name: settled[thing] for name, thing in things.items() if thing in settled}
    if all(name in known for name in usable):
        raise UsageError(f"{source}: holds no image that is new to the model; add new good ones")
    fixed = {**joining, **known}
    new = [name for name in usable if name not in fixed]
    parts = {part: [name for name in fixed if fixed[name] == part] for part in PARTS}
    rule = recipe.threshold
    least = _to_hold_out(rule)
    if len(new) >= 3:
        _, validation, calibration = plan_split(len(new), needed=max(1, least - len(parts["calibration"])))
        drawn = split_good(
            new, seed=recipe.training.seed, validation=validation, calibration=calibration, groups=things
        )
        for part in PARTS:
            parts[part] += getattr(drawn, part)
    else:
        parts["train"] += new
    count = len(parts["calibration"])
    if not parts["validation"] or not count:
        raise UsageError(
            f"{source}: {_counted(len(new), 'new image')} cannot train, validate and calibrate; give at "
            "least 3, or a folder that holds the earlier ones too"
        )
    if rule.rule == "conformal" and count < least:
        raise CalibrationError(
            f"{source}: gives {_counted(count, 'image')} to calibrate on that no training saw, which can promise "
            f"a false-reject rate of {100 * _best(count, rule):.3g} % at best; "
            f"{100 * rule.false_reject_rate:.3g} % needs {least}: add good images, give a folder that holds the "
            f"earlier ones too, or pass --false-reject-rate {_rounded_up(_best(count, rule))}"
        )
    return {part: tuple(sorted(parts[part])) for part in PARTS}


def _new_and_old(split: dict[str, tuple[str, ...]], known: dict[str, str]) -> str:
    """Of each part, what the model that this one goes on from has seen: a sentence for the card."""
    told = []
    for part, names in split.items():
        old = sum(name in known for name in names)
        told.append(f"{len(names) - old} new and {old} earlier for {part}")
    return f"Of these images, {', '.join(told)}; an image keeps its part, known by the bytes of its file."


def _seen(
    split: dict[str, tuple[str, ...]], sha256: dict[str, str], before: dict[str, str]
) -> dict[str, str]:
    """The part of each image by its SHA-256; of equal ones in two parts, the one nearer to the training."""
    now = {sha256[name]: part for part in ("calibration", "validation", "train") for name in split[part]}
    return {**now, **before}


def _rounded_up(rate: float) -> float:
    return -(-rate * 1000 // 1) / 1000


def _measure(
    detector: Detector,
    items: Sequence[Item],
    observer: Observer,
    doing: str = "calibrating; the trained network",
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scores and map maxima of ``items``; ``doing`` says what for, and what is in the checkpoint if it stops."""
    scores: list[float] = []
    peaks: list[float] = []
    for done, item in enumerate(items, start=1):
        if observer.should_stop():
            raise Stopped(f"stopped while {doing} is in the checkpoint")
        measured = detector.measure(read_image(item.path))
        scores.append(measured.score)
        peaks.append(float(measured.map.max()))
        observer.count(done, len(items))
    return tuple(scores), tuple(peaks)


# -- what fits of detectors and of JPEG encoders share -------------------------------------------------


def output_folder(out: str | Path | None, *, resume: bool, overwrite: bool) -> Path | None:
    """``out`` as a path; refuses options that contradict each other."""
    if resume and overwrite:
        raise UsageError("--resume goes on with what is there, --overwrite replaces it; give one")
    if resume and out is None:
        raise UsageError("resume needs the folder that holds the checkpoint; give out")
    return None if out is None else Path(out)


def is_unfinished(folder: Path) -> bool:
    """Whether ``folder`` holds the checkpoint of a fit that was interrupted."""
    return os.path.exists(folder / CHECKPOINT / STATE_FILE)


def claim_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse what could only fail after training, and what an earlier fit left unless told to replace it."""
    refuse_unwritable(folder)
    unfinished = is_unfinished(folder)
    if overwrite:
        shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    elif resume and unfinished:
        return  # a model beside it is what an interrupted --overwrite has yet to replace
    elif os.path.exists(folder / MODEL_FILE):
        raise UsageError(
            f"{folder}: already holds a finished model; choose another --out or pass --overwrite"
        )
    elif unfinished:
        raise UsageError(
            f"{folder}: holds the checkpoint of an unfinished fit; go on with --resume or pass --overwrite"
        )


def refuse_unwritable(folder: Path) -> None:
    """Refuse an output folder that could not be made or written to, before any work.

    Raises
    ------
    ModelError
        Naming the folder, or the nearest one above it that is there.
    """
    for there in (folder, *folder.absolute().parents):
        try:
            is_folder = stat.S_ISDIR(there.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ModelError(there, f"cannot be used ({error.strerror})", "choose another --out") from None
        if not is_folder:
            raise ModelError(there, "is a file, so nothing can be written here", "choose another --out")
        if not os.access(there, os.W_OK | os.X_OK):
            raise ModelError(there, "no permission to write here", "choose another --out")
        return


def usable_images(
    images: Path,
    *,
    channels: int | None,
    patch: int | None,
    mend: Callable[[int], str],
    observer: Observer,
    one: str = "good image",
    many: str = "images",
) -> tuple[Fingerprint, dict[str, Item]]:
    """The fingerprint of all images in ``images`` that can be fitted on, and those images by name.

    Parameters
    ----------
    channels: what each is converted to; None keeps them.
    patch: side in pixels; images of less than half a patch are left out. None takes all sizes.
    mend: what to do with such an image, by its shorter side.
    one, many: what the images are called.

    Raises
    ------
    FileError
        When there is none.
    Stopped
        When the observer asked to stop.
    """
    items = _good_images(images)
    if patch is not None:
        items = [item for item in items if not _refuse_small(item, patch, mend, observer)]
    if not items:
        raise FileError(images, f"holds no {one} that can be used", "mend the images above, or add others")

    def count(done: int, total: int) -> None:
        observer.count(done, total)
        if observer.should_stop():
            raise Stopped(f"stopped after reading {done} of {total} {many}, before training")

    data, usable, problems = fingerprint(items, channels=channels, progress=count)
    for problem in problems:
        observer.problem(problem)
    return data, {item.name: item for item in usable}


def _refuse_small(item: Item, patch: int, mend: Callable[[int], str], observer: Observer) -> bool:
    try:
        info = image_info(item.path)
    except ImageError:
        return False  # fingerprint() reads the whole file and says what is wrong with it
    shorter = min(info.height, info.width)
    if shorter >= smallest_side(patch):
        return False
    problem = f"is {info.width} × {info.height} pixels, less than half a {patch}-pixel patch"
    observer.problem(ImageError(item.path, problem, mend(shorter)))
    return True


def train_for(
    folder: Path | None,
    model: Trainable,
    recipe: Recipe | DeepRecipe,
    images: PatchSource,
    validation: PatchSource,
    *,
    machine: Machine,
    data: Fingerprint,
    split: dict[str, tuple[str, ...]],
    resume: bool,
    observer: Observer,
    trimming: Trimming | None = None,
    going_on_from: str | None = None,
) -> Training:
    """Train ``model`` in place, with its checkpoint in ``folder``, and say how it went.

    Parameters
    ----------
    data, split: of the images; a checkpoint of others, or of another recipe, is refused.
    resume: go on from the checkpoint, if there is one.
    trimming: for ``training.trim``.
    going_on_from: SHA-256 of the weights that ``model`` has from an earlier training, its pretraining included.

    Raises
    ------
    RecipeError
        When the recipe has a ``training.trim`` and there is no ``trimming``.
    Stopped
        When the observer asked to stop; the checkpoint is in ``folder``.
    """
    if recipe.training.trim and trimming is None:
        raise RecipeError(f"{recipe.name}: training.trim is for detectors; set it to 0")
    state = train(
        model,
        images,
        validation,
        recipe.training,
        patch=recipe.patch.size,
        machine=machine,
        checkpoint=folder / CHECKPOINT if folder else None,
        identity={
            **_identity(recipe, data, split),
            **({"model to go on from": going_on_from} if going_on_from else {}),
        },
        resume=resume and folder is not None and is_unfinished(folder),
        pretrained=going_on_from is not None,
        trimming=trimming,
        stop=observer.should_stop,
        on_progress=observer.training,
    )
    return Training(
        steps=state.step,
        best_step=state.best_step,
        best_loss=state.best_loss,
        seconds=state.seconds,
        machine=str(machine),
        history=tuple(state.history),
        budget=recipe.training.budget,
        left_out=tuple(split["train"][number] for number in state.left_out or ()),
    )


def _identity(recipe: BaseModel, data: Fingerprint, split: dict[str, tuple[str, ...]]) -> dict[str, object]:
    """What a checkpoint must share with a run that resumes it."""
    later = {"score": True, "threshold": True, "training": {"steps", "budget", "patience", "device"}}
    return {
        **dotted_settings(recipe, {**WORDS, **later}),
        "set of images": data.sha256,
        "split": {part: len(names) for part, names in split.items()},
    }


def finish(fitted: Detector | DeepEncoder, folder: Path, sheet: NDArray[np.uint8] | None = None) -> None:
    """Save what was fitted, with the contact sheet (H, W, 3) of its synthetic blemishes; its checkpoint has served."""
    if sheet is None:
        (folder / SHEET_FILE).unlink(missing_ok=True)  # that of the model before
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
    """The fit of ``recipe`` in ``folder``; one that is finished is not done again, one that was stopped goes on.

    Parameters
    ----------
    title: what the observer is told before anything is fitted.
    load: reads a finished fit.
    fit: fits into ``folder``; is told whether to resume.
    sha256: of the images as they are now.
    images: what they are called.

    Raises
    ------
    UsageError
        When the finished fit has other settings, or is of other images.
    """
    if os.path.exists(folder / MODEL_FILE):
        fitted = load(folder)
        refuse_other_settings(folder, fitted.recipe, recipe)
        if sha256() != fitted.file.fingerprint.sha256:
            raise UsageError(f"{folder}: was fitted on other {images}; choose another --out")
        return fitted
    observer.stage(title)
    return fit(is_unfinished(folder))


def refuse_other_settings(model: Path, before: BaseModel, now: BaseModel) -> None:
    """Refuse to take ``model``, fitted with the recipe ``before``, for a fit with the recipe ``now``.

    Raises
    ------
    UsageError
        Naming the first setting that differs, with both its values.
    """
    fitted, asked = dotted_settings(before, WORDS), dotted_settings(now, WORDS)
    for key in [*asked, *fitted]:
        if fitted.get(key) != asked.get(key):
            raise UsageError(
                f"{model}: was fitted with {key} {_said(fitted, key)}, not {_said(asked, key)}; "
                f"choose another --out, or remove that folder"
            )


def _said(settings: dict[str, Any], key: str) -> str:
    return str(settings[key]) if key in settings else "unset"


def dotted_settings(recipe: BaseModel, without: dict[str, Any]) -> dict[str, Any]:
    """``recipe`` as dotted keys and their values."""
    chosen = recipe.model_dump(mode="json", exclude=without)
    return {
        f"{group}.{key}".removesuffix("."): value
        for group, content in chosen.items()
        for key, value in (content.items() if isinstance(content, dict) else [("", content)])
    }
