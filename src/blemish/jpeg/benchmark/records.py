"""Records of measured files, and the evaluation made from them: rates, curves, times, tables as text."""

from __future__ import annotations

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from blemish.jpeg.benchmark.baselines import BASELINES
from blemish.jpeg.quality import Measure
from blemish.report.numbers import counted

COMPARED: dict[Measure, str] = {
    "psnr_rgb": "PSNR-RGB",
    "psnr_y": "PSNR-Y",
    "ms_ssim": "MS-SSIM",
    "ssimulacra2": "SSIMULACRA2",
    "lpips": "LPIPS",
}
"""Measures by which encoders are compared, and their names in tables."""

CONVENTIONS = (
    "Rate: all bytes of the file. Decoder: Pillow (libjpeg-turbo). PSNR-RGB: of the mean squared error over R, G "
    "and B; PSNR-Y: of Y = 0.299 R + 0.587 G + 0.114 B, not rounded. MS-SSIM: mean of that of R, G and B, window "
    "11, σ 1.5, five scales, windows inside the image (as pytorch-msssim); its BD-rate is over "
    "-10 log10(1 - MS-SSIM). BD-rate: per image, pchip over "
    "log rate, both curves limited to the rates named, then the mean over images with its 95 % bootstrap "
    "interval; negative is better."
)


class CodecRecord(BaseModel):
    """Measurements of one file: a line of ``records.jsonl``.

    A record is used again while the image's bytes, the encoder's description and the quality are the same and it
    has all measures asked for.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    # Files of the first format call the image a picture.
    image: str = Field(validation_alias=AliasChoices("image", "picture"))
    image_sha256: str = Field(validation_alias=AliasChoices("image_sha256", "picture_sha256"))
    encoder: str
    description: str
    quality: int
    width: int
    height: int
    bytes: int
    seconds: float
    measures: dict[Measure, float | None]

    @property
    def bits_per_pixel(self) -> float:
        """Rate of the whole file, headers included."""
        return 8 * self.bytes / (self.width * self.height)


class BdRate(BaseModel):
    """Mean BD-rate in percent and its 95 % interval, over the images whose curves overlap."""

    model_config = ConfigDict(frozen=True)

    anchor: str
    encoder: str
    measure: Measure
    mean: float
    low: float
    high: float
    images: int

    def __str__(self) -> str:
        return f"{self.mean:+.1f} % [{self.low:+.1f}, {self.high:+.1f}]"


class RatePoint(BaseModel):
    """Means over all images at one quality; a measure is None where some image lacks it."""

    model_config = ConfigDict(frozen=True)

    quality: int
    bits_per_pixel: float
    measures: dict[Measure, float | None]


class CodecResult(BaseModel):
    """Mean rate-distortion curve and encode time of one codec.

    ``relative_rate`` has, by measure, points (rate of Pillow 4:2:0, this encoder's bits over Pillow's at equal
    quality), the geometric mean over images.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    description: str
    points: tuple[RatePoint, ...]
    milliseconds_per_image: float
    times_pillow: float | None
    relative_rate: dict[Measure, tuple[tuple[float, float], ...]]


class CodecEvaluation(BaseModel):
    """Comparison of all codecs, as ``evaluation.json`` holds it."""

    model_config = ConfigDict(frozen=True)

    images: tuple[str, ...]
    bpp_range: tuple[float, float]
    encoders: tuple[CodecResult, ...]
    rates: tuple[BdRate, ...]
    missing: dict[str, str]
    """Codecs and measures that could not take part, and the remedy."""
    command: str
    versions: dict[str, str]
    machine: str
    workers: int

    @property
    def measures(self) -> list[Measure]:
        """Measures of which there is any BD-rate."""
        return [measure for measure in COMPARED if any(rate.measure == measure for rate in self.rates)]

    def rate(self, anchor: str, encoder: str, measure: Measure) -> BdRate | None:
        """The BD-rate of ``encoder`` against ``anchor``; None where no image has one."""
        wanted = (anchor, encoder, measure)
        return next((r for r in self.rates if (r.anchor, r.encoder, r.measure) == wanted), None)

    def rows(self, anchor: str) -> list[list[str]]:
        """One row for each encoder: its BD-rates against ``anchor`` by measure, and its time."""
        return [
            [
                encoder.name,
                *(str(self.rate(anchor, encoder.name, measure) or "–") for measure in self.measures),
                f"{encoder.milliseconds_per_image:.0f}",
                "–" if encoder.times_pillow is None else f"{encoder.times_pillow:.1f}",
            ]
            for encoder in self.encoders
            if encoder.name != anchor
        ]

    def columns(self) -> list[str]:
        """Titles of the columns of ``rows``."""
        return [
            "encoder",
            *(COMPARED[measure] for measure in self.measures),
            "ms an image",
            "× Pillow 4:2:0",
        ]

    def in_words(self) -> str:
        """Both tables as plain text."""
        parts = [f"{counted(len(self.images), 'image')}, {self.rates_in_words()}"]
        for anchor in BASELINES:
            cells = [self.columns(), *self.rows(anchor.name)]
            widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
            lines = [
                "  ".join(
                    cell.ljust(w) if place == 0 else cell.rjust(w)
                    for place, (cell, w) in enumerate(zip(row, widths, strict=True))
                )
                for row in cells
            ]
            parts.append("\n".join([f"BD-rate against {anchor.name}", *lines]))
        parts += [f"Without {name}: {remedy}." for name, remedy in self.missing.items()]
        return "\n\n".join(parts)

    def rates_in_words(self) -> str:
        """Range of the rates that are compared, as text."""
        return f"{self.bpp_range[0]:g} to {self.bpp_range[1]:g} bits per pixel"

    def markdown(self) -> str:
        """Tables, conventions, command, machine and versions as Markdown."""
        lines = ["# JPEG encoders compared", ""]
        lines += [f"{counted(len(self.images), 'image')}, {self.rates_in_words()}. {CONVENTIONS}", ""]
        for anchor in BASELINES:
            lines += [f"## BD-rate against {anchor.name}", ""]
            for row in (self.columns(), ["---"] * len(self.columns()), *self.rows(anchor.name)):
                lines.append(f"| {' | '.join(row)} |")
            lines.append("")
        lines += ["## Encoders", ""]
        lines += [f"- {encoder.name}: {encoder.description}" for encoder in self.encoders]
        lines += [f"- without {name}: {remedy}" for name, remedy in self.missing.items()]
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        made = f"Made by `{self.command}` on {self.machine}" if self.command else f"Made on {self.machine}"
        lines += ["", f"{made}, {counted(self.workers, 'process')}; {versions}.", ""]
        return "\n".join(lines)
