"""Fillings of synthetic anomalies: crops of other locations, tones, noise, blur, stains and smooth inpainting."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from blemish.models.anomaly_shapes import VISIBLE, AnomalyArea, Draws, perlin, sample_locations, spread


def blur(x: Tensor, radius: int) -> Tensor:
    """Apply a box blur of (2 radius + 1)² pixels twice, over pixels inside the image: (N, C, H, W) to the same shape."""
    for _ in range(2):
        for along in ((radius, 0), (0, radius)):
            x = F.avg_pool2d(x, tuple(2 * r + 1 for r in along), 1, along, count_include_pad=False)
    return x


def inpaint_smooth(values: Tensor, known: Tensor) -> Tensor:
    """Keep ``values`` (N, C, H, W) where ``known`` (N, 1, H, W) is 1 and inpaint smoothly where it is 0.

    Pull-push on a pyramid (Gortler et al. 1996, The Lumigraph, section 3.4) with two steps of relaxation on each
    level. It approximates the harmonic interpolation that Poisson blending solves for (Pérez et al. 2003, equation 4),
    in time linear in the number of pixels.
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


def blend_seamlessly(x: Tensor, patch: Tensor, mask: Tensor) -> Tensor:
    """Add a smooth offset to ``patch`` so that it equals ``x`` at the border of ``mask``; approximate Poisson blending.

    Poisson blending without mixed gradients is the patch plus the harmonic interpolation of its difference from ``x``
    at the border (Pérez et al. 2003, section 2); :func:`inpaint_smooth` approximates the interpolation.

    Parameters
    ----------
    x, patch: (N, C, H, W).
    mask: (N, 1, H, W); ``x`` is kept where it is 0.
    """
    return patch + inpaint_smooth(x - patch, (mask <= 0).to(x.dtype))


def mix_detail(x: Tensor, patch: Tensor) -> Tensor:
    """Replace the detail of ``patch`` by that of ``x`` wherever it is stronger: (N, C, H, W) twice to the same shape.

    Mixed gradients (Pérez et al. 2003, equation 12), applied to differences from a 9×9 blur: the texture below a
    patch shows through.
    """
    base = blur(patch, 2)
    own, pasted = x - blur(x, 2), patch - base
    return base + torch.where(pasted.abs() > own.abs(), pasted, own)


def _sampled(source: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sample ``source`` (N, C, H, W) at ``rows`` and ``columns``, which broadcast to (N, H, W); mirrored at the border."""
    height, width = source.shape[-2:]
    rows, columns = torch.broadcast_tensors(rows, columns)  # type: ignore[no-untyped-call]
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1)
    return F.grid_sample(source, grid, padding_mode="reflection", align_corners=False)


def _pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column indices of the pixels, (1, H, 1) and (1, 1, W)."""
    height, width = x.shape[-2:]
    rows = torch.arange(height, device=x.device, dtype=x.dtype).view(1, -1, 1)
    return rows, torch.arange(width, device=x.device, dtype=x.dtype).view(1, 1, -1)


def _amplitude(x: Tensor, draws: Draws) -> Tensor:
    """Draw a signed change of tone, (N, C, 1, 1): barely visible up to 2.5 spreads, grey or with a tint."""
    n, channels = x.shape[:2]
    tint = draws.normal(n, channels, 1, 1)
    tint = tint / tint.abs().amax(1, keepdim=True)
    grey = draws.chance(n, 1, 1, 1) | torch.tensor(channels == 1, device=x.device)
    strength = draws.log_uniform(n, 1, 1, 1, low=VISIBLE, high=2.5) * draws.sign(n, 1, 1, 1)
    return torch.where(grey, 1.0, tint) * strength * spread(x)


def _blend(x: Tensor, patch: Tensor, area: AnomalyArea, draws: Draws) -> Tensor:
    """Blend ``patch`` seamlessly in three of five images, half of these with mixed detail; leave it in the others."""
    blended = patch.clone()
    k = draws.chance(len(x), of=0.6).nonzero()[:, 0]
    blended[k] = blend_seamlessly(x[k], patch[k], area.mask[k])
    k = k[draws.chance(len(k))]
    blended[k] = mix_detail(x[k], blended[k])
    return blended


def other_location(x: Tensor, good: Tensor, area: AnomalyArea, draws: Draws) -> Tensor:
    """Fill with a crop of another location in the same image or in another one."""
    n = len(x)
    other = good[draws.integers(n, below=len(good))]
    return _posed_crop(x, torch.where(draws.chance(n, 1, 1, 1), x, other), area, draws)


def foreign_texture(
    x: Tensor, good: Tensor, area: AnomalyArea, draws: Draws, *, textures: Sequence[Tensor]
) -> Tensor:
    """Fill with a texture that the images do not have; ``textures`` (C, h, w) of any size."""
    rows, columns = _pixels(x)
    windows = []
    for _ in range(len(x)):
        texture = textures[int(draws.integers(1, below=len(textures)))].to(x.device)
        top, left = (
            int(draws.integers(1, below=max(1, have - want + 1)))
            for have, want in zip(texture.shape[1:], x.shape[2:], strict=True)
        )
        windows.append(_sampled(texture[None], rows + top, columns + left))
    return _posed_crop(x, torch.cat(windows), area, draws)


def _posed_crop(x: Tensor, source: Tensor, area: AnomalyArea, draws: Draws) -> Tensor:
    """Crop a random location of ``source`` in the shape of ``x``, turned, scaled or mirrored in half of the images."""
    n = len(x)
    origin = sample_locations(source, draws.generator).view(n, 2, 1, 1)
    posed = draws.chance(n, 1, 1)
    angle = torch.where(posed, draws.uniform(n, 1, 1, high=2 * math.pi), 0.0)
    scale = torch.where(posed, draws.log_uniform(n, 1, 1, low=0.7, high=1.4), 1.0)
    mirror = torch.where(posed, draws.sign(n, 1, 1), 1.0)
    rows, columns = _pixels(x)
    rows, columns = rows - area.centre[:, 0].view(n, 1, 1), columns - area.centre[:, 1].view(n, 1, 1)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    patch = _sampled(
        source,
        origin[:, 0] + cos * rows - sin * columns,
        origin[:, 1] + mirror * (sin * rows + cos * columns),
    )
    return _blend(x, patch, area, draws)


def _shift(x: Tensor, draws: Draws) -> Tensor:
    """Draw displacements (2, N, 1, 1) in rows and columns: 2 to 10 pixels, at most an eighth of the shorter side."""
    n, side = len(x), min(x.shape[-2:])
    length = draws.log_uniform(2, n, 1, 1, low=2, high=max(2.0, min(10.0, side / 8)))
    return length * draws.sign(2, n, 1, 1)


def displaced(x: Tensor, good: Tensor, area: AnomalyArea, draws: Draws) -> Tensor:
    """Fill with the image itself, slightly displaced: structure that breaks off."""
    rows, columns = _pixels(x)
    down, right = _shift(x, draws)
    return _blend(x, _sampled(x, rows + down, columns + right), area, draws)


def warped(x: Tensor, good: Tensor, area: AnomalyArea, draws: Draws) -> Tensor:
    """Fill with the image displaced more towards the middle of the area: structure that bends."""
    rows, columns = _pixels(x)
    down, right = _shift(x, draws) * (area.depth * (2 - area.depth))[:, 0]
    return _sampled(x, rows + down, columns + right)


def tone_change(x: Tensor, good: Tensor, area: AnomalyArea, draws: Draws) -> Tensor:
    """Fill with a brighter or darker version of the image."""
    return x + _amplitude(x, draws)


def structured_noise(x: Tensor, good: Tensor, area: AnomalyArea, draws: Draws) -> Tensor:
    """Fill with structured noise, more or less grainy, on a blurred background."""
    n, (height, width) = len(x), x.shape[-2:]
    side = min(height, width)
    cells = draws.log_uniform(n, low=2, high=max(3.0, 0.2 * side))
    pattern = perlin(cells, height, width, draws.generator)
    grain = draws.normal(*pattern.shape) * draws.uniform(n, 1, 1, 1, high=0.5)
    return blur(x, 3) + _amplitude(x, draws) * (1.5 * pattern + grain)


def blurred(x: Tensor, good: Tensor, area: AnomalyArea, draws: Draws) -> Tensor:
    """Fill with a blurred version of the image."""
    return blur(x, 1 + int(draws.integers(1, below=5)))


def stain(x: Tensor, good: Tensor, area: AnomalyArea, draws: Draws) -> Tensor:
    """Fill with one colour, near the colour of a random pixel."""
    n, channels, height, width = x.shape
    pixel = draws.integers(n, 1, 1, below=height * width).expand(-1, channels, -1)
    colour = x.flatten(2).gather(2, pixel)[..., None]  # (N, C, 1, 1)
    return (colour + _amplitude(x, draws) / 2).expand_as(x)


def inpainted(x: Tensor, good: Tensor, area: AnomalyArea, draws: Draws) -> Tensor:
    """Fill by smooth inpainting from the surroundings: a missing structure."""
    return inpaint_smooth(x, (area.mask <= 0).to(x.dtype))
