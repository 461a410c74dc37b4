"""Contracts of detectors: anomaly models, readers of images, and the data that models are fitted on.

Arrays are numpy on both sides of every contract, so that whatever stands around a model (decision, inspection,
evaluation, reports) needs no torch, and a model may run in torch, ONNX Runtime or anything else.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

if TYPE_CHECKING:
    from torch import Tensor

    from blemish.models.autoencoder import Autoencoder
    from blemish.observer import Observer

Floats = NDArray[np.float32]


class AnomalyMaps(NamedTuple):
    """Maps of a preprocessed image, or of a window of it; NaN where a scene has no values."""

    anomaly: Floats
    """(h, w), at least 0; larger is less like the good images."""
    reconstruction: Floats | None
    """(C, h, w); None of a model that reconstructs nothing."""
    own: Floats | None = None
    """(M, h, w) of scenes: 1 − SSIM of each modality and its own reconstruction."""
    cross: Floats | None = None
    """(M, h, w) of scenes: 1 − SSIM of each modality and its reconstruction from the other modalities."""


@runtime_checkable
class AnomalyModel(Protocol):
    """Preprocessed image in, anomaly map out. The only seam to torch and to other runtimes."""

    @property
    def title(self) -> str:
        """Quantity that the anomaly map holds, as a report names it."""

    @property
    def takes_absent(self) -> bool:
        """True if values may be absent (NaN)."""

    def window(self, size: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, slice]:
        """Rows and columns of an image of ``size`` (height, width) that the maps on ``rows`` × ``columns`` depend on.

        Raises
        ------
        UsageError
            When an image of that size is too small for the model.
        """

    def maps(self, x: Floats, *, hidden: Sequence[slice] = ()) -> AnomalyMaps:
        """Anomaly maps of ``x`` (C, h, w) in [0, 1], NaN where absent.

        Of an image, places that are absent in every channel lie outside it. Any model takes them: they are no anomaly
        (0), and what it computes elsewhere depends on no invented value there.

        Parameters
        ----------
        hidden: channels that the model is not shown, of a model that :attr:`takes_absent`; its ``cross`` maps
            compare with them.

        Raises
        ------
        UsageError
            When ``x`` is too small, or has absent values that the model cannot take.
        """


class ImageReader(Protocol):
    """An image in memory, or a scene of gigapixels on disk."""

    @property
    def channels(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def read(self, top: int, left: int, height: int, width: int) -> Floats:
        """The window (C, height, width) whose first pixel is (top, left), in [0, 1]; NaN where absent."""


class ImageSequence(Protocol):
    """Preprocessed images (C, h, w) by number; NaN at places outside the image."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Floats: ...


class GoodImages(NamedTuple):
    """Good images of one part of the split, and the group of each: images of one group show the same object."""

    images: ImageSequence
    groups: Sequence[Hashable]
    is_posed: bool = False
    """Whether the preprocessing brought an object into one pose."""


class DefectiveImages(NamedTuple):
    """Preprocessed images with confirmed defects, and the group of each, such as its kind of defect."""

    images: ImageSequence
    groups: Sequence[Hashable]


# -- fitting -------------------------------------------------------------------------------------------


class TrainingSource(Protocol):
    """Good images or scenes that a model is fitted on, in the parts ``train`` and ``validation``."""

    def whole(self, part: str) -> GoodImages:
        """Preprocessed images of ``part``; only of single images, not of scenes."""


class Sharing(Protocol):
    """Shares of work that the processes of a fit have, by the numbers of images."""

    @property
    def count(self) -> int:
        """Number of processes."""

    def is_own(self, number: int) -> bool:
        """True if the image of this number is in the share of this process."""

    def collected(self, own: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Tensors of all processes by the number of their image; every process calls it with those of its share."""


class OneProcess:
    """The :class:`Sharing` of one process, which has all images."""

    count = 1

    def is_own(self, number: int) -> bool:
        return True

    def collected(self, own: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return dict(own)


class FittingRun(Protocol):
    """Surroundings of a fit: progress, interruption, the seed, and the trainer of networks."""

    @property
    def observer(self) -> Observer: ...

    @property
    def seed(self) -> int:
        """Seed of the draws of a memory bank and of the synthetic anomalies; ``training.seed`` of the recipe."""

    @property
    def sharing(self) -> Sharing:
        """Shares of the processes that fit together."""

    @property
    def defects(self) -> DefectiveImages | None:
        """Confirmed defects that choose the members of an ensemble; None without any."""

    def train(self, autoencoder: Autoencoder, name: str) -> None:
        """Train ``autoencoder`` in place, on the source that the model is fitted on.

        Parameters
        ----------
        name: of the network in the recipe, as :func:`blemish.detectors.factory.training_recipes` lists it; ``""``
            for the only one.
        """


class EnsembleCandidate(BaseModel):
    """Weights of an ensemble, and how well it separated synthetic anomalies on held-out good images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by_place: bool | None
    """Whether memory banks compare each place with the same place only; None where none has any weight."""
    share: float
    """Weight of all memory banks, 0 to 1; the rest is the networks'."""
    image_auroc: float
    """Figure that the candidates are compared by."""
    pixel_ap: float
    """Average precision of pixels, for comparison: networks that were trained on synthetic anomalies favour it."""
    is_chosen: bool = False
    weights: tuple[float, ...] | None = None
    """Weights of the members in order, with the sum 1; None for one network and one memory bank, see ``share``."""

    @model_serializer(mode="wrap")
    def _without_none(self, serialise: SerializerFunctionWrapHandler) -> dict[str, object]:
        data: dict[str, object] = serialise(self)
        return {key: value for key, value in data.items() if key != "weights" or value is not None}


class FitRecord(NamedTuple):
    """Outcome of :meth:`TrainableModel.fit`, for the model's document."""

    candidates: tuple[EnsembleCandidate, ...] = ()
    """Ensembles that were compared, in the order in which they were tried."""
    notes: tuple[str, ...] = ()
    """Sentences for the user, each complete."""
    left_out: tuple[int, ...] = ()
    """Numbers of the training images that memory banks hold no patch of, as ``training.trim`` asked."""


@runtime_checkable
class TrainableModel(AnomalyModel, Protocol):
    """Anomaly model that can be fitted on good images."""

    def reset(self) -> None:
        """Discard everything that is not learned by gradients: memory banks, normalisers, weights of an ensemble."""

    def fit(self, source: TrainingSource, run: FittingRun) -> FitRecord:
        """Fit in place, on the parts ``train`` and ``validation`` of ``source``; the calibration images stay unseen.

        Raises
        ------
        Stopped
            When the observer asked to stop.
        """
