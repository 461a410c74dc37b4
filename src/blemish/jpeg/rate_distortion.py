"""Rate-distortion optimisation: the levels of least cost under given tables and λ.

Chroma is chosen first. What it loses is known when luma is chosen, and luma makes up for the part of it that
R, G and B share: the least squared error of RGB needs the luma error -(g_Y,Cb e_Cb + g_Y,Cr e_Cr) / g_Y,Y,
g the products of the colour transform (``distortion.COLOUR``). Then chroma is chosen once more and makes up for what
luma loses, as far as halved chroma can, and luma again. SSIMULACRA2 does not ask for that: its luma, like JPEG's,
hardly holds any chroma.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from blemish.errors import UsageError
from blemish.jpeg.chroma import HalvedPlane, halved_for_upsampling
from blemish.jpeg.coefficients import MAX_COEFFICIENT, MAX_SIDE, Coefficients, Plane, Sampling, block_counts
from blemish.jpeg.distortion import (
    COLOUR,
    Floats,
    Sensitivity,
    Tune,
    ms_ssim_sensitivity,
    pooled,
    pyramid,
    upsample,
)
from blemish.jpeg.entropy import UNZIGZAG, ZIGZAG, Blocks, Scan, plane_statistics, scans, symbol_costs
from blemish.jpeg.prices import Prices, image_prices, pieces
from blemish.jpeg.tables import Tables, file_table
from blemish.jpeg.transform import BASIS, RGB_TO_YCC, check_pixels, multiplied, planes_of, tiles
from blemish.jpeg.trellis import quantise_blocks
from blemish.jpeg.tuning import TUNINGS, Tuning

TO_CHROMA = np.linalg.solve(COLOUR[1:, 1:], COLOUR[1:, 0])
"""(2,): errors of Cb and Cr that make up for an error of luma of -1, as far as chroma can."""

MADE_UP = tuple(COLOUR[0, index] ** 2 / (COLOUR[0, 0] * COLOUR[index, index]) for index in (1, 2))
"""The share of the squared error of Cb and of Cr that luma can make up for."""

PASSES = 2
"""Rounds of statistics, code lengths and trellis; a third changes rates by less than 0.1 %."""


_PIXELS_AT_ONCE = 1 << 16
"""Planes of floats are made in strips of about this size, which stay in the processor's cache."""

# Products with the 64 numbers of a block: pixels, row by row, to and from coefficients in zigzag order.
_TO_DCT: Floats = np.ascontiguousarray(BASIS.T[:, ZIGZAG])
_FROM_DCT: Floats = BASIS[ZIGZAG]


@dataclass(frozen=True)
class Component:
    """One plane before quantisation, of (h, w) pixels: its coefficients, (N, 64) in zigzag order.

    lost: squared error of the full-size plane that halving has brought.
    """

    shape: tuple[int, int]
    dct: Floats
    blocks: tuple[int, int]
    scan: Scan
    lost: float = 0.0


@dataclass(frozen=True)
class CoefficientImage:
    """Everything about an image that does not depend on quality.

    pixels: uint8 (H, W) or (H, W, 3). luma: (H, W), level-shifted.
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    luma: Floats = field(repr=False)
    sampling: Sampling
    components: tuple[Component, ...]

    @property
    def factor(self) -> int:
        """How many times as long as chroma's the sides of luma are."""
        return 2 if self.sampling == "4:2:0" else 1

    @cached_property
    def pyramid(self) -> list[Floats]:
        return pyramid(self.luma)


@dataclass(frozen=True)
class Chosen:
    """One plane after quantisation: target coefficients, weights and levels, (N, 64) each.

    source: of chroma, the image's own coefficients, where ``target`` is moved to make up for luma. alone: the share of
    the price of chroma's errors that luma does not make up for. lost: the price of what halving has lost.
    """

    target: Floats
    weights: Floats
    levels: Blocks
    source: Floats | None = None
    alone: float = 1.0
    lost: float = 0.0

    def distortion(self, table: NDArray[np.float64]) -> float:
        """The price of all errors; over the planes of an image it adds up to that of R, G and B.

        For errors e, g_YY e_Y² + 2 g_YC e_Y e_C + g_CC e_C² is g_YY (e_Y - t)² + (g_CC - g_YC² / g_YY) e_C², t the error
        of luma that would make up for e_C, by which its target is moved.
        """
        q = table.astype(np.float32)
        source = self.target if self.source is None else self.source
        total = 0.0
        for piece in pieces(len(self.levels)):
            error = source[piece] - self.levels[piece] * q
            error *= error
            error *= self.weights[piece]
            total += float(error.sum(dtype=np.float64))
        return self.alone * total + self.lost


def prepare(pixels: NDArray[np.uint8], sampling: Sampling) -> CoefficientImage:
    """uint8 (H, W) or (H, W, 3) -> its luma, coefficients and scans.

    Raises
    ------
    UsageError
        Pixels of another type or shape, none, or more a side than a JPEG has.
    """
    check_pixels(pixels)
    height, width = pixels.shape[:2]
    if max(height, width) > MAX_SIDE:
        raise UsageError(f"an image of {width} × {height} pixels; a JPEG has at most {MAX_SIDE} a side")
    planes = 3 if pixels.ndim == 3 else 1
    if planes == 1:
        sampling = "4:4:4"
    factor = 2 if sampling == "4:2:0" else 1
    shapes = [(height, width), *[(-(-height // factor), -(-width // factor))] * (planes - 1)]
    blocks = block_counts(width, height, planes, sampling)
    dcts = [np.empty((rows * columns, 64), np.float32) for rows, columns in blocks]
    luma = np.empty((height, width), np.float32)
    halves = [HalvedPlane(height, width) for _ in shapes[1:]] if factor == 2 else []
    for strip in _strips(height, width):
        parts = planes_of(pixels[strip], "4:4:4")
        luma[strip] = parts[0]
        _transform(parts[0], dcts[0][strip.start // 8 * blocks[0][1] :])
        if halves:
            for half, part in zip(halves, parts[1:], strict=True):
                half.add(part, strip.start)
        else:
            for part, dct in zip(parts[1:], dcts[1:], strict=True):
                _transform(part, dct[strip.start // 8 * blocks[0][1] :])
    lost = [0.0] * planes
    for index, half in enumerate(halves, 1):
        plane, lost[index] = half.plane()
        _transform_plane(plane, dcts[index], blocks[1][1])
    components = map(Component, shapes, dcts, blocks, scans(blocks, sampling), lost)
    return CoefficientImage(pixels, luma, sampling, tuple(components))


def _strips(height: int, width: int) -> Iterator[slice]:
    """Rows of pixels in whole MCUs, until the last."""
    step = max(_PIXELS_AT_ONCE // (16 * width), 1) * 16
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _transform(strip: Floats, dct: Floats) -> None:
    """The coefficients of whole rows of blocks, written to the first rows of ``dct``, (N, 64) in zigzag order."""
    blocks = tiles(strip).reshape(-1, 64)
    multiplied(blocks, _TO_DCT, out=dct[: len(blocks)])


def _transform_plane(plane: Floats, dct: Floats, columns: int) -> None:
    """The coefficients of a whole plane of ``columns`` blocks a row, strip by strip."""
    for strip in _strips(*plane.shape):
        _transform(plane[strip], dct[strip.start // 8 * columns :])


def decoded_plane(levels: Blocks, table: NDArray[np.float64], component: Component) -> Floats:
    """(N, 64) levels in zigzag order -> the plane's pixels (h, w), neither rounded nor clipped."""
    height, width = component.shape
    columns = component.blocks[1]
    from_levels = table.astype(np.float32)[:, None] * _FROM_DCT
    pixels = np.empty(component.shape, np.float32)
    for strip in _strips(height, width):
        rows = -(-(strip.stop - strip.start) // 8)
        first = strip.start // 8 * columns
        blocks = multiplied(levels[first : first + rows * columns].astype(np.float32), from_levels)
        part = blocks.reshape(rows, columns, 8, 8).swapaxes(1, 2).reshape(rows * 8, columns * 8)
        pixels[strip] = part[: strip.stop - strip.start, :width]
    return pixels


def _rounded(target: Floats, table: NDArray[np.float64]) -> Blocks:
    levels = np.empty(target.shape, np.int16)
    reciprocal = (1 / table).astype(np.float32)
    for piece in pieces(len(target)):
        scaled = target[piece] * reciprocal
        scaled += np.copysign(np.float32(0.5), scaled)
        levels[piece] = np.clip(scaled, -MAX_COEFFICIENT, MAX_COEFFICIENT)  # truncates towards 0
    return levels


def _trellis(
    targets: list[Floats],
    weights: list[Floats],
    start: list[Blocks],
    table: NDArray[np.float64],
    lam: float,
    orders: list[Scan],
) -> list[Blocks]:
    """The levels of planes that share Huffman tables, under the code lengths that ``start`` would get."""
    counts = [plane_statistics(levels, order) for levels, order in zip(start, orders, strict=True)]
    together = sum(counts[1:], counts[0])
    lengths = symbol_costs(together.dc), symbol_costs(together.ac)
    return [
        quantise_blocks(target, weight, table, lengths, lam, order)
        for target, weight, order in zip(targets, weights, orders, strict=True)
    ]


def check_importance(importance: Floats, image: CoefficientImage) -> None:
    """Refuse an importance that is not one number above 0 for each luma block."""
    blocks = image.components[0].blocks
    if importance.shape != blocks:
        raise UsageError(
            f"importance is {importance.shape}; one number for each of {blocks} blocks is needed"
        )
    if not (np.isfinite(importance).all() and (importance > 0).all()):
        raise UsageError("importance must be finite and above 0")


def select(
    image: CoefficientImage, tables: Tables, tune: Tune, importance: Floats | None = None
) -> tuple[Chosen, ...]:
    """The levels of each plane that cost least, luma first.

    Chroma and luma are chosen in turn, each with what the other loses in view. ``importance``, (rows, columns) of
    luma's blocks, multiplies the prices of all errors in a block. Images with a side of less than 11 pixels, into which
    no window of MS-SSIM fits, are tuned for PSNR.
    """
    luma, *chroma = image.components
    tuning = TUNINGS[tune if image.pyramid else "psnr"]
    levels = _rounded(luma.dct, tables.luma)
    sensitivity = _sensitivity(image, levels, tables.luma, tuning)
    prices = image_prices(luma.dct, levels, tables.luma, sensitivity, tuning)
    of_chroma = [_rounded(plane.dct, tables.chroma) for plane in chroma]
    chosen: list[Chosen] = []
    weights = np.empty(0, np.float32)
    for number in range(PASSES):
        del weights  # those of the pass before make room
        if number:
            sensitivity = _sensitivity(image, levels, tables.luma, tuning)
        if chroma:
            error = _luma_error(image, levels, tables.luma) if number and tuning.compensation else None
            chosen = []  # as above
            chosen = _select_chroma(image, tables, prices, sensitivity, importance, of_chroma, error)
            of_chroma = [plane.levels for plane in chosen]
        if chroma and tuning.compensation:
            target = _compensation(image, chosen, tables.chroma)
            weights = prices.of_luma(len(levels), sensitivity, target)
            target *= np.float32(tuning.compensation)
            target += luma.dct
        else:
            target = luma.dct
            weights = prices.of_luma(len(levels), sensitivity, None)
        _multiply(weights, importance)
        [levels] = _trellis([target], [weights], [levels], tables.luma, tables.lam, [luma.scan])
    return (Chosen(target, weights, levels), *chosen)


def _select_chroma(
    image: CoefficientImage,
    tables: Tables,
    prices: Prices,
    sensitivity: Sensitivity | None,
    importance: Floats | None,
    start: list[Blocks],
    error: Floats | None,
) -> list[Chosen]:
    """One pass over both planes of chroma; ``error``, (N, 64), is what luma loses, at the size of chroma."""
    planes = image.components[1:]
    targets, weights = [], []
    for index, plane in enumerate(planes):
        shift = None if error is None else error * np.float32(-TO_CHROMA[index])
        weights.append(prices.of_chroma(index, len(plane.dct), image.sampling, sensitivity, shift))
        _multiply(weights[-1], importance, factor=image.factor)
        if shift is not None:
            shift *= np.float32(prices.tuning.compensation)
            shift += plane.dct
        targets.append(plane.dct if shift is None else shift)
    orders = [plane.scan for plane in planes]
    levels = _trellis(targets, weights, start, tables.chroma, tables.lam, orders)
    return [
        Chosen(
            targets[index],
            weights[index],
            levels[index],
            source=plane.dct,
            alone=1 - prices.tuning.compensation * MADE_UP[index],
            lost=prices.of_lost(index, sensitivity) * plane.lost,
        )
        for index, plane in enumerate(planes)
    ]


def _multiply(weights: Floats, importance: Floats | None, factor: int = 1) -> None:
    if importance is not None:
        weights *= pooled(importance[..., None], factor).reshape(-1, 1)


def _sensitivity(
    image: CoefficientImage, levels: Blocks, table: NDArray[np.float64], tuning: Tuning
) -> Sensitivity | None:
    if not (tuning.ms_ssim or tuning.ssimulacra2):
        return None
    decoded = decoded_plane(levels, table, image.components[0])
    return ms_ssim_sensitivity(image.pyramid, pyramid(decoded))


def _luma_error(image: CoefficientImage, levels: Blocks, table: NDArray[np.float64]) -> Floats:
    """(N, 64): what luma loses, decoded less original, as coefficients at the size of chroma."""
    error = decoded_plane(levels, table, image.components[0])
    error -= image.luma
    if image.sampling == "4:2:0":
        error = halved_for_upsampling(error)
    dct = np.empty_like(image.components[1].dct)
    _transform_plane(error, dct, image.components[1].blocks[1])
    return dct


def _compensation(image: CoefficientImage, chosen: list[Chosen], table: NDArray[np.float64]) -> Floats:
    """(N, 64): the luma coefficients that make up for the errors of Cb and Cr as far as luma can."""
    gains = (COLOUR[0, 1:] / COLOUR[0, 0]).astype(np.float32)
    of_rgb = gains @ RGB_TO_YCC[1:]
    cb, cr = (
        decoded_plane(plane.levels, table, component)
        for component, plane in zip(image.components[1:], chosen, strict=True)
    )
    cb *= gains[0]
    cr *= gains[1]
    cb += cr
    luma = image.components[0]
    compensation = np.empty_like(luma.dct)
    (height, width), columns = luma.shape, luma.blocks[1]
    for strip in _strips(height, width):
        shift = image.pixels[strip].astype(np.float32) @ of_rgb  # what the image's chroma has
        if image.sampling == "4:2:0":
            shift -= upsample(cb, len(shift), width, strip.start)
        else:
            shift -= cb[strip]
        _transform(shift, compensation[strip.start // 8 * columns :])
    return compensation


def assemble(image: CoefficientImage, chosen: tuple[Chosen, ...], tables: Tables) -> Coefficients:
    """The image with its levels and the tables, rounded to what a file holds."""
    planes = []
    for index, (component, plane) in enumerate(zip(image.components, chosen, strict=True)):
        levels = plane.levels[:, UNZIGZAG].reshape(*component.blocks, 8, 8)
        planes.append(Plane(levels, file_table(tables.chroma if index else tables.luma)))
    height, width = image.luma.shape
    return Coefficients(width, height, tuple(planes), image.sampling)
