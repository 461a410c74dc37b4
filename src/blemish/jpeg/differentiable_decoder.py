"""Decode coefficients as a standard decoder does, value for value, with a gradient for training.

libjpeg-turbo, which Pillow and nearly all other programs decode with, works in integers: its "islow" inverse
DCT (Loeffler, Ligtenberg, Moschytz 1989) with 13 fractional bits, its triangular ("fancy") upsampling of
chroma and its colour conversion with 16. Nothing is rounded inside a pass of the DCT, so a pass is one product
with a matrix of whole numbers. All of these are exact in float64, which is what they are computed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from blemish.errors import UsageError
from blemish.jpeg.coefficients import Coefficients, Sampling, block_counts
from blemish.jpeg.transform import DCT

_DCT_BITS, _PASS_BITS, _COLOUR_BITS = 13, 2, 16

Upsample = Callable[[Tensor], Tensor]


def decode(coefficients: Coefficients) -> NDArray[np.uint8]:
    """The pixels that Pillow reads from the file of these coefficients: uint8 (H, W) or (H, W, 3).

    Equal in every value to libjpeg-turbo's SIMD code on x86-64, also where coefficients are so large (no
    image has such) that its 16-bit numbers overflow and other builds differ. For large images Pillow
    itself, on :func:`blemish.jpeg.to_bytes`, is quicker and takes far less memory.

    Examples
    --------
    >>> from blemish.jpeg.coefficients import Plane
    >>> block = np.zeros((1, 1, 8, 8), np.int16)
    >>> block[0, 0, 0, 0] = 10
    >>> grey = Plane(block, np.full((8, 8), 16, np.uint16))
    >>> decode(Coefficients(3, 2, (grey,), "4:4:4")).tolist()
    [[148, 148, 148], [148, 148, 148]]
    """
    planes = [
        torch.from_numpy(plane.coefficients.astype(np.float64) * plane.table)[None]
        for plane in coefficients.planes
    ]
    pixels = _decode_exactly(planes, coefficients.height, coefficients.width, coefficients.sampling)
    image: NDArray[np.uint8] = pixels[0].to(torch.uint8).permute(1, 2, 0).numpy()  # (H, W, C)
    return np.ascontiguousarray(image[:, :, 0] if image.shape[2] == 1 else image)


def decode_batch(dequantised: Sequence[Tensor], height: int, width: int, sampling: Sampling) -> Tensor:
    """Decode a batch as :func:`decode` does, with the gradient of :func:`decode_real`.

    Parameters
    ----------
    dequantised: one tensor a plane, (N, rows, columns, 8, 8), coefficient times table: whole numbers.
    height, width: pixels.
    sampling: "4:4:4" or "4:2:0"; of grey "4:4:4".

    Returns
    -------
    (N, 1 or 3, H, W), whole numbers in 0..255, of the type of ``dequantised``.

    Raises
    ------
    UsageError
        The planes do not fit the size and sampling.
    """
    _check(dequantised, height, width, sampling)
    with torch.no_grad():
        exact = _decode_exactly([plane.double() for plane in dequantised], height, width, sampling)
        exact = exact.to(dequantised[0].dtype)
    if not (torch.is_grad_enabled() and any(plane.requires_grad for plane in dequantised)):
        return exact
    real = decode_real(dequantised, height, width, sampling)
    pixels: Tensor = _ValueOf.apply(exact, real)  # type: ignore[no-untyped-call]
    return pixels


def decode_real(dequantised: Sequence[Tensor], height: int, width: int, sampling: Sampling) -> Tensor:
    """The decoder without its rounding, differentiable: inverse DCT, linear upsampling, colour.

    Samples are limited to 0..255 where the decoder does it, after the DCT and after the colour conversion; a
    value beyond has no gradient.

    Parameters and errors are those of :func:`decode_batch`.

    Returns
    -------
    (N, 1 or 3, H, W) in 0..255.
    """
    _check(dequantised, height, width, sampling)
    dct = torch.as_tensor(DCT).to(dequantised[0])
    planes = [_joined(dct.T @ blocks @ dct).clamp(-128, 127) for blocks in dequantised]
    y, *chroma = _cropped(planes, height, width, sampling, _upsampled_real)
    y = y + 128
    if not chroma:
        return y[:, None]  # (N, 1, H, W)
    cb, cr = chroma
    red = y + 1.402 * cr
    green = y - 0.114 * 1.772 / 0.587 * cb - 0.299 * 1.402 / 0.587 * cr
    blue = y + 1.772 * cb
    return torch.stack((red, green, blue), 1).clamp(0, 255)  # (N, 3, H, W)


class _ValueOf(torch.autograd.Function):
    """The first tensor's value; the gradient goes to the second."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, carrier: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def _check(dequantised: Sequence[Tensor], height: int, width: int, sampling: Sampling) -> None:
    blocks = block_counts(width, height, len(dequantised), sampling)
    shapes = [tuple(plane.shape[1:]) for plane in dequantised]
    if len(dequantised) not in (1, 3) or shapes != [(*counts, 8, 8) for counts in blocks]:
        raise UsageError(f"planes of {shapes} do not fit {width} × {height} pixels at {sampling}")
    if len(dequantised) == 1 and sampling != "4:4:4":
        raise UsageError(f"a grey image is of 4:4:4, not {sampling}")


def _decode_exactly(planes: list[Tensor], height: int, width: int, sampling: Sampling) -> Tensor:
    samples = [_joined(_inverse_dct(blocks)) for blocks in planes]
    y, *chroma = _cropped(samples, height, width, sampling, _upsampled)
    if not chroma:
        return y[:, None]  # (N, 1, H, W)
    cb, cr = (plane - 128 for plane in chroma)
    red = y + _shifted(_fixed(1.402) * cr, _COLOUR_BITS)
    green = y + _shifted(-_fixed(0.34414) * cb - _fixed(0.71414) * cr, _COLOUR_BITS)
    blue = y + _shifted(_fixed(1.772) * cb, _COLOUR_BITS)
    return torch.stack((red, green, blue), 1).clamp(0, 255)  # (N, 3, H, W)


def _fixed(value: float, bits: int = _COLOUR_BITS) -> int:
    return int(value * (1 << bits) + 0.5)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """x / 2^bits, halves rounded up, as adding half and shifting right gives."""
    return torch.floor((x + (1 << (bits - 1))) / (1 << bits))


def _wrapped(x: Tensor) -> Tensor:
    """Lowest 16 bits of a sum."""
    return torch.remainder(x + 32768, 65536) - 32768


def _islow_matrix() -> Tensor:
    """One pass of the islow inverse DCT: (8 samples, 6 frequencies + 4 sums of two frequencies), whole numbers.

    Columns: x2, x6, x1, x3, x5, x7, x0 + x4, x0 − x4, x3 + x7, x1 + x5. The sums are columns of their own
    because libjpeg-turbo keeps them in 16 bits. Names follow the algorithm's rotations.
    """
    c = [_fixed(value, _DCT_BITS) for value in (0.541196100, 1.847759065, 0.765366865, 1.175875602)]
    d = [_fixed(value, _DCT_BITS) for value in (0.298631336, 2.053119869, 3.072711026, 1.501321110)]
    e = [_fixed(value, _DCT_BITS) for value in (0.899976223, 2.562915447, 1.961570560, 0.390180644)]
    x2, x6, x1, x3, x5, x7, plus, minus, z3, z4 = np.eye(10, dtype=np.int64)

    even2 = c[0] * (x2 + x6) - c[1] * x6
    even3 = c[0] * (x2 + x6) + c[2] * x2
    t10, t13 = (plus << _DCT_BITS) + even3, (plus << _DCT_BITS) - even3
    t11, t12 = (minus << _DCT_BITS) + even2, (minus << _DCT_BITS) - even2

    z5 = c[3] * (z3 + z4)
    z3, z4 = z5 - e[2] * z3, z5 - e[3] * z4
    odd0 = d[0] * x7 - e[0] * (x7 + x1) + z3
    odd1 = d[1] * x5 - e[1] * (x5 + x3) + z4
    odd2 = d[2] * x3 - e[1] * (x5 + x3) + z3
    odd3 = d[3] * x1 - e[0] * (x7 + x1) + z4

    rows = (t10 + odd3, t11 + odd2, t12 + odd1, t13 + odd0, t13 - odd0, t12 - odd1, t11 - odd2, t10 - odd3)
    return torch.from_numpy(np.stack(rows).astype(np.float64))


_ISLOW = _islow_matrix()


def _pass(x: Tensor, bits: int) -> Tensor:
    """One pass along the last axis: (…, 8) frequencies to (…, 8) samples, divided by 2^bits and rounded."""
    x0, x1, x2, x3, x4, x5, x6, x7 = x.unbind(-1)
    sums = [_wrapped(total) for total in (x0 + x4, x0 - x4, x3 + x7, x1 + x5)]
    terms = torch.stack((x2, x6, x1, x3, x5, x7, *sums), -1)  # (…, 10)
    return _shifted(terms @ _ISLOW.to(x.device).T, bits)


def _inverse_dct(blocks: Tensor) -> Tensor:
    """Samples in 0..255 of dequantised blocks, float64 (N, rows, columns, 8, 8): columns first, then rows."""
    columns = _pass(_wrapped(blocks).mT, _DCT_BITS - _PASS_BITS).clamp(-32768, 32767).mT
    samples = _pass(columns, _DCT_BITS + _PASS_BITS + 3)
    return samples.clamp(-128, 127) + 128


def _joined(blocks: Tensor) -> Tensor:
    """(N, rows, columns, 8, 8) to (N, 8 rows, 8 columns)."""
    count, rows, columns = blocks.shape[:3]
    return blocks.transpose(2, 3).reshape(count, 8 * rows, 8 * columns)


def _cropped(
    planes: Sequence[Tensor], height: int, width: int, sampling: Sampling, upsample: Upsample
) -> list[Tensor]:
    """The planes at the image's size, (N, H, W): chroma is cropped to its own size first, then upsampled."""
    y, *chroma = planes
    if sampling == "4:2:0":
        chroma = [upsample(plane[:, : (height + 1) // 2, : (width + 1) // 2]) for plane in chroma]
    return [plane[:, :height, :width] for plane in (y, *chroma)]


def _upsampled(plane: Tensor) -> Tensor:
    """(N, h, w) of whole numbers to (N, 2h, 2w) as libjpeg-turbo's h2v2 fancy upsampling rounds.

    Each new value is 9/16 of the nearest old one, 3/16 of the two beside it, 1/16 of the one across. libjpeg
    does not do so where chroma has only one or two columns: there values are repeated.
    """
    if plane.shape[2] <= 2:
        return plane.repeat_interleave(2, 1).repeat_interleave(2, 2)
    rows = _interleaved(*_mixed(plane, 1), axis=1)  # in quarters
    left, right = _mixed(rows, 2)  # in sixteenths
    return torch.floor(_interleaved(left + 8, right + 7, axis=2) / 16)


def _upsampled_real(plane: Tensor) -> Tensor:
    if plane.shape[2] <= 2:
        return plane.repeat_interleave(2, 1).repeat_interleave(2, 2)
    rows = _interleaved(*_mixed(plane, 1), axis=1)
    return _interleaved(*_mixed(rows, 2), axis=2) / 16


def _mixed(plane: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """3 × each value + the one before it, and + the one after it; at the ends the value itself."""
    padding = (0, 0, 1, 1) if axis == 1 else (1, 1, 0, 0)
    padded = F.pad(plane[:, None], padding, mode="replicate")[:, 0]
    count = plane.shape[axis]
    return 3 * plane + padded.narrow(axis, 0, count), 3 * plane + padded.narrow(axis, 2, count)


def _interleaved(first: Tensor, second: Tensor, *, axis: int) -> Tensor:
    return torch.stack((first, second), axis + 1).flatten(axis, axis + 1)
