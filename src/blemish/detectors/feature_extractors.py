"""Feature extractors of a memory bank: a feature at each place of a grid.

A new one is one class in one file, also outside the package: subclass :class:`FeatureExtractor`, register it, and
recipes name it under ``memory.features``.

>>> import torch
>>> @register_extractor("mean-colour")
... class MeanColour(FeatureExtractor):
...     def __init__(self, *, cell: int = 8) -> None:
...         super().__init__()
...         self.stride = self.least_side = cell
...         self.offset = cell // 2
...
...     def forward(self, x: Tensor) -> Tensor:
...         return F.avg_pool2d(x, self.stride).permute(0, 2, 3, 1)
>>> MeanColour()(torch.rand(1, 3, 32, 48)).shape
torch.Size([1, 4, 6, 3])
>>> del FEATURE_EXTRACTORS["mean-colour"]

Two patches x and y of an image, each without its mean and divided by its standard deviation, differ by

    ‖x̂ - ŷ‖² / n = 2 · (1 - s(x, y)),

with s the structure term of SSIM (Wang et al. 2004, equation 10). So the distance to the nearest patch of the good
images asks how similar in structure they are at best, whatever their light and contrast.

A rough or smooth area whose structure is normal has another local contrast, SSIM's second term. The logarithm of
local contrast is an image, too, whose structure is compared in the same way, at a quarter of the size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, TypeVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from blemish.detectors.inside import inside_at, mean_inside
from blemish.detectors.map_normaliser import resized_map
from blemish.detectors.projected_structure import mirrored, projected_structure, structure_at, too_small
from blemish.errors import TooSmallError
from blemish.similarity.windows import Window, window_mean

CONTRAST = Window(size=25, sigma=4.0)
"""Window of local contrast."""
REDUCTION = 4
"""Pixels of an image to one of its local contrast."""
ROOM = 128
"""Shorter side in pixels of the median image from which on local contrast is compared: two patches of 16, reduced."""
QUIET = 0.3
"""Local contrast, in units of the image's mean, below which differences fade."""


class FeatureExtractor(nn.Module):
    """Features at the places of a grid; subclasses set the attributes and define :meth:`forward`.

    The keyword arguments of a subclass's constructor are its settings in a recipe, checked against their annotations;
    ``channels`` (of the images) and ``pretrained`` (whether to load pretrained weights) are given to constructors
    that ask for them. Parameters and buffers are saved with the model.
    """

    stride: int
    """Pixels between neighbouring places, of the image that :meth:`forward` takes."""
    offset: int = 0
    """Row and column of the first place, in the same pixels."""
    reduction: int = 1
    """Pixels of an image to one of those that :meth:`reduced` gives."""
    least_side: int = 1
    """Shortest side in pixels of an image."""
    title: str = ""
    """Features as a report names them, such as ``structure``; the registered name where a class sets none."""
    only_anywhere: bool = False
    """Whether a bank of it is for images without common places alone, and stays empty where places matter."""
    ignores_light: bool = False
    """Whether a · x + b, a > 0, has the features of x."""
    takes_inside: bool = False
    """Whether :meth:`reduced` and :meth:`forward` take a mask ``inside`` (N, H, W) of the places inside the image as
    well, to keep the others out of statistics of the whole image; pixels outside repeat the border of the image."""

    def reduced(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        """Image that the features are taken of: (N, C, H, W) to (N, C', ⌊H / reduction⌋, ⌊W / reduction⌋).

        A memory bank that compares places brings this image to one size.
        """
        return x

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Features of :meth:`reduced` images (N, C', H', W'): (N, h, w, k), finite, each image by itself."""

    def projected(self, x: Tensor, mean: Tensor, basis: Tensor, inside: Tensor | None = None) -> Tensor:
        """Features of :meth:`reduced` images without ``mean`` (f,), on ``basis`` (f, k): (N, h, w, k)."""
        projected: Tensor = (self._features(x, inside) - mean) @ basis
        return projected

    def drawn(self, x: Tensor, draw: Callable[[int, int], Tensor], inside: Tensor | None = None) -> Tensor:
        """Features of some places of one reduced image (1, C', H', W'): (n, f).

        ``draw`` gives the numbers (n,) of the places from their rows and columns.
        """
        features = self._features(x, inside)
        return features.flatten(0, 2)[draw(features.shape[1], features.shape[2])]

    def _features(self, x: Tensor, inside: Tensor | None) -> Tensor:
        features: Tensor = self(x, inside) if inside is not None and self.takes_inside else self(x)
        return features

    def check(self, height: int, width: int) -> None:
        """Refuse an image that is too small.

        Raises
        ------
        UsageError
            Naming the size and :attr:`least_side`.
        """
        if min(height, width) < self.least_side:
            raise TooSmallError((height, width), self.least_side, f"for the features {self.title}")

    def has_room(self, sizes: Tensor) -> bool:
        """True if a bank beside others is worth having on images of ``sizes`` (N, 2), height and width each."""
        return True


FEATURE_EXTRACTORS: dict[str, type[FeatureExtractor]] = {}

E = TypeVar("E", bound=FeatureExtractor)


def register_extractor(name: str) -> Callable[[type[E]], type[E]]:
    """Class decorator: make a feature extractor available to recipes under ``name``."""

    def add(cls: type[E]) -> type[E]:
        if not cls.title:
            cls.title = name
        FEATURE_EXTRACTORS[name] = cls
        return cls

    return add


@register_extractor("structure")
class Structure(FeatureExtractor):
    """Structure of patches, as SSIM takes it; see :func:`structure`.

    Parameters
    ----------
    patch: side in pixels, even.
    stride: from one patch to the next.
    floor: contrast below which a patch counts as flat, in units of the mean contrast of the image's patches.
    """

    title = "structure"
    ignores_light = True
    takes_inside = True

    def __init__(
        self,
        *,
        patch: Annotated[int, Field(ge=4, le=512, multiple_of=2)] = 16,
        stride: Annotated[int, Field(ge=1, le=512)] = 4,
        floor: Annotated[float, Field(gt=0)] = 2.0,
    ) -> None:
        super().__init__()
        self.patch, self.stride, self.floor = patch, stride, floor
        self.least_side = patch // 2 + 1

    def check(self, height: int, width: int) -> None:
        if min(height, width) < self.least_side:
            raise too_small(height, width, self.patch)

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        return structure(x, self.patch, self.stride, self.floor, inside)

    def projected(self, x: Tensor, mean: Tensor, basis: Tensor, inside: Tensor | None = None) -> Tensor:
        return projected_structure(x, self.patch, self.stride, self.floor, mean, basis, inside)

    def drawn(self, x: Tensor, draw: Callable[[int, int], Tensor], inside: Tensor | None = None) -> Tensor:
        places = draw(x.shape[2] // self.stride + 1, x.shape[3] // self.stride + 1)
        return structure_at(x, self.patch, self.stride, self.floor, places, inside)


@register_extractor("wide-structure")
class WideStructure(Structure):
    """Structure of wide patches beside that of others, where places do not matter.

    On stochastic surfaces cracks and stains stand out better in both sizes together (``benchmarks/results/``). Where an object
    is in one pose, wide patches hold its edges as well, and hide what is small.

    Takes the settings of :class:`Structure`. A bank of it beside others stays empty where places matter, where the median
    image's shorter side is below 128 pixels, or where any image is smaller than half a patch.
    """

    title = "structure of wide patches"
    only_anywhere = True

    def __init__(
        self,
        *,
        patch: Annotated[int, Field(ge=4, le=512, multiple_of=2)] = 32,
        stride: Annotated[int, Field(ge=1, le=512)] = 8,
        floor: Annotated[float, Field(gt=0)] = 2.0,
    ) -> None:
        super().__init__(patch=patch, stride=stride, floor=floor)

    def has_room(self, sizes: Tensor) -> bool:
        return _has_room(sizes, self.least_side)


@register_extractor("local-contrast")
class LocalContrast(Structure):
    """Structure of :func:`local_contrast`, in patches of that smaller image.

    Takes the settings of :class:`Structure`. Where the median image's shorter side is below 128 pixels, or any image
    is smaller than a patch, a bank of it beside others stays empty.
    """

    title = "local contrast"
    reduction = REDUCTION

    def __init__(
        self,
        *,
        patch: Annotated[int, Field(ge=4, le=512, multiple_of=2)] = 16,
        stride: Annotated[int, Field(ge=1, le=512)] = 4,
        floor: Annotated[float, Field(gt=0)] = 2.0,
    ) -> None:
        super().__init__(patch=patch, stride=stride, floor=floor)
        self.least_side = max(CONTRAST.size, REDUCTION * (patch // 2 + 1))

    def reduced(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        return local_contrast(x, inside)

    def check(self, height: int, width: int) -> None:
        if min(height, width) < self.least_side:
            raise TooSmallError((height, width), self.least_side, "to be compared in local contrast")

    def has_room(self, sizes: Tensor) -> bool:
        return _has_room(sizes, self.least_side)


def _has_room(sizes: Tensor, least_side: int) -> bool:
    return bool(sizes.min() >= least_side and sizes.median(0).values.min() >= ROOM)


@register_extractor("colour")
class Colour(FeatureExtractor):
    """Mean of each channel in patches: brightness and colour of areas, to which :class:`Structure` is blind.

    Parameters
    ----------
    patch: side in pixels, even.
    stride: from one patch to the next.
    """

    title = "colour"

    def __init__(
        self,
        *,
        patch: Annotated[int, Field(ge=2, le=512, multiple_of=2)] = 8,
        stride: Annotated[int, Field(ge=1, le=512)] = 4,
    ) -> None:
        super().__init__()
        self.patch, self.stride = patch, stride
        self.least_side = patch // 2 + 1

    def forward(self, x: Tensor) -> Tensor:
        return local_means(x, self.patch, self.stride)


def local_means(x: Tensor, patch: int, stride: int) -> Tensor:
    """Mean of each channel in patches of an image.

    Parameters
    ----------
    x: (N, C, H, W); mirrored at its border.
    patch: side in pixels, even.
    stride: from one patch to the next.

    Returns
    -------
    (N, h, w, C), h = ⌊H / stride⌋ + 1.

    >>> import torch
    >>> local_means(torch.rand(1, 3, 32, 48), 8, 4).shape
    torch.Size([1, 9, 13, 3])
    """
    padded = F.pad(x, (patch // 2,) * 4, mode="reflect")
    means = F.avg_pool2d(padded, patch, stride)
    return means.permute(0, 2, 3, 1)  # (N, C, h, w) -> (N, h, w, C)


def structure(x: Tensor, patch: int, stride: int, floor: float, inside: Tensor | None = None) -> Tensor:
    """Structure of each patch of an image: without its mean, divided by its contrast.

    Parameters
    ----------
    x: (N, C, H, W); mirrored at its border.
    patch: side in pixels, even.
    stride: from one patch to the next.
    floor: contrast below which a patch counts as flat, in units of the mean contrast of the image's patches. It
        makes the result the same for a · x + b, a > 0.
    inside: (N, H, W), True at the pixels inside the image; only patches around these count in the mean contrast. None
        where all are.

    Returns
    -------
    (N, h, w, C · patch²), h = ⌊H / stride⌋ + 1.

    Raises
    ------
    UsageError
        When a side of the images is too short to be mirrored by half a patch.

    >>> import torch
    >>> structure(torch.rand(1, 1, 32, 48), 16, 4, 1.0).shape
    torch.Size([1, 9, 13, 256])
    """
    n, channels, height, width = x.shape
    patches = F.unfold(mirrored(x, patch), patch, stride=stride)  # (N, C · patch², h · w)
    patches = patches.view(n, channels, patch * patch, -1)
    patches = (patches - patches.mean(2, keepdim=True)).flatten(1, 2)
    deviation = patches.square().mean(1, keepdim=True).sqrt()  # (N, 1, h · w)
    size = (height // stride + 1, width // stride + 1)
    if inside is not None:
        inside = inside_at(inside, stride, 0, size).view(n, 1, -1)
    mean = mean_inside(deviation, (2,), inside).clamp(min=1e-6)
    patches = patches / (deviation + floor * mean)
    return patches.transpose(1, 2).reshape(n, *size, -1)


def local_contrast(x: Tensor, inside: Tensor | None = None) -> Tensor:
    """Logarithm of the local contrast of images, at a quarter of their size.

    log(σ_x + 0.3 mean(σ_x)) with σ_x the standard deviation in a Gaussian window of 4 pixels (Wang et al. 2004,
    equation 15), of each channel by itself. A gain adds a constant, an offset nothing.

    Parameters
    ----------
    x: (N, C, H, W); each side at least 25.
    inside: (N, H, W), True at the pixels inside the image, whose mean is taken; None where all are.

    Returns
    -------
    (N, C, ⌊H / 4⌋, ⌊W / 4⌋).

    >>> import torch
    >>> local_contrast(torch.rand(1, 3, 130, 160)).shape
    torch.Size([1, 3, 32, 40])
    """
    inside = None if inside is None else inside[:, None]
    x = x - mean_inside(x, (2, 3), inside)
    mu_x = window_mean(x, CONTRAST)
    sigma_x = (window_mean(x * x, CONTRAST) - mu_x * mu_x).clamp(min=0).sqrt()
    logarithm = (sigma_x + QUIET * mean_inside(sigma_x, (2, 3), inside) + 1e-6).log()
    return resized_map(logarithm, (x.shape[2] // REDUCTION, x.shape[3] // REDUCTION))
