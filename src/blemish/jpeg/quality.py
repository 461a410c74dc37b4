"""Quality of decoded images beside their originals: MSE, PSNR, MS-SSIM, SSIMULACRA2, LPIPS.

Imports without torch; MS-SSIM and LPIPS import it when they are first computed.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import util
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Measure: TypeAlias = Literal["mse", "psnr_rgb", "psnr_y", "ms_ssim", "ssimulacra2", "lpips"]

LPIPS_TRUNK = "alexnet-owt-7be5be79.pth"
SMALLEST_MS_SSIM = 161
"""Pixels of the shorter side that five scales with a window of 11 need."""
SMALLEST_SSIMULACRA2 = 8
"""Pixels of the shorter side below which no scale is compared."""
SMALLEST_LPIPS = 31
"""Pixels of the shorter side that AlexNet's strides and poolings need."""

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in JFIF


@dataclass(frozen=True)
class Unavailable:
    """A codec or a measure that this machine cannot run, and the remedy."""

    name: str
    remedy: str


def mse(original: Pixels, decoded: Pixels) -> float:
    """Mean squared error over all pixels and channels, in squared levels of 0 to 255."""
    difference = original.astype(np.float64) - decoded
    return float(np.mean(difference * difference))


def psnr(error: float) -> float | None:
    """Peak signal-to-noise ratio in dB of a mean squared error in levels of 0 to 255; None where that is 0.

    >>> round(psnr(1.0), 2)
    48.13
    """
    return None if error == 0 else 10 * math.log10(255**2 / error)


def luma_mse(original: Pixels, decoded: Pixels) -> float:
    """``mse`` of Y = 0.299 R + 0.587 G + 0.114 B, not rounded; of grey images their own."""
    if original.ndim == 2:
        return mse(original, decoded)
    difference = (original.astype(np.float64) - decoded) @ LUMA  # (H, W, 3) -> (H, W)
    return float(np.mean(difference * difference))


def ms_ssim(original: Pixels, decoded: Pixels) -> float | None:
    """MS-SSIM (Wang, Simoncelli, Bovik 2003) in [0, 1]: of R, G and B each, then the mean; of grey itself.

    Window 11, σ = 1.5, five scales, windows inside the image, data range 255: the convention of
    pytorch-msssim. None for images with a side of less than 161 pixels.
    """
    if min(original.shape[:2]) < SMALLEST_MS_SSIM:
        return None
    import torch

    from blemish.similarity import ms_ssim as similarity

    with torch.inference_mode():
        return similarity(_batch(original), _batch(decoded), data_range=255.0).item()


def ssimulacra2(original: Pixels, decoded: Pixels) -> float | None:
    """SSIMULACRA2 by the weights of the package of that name: 100 for the same image, 90 hardly visible, 50 medium.

    None for images with a side of less than 8 pixels, for which the package gives 100 whatever their content.
    On an image with a side of less than 225 pixels the package takes fewer than six scales and applies its
    weights to the wrong ones: compare such images by another measure. Such images, and grey ones, are given to the
    package itself, all others to :mod:`blemish.jpeg.ssimulacra2`, which is faster.
    """
    if min(original.shape[:2]) < SMALLEST_SSIMULACRA2:
        return None
    from blemish.jpeg.ssimulacra2 import SMALLEST

    if original.ndim == 3 and min(original.shape[:2]) >= SMALLEST:
        return float(_beside(original).score(decoded))
    from ssimulacra2 import compute_ssimulacra2

    # The package opens what Pillow can open, so it is given files in memory.
    return float(compute_ssimulacra2(_file(original), _file(decoded)))


_last: dict[bytes, Any] = {}


def _beside(original: Pixels) -> Any:
    """What SSIMULACRA2 computes of an original, kept for the next decoded version of it."""
    from blemish.jpeg.ssimulacra2 import Ssimulacra2

    key = hashlib.sha256(original.tobytes()).digest()
    if key not in _last:
        _last.clear()
        _last[key] = Ssimulacra2(original)
    return _last[key]


def lpips(original: Pixels, decoded: Pixels) -> float | None:
    """LPIPS 0.1 with AlexNet (Zhang et al. 2018) through torchmetrics: 0 for the same image.

    None for images with a side of less than 31 pixels.
    """
    if min(original.shape[:2]) < SMALLEST_LPIPS:
        return None
    import torch

    x, y = (_batch(image) / 255 for image in (original, decoded))
    x, y = (image.expand(-1, 3, -1, -1) for image in (x, y))
    with torch.inference_mode():
        return float(_lpips_network()(x, y, normalize=True))


def measures(*, ssimulacra2: bool = True, lpips: bool = True) -> tuple[list[Measure], list[Unavailable]]:
    """The measures that this machine can take, and those asked for that it cannot, each with a remedy."""
    found: list[Measure] = ["mse", "psnr_rgb", "psnr_y", "ms_ssim"]
    missing = []
    if ssimulacra2:
        if util.find_spec("ssimulacra2") is None:
            missing.append(Unavailable("SSIMULACRA2", "type: pip install ssimulacra2"))
        else:
            found.append("ssimulacra2")
    if lpips:
        lacking = missing_lpips()
        if lacking is None:
            found.append("lpips")
        else:
            missing.append(lacking)
    return found, missing


def missing_lpips() -> Unavailable | None:
    """LPIPS with the remedy where it cannot be taken, otherwise None; nothing is ever downloaded for it."""
    if any(util.find_spec(package) is None for package in ("torchmetrics", "torchvision")):
        return Unavailable("LPIPS", "type: pip install torchmetrics torchvision")
    if not (_hub_folder() / LPIPS_TRUNK).is_file():
        remedy = f"put torchvision's {LPIPS_TRUNK} into torch's folder hub/checkpoints (TORCH_HOME names it)"
        return Unavailable("LPIPS", remedy)
    return None


def make_lpips() -> Any:
    """The network of LPIPS 0.1 with AlexNet, not to be trained, where :func:`missing_lpips` returns None.

    Called as ``network(x, y, normalize=True)`` on (N, 3, H, W) in [0, 1] it gives (N, 1, 1, 1).
    """
    from blemish.layers import torchvision_operators as torchvision_operators  # isort: skip
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return cast(Any, LearnedPerceptualImagePatchSimilarity("alex")).net.eval().requires_grad_(False)


def measure(
    original: Pixels, decoded: Pixels, wanted: list[Measure] | tuple[Measure, ...]
) -> dict[Measure, float | None]:
    """The measures ``wanted`` of one pair: uint8 (H, W) or (H, W, 3), both of one shape.

    None stands for a measure without a finite value (the PSNR of equal images; MS-SSIM, SSIMULACRA2 and LPIPS of tiny
    ones).

    Examples
    --------
    >>> image = np.zeros((4, 4, 3), np.uint8)
    >>> measure(image, image + np.uint8(2), ["mse", "ms_ssim"])
    {'mse': 4.0, 'ms_ssim': None}
    """
    functions: dict[Measure, Callable[[Pixels, Pixels], float | None]] = {
        "mse": mse,
        "psnr_rgb": lambda x, y: psnr(mse(x, y)),
        "psnr_y": lambda x, y: psnr(luma_mse(x, y)),
        "ms_ssim": ms_ssim,
        "ssimulacra2": ssimulacra2,
        "lpips": lpips,
    }
    return {name: functions[name](original, decoded) for name in wanted}


def _batch(pixels: Pixels) -> Any:
    """(H, W) or (H, W, 3) -> float32 (1, C, H, W), still in levels."""
    import torch

    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(planes.astype(np.float32))[None]


def _file(pixels: Pixels) -> Any:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "BMP")
    return stream


def _hub_folder() -> Path:
    # torch.hub's own rule, without loading torch.
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


_lpips_network = lru_cache(maxsize=1)(make_lpips)
