"""Contract of all measures."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from blemish.similarity.pairs import check_range


class Measure(nn.Module):
    """Distance between two batches of images (N, C, H, W); symmetric, and 0 between an image and itself.

    A measure has no parameters. It works in float64 where either batch is float64, otherwise in float32, also
    under autocast, and its gradients are finite everywhere. ``data_range`` is the span of the values (1.0 for
    images in [0, 1]) and must be given.
    """

    title: str
    """Name of ``distance`` in reports."""

    def __init__(self, *, data_range: float | None = None) -> None:
        super().__init__()
        self.data_range = check_range(data_range)

    @abstractmethod
    def distance_map(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the distance at every pixel, averaged over the channels: (N, 1, H, W), at least 0, full size."""

    @abstractmethod
    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the distance of each pair of images: (N,), at least 0."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the mean of ``distance`` over the batch: a scalar training loss."""
        return self.distance(x, y).mean()

    def extra_repr(self) -> str:
        """Format the settings as keyword arguments."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings().items())

    def settings(self) -> dict[str, object]:
        """Constructor arguments that reproduce this measure."""
        return {"data_range": self.data_range}
