"""One fit of a detector: its recipe, data and machine, its training, and the document of its model."""

from __future__ import annotations

from pathlib import Path

from blemish._version import __version__
from blemish.decision import trimmed
from blemish.detectors.contracts import FitRecord
from blemish.detectors.ensemble import Ensemble, for_inspection
from blemish.detectors.factory import training_recipes
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.errors import Stopped
from blemish.inspection.detector import Detector
from blemish.inspection.document import FORMAT, ModelFile, versions
from blemish.models import Autoencoder
from blemish.observer import Observer
from blemish.recipes import Recipe
from blemish.storage.training_record import Machine, Training
from blemish.training.contracts import Trimming
from blemish.training.notes import worst_in_words
from blemish.training.runs import train_for
from blemish.training.sources import FitSource
from blemish.training.warm_start import WarmStart


class FitRun:
    """One fit: its recipe and data, and where it runs (:class:`~blemish.detectors.contracts.FittingRun`).

    Parameters
    ----------
    model: to be fitted in place.
    folder: for the model and, while training, the checkpoints; None writes nothing.
    resume: continue from the checkpoints in ``folder``.
    start: model of a warm start.
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
    ) -> None:
        self.model, self.recipe, self.source, self.machine = model, recipe, source, machine
        self.folder, self.resume, self.start, self.observer = folder, resume, start, observer
        self.recipes = training_recipes(recipe)
        """Recipe of each network, by its name."""
        self.trainings: dict[str, Training] = {}
        """Training of each network that was trained, by its name."""

    @property
    def seed(self) -> int:
        return self.recipe.training.seed

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
        self.trainings[name] = train_for(
            self.folder,
            autoencoder,
            recipe,
            self.source.patches("train"),
            self.source.patches("validation"),
            machine=self.machine,
            data=self.source.fingerprint,
            split=self.source.split,
            resume=self.resume,
            observer=self.observer,
            trimming=self._trimming() if recipe.training.trim else None,
            warm_start_sha256=self.start.weights_sha256 if self.start else None,
            network=name,
        )

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
            return trimmed(scored.scores, trim)

        return Trimming(worst, self.source.patches("train").without)
