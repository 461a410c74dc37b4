"""Multi-scale structural similarity (MS-SSIM).

Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment", 37th Asilomar
Conference on Signals, Systems and Computers, 2003, equation 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from blemish.errors import UsageError
from blemish.similarity.measure import Measure
from blemish.similarity.pairs import as_working
from blemish.similarity.ssim import ssim_parts
from blemish.similarity.ssim_kernels import plane_means
from blemish.similarity.ssim_settings import Constants, SSIMOptions, make_settings
from blemish.similarity.windows import WindowKind

if TYPE_CHECKING:
    from typing_extensions import Unpack

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the paper, from the finest to the coarsest scale


class MSSSIMOptions(TypedDict, total=False):
    """Settings of ``ms_ssim``; described there."""

    weights: Sequence[float]
    window: int
    sigma: float
    kind: WindowKind
    constants: Constants
    k1: float
    k2: float


def _split(options: MSSSIMOptions) -> tuple[Sequence[float], SSIMOptions]:
    """Separate the weights from the options of ``ssim``."""
    own = options.copy()
    weights = own.pop("weights", WEIGHTS)
    _check_weights(weights)
    return weights, cast(SSIMOptions, own)


def _check_weights(weights: Sequence[float]) -> None:
    if not weights or any(not weight >= 0 for weight in weights):
        raise UsageError(f"weights are {tuple(weights)}; give one per scale, none below 0")


def _check_scales(size: torch.Size, window: int, weights: Sequence[float]) -> None:
    height, width = size
    smallest = (window - 1) * 2 ** (len(weights) - 1) + 1
    if min(height, width) < smallest:
        fitting = sum((window - 1) * 2**scale < min(height, width) for scale in range(len(weights)))
        raise UsageError(
            f"MS-SSIM with {len(weights)} scales and a window of {window} needs sides of at least "
            f"{smallest} pixels, the image has {height}×{width}; give "
            + (f"at most {fitting} weights or a smaller window" if fitting else "a smaller window")
        )


def _halve(x: Tensor) -> Tensor:
    # odd sides are padded with a row of zeros in front, as in pytorch-msssim, the common reference
    return F.avg_pool2d(x, 2, padding=(x.shape[-2] % 2, x.shape[-1] % 2))


def _positive_power(similarity: Tensor, weight: float) -> Tensor:
    """Compute max(similarity, 0)^weight, with slope 0 where it is 0: the true slope would be infinite."""
    positive = similarity > 0
    return torch.where(positive, torch.where(positive, similarity, 1) ** weight, 0)


def ms_ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float | None = None,
    weights: Sequence[float] = WEIGHTS,
    window: int = 11,
    sigma: float = 1.5,
    kind: WindowKind = "gaussian",
    constants: Constants = "wang",
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor:
    """Compute the multi-scale structural similarity of each pair of images (N, C, H, W): (N,), in [0, 1].

    For each channel, the value is the product over the scales of the mean contrast × structure, and of the mean
    SSIM at the coarsest scale, each raised to its weight; the result is averaged over the channels. A scale with a
    negative mean counts as 0. Windows that extend beyond the image are left out; each scale halves the previous
    one by 2 × 2 means. The other options are those of ``ssim``.

    Raises
    ------
    UsageError
        As for ``ssim``, for missing or negative weights, and for images with a side of less than
        (window − 1) 2^(scales − 1) + 1 pixels: 161 for the default window and weights.

    Examples
    --------
    >>> x = torch.linspace(0, 1, 64 * 64).reshape(1, 1, 64, 64)
    >>> ms_ssim(x, x, data_range=1.0, weights=(0.5, 0.3, 0.2))
    tensor([1.])
    """
    _check_weights(weights)
    settings = make_settings(
        data_range, window=window, sigma=sigma, kind=kind, padding="valid", constants=constants, k1=k1, k2=k2
    )
    x, y = as_working(x, y)
    settings.window.check_fits(*x.shape[-2:])
    _check_scales(x.shape[-2:], settings.window.size, weights)
    product = torch.ones(x.shape[:2], dtype=x.dtype, device=x.device)
    for scale, weight in enumerate(weights):
        coarsest = scale == len(weights) - 1
        product = product * _positive_power(plane_means(x, y, settings, luminance=coarsest), weight)
        if not coarsest:
            x, y = _halve(x), _halve(y)
    return product.mean(1)


def ms_ssim_map(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float | None = None,
    **options: Unpack[MSSSIMOptions],
) -> Tensor:
    """Compute MS-SSIM pixel by pixel: (N, C, H, W), in [0, 1].

    The paper defines no map; this one is the same product at every pixel: each scale's map of contrast ×
    structure, or of SSIM at the coarsest scale, with mirrored border, enlarged to full size bilinearly, negative
    values set to 0, and raised to its weight. Options and errors are those of ``ms_ssim``; the mean of the map is
    not the value of ``ms_ssim``.
    """
    weights, ssim_options = _split(options)
    settings = make_settings(data_range, **ssim_options)
    x, y = as_working(x, y)
    settings.window.check_fits(*x.shape[-2:])
    _check_scales(x.shape[-2:], settings.window.size, weights)
    height, width = x.shape[-2:]
    product = torch.ones_like(x)
    for scale, weight in enumerate(weights):
        luminance, contrast, structure = ssim_parts(x, y, data_range=data_range, **ssim_options)
        similarity = contrast * structure
        if scale == len(weights) - 1:
            similarity = similarity * luminance
        similarity = F.interpolate(similarity, scale_factor=2**scale, mode="bilinear")[..., :height, :width]
        product = product * _positive_power(similarity, weight)
        # partial blocks at the far border keep every coarse pixel above the pixels that it averages
        x, y = (F.avg_pool2d(batch, 2, ceil_mode=True) for batch in (x, y))
    return product


class MSSSIM(Measure):
    """Measure 1 − MS-SSIM with the map 1 − ``ms_ssim_map``; takes the options of ``ms_ssim``."""

    title = "1 − MS-SSIM"

    def __init__(
        self,
        *,
        data_range: float | None = None,
        weights: Sequence[float] = WEIGHTS,
        window: int = 11,
        sigma: float = 1.5,
        kind: WindowKind = "gaussian",
        constants: Constants = "wang",
        k1: float = 0.01,
        k2: float = 0.03,
    ) -> None:
        super().__init__(data_range=data_range)
        self.options = MSSSIMOptions(
            weights=tuple(weights),
            window=window,
            sigma=sigma,
            kind=kind,
            constants=constants,
            k1=k1,
            k2=k2,
        )
        # reject a wrong option here, not at the first image
        _, ssim_options = _split(self.options)
        make_settings(self.data_range, **ssim_options)

    def distance_map(self, x: Tensor, y: Tensor) -> Tensor:
        similarity = ms_ssim_map(x, y, data_range=self.data_range, **self.options)
        return (1 - similarity).mean(1, keepdim=True).clamp_min(0)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return (1 - ms_ssim(x, y, data_range=self.data_range, **self.options)).clamp_min(0)

    def settings(self) -> dict[str, object]:
        return {**super().settings(), **self.options}
