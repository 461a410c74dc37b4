"""Calibration of a detector: scores of held-out images, or of squares of scenes, and its repetition on the same images.

The scores come from the one scoring path (:mod:`blemish.detectors.scoring`), on the same images, blocks and squares
as those of an inspection: the score of a calibration square is that of the same square in an inspection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from blemish.data.datasets import find_images
from blemish.data.fingerprint import file_sha256
from blemish.data.image import read_image
from blemish.data.items import Item
from blemish.data.open_scenes import open_scenes
from blemish.decision import (
    Calibration,
    GroupedImages,
    IndependentImages,
    SceneSquares,
    ValidationImages,
    check_rate,
    trimmed,
)
from blemish.decision.classes import usual_scores
from blemish.decision.decision import Unit
from blemish.errors import FileError, ImageError, Stopped, UsageError
from blemish.inspection.detector import Detector, load
from blemish.inspection.document import SHEET_FILE, ModelFile, SceneColumns, Subject
from blemish.inspection.square_scores import (
    CALIBRATING,
    Scored,
    choose_squares,
    least_squares,
    refuse_too_few,
    score_squares,
)
from blemish.inspection.subset_calibration import calibrate_subsets
from blemish.observer import Observer
from blemish.preprocessing.area_files import read_area
from blemish.storage.atomic import write_bytes
from blemish.storage.model_folder import refuse_finished_model
from blemish.storage.run_lock import owned

AGAIN = "calibrating; nothing is written"


def score_images(
    detector: Detector, items: Sequence[Item], observer: Observer, doing: str = CALIBRATING
) -> Scored:
    """Scores and map maxima of ``items``, but for those that have become unreadable, each of which is reported.

    Parameters
    ----------
    doing: of the line that a stopped run ends with: what was being done, and what the checkpoint holds.

    Raises
    ------
    Stopped
        When the observer asked to stop.
    """
    scores: list[float] = []
    maxima: list[float] = []
    missing: list[int] = []
    classes: list[tuple[float, ...]] = []
    for number, item in enumerate(items):
        if observer.should_stop():
            raise Stopped(f"stopped while {doing}")
        try:
            found = detector.measure(read_image(item.path))
        except ImageError as problem:
            observer.problem(problem)
            missing.append(number)
        else:
            scores.append(found.score)
            maxima.append(float(found.map.max()))
            classes.append(tuple(one.score for one in found.classes))
        observer.count(number + 1, len(items))
    return Scored(tuple(scores), tuple(maxima), tuple(missing), tuple(classes) if any(classes) else ())


def _score_image(detector: Detector, item: Item) -> tuple[float, float]:
    found = detector.measure(read_image(item.path))
    return found.score, float(found.map.max())


def with_usual_scores(file: ModelFile, scored: Scored) -> ModelFile:
    """``file`` with the usual scores of its classes of regions, by good images that do not calibrate."""
    area = file.preprocessing.area
    if area is None or not scored.classes:
        return file
    preprocessing = file.preprocessing.model_copy(update={"area": area.scaled(usual_scores(scored.classes))})
    return file.model_copy(update={"preprocessing": preprocessing})


def calibrated(
    file: ModelFile,
    scored: Scored,
    training_scores: tuple[float, ...],
    unit: Callable[[Sequence[int]], Unit],
) -> ModelFile:
    """``file`` with its calibration, without the share of largest scores that is taken for defective.

    Parameters
    ----------
    scored: of the calibration images or squares; of images in the order of the split.
    training_scores: for the rule ``train-mean``.
    unit: what the scores are measured on, by the numbers of the images or squares that stay.
    """
    left_out = trimmed(scored.scores, file.recipe.threshold.trim)
    there = [
        number for number in range(len(scored.scores) + len(scored.missing)) if number not in scored.missing
    ]
    split = tuple(file.split["calibration"])
    names = [split[number] for number in there] if scored.missing else split
    stay = [number for number in range(len(scored.scores)) if number not in left_out]
    calibration = Calibration(
        scores=tuple(scored.scores[number] for number in stay),
        map_maxima=tuple(scored.map_maxima[number] for number in stay),
        training_scores=training_scores,
        left_out={str(names[number]): scored.scores[number] for number in left_out},
        unit=unit([there[number] for number in stay]),
    )
    if left_out or scored.missing:
        kept = {**file.split, "calibration": tuple(names[number] for number in stay)}
        file = file.model_copy(update={"split": kept})
    return file.model_copy(update={"calibration": calibration})


def validated(scored: Scored, training_scores: tuple[float, ...]) -> Calibration:
    """Calibration of a fit that held out no images for it: by those that chose the weights, without any promise.

    The pixel threshold and the p-values rest on them; the threshold on ``training_scores``.
    """
    return Calibration(
        scores=scored.scores,
        map_maxima=scored.map_maxima,
        training_scores=training_scores,
        unit=ValidationImages(),
    )


def unit_of_images(items: Sequence[Item]) -> Unit:
    """Independent images, or images of fewer groups than there are images."""
    groups = len({item.group_key for item in items})
    return GroupedImages(groups=groups) if groups < len(items) else IndependentImages()


# -- again, without training ---------------------------------------------------------------------------


def calibrate(
    model: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    false_reject_rate: float | None = None,
    mask: str | Path | None = None,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> Detector:
    """Calibrate the decision of a fitted model again, without training, and write the model to ``out``.

    Of images, those calibrate that calibrated before, known by the bytes of their files, and those that the model has
    never seen; what trained or stopped the training never calibrates. Of scenes, the same columns calibrate as before.

    Parameters
    ----------
    model: folder of the model; also one whose calibration of scenes is of an earlier format.
    source: the good images or scenes that it was fitted on; of images also more.
    false_reject_rate: share of good images that may be rejected, instead of the model's.
    mask: image or polygons that mark the region of interest of the new model, within that of the old one
        (:func:`blemish.preprocessing.area_files.read_area`).
    overwrite: replace a model that is already in ``out``.

    Raises
    ------
    CalibrationError
        When the images or squares are too few for the false-reject rate.
    Stopped
        When the observer asked to stop; nothing is written then.
    FileError, UsageError
        In one line that names the file or option, and the remedy.
    """
    with owned(out):
        return _calibrate(
            Path(model), Path(source), Path(out), false_reject_rate, mask, overwrite, observer or Observer()
        )


def _calibrate(
    model: Path,
    source: Path,
    folder: Path,
    false_reject_rate: float | None,
    mask: str | Path | None,
    overwrite: bool,
    observer: Observer,
) -> Detector:
    if not overwrite:
        refuse_finished_model(folder)
    detector = load(model, calibrated=False)
    if false_reject_rate is not None:
        check_rate(false_reject_rate)
        rule = detector.rule.model_copy(update={"rule": "conformal", "false_reject_rate": false_reject_rate})
        recipe = detector.recipe.model_copy(update={"threshold": rule})
        detector = detector.with_file(detector.file.model_copy(update={"recipe": recipe}))
    if mask is not None:
        detector = detector.with_judged_area(read_area(mask))
    found = calibrated_again(detector, source, observer)
    _ = found.threshold
    sheet = model / SHEET_FILE
    if sheet.is_file() and folder.absolute() != model.absolute():
        write_bytes(folder / SHEET_FILE, sheet.read_bytes())
    found.save(folder)
    return found


def calibrated_again(detector: Detector, source: Path, observer: Observer) -> Detector:
    """``detector`` with its decision calibrated anew on the images or scenes in ``source``, as :func:`calibrate` does it."""
    return detector.with_file(_CALIBRATE[detector.file.subject](detector, source, observer))


def _calibrate_images(detector: Detector, source: Path, observer: Observer) -> ModelFile:
    file = detector.file
    if not file.seen:
        raise UsageError(
            f"the model was made by Blemish {file.blemish}, which did not note which images it saw; fit a new model"
        )
    parts = parts_in(file, source)
    calibrating = parts["calibration"]
    if not calibrating:
        raise FileError(
            source, "holds no image that may calibrate the model", "give the images that it was fitted on"
        )
    observer.stage(f"Calibrating the decision on {len(calibrating)} held-out good images")
    kept: dict[str, tuple[Item, float, float]] = {}
    for done, (sha256, item) in enumerate(calibrating.items(), start=1):
        if observer.should_stop():
            raise Stopped(f"stopped while {AGAIN}")
        try:
            kept[sha256] = (item, *_score_image(detector, item))
        except ImageError as problem:
            observer.problem(problem)
        observer.count(done, len(calibrating))
    training_scores: tuple[float, ...] = ()
    if file.recipe.threshold.rule == "train-mean":
        observer.stage(f"Scoring {len(parts['train'])} training images, whose mean is the threshold")
        training = list(parts["train"].values())
        training_scores = score_images(detector, training, observer, AGAIN).scores
    usable = [item for item, _, _ in kept.values()]
    scored = Scored(
        tuple(score for _, score, _ in kept.values()), tuple(maximum for _, _, maximum in kept.values())
    )
    seen = {**dict.fromkeys(kept, "calibration"), **file.seen}
    split = {**file.split, "calibration": tuple(item.name for item in usable)}
    return calibrated(
        file.model_copy(update={"seen": seen, "split": split}),
        scored,
        training_scores,
        lambda stay: unit_of_images([usable[number] for number in stay]),
    )


def parts_in(file: ModelFile, source: Path) -> dict[str, dict[str, Item]]:
    """Good images in ``source`` by SHA-256, of each part of the split: ``train``, ``validation``, ``calibration``."""
    return _parts_of(
        file, [item for item in find_images(source) if item.is_good is not False and item.split != "test"]
    )


def _parts_of(file: ModelFile, items: Sequence[Item]) -> dict[str, dict[str, Item]]:
    """Items of each part by SHA-256, in the order of their names: by what the model has seen, and new ones.

    An image that the model has not seen calibrates, unless one of its group trained or stopped the training.
    """
    known = {file_sha256(item.path): item for item in sorted(items, key=lambda item: item.name)}
    known = {
        sha256: replace(item, group=file.groups.get(sha256)) if item.group is None else item
        for sha256, item in known.items()
    }
    settled = {item.group_key: file.seen[sha256] for sha256, item in known.items() if sha256 in file.seen}
    parts: dict[str, dict[str, Item]] = {"train": {}, "validation": {}, "calibration": {}}
    for sha256, item in known.items():
        parts[file.seen.get(sha256, settled.get(item.group_key, "calibration"))][sha256] = item
    return parts


def _calibrate_scenes(detector: Detector, source: Path, observer: Observer) -> ModelFile:
    file, recipe = detector.file, detector.recipe
    observer.stage(f"Opening the scenes in {source}")
    # A model that goes on from another one keeps the scales and ranges of the first.
    kept = file.preprocessing.modalities if file.lineage else ()
    opened = open_scenes(source, patch=recipe.patch.size, observer=observer, modalities=kept)
    if opened.fingerprint.sha256 != file.fingerprint.sha256:
        raise UsageError(
            f"{source}: holds other scenes than the model was fitted on; give those, or fit a new model"
        )
    scenes = opened.readers

    def columns(part: str) -> list[slice]:
        own = {one.scene: one for one in file.split[part] if isinstance(one, SceneColumns)}
        return [slice(own[scene.name].start, own[scene.name].stop) for scene in scenes]

    rule = recipe.threshold
    side, squares = choose_squares(scenes, columns("calibration"), recipe, least=least_squares(rule))
    refuse_too_few(source, len(squares), side, rule)
    observer.stage(f"Calibrating the decision on {len(squares)} held-out squares of {side} × {side} pixels")
    scored = score_squares(detector, scenes, squares, observer, AGAIN)
    training_scores: tuple[float, ...] = ()
    if rule.rule == "train-mean":
        _, training = choose_squares(scenes, columns("train"), recipe, sides=(side,))
        observer.stage(f"Scoring {len(training)} training squares, whose mean is the threshold")
        training_scores = score_squares(detector, scenes, training, observer, AGAIN).scores
    done = calibrated(file, scored, training_scores, lambda stay: SceneSquares(side=side))
    return calibrate_subsets(detector.with_file(done), scenes, squares, observer, AGAIN)


_CALIBRATE: Mapping[Subject, Callable[[Detector, Path, Observer], ModelFile]] = {
    "images": _calibrate_images,
    "scenes": _calibrate_scenes,
}
