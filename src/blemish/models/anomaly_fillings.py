"""Fillings of synthetic anomalies: pieces of other places, tones, noise, blur, stains and smooth inpainting."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from blemish.models.anomaly_shapes import VISIBLE, AnomalyArea, Draws, perlin, places, spread


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


def foreign_place(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """Another place of the same image or of another one."""
    n = len(x)
    other = good[draws.integers(n, below=len(good))]
    return _piece(x, torch.where(draws.chance(n, 1, 1, 1), x, other), region, draws)


def foreign_texture(
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


def neighbouring_piece(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """The image itself a little displaced: structure that breaks off."""
    rows, columns = _pixels(x)
    down, right = _shift(x, draws)
    return _joined(x, _sampled(x, rows + down, columns + right), region, draws)


def warped_piece(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """The image displaced the more the deeper in the region: structure that bends."""
    rows, columns = _pixels(x)
    down, right = _shift(x, draws) * (region.depth * (2 - region.depth))[:, 0]
    return _sampled(x, rows + down, columns + right)


def tone(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """Brighter or darker."""
    return x + _amplitude(x, draws)


def noise(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """Structured noise, more or less grainy, over a blurred ground."""
    n, (height, width) = len(x), x.shape[-2:]
    side = min(height, width)
    cells = draws.log_uniform(n, low=2, high=max(3.0, 0.2 * side))
    pattern = perlin(cells, height, width, draws.generator)
    grain = draws.normal(*pattern.shape) * draws.uniform(n, 1, 1, 1, high=0.5)
    return blur(x, 3) + _amplitude(x, draws) * (1.5 * pattern + grain)


def blurred(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """Out of focus."""
    return blur(x, 1 + int(draws.integers(1, below=5)))


def stain(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """One colour, near that of some pixel."""
    n, channels, height, width = x.shape
    pixel = draws.integers(n, 1, 1, below=height * width).expand(-1, channels, -1)
    colour = x.flatten(2).gather(2, pixel)[..., None]  # (N, C, 1, 1)
    return (colour + _amplitude(x, draws) / 2).expand_as(x)


def inpainted(x: Tensor, good: Tensor, region: AnomalyArea, draws: Draws) -> Tensor:
    """What lies around, continued smoothly: nothing is there."""
    return membrane(x, (region.mask <= 0).to(x.dtype))
