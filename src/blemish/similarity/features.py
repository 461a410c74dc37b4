"""Distances between the features of two images.

Bergmann et al. 2018, equation 3, after Dosovitskiy & Brox 2016: ‖F(x) − F(x̂)‖² with F the first layers of a CNN
trained on ImageNet. With deeper layers it is the feature reconstruction loss of Johnson, Alahi, Fei-Fei 2016
(Perceptual Losses for Real-Time Style Transfer and Super-Resolution, equation 2).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blemish.errors import UsageError
from blemish.layers.pretrained import IMAGENET_MEAN, IMAGENET_STD, load_network
from blemish.similarity.measure import Measure
from blemish.similarity.pairs import as_working

Network = Literal["gabor", "vgg16"]

ORIENTATIONS = 4
WAVELENGTH = 4.0
SIGMA = 0.56 * WAVELENGTH  # half the response half an octave away: a bandwidth of one octave
TAPS = 12  # even, so that a filter is centred on 2 × 2 pixels


def gabor_bank() -> Tensor:
    """Even and odd Gabor filters of ``WAVELENGTH`` pixels: (2 · ORIENTATIONS, 1, K, K), even filters first.

    A wave of that length across a filter gives its own amplitude as √(even² + odd²); a constant gives 0.
    """
    side = torch.arange(TAPS, dtype=torch.float64) - (TAPS - 1) / 2
    envelope = torch.exp(-(side[:, None] ** 2 + side**2) / (2 * SIGMA**2))
    envelope = envelope * 2 / envelope.sum()
    angles = torch.arange(ORIENTATIONS, dtype=torch.float64) * (math.pi / ORIENTATIONS)
    across = angles.cos()[:, None, None] * side + angles.sin()[:, None, None] * side[:, None]  # (O, K, K)
    phase = 2 * math.pi / WAVELENGTH * across
    even = envelope * phase.cos()
    even = even - envelope * even.sum((1, 2), keepdim=True) / envelope.sum()
    return torch.cat([even, envelope * phase.sin()])[:, None].float()


class GaborFeatures(nn.Module):
    """Amplitudes of a Gabor bank on ``depth`` octaves, the finest first; every channel is filtered separately.

    The amplitude does not depend on the phase of a wave. Linear filter responses do, and their distance would be
    another mean squared error. The amplitude varies slowly, so every second pixel is enough.
    """

    bank: Tensor

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.register_buffer("bank", gabor_bank(), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        n, c = x.shape[:2]
        bank = self.bank.to(x.dtype)
        levels = []
        for level in range(self.depth):
            if level:
                x = F.avg_pool2d(x, 2, ceil_mode=True)
            before = TAPS // 2 - 1
            right, below = (before + side % 2 for side in reversed(x.shape[2:]))
            wide = F.pad(x.flatten(0, 1)[:, None], (before, right, before, below), mode="replicate")
            # (N·C, 1, ..) -> (N·C, ORIENTATIONS, h/2, w/2), even and odd
            even, odd = F.conv2d(wide, bank, stride=2).chunk(2, 1)
            # the slope of the square root is infinite at 0
            amplitude = (even.square() + odd.square() + 1e-6).sqrt()
            levels.append(amplitude.reshape(n, c * ORIENTATIONS, *amplitude.shape[2:]))
        return levels


class VGG16Features(nn.Module):
    """Outputs of the first ``depth`` blocks of VGG16 before their pooling: relu1_2, relu2_2, relu3_3, relu4_3.

    Three channels are treated as red, green and blue; with any other number each channel is a grey image.
    The weights are buffers: they are not trained, and they are saved with the model.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, depth: int, weights: str, *, without: str) -> None:
        super().__init__()
        network = load_network("vgg16", weights, without=without)
        self.blocks: list[int] = [0] * depth
        """Convolutions in each block."""
        block = 0
        for layer in network.get_submodule("features").children():
            if isinstance(layer, nn.MaxPool2d):
                block += 1
            if block == depth:
                break
            if isinstance(layer, nn.Conv2d):
                assert layer.bias is not None
                index = sum(self.blocks)
                self.register_buffer(f"weight_{index}", layer.weight.detach())
                self.register_buffer(f"bias_{index}", layer.bias.detach())
                self.blocks[block] += 1
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        n, c = x.shape[:2]
        smallest = 2 ** (len(self.blocks) - 1)
        if min(x.shape[2:]) < smallest:
            raise UsageError(
                f"features of depth {len(self.blocks)} need sides of at least {smallest} pixels, the image has "
                f"{x.shape[2]}×{x.shape[3]}; give a smaller depth"
            )
        if c != 3:
            x = x.flatten(0, 1)[:, None]  # (N·C, 1, H, W), broadcast to red, green and blue
        x = (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)
        levels = []
        index = 0
        for block, convolutions in enumerate(self.blocks):
            if block:
                x = F.max_pool2d(x, 2)
            for _ in range(convolutions):
                weight, bias = self.get_buffer(f"weight_{index}"), self.get_buffer(f"bias_{index}")
                x = F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), padding=1).relu()
                index += 1
            levels.append(x.reshape(n, -1, *x.shape[2:]))
        return levels


class FeatureDistance(Measure):
    """Mean squared difference of features, averaged over the levels of the network.

    Parameters
    ----------
    network: ``vgg16``, or ``gabor``, a fixed bank of Gabor filters on several octaves that needs no weights;
        its distances are smaller and need a loss weight of their own.
    depth: levels used: blocks of VGG16, octaves of the Gabor bank from waves of 4 pixels up.
    weights: of VGG16, as in :func:`~blemish.layers.pretrained.load_network`.
    pretrained: False initialises VGG16 at random; the weights of a saved model are loaded afterwards.

    Raises
    ------
    FileError
        If the weights of VGG16 are missing.

    Examples
    --------
    >>> x = torch.eye(16)[None, None]
    >>> FeatureDistance(data_range=1.0).distance(x, x)
    tensor([0.])
    """

    without: ClassVar[str] = (
        "take a fixed bank of Gabor filters with network=gabor and a weight to suit it "
        "(in fm-ae: --set loss.1.network=gabor --set loss.1.weight=1)"
    )
    """How to work without the weights of VGG16; ends the message that they are missing."""

    def __init__(
        self,
        *,
        data_range: float | None = None,
        network: Network = "gabor",
        depth: int = 2,
        weights: str = "imagenet",
        pretrained: bool = True,
    ) -> None:
        super().__init__(data_range=data_range)
        if not 1 <= depth <= 4:
            raise UsageError(f"depth is {depth}; give 1 to 4")
        self.network, self.depth, self.weights = network, depth, weights
        self.features: nn.Module
        if network == "gabor":
            self.features = GaborFeatures(depth)
            self.title = "squared distance of Gabor amplitudes (a fixed bank, no trained network)"
        else:
            self.features = VGG16Features(depth, weights if pretrained else "none", without=self.without)
            self.title = "squared distance of features of " + (
                "an untrained VGG16" if weights == "none" else "VGG16"
            )

    def _levels(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Squared differences at each level, averaged over its features: (N, 1, h, w) each."""
        x, y = as_working(x, y)
        with torch.autocast(x.device.type, enabled=False):
            pairs = zip(self.features(x / self.data_range), self.features(y / self.data_range), strict=True)
            return [(one - other).square().mean(1, keepdim=True) for one, other in pairs]

    def distance_map(self, x: Tensor, y: Tensor) -> Tensor:
        levels = self._levels(x, y)
        size = x.shape[2:]
        full = [F.interpolate(level, size, mode="bilinear") for level in levels]
        return torch.stack(full).mean(0)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([level.mean((1, 2, 3)) for level in self._levels(x, y)]).mean(0)

    def settings(self) -> dict[str, object]:
        given = {"network": self.network, "depth": self.depth}
        return {
            **super().settings(),
            **given,
            **({"weights": self.weights} if self.network != "gabor" else {}),
        }


class PerceptualDistance(FeatureDistance):
    """:class:`FeatureDistance` of deeper layers, which compares content more than pixels.

    Such features are learned by a trained network, so the default is VGG16.
    """

    without: ClassVar[str] = (
        "set network=gabor, a fixed bank of filters that no longer makes it a perceptual distance, "
        "with a weight to suit it"
    )

    def __init__(
        self,
        *,
        data_range: float | None = None,
        network: Network = "vgg16",
        depth: int = 4,
        weights: str = "imagenet",
        pretrained: bool = True,
    ) -> None:
        super().__init__(
            data_range=data_range, network=network, depth=depth, weights=weights, pretrained=pretrained
        )
