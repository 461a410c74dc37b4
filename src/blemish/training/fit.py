"""Fit of a detector: from a folder of good images, or of scenes, to a calibrated model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from blemish.data.scenes import looks_like_scenes
from blemish.detectors.contracts import FitRecord
from blemish.detectors.ensemble import Ensemble, for_inspection
from blemish.detectors.factory import build_model, networks, training_recipes
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.errors import UsageError
from blemish.inspection.detector import Detector
from blemish.models import contact_sheet
from blemish.models.synthetic_anomalies import SyntheticAnomalies
from blemish.observer import Observer
from blemish.preprocessing.area_files import read_area
from blemish.recipes import Recipe
from blemish.storage.model_folder import weights_sha256
from blemish.storage.run_lock import owned
from blemish.training.calibration import calibrate
from blemish.training.defects import read_defects
from blemish.training.device import choose_machine
from blemish.training.fit_run import FitRun
from blemish.training.fit_settings import all_settings, choose_recipe
from blemish.training.launch import launched, place_of_this
from blemish.training.modality_figures import modality_notes
from blemish.training.notes import alignment_notes, left_out_notes, trimming_notes
from blemish.training.patches import RandomPatches, raising
from blemish.training.plateau import plateau_notes
from blemish.training.processes import Processes, has_unused_weights, refuse_uneven_batches
from blemish.training.runs import claim_folder, finish, output_folder
from blemish.training.sources import FitSource, choose_source
from blemish.training.warm_start import WarmStart

SHEET_PATCHES = 8
"""Training patches on the contact sheet of synthetic anomalies."""


def fit(
    images: str | Path,
    recipe: str | Path | Recipe | None = None,
    *,
    settings: Sequence[str] = (),
    false_reject_rate: float | None = None,
    budget: str | float | None = None,
    continue_from: str | Path | None = None,
    defects: str | Path | None = None,
    good_label: str | None = None,
    mask: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: Observer | None = None,
    processes: int = 1,
    nodes: int = 1,
) -> Detector:
    """Fit a detector on the good images in ``images``, and calibrate its reject decision.

    A warm start (``continue_from``) begins with the weights, recipe and preprocessing of a model, and trains for a
    fifth of its recipe's steps or budget, unless ``settings`` or ``budget`` set the length. An image that the
    model, or one before it, has seen keeps its part for good, and is recognised by the bytes of its file under any
    name: calibration images never train, training and validation images never calibrate. New images are split as
    always. Training draws on all training images in ``images``, new and old, and the decision rests on all
    calibration images in it, new and old: no training has seen one of them. A model of scenes goes on with its
    modalities, scales and ranges; scenes are split by shares of their width as always, so that a place keeps its part.

    Parameters
    ----------
    images: a folder of good images, or a CSV list, of which test and defective images are not read; or
        scenes (:func:`blemish.data.scenes.find_scenes`). Any recipe takes scenes that a ``modalities.yaml``
        describes, with all their channels together. Recipes for several sensors also take folders of
        images for scenes (:func:`blemish.data.scenes.holds_scenes`); other images they take for one modality.
    recipe: a name, the path of a YAML file, or a recipe; ``blemish`` where none is given, and ``fp-cae-add`` for
        scenes that a ``modalities.yaml`` describes, or that look like such by names and kinds of their files
        (:func:`blemish.data.scenes.looks_like_scenes`).
    settings: ``key=value`` overrides of the recipe, as ``--set`` takes them; for a warm start, only those
        of ``training`` and ``threshold``.
    false_reject_rate: share of good images that may be rejected, instead of the recipe's.
    budget: seconds of the whole fit (reading, memory bank, training, calibration), or a text such as "5m", instead of
        the recipe's number of steps.
    continue_from: folder of the model of a warm start.
    defects: a folder or CSV list of images with confirmed defects, of any number and kinds. They choose which models
        of the ensemble count, by comparison with held-out good images; they neither train nor calibrate.
    good_label: the label of a list that says good, where it is none of the usual words
        (:mod:`blemish.data.labels`).
    mask: image or polygons (:func:`blemish.preprocessing.area_files.read_area`) that mark the region of interest, the
        same in every image; what lies outside is never an anomaly.
    out: folder for the model and, while training, the checkpoint; without it nothing is written.
    resume: continue from the checkpoint in ``out``; where training had not begun, begin it.
    overwrite: replace a model or checkpoint that is already in ``out``.
    observer: hears of progress, and of each image that cannot be used; the others are used.
    processes: that train together on this machine: one for each GPU that is to be used, or several on a CPU. Each trains
        on its part of every batch, so that the loss is that of one process up to rounding.
    nodes: machines, each with so many processes and with the images at the same path; this function is called on each, with
        ``NODE_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT`` in the environment. Only the first one writes to ``out``.

    Raises
    ------
    CalibrationError
        Before training, when the images are too few for the false-reject rate.
    Stopped
        When the observer asked to stop; the checkpoint is in ``out``.
    RecipeError, FileError, UsageError
        In one line that names the setting or the file, and the remedy.
    """
    folder = output_folder(out, resume=resume, overwrite=overwrite)
    place = place_of_this(processes, nodes)
    work = partial(
        _fit,
        path=Path(images),
        recipe=recipe,
        settings=all_settings(settings, budget, false_reject_rate),
        continue_from=continue_from,
        defects=defects,
        good_label=good_label,
        mask=mask,
        folder=folder,
        resume=resume,
        overwrite=overwrite,
    )
    with owned(folder if place.rank == 0 else None), launched(place, work) as group:
        return work(group, observer or Observer())


def _fit(
    processes: Processes,
    observer: Observer,
    *,
    path: Path,
    recipe: str | Path | Recipe | None,
    settings: list[str],
    continue_from: str | Path | None,
    defects: str | Path | None,
    good_label: str | None,
    mask: str | Path | None,
    folder: Path | None,
    resume: bool,
    overwrite: bool,
) -> Detector:
    begun = time.perf_counter()
    start = None if continue_from is None else WarmStart(continue_from)
    chosen = choose_recipe(path, recipe, start, settings)
    if recipe is None and start is None and looks_like_scenes(path):
        observer.stage(
            f"{path} looks like scenes of several sensors, so it is fitted with {chosen.name}; for its files as single "
            "images name a recipe for images, such as blemish"
        )
    if defects is not None and chosen.combination != "soft-maximum":
        raise UsageError(
            f"{chosen.name}: confirmed defects choose among models combined by a soft maximum; fit the recipe blemish, "
            "or leave --defects out"
        )
    open_source = choose_source(path, chosen, start, good_label, None if mask is None else read_area(mask))
    machine = choose_machine(chosen.training.device, chosen.training.precision)
    refuse_uneven_batches(training_recipes(chosen), processes.count)
    folder = folder if processes.is_first else None
    if folder is not None:
        claim_folder(folder, resume=resume, overwrite=overwrite)
    processes.connect(machine, some_unused=any(map(has_unused_weights, training_recipes(chosen).values())))
    source = processes.together(lambda: open_source(observer))
    processes.check_equal(
        source.fingerprint.sha256,
        f"{path}: holds other images on another machine of this fit; give all the same",
    )
    confirmed = (
        None if defects is None else processes.together(lambda: read_defects(Path(defects), source, observer))
    )
    run = FitRun(
        _model(chosen, source, start),
        recipe=chosen,
        source=source,
        machine=machine,
        folder=folder,
        resume=resume,
        start=start,
        observer=observer,
        defects=confirmed,
        begun=begun,
        processes=processes,
    )
    record, notes = _fit_model(run)

    def decided() -> Detector:
        detector = calibrate(run, run.document(notes, record, weights_sha256(run.model)))
        if folder is not None:
            finish(detector, folder, _contact_sheet(run))
        return detector

    if processes.count == 1:
        return decided()
    # The weights are equal in all processes; only the document comes from the first.
    file = processes.first(lambda: decided().file)
    return Detector(for_inspection(run.model), file)


# -- model ---------------------------------------------------------------------------------------------


def _model(recipe: Recipe, source: FitSource, start: WarmStart | None) -> ReconstructionModel | Ensemble:
    """The model to fit: that of the warm start, or a new one with weights drawn from the recipe's seed."""
    torch.manual_seed(recipe.training.seed)
    if start is not None:
        return start.model
    return build_model(recipe, source.preprocessing.channels, source.preprocessing.modalities)


def _fit_model(run: FitRun) -> tuple[FitRecord, tuple[str, ...]]:
    """Fit the model in place; the record of its fit, and notes for the user and the model card."""
    recipe, source = run.recipe, run.source
    length = f" for {recipe.training.budget:.0f} s" if run.recipes and recipe.training.budget else ""
    run.observer.stage(
        f"Training {recipe.name}{length} on {source.announce()}; {run.machine}{run.processes.words}"
    )
    record = run.model.fit(source, run)
    notes = (
        *trimming_notes(run.training, recipe),
        *record.notes,
        *plateau_notes(run.training.history),
        *modality_notes(run.training.modalities),
        *left_out_notes([str(source.split["train"][number]) for number in record.left_out]),
        *(
            note
            for name, autoencoder in networks(run.model).items()
            for note in alignment_notes(autoencoder, source.patches("calibration"), run.recipes[name])
        ),
    )
    for note in notes:
        run.observer.stage(note)
    return record, (*source.notes, *notes)


def _contact_sheet(run: FitRun) -> NDArray[np.uint8] | None:
    """Training patches with and without synthetic anomalies, of the first network that is trained on such."""
    for name, autoencoder in networks(run.model).items():
        recipe = run.recipes[name]
        if any(isinstance(corruption, SyntheticAnomalies) for corruption in autoencoder.corruptions):
            seed, images = recipe.training.seed, run.source.patches("train")
            patches = RandomPatches(images, recipe.patch.size, seed=seed, start=0, stop=SHEET_PATCHES)
            batch = torch.stack(list(raising(patches[index] for index in range(SHEET_PATCHES))))
            return contact_sheet(autoencoder, batch, seed)
    return None
