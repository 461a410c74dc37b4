"""From a folder of good pictures to a calibrated inspector."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from blemish._version import __version__
from blemish.detect import needed
from blemish.errors import CalibrationError, FileError, ModelError, PictureError, Stopped, UsageError
from blemish.images import (
    Fingerprint,
    Item,
    Preparation,
    find_pictures,
    fingerprint,
    picture_info,
    plan_split,
    read_picture,
    smallest_side,
    split_good,
)
from blemish.inspector import (
    FORMAT,
    MODEL_FILE,
    Calibration,
    Inspector,
    ModelFile,
    Training,
    versions,
    weights_of,
)
from blemish.models import build
from blemish.observer import Observer
from blemish.recipes import Recipe, load_recipe, override
from blemish.training import PreparedPictures, choose_machine, train

CHECKPOINT = "checkpoint"


def fit(
    images: str | Path,
    recipe: str | Path | Recipe = "ssim-ae",
    *,
    settings: Sequence[str] = (),
    false_reject_rate: float | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> Inspector:
    """Learn what the good pictures in ``images`` look like, and calibrate the reject decision on them.

    Parameters
    ----------
    images: a folder of good pictures, or a CSV list, of which test and defective pictures are not read.
    recipe: a name, the path of a YAML file, or a recipe.
    settings: ``key=value`` overrides of the recipe, as ``--set`` takes them.
    false_reject_rate: share of good pictures that may be rejected, instead of the recipe's.
    out: folder for the model and, while training, the checkpoint; without it nothing is written.
    resume: go on from the checkpoint in ``out``; where training had not begun, begin it.
    overwrite: replace a model or checkpoint that is already in ``out``.
    observer: told what is going on, and of each picture that cannot be used; the others are.

    Raises
    ------
    CalibrationError
        Before training, when the pictures are too few to promise the false-reject rate.
    Stopped
        When the observer asked to stop; the checkpoint is in ``out``.
    RecipeError, FileError, UsageError
        In one line that names the setting or the file, and the mend.
    """
    observer = observer or Observer()
    if resume and overwrite:
        raise UsageError("--resume goes on with what is there, --overwrite replaces it; give one")
    chosen = override(recipe if isinstance(recipe, Recipe) else load_recipe(recipe), list(settings))
    if false_reject_rate is not None:
        promise = ["threshold.rule=conformal", f"threshold.false_reject_rate={false_reject_rate}"]
        chosen = override(chosen, promise)
    folder = Path(out) if out is not None else None
    if folder is not None:
        _claim(folder, resume=resume, overwrite=overwrite)
    elif resume:
        raise UsageError("resume needs the folder that holds the checkpoint; give out")
    machine = choose_machine(chosen.training.device, chosen.training.precision)

    observer.stage(f"Reading the good pictures in {images}")
    data, usable = _read(Path(images), chosen, observer)
    split = _split(usable, chosen)
    parts = {part: [usable[name] for name in names] for part, names in split.items()}
    preparation = Preparation(
        channels=data.channels,
        convert=chosen.picture.channels is not None,
        kind=data.kind,
        size=chosen.picture.size,
    )

    observer.stage(
        f"Training {chosen.name} on {len(parts['train'])} pictures, "
        f"{len(parts['validation'])} held out for early stopping, "
        f"{len(parts['calibration'])} for the decision; {machine}"
    )
    torch.manual_seed(chosen.training.seed)
    model = build(chosen, data.channels)
    state = train(
        model,
        PreparedPictures(parts["train"], preparation, chosen.patch.size),
        PreparedPictures(parts["validation"], preparation, chosen.patch.size),
        chosen.training,
        patch=chosen.patch.size,
        machine=machine,
        checkpoint=folder / CHECKPOINT if folder else None,
        identity=_identity(chosen, data, split),
        resume=resume and folder is not None and (folder / CHECKPOINT).exists(),
        stop=observer.should_stop,
        on_progress=observer.training,
    )
    file = ModelFile(
        format=FORMAT,
        blemish=__version__,
        versions=versions(),
        recipe=chosen,
        preparation=preparation,
        calibration=Calibration(scores=(), peaks=()),
        fingerprint=data,
        split=split,
        training=Training(
            steps=state.step,
            best_step=state.best_step,
            best_loss=state.best_loss,
            seconds=state.seconds,
            machine=str(machine),
            history=tuple(state.history),
        ),
        weights_sha256=hashlib.sha256(weights_of(model)).hexdigest(),
    )
    inspector = Inspector(model, file)
    observer.stage(f"Calibrating the decision on {len(parts['calibration'])} held-out good pictures")
    scores, peaks = _measure(inspector, parts["calibration"], observer)
    training_scores: tuple[float, ...] = ()
    if chosen.threshold.rule == "train-mean":
        observer.stage(f"Scoring the {len(parts['train'])} training pictures, whose mean is the threshold")
        training_scores, _ = _measure(inspector, parts["train"], observer)
    calibration = Calibration(scores=scores, peaks=peaks, training_scores=training_scores)
    inspector = Inspector(model, file.model_copy(update={"calibration": calibration}))
    if folder is not None:
        inspector.save(folder)
        shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    return inspector


def _claim(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse what could only fail after training, and what an earlier fit left unless told to replace it."""
    _refuse_unwritable(folder)
    checkpoint = folder / CHECKPOINT
    if overwrite:
        shutil.rmtree(checkpoint, ignore_errors=True)
    elif resume and checkpoint.exists():
        return  # a model beside it is what an interrupted --overwrite has yet to replace
    elif (folder / MODEL_FILE).exists():
        raise UsageError(
            f"{folder}: already holds a finished model; choose another --out or pass --overwrite"
        )
    elif checkpoint.exists() and not resume:
        raise UsageError(
            f"{folder}: holds the checkpoint of an unfinished fit; go on with --resume or pass --overwrite"
        )


def _refuse_unwritable(folder: Path) -> None:
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ModelError(there, "is a file, so no model can be written here", "choose another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ModelError(there, "no permission to write here", "choose another --out")


def _read(images: Path, recipe: Recipe, observer: Observer) -> tuple[Fingerprint, dict[str, Item]]:
    """The fingerprint of all good pictures that can be used, and those pictures by name."""
    items = [item for item in find_pictures(images) if item.is_good is not False and item.split != "test"]
    if recipe.picture.size is None:
        items = [item for item in items if not _refuse_small(item, recipe.patch.size, observer)]
    if not items:
        raise FileError(
            images, "holds no good picture that can be used", "mend the pictures above, or add others"
        )

    def count(done: int, total: int) -> None:
        observer.count(done, total)
        if observer.should_stop():
            raise Stopped(f"stopped after reading {done} of {total} pictures, before training")

    data, usable, problems = fingerprint(items, channels=recipe.picture.channels, progress=count)
    for problem in problems:
        observer.problem(problem)
    return data, {item.name: item for item in usable}


def pictures_sha256(images: str | Path, recipe: Recipe) -> str:
    """What the fingerprint of ``images`` would be in a model fitted on them now."""
    return _read(Path(images), recipe, Observer())[0].sha256


def _refuse_small(item: Item, patch: int, observer: Observer) -> bool:
    try:
        info = picture_info(item.path)
    except PictureError:
        return False  # fingerprint() reads the whole file and says what is wrong with it
    shorter = min(info.height, info.width)
    if shorter >= smallest_side(patch):
        return False
    smaller = f"--set patch.size={shorter // 16 * 16} or " if shorter >= 16 else ""
    observer.problem(
        PictureError(
            item.path,
            f"is {info.width} × {info.height} pixels, less than half a {patch}-pixel patch",
            f"leave it out, or fit with {smaller}--set picture.size={patch}",
        )
    )
    return True


def _split(usable: dict[str, Item], recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Names for training, validation and calibration; refuses a promise that they cannot carry."""
    rule = recipe.threshold
    _, validation, calibration = plan_split(len(usable), false_reject_rate=rule.false_reject_rate)
    least = needed(rule.false_reject_rate)
    if rule.rule == "conformal" and calibration < least:
        most = len(usable) // 2  # plan_split holds out no more than half
        raise CalibrationError(
            f"{len(usable)} good pictures can promise a false-reject rate of {100 / (most + 1):.3g} % at "
            f"best, with {most} of them held out to calibrate on; {100 * rule.false_reject_rate:.3g} % needs "
            f"{least} to calibrate on: give at least {2 * least} good pictures, or pass "
            f"--false-reject-rate {_rounded_up(1 / (most + 1))}"
        )
    split = split_good(
        list(usable), seed=recipe.training.seed, validation=validation, calibration=calibration
    )
    return {"train": split.train, "validation": split.validation, "calibration": split.calibration}


def _rounded_up(rate: float) -> float:
    return -(-rate * 1000 // 1) / 1000


def _identity(recipe: Recipe, data: Fingerprint, split: dict[str, tuple[str, ...]]) -> dict[str, object]:
    """What a checkpoint must share with a run that resumes it."""
    chosen = recipe.model_dump(
        mode="json",
        exclude={
            "title": True, "paper": True, "expect": True, "needs": True, "score": True, "threshold": True,
            "training": {"steps", "patience", "device"},
        },
    )  # fmt: skip
    settings = {
        f"{group}.{key}": value
        for group, content in chosen.items()
        for key, value in (content.items() if isinstance(content, dict) else [("", content)])
    }
    return {
        **{key.removesuffix("."): value for key, value in settings.items()},
        "set of pictures": data.sha256,
        "split": {part: len(names) for part, names in split.items()},
    }


def _measure(
    inspector: Inspector, items: Sequence[Item], observer: Observer
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scores and map maxima of ``items``."""
    scores: list[float] = []
    peaks: list[float] = []
    for done, item in enumerate(items, start=1):
        if observer.should_stop():
            raise Stopped("stopped while calibrating; the trained network is in the checkpoint")
        measured = inspector.measure(read_picture(item.path))
        scores.append(measured.score)
        peaks.append(float(measured.map.max()))
        observer.count(done, len(items))
    return tuple(scores), tuple(peaks)
