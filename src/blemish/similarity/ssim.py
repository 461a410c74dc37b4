"""Structural similarity (SSIM): luminance, contrast and structure under a sliding window.

Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity",
IEEE Transactions on Image Processing 13(4), 2004, equations 6 to 13.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from blemish.similarity.measure import Measure
from blemish.similarity.pairs import as_working, check_pair
from blemish.similarity.ssim_kernels import SSIMMap, free_first, plane_means
from blemish.similarity.ssim_settings import Constants, SSIMOptions, SSIMSettings, make_settings
from blemish.similarity.windows import (
    Padding,
    WindowKind,
    window_mean,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SSIMParts(NamedTuple):
    """Factors of SSIM, each (N, C, H, W)."""

    luminance: Tensor
    contrast: Tensor
    structure: Tensor


def _map(x: Tensor, y: Tensor, settings: SSIMSettings) -> Tensor:
    settings.window.check_fits(*x.shape[-2:])
    if settings.exponents == (1, 1, 1):
        if torch.compiler.is_compiling():
            return _traced_map(*as_working(x, y), settings)
        similarity: Tensor = SSIMMap.apply(*free_first(x, y), settings, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
        return similarity
    luminance, contrast, structure = _parts(*as_working(x, y), settings)
    alpha, beta, gamma = settings.exponents
    return _power(luminance, alpha) * _power(contrast, beta) * _power(structure, gamma)


def _traced_map(x: Tensor, y: Tensor, settings: SSIMSettings) -> Tensor:
    """:class:`SSIMMap` in the same terms, as operations that a graph can hold."""
    window, c1, c2, _ = settings
    mu_x, mu_y, p, q = (window_mean(field, window) for field in (x, y, 2 * x * y, (x - y).square()))
    difference = (mu_x - mu_y).square()
    a1 = 2 * mu_x * mu_y + c1
    a2 = p + (c1 + c2) - a1
    return (a1 / (a1 + difference)) * (a2 / (a2 + q - difference))


def _parts(x: Tensor, y: Tensor, settings: SSIMSettings) -> SSIMParts:
    window, c1, c2, _ = settings
    mu_x, mu_y = window_mean(x, window), window_mean(y, window)
    square_x, square_y, product = (window_mean(pair, window) for pair in (x * x, y * y, x * y))
    # a variance below rounding is noise, and the slope of its square root would be infinite at 0
    floor = torch.finfo(x.dtype).eps * c2
    variance_x, variance_y = (
        (square_x - mu_x * mu_x).clamp_min(floor),
        (square_y - mu_y * mu_y).clamp_min(floor),
    )
    sigma_xy = product - mu_x * mu_y
    sigmas = variance_x.sqrt() * variance_y.sqrt()
    return SSIMParts(
        (2 * (mu_x * mu_y) + c1) / (mu_x * mu_x + mu_y * mu_y + c1),
        (2 * sigmas + c2) / (variance_x + variance_y + c2),
        (sigma_xy + c2 / 2) / (sigmas + c2 / 2),
    )


def _power(part: Tensor, exponent: float) -> Tensor:
    """Compute sign(part) |part|^exponent, with slope 0 at 0, where the true slope may be infinite."""
    if exponent == 0:
        return torch.ones_like(part)
    if exponent == 1:
        return part
    return part.sign() * part.abs().clamp_min(torch.finfo(part.dtype).eps) ** exponent


def ssim_parts(
    x: Tensor, y: Tensor, *, data_range: float | None = None, **options: Unpack[SSIMOptions]
) -> SSIMParts:
    """Compute luminance, contrast and structure, the factors of ``ssim_map``.

    The factors are returned without their exponents, each (N, C, H, W) (smaller with "valid" padding): luminance
    and contrast in (0, 1], structure in [-1, 1], up to rounding. Equations 6, 9 and 10 of Wang et al. with
    c3 = c2 / 2. Takes the options of ``ssim`` and raises its errors.
    """
    settings = make_settings(data_range, **options)
    x, y = as_working(x, y)
    return _parts(x, y, settings)


def ssim_map(
    x: Tensor, y: Tensor, *, data_range: float | None = None, **options: Unpack[SSIMOptions]
) -> Tensor:
    """Compute the SSIM of every pixel and channel: (N, C, H, W), at most 1.

    With "symmetric" padding the map has the size of the images and equals scikit-image's full map; with "valid"
    padding it is smaller by window - 1. Takes the options of ``ssim`` and raises its errors.

    Examples
    --------
    >>> x = torch.zeros(1, 1, 16, 16)
    >>> y = x.clone()
    >>> y[..., 8, 8] = 0.1
    >>> ssim_map(x, y, data_range=1.0)[0, 0, 8, 8:15]
    tensor([0.3850, 0.4749, 0.7017, 0.8964, 0.9777, 0.9970, 1.0000])
    """
    settings = make_settings(data_range, **options)
    check_pair(x, y)
    return _map(x, y, settings)


def ssim(x: Tensor, y: Tensor, *, data_range: float | None = None, **options: Unpack[SSIMOptions]) -> Tensor:
    """Compute the mean structural similarity of each pair of images (N, C, H, W): (N,), at most 1.

    Local means and variances are taken under a window of ``window`` × ``window`` pixels, "gaussian" with
    standard deviation ``sigma`` or "uniform". At the border the image is mirrored, edge pixel included ("symmetric",
    as in scikit-image's full map), or windows that extend beyond it are left out ("valid", as in scikit-image's mean).

    The constants depend on the data range L: "wang" means c1 = (k1 L)², c2 = (k2 L)², as in the SSIM paper and
    most later work; "bergmann" means c1 = k1 L², c2 = k2 L², which for L = 1 are the 0.01 and 0.03, not squared,
    printed by Bergmann et al., "Improving unsupervised defect segmentation by applying structural similarity to
    autoencoders" (VISAPP 2019). If ``c1`` or ``c2`` is given, it replaces the computed constant.

    ``alpha``, ``beta``, ``gamma`` are the exponents of luminance, contrast and structure (Wang et al. 2004,
    equation 12). A negative factor keeps its sign, sign(s) |s|^gamma; exponent 0 leaves a factor out.

    The gradient is implemented by hand and supports first derivatives only.

    Parameters
    ----------
    data_range: the span L of the values, 1.0 for images in [0, 1]; must be given.
    window, sigma, kind: 11 pixels, 1.5 pixels and "gaussian" by default.
    padding: "symmetric" by default.
    constants, k1, k2: "wang", 0.01 and 0.03 by default.
    c1, c2: None by default: computed from ``constants``, ``k1`` and ``k2``.
    alpha, beta, gamma: 1 by default.

    Raises
    ------
    UsageError
        For a missing or non-positive ``data_range``, batches that are not float (N, C, H, W) of one shape, an
        even window, a window larger than the image, and any other option out of range.

    Examples
    --------
    >>> x = torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    >>> ssim(x, x, data_range=1.0)
    tensor([1.])
    >>> ssim(x, 1 - x, data_range=1.0) < 0.7
    tensor([True])
    """
    settings = make_settings(data_range, **options)
    check_pair(x, y)
    if settings.exponents == (1, 1, 1):
        return plane_means(x, y, settings).mean(1)
    return _map(x, y, settings).mean((1, 2, 3))


def log_ssim(
    x: Tensor, y: Tensor, *, data_range: float | None = None, **options: Unpack[SSIMOptions]
) -> Tensor:
    """Compute −log((SSIM + 1) / 2) from the mean SSIM of each pair: (N,), at least 0 up to rounding.

    Source: Xie et al. 2019. Takes the options of ``ssim`` and raises its errors.

    Examples
    --------
    >>> log_ssim(torch.ones(1, 1, 16, 16), torch.ones(1, 1, 16, 16), data_range=1.0).abs()
    tensor([0.])
    """
    return _minus_log(ssim(x, y, data_range=data_range, **options))


def _minus_log(similarity: Tensor) -> Tensor:
    # the logarithm is undefined at SSIM = -1, which only opposite images of mean 0 reach
    return -((similarity + 1) / 2).clamp_min(torch.finfo(similarity.dtype).eps).log()


class SSIM(Measure):
    """Measure 1 − SSIM; takes the options of ``ssim``. Its map always has the size of the images."""

    title = "1 − SSIM"

    def __init__(
        self,
        *,
        data_range: float | None = None,
        window: int = 11,
        sigma: float = 1.5,
        kind: WindowKind = "gaussian",
        padding: Padding = "symmetric",
        constants: Constants = "wang",
        k1: float = 0.01,
        k2: float = 0.03,
        c1: float | None = None,
        c2: float | None = None,
        alpha: float = 1,
        beta: float = 1,
        gamma: float = 1,
    ) -> None:
        super().__init__(data_range=data_range)
        self.options = SSIMOptions(
            window=window,
            sigma=sigma,
            kind=kind,
            padding=padding,
            constants=constants,
            k1=k1,
            k2=k2,
            c1=c1,
            c2=c2,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
        )
        # reject a wrong option here, not at the first image
        make_settings(self.data_range, **self.options)

    def _map(self, x: Tensor, y: Tensor) -> Tensor:
        full_size: SSIMOptions = {**self.options, "padding": "symmetric"}
        return ssim_map(x, y, data_range=self.data_range, **full_size)

    def distance_map(self, x: Tensor, y: Tensor) -> Tensor:
        return (1 - self._map(x, y)).mean(1, keepdim=True).clamp_min(0)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return (1 - ssim(x, y, data_range=self.data_range, **self.options)).clamp_min(0)

    def settings(self) -> dict[str, object]:
        return {**super().settings(), **self.options}


class LogSSIM(SSIM):
    """Measure of ``log_ssim``; takes the options of ``ssim``."""

    title = "−log((SSIM + 1) / 2)"

    def distance_map(self, x: Tensor, y: Tensor) -> Tensor:
        return _minus_log(self._map(x, y)).mean(1, keepdim=True).clamp_min(0)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return log_ssim(x, y, data_range=self.data_range, **self.options).clamp_min(0)
