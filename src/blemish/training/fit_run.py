"""One fit of a detector: its recipe, data and machine, its training, and the document of its model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blemish._version import __version__
from blemish.decision import trimmed
from blemish.detectors.ensemble import Ensemble
from blemish.detectors.factory import training_recipes
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.errors import Stopped
from blemish.inspection.detector import FORMAT, Calibration, Detector, ModelFile, versions
from blemish.models import Autoencoder
from blemish.observer import Observer
from blemish.recipes import Recipe
from blemish.storage.training_record import Machine, Training
from blemish.training.contracts import Trimming
from blemish.training.notes import worst_in_words
from blemish.training.runs import CHECKPOINT, train_for
from blemish.training.sources import FitSource
from blemish.training.warm_start import WarmStart

UNTRAINED = Training(steps=0, best_step=0, best_loss=None, seconds=0, machine=None, history=())


@dataclass(frozen=True)
class FitRun:
    """One fit: its recipe and data, and where it runs."""

    recipe: Recipe
    source: FitSource
    machine: Machine
    folder: Path | None
    """Output folder, with the checkpoint while training."""
    resume: bool
    start: WarmStart | None
    observer: Observer

    def document(self, training: Training = UNTRAINED, weights_sha256: str = "") -> ModelFile:
        """Document of the model before its calibration."""
        source, start = self.source, self.start
        return ModelFile(
            format=FORMAT,
            blemish=__version__,
            versions=versions(),
            recipe=start.of_full_length(self.recipe) if start else self.recipe,
            preparation=source.preprocessing,
            calibration=Calibration(scores=(), peaks=()),
            fingerprint=source.fingerprint,
            split=source.split,
            training=training,
            seen=source.seen,
            groups=source.groups,
            lineage=start.lineage if start else (),
            weights_sha256=weights_sha256,
        )


class NetworkTrainings:
    """Trainings of the networks of one model: the :class:`~blemish.detectors.contracts.FittingRun` of its fit.

    Parameters
    ----------
    model: whose networks are trained; half-trained it scores images for ``training.trim``.
    """

    def __init__(self, run: FitRun, model: ReconstructionModel | Ensemble) -> None:
        self._run, self._model = run, model
        self.recipes = training_recipes(run.recipe)
        """Recipe of each network by its name."""
        self.records: dict[str, Training] = {}
        """Training of each network so far, by its name."""

    @property
    def observer(self) -> Observer:
        return self._run.observer

    @property
    def seed(self) -> int:
        return self._run.recipe.training.seed

    def train(self, autoencoder: Autoencoder, name: str) -> None:
        """Train a network in place, with its checkpoint in the output folder.

        Raises
        ------
        Stopped
            When the observer asked to stop.
        """
        run, recipe = self._run, self.recipes[name]
        folder = run.folder / CHECKPOINT / name if run.folder and name else run.folder
        self.records[name] = train_for(
            folder,
            autoencoder,
            recipe,
            run.source.patches("train"),
            run.source.patches("validation"),
            machine=run.machine,
            data=run.source.fingerprint,
            split=run.source.split,
            resume=run.resume,
            observer=run.observer,
            trimming=self._trimming() if recipe.training.trim else None,
            warm_start_sha256=run.start.weights_sha256 if run.start else None,
        )

    def record(self) -> Training:
        """The training of the only network; of several the sum of steps and seconds, without losses."""
        if not self.records:
            return UNTRAINED
        if len(self.records) == 1:
            return next(iter(self.records.values()))
        records = list(self.records.values())
        return Training(
            steps=sum(record.steps for record in records),
            best_step=sum(record.best_step for record in records),
            best_loss=None,
            seconds=sum(record.seconds for record in records),
            machine=records[0].machine,
            history=(),
        )

    def _trimming(self) -> Trimming:
        """Trimming by the scores of the half-trained model, as ``training.trim`` of the recipe asks."""
        run = self._run
        trim = run.recipe.training.trim

        def worst() -> tuple[int, ...]:
            run.observer.stage(
                f"Half time: scoring {run.source.describe('train')} to leave out {worst_in_words(trim)}"
            )
            half_trained = Detector(self._model, run.document(), device=run.machine.device)
            try:
                scores, _ = run.source.scores(half_trained, "train", run.observer)
            except Stopped:
                raise Stopped(
                    "stopped while leaving out the worst; the half-trained network is in the checkpoint"
                ) from None
            return trimmed(scores, trim)

        return Trimming(worst, run.source.patches("train").without)
