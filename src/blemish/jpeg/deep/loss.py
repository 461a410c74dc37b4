"""Loss of JPEG networks: λ d + r, distortion and rate.

Liu, Liu, Mantravadi 2022, equations 7 to 9:

    d = MSE + γ LPIPS + σ (1 − MS-SSIM)
    r = α (‖Q̄_L‖₁ + ‖Q̄_C‖₁) + β (mean A_L + mean A_C)

with pixels in 0..255. The paper calls Q̄ "quantized DCT coefficients", but writes it as it writes the two
tables, Q̄_θ^(L) and Q̄_θ^(C), not depending on the image, and takes it from Strümpler, Yang, Timofte 2020,
whose released code sums the reciprocals of the tables. So Q̄ is 1 / Q here: with α = 10 its price is of the
order of λ d, where that of all coefficients of an image would be a thousand times as much.

That code differs in the attention: chroma counts twice, being the attention of Cb and of Cr, and the mean is
over all three, r = α Σ 1/Q + β (mean A_L + 2 mean A_C) / 3.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from blemish.errors import UsageError
from blemish.jpeg.deep.recipe import LossSettings
from blemish.jpeg.quality import make_lpips, missing_lpips
from blemish.similarity import ms_ssim, mse


class Lpips:
    """LPIPS of pairs of images, differentiable.

    No module, so that it is neither trained nor saved with a model; its network is read when it is first used.
    """

    def __init__(self) -> None:
        self._network: Any = None

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] each to (N,); 0 for the same image.

        Raises
        ------
        UsageError
            Where its trunk is not on this machine.
        """
        if self._network is None:
            require_lpips()
            self._network = make_lpips()
        distance: Tensor = self._network.to(x.device)(x, y, normalize=True)
        return distance.flatten()


def require_lpips() -> None:
    """Refuse, in one line, to train with LPIPS where it cannot be had.

    Raises
    ------
    UsageError
        Naming what is missing and how to do without.
    """
    lacking = missing_lpips()
    if lacking is not None:
        raise UsageError(f"LPIPS is not here: {lacking.remedy}, or train without it by --set loss.gamma=0")


def distortion(x: Tensor, y: Tensor, settings: LossSettings, lpips: Lpips) -> dict[str, Tensor]:
    """The weighted terms of d for each pair of images: (N,) each; a weight of 0 leaves its term out.

    Source: Liu, Liu, Mantravadi 2022, equation 8.

    Parameters
    ----------
    x, y: (N, 3, H, W) in [0, 1]; for MS-SSIM no side below 161.

    Examples
    --------
    >>> import torch
    >>> x, y = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 2 / 255)
    >>> distortion(x, y, LossSettings(gamma=0, sigma=0), Lpips())
    {'mse': tensor([4.])}
    """
    terms = {"mse": mse(x, y, data_range=1 / 255)}
    if settings.gamma:
        terms["lpips"] = settings.gamma * lpips(x, y)
    if settings.sigma:
        terms["ms-ssim"] = settings.sigma * (1 - ms_ssim(x, y, data_range=1.0))
    return terms


def rate(attention: tuple[Tensor, Tensor], tables: Tensor, settings: LossSettings) -> Tensor:
    """r of each image: (N,). It stands for the bits, but does not count them.

    Source: Liu, Liu, Mantravadi 2022, equation 9, or, with the reading ``strumpler2020``, the code released
    with Strümpler, Yang, Timofte 2020.

    Parameters
    ----------
    attention: of luma and of chroma, (N, rows, columns, 8, 8) each, in [0, 1].
    tables: (N, 2, 8, 8), of luma and of chroma, at least 1.

    Examples
    --------
    >>> import torch
    >>> half = torch.full((1, 2, 2, 8, 8), 0.5)
    >>> rate((half, half), torch.full((1, 2, 8, 8), 64.0), LossSettings())
    tensor([21.])
    """
    luma, chroma = (maps.mean((1, 2, 3, 4)) for maps in attention)
    mean = luma + chroma if settings.reading == "liu2022" else (luma + 2 * chroma) / 3
    return settings.alpha * tables.reciprocal().sum((1, 2, 3)) + settings.beta * mean
