"""From a folder of good pictures, or of scenes that several sensors saw, to a calibrated inspector."""

from __future__ import annotations

import inspect
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from pydantic import BaseModel

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
    MODALITIES_FILE,
    Fingerprint,
    Item,
    Modality,
    Preparation,
    find_pictures,
    fingerprint,
    holds_scenes,
    picture_info,
    plan_split,
    read_picture,
    smallest_side,
    split_good,
)
from blemish.inspector import FORMAT, Calibration, Inspector, ModelFile, Training, check_rate, versions
from blemish.model_folder import MODEL_FILE, weights_sha256
from blemish.models import Autoencoder, build
from blemish.models.registry import RESIDUALS, TERMS
from blemish.observer import Observer
from blemish.panels.bands import calibration_squares, sides_for
from blemish.panels.opening import open_panels
from blemish.panels.scoring import score_squares
from blemish.recipes import Recipe, load_recipe, override
from blemish.training import STATE_FILE, Machine, PreparedPictures, choose_machine, train
from blemish.training.loop import Trainable
from blemish.training.panels import PanelPatches
from blemish.training.patches import PatchSource, RandomPatches, raising

if TYPE_CHECKING:
    from blemish.jpeg.deep.model import DeepEncoder
    from blemish.jpeg.deep.recipe import DeepRecipe

    Fitted = TypeVar("Fitted", Inspector, DeepEncoder)

CHECKPOINT = "checkpoint"
PARTS = ("train", "validation", "calibration")
# What a recipe says in words: it changes no figure.
WORDS = {"title": True, "paper": True, "expect": True, "needs": True}


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
    images: a folder of good pictures, or a CSV list, of which test and defective pictures are not read; or
        scenes (:func:`blemish.images.find_scenes`). Any recipe takes scenes that a ``modalities.yaml``
        describes, with all their channels together. Recipes for several sensors also take folders of
        pictures for scenes (:func:`blemish.images.holds_scenes`); other pictures they take for one modality.
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
    folder = output_folder(out, resume=resume, overwrite=overwrite)
    chosen = override(recipe if isinstance(recipe, Recipe) else load_recipe(recipe), list(settings))
    if false_reject_rate is not None:
        check_rate(false_reject_rate)
        promise = ["threshold.rule=conformal", f"threshold.false_reject_rate={false_reject_rate}"]
        chosen = override(chosen, promise)
    source = Path(images)
    are_scenes = _are_scenes(source, chosen)
    if not are_scenes:
        check_recipe(chosen)
    machine = choose_machine(chosen.training.device, chosen.training.precision)
    if folder is not None:
        claim_folder(folder, resume=resume, overwrite=overwrite)

    material: _Material = (_Scenes if are_scenes else _Pictures)(source, chosen, observer)
    preparation = material.preparation
    observer.stage(f"Training {chosen.name} on {material.announced()}; {machine}")
    torch.manual_seed(chosen.training.seed)
    model = build(chosen, preparation.channels, modalities=preparation.modalities)
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
    )
    notes = _notes(model, material.patches("calibration"), chosen)
    for note in notes:
        observer.stage(note)
    file = ModelFile(
        format=FORMAT,
        blemish=__version__,
        versions=versions(),
        recipe=chosen,
        preparation=preparation,
        calibration=Calibration(scores=(), peaks=(), square=material.square),
        fingerprint=material.fingerprint,
        split=material.split,
        training=training.model_copy(update={"notes": (*material.notes, *notes)}),
        weights_sha256=weights_sha256(model),
    )
    inspector = Inspector(model, file)
    observer.stage(f"Calibrating the decision on {material.scored('calibration')}")
    scores, peaks = material.measure(inspector, "calibration", observer)
    training_scores: tuple[float, ...] = ()
    if chosen.threshold.rule == "train-mean":
        observer.stage(f"Scoring {material.scored('train')}, whose mean is the threshold")
        training_scores, _ = material.measure(inspector, "train", observer)
    calibration = Calibration(
        scores=scores, peaks=peaks, training_scores=training_scores, square=material.square
    )
    inspector = Inspector(model, file.model_copy(update={"calibration": calibration}))
    if folder is not None:
        finish(inspector, folder)
    return inspector


class _Material(Protocol):
    """What a model is fitted on, in three parts: ``train``, ``validation`` and ``calibration``."""

    fingerprint: Fingerprint
    preparation: Preparation
    split: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]
    """What the model card is to say of it."""

    @property
    def square(self) -> int | None:
        """Side of the squares that are scored; None where whole pictures are."""

    def announced(self) -> str:
        """How much of it does what, for the user."""

    def scored(self, part: str) -> str:
        """What of ``part`` is scored, for the user."""

    def patches(self, part: str) -> PatchSource:
        """To draw patches of ``part`` from."""

    def measure(
        self, inspector: Inspector, part: str, observer: Observer
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Scores and map maxima of ``part``."""


class _Pictures:
    """Good pictures, each for itself; whole ones train, validate or calibrate."""

    square = None
    notes: tuple[str, ...] = ()

    def __init__(self, source: Path, recipe: Recipe, observer: Observer) -> None:
        observer.stage(f"Reading the good pictures in {source}")
        self.fingerprint, usable = _read(source, recipe, observer)
        self.split = _split(usable, recipe)
        self.preparation = Preparation(
            channels=self.fingerprint.channels,
            convert=recipe.picture.channels is not None,
            kind=self.fingerprint.kind,
            size=recipe.picture.size,
        )
        self._parts = {part: [usable[name] for name in names] for part, names in self.split.items()}
        self._patch = recipe.patch.size

    def announced(self) -> str:
        return (
            f"{len(self._parts['train'])} pictures, "
            f"{len(self._parts['validation'])} held out for early stopping, "
            f"{len(self._parts['calibration'])} for the decision"
        )

    def scored(self, part: str) -> str:
        which = {"calibration": "held-out good", "train": "training"}[part]
        return f"{len(self._parts[part])} {which} pictures"

    def patches(self, part: str) -> PatchSource:
        return PreparedPictures(self._parts[part], self.preparation, self._patch)

    def measure(
        self, inspector: Inspector, part: str, observer: Observer
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return _measure(inspector, self._parts[part], observer)


class _Scenes:
    """Panels of several sensors; of each, some columns train, some validate and some calibrate."""

    def __init__(self, source: Path, recipe: Recipe, observer: Observer) -> None:
        observer.stage(f"Opening the scenes in {source}")
        _refuse_picture_settings(recipe)
        opened = open_panels(source, patch=recipe.patch.size, observer=observer)
        self._panels, self._patch = opened.panels, recipe.patch.size
        self.fingerprint = opened.fingerprint
        self.notes = tuple(f"{panel.name}: {notice}." for panel in self._panels for notice in panel.notices)
        self.preparation = Preparation(
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
        return PanelPatches(self._panels, self._columns[part], flips=part == "train")

    def measure(
        self, inspector: Inspector, part: str, observer: Observer
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return score_squares(inspector, self._panels, self._columns[part], self._squares[part], observer)

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
    if source.name == MODALITIES_FILE or (source / MODALITIES_FILE).is_file():
        return True
    if source.suffix.lower() in {".yaml", ".yml"}:
        return not source.is_dir()
    parts = [RESIDUALS.get(recipe.residual.name), *(TERMS.get(term.name) for term in recipe.loss)]
    for_sensors = any("modalities" in inspect.signature(part).parameters for part in parts if part)
    return for_sensors and holds_scenes(source)


def _refuse_picture_settings(recipe: Recipe) -> None:
    for key, value in (("size", recipe.picture.size), ("channels", recipe.picture.channels)):
        if value is not None:
            raise RecipeError(
                f"{recipe.name}: picture.{key} {value} is for pictures, and scenes are read as they are; "
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


def _notes(model: Autoencoder, pictures: PatchSource, recipe: Recipe) -> tuple[str, ...]:
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


def check_recipe(recipe: Recipe, modalities: Sequence[Modality] = ()) -> Autoencoder:
    """Try the parts of ``recipe`` on empty patches, so that what does not fit is found before hours of work.

    The untrained network is returned. Without ``modalities`` the patches are pictures of as many channels as the recipe says, or three.

    Raises
    ------
    RecipeError
        Naming the recipe, the part and the mend.
    """
    channels = sum(modality.channels for modality in modalities) or recipe.picture.channels or 3
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
    return model


def _read(images: Path, recipe: Recipe, observer: Observer) -> tuple[Fingerprint, dict[str, Item]]:
    """The fingerprint of all good pictures that can be used, and those pictures by name."""
    patch = recipe.patch.size

    def mend(shorter: int) -> str:
        side = shorter // 16 * 16
        smaller = f"--set patch.size={side} --set patch.stride={side // 2} or " if side else ""
        return f"leave it out, or fit with {smaller}--set picture.size={patch}"

    return usable_pictures(
        images,
        channels=recipe.picture.channels,
        patch=patch if recipe.picture.size is None else None,
        mend=mend,
        observer=observer,
    )


def pictures_sha256(images: str | Path, recipe: Recipe) -> str:
    """What the fingerprint of ``images`` would be in a model fitted on them now."""
    source = Path(images)
    if _are_scenes(source, recipe):
        return open_panels(source, patch=recipe.patch.size, observer=Observer()).fingerprint.sha256
    return _read(source, recipe, Observer())[0].sha256


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


def usable_pictures(
    images: Path,
    *,
    channels: int | None,
    patch: int | None,
    mend: Callable[[int], str],
    observer: Observer,
    one: str = "good picture",
    many: str = "pictures",
) -> tuple[Fingerprint, dict[str, Item]]:
    """The fingerprint of all pictures in ``images`` that can be fitted on, and those pictures by name.

    Parameters
    ----------
    channels: what each is converted to; None keeps them.
    patch: side in pixels; pictures of less than half a patch are left out. None takes all sizes.
    mend: what to do with such a picture, by its shorter side.
    one, many: what the pictures are called.

    Raises
    ------
    FileError
        When there is none.
    Stopped
        When the observer asked to stop.
    """
    items = [item for item in find_pictures(images) if item.is_good is not False and item.split != "test"]
    if patch is not None:
        items = [item for item in items if not _refuse_small(item, patch, mend, observer)]
    if not items:
        raise FileError(images, f"holds no {one} that can be used", "mend the pictures above, or add others")

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
        info = picture_info(item.path)
    except PictureError:
        return False  # fingerprint() reads the whole file and says what is wrong with it
    shorter = min(info.height, info.width)
    if shorter >= smallest_side(patch):
        return False
    problem = f"is {info.width} × {info.height} pixels, less than half a {patch}-pixel patch"
    observer.problem(PictureError(item.path, problem, mend(shorter)))
    return True


def train_for(
    folder: Path | None,
    model: Trainable,
    recipe: Recipe | DeepRecipe,
    pictures: PatchSource,
    validation: PatchSource,
    *,
    machine: Machine,
    data: Fingerprint,
    split: dict[str, tuple[str, ...]],
    resume: bool,
    observer: Observer,
) -> Training:
    """Train ``model`` in place, with its checkpoint in ``folder``, and say how it went.

    Parameters
    ----------
    data, split: of the pictures; a checkpoint of others, or of another recipe, is refused.
    resume: go on from the checkpoint, if there is one.

    Raises
    ------
    Stopped
        When the observer asked to stop; the checkpoint is in ``folder``.
    """
    state = train(
        model,
        pictures,
        validation,
        recipe.training,
        patch=recipe.patch.size,
        machine=machine,
        checkpoint=folder / CHECKPOINT if folder else None,
        identity=_identity(recipe, data, split),
        resume=resume and folder is not None and is_unfinished(folder),
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
    )


def _identity(recipe: BaseModel, data: Fingerprint, split: dict[str, tuple[str, ...]]) -> dict[str, object]:
    """What a checkpoint must share with a run that resumes it."""
    later = {"score": True, "threshold": True, "training": {"steps", "patience", "device"}}
    return {
        **dotted_settings(recipe, {**WORDS, **later}),
        "set of pictures": data.sha256,
        "split": {part: len(names) for part, names in split.items()},
    }


def finish(fitted: Inspector | DeepEncoder, folder: Path) -> None:
    """Save what was fitted; its checkpoint has served."""
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
    pictures: str = "pictures",
) -> Fitted:
    """The fit of ``recipe`` in ``folder``; one that is finished is not done again, one that was stopped goes on.

    Parameters
    ----------
    title: what the observer is told before anything is fitted.
    load: reads a finished fit.
    fit: fits into ``folder``; is told whether to resume.
    sha256: of the pictures as they are now.
    pictures: what they are called.

    Raises
    ------
    UsageError
        When the finished fit has other settings, or is of other pictures.
    """
    if os.path.exists(folder / MODEL_FILE):
        fitted = load(folder)
        refuse_other_settings(folder, fitted.recipe, recipe)
        if sha256() != fitted.file.fingerprint.sha256:
            raise UsageError(f"{folder}: was fitted on other {pictures}; choose another --out")
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
