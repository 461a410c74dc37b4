"""The contract that every measure keeps, whatever it compares."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from blemish.similarity.pairs import check_range


class Measure(nn.Module):
    """How far apart two batches of images (N, C, H, W) are; symmetric, and 0 between an image and itself.

    A measure has no parameters. It works in float64 where either batch is float64, otherwise in float32, also
    under autocast, and its gradients are finite everywhere. ``data_range`` is the span of the values (1.0 for
    images in [0, 1]) and must be given.
    """

    title: str
    """What ``distance`` is, as a report writes it."""

    def __init__(self, *, data_range: float | None = None) -> None:
        super().__init__()
        self.data_range = check_range(data_range)

    @abstractmethod
    def distance_map(self, x: Tensor, y: Tensor) -> Tensor:
        """Where they differ: (N, 1, H, W), at least 0, full size, the mean over the channels."""

    @abstractmethod
    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """How much they differ: (N,), at least 0."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean of ``distance`` over the batch: a scalar to train with."""
        return self.distance(x, y).mean()

    def extra_repr(self) -> str:
        """The settings, as they would be typed."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings().items())

    def settings(self) -> dict[str, object]:
        """The constructor's arguments that make this measure again."""
        return {"data_range": self.data_range}
