"""Grids of latent features: how an encoder lays its features over an image of any size.

Where an encoder is convolutional it is run on windows with a margin as wide as one latent place can see, so the
features are those of one run over the whole image. An encoder that was built for patches of one size (a dense
bottleneck, an alignment) or that sees the whole image at once (attention) is run on patches, ``patch.stride`` pixels
apart, and a place holds all latent variables of its patch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from blemish.detectors.contracts import Floats
from blemish.models import Autoencoder
from blemish.models.contracts import Bottleneck, ImageEncoder

_PATCHES_AT_ONCE = 16
_PROBE_SEED = 0
_PROBE_PATCHES = (4, 16)  # small patches: an encoder may see more than four of them


class FeatureAxis(NamedTuple):
    """Layout of features along one side of an image."""

    places: int
    before: int
    """Pixels that are added before the first one."""
    after: int


class Grid(ABC):
    """Layout of an encoder's features over an image."""

    stride: int
    depth: int
    """d, the features of one place."""
    centre: float
    """The middle of what the first place sees, in pixels from the first one of the padded image."""
    by_patch: bool = False
    """Whether the encoder is run on patches."""

    def __init__(self, model: Autoencoder) -> None:
        self._model = model

    @property
    def takes_absent(self) -> bool:
        """True if values may be absent (NaN)."""
        return self._model.encoder.takes_absent

    def features(self, window: Floats, rows: slice, columns: slice) -> Floats:
        """Features (d, rows, columns) of the window (C, h, w): of those places, counted from its first one."""
        device = next(self._model.parameters()).device
        with torch.inference_mode():
            tensor = torch.from_numpy(np.ascontiguousarray(window)).to(device)
            values: Floats = self._encode(tensor, rows, columns).cpu().numpy()
        return values

    @abstractmethod
    def axis(self, length: int) -> FeatureAxis:
        """Layout along a side of ``length`` pixels."""

    @abstractmethod
    def window(self, places: slice, axis: FeatureAxis, length: int) -> slice:
        """The pixels of the padded side that ``places`` need."""

    @abstractmethod
    def _encode(self, window: Tensor, rows: slice, columns: slice) -> Tensor:
        """:meth:`features` of tensors."""


class Convolutional(Grid):
    """Grid of an encoder that computes the same function at every place of an image.

    Parameters
    ----------
    reach: first and last pixel that latent place 0 sees, where negative ones lie before the image.
    lost: how many places fewer than strides there are.
    """

    def __init__(self, model: Autoencoder, *, reach: tuple[int, int], lost: int) -> None:
        super().__init__(model)
        self._patch = model.encoder.patch
        self.stride = model.encoder.stride
        self.reach, self.lost = reach, lost
        self.depth = latent_shape(model)[0]
        self.centre = sum(reach) / 2

    def axis(self, length: int) -> FeatureAxis:
        # As Autoencoder.prepare pads: to whole strides, and to one patch at least.
        padded = max(self._patch, math.ceil(length / self.stride) * self.stride)
        before = (padded - length) // 2
        return FeatureAxis(padded // self.stride - self.lost, before, padded - length - before)

    def window(self, places: slice, axis: FeatureAxis, length: int) -> slice:
        padded = length + axis.before + axis.after
        first, last = self.reach
        start = max(0, (places.start * self.stride + first) // self.stride * self.stride)
        stop = (places.stop - 1) * self.stride + last + 1
        # So long that the encoder gives the last place, and not shorter than what it was built for.
        stop = max(stop, (places.stop + self.lost) * self.stride, start + self._patch)
        stop = min(padded, math.ceil(stop / self.stride) * self.stride)
        return slice(min(start, (stop - self._patch) // self.stride * self.stride), stop)

    def _encode(self, window: Tensor, rows: slice, columns: slice) -> Tensor:
        return self._model.encode(window[None])[0, :, rows, columns]


class ByPatch(Grid):
    """The grid of an encoder that is run on patches: all latent variables of each are the features of a place."""

    by_patch = True

    def __init__(self, model: Autoencoder, patch: int, stride: int) -> None:
        super().__init__(model)
        self._patch, self.stride = patch, stride
        self.depth = math.prod(latent_shape(model))
        self.centre = (patch - 1) / 2

    def axis(self, length: int) -> FeatureAxis:
        places = math.ceil(max(0, length - self._patch) / self.stride) + 1
        added = self._patch + (places - 1) * self.stride - length
        return FeatureAxis(places, added // 2, added - added // 2)

    def window(self, places: slice, axis: FeatureAxis, length: int) -> slice:
        return slice(places.start * self.stride, (places.stop - 1) * self.stride + self._patch)

    def _encode(self, window: Tensor, rows: slice, columns: slice) -> Tensor:
        step, patch = self.stride, self._patch
        corners = [
            (row * step, column * step)
            for row in range(rows.start, rows.stop)
            for column in range(columns.start, columns.stop)
        ]
        latents = []
        for first in range(0, len(corners), _PATCHES_AT_ONCE):
            patches = torch.stack(
                [
                    window[:, top : top + patch, left : left + patch]
                    for top, left in corners[first : first + _PATCHES_AT_ONCE]
                ]
            )  # (n, C, P, P)
            if self._model.alignment is not None:
                patches = self._model.alignment(patches).image
            latents.append(self._model.encode(patches).flatten(1))  # (n, d)
        return torch.cat(latents).T.reshape(self.depth, rows.stop - rows.start, -1)


def latent_shape(model: Autoencoder) -> tuple[int, int, int]:
    """(d, h, w) of the latent of one patch."""
    last = cast(ImageEncoder | Bottleneck, model.bottlenecks[-1] if model.bottlenecks else model.encoder)
    return last.latent_shape


def encoder_grid(model: Autoencoder, channels: int, *, patch: int, stride: int) -> Grid:
    """Measure the grid of the encoder of ``model`` by changing pixels.

    Rows of noise are exchanged for others; those that do not change the latent place in the middle are beyond what it
    sees. Both axes are taken to be equal, as they are in every encoder here.

    Parameters
    ----------
    patch, stride: of the recipe, where the encoder has to be run on patches.
    """
    if model.alignment is not None or any(part.one_size for part in model.bottlenecks):
        return ByPatch(model, patch, stride)
    for patches in _PROBE_PATCHES:
        found = _measured(model, channels, patches)
        if found is not None:
            return found
    return ByPatch(model, patch, stride)


def _measured(model: Autoencoder, channels: int, patches: int) -> Convolutional | None:
    """The grid, if what one place sees fits in a probe of so many patches."""
    step, patch = model.encoder.stride, model.encoder.patch
    side, width = (math.ceil(length / step) * step for length in (patches * patch, patch))
    draw = torch.Generator().manual_seed(_PROBE_SEED)
    device = next(model.parameters()).device
    noise, other = (torch.rand(2, channels, side, width, generator=draw).to(device) for _ in range(2))
    with torch.inference_mode():
        latent = model.encode(noise)  # (2, d, n, m)
        middle = latent.shape[2] // 2
        # Fast convolutions round a value differently when its neighbours change.
        least = 1e-5 * float(latent.abs().max())

        def changes(rows: slice) -> bool:
            changed = noise.clone()
            changed[:, :, rows] = other[:, :, rows]
            difference = model.encode(changed)[:, :, middle] - latent[:, :, middle]
            return float(difference.abs().max()) > least

        # Both are monotone: what some rows change, more of them change too.
        before = _least(side, lambda row: changes(slice(0, row)))
        after = _least(side, lambda row: changes(slice(side - row, side)))
    first, last = before - 1, side - after
    if first == 0 or last == side - 1:
        return None
    return Convolutional(
        model, reach=(first - middle * step, last - middle * step), lost=side // step - latent.shape[2]
    )


def _least(most: int, holds: Callable[[int], bool]) -> int:
    """The least number in 1..``most`` for which ``holds``, which holds for all larger ones too."""
    low, high = 1, most
    while low < high:
        between = (low + high) // 2
        if holds(between):
            high = between
        else:
            low = between + 1
    return low
