"""Baseline codecs: libjpeg-turbo through Pillow, mozjpeg through pyvips or a ``cjpeg`` on the PATH, jpegli."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal

import numpy as np
import PIL
from PIL import Image, features

from blemish.errors import BlemishError
from blemish.jpeg.benchmark.codecs import Codec, Pixels
from blemish.jpeg.quality import Unavailable


@dataclass(frozen=True)
class PillowCodec:
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


PILLOW_420 = PillowCodec("pillow-420", "4:2:0", optimize=True)
"""Pillow with optimised Huffman tables and halved chroma, as a careful user sets it."""

PILLOW_444 = PillowCodec("pillow-444", "4:4:4", optimize=False)
"""Baseline of Strümpler, Yang, Timofte 2020 and of Liu, Liu, Mantravadi 2022."""

BASELINES = (PILLOW_420, PILLOW_444)


@dataclass(frozen=True)
class MozjpegCodec:
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

        libvips = ".".join(str(pyvips.version(part)) for part in range(3))
        deringing = ", overshoot deringing" if self.deringing else ""
        return f"mozjpeg of libvips {libvips}, 4:2:0, trellis, table {self.quant_table}{deringing}"

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
class CjpegCodec:
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


@dataclass(frozen=True)
class JpegliCodec:
    """jpegli, the JPEG encoder of the makers of JPEG XL, through pyjpegli: 4:2:0, adaptive quantisation, baseline.

    Its lowest quality still takes about 0.4 bits a pixel on a busy photograph, so that its BD-rates are of a part of
    low rates.
    """

    name: str = "jpegli"

    @property
    def description(self) -> str:
        """Settings and version."""
        return f"jpegli of pyjpegli {version('pyjpegli')}, 4:2:0, baseline"

    def encode(self, pixels: Pixels, quality: int) -> bytes:
        """See :class:`Codec`; grey pixels are refused, because pyjpegli takes colour alone."""
        import pyjpegli

        if pixels.ndim == 2:
            raise BlemishError(f"{self.name}: takes colour images only; leave it or the grey images out")
        height, width = pixels.shape[:2]
        data: bytes = pyjpegli.encode(pixels.tobytes(), width, height, quality)
        return data


JPEGLI = JpegliCodec()

MOZJPEG = (
    MozjpegCodec("mozjpeg", 3),
    MozjpegCodec("mozjpeg-psnr", 1),
    MozjpegCodec("mozjpeg-ms-ssim", 2),
)
"""mozjpeg with its own tables, and with those of pyvips that do best on PSNR and on MS-SSIM."""

CJPEG = (
    CjpegCodec("cjpeg-psnr", ("-tune-psnr",)),
    CjpegCodec("cjpeg-ms-ssim", ("-tune-ms-ssim", "-quant-table", "2")),
)


def find_baselines() -> tuple[list[Codec], list[Unavailable]]:
    """The baselines that this machine can run, Pillow 4:2:0 first, and those that it cannot."""
    found: list[Codec] = [PILLOW_420, PILLOW_444]
    missing: list[Unavailable] = []
    problem = _mozjpeg_problem()
    if problem is None:
        found += MOZJPEG
    else:
        missing += [Unavailable(encoder.name, problem) for encoder in MOZJPEG]
    if find_spec("pyjpegli") is None:
        missing.append(Unavailable(JPEGLI.name, "type: pip install pyjpegli"))
    else:
        found.append(JPEGLI)
    if "mozjpeg" in _cjpeg_version():
        found += CJPEG
    else:
        remedy = "put the cjpeg of mozjpeg on the PATH"
        missing += [Unavailable(encoder.name, remedy) for encoder in CJPEG]
    return found, missing


def _mozjpeg_problem() -> str | None:
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
    """First line of ``cjpeg -version``; empty where there is no cjpeg."""
    if shutil.which("cjpeg") is None:
        return ""
    ran = subprocess.run(["cjpeg", "-version"], capture_output=True, check=False)
    return next(_lines(ran.stderr + ran.stdout), "")


def _lines(output: bytes) -> Iterator[str]:
    return (line.strip() for line in output.decode(errors="replace").splitlines() if line.strip())


def _last_line(output: bytes) -> str:
    return [*_lines(output), "failed without a message"][-1 if not output.strip() else -2]
