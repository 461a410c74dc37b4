"""One fit of a detector: its recipe, data and machine, its training, and the document of its model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blemish._version import __version__
from blemish.decision import trimmed
from blemish.errors import Stopped
from blemish.inspection.detector import FORMAT, Calibration, Detector, ModelFile, versions
from blemish.models import Autoencoder
from blemish.observer import Observer
from blemish.recipes import Recipe
from blemish.storage.training_record import Machine, Training
from blemish.training.contracts import Trimming
from blemish.training.notes import worst_in_words
from blemish.training.runs import train_for
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

    def train(self, model: Autoencoder) -> Training:
        """Train the network in place, with its checkpoint in the output folder.

        Raises
        ------
        Stopped
            When the observer asked to stop.
        """
        return train_for(
            self.folder,
            model,
            self.recipe,
            self.source.patches("train"),
            self.source.patches("validation"),
            machine=self.machine,
            data=self.source.fingerprint,
            split=self.source.split,
            resume=self.resume,
            observer=self.observer,
            trimming=self._trimming(model) if self.recipe.training.trim else None,
            warm_start_sha256=self.start.weights_sha256 if self.start else None,
        )

    def _trimming(self, model: Autoencoder) -> Trimming:
        """Trimming by the scores of the half-trained model, as ``training.trim`` of the recipe asks."""
        trim = self.recipe.training.trim

        def worst() -> tuple[int, ...]:
            self.observer.stage(
                f"Half time: scoring {self.source.describe('train')} to leave out {worst_in_words(trim)}"
            )
            half_trained = Detector(model, self.document(), device=self.machine.device)
            try:
                scores, _ = self.source.scores(half_trained, "train", self.observer)
            except Stopped:
                raise Stopped(
                    "stopped while leaving out the worst; the half-trained network is in the checkpoint"
                ) from None
            return trimmed(scores, trim)

        return Trimming(worst, self.source.patches("train").without)
