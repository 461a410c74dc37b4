"""From a folder of photographs to a trained JPEG encoder."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from blemish._version import __version__
from blemish.errors import FileError, PictureError, RecipeError, Stopped, UsageError
from blemish.fitting import (
    CHECKPOINT,
    WORDS,
    claim_folder,
    dotted_settings,
    is_unfinished,
    refuse_other_settings,
)
from blemish.images import (
    Fingerprint,
    Item,
    Preparation,
    find_pictures,
    fingerprint,
    picture_info,
    smallest_side,
    split_good,
)
from blemish.images.splits import VALIDATION_SHARE
from blemish.inspector import MODEL_FILE, Training, versions
from blemish.jpeg.deep.model import FORMAT, DeepEncoder, DeepModelFile, load, weights_of
from blemish.jpeg.deep.network import DeepJpeg
from blemish.jpeg.deep.recipe import DeepRecipe, load_deep_recipe
from blemish.observer import Observer
from blemish.recipes import override
from blemish.training import PreparedPictures, choose_machine, train

_COLOUR = Preparation(channels=3, convert=True, kind="uint8", size=None)


def fit_jpeg(
    images: str | Path,
    recipe: str | Path | DeepRecipe = "jpeg-tables",
    *,
    settings: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> DeepEncoder:
    """Train a JPEG encoder on random crops of the photographs in ``images``; a tenth of them is held out.

    Parameters
    ----------
    images: a folder of photographs, or a CSV list, of which test and defective pictures are not read. Grey ones
        count as colour.
    recipe: a name, the path of a YAML file, or a recipe.
    settings: ``key=value`` overrides of the recipe, as ``--set`` takes them.
    out: folder for the model and, while training, the checkpoint; without it nothing is written.
    resume: go on from the checkpoint in ``out``; where training had not begun, begin it.
    overwrite: replace a model or checkpoint that is already in ``out``.
    observer: told what is going on, and of each picture that cannot be used; the others are.

    Raises
    ------
    Stopped
        When the observer asked to stop; the checkpoint is in ``out``.
    RecipeError, FileError, UsageError
        In one line that names the setting or the file, and the mend.
    """
    observer = observer or Observer()
    if resume and overwrite:
        raise UsageError("--resume goes on with what is there, --overwrite replaces it; give one")
    if resume and out is None:
        raise UsageError("resume needs the folder that holds the checkpoint; give out")
    given = recipe if isinstance(recipe, DeepRecipe) else load_deep_recipe(recipe)
    chosen = override(given, list(settings))
    machine = choose_machine(chosen.training.device, chosen.training.precision)
    model = _build(chosen)
    folder = None if out is None else Path(out)
    if folder is not None:
        claim_folder(folder, resume=resume, overwrite=overwrite)

    observer.stage(f"Reading the photographs in {images}")
    data, usable = _read(Path(images), chosen, observer)
    split = _split(images, list(usable), chosen)
    pictures = {
        part: PreparedPictures([usable[name] for name in names], _COLOUR, chosen.patch.size)
        for part, names in split.items()
    }
    observer.stage(
        f"Training {chosen.name} on {len(split['train'])} photographs, {len(split['validation'])} held out "
        f"to choose the best weights; {machine}"
    )
    state = train(
        model,
        pictures["train"],
        pictures["validation"],
        chosen.training,
        patch=chosen.patch.size,
        machine=machine,
        checkpoint=folder / CHECKPOINT if folder else None,
        identity=_identity(chosen, data, split),
        resume=resume and folder is not None and is_unfinished(folder),
        stop=observer.should_stop,
        on_progress=observer.training,
    )
    file = DeepModelFile(
        format=FORMAT,
        blemish=__version__,
        versions=versions(),
        recipe=chosen,
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
    encoder = DeepEncoder(model, file)
    if folder is not None:
        encoder.save(folder)
        shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    return encoder


def fit_jpeg_once(
    images: Path, recipe: DeepRecipe, model: Path, *, title: str, observer: Observer
) -> DeepEncoder:
    """The fit of ``recipe`` in ``model``; one that is finished is not done again, one that was stopped goes on.

    Parameters
    ----------
    title: what the observer is told before anything is fitted.

    Raises
    ------
    UsageError
        When the finished fit has other settings, or is of other photographs.
    """
    if os.path.exists(model / MODEL_FILE):
        encoder = load(model)
        refuse_other_settings(model, encoder.recipe, recipe)
        if _read(images, recipe, Observer())[0].sha256 != encoder.file.fingerprint.sha256:
            raise UsageError(f"{model}: was fitted on other photographs; choose another --out")
        return encoder
    observer.stage(title)
    return fit_jpeg(images, recipe, out=model, resume=is_unfinished(model), observer=observer)


def check_deep_recipe(recipe: DeepRecipe) -> None:
    """Try the parts of ``recipe``, so that what does not fit is found before hours of work on others.

    Raises
    ------
    RecipeError, FileError
        Naming the recipe, the part or the weights that are missing, and the mend.
    """
    _build(recipe)


def _build(recipe: DeepRecipe) -> DeepJpeg:
    """The network with its first weights, tried on an empty patch."""
    side = recipe.patch.size
    torch.manual_seed(recipe.training.seed)
    try:
        model = DeepJpeg(recipe)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model.eval().loss(torch.zeros(1, 3, side, side))
    except RecipeError:
        raise
    except UsageError as error:
        raise RecipeError(f"{recipe.name}: {error}") from None
    return model


def _read(images: Path, recipe: DeepRecipe, observer: Observer) -> tuple[Fingerprint, dict[str, Item]]:
    """The fingerprint of all photographs that can be used, and those photographs by name."""
    found = [item for item in find_pictures(images) if item.is_good is not False and item.split != "test"]
    items = [item for item in found if not _refuse_small(item, recipe.patch.size, observer)]
    if not items:
        raise FileError(
            images, "holds no photograph that can be used", "mend the pictures above, or add others"
        )

    def count(done: int, total: int) -> None:
        observer.count(done, total)
        if observer.should_stop():
            raise Stopped(f"stopped after reading {done} of {total} photographs, before training")

    data, usable, problems = fingerprint(items, channels=_COLOUR.channels, progress=count)
    for problem in problems:
        observer.problem(problem)
    if data.kind != _COLOUR.kind:
        raise FileError(
            images,
            "holds pictures that are not of 8 bits a channel, as a JPEG's are",
            "convert them to 8 bits",
        )
    return data, {item.name: item for item in usable}


def _refuse_small(item: Item, patch: int, observer: Observer) -> bool:
    try:
        info = picture_info(item.path)
    except PictureError:
        return False  # fingerprint() reads the whole file and says what is wrong with it
    if min(info.height, info.width) >= smallest_side(patch):
        return False
    observer.problem(
        PictureError(
            item.path,
            f"is {info.width} × {info.height} pixels, less than half a {patch}-pixel patch",
            "leave it out, or fit with a smaller --set patch.size",
        )
    )
    return True


def _split(images: str | Path, names: list[str], recipe: DeepRecipe) -> dict[str, tuple[str, ...]]:
    if len(names) < 2:
        raise FileError(images, "holds one photograph that can be used", "add one to choose the weights by")
    held_out = max(1, round(VALIDATION_SHARE * len(names)))
    split = split_good(names, seed=recipe.training.seed, calibration=0, validation=held_out)
    return {"train": split.train, "validation": split.validation}


def _identity(recipe: DeepRecipe, data: Fingerprint, split: dict[str, tuple[str, ...]]) -> dict[str, object]:
    """What a checkpoint must share with a run that resumes it."""
    later: dict[str, Any] = {**WORDS, "training": {"steps", "patience", "device"}}
    return {
        **dotted_settings(recipe, later),
        "set of pictures": data.sha256,
        "split": {part: len(names) for part, names in split.items()},
    }
