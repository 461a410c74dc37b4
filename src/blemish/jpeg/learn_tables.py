"""Learning the ladder of quantisation tables from photographs: ``python -m blemish.jpeg.learn_tables PHOTOS --out FILE``.

For each λ the tables minimise J = Σ w (c - q z)² + λ · bits over the photographs, z chosen by the trellis.
As z is the best for q, dJ/dq is that of the first term at fixed z (the envelope theorem), and the logarithms
of all steps are moved at once by the sign of their gradients, each at its own pace.

Source of the update: Riedmiller, Braun, "A direct adaptive method for faster backpropagation learning: the
RPROP algorithm", IEEE International Conference on Neural Networks, 1993.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from blemish._version import __version__
from blemish.errors import BlemishError, UsageError
from blemish.jpeg.distortion import TUNES, Tune
from blemish.jpeg.entropy import UNZIGZAG, Statistics, plane_statistics
from blemish.jpeg.lattice import ON_LATTICE, lattice_share
from blemish.jpeg.rate_distortion import CoefficientImage, prepare, select
from blemish.jpeg.source_image import read_source
from blemish.jpeg.tables import SHIPPED, Knot, Ladder, Tables, as_json, read_ladder
from blemish.storage.atomic import write_text

LADDER: tuple[tuple[float, float], ...] = (
    (1, 3000.0),
    (10, 900.0),
    (20, 330.0),
    (35, 155.0),
    (50, 90.0),
    (65, 45.0),
    (80, 12.0),
    (90, 4.0),
    (96, 1.2),
    (100, 0.05),
)
"""(quality, λ): at these λ the learned encoders are about as good as libjpeg at that quality."""

CROP = 384
"""Side in pixels of what is taken from the middle of each photograph."""


def objective(
    images: Sequence[CoefficientImage], tables: Tables, tune: Tune
) -> tuple[float, NDArray[np.float64]]:
    """J over the images, and its gradient for the logarithms of the steps: (128,), luma's, then chroma's.

    The weights, and luma's target, which chroma's losses shift, are taken as given.
    """
    total, gradient = 0.0, np.zeros((2, 64))
    for image in images:
        counts: list[Statistics] = []
        for index, (plane, component) in enumerate(
            zip(select(image, tables, tune), image.components, strict=True)
        ):
            q = (tables.chroma if index else tables.luma).astype(np.float32)
            error = plane.target - plane.levels * q
            weighted = plane.weights * error
            total += plane.distortion(tables.chroma if index else tables.luma)
            gradient[min(index, 1)] -= 2 * q * (weighted * plane.levels).sum(0, dtype=np.float64)
            counts.append(plane_statistics(plane.levels, component.scan))
        total += tables.lam * (counts[0].bits + (sum(counts[2:], counts[1]).bits if counts[1:] else 0))
    return total, gradient.ravel()


def learn_tables(images: Sequence[CoefficientImage], start: Tables, tune: Tune, *, steps: int) -> Tables:
    """The tables that minimise J at ``start.lam``, the best of ``steps`` steps of Rprop from ``start``."""
    x = np.log(np.concatenate([start.luma, start.chroma]))
    pace, before = np.full(128, 0.1), np.zeros(128)
    best, best_total = start, np.inf
    for _ in range(steps):
        tables = Tables(np.exp(x[:64]), np.exp(x[64:]), start.lam)
        total, gradient = objective(images, tables, tune)
        if total < best_total:
            best, best_total = tables, total
        sign = np.sign(gradient)
        turned = sign * before
        pace = np.clip(np.where(turned > 0, 1.25, np.where(turned < 0, 0.5, 1)) * pace, 0.01, 0.3)
        x = np.clip(x - sign * pace, 0, np.log(255))
        before = sign
    return best


def learn_ladder(
    images: Sequence[CoefficientImage],
    tune: Tune,
    *,
    ladder: Sequence[tuple[float, float]] = LADDER,
    first_steps: int = 25,
    steps: int = 10,
    report: Callable[[str], None] = lambda line: None,
) -> list[Knot]:
    """A knot for each (quality, λ), learned outwards from the middle, each from its neighbour's tables."""
    middle = len(ladder) // 2
    found: dict[int, Tables] = {}
    for index in [*range(middle, len(ladder)), *range(middle - 1, -1, -1)]:
        quality, lam = ladder[index]
        neighbour = found.get(index - 1) or found.get(index + 1)
        if neighbour is None:
            # the step at which a price of λ a bit is due, about λ = q² / 9
            start = Tables(np.full(64, 3 * lam**0.5), np.full(64, 3 * lam**0.5), lam)
        else:
            ratio = (lam / neighbour.lam) ** 0.5
            luma, chroma = (np.clip(table * ratio, 1, 255) for table in (neighbour.luma, neighbour.chroma))
            start = Tables(luma, chroma, lam)
        found[index] = learn_tables(images, start, tune, steps=first_steps if neighbour is None else steps)
        report(f"{tune}, quality {quality:g}: first steps {found[index].luma[:3].round(1).tolist()}")
    return [_knot(*ladder[index], found[index]) for index in range(len(ladder))]


def _knot(quality: float, lam: float, tables: Tables) -> Knot:
    luma, chroma = (table[UNZIGZAG].reshape(8, 8).round(2).tolist() for table in (tables.luma, tables.chroma))
    return Knot(quality=quality, lam=lam, luma=luma, chroma=chroma)


def crop(pixels: NDArray[np.uint8], side: int = CROP) -> NDArray[np.uint8]:
    """At most (side, side) pixels from the middle, starting at a whole MCU."""
    top, left = (max(0, (length - side) // 32 * 16) for length in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


def without_lattice(photographs: Mapping[Path, NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """The photographs that are no decoded JPEG; of each that is a line is written to standard error.

    Raises
    ------
    UsageError
        All of them are.
    """
    kept = []
    for path, pixels in photographs.items():
        share = lattice_share(pixels)
        if share < ON_LATTICE:
            kept.append(pixels)
            continue
        typer.echo(
            f"{path}: is left out, a decoded JPEG whose quantisation steps would be learned ({share:.0%} of its "
            "coefficients lie on multiples of one); take its lossless source, or halve it",
            err=True,
        )
    if not kept:
        raise UsageError("all photographs are decoded JPEGs; take lossless sources, or halve them")
    return kept


def main(
    photos: Annotated[
        Path, typer.Argument(help="Folder of colour photographs, without those to be measured on.")
    ],
    out: Annotated[
        Path, typer.Option(help="The ladder's file; tunes that are not learned anew stay in it.")
    ] = SHIPPED,
    tune: Annotated[list[str] | None, typer.Option(help="Learn this tune only; may be repeated.")] = None,
    most: Annotated[
        int | None,
        typer.Option(min=1, help="Learn from so many of the photographs, evenly spaced; by default all."),
    ] = None,
) -> None:
    """Learn the quantisation tables of every quality, about two minutes a tune for 18 photographs."""
    try:
        chosen = [known for known in TUNES if known in (tune or TUNES)]
        unknown = set(tune or ()) - set(TUNES)
        if unknown:
            raise UsageError(f"tune '{unknown.pop()}' is unknown; there are {', '.join(TUNES)}")
        files = sorted(path for path in photos.glob("*") if path.suffix.lower() in (".png", ".tif", ".tiff"))
        if not files:
            raise UsageError(f"{photos} holds no PNG or TIFF photographs; name a folder that does")
        if most is not None and most < len(files):
            files = [files[i] for i in np.linspace(0, len(files) - 1, most).round().astype(int)]
        sources = [read_source(path).pixels for path in files]
        coloured = {
            path: crop(pixels) for path, pixels in zip(files, sources, strict=True) if pixels.ndim == 3
        }
        if not coloured:
            raise UsageError(f"{photos} holds grey photographs only; add some in colour")
        images = [prepare(pixels, "4:2:0") for pixels in without_lattice(coloured)]
        tunes = dict(read_ladder(out).tunes) if out.exists() else {}
        for name in chosen:
            tunes[name] = learn_ladder(images, name, report=lambda line: typer.echo(line, err=True))
            made_with = f"blemish {__version__}, {len(images)} photographs, middle {CROP}² pixels of each"
            ordered = {known: tunes[known] for known in TUNES if known in tunes}
            write_text(out, as_json(Ladder(made_with=made_with, tunes=ordered)))
    except BlemishError as error:
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    typer.run(main)
