"""Orientation normalisation by a rotation-only spatial transformer: Rádli & Czúni 2022.

A small network estimates the angle that turns an image into a common pose. Trained alone, on the gradients of the
images, it lays edges horizontally (section 6); trained with the autoencoder from random weights it does not
improve detection (section 8.1). The autoencoder's loss compares the image with the reconstruction turned back, without
the canvas around it; in the paper it includes the padding. The recipes ``stn-ae-*`` are the four columns of the paper.

The network of the paper outputs the angle as one number, ``output="angle"``. Orientations lie on a circle, which no
continuous function maps to one number, so such a network is wrong near its discontinuity: on a generated cloth
3 to 6 % of the images were off by more than 10°, and with ``output="direction"``, (cos 2α, sin 2α), none. From
random weights, the direction can be learned jointly with the autoencoder; the single number cannot.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from blemish.errors import RecipeError
from blemish.layers.rotation import from_canvas, loss_at_angle, modulation, onto_canvas
from blemish.models.contracts import Aligned, Alignment
from blemish.models.initialisation import keep_variance
from blemish.models.registry import ALIGNMENTS, register

Strategy = Literal["unaligned", "joint", "frozen", "finetuned"]
OutputKind = Literal["direction", "angle"]

SIDE = 64
"""Side in pixels of the grey view in which the orientation is estimated.

The paper computes the gradient loss at 64 pixels and gives its localisation network the padded colour image of 128 pixels;
here the network has the same view as the loss, grey, without padding and standardised.
"""
FILTERS = (8, 16, 32, 32)
HIDDEN = (64, 32)
LEVEL_TOLERANCE = 0.01
"""Brightness difference, relative to the contrast, below which neither half of an image is the brighter one."""


class LocalisationNetwork(nn.Module):
    """Localisation network of Table 2: four convolutions with ReLU and max-pooling, then three dense layers.

    The paper does not state the widths; here they are small: 5×5 then 3×3 kernels, 8, 16, 32, 32 filters.

    Parameters
    ----------
    output: ``angle``, one number, as in the paper; or ``direction``, (cos 2α, sin 2α), which determines α up
        to a half turn.
    """

    def __init__(self, output: OutputKind = "direction") -> None:
        super().__init__()
        steps: list[nn.Module] = []
        c_in = 1
        for index, c_out in enumerate(FILTERS):
            kernel = 5 if index == 0 else 3
            convolution = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)
            keep_variance(convolution, slope=0)
            steps += [convolution, nn.ReLU(), nn.MaxPool2d(2)]
            c_in = c_out
        steps.append(nn.Flatten())
        width = c_in * (SIDE // 2 ** len(FILTERS)) ** 2
        for hidden in HIDDEN:
            layer = nn.Linear(width, hidden)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
            steps += [layer, nn.ReLU()]
            width = hidden
        last = nn.Linear(width, 2 if output == "direction" else 1)
        with torch.no_grad():
            # Start near angle 0, as spatial transformers do, and away from a direction of length 0.
            last.weight.mul_(0.1)
            last.bias.copy_(torch.tensor([1.0, 0.0] if output == "direction" else [0.0]))
        self.layers = nn.Sequential(*steps, last)

    def forward(self, view: Tensor) -> Tensor:
        """Estimate angles (N,) in radians from views (N, 1, 64, 64) of mean 0."""
        # Pooling is several times faster in channels-last layout, and its input determines the layout of the rest.
        first: Tensor = self.layers[0](view)
        found: Tensor = self.layers[1:](first.contiguous(memory_format=torch.channels_last))
        return found[:, 0] if found.shape[1] == 1 else torch.atan2(found[:, 1], found[:, 0]) / 2


@register(ALIGNMENTS, "rotation")
class Rotation(Alignment):
    """Alignment that turns images until their edges lie horizontally, on a canvas that keeps every corner.

    Parameters
    ----------
    channels: channels of the images, at most 4; the orientation is estimated from their mean.
    patch: side of the images in pixels.
    strategy: ``frozen``, the localisation network is trained before the autoencoder and then frozen;
        ``finetuned``, trained before and with it; ``joint``, only with it, from random weights; ``unaligned``,
        the same canvas without any turn.
    pretraining: steps of :meth:`pretraining_loss`; at least 1 for ``frozen`` and ``finetuned``, else 0.
    output: kind of output of the localisation network.
    least_modulation: images with a smaller :func:`~blemish.layers.rotation.modulation` have no dominant
        orientation and are not turned.

    Notes
    -----
    The gradient loss does not change under a half turn. After pretraining with it, brightness decides between the
    two remaining poses: the upper half is the brighter one.

    Raises
    ------
    RecipeError
        For more than 4 channels, or a number of pretraining steps that contradicts the strategy.
    """

    view_matrix: Tensor

    def __init__(
        self,
        *,
        channels: int,
        patch: int = 128,
        strategy: Strategy = "frozen",
        pretraining: Annotated[int, Field(ge=0)] = 0,
        output: OutputKind = "direction",
        least_modulation: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__()
        if channels > 4:
            raise RecipeError(
                f"alignment 'rotation' finds orientation in grey or colour images, not in {channels} channels; "
                "choose a recipe without alignment, such as l2-ae, or --set image.channels=1"
            )
        pretrained = strategy in ("frozen", "finetuned")
        if pretrained != (pretraining > 0):
            remedy = (
                "set alignment.pretraining to at least 1" if pretrained else "set alignment.pretraining=0"
            )
            raise RecipeError(
                f"alignment 'rotation': strategy '{strategy}' with {pretraining} steps of pretraining; {remedy}"
            )
        self.strategy = strategy
        self.pretraining = pretraining
        self.least_modulation = least_modulation
        self.localisation = None if strategy == "unaligned" else LocalisationNetwork(output)
        self.register_buffer("view_matrix", _view_matrix(patch), persistent=False)

    def forward(self, x: Tensor) -> Aligned:
        angle = self.angle(x)
        return Aligned(onto_canvas(x, angle), angle)

    def restore(self, y: Tensor, aligned: Aligned) -> Tensor:
        return from_canvas(y, aligned.angle)

    def pretraining_loss(self, x: Tensor) -> dict[str, Tensor]:
        assert self.localisation is not None
        view = self.view(x)
        with torch.autocast(x.device.type, enabled=False):
            return {"gradient": loss_at_angle(view, self.localisation(view)).mean()}

    def angle(self, x: Tensor) -> Tensor:
        """Angle by which :meth:`forward` turns each image of ``x``: (N,), radians counter-clockwise."""
        if self.localisation is None:
            return x.new_zeros(x.shape[0], dtype=torch.float32)
        view = self.view(x)
        with (
            torch.autocast(x.device.type, enabled=False),
            torch.set_grad_enabled(torch.is_grad_enabled() and self.strategy != "frozen"),
        ):
            angle: Tensor = self.localisation(view)
            if self.strategy == "joint":
                return angle
            angle = angle + math.pi * _is_upside_down(view, angle)
            return torch.where(self.poseless(x), 0.0, angle)

    def poseless(self, x: Tensor) -> Tensor:
        if self.strategy in ("joint", "unaligned"):
            return super().poseless(x)
        return self.modulation(x) < self.least_modulation

    def modulation(self, x: Tensor) -> Tensor:
        """Strength of the dominant orientation of each image, (N,): see ``least_modulation``."""
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            return modulation(self.view(x))

    @torch.no_grad()
    def view(self, x: Tensor) -> Tensor:
        """Reduce images to the grey view in which orientation is estimated: (N, 1, 64, 64) of mean 0, variance 1."""
        with torch.autocast(x.device.type, enabled=False):
            grey = x.float().mean(dim=1, keepdim=True)
            view = self.view_matrix @ grey @ self.view_matrix.T
            # Contrast below one grey level is noise.
            std, mean = torch.std_mean(view, dim=(1, 2, 3), keepdim=True, correction=0)
            return (view - mean) / std.clamp(min=1 / 255)


@torch.no_grad()
def _is_upside_down(view: Tensor, angle: Tensor) -> Tensor:
    """Whether the lower half of each view is brighter after the turn: (N,) of 0 and 1.

    The criterion is the first moment of the brightness over the largest disc, which turns with the image.
    """
    radius = (SIDE - 1) / 2
    along = torch.linspace(-1, 1, SIDE, device=view.device)
    x, y = along.expand(SIDE, SIDE), along[:, None].expand(SIDE, SIDE)
    disc = (x**2 + y**2 <= 1) / (math.pi * radius**2)
    m_x, m_y = ((view * (disc * axis)).sum(dim=(1, 2, 3)) for axis in (x, y))
    return (angle.cos() * m_y - angle.sin() * m_x > LEVEL_TOLERANCE).float()


def _view_matrix(patch: int) -> Tensor:
    """Matrix (64, patch) that resizes one axis with an antialiasing triangle filter."""
    identity = torch.eye(patch).view(1, 1, patch, patch)
    resized = F.interpolate(
        identity, size=(SIDE, patch), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0, 0]
