"""Multi-scale gradient magnitude similarity (MSGMS).

Xue, Zhang, Mou, Bovik, "Gradient magnitude similarity deviation", IEEE Transactions on Image Processing
23(2), 2014, equations 1 to 4, at several scales as in Zavrtanik, Kristan, Skočaj, "Reconstruction by
inpainting for visual anomaly detection" (RIAD), Pattern Recognition 112, 2021.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from blemish.errors import UsageError
from blemish.similarity.measure import Measure
from blemish.similarity.pairs import as_working, check_range


def _gradient_magnitude(x: Tensor) -> Tensor:
    """Prewitt gradient magnitude, (N, C, H, W), with the border pixels repeated beyond the border."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    across = (x[..., 2:] - x[..., :-2]) / 3  # (N, C, H + 2, W)
    across = across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :]
    down = (x[..., 2:, :] - x[..., :-2, :]) / 3  # (N, C, H, W + 2)
    down = down[..., :-2] + down[..., 1:-1] + down[..., 2:]
    square = across * across + down * down
    # the slope of the square root is infinite at 0; below this floor nothing is left of the gradient but its sign
    return square.clamp_min(torch.finfo(x.dtype).tiny).sqrt()


def _check_settings(scales: int, c: float) -> None:
    if scales < 1:
        raise UsageError(f"scales is {scales}; give at least 1")
    if not c > 0:
        raise UsageError(f"c is {c}; give a positive constant, it keeps flat images from 0/0")


def _scale_maps(x: Tensor, y: Tensor, data_range: float | None, scales: int, c: float) -> Iterator[Tensor]:
    """Gradient magnitude similarity at each scale, from full size down."""
    span = check_range(data_range)
    _check_settings(scales, c)
    x, y = as_working(x, y)
    if min(x.shape[-2:]) < 2 ** (scales - 1):
        raise UsageError(
            f"MSGMS with {scales} scales needs sides of at least {2 ** (scales - 1)} pixels, the image has "
            f"{x.shape[-2]}×{x.shape[-1]}; give fewer scales"
        )
    constant = c * span**2
    for scale in range(scales):
        if scale:
            # partial blocks at the far border keep every coarse pixel above the pixels that it averages
            x, y = (F.avg_pool2d(batch, 2, ceil_mode=True) for batch in (x, y))
        g_x, g_y = _gradient_magnitude(x), _gradient_magnitude(y)
        difference = g_x - g_y
        # equals (2 g_x g_y + c) / (g_x² + g_y² + c), equation 4, and is exactly 1 for equal images
        yield 1 - difference * difference / (g_x * g_x + g_y * g_y + constant)


def msgms_map(
    x: Tensor, y: Tensor, *, data_range: float | None = None, scales: int = 4, c: float = 0.0026
) -> Tensor:
    """Compute gradient magnitude similarity, the mean of all scales enlarged bilinearly: (N, C, H, W).

    Values are in (0, 1], 1 where the gradients have the same magnitude. Each scale halves the previous one by
    2 × 2 means; ``c`` is for values in [0, 1] and is scaled by the square of ``data_range``.

    Raises
    ------
    UsageError
        For a missing or non-positive ``data_range``, batches that are not float (N, C, H, W) of one shape, and
        sides of less than 2^(scales − 1) pixels.

    Examples
    --------
    >>> x = torch.eye(16)[None, None]
    >>> msgms_map(x, x, data_range=1.0).min()
    tensor(1.)
    """
    height, width = x.shape[-2:]
    total = torch.zeros((), device=x.device)
    for scale, similarity in enumerate(_scale_maps(x, y, data_range, scales, c)):
        if scale:
            similarity = F.interpolate(similarity, scale_factor=2**scale, mode="bilinear")[
                ..., :height, :width
            ]
        total = total + similarity
    return total / scales


def msgms(
    x: Tensor, y: Tensor, *, data_range: float | None = None, scales: int = 4, c: float = 0.0026
) -> Tensor:
    """Compute the mean over the scales of each scale's mean similarity: (N,), in (0, 1].

    As in the loss of RIAD, each scale is averaged at its own size, so the value is not exactly the mean of
    ``msgms_map``. Settings and errors are those of ``msgms_map``.
    """
    means = [similarity.mean((1, 2, 3)) for similarity in _scale_maps(x, y, data_range, scales, c)]
    return torch.stack(means).mean(0)


class MSGMS(Measure):
    """Measure 1 − MSGMS with the map 1 − ``msgms_map``; takes the settings of ``msgms_map``."""

    title = "1 − MSGMS"

    def __init__(self, *, data_range: float | None = None, scales: int = 4, c: float = 0.0026) -> None:
        super().__init__(data_range=data_range)
        _check_settings(scales, c)  # reject them here, not at the first image
        self.scales, self.c = scales, c

    def distance_map(self, x: Tensor, y: Tensor) -> Tensor:
        similarity = msgms_map(x, y, data_range=self.data_range, scales=self.scales, c=self.c)
        return (1 - similarity).mean(1, keepdim=True).clamp_min(0)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return (1 - msgms(x, y, data_range=self.data_range, scales=self.scales, c=self.c)).clamp_min(0)

    def settings(self) -> dict[str, object]:
        return {**super().settings(), "scales": self.scales, "c": self.c}
