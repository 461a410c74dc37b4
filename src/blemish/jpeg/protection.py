"""Region-of-interest encoding: a detector's anomaly map weights the errors, and its decision is checked on the file.

The map (H, W) becomes an importance for each block of 8 × 8 pixels: 1/strength where the map is 0, ``strength``
where it reaches the pixel threshold. The geometric mean of all blocks moves the quality; only the differences
between blocks are left to the trellis, so that its λ fits the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from blemish.data.image import LoadedImage, read_image
from blemish.data.opening import as_stored, upright
from blemish.errors import ImageError, ModelError
from blemish.jpeg.coefficients import Coefficients, Sampling
from blemish.jpeg.entropy import bits_per_block
from blemish.jpeg.file import temporary_image
from blemish.jpeg.quality import psnr
from blemish.jpeg.source_image import SourceImage
from blemish.report.numbers import counted

if TYPE_CHECKING:
    from blemish.inspection.detection import Detection
    from blemish.inspection.detector import Detector
    from blemish.jpeg.distortion import Tune
    from blemish.jpeg.encoder import Encoded, Encoder

Floats: TypeAlias = NDArray[np.float32]
Pixels: TypeAlias = NDArray[np.uint8]
V = TypeVar("V", bound=np.generic)

DEFAULT_STRENGTH = 4.0
"""Weight of errors in a region of interest, and its inverse elsewhere: two to three times the error apart."""

MARGIN = 8
"""Pixels around a suspicious one that keep more than half of its importance; at twice as many it has none."""


class _ProtectionRecord(BaseModel):
    model_config = ConfigDict(frozen=True)


class ImageDecision(_ProtectionRecord):
    """Score and decision of the detector on an image."""

    score: float
    is_anomalous: bool


class RateSplit(_ProtectionRecord):
    """Decision of the detector on a file, and the file's bits and errors inside and outside the region of interest.

    bits_inside, bits_outside: of the entropy-coded data, in a baseline file with Huffman tables made for it;
    they add up to all of it. psnr_inside, psnr_outside: in dB over all channels; None where there is no pixel
    or no error.
    """

    verdict: ImageDecision
    bits_per_pixel: float
    bits_inside: float
    bits_outside: float
    psnr_inside: float | None
    psnr_outside: float | None


class Protection(_ProtectionRecord):
    """Protection of one image: the decision before and after encoding, and without protection at the same size.

    threshold: of the image score. inside: share of the blocks whose errors have more weight than without
    protection. before: the image itself. after: the file. plain: a file without protection at the same size.
    """

    threshold: float
    strength: float
    inside: float
    before: ImageDecision
    after: RateSplit
    plain: RateSplit


def decisions_changed(found: Sequence[Protection]) -> tuple[int, int]:
    """Number of images on which compression changed the detector's decision: with protection, and without."""

    def changed(file: RateSplit, protection: Protection) -> bool:
        return file.verdict.is_anomalous != protection.before.is_anomalous

    return sum(changed(each.after, each) for each in found), sum(changed(each.plain, each) for each in found)


def suspicion(residual_map: Floats, pixel_threshold: float) -> Floats:
    """Suspicion of each block: 0 where the anomaly map is 0, 1 where it reaches ``pixel_threshold``.

    The suspicion of a pixel spreads: it falls linearly to 0 at ``2 * MARGIN`` pixels, more than half of it is left
    at ``MARGIN``. A block has the suspicion of its most suspicious pixel.

    Parameters
    ----------
    residual_map: (H, W), at least 0.
    pixel_threshold: the pixel threshold (``Detector.pixel_threshold``).

    Returns
    -------
    float32 (ceil(H / 8), ceil(W / 8)) in [0, 1].

    Examples
    --------
    >>> found = np.zeros((8, 64), np.float32)
    >>> found[:, 4] = 0.3
    >>> print(suspicion(found, pixel_threshold=0.3).round(1))
    [[1.  0.8 0.3 0.  0.  0.  0.  0. ]]
    """
    from scipy import ndimage

    if pixel_threshold > 0:
        share = np.minimum(residual_map / np.float32(pixel_threshold), np.float32(1))
    else:  # the calibration images' maps are 0 everywhere
        share = (residual_map > 0).astype(np.float32)
    around = 2 * MARGIN + 1
    # The mean of a maximum is a tent: without steps, along which bits would be moved in vain.
    spread = ndimage.uniform_filter(
        ndimage.maximum_filter(share, around, mode="nearest"), around, mode="nearest"
    )
    height, width = spread.shape
    whole = np.pad(spread, ((0, -height % 8), (0, -width % 8)), mode="edge")
    blocks: Floats = whole.reshape(whole.shape[0] // 8, 8, whole.shape[1] // 8, 8).max(axis=(1, 3))
    return np.clip(blocks, 0, 1)  # running sums may pass the ends by a rounding


def importance(suspicion: Floats, strength: float) -> Floats:
    """Weight of the errors in each block: strength^(2 s - 1), geometric between 1/strength and strength.

    >>> importance(np.array([[0, 0.5, 1]], np.float32), 4).tolist()
    [[0.25, 1.0, 4.0]]
    """
    counts: Floats = np.power(np.float32(strength), 2 * suspicion - 1, dtype=np.float32)
    return counts


def encode_protected(
    encoder: Encoder,
    pixels: Pixels,
    importance: Floats,
    *,
    quality: float | None = None,
    target_bpp: float | None = None,
    target_ssim: float | None = None,
    tune: Tune = "balanced",
    sampling: Sampling | Literal["auto"] = "4:2:0",
    segments: bytes = b"",
) -> Encoded:
    """``Encoder.encode`` with the errors in each block weighted by ``importance``, above 0, instead of 1.

    At a quality, a block of importance c is encoded about as in a plain file of the quality whose λ is c times
    smaller: at 75, blocks of importance 4 as at 89, of 1/4 as at 54. The quality returned is that of the file's
    tables, which suit the blocks' geometric mean. A target is met as without protection; only bits move.

    Raises
    ------
    UsageError
        As ``Encoder.encode``.
    """
    from blemish.jpeg.encoder import DEFAULT_QUALITY

    common = float(np.exp(np.log(importance).mean(dtype=np.float64)))
    relative = importance / np.float32(common)
    if target_bpp is None and target_ssim is None:
        quality = DEFAULT_QUALITY if quality is None else quality
        wanted = encoder.ladder.at(quality, tune).lam / common
        quality = _quality_of(encoder, tune, wanted)
        # Beyond the ends of the ladder the tables cannot follow; the weights still can.
        relative *= np.float32(encoder.ladder.at(quality, tune).lam / wanted)
    return encoder.encode(
        pixels,
        quality=quality,
        target_bpp=target_bpp,
        target_ssim=target_ssim,
        tune=tune,
        sampling=sampling,
        segments=segments,
        importance=relative,
    )


def _quality_of(encoder: Encoder, tune: Tune, lam: float) -> float:
    """The quality whose λ is ``lam``, the nearest on the ladder; the inverse of ``Ladder.at``."""
    knots = encoder.ladder.tunes[tune]
    falling = [-np.log(knot.lam) for knot in knots]
    return float(np.interp(-np.log(lam), falling, [knot.quality for knot in knots]))


# -- with a detector ---------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def load_detector(folder: Path) -> Detector:
    """The detector in a model folder, loaded once in each process.

    Raises
    ------
    ModelError
        The folder holds no detector that ``blemish fit`` wrote, or one for images that no JPEG holds.
    MissingExtraError
        torch is not installed.
    """
    from blemish.extras import explain_missing

    with explain_missing():
        from blemish.inspection.detector import load

    detector = load(folder)
    preprocessing = detector.file.preprocessing
    if preprocessing.channels not in (1, 3) or preprocessing.kind != "uint8":
        raise ModelError(
            folder,
            f"was fitted on {preprocessing.kind} images of {counted(preprocessing.channels, 'channel')}, which no JPEG holds",
            "protect with a model fitted on 8-bit images in grey or RGB",
        )
    return detector


class RegionOfInterest:
    """Region of interest of one image, from the detector's anomaly map; compares decisions before and after encoding.

    Parameters
    ----------
    source: the image as it was read for encoding; the detector is given the same bytes, read as ``blemish inspect``
        reads them.

    Raises
    ------
    ImageError
        The image is not of the kind that the detector was fitted on.
    """

    def __init__(self, detector: Detector, source: SourceImage, strength: float) -> None:
        self.detector = detector
        self.source = source
        self.strength = strength
        self.found = detector.inspect(image_of(source.data, source.path))
        stored = as_stored(self.found.map, source.orientation)  # (H, W) as the pixels lie in the file
        if stored.shape != source.pixels.shape[:2]:
            raise ImageError(source.path, "has no unambiguous orientation", "use --drop-metadata")
        self.suspicion = suspicion(stored, detector.pixel_threshold)

    @property
    def importance(self) -> Floats:
        """(rows, columns) of the blocks, as the pixels lie in the file."""
        return importance(self.suspicion, self.strength)

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(rows, columns), True where errors have more weight than without protection."""
        return self.suspicion > 0.5

    def protection(self, encoded: Encoded, plain: Encoded) -> Protection:
        """Compare the image with its file and with the file without protection."""
        return Protection(
            threshold=self.found.threshold,
            strength=self.strength,
            inside=float(self.inside.mean()),
            before=_decision(self.found),
            after=self._rate_split(encoded),
            plain=self._rate_split(plain),
        )

    def _rate_split(self, encoded: Encoded) -> RateSplit:
        decoded = image_of(encoded.data, self.source.path)
        bits = bits_per_block(encoded.coefficients)
        error = self._squared_error(decoded)
        inside = _to_pixels(self.inside, error.shape)
        return RateSplit(
            verdict=_decision(self.detector.inspect(decoded)),
            bits_per_pixel=encoded.bits_per_pixel,
            bits_inside=float(bits[self.inside].sum()),
            bits_outside=float(bits[~self.inside].sum()),
            psnr_inside=_psnr(error[inside]),
            psnr_outside=_psnr(error[~inside]),
        )

    def _squared_error(self, decoded: LoadedImage) -> Floats:
        """(H, W): the mean over channels, in squared levels, as the pixels lie in the file."""
        pixels = self.source.pixels
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)  # (C, H, W)
        stored = np.stack([as_stored(plane, self.source.orientation) for plane in decoded.pixels])
        difference = planes.astype(np.float32) - stored
        error: Floats = (difference * difference).mean(axis=0)
        return error


def image_of(data: bytes, path: Path) -> LoadedImage:
    """Read a file's bytes as ``blemish inspect`` reads a file; errors name ``path``."""
    with temporary_image() as file:
        file.write_bytes(data)
        try:
            return LoadedImage(path, read_image(file).pixels)
        except ImageError as error:
            raise ImageError(path, error.problem, error.remedy) from error


def bits_map(coefficients: Coefficients, orientation: int) -> NDArray[np.float64]:
    """(H, W), upright: at each pixel the bits that its block takes."""
    shape = coefficients.height, coefficients.width
    return upright(_to_pixels(bits_per_block(coefficients), shape), orientation)


def _to_pixels(blocks: NDArray[V], shape: tuple[int, ...]) -> NDArray[V]:
    """(rows, columns) -> (H, W): each block's value at its pixels."""
    return blocks.repeat(8, axis=0)[: shape[0]].repeat(8, axis=1)[:, : shape[1]]


def _psnr(squared_errors: Floats) -> float | None:
    return psnr(float(squared_errors.mean(dtype=np.float64))) if squared_errors.size else None


def _decision(found: Detection) -> ImageDecision:
    return ImageDecision(score=found.score, is_anomalous=found.is_anomalous)
