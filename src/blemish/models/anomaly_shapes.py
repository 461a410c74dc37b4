"""Shapes of synthetic anomalies: their locations, sizes and outlines."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

VISIBLE = 0.15
"""Smallest visible change, in units of the spread of the image."""
CELL = 8
"""Side in pixels of the cells in which :func:`sample_locations` measures structure."""
BACKGROUND_CHANCE = 0.15
"""Probability of a cell without structure, relative to the mean cell."""


class Draws:
    """Random numbers for images like ``x``, drawn on the device of the generator and moved to the device of ``x``."""

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
        """Sample one index per row of ``weights`` (N, K) with probabilities proportional to them: (N,)."""
        drawn = torch.multinomial(weights.to(self._drawn_on), 1, generator=self.generator)
        return drawn[:, 0].to(self._device)


class AnomalyArea(NamedTuple):
    """Area of one synthetic anomaly in each image."""

    mask: Tensor
    """(N, 1, H, W) in [0, 1]; decreases to exactly 0 across a soft edge."""
    depth: Tensor
    """(N, 1, H, W), 0 at the border and outside, up to 1 in the middle."""
    centre: Tensor
    """(N, 2), row and column in pixels."""

    def select(self, chosen: Tensor) -> AnomalyArea:
        """Select the areas of the images with the indices ``chosen``."""
        return AnomalyArea(self.mask[chosen], self.depth[chosen], self.centre[chosen])


def spread(x: Tensor) -> Tensor:
    """Compute the standard deviation of each image about its channel means, without NaN: (N, C, H, W) to (N, 1, 1, 1)."""
    mean = x.nanmean((2, 3), keepdim=True)
    return (x - mean).square().nanmean((1, 2, 3), keepdim=True).sqrt()


def perlin(cells: Tensor, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Generate gradient noise with Perlin's fade function (Perlin 2002, Improving Noise).

    The sum over the four corners of a cell, each the product of a fade along the rows, a fade along the columns and
    the scalar product of a gradient with the distance, separates into two products of matrices:

        noise = A_y sin(θ) B_xᵀ + B_y cos(θ) A_xᵀ,    B = fade(1 - |t|),    A = B t

    with t the distances to the lines of the lattice in cells.

    Parameters
    ----------
    cells: (N,), side of the lattice cells of each image in pixels.

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
    """Compute A and B of :func:`perlin` along one axis, (N, side, points) each."""
    at = torch.arange(side, device=cells.device) / cells[:, None] + phase[:, None]  # (N, side)
    t = at[..., None] - torch.arange(points, device=cells.device)
    s = (1 - t.abs()).clamp(min=0)
    b = s**3 * (s * (6 * s - 15) + 10)
    return b * t, b


def sample_locations(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Sample a location in each image, more likely where it has structure: (N, C, H, W) to (N, 2), row and column.

    Most locations lie on an object without a mask of the object; a few lie on the plain background.
    """
    draws, n = Draws(x, generator), len(x)
    height, width = x.shape[-2:]
    cell = min(CELL, height, width)
    grey = x.mean(1, keepdim=True)
    mean, square = (F.avg_pool2d(values, cell, ceil_mode=True) for values in (grey, grey * grey))
    structure = (square - mean * mean).clamp(min=0).sqrt().flatten(1)  # (N, cells)
    index = draws.index(structure + BACKGROUND_CHANCE * structure.mean(1, keepdim=True) + 1e-6)
    columns = mean.shape[-1]
    corner = torch.stack([index // columns, index % columns], 1) * cell
    inside = torch.tensor([height - 1, width - 1], device=x.device)
    return torch.minimum((corner + draws.uniform(n, 2) * cell).floor(), inside)


def sample_areas(
    x: Tensor, smallest: float, largest: float, generator: torch.Generator | None = None
) -> AnomalyArea:
    """Sample an :class:`AnomalyArea` in each image of (N, C, H, W): a blob, a rough ellipse, a rough box or a scratch.

    All shapes are equally likely, at :func:`sample_locations`, in any direction. The geometric mean of the two
    diameters is log-uniform between ``smallest`` and ``largest`` times the shorter side, the elongation is up to 4. A
    scratch is 0.4 to 2.4 times ``largest`` long and a few pixels wide. The edge is half a pixel to four pixels wide.
    """
    draws, n = Draws(x, generator), len(x)
    height, width = x.shape[-2:]
    side = min(height, width)

    centre = sample_locations(x, generator)
    angle = draws.uniform(n, 1, 1, 1, high=2 * math.pi)
    rows = torch.arange(height, device=x.device).view(1, 1, -1, 1) - centre[:, 0].view(n, 1, 1, 1)
    columns = torch.arange(width, device=x.device).view(1, 1, 1, -1) - centre[:, 1].view(n, 1, 1, 1)
    u = rows * angle.sin() + columns * angle.cos()  # (N, 1, H, W)
    v = rows * angle.cos() - columns * angle.sin()

    across = draws.log_uniform(n, 1, 1, 1, low=smallest * side, high=largest * side).clamp(min=2)
    elongation = draws.log_uniform(n, 1, 1, 1, low=1, high=4).sqrt()
    a, b = across / 2 * elongation, (across / 2 / elongation).clamp(min=0.75)
    length = largest * side * draws.log_uniform(n, 1, 1, 1, low=0.2, high=1.2)  # half the length of a scratch
    breadth = draws.log_uniform(n, 1, 1, 1, low=0.5, high=max(1.0, min(3.0, 0.03 * side)))
    bend = draws.uniform(n, 1, 1, 1, low=-0.5, high=0.5)
    wiggle = draws.uniform(n, 1, 1, 1, high=0.02 * side)
    rough = draws.uniform(n, 1, 1, 1, high=0.5)
    edge = torch.minimum(draws.log_uniform(n, 1, 1, 1, low=0.5, high=4), across / 2)
    shape = draws.integers(n, below=4)
    is_scratch = (shape == 3).view(n, 1, 1, 1)
    cells = torch.where(is_scratch, length, across).flatten() * draws.uniform(n, low=0.2, high=1)
    noise = perlin(cells.clamp(min=2), height, width, generator)

    inside = torch.empty_like(noise)  # approximate distance from the border in pixels
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
