"""Contracts of training: trainable modules, progress of a training, and trimming of its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from blemish.models import Loss
from blemish.training.patches import PatchSource


class Trainable(Protocol):
    """Contract between a module and its :class:`Trainer`."""

    @property
    def pretraining(self) -> int:
        """Steps of :meth:`pretraining_loss` that come before :meth:`loss`."""

    def pretraining_loss(self, batch: Tensor) -> Loss:
        """Terms of the pretraining loss, as in :meth:`loss`; only where ``pretraining`` is not 0."""

    def loss(self, batch: Tensor) -> Loss:
        """Named, weighted terms of the training loss for ``batch`` (N, C, H, W) in [0, 1]."""


@runtime_checkable
class Cropping(Protocol):
    """A module that cuts its patches from larger images, as augmentation by rotation does."""

    def drawn_side(self, patch: int) -> int:
        """Side of the images to draw for patches of side ``patch``."""


@runtime_checkable
class Grouped(Protocol):
    """A module whose parameters have several learning rates; those of other modules are one group."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimizer; a group's "pace" multiplies the learning rate of the schedule."""


@runtime_checkable
class Measured(Protocol):
    """A module with figures of held-out patches beside its loss, which are kept with each look."""

    def measures(self, batch: Tensor) -> dict[str, float]:
        """Means over ``batch`` (N, C, H, W) in [0, 1], by name."""


@dataclass(frozen=True)
class Progress:
    """Progress of a training; ``terms`` are the means of the loss terms since the last report."""

    step: int
    steps: int
    """In all; with a budget, as many as it will hold at the present pace."""
    terms: dict[str, float]
    images_per_second: float
    seconds_left: float
    validation: float | None
    best: float | None


@dataclass(frozen=True)
class Trimming:
    """Selection of the training images that a half-trained model scores worst, and their removal."""

    worst: Callable[[], Sequence[int]]
    """Numbers of the images that the model, as it is now, scores worst; it may leave the model in evaluation mode."""
    without: Callable[[Sequence[int]], PatchSource]
    """The images without those of the given numbers."""
