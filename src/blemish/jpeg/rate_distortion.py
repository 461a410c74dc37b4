"""Rate-distortion optimisation: the levels of least cost under given tables and λ.

Chroma is chosen first. What it loses is known when luma is chosen, and luma makes up for the part of it that
R, G and B share: the least squared error of RGB needs the luma error -(g_Y,Cb e_Cb + g_Y,Cr e_Cr) / g_Y,Y,
g the products of the colour transform (``tuning.COLOUR``). Not so for ``ssimulacra2``: its luma, like JPEG's,
hardly holds any chroma.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from blemish.errors import UsageError
from blemish.jpeg.coefficients import MAX_COEFFICIENT, MAX_SIDE, Coefficients, Plane, Sampling, block_counts
from blemish.jpeg.distortion import (
    COLOUR,
    SSIMULACRA2_LUMA,
    Floats,
    Sensitivity,
    Tune,
    chroma_response,
    ms_ssim_sensitivity,
    pooled,
    pyramid,
    ssimulacra2_chroma,
    upsample,
)
from blemish.jpeg.entropy import UNZIGZAG, ZIGZAG, Blocks, Scan, plane_statistics, scans, symbol_costs
from blemish.jpeg.tables import Tables, file_table
from blemish.jpeg.transform import BASIS, RGB_TO_YCC, check_pixels, multiplied, planes_of, tiles
from blemish.jpeg.trellis import quantise_blocks

SQUARED_SHARE: dict[Tune, float] = {"ms-ssim": 0.0, "balanced": 0.5, "ssimulacra2": 0.3}
"""The share of squared error; the rest is MS-SSIM's."""

PASSES = 2
"""Rounds of statistics, code lengths and trellis; a third changes rates by less than 0.1 %."""


_PIXELS_AT_ONCE = 1 << 16
"""Planes of floats are made in strips of about this size, which stay in the processor's cache."""

_BLOCKS_AT_ONCE = _PIXELS_AT_ONCE // 64

# Products with the 64 numbers of a block: pixels, row by row, to and from coefficients in zigzag order.
_TO_DCT: Floats = np.ascontiguousarray(BASIS.T[:, ZIGZAG])
_FROM_DCT: Floats = BASIS[ZIGZAG]


@dataclass(frozen=True)
class Component:
    """One plane before quantisation, of (h, w) pixels: its coefficients, (N, 64) in zigzag order."""

    shape: tuple[int, int]
    dct: Floats
    blocks: tuple[int, int]
    scan: Scan


@dataclass(frozen=True)
class CoefficientImage:
    """Everything about an image that does not depend on quality.

    pixels: uint8 (H, W) or (H, W, 3). luma: (H, W), level-shifted.
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    luma: Floats = field(repr=False)
    sampling: Sampling
    components: tuple[Component, ...]

    @cached_property
    def pyramid(self) -> list[Floats]:
        return pyramid(self.luma)


@dataclass(frozen=True)
class Chosen:
    """One plane after quantisation: target coefficients, weights and levels, (N, 64) each."""

    target: Floats
    weights: Floats
    levels: Blocks


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
    for strip in _strips(height, width):
        parts = planes_of(pixels[strip], sampling)
        luma[strip] = parts[0]
        for part, dct, (_, columns), size in zip(parts, dcts, blocks, (1, factor, factor), strict=False):
            _transform(part, dct[strip.start // (8 * size) * columns :])
    components = map(Component, shapes, dcts, blocks, scans(blocks, sampling))
    return CoefficientImage(pixels, luma, sampling, tuple(components))


def _strips(height: int, width: int) -> Iterator[slice]:
    """Rows of pixels in whole MCUs, until the last."""
    step = max(_PIXELS_AT_ONCE // (16 * width), 1) * 16
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _transform(strip: Floats, dct: Floats) -> None:
    """The coefficients of whole rows of blocks, written to the first rows of ``dct``, (N, 64) in zigzag order."""
    blocks = tiles(strip).reshape(-1, 64)
    multiplied(blocks, _TO_DCT, out=dct[: len(blocks)])


def _pieces(blocks: int) -> Iterator[slice]:
    return (slice(first, first + _BLOCKS_AT_ONCE) for first in range(0, blocks, _BLOCKS_AT_ONCE))


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
    for piece in _pieces(len(target)):
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

    ``importance``, (rows, columns) of luma's blocks, multiplies the prices of all errors in a block.
    Images with a side of less than 11 pixels, into which no window of MS-SSIM fits, are tuned for PSNR.
    """
    luma, *chroma = image.components
    levels = _rounded(luma.dct, tables.luma)
    if not image.pyramid:
        tune = "psnr"
    sensitivity = _sensitivity(image, levels, tables.luma, tune)
    prices = _prices(luma, levels, tables.luma, sensitivity, tune)
    target = luma.dct
    chosen: list[Chosen] = []
    if chroma:
        chosen = _select_chroma(image, tables, tune, prices, sensitivity, importance)
        if tune != "ssimulacra2":
            target = luma.dct + _compensation(image, chosen, tables.chroma)
    for number in range(PASSES):
        weights = np.empty(0, np.float32)  # those of the pass before make room
        if number:
            sensitivity = _sensitivity(image, levels, tables.luma, tune)
        weights = _weights(luma, prices, sensitivity, importance, response=np.ones(64, np.float32))
        [levels] = _trellis([target], [weights], [levels], tables.luma, tables.lam, [luma.scan])
    return (Chosen(target, weights, levels), *chosen)


def _select_chroma(
    image: CoefficientImage,
    tables: Tables,
    tune: Tune,
    prices: tuple[float, float],
    sensitivity: Sensitivity | None,
    importance: Floats | None,
) -> list[Chosen]:
    planes = image.components[1:]
    response = chroma_response(image.sampling)
    if tune == "ssimulacra2":
        response, sensitivity = ssimulacra2_chroma(image.sampling), None  # luma does not mask chroma
    factor = 2 if image.sampling == "4:2:0" else 1
    common = _weights(planes[0], prices, sensitivity, importance, response=response, factor=factor)
    weights = [common * np.float32(COLOUR[index, index]) for index in (1, 2)]
    targets = [plane.dct for plane in planes]
    orders = [plane.scan for plane in planes]
    levels = [_rounded(target, tables.chroma) for target in targets]
    for _ in range(PASSES):
        levels = _trellis(targets, weights, levels, tables.chroma, tables.lam, orders)
    return [Chosen(*each) for each in zip(targets, weights, levels, strict=True)]


def _weights(
    component: Component,
    prices: tuple[float, float],
    sensitivity: Sensitivity | None,
    importance: Floats | None,
    *,
    response: Floats,
    factor: int = 1,
) -> Floats:
    """(N, 64): the price of a squared error in each coefficient of a plane whose sides are 1 / ``factor`` of luma's.

    ``response``: (64,), what the price of squared error is multiplied by.
    """
    squared = np.float32(prices[0]) * response
    if sensitivity is None:
        weights = np.tile(squared, (len(component.dct), 1))
    else:
        weights = sensitivity.weights(factor)
        weights *= np.float32(prices[1])
        weights += squared
    if importance is not None:
        weights *= pooled(importance[..., None], factor).reshape(-1, 1)
    return weights


def _sensitivity(
    image: CoefficientImage, levels: Blocks, table: NDArray[np.float64], tune: Tune
) -> Sensitivity | None:
    if tune == "psnr":
        return None
    decoded = decoded_plane(levels, table, image.components[0])
    sensitivity = ms_ssim_sensitivity(image.pyramid, pyramid(decoded))
    return sensitivity.rescaled(SSIMULACRA2_LUMA) if tune == "ssimulacra2" else sensitivity


def _prices(
    luma: Component,
    levels: Blocks,
    table: NDArray[np.float64],
    sensitivity: Sensitivity | None,
    tune: Tune,
) -> tuple[float, float]:
    """Factors of the prices of squared error and of MS-SSIM.

    Where both count, they stand as the relative changes of squared error and of 1 - MS-SSIM. The prices of
    different images are brought to a geometric mean of 1 over luma's AC coefficients that are not zero: λ
    then fits the tables of its quality for every image.
    """
    if sensitivity is None:
        return (1.0, 0.0)
    squared, structural = SQUARED_SHARE[tune], 1.0
    if squared:
        energy = _squared_error(luma.dct, levels, table)
        structural = (1 - squared) * energy / max(sensitivity.loss, 1e-6)
    weights = sensitivity.weights()
    total, count = 0.0, 0
    for piece in _pieces(len(levels)):
        some = weights[piece, 1:][levels[piece, 1:] != 0]
        total += float(np.log(squared + structural * some).sum(dtype=np.float64))
        count += some.size
    mean = math.exp(total / max(count, 1))
    return squared / mean, structural / mean


def _squared_error(dct: Floats, levels: Blocks, table: NDArray[np.float64]) -> float:
    """Squared error of all coefficients together."""
    steps = table.astype(np.float32)
    total = 0.0
    for piece in _pieces(len(levels)):
        error = dct[piece] - levels[piece] * steps
        error *= error
        total += float(error.sum(dtype=np.float64))
    return total


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
