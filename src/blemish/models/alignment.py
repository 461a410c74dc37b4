"""Orientation normalisation by a rotation-only spatial transformer: Rádli & Czúni 2022.

A small network finds the angle that turns an image into the common pose. Learned alone, from the images'
gradients, it lays edges horizontally (section 6); learned with the autoencoder from random weights it does not
help (section 8.1). The recipes ``stn-ae-*`` are the paper's four columns.

The paper's network gives the angle as one number, ``output="angle"``. Orientations lie on a circle, which no
continuous function maps to one number, so such a network must be wrong wherever it jumps: on a generated cloth
3 to 6 % of the images were off by more than 10°, and with ``output="direction"``, (cos 2α, sin 2α), none. From
random weights the direction is learned with the autoencoder too, where the one number is not.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from blemish.errors import RecipeError
from blemish.layers.rotation import from_canvas, gradient_loss, modulation, onto_canvas
from blemish.models.contracts import Aligned, Alignment
from blemish.models.initialisation import keep_variance
from blemish.models.registry import ALIGNMENTS, register

Strategy = Literal["unaligned", "joint", "frozen", "finetuned"]
OutputKind = Literal["direction", "angle"]

SIDE = 64
"""Of the grey view in which the orientation is looked for; the paper's."""
FILTERS = (8, 16, 32, 32)
HIDDEN = (64, 32)
LEVEL_TOLERANCE = 0.01
"""Relative to the contrast: below it, neither half of an image counts as the brighter one."""


class LocalisationNetwork(nn.Module):
    """Table 2: four convolutions, each with ReLU and max-pooling, then three fully connected layers.

    The widths, which the paper leaves open, are chosen small: 5×5 then 3×3 kernels, 8, 16, 32, 32 filters.

    Parameters
    ----------
    output: ``angle``, one number, as in the paper; or ``direction``, (cos 2α, sin 2α), which names α up to a
        half turn.
    """

    def __init__(self, output: OutputKind = "direction") -> None:
        super().__init__()
        steps: list[nn.Module] = []
        c_in = 1
        for place, c_out in enumerate(FILTERS):
            kernel = 5 if place == 0 else 3
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
            # It begins near angle 0, as spatial transformers do; and away from the direction of length 0.
            last.weight.mul_(0.1)
            last.bias.copy_(torch.tensor([1.0, 0.0] if output == "direction" else [0.0]))
        self.layers = nn.Sequential(*steps, last)

    def forward(self, view: Tensor) -> Tensor:
        """(N, 1, 64, 64) of mean 0 to angles (N,) in radians."""
        # Pooling is several times faster with the channels last, and its input decides the layout of the rest.
        first: Tensor = self.layers[0](view)
        found: Tensor = self.layers[1:](first.contiguous(memory_format=torch.channels_last))
        return found[:, 0] if found.shape[1] == 1 else torch.atan2(found[:, 1], found[:, 0]) / 2


@register(ALIGNMENTS, "rotation")
class Rotation(Alignment):
    """Turns images so that their edges lie horizontally, on a canvas that loses no corner.

    Parameters
    ----------
    channels: of the images, at most 4: orientation is looked for in their mean.
    patch: side of the images in pixels.
    strategy: ``frozen``, the localisation network is trained before the autoencoder and then kept;
        ``finetuned``, trained before and with it; ``joint``, only with it, from random weights; ``unaligned``,
        the same canvas without any turn.
    pretraining: steps of :meth:`pretraining_loss`; at least 1 for ``frozen`` and ``finetuned``, else 0.
    output: of the localisation network.
    least_modulation: images whose :func:`~blemish.layers.rotation.modulation` is less have no dominant
        orientation and are left as they are.

    Notes
    -----
    The gradient loss is the same after a half turn. Where it was learned from, what remains open is decided by
    brightness: the pose is the one whose upper half is the brighter one.

    Raises
    ------
    RecipeError
        For more than 4 channels, or steps of pretraining that do not go with the strategy.
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
        learned_before = strategy in ("frozen", "finetuned")
        if learned_before != (pretraining > 0):
            mend = (
                "set alignment.pretraining to at least 1" if learned_before else "set alignment.pretraining=0"
            )
            raise RecipeError(
                f"alignment 'rotation': strategy '{strategy}' with {pretraining} steps of pretraining; {mend}"
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
            return {"gradient": gradient_loss(view, self.localisation(view)).mean()}

    def angle(self, x: Tensor) -> Tensor:
        """(N,) radians by which :meth:`forward` turns ``x``, counter-clockwise."""
        if self.localisation is None:
            return x.new_zeros(len(x), dtype=torch.float32)
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
        """(N,), how much an orientation dominates each image: see ``least_modulation``."""
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            return modulation(self.view(x))

    @torch.no_grad()
    def view(self, x: Tensor) -> Tensor:
        """The grey, smaller image in which orientation is looked for: (N, 1, 64, 64) of mean 0, variance 1."""
        with torch.autocast(x.device.type, enabled=False):
            grey = x.float().mean(dim=1, keepdim=True)
            view = self.view_matrix @ grey @ self.view_matrix.T
            # A grey level is the least contrast that is one.
            std, mean = torch.std_mean(view, dim=(1, 2, 3), keepdim=True, correction=0)
            return (view - mean) / std.clamp(min=1 / 255)


@torch.no_grad()
def _is_upside_down(view: Tensor, angle: Tensor) -> Tensor:
    """(N,) of 0 and 1: whether the lower half of each view is brighter after the turn.

    Told by the first moment of the brightness over the largest disc, which turns with the image.
    """
    radius = (SIDE - 1) / 2
    along = torch.linspace(-1, 1, SIDE, device=view.device)
    x, y = along.expand(SIDE, SIDE), along[:, None].expand(SIDE, SIDE)
    disc = (x**2 + y**2 <= 1) / (math.pi * radius**2)
    m_x, m_y = ((view * (disc * axis)).sum(dim=(1, 2, 3)) for axis in (x, y))
    return (angle.cos() * m_y - angle.sin() * m_x > LEVEL_TOLERANCE).float()


def _view_matrix(patch: int) -> Tensor:
    """(64, patch), resizes one axis with the triangle filter that keeps fine stripes from aliasing."""
    identity = torch.eye(patch).view(1, 1, patch, patch)
    resized = F.interpolate(
        identity, size=(SIDE, patch), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0, 0]
