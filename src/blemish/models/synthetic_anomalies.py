"""Synthetic blemishes: what a network learns to find before it has seen a real one.

Regions follow Perlin noise (Zavrtanik et al. 2021, DRAEM, section 3.3), ellipses, boxes and scratches. They are
filled with pieces of the good images themselves or of textures, pasted plainly, seamlessly or by their stronger
detail (Schlüter et al. 2022, Natural Synthetic Anomalies), or with tones, noise, blur and stains. Everything is measured
by the image's own contrast; regions by its size, fine detail by pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from blemish.data.datasets import find_images
from blemish.data.image import read_image, resize, select_channels
from blemish.errors import ImageError, RecipeError, UsageError
from blemish.models.autoencoder import Autoencoder
from blemish.models.contracts import Corruption
from blemish.models.registry import CORRUPTIONS, register

VISIBLE = 0.15
"""Least change, in units of the image's spread, that :func:`anomaly_mask` counts."""
FAINTEST = 1 / 1024
"""Least change in units of the range that counts, in images without any contrast."""
PLACE = 8
"""Side in pixels of the cells in which :func:`places` looks for structure."""
EVERYWHERE = 0.15
"""Chance of a cell without structure, in units of the mean cell's."""
TEXTURES = 200
"""Images of a folder of textures that are used, at most."""
FINEST = 512
"""Shorter side in pixels that larger textures are brought to."""
GAP = 4
"""Pixels between the images of a contact sheet."""


class Draws:
    """Random numbers for images like ``x``, drawn where the generator lives and given where ``x`` does."""

    def __init__(self, x: Tensor, generator: torch.Generator | None) -> None:
        self.generator = generator
        self._drawn_on = x.device if generator is None else generator.device
        self._device = x.device

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        drawn = torch.rand(shape, generator=self.generator, device=self._drawn_on)
        return drawn.to(self._device) * (high - low) + low

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        return self.uniform(*shape, low=math.log(low), high=math.log(high)).exp()

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self._drawn_on).to(self._device)

    def integers(self, *shape: int, below: int) -> Tensor:
        drawn = torch.randint(below, shape, generator=self.generator, device=self._drawn_on)
        return drawn.to(self._device)

    def chance(self, *shape: int, of: float = 0.5) -> Tensor:
        """Booleans, true with probability ``of``."""
        return self.uniform(*shape) < of

    def sign(self, *shape: int) -> Tensor:
        return torch.where(self.chance(*shape), 1.0, -1.0)

    def index(self, weights: Tensor) -> Tensor:
        """(N,) places in the rows of ``weights`` (N, K), each as likely as it weighs."""
        drawn = torch.multinomial(weights.to(self._drawn_on), 1, generator=self.generator)
        return drawn[:, 0].to(self._device)


class AnomalyArea(NamedTuple):
    """Where one blemish lies in each image."""

    mask: Tensor
    """(N, 1, H, W) in [0, 1]; falls to exactly 0 across a soft edge."""
    depth: Tensor
    """(N, 1, H, W), 0 at the border and outside, up to 1 in the middle."""
    centre: Tensor
    """(N, 2), row and column in pixels."""

    def of(self, chosen: Tensor) -> AnomalyArea:
        """That of the images at the places ``chosen``."""
        return AnomalyArea(self.mask[chosen], self.depth[chosen], self.centre[chosen])


def spread(x: Tensor) -> Tensor:
    """Standard deviation of each image about its channels' means: (N, C, H, W) to (N, 1, 1, 1); NaN is left out."""
    mean = x.nanmean((2, 3), keepdim=True)
    return (x - mean).square().nanmean((1, 2, 3), keepdim=True).sqrt()


def anomaly_mask(seen: Tensor, target: Tensor) -> Tensor:
    """Which pixels of ``seen`` were visibly changed from ``target``: (N, C, H, W) twice to (N, 1, H, W) of 0 and 1.

    The absolute difference in the channel where it is largest, averaged over 3×3 pixels, exceeds 0.15 of the
    :func:`spread` of ``target``; then gaps of up to four pixels are closed. So a common gain and offset of both
    images does not matter, and nothing counts beyond one pixel from the changes and the gaps between them. What is
    absent (NaN) is not changed.

    >>> target = torch.linspace(0, 1, 12).expand(1, 1, 12, 12)
    >>> seen = target.clone()
    >>> seen[..., 4:7, 4:7] += 0.3
    >>> changed(seen, target).sum()
    tensor(21.)
    """
    difference = (seen - target).abs().nan_to_num().amax(1, keepdim=True)
    mean = F.avg_pool2d(difference, 3, 1, 1, count_include_pad=False)
    visible = (mean > (VISIBLE * spread(target)).nan_to_num().clamp(min=FAINTEST)).to(target.dtype)
    return -F.max_pool2d(-F.max_pool2d(visible, 5, 1, 2), 5, 1, 2)


def perlin(cells: Tensor, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Gradient noise with Perlin's fade function (Perlin 2002, Improving Noise).

    The sum over a cell's four corners, each the product of a fade along the rows, one along the columns and a
    gradient's scalar product with the distance, is one of two separable forms, hence two products of matrices:

        noise = A_y sin(θ) B_xᵀ + B_y cos(θ) A_xᵀ,    B = fade(1 - |t|),    A = B t

    with t the distances to the lattice's lines in cells.

    Parameters
    ----------
    cells: (N,), side of the lattice's cells in pixels, of each image.

    Returns
    -------
    (N, 1, H, W) in [-1, 1], with mean 0.
    """
    draws, n = Draws(cells, generator), len(cells)
    points = math.ceil(max(height, width) / float(cells.min())) + 2
    phase = draws.uniform(2, n)
    a_y, b_y = _fades(height, points, cells, phase[0])  # (N, H, points)
    a_x, b_x = _fades(width, points, cells, phase[1])  # (N, W, points)
    theta = draws.uniform(n, points, points, high=2 * math.pi)
    noise = a_y @ theta.sin() @ b_x.mT + b_y @ theta.cos() @ a_x.mT  # (N, H, W)
    return math.sqrt(2) * noise[:, None]


def _fades(side: int, points: int, cells: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
    """A and B of :func:`perlin` along one axis, (N, side, points) each."""
    at = torch.arange(side, device=cells.device) / cells[:, None] + phase[:, None]  # (N, side)
    t = at[..., None] - torch.arange(points, device=cells.device)
    s = (1 - t.abs()).clamp(min=0)
    b = s**3 * (s * (6 * s - 15) + 10)
    return b * t, b


def places(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A random place in each image, likelier where it has structure: (N, C, H, W) to (N, 2), row and column.

    So an object on a plain ground is met without a mask of it, though now and then the ground is too.
    """
    draws, n = Draws(x, generator), len(x)
    height, width = x.shape[-2:]
    cell = min(PLACE, height, width)
    grey = x.mean(1, keepdim=True)
    mean, square = (F.avg_pool2d(values, cell, ceil_mode=True) for values in (grey, grey * grey))
    structure = (square - mean * mean).clamp(min=0).sqrt().flatten(1)  # (N, cells)
    index = draws.index(structure + EVERYWHERE * structure.mean(1, keepdim=True) + 1e-6)
    columns = mean.shape[-1]
    corner = torch.stack([index // columns, index % columns], 1) * cell
    inside = torch.tensor([height - 1, width - 1], device=x.device)
    return torch.minimum((corner + draws.uniform(n, 2) * cell).floor(), inside)


def regions(
    x: Tensor, smallest: float, largest: float, generator: torch.Generator | None = None
) -> AnomalyArea:
    """One :class:`AnomalyArea` in each image of (N, C, H, W): a blob, a rough ellipse, a rough box or a scratch.

    Each shape is as likely as the others, at :func:`places`, in any direction. The geometric mean of its two
    diameters is log-uniform between ``smallest`` and ``largest`` times the shorter side, its elongation up to 4. A
    scratch is 0.4 to 2.4 times ``largest`` long and a few pixels wide. The edge is half a pixel to four wide.
    """
    draws, n = Draws(x, generator), len(x)
    height, width = x.shape[-2:]
    side = min(height, width)

    centre = places(x, generator)
    angle = draws.uniform(n, 1, 1, 1, high=2 * math.pi)
    rows = torch.arange(height, device=x.device).view(1, 1, -1, 1) - centre[:, 0].view(n, 1, 1, 1)
    columns = torch.arange(width, device=x.device).view(1, 1, 1, -1) - centre[:, 1].view(n, 1, 1, 1)
    u = rows * angle.sin() + columns * angle.cos()  # (N, 1, H, W)
    v = rows * angle.cos() - columns * angle.sin()

    across = draws.log_uniform(n, 1, 1, 1, low=smallest * side, high=largest * side).clamp(min=2)
    elongation = draws.log_uniform(n, 1, 1, 1, low=1, high=4).sqrt()
    a, b = across / 2 * elongation, (across / 2 / elongation).clamp(min=0.75)
    length = largest * side * draws.log_uniform(n, 1, 1, 1, low=0.2, high=1.2)  # half of a scratch's
    breadth = draws.log_uniform(n, 1, 1, 1, low=0.5, high=max(1.0, min(3.0, 0.03 * side)))
    bend = draws.uniform(n, 1, 1, 1, low=-0.5, high=0.5)
    wiggle = draws.uniform(n, 1, 1, 1, high=0.02 * side)
    rough = draws.uniform(n, 1, 1, 1, high=0.5)
    edge = torch.minimum(draws.log_uniform(n, 1, 1, 1, low=0.5, high=4), across / 2)
    shape = draws.integers(n, below=4)
    is_scratch = (shape == 3).view(n, 1, 1, 1)
    cells = torch.where(is_scratch, length, across).flatten() * draws.uniform(n, low=0.2, high=1)
    noise = perlin(cells.clamp(min=2), height, width, generator)

    inside = torch.empty_like(noise)  # pixels from the border, about
    for kind in range(4):
        k = (shape == kind).nonzero()[:, 0]
        if kind < 2:
            radius = torch.hypot(u[k] / a[k], v[k] / b[k])
            extent = 0.5 + noise[k] - radius / 1.5 if kind == 0 else 1 - radius - rough[k] * noise[k]
            inside[k] = extent * b[k]
        elif kind == 2:
            inside[k] = torch.minimum(a[k] - u[k].abs(), b[k] - v[k].abs()) - rough[k] * noise[k] * b[k]
        else:
            middle = bend[k] * u[k].square() / length[k] + wiggle[k] * noise[k]
            inside[k] = torch.minimum(length[k] - u[k].abs(), breadth[k] - (v[k] - middle).abs())
    half = torch.where(is_scratch, breadth, b)
    return AnomalyArea((0.5 + inside / edge).clamp(0, 1), (inside / half).clamp(0, 1), centre)


def blur(x: Tensor, radius: int) -> Tensor:
    """Twice the mean of (2 radius + 1)² pixels, of those inside the image: (N, C, H, W) to the same shape."""
    for _ in range(2):
        for along in ((radius, 0), (0, radius)):
            x = F.avg_pool2d(x, tuple(2 * r + 1 for r in along), 1, along, count_include_pad=False)
    return x


def membrane(values: Tensor, known: Tensor) -> Tensor:
    """``values`` (N, C, H, W) where ``known`` (N, 1, H, W) is 1, and a smooth continuation of them where it is 0.

    Pull-push on a pyramid (Gortler et al. 1996, The Lumigraph, section 3.4) with two steps of relaxation on each
    level. It approximates the harmonic interpolation that Poisson blending solves for (Pérez et al. 2003, equation 4),
    in time linear in the pixels.
    """
    levels = []
    total = values * known
    while min(total.shape[-2:]) > 1:
        levels.append((total, known))
        total, known = (F.avg_pool2d(part, 2, ceil_mode=True) for part in (total, known))
    smooth = total / known.clamp(min=1e-6)
    for total, known in reversed(levels):
        coarser = F.interpolate(smooth, scale_factor=2, mode="bilinear", align_corners=False)
        smooth = total + (1 - known) * coarser[..., : total.shape[-2], : total.shape[-1]]
        for _ in range(2):
            mean = F.avg_pool2d(smooth, 3, 1, 1, count_include_pad=False)
            smooth = total + (1 - known) * mean
    return smooth


def seamless(x: Tensor, patch: Tensor, mask: Tensor) -> Tensor:
    """``patch`` moved by a smooth offset so that it meets ``x`` where ``mask`` ends; an approximate Poisson blending.

    Poisson blending without mixed gradients is the patch plus the harmonic interpolation of what it lacks to ``x`` at
    the border (Pérez et al. 2003, section 2); :func:`membrane` stands for it here.

    Parameters
    ----------
    x, patch: (N, C, H, W).
    mask: (N, 1, H, W); ``x`` is kept where it is 0.
    """
    return patch + membrane(x - patch, (mask <= 0).to(x.dtype))


def mixed(x: Tensor, patch: Tensor) -> Tensor:
    """``patch`` with the detail of ``x`` wherever that is the stronger: (N, C, H, W) twice to the same shape.

    The idea of mixed gradients (Pérez et al. 2003, equation 12), on differences from a 9×9 blur: texture below a
    patch shows through.
    """
    ground = blur(patch, 2)
    own, pasted = x - blur(x, 2), patch - ground
    return ground + torch.where(pasted.abs() > own.abs(), pasted, own)


def _sampled(source: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``source`` (N, C, H, W) at the places whose ``rows`` and ``columns`` broadcast to (N, H, W), mirrored beyond."""
    height, width = source.shape[-2:]
    rows, columns = torch.broadcast_tensors(rows, columns)  # type: ignore[no-untyped-call]
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1)
    return F.grid_sample(source, grid, padding_mode="reflection", align_corners=False)


def _pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each pixel, (1, H, 1) and (1, 1, W)."""
    height, width = x.shape[-2:]
    rows = torch.arange(height, device=x.device, dtype=x.dtype).view(1, -1, 1)
    return rows, torch.arange(width, device=x.device, dtype=x.dtype).view(1, 1, -1)


def _amplitude(x: Tensor, draws: Draws) -> Tensor:
    """A signed change of tone, (N, C, 1, 1): from barely visible to 2.5 spreads, of all channels or a tint."""
    n, channels = x.shape[:2]
    tint = draws.normal(n, channels, 1, 1)
    tint = tint / tint.abs().amax(1, keepdim=True)
    grey = draws.chance(n, 1, 1, 1) | torch.tensor(channels == 1, device=x.device)
    strength = draws.log_uniform(n, 1, 1, 1, low=VISIBLE, high=2.5) * draws.sign(n, 1, 1, 1)
    return torch.where(grey, 1.0, tint) * strength * spread(x)


def _joined(x: Tensor, patch: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """``patch`` as it is, or in three of five images seamless, half of these by the stronger detail."""
    joined = patch.clone()
    k = draws.chance(len(x), of=0.6).nonzero()[:, 0]
    joined[k] = seamless(x[k], patch[k], region.mask[k])
    k = k[draws.chance(len(k))]
    joined[k] = mixed(x[k], joined[k])
    return joined


def _far(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """Another place of the same image or of another one."""
    n = len(x)
    other = good[draws.integers(n, below=len(good))]
    return _piece(x, torch.where(draws.chance(n, 1, 1, 1), x, other), region, draws)


def _foreign(
    x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws, *, textures: Sequence[Tensor]
) -> Tensor:
    """A texture that the images do not have; ``textures`` (C, h, w) of any size."""
    rows, columns = _pixels(x)
    windows = []
    for _ in range(len(x)):
        texture = textures[int(draws.integers(1, below=len(textures)))].to(x.device)
        top, left = (
            int(draws.integers(1, below=max(1, have - want + 1)))
            for have, want in zip(texture.shape[1:], x.shape[2:], strict=True)
        )
        windows.append(_sampled(texture[None], rows + top, columns + left))
    return _piece(x, torch.cat(windows), region, draws)


def _piece(x: Tensor, source: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """Some place of ``source``, shaped like ``x``; in half of the images turned, scaled or mirrored."""
    n = len(x)
    origin = places(source, draws.generator).view(n, 2, 1, 1)
    posed = draws.chance(n, 1, 1)
    angle = torch.where(posed, draws.uniform(n, 1, 1, high=2 * math.pi), 0.0)
    scale = torch.where(posed, draws.log_uniform(n, 1, 1, low=0.7, high=1.4), 1.0)
    mirror = torch.where(posed, draws.sign(n, 1, 1), 1.0)
    rows, columns = _pixels(x)
    rows, columns = rows - region.centre[:, 0].view(n, 1, 1), columns - region.centre[:, 1].view(n, 1, 1)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    patch = _sampled(
        source,
        origin[:, 0] + cos * rows - sin * columns,
        origin[:, 1] + mirror * (sin * rows + cos * columns),
    )
    return _joined(x, patch, region, draws)


def _shift(x: Tensor, draws: Draws) -> Tensor:
    """(2, N, 1, 1): rows and columns, each 2 to 10 pixels, in small images up to an eighth of the shorter side."""
    n, side = len(x), min(x.shape[-2:])
    length = draws.log_uniform(2, n, 1, 1, low=2, high=max(2.0, min(10.0, side / 8)))
    return length * draws.sign(2, n, 1, 1)


def _near(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """The image itself a little displaced: structure that breaks off."""
    rows, columns = _pixels(x)
    down, right = _shift(x, draws)
    return _joined(x, _sampled(x, rows + down, columns + right), region, draws)


def _bent(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """The image displaced the more the deeper in the region: structure that bends."""
    rows, columns = _pixels(x)
    down, right = _shift(x, draws) * (region.depth * (2 - region.depth))[:, 0]
    return _sampled(x, rows + down, columns + right)


def _tone(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """Brighter or darker."""
    return x + _amplitude(x, draws)


def _noise(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """Structured noise, more or less grainy, over a blurred ground."""
    n, (height, width) = len(x), x.shape[-2:]
    side = min(height, width)
    cells = draws.log_uniform(n, low=2, high=max(3.0, 0.2 * side))
    noise = perlin(cells, height, width, draws.generator)
    grain = draws.normal(*noise.shape) * draws.uniform(n, 1, 1, 1, high=0.5)
    return blur(x, 3) + _amplitude(x, draws) * (1.5 * noise + grain)


def _blurred(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """Out of focus."""
    return blur(x, 1 + int(draws.integers(1, below=5)))


def _stain(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """One colour, near that of some pixel."""
    n, channels, height, width = x.shape
    pixel = draws.integers(n, 1, 1, below=height * width).expand(-1, channels, -1)
    colour = x.flatten(2).gather(2, pixel)[..., None]  # (N, C, 1, 1)
    return (colour + _amplitude(x, draws) / 2).expand_as(x)


def _deleted(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """What lies around, continued smoothly: nothing is there."""
    return membrane(x, (region.mask <= 0).to(x.dtype))


Filling = Callable[[Tensor, Tensor, AnomalyArea, Draws], Tensor]
FILLINGS: tuple[Filling, ...] = (
    _far,
    _far,
    _near,
    _bent,
    _tone,
    _noise,
    _blurred,
    _stain,
    _deleted,
)
"""Each takes images (n, C, H, W), good ones to take pieces from, and the regions; pieces of afar come twice."""


def spoil(
    x: Tensor,
    *,
    clean: float = 0.3,
    most: int = 3,
    smallest: float = 0.02,
    largest: float = 0.25,
    textures: Sequence[Tensor] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Good images with blemishes from obvious to barely visible; what is absent (NaN) stays so.

    Half of the blemishes are opaque, the others cover 0.2 to all.

    Parameters
    ----------
    x: (N, C, H, W) in [0, 1]; its images lend each other pieces.
    clean: share of the images that stay as they are, in [0, 1].
    most: blemishes of one image, each number from 1 as likely.
    smallest, largest: diameter in units of the shorter side; see :func:`regions`.
    textures: (C, h, w) in [0, 1] each, of any size; where there are some, two fillings of eleven are pieces of them.
    generator: to draw from; torch's global one without it.

    >>> x = torch.rand(8, 1, 64, 64)
    >>> y = spoil(x, clean=0.0, generator=torch.Generator().manual_seed(0))
    >>> y.shape == x.shape, float((y != x).float().mean()) < 0.5
    (True, True)
    """
    draws, n = Draws(x, generator), len(x)
    counts = (1 + draws.integers(n, below=most)) * ~draws.chance(n, of=clean)
    good = x.nan_to_num()
    spoiled = good.clone()
    fillings = FILLINGS + (partial(_foreign, textures=textures),) * (2 if textures else 0)
    for already in range(most):
        k = (counts > already).nonzero()[:, 0]
        if len(k):
            spoiled[k] = _with_one_blemish(spoiled[k], good, fillings, smallest, largest, draws)
    return torch.where(x.isnan(), x, spoiled)


def _with_one_blemish(
    x: Tensor, good: Tensor, fillings: Sequence[Filling], smallest: float, largest: float, draws: Draws
) -> Tensor:
    n = len(x)
    region = regions(x, smallest, largest, draws.generator)
    filled = torch.empty_like(x)
    kind = draws.integers(n, below=len(fillings))
    for index, filling in enumerate(fillings):
        k = (kind == index).nonzero()[:, 0]
        if len(k):
            filled[k] = filling(x[k], good, region.of(k), draws)
    opacity = torch.where(draws.chance(n, 1, 1, 1), 1.0, draws.log_uniform(n, 1, 1, 1, low=0.2, high=1))
    return (x + opacity * region.mask * (filled - x)).clamp(0, 1)


@register(CORRUPTIONS, "synthetic-anomalies")
class SyntheticAnomalies(Corruption):
    """:func:`spoil` by one share, number and size; the label is :func:`anomaly_mask`.

    Parameters
    ----------
    clean, most, smallest, largest: as :func:`spoil` takes them.
    textures: folder of images that lend their textures, beside the good ones. It is read when the first image is
        spoiled, never at inspection.

    Raises
    ------
    RecipeError
        When ``smallest`` exceeds ``largest``.
    """

    corrupts_held_out = True

    def __init__(
        self,
        *,
        clean: Annotated[float, Field(ge=0, le=1)] = 0.3,
        most: Annotated[int, Field(ge=1)] = 3,
        smallest: Annotated[float, Field(gt=0, le=1)] = 0.02,
        largest: Annotated[float, Field(gt=0, le=1)] = 0.25,
        textures: str | None = None,
    ) -> None:
        super().__init__()
        if smallest > largest:
            raise RecipeError(
                f"corruption 'synthetic-anomalies': smallest {smallest:g} exceeds largest {largest:g}; make it less"
            )
        self.clean, self.most, self.smallest, self.largest = clean, most, smallest, largest
        self.textures = textures
        self._read: list[Tensor] = []

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.spoil(x, self.clean, generator)

    @torch.no_grad()
    def spoil(self, x: Tensor, clean: float, generator: torch.Generator | None = None) -> Tensor:
        """As :meth:`forward` does it, with another share of clean images.

        Raises
        ------
        FileError, ImageError
            When the textures cannot be read.
        """
        if self.textures is not None and not self._read:
            self._read = read_textures(self.textures, x.shape[1])
        # Half precision would band the noise.
        with torch.autocast(x.device.type, enabled=False):
            return spoil(
                x,
                clean=clean,
                most=self.most,
                smallest=self.smallest,
                largest=self.largest,
                textures=self._read,
                generator=generator,
            )


def read_textures(folder: str, channels: int) -> list[Tensor]:
    """Images of ``folder`` as (C, h, w) in [0, 1]; of very many some, evenly chosen, and large ones made smaller.

    For other numbers of channels than 1 and 3 they are grey, the same in each.

    Raises
    ------
    FileError, ImageError
        When there is no image, or one cannot be read or turned into grey or RGB.
    """
    items = find_images(folder)
    textures = []
    for index in np.unique(np.linspace(0, len(items) - 1, TEXTURES).round().astype(int)):
        pixels = read_image(items[index].path).floats()
        scale = min(1.0, FINEST / min(pixels.shape[1:]))
        height, width = (max(1, round(side * scale)) for side in pixels.shape[1:])
        try:
            pixels = select_channels(resize(pixels, (height, width)), 3 if channels == 3 else 1)
        except UsageError as error:
            raise ImageError(items[index].path, str(error), "remove it from the textures") from None
        textures.append(torch.from_numpy(pixels).expand(channels, -1, -1))
    return textures


@torch.no_grad()
def contact_sheet(model: Autoencoder, batch: Tensor, seed: int = 0) -> npt.NDArray[np.uint8] | None:
    """What ``model`` is trained on: a column for each image of ``batch``, good above spoiled above its label.

    Every image is spoiled here, though training leaves some clean.

    Parameters
    ----------
    batch: (N, C, H, W) in [0, 1], good images; augmentation is left out.
    seed: of the draws, which leave torch's global generator alone.

    Returns
    -------
    (3 H + 2 gaps, N W + gaps, 3), or None where the model's corruptions have no ``synthetic-anomalies``.
    """
    if not any(isinstance(corruption, SyntheticAnomalies) for corruption in model.corruptions):
        return None
    generator = torch.Generator().manual_seed(seed)
    seen = batch
    for corruption in model.corruptions:
        seen = (
            corruption.spoil(seen, 0.0, generator)
            if isinstance(corruption, SyntheticAnomalies)
            else corruption(seen, generator)
        )
    rows = [_coloured(batch), _coloured(seen), _coloured(anomaly_mask(seen, batch))]
    height, width = batch.shape[-2:]
    sheet = torch.ones(
        3, 3 * height + 2 * GAP, len(batch) * width + (len(batch) - 1) * GAP, device=batch.device
    )
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = row * (height + GAP), column * (width + GAP)
            sheet[:, top : top + height, left : left + width] = image
    pixels: npt.NDArray[np.uint8] = (255 * sheet).round().byte().permute(1, 2, 0).cpu().numpy()
    return pixels


def _coloured(x: Tensor) -> Tensor:
    """Images of any channels as RGB (N, 3, H, W): colour as it is, others as the mean of their channels."""
    x = x.nan_to_num().clamp(0, 1)
    return x[:, :3] if x.shape[1] in (3, 4) else x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
