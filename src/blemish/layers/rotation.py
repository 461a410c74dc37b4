"""Rotation of images about their centre, and estimation of their orientation from gradients.

Angles are in radians, counter-clockwise as one looks at the image. Coordinates are (x to the right, y down),
in pixels from the centre, so odd and even sides need no special care.

Accuracy: after a rotation by 45° and back by :func:`rotate`, smooth images (nothing finer than 8 pixels) differ
from the originals by 0.8 of 255 grey levels on average; with plain bilinear sampling by 1.7. Through the canvas of
:func:`onto_canvas`, at 1/√2 of the resolution, the error is 1.0, where pad, resize, turn, turn back and resize,
each bilinear, give 5.3; for content down to 4 pixels it is 1.9 against 16.0. Cubic B-splines would have almost no
error on smooth images, but nine tenths of it on a woven texture, and torch has no sampler for them. The figures
are in benchmarks/results/rotation.json.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

RotationSampling = Literal["bilinear", "bicubic"]

DIAGONAL = math.sqrt(2)
"""Side of the canvas, in sides of the image, that holds the image at every angle."""
CONTINUED = 2.0
"""Canvas pixels by which an image is extended beyond its edge, so that no cubic kernel of the inverse reads the
zeros around it."""
BLUR = 1.0
"""Standard deviation in canvas pixels of the Gaussian before the gradients."""


def rotate(x: Tensor, angle: Tensor, *, scale: float = 1.0, sampling: RotationSampling = "bicubic") -> Tensor:
    """Turn each image about its centre and resize it by ``scale``, in one resampling.

    Differentiable in pixels and angle; computed in float32 even under autocast.

    Parameters
    ----------
    x: (N, C, H, W).
    angle: (N,) radians counter-clockwise.
    scale: enlargement of the content; the canvas keeps its size.
    sampling: cubic convolution (Keys 1981, a = -0.75), or bilinear for comparison.

    Returns
    -------
    (N, C, H, W); beyond its edge an image is extended by its outermost pixels.

    Examples
    --------
    >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> rotate(x, torch.tensor([math.pi / 2])).round(decimals=3)
    tensor([[[[2., 4.],
              [1., 3.]]]])
    """
    with torch.autocast(x.device.type, enabled=False):
        height, width = x.shape[-2:]
        u, v = _source(angle, height, width, x.device)
        # grid_sample measures from the centre in half sides.
        grid = torch.stack([u * (2 / (scale * width)), v * (2 / (scale * height))], dim=-1)
        return F.grid_sample(x.float(), grid, mode=sampling, padding_mode="border", align_corners=False)


def onto_canvas(x: Tensor, angle: Tensor) -> Tensor:
    """Turn square images by ``angle`` on a canvas of √2 times their side, resized to their side.

    The canvas of Rádli & Czúni 2022, section 7: padded by zeros from 128 to 181 pixels, resized to 128,
    turned. Here this is one resampling, the canvas has a side of exactly √2·128, and its zeros begin two canvas
    pixels outside the image, whose border is extended that far, so that :func:`from_canvas` is an inverse up
    to the edge of the image.

    Parameters
    ----------
    x: (N, C, P, P).
    angle: (N,) radians counter-clockwise.
    """
    turned = rotate(x, angle, scale=1 / DIAGONAL)
    return turned * canvas_mask(angle, x.shape[-1], margin=-CONTINUED)


def from_canvas(y: Tensor, angle: Tensor) -> Tensor:
    """Invert :func:`onto_canvas`: turn back by ``angle`` and crop, (N, C, P, P)."""
    return rotate(y, -angle, scale=DIAGONAL)


def canvas_mask(angle: Tensor, side: int, *, margin: float = 0.0) -> Tensor:
    """Mask of the image on the canvas of :func:`onto_canvas`: (N, 1, side, side) of 0 and 1.

    ``margin`` canvas pixels along the edge of the image are left out.
    """
    with torch.no_grad():
        u, v = _source(angle, side, side, angle.device)
        return (torch.maximum(u.abs(), v.abs()) <= _half(side, margin)).float()[:, None]


def _half(side: int, margin: float) -> float:
    return side / (2 * DIAGONAL) - margin


def _source(angle: Tensor, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Coordinates (x, y), each (N, H, W), of every pixel before the turn; equation (8) of Rádli & Czúni."""
    x = torch.arange(width, device=device) - (width - 1) / 2
    y = torch.arange(height, device=device)[:, None] - (height - 1) / 2
    cos, sin = (part.float()[:, None, None] for part in (angle.cos(), angle.sin()))
    return cos * x - sin * y, sin * x + cos * y


def gradient_loss(x: Tensor, angle: Tensor) -> Tensor:
    """Mean absolute horizontal gradient of each image after a turn (Rádli & Czúni 2022, equation 7).

    The image is turned on its zero-padded canvas, blurred, filtered by the Sobel kernel G_x, and averaged
    over the turned image, except for a rim so wide that no kernel reaches beyond it. For an image of parallel
    edges the loss is least where they lie horizontally.

    Parameters
    ----------
    x: (N, 1, S, S), grey; the paper's S is 64.
    angle: (N,) radians counter-clockwise.

    Returns
    -------
    (N,); a turn by π changes nothing. To learn the angle use :func:`loss_at_angle`: what a turn moves across the
    border of the mask changes this loss, but not its gradient by the angle, which sees the mask as constant.
    """
    with torch.autocast(x.device.type, enabled=False):
        g_x = _gradients(onto_canvas(x, angle))[:, :1]
        return _mean_inside(g_x.abs(), angle)[:, 0]


def loss_by_angle(x: Tensor, angles: Tensor) -> Tensor:
    """Compute :func:`gradient_loss` of each image at every angle without resampling: (N, A).

    The horizontal derivative of a turned image is a combination of the derivatives of the original image,
    g_x cos θ + g_y sin θ, so one filtering is enough for all angles.

    Parameters
    ----------
    x: (N, 1, S, S), grey.
    angles: (A,) radians counter-clockwise.

    Examples
    --------
    >>> stripes = torch.arange(64.0).cos().expand(1, 1, 64, 64)  # upright
    >>> loss_by_angle(stripes, torch.tensor([0, math.pi / 4, math.pi / 2])).round(decimals=2)
    tensor([[1.8900, 1.3300, 0.0000]])
    """
    with torch.autocast(x.device.type, enabled=False):
        directions = torch.stack([angles.cos(), angles.sin()], dim=1).float()  # (A, 2)
        return (directions @ _inner_gradients(x)).abs().mean(dim=2)


def loss_at_angle(x: Tensor, angle: Tensor) -> Tensor:
    """Compute :func:`loss_by_angle` of each image at an angle of its own: (N,), differentiable in the angle.

    Equation 7 of Rádli & Czúni 2022 in closed form, mean |g_x cos α + g_y sin α| over the image. No pixel enters or
    leaves under a turn, so the gradient by the angle is that of the loss.

    Parameters
    ----------
    x: (N, 1, S, S), grey.
    angle: (N,) radians counter-clockwise.
    """
    with torch.autocast(x.device.type, enabled=False):
        directions = torch.stack([angle.cos(), angle.sin()], dim=1).float()[:, None]  # (N, 1, 2)
        return (directions @ _inner_gradients(x)).abs().mean(dim=(1, 2))


def _inner_gradients(x: Tensor) -> Tensor:
    """Gradients of :func:`_gradients` of the upright images on their canvas, inside the mask: (N, 2, pixels)."""
    side = x.shape[-1]
    reach = _RADIUS + 1
    # The part of the canvas inside the mask of an upright image, and the reach of the kernels around it.
    first = math.ceil((side - 1) / 2 - _half(side, _RIM)) - reach
    canvas = onto_canvas(x, x.new_zeros(x.shape[0]))[..., first : side - first, first : side - first]
    return _gradients(canvas)[..., reach:-reach, reach:-reach].flatten(2)


def modulation(x: Tensor, *, angles: int = 24) -> Tensor:
    """Strength of the dominant orientation of each grey image (N, 1, S, S): (N,) in [0, 1].

    The modulation depth 1 - least / largest of :func:`loss_by_angle` over half a turn: 1 for edges in a single
    direction, 0.29 for the two directions of a checkerboard, 0 for an isotropic or constant image.
    """
    half_turn = torch.arange(angles, device=x.device) * (math.pi / angles)
    loss = loss_by_angle(x, half_turn)
    largest = loss.amax(dim=1)
    # Below a thousandth of the range there are only rounding errors.
    return torch.where(largest > 1e-3, 1 - loss.amin(dim=1) / largest.clamp(min=1e-3), 0.0)


def _gradients(canvas: Tensor) -> Tensor:
    """Blurred derivatives of (N, 1, S, S) along x and y: (N, 2, S, S), by the Sobel kernels."""
    return F.conv2d(canvas, _kernels(canvas.device), padding=_RADIUS + 1)


def _mean_inside(values: Tensor, angle: Tensor) -> Tensor:
    mask = canvas_mask(angle, values.shape[-1], margin=_RIM)
    return (mask * values).sum(dim=(2, 3)) / mask.sum(dim=(2, 3)).clamp(min=1)


_RADIUS = math.ceil(2 * BLUR)
# The kernels reach radius + 1 pixels along each axis, and √2 times that at their corners.
_RIM = DIAGONAL * (_RADIUS + 1)


@lru_cache(maxsize=8)
def _kernels(device: torch.device) -> Tensor:
    """Gaussian blur followed by Sobel's G_x (equation 6) and its transpose: (2, 1, K, K)."""
    with torch.inference_mode(False):
        line = torch.exp(-0.5 * (torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64) / BLUR) ** 2)
        line = (line / line.sum()).view(1, 1, -1)
        across = F.conv1d(line, line.new_tensor([[[-1.0, 0.0, 1.0]]]), padding=2)[0, 0]
        along = F.conv1d(line, line.new_tensor([[[1.0, 2.0, 1.0]]]), padding=2)[0, 0]
        g_x = along[:, None] * across
        return torch.stack([g_x, g_x.T])[:, None].to(device, torch.float32)
