"""Encoders to compare with: Pillow's two, and mozjpeg as pyvips or a ``cjpeg`` of one's own offers it."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, features

from blemish.errors import BlemishError

Pixels = NDArray[np.uint8]


class Codec(Protocol):
    """Anything that can be evaluated: a name of its own, and pixels to the bytes of a JPEG file.

    For worker processes it must be picklable. Where it has an attribute ``description`` (settings, versions),
    results are used again only while that stays the same.
    """

    @property
    def name(self) -> str:
        """Names the encoder in tables and records."""

    def encode(self, pixels: Pixels, quality: int) -> bytes:
        """A JPEG file of uint8 (H, W) or (H, W, 3) pixels at a quality of 1 to 100."""


@dataclass(frozen=True)
class Missing:
    """An encoder or a measure that cannot be used here, and the mend."""

    name: str
    mend: str


@dataclass(frozen=True)
class PillowEncoder:
    """libjpeg-turbo through Pillow, with the tables of T.81, annex K."""

    name: str
    sampling: Literal["4:4:4", "4:2:0"]
    optimize: bool

    @property
    def description(self) -> str:
        """Settings and versions."""
        library = features.version("libjpeg_turbo") or "?"
        return (
            f"Pillow {PIL.__version__} (libjpeg-turbo {library}), {self.sampling}, optimize={self.optimize}"
        )

    def encode(self, pixels: Pixels, quality: int) -> bytes:
        """See :class:`Codec`.

        Examples
        --------
        >>> PILLOW_420.encode(np.zeros((8, 8, 3), np.uint8), 50)[:2].hex()
        'ffd8'
        """
        stream = io.BytesIO()
        subsampling = {"4:4:4": 0, "4:2:0": 2}[self.sampling]
        Image.fromarray(pixels).save(
            stream, "JPEG", quality=quality, subsampling=subsampling, optimize=self.optimize
        )
        return stream.getvalue()


PILLOW_420 = PillowEncoder("pillow-420", "4:2:0", optimize=True)
"""The honest anchor: what a careful user of Pillow gets."""

PILLOW_444 = PillowEncoder("pillow-444", "4:4:4", optimize=False)
"""The baseline of Strümpler, Yang, Timofte 2020 and of Liu, Liu, Mantravadi 2022."""

ANCHORS = (PILLOW_420, PILLOW_444)


@dataclass(frozen=True)
class MozjpegEncoder:
    """mozjpeg through pyvips: 4:2:0, trellis quantisation, progressive with optimised scans.

    quant_table: 0 the tables of annex K, 1 flat, 2 tuned for MS-SSIM on Kodak, 3 ImageMagick's (mozjpeg's own
    default), 4 for PSNR-HVS-M, 5 Klein, Silverstein, Carney 1992, 6 Watson, Taylor, Borthwick 1997,
    7 Ahumada, Watson, Peterson 1993, 8 Peterson, Ahumada, Watson 1993. deringing: overshoot at black and white.
    """

    name: str
    quant_table: int
    deringing: bool = True

    @property
    def description(self) -> str:
        """Settings and versions."""
        import pyvips

        version = ".".join(str(pyvips.version(part)) for part in range(3))
        deringing = ", overshoot deringing" if self.deringing else ""
        return f"mozjpeg of libvips {version}, 4:2:0, trellis, table {self.quant_table}{deringing}"

    def encode(self, pixels: Pixels, quality: int) -> bytes:
        """See :class:`Codec`."""
        return _vips_jpeg(
            pixels,
            Q=quality,
            trellis_quant=True,
            quant_table=self.quant_table,
            overshoot_deringing=self.deringing,
        )


@dataclass(frozen=True)
class CjpegEncoder:
    """A mozjpeg ``cjpeg`` on the PATH, whose tuning pyvips does not reach."""

    name: str
    arguments: tuple[str, ...]

    @property
    def description(self) -> str:
        """Settings and version."""
        return f"cjpeg of {_cjpeg_version()}, 4:2:0, {' '.join(self.arguments)}"

    def encode(self, pixels: Pixels, quality: int) -> bytes:
        """See :class:`Codec`."""
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PPM")
        command = ["cjpeg", "-quality", str(quality), "-sample", "2x2", *self.arguments]
        ran = subprocess.run(command, input=stream.getvalue(), capture_output=True, check=False)
        if ran.returncode:
            raise BlemishError(f"cjpeg: {_last_line(ran.stderr)}; remove it from the PATH to do without")
        return ran.stdout


MOZJPEG = (
    MozjpegEncoder("mozjpeg", 3),
    MozjpegEncoder("mozjpeg-psnr", 1),
    MozjpegEncoder("mozjpeg-ms-ssim", 2),
)
"""mozjpeg as it comes, and with the tables that do best on PSNR and on MS-SSIM of those that pyvips reaches."""

CJPEG = (
    CjpegEncoder("cjpeg-psnr", ("-tune-psnr",)),
    CjpegEncoder("cjpeg-ms-ssim", ("-tune-ms-ssim", "-quant-table", "2")),
)


def find_anchors() -> tuple[list[Codec], list[Missing]]:
    """The anchors that this machine can run, Pillow 4:2:0 first, and those that it cannot."""
    found: list[Codec] = [PILLOW_420, PILLOW_444]
    missing: list[Missing] = []
    problem = _without_mozjpeg()
    if problem is None:
        found += MOZJPEG
    else:
        missing += [Missing(encoder.name, problem) for encoder in MOZJPEG]
    if "mozjpeg" in _cjpeg_version():
        found += CJPEG
    else:
        mend = "put the cjpeg of mozjpeg on the PATH"
        missing += [Missing(encoder.name, mend) for encoder in CJPEG]
    return found, missing


def _without_mozjpeg() -> str | None:
    """Why mozjpeg cannot be used through pyvips, or None."""
    try:
        probe = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        # A libvips that was built with another libjpeg takes the option and does nothing.
        same = _vips_jpeg(probe, Q=30, trellis_quant=True) == _vips_jpeg(probe, Q=30)
    except (ImportError, OSError):  # pyvips without a libvips that can be loaded
        return "type: pip install pyvips pyvips-binary"
    except BlemishError:  # a libvips that does not know the options
        same = True
    return "this libvips is built without mozjpeg; type: pip install pyvips-binary" if same else None


def _vips_jpeg(pixels: Pixels, **options: int | bool) -> bytes:
    import pyvips

    interpretation = "b-w" if pixels.ndim == 2 else "srgb"
    try:
        image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels), interpretation=interpretation)
        data: bytes = image.jpegsave_buffer(
            optimize_coding=True,
            interlace=True,
            optimize_scans=True,
            subsample_mode="on",
            keep="none",
            **options,
        )
    except pyvips.Error as error:
        raise BlemishError(f"libvips: {' '.join(str(error).split())}; leave mozjpeg out") from error
    return data


@lru_cache(maxsize=1)
def _cjpeg_version() -> str:
    """What ``cjpeg -version`` says of itself; empty when there is none."""
    if shutil.which("cjpeg") is None:
        return ""
    ran = subprocess.run(["cjpeg", "-version"], capture_output=True, check=False)
    return next(_lines(ran.stderr + ran.stdout), "")


def _lines(output: bytes) -> Iterator[str]:
    return (line.strip() for line in output.decode(errors="replace").splitlines() if line.strip())


def _last_line(output: bytes) -> str:
    return [*_lines(output), "failed without a word"][-1 if not output.strip() else -2]
