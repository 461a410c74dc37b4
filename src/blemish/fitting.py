"""From a folder of good pictures to a calibrated inspector."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from blemish._version import __version__
from blemish.detect import needed
from blemish.errors import (
    CalibrationError,
    FileError,
    ModelError,
    PictureError,
    RecipeError,
    Stopped,
    UsageError,
)
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
    check_rate,
    versions,
    weights_of,
)
from blemish.models import Autoencoder, build
from blemish.observer import Observer
from blemish.recipes import Recipe, load_recipe, override
from blemish.training import STATE_FILE, PreparedPictures, choose_machine, train
from blemish.training.patches import RandomPatches, raising

CHECKPOINT = "checkpoint"
# What a recipe says in words: it changes no figure.
_WORDS = {"title": True, "paper": True, "expect": True, "needs": True}


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
        check_rate(false_reject_rate)
        promise = ["threshold.rule=conformal", f"threshold.false_reject_rate={false_reject_rate}"]
        chosen = override(chosen, promise)
    if resume and out is None:
        raise UsageError("resume needs the folder that holds the checkpoint; give out")
    check_recipe(chosen)
    machine = choose_machine(chosen.training.device, chosen.training.precision)
    folder = Path(out) if out is not None else None
    if folder is not None:
        _claim(folder, resume=resume, overwrite=overwrite)

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
        resume=resume and folder is not None and is_unfinished(folder),
        stop=observer.should_stop,
        on_progress=observer.training,
    )
    notes = _notes(model, PreparedPictures(parts["calibration"], preparation, chosen.patch.size), chosen)
    for note in notes:
        observer.stage(note)
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
            notes=notes,
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


def _notes(model: Autoencoder, pictures: PreparedPictures, recipe: Recipe) -> tuple[str, ...]:
    """What became of an alignment, seen on one patch of each of ``pictures``."""
    if model.alignment is None:
        return ()
    patches = RandomPatches(
        pictures, recipe.patch.size, seed=recipe.training.seed, start=0, stop=len(pictures)
    )
    poseless = 0
    for patch in raising(patches[index] for index in range(len(patches))):
        poseless += int(model.alignment.poseless(patch[None]).sum())
    if poseless == 0:
        return ()
    return (
        f"{poseless} of {len(pictures)} held-out patches have no dominant orientation and were left unturned; "
        "where that is most of them, a recipe without alignment serves as well.",
    )


def check_recipe(recipe: Recipe) -> None:
    """Try the parts of ``recipe`` on empty patches, so that what does not fit is found before hours of work.

    Raises
    ------
    RecipeError
        Naming the recipe, the part and the mend.
    """
    channels = recipe.picture.channels or 3
    # Two, where training has as many: batch normalisation cannot learn from one.
    patches = torch.zeros(min(2, recipe.training.batch), channels, recipe.patch.size, recipe.patch.size)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model = build(recipe, channels)
            model.loss(patches)
            model.examine(patches)
            if model.pretraining:
                model.pretraining_loss(patches)
    except UsageError as error:
        raise RecipeError(f"{recipe.name}: {error}") from None


def is_unfinished(folder: Path) -> bool:
    """Whether ``folder`` holds the checkpoint of a fit that was interrupted."""
    return os.path.exists(folder / CHECKPOINT / STATE_FILE)


def _claim(folder: Path, *, resume: bool, overwrite: bool) -> None:
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


def refuse_other_settings(model: Path, before: Recipe, now: Recipe) -> None:
    """Refuse to take ``model``, fitted with the recipe ``before``, for a fit with the recipe ``now``.

    Raises
    ------
    UsageError
        Naming the first setting that differs, with both its values.
    """
    fitted, asked = _settings(before, _WORDS), _settings(now, _WORDS)
    for key in [*asked, *fitted]:
        if fitted.get(key) != asked.get(key):
            raise UsageError(
                f"{model}: was fitted with {key} {_said(fitted, key)}, not {_said(asked, key)}; "
                f"choose another --out, or remove that folder"
            )


def _said(settings: dict[str, Any], key: str) -> str:
    return str(settings[key]) if key in settings else "unset"


def _settings(recipe: Recipe, without: dict[str, Any]) -> dict[str, Any]:
    """``recipe`` as dotted keys and their values."""
    chosen = recipe.model_dump(mode="json", exclude=without)
    return {
        f"{group}.{key}".removesuffix("."): value
        for group, content in chosen.items()
        for key, value in (content.items() if isinstance(content, dict) else [("", content)])
    }


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
    side = shorter // 16 * 16
    smaller = f"--set patch.size={side} --set patch.stride={side // 2} or " if side else ""
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
    least = needed(rule.false_reject_rate)
    _, validation, calibration = plan_split(len(usable), needed=least)
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
    later = {"score": True, "threshold": True, "training": {"steps", "patience", "device"}}
    return {
        **_settings(recipe, {**_WORDS, **later}),
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
