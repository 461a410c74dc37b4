"""SSIMULACRA2 of decoded versions of one image, some ten times as fast as the package of that name.

The formula and its weights are the package's. What belongs to the original is computed once, values are float32, and maps
whose weights are below 0.01 are left out: scores differ from the package's by a few hundredths at most, which
``tests/jpeg/test_ssimulacra2.py`` holds. Source: Sneyers, "SSIMULACRA 2", Cloudinary, 2022.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blemish.jpeg.numba_jit import compiled

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

SCALES = 6
SMALLEST = 225
"""Pixels of the shorter side from which there are six scales of at least 8 pixels."""
LEAST_WEIGHT = 0.01
BIAS = 0.0037930732552754493
ABSORBANCE = np.array(
    [
        [0.30, 0.622, 0.078],
        [0.23, 0.692, 0.078],
        [0.24342268924547819, 0.20476744424496821, 1 - 0.24342268924547819 - 0.20476744424496821],
    ],
    np.float32,
)
_TAPS = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
TAPS: Floats = (_TAPS / _TAPS.sum()).astype(np.float32)


def _linear() -> Floats:
    levels = np.arange(256) / 255
    curve = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return curve.astype(np.float32)


LINEAR = _linear()


@compiled
def _xyb(linear: Floats, matrix: Floats, bias: float) -> Floats:
    """(3, H, W) of linear RGB -> X, Y, B - Y as SSIMULACRA2 compares them."""
    _, height, width = linear.shape
    result = np.empty((3, height, width), np.float32)
    b = np.float32(bias)
    third = np.float32(1 / 3)
    root = b**third
    for y in range(height):
        for x in range(width):
            r, g, blue = linear[0, y, x], linear[1, y, x], linear[2, y, x]
            long = max(matrix[0, 0] * r + matrix[0, 1] * g + matrix[0, 2] * blue + b, np.float32(0)) ** third
            middle = (
                max(matrix[1, 0] * r + matrix[1, 1] * g + matrix[1, 2] * blue + b, np.float32(0)) ** third
            )
            short = max(matrix[2, 0] * r + matrix[2, 1] * g + matrix[2, 2] * blue + b, np.float32(0)) ** third
            long -= root
            middle -= root
            short -= root
            luma = np.float32(0.5) * (long + middle)
            result[0, y, x] = np.float32(7) * (long - middle) + np.float32(0.42)
            result[1, y, x] = luma + np.float32(0.01)
            result[2, y, x] = short - luma + np.float32(0.55)
    return result


@compiled
def _blur(plane: Floats, taps: Floats) -> Floats:
    """Gaussian of 11 taps: zeros above and below, mirrored to the left and right."""
    height, width = plane.shape
    result = np.empty((height, width), np.float32)
    row = np.empty(width + 10, np.float32)
    for y in range(height):
        for x in range(width):
            row[x + 5] = np.float32(0)
        for k in range(max(-5, -y), min(5, height - 1 - y) + 1):
            tap = taps[k + 5]
            above = plane[y + k]
            for x in range(width):
                row[x + 5] += tap * above[x]
        for k in range(5):
            row[4 - k] = row[5 + min(k, width - 1)]
            row[width + 5 + k] = row[width + 4 - min(k, width - 1)]
        for x in range(width):
            result[y, x] = taps[5] * row[x + 5]
        for k in range(5):
            tap = taps[k]
            for x in range(width):
                result[y, x] += tap * (row[x + k] + row[x + 10 - k])
    return result


@compiled
def _norms(
    a: Floats, b: Floats, mu_a: Floats, mu_b: Floats, aa: Floats, bb: Floats, ab: Floats
) -> NDArray[np.float64]:
    """(6,): mean and fourth norm of the SSIM map, of artefacts and of lost detail."""
    height, width = a.shape
    sums = np.zeros(6)
    for y in range(height):
        for x in range(width):
            m1, m2 = mu_a[y, x], mu_b[y, x]
            luminance = 1 - (m1 - m2) * (m1 - m2)
            structure = (2 * (ab[y, x] - m1 * m2) + 0.0009) / (
                (aa[y, x] - m1 * m1) + (bb[y, x] - m2 * m2) + 0.0009
            )
            d = max(1 - luminance * structure, 0.0)
            sums[0] += d
            sums[1] += d * d * d * d
            edge = (1 + abs(b[y, x] - m2)) / (1 + abs(a[y, x] - m1)) - 1
            if edge > 0:
                sums[2] += edge
                sums[3] += edge * edge * edge * edge
            else:
                sums[4] -= edge
                sums[5] += edge * edge * edge * edge
    sums /= height * width
    for i in range(1, 6, 2):
        sums[i] = sums[i] ** 0.25
    return sums


def _halved(linear: Floats) -> Floats:
    """(3, h, w) -> means of 2 × 2; of an odd last row or column, means of what is there."""
    for axis in (1, 2):
        if linear.shape[axis] % 2:
            last = np.take(linear, [-1], axis)
            linear = np.concatenate([linear, last], axis)
    halves: Floats = (
        linear[:, 0::2, 0::2] + linear[:, 1::2, 0::2] + linear[:, 0::2, 1::2] + linear[:, 1::2, 1::2]
    ) / np.float32(4)
    return halves


def _weights() -> NDArray[np.float64]:
    """(channel, scale, norm, map) of the package."""
    from ssimulacra2.ssimulacra2 import weights

    return np.asarray(weights, np.float64).reshape(3, SCALES, 2, 3)


class Ssimulacra2:
    """SSIMULACRA2 beside one original.

    Parameters
    ----------
    original: uint8 (H, W, 3), both sides at least 225, which all six scales need.
    """

    def __init__(self, original: Pixels) -> None:
        self._weights = _weights()
        self._planes: dict[tuple[int, int], tuple[Floats, Floats, Floats]] = {}
        for scale, xyb in enumerate(self._scales(original)):
            for channel in range(3):
                if self._weights[channel, scale].max() >= LEAST_WEIGHT:
                    plane = xyb[channel]
                    self._planes[channel, scale] = (plane, _blur(plane, TAPS), _blur(plane * plane, TAPS))

    @staticmethod
    def _scales(pixels: Pixels) -> list[Floats]:
        # The package turns the image on its side, which decides at which borders it blurs with zeros.
        linear = np.ascontiguousarray(LINEAR[pixels].transpose(2, 1, 0))
        found = []
        for scale in range(SCALES):
            if scale:
                linear = np.ascontiguousarray(_halved(linear))
            found.append(_xyb(linear, ABSORBANCE, BIAS))
        return found

    def score(self, decoded: Pixels) -> float:
        """The score of uint8 (H, W, 3): 100 for the same image, 90 hardly visible, 50 medium."""
        total = 0.0
        scales = self._scales(decoded)
        for (channel, scale), (a, mu_a, aa) in self._planes.items():
            b = scales[scale][channel]
            norms = _norms(a, b, mu_a, _blur(b, TAPS), aa, _blur(b * b, TAPS), _blur(a * b, TAPS))
            ssim, artefacts, lost = norms.reshape(3, 2)
            for norm in range(2):
                total += self._weights[channel, scale, norm] @ (ssim[norm], artefacts[norm], lost[norm])
        total *= 0.9562382616834844
        total = 2.326765642916932 * total - 0.020884521182843837 * total**2 + 6.248496625763138e-05 * total**3
        return 100 - 10 * total**0.6276336467831387 if total > 0 else 100.0
