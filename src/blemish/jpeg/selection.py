"""Which coefficients survive: from pixels to the levels that cost least under given tables and λ.

Chroma is chosen first. What it loses is known when luma is chosen, and luma makes up for the part of it that
R, G and B share: the least squared error of RGB needs the luma error -(g_Y,Cb e_Cb + g_Y,Cr e_Cr) / g_Y,Y,
g the products of the colour transform (``tuning.COLOUR``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from blemish.errors import UsageError
from blemish.jpeg.coefficients import Coefficients, Plane, Sampling
from blemish.jpeg.entropy import (
    UNZIGZAG,
    ZIGZAG,
    Blocks,
    Scan,
    plane_statistics,
    scans,
    symbol_costs,
)
from blemish.jpeg.tables import Tables, file_table
from blemish.jpeg.transform import DCT, blocks_dct, halved, planes_of
from blemish.jpeg.trellis import quantise_blocks
from blemish.jpeg.tuning import (
    COLOUR,
    Floats,
    Scale,
    Sensitivity,
    Tune,
    chroma_response,
    ms_ssim_sensitivity,
    pooled,
    pyramid,
    upsample,
)

BALANCE = 0.5
"""The share of squared error in the tune "balanced"; the rest is MS-SSIM's."""

PASSES = 2
"""Rounds of statistics, code lengths and trellis; a third changes rates by less than 0.1 %."""


@dataclass(frozen=True)
class Component:
    """One plane before quantisation: its pixels (h, w) and coefficients (N, 64) in zigzag order."""

    pixels: Floats
    dct: Floats
    blocks: tuple[int, int]
    scan: Scan


@dataclass(frozen=True)
class Picture:
    """Everything about a picture that does not depend on quality."""

    width: int
    height: int
    sampling: Sampling
    components: tuple[Component, ...]
    full_chroma: tuple[Floats, ...] = field(repr=False)

    @cached_property
    def pyramid(self) -> list[Scale]:
        return pyramid(self.components[0].pixels)


@dataclass(frozen=True)
class Chosen:
    """One plane after quantisation: what was aimed at, at which weights, and the levels, (N, 64) each."""

    target: Floats
    weights: Floats
    levels: Blocks


def prepare(pixels: NDArray[np.uint8], sampling: Sampling) -> Picture:
    """uint8 (H, W) or (H, W, 3) -> its planes, coefficients and scans.

    Raises
    ------
    UsageError
        Pixels of another type or shape, or none.
    """
    height, width = pixels.shape[:2]
    luma, *full_chroma = planes_of(pixels, "4:4:4")
    if not full_chroma:
        sampling = "4:4:4"
    planes = [luma, *map(halved, full_chroma)] if sampling == "4:2:0" else [luma, *full_chroma]
    dcts = [blocks_dct(plane) for plane in planes]
    shapes = [dct.shape[:2] for dct in dcts]
    components = tuple(
        Component(plane, np.ascontiguousarray(dct.reshape(-1, 64)[:, ZIGZAG]), shape, order)
        for plane, dct, shape, order in zip(planes, dcts, shapes, scans(shapes, sampling), strict=True)
    )
    return Picture(width, height, sampling, components, tuple(full_chroma))


def decoded_plane(levels: Blocks, table: NDArray[np.float64], component: Component) -> Floats:
    """(N, 64) levels in zigzag order -> the plane's pixels (h, w), neither rounded nor clipped."""
    dct: Floats = np.multiply(levels, table, dtype=np.float32)
    rows, columns = component.blocks
    blocks = dct[:, UNZIGZAG].reshape(rows, columns, 8, 8)
    pixels = (DCT.T @ blocks @ DCT).swapaxes(1, 2).reshape(rows * 8, columns * 8)
    height, width = component.pixels.shape
    return np.ascontiguousarray(pixels[:height, :width])


def _rounded(target: Floats, table: NDArray[np.float64]) -> Blocks:
    scaled = target * (1 / table).astype(np.float32)
    return np.clip(np.trunc(scaled + np.copysign(np.float32(0.5), scaled)), -1023, 1023).astype(np.int16)


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


def check_importance(importance: Floats, picture: Picture) -> None:
    """Refuse an importance that is not one number above 0 for each luma block."""
    blocks = picture.components[0].blocks
    if importance.shape != blocks:
        raise UsageError(
            f"importance is {importance.shape}; one number for each of {blocks} blocks is needed"
        )
    if not (np.isfinite(importance).all() and (importance > 0).all()):
        raise UsageError("importance must be finite and above 0")


def select(
    picture: Picture, tables: Tables, tune: Tune, importance: Floats | None = None
) -> tuple[Chosen, ...]:
    """The levels of each plane that cost least, luma first.

    ``importance``, (rows, columns) of luma's blocks, multiplies the prices of all errors in a block.
    Pictures with a side of less than 11 pixels, into which no window of MS-SSIM fits, are tuned for PSNR.
    """
    luma, *chroma = picture.components
    levels = _rounded(luma.dct, tables.luma)
    sensitivity: Sensitivity | None = None
    if tune != "psnr" and picture.pyramid:
        sensitivity = _sensitivity(picture, levels, tables.luma)
    prices = _prices(luma, levels, tables.luma, sensitivity, tune)
    target = luma.dct
    chosen: list[Chosen] = []
    if chroma:
        chosen = _select_chroma(picture, tables, prices, sensitivity, importance)
        target = luma.dct + _compensation(picture, chosen, tables.chroma)
    for number in range(PASSES):
        if number and sensitivity:
            sensitivity = _sensitivity(picture, levels, tables.luma)
        weights = np.full_like(target, prices[0])
        if sensitivity:
            weights += np.float32(prices[1]) * sensitivity.weights()
        if importance is not None:
            weights *= importance.reshape(-1, 1)
        [levels] = _trellis([target], [weights], [levels], tables.luma, tables.lam, [luma.scan])
    return (Chosen(target, weights, levels), *chosen)


def _select_chroma(
    picture: Picture,
    tables: Tables,
    prices: tuple[float, float],
    sensitivity: Sensitivity | None,
    importance: Floats | None,
) -> list[Chosen]:
    planes = picture.components[1:]
    common = np.broadcast_to(chroma_response(picture.sampling) * np.float32(prices[0]), planes[0].dct.shape)
    factor = 2 if picture.sampling == "4:2:0" else 1
    if sensitivity:
        common = common + np.float32(prices[1]) * sensitivity.weights(factor)
    if importance is not None:
        common = common * pooled(importance[..., None], factor).reshape(-1, 1)
    weights = [common * np.float32(COLOUR[index, index]) for index in (1, 2)]
    targets = [plane.dct for plane in planes]
    orders = [plane.scan for plane in planes]
    levels = [_rounded(target, tables.chroma) for target in targets]
    for _ in range(PASSES):
        levels = _trellis(targets, weights, levels, tables.chroma, tables.lam, orders)
    return [Chosen(*each) for each in zip(targets, weights, levels, strict=True)]


def _sensitivity(picture: Picture, levels: Blocks, table: NDArray[np.float64]) -> Sensitivity:
    decoded = decoded_plane(levels, table, picture.components[0])
    return ms_ssim_sensitivity(picture.pyramid, pyramid(decoded))


def _prices(
    luma: Component,
    levels: Blocks,
    table: NDArray[np.float64],
    sensitivity: Sensitivity | None,
    tune: Tune,
) -> tuple[float, float]:
    """What multiplies the prices of squared error and of MS-SSIM.

    Balanced, the two stand as the relative changes of squared error and of 1 - MS-SSIM. The prices of
    different pictures are brought to a geometric mean of 1 over luma's AC coefficients that are not zero: λ
    then fits the tables of its quality for every picture.
    """
    if sensitivity is None:
        return (1.0, 0.0)
    squared, structural = 0.0, 1.0
    if tune == "balanced":
        error = luma.dct - levels * table.astype(np.float32)
        energy = float((error * error).sum(dtype=np.float64))
        squared, structural = BALANCE, (1 - BALANCE) * energy / max(sensitivity.loss, 1e-6)
    some = sensitivity.weights()[:, 1:][levels[:, 1:] != 0]
    mean = float(np.exp(np.log(squared + structural * some).mean(dtype=np.float64))) if some.size else 1.0
    return squared / mean, structural / mean


def _compensation(picture: Picture, chosen: list[Chosen], table: NDArray[np.float64]) -> Floats:
    """(N, 64): the luma coefficients that make up for the errors of Cb and Cr as far as luma can."""
    shift = np.zeros((picture.height, picture.width), np.float32)
    for index, (component, plane) in enumerate(zip(picture.components[1:], chosen, strict=True), start=1):
        decoded = decoded_plane(plane.levels, table, component)
        if picture.sampling == "4:2:0":
            decoded = upsample(decoded, picture.height, picture.width)
        decoded -= picture.full_chroma[index - 1]
        shift -= decoded * np.float32(COLOUR[0, index] / COLOUR[0, 0])
    return np.ascontiguousarray(blocks_dct(shift).reshape(-1, 64)[:, ZIGZAG])


def assemble(picture: Picture, chosen: tuple[Chosen, ...], tables: Tables) -> Coefficients:
    """The picture with its levels and the tables, rounded to what a file holds."""
    planes = []
    for index, (component, plane) in enumerate(zip(picture.components, chosen, strict=True)):
        levels = plane.levels[:, UNZIGZAG].reshape(*component.blocks, 8, 8)
        planes.append(Plane(levels, file_table(tables.chroma if index else tables.luma)))
    return Coefficients(picture.width, picture.height, tuple(planes), picture.sampling)
