"""One fit of a detector: its recipe, data and machine, its training, and the document of its model."""

from __future__ import annotations

import time
from pathlib import Path

from blemish._version import __version__
from blemish.decision import trimmed
from blemish.decision.classes import whole_scores
from blemish.detectors.contracts import DefectiveImages, FitRecord
from blemish.detectors.ensemble import Ensemble, for_inspection
from blemish.detectors.factory import training_recipes
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.detectors.soft_maximum import HELD_OUT
from blemish.errors import Stopped
from blemish.inspection.detector import Detector
from blemish.inspection.document import FORMAT, ModelFile, versions
from blemish.models import Autoencoder
from blemish.models.modal_similarity import ModalSSIM
from blemish.observer import Observer
from blemish.recipes import Recipe
from blemish.storage.training_record import Machine, Training
from blemish.training.contracts import Trimming
from blemish.training.image_source import ImageSource
from blemish.training.modality_figures import compare_modalities, draw_patches, leave_out
from blemish.training.notes import worst_in_words
from blemish.training.plateau import PlateauWatch
from blemish.training.processes import Processes
from blemish.training.runs import train_for
from blemish.training.scene_source import SceneSource
from blemish.training.sources import FitSource
from blemish.training.warm_start import WarmStart

LEAST_TRAINING = 0.2
"""Share of a budget that a network trains at least."""
MARGIN = 1.15
"""Factor on the seconds that scoring is expected to take, for reading files and writing the model."""


class FitRun:
    """One fit: its recipe and data, and where it runs (:class:`~blemish.detectors.contracts.FittingRun`).

    Parameters
    ----------
    model: to be fitted in place.
    folder: for the model and, while training, the checkpoints; None writes nothing.
    resume: continue from the checkpoints in ``folder``.
    start: model of a warm start.
    defects: confirmed ones, that choose the members of an ensemble.
    begun: ``time.perf_counter()`` at the start of the fit, from which a budget counts.
    processes: that fit together; by default there is one.
    """

    def __init__(
        self,
        model: ReconstructionModel | Ensemble,
        *,
        recipe: Recipe,
        source: FitSource,
        machine: Machine,
        folder: Path | None,
        resume: bool,
        start: WarmStart | None,
        observer: Observer,
        defects: DefectiveImages | None = None,
        begun: float | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.model, self.recipe, self.source, self.machine = model, recipe, source, machine
        self.folder, self.resume, self.start, self.observer = folder, resume, start, observer
        self.defects = defects
        self.begun = time.perf_counter() if begun is None else begun
        self.processes = processes or Processes()
        self.recipes = training_recipes(recipe)
        """Recipe of each network, by its name."""
        self.trainings: dict[str, Training] = {}
        """Training of each network that was trained, by its name."""

    @property
    def seed(self) -> int:
        return self.recipe.training.seed

    @property
    def sharing(self) -> Processes:
        return self.processes

    @property
    def training(self) -> Training:
        """Training of the first network; of a model without networks a record of no steps."""
        untrained = Training(
            steps=0, best_step=0, best_loss=None, seconds=0, machine=self.machine, history=()
        )
        return next(iter(self.trainings.values()), untrained)

    def document(
        self, notes: tuple[str, ...] = (), record: FitRecord | None = None, weights_sha256: str = ""
    ) -> ModelFile:
        """Document of the model before its calibration."""
        source, start = self.source, self.start
        return ModelFile(
            format=FORMAT,
            blemish=__version__,
            versions=versions(),
            recipe=start.of_full_length(self.recipe) if start else self.recipe,
            preprocessing=source.preprocessing,
            calibration=None,
            fingerprint=source.fingerprint,
            split=source.split,
            training=self.training.model_copy(update={"notes": notes}),
            candidates=record.candidates if record else (),
            seen=source.seen,
            groups=source.groups,
            lineage=start.lineage if start else (),
            weights_sha256=weights_sha256,
        )

    def train(self, autoencoder: Autoencoder, name: str) -> None:
        """Train one network in place, with its checkpoint in the output folder.

        Raises
        ------
        Stopped
            When the observer asked to stop.
        """
        recipe = self.recipes[name]
        training = train_for(
            self.folder,
            autoencoder,
            self.processes.first(lambda: self._within_budget(recipe)),
            self.source.patches("train"),
            self.source.patches("validation"),
            machine=self.machine,
            data=self.source.fingerprint,
            split=self.source.split,
            resume=self.resume,
            observer=self.observer,
            trimming=self._trimming() if recipe.training.trim else None,
            plateau=self._plateau(autoencoder, recipe),
            warm_start_sha256=self.start.weights_sha256 if self.start else None,
            network=name,
            processes=self.processes,
        )
        training = training.model_copy(update={"budget": recipe.training.budget})
        self.trainings[name] = self._compared(autoencoder, training, recipe)

    def _plateau(self, autoencoder: Autoencoder, recipe: Recipe) -> PlateauWatch | None:
        """The comparison at each validation, of a network for modalities."""
        if not isinstance(self.source, SceneSource) or not isinstance(autoencoder.measure, ModalSSIM):
            return None
        held_out, drawn = (
            draw_patches(self.source.patches(part), recipe) for part in ("validation", "train")
        )
        return PlateauWatch(autoencoder, held_out, drawn, self.observer.stage)

    def _compared(self, autoencoder: Autoencoder, training: Training, recipe: Recipe) -> Training:
        """The record with the figures of each modality; those that were not learned no longer count in the model."""
        if not isinstance(self.source, SceneSource) or not isinstance(autoencoder.measure, ModalSSIM):
            return training
        held_out, drawn = (
            draw_patches(self.source.patches(part), recipe) for part in ("validation", "train")
        )
        figures = compare_modalities(autoencoder, held_out, drawn)
        leave_out(autoencoder, figures)
        counted = autoencoder.measure.counted.tolist()
        left_out = tuple(one.name for one, counts in zip(figures, counted, strict=True) if not counts)
        return training.model_copy(update={"modalities": figures, "not_learned": left_out})

    def _within_budget(self, recipe: Recipe) -> Recipe:
        """``recipe`` with what its budget leaves to the training of the network.

        Reading and memory bank have had their share already, and the calibration will take its own; a fifth of the
        budget is trained in any case. Where several networks are members, each trains as long as its recipe says.
        """
        budget = recipe.training.budget
        if budget is None or len(self.recipes) > 1:
            return recipe
        spent = time.perf_counter() - self.begun
        left = budget - spent - self._seconds_of_scoring()
        if left < LEAST_TRAINING * budget:
            self.observer.stage(
                f"Reading and memory bank took {spent:.0f} s of the budget of {budget:.0f} s; the network trains for "
                f"{LEAST_TRAINING * budget:.1f} s nevertheless; a longer budget suits these images"
            )
            left = LEAST_TRAINING * budget
        return recipe.model_copy(update={"training": recipe.training.model_copy(update={"budget": left})})

    def _seconds_of_scoring(self) -> float:
        """Seconds that scoring the held-out images after the training will take, from two images by every member."""
        if not isinstance(self.source, ImageSource):  # one scene may take longer than the whole budget
            return 0.0
        images = self.source.whole("train").images
        # In training mode batch normalisation would learn from these images.
        model = for_inspection(self.model)
        models = model.models if isinstance(model, Ensemble) else [model]
        counted = min(2, len(images))
        begun = time.perf_counter()
        for number in range(counted):
            for member in models:
                if not getattr(member, "is_empty", False):
                    member.maps(images[number])
        each = (time.perf_counter() - begun) / counted
        count = len(self.source.split["calibration"])
        if len(models) > 1:
            count += min(len(self.source.split["validation"]), HELD_OUT)
            count += len(self.defects.images) if self.defects else 0
        return MARGIN * each * count

    def _trimming(self) -> Trimming:
        """Trimming by the scores of the half-trained model, as ``training.trim`` of the recipe asks."""
        trim = self.recipe.training.trim

        def worst() -> tuple[int, ...]:
            self.observer.stage(
                f"Half time: scoring {self.source.describe('train')} to leave out {worst_in_words(trim)}"
            )
            half_trained = Detector(for_inspection(self.model, self.machine.device), self.document())
            try:
                scored = self.source.scores(half_trained, "train", self.observer)
            except Stopped:
                raise Stopped(
                    "stopped while leaving out the worst; the half-trained network is in the checkpoint"
                ) from None
            return trimmed(whole_scores(scored.classes) if scored.classes else scored.scores, trim)

        return Trimming(lambda: self.processes.first(worst), self.source.patches("train").without)
