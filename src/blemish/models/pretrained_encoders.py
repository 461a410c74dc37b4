"""VGG16, ResNet50 and EfficientNet-Lite0 as encoders, initialised with ImageNet weights and trained further.

As in Kumar, Malik, Puglisi 2025: the networks of Simonyan & Zisserman 2015 and He et al. 2016 without their
classifiers. The paper names ImageNet, but not the version of the weights. The weights of EfficientNet-Lite0, which is not
in the paper, are an ordinary Python package: a pretrained encoder that can be had wherever packages can.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from blemish.errors import RecipeError, UsageError
from blemish.layers.efficientnet_lite import SIXTEENTH, load_efficientnet_lite0
from blemish.layers.pretrained import IMAGENET_MEAN, IMAGENET_STD, load_network
from blemish.models.contracts import ImageEncoder
from blemish.models.registry import ENCODERS, register

STRIDE = 32
MOMENTUM = 0.1
"""Weight of each batch in the running statistics of batch normalisation, after the first ones."""


class PretrainedEncoder(ImageEncoder):
    """Pretrained encoder: (N, C, H, W) in [0, 1] to features (N, width, H/stride, W/stride).

    One channel is repeated as red, green and blue; any other number than three is reduced by a learned 1 × 1
    convolution, which is initialised to the mean of the channels.

    Parameters
    ----------
    channels: channels of the images.
    patch: side of the training patch in pixels, a multiple of the stride; the images of the paper have 256.
    weights: ``imagenet`` (a file on this machine), ``download``, ``none`` (from scratch), or a path.
    pretrained: False initialises the weights at random, regardless of ``weights``.

    Raises
    ------
    RecipeError
        For a patch that is no multiple of the stride.
    FileError
        If the weights are missing or belong to another network.
    """

    stride = STRIDE
    network_name: str
    width: int
    mean: Tensor
    std: Tensor

    def __init__(
        self, *, channels: int, patch: int = 256, weights: str = "imagenet", pretrained: bool = True
    ) -> None:
        super().__init__()
        stride = self.stride
        if patch % stride:
            raise RecipeError(
                f"encoder '{self.network_name}' needs a patch that is a multiple of {stride}, but patch.size is "
                f"{patch}; try --set patch.size={max(stride, round(patch / stride) * stride)}"
            )
        self.patch = patch
        self.latent_shape = (self.width, patch // stride, patch // stride)
        self.network = self._load(weights if pretrained else "none")
        self.colours = nn.Conv2d(channels, 3, 1, bias=False) if channels not in (1, 3) else None
        if self.colours is not None:
            nn.init.constant_(self.colours.weight, 1 / channels)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self._settles = True
        for norm in self._norms():
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self._settles:
            self._settle_statistics()
        if self.colours is not None:
            x = self.colours(x)  # (N, C, H, W) -> (N, 3, H, W)
        return self._features(x)

    def _load(self, weights: str) -> nn.Module:
        return load_network(
            self.network_name, weights, without="train from scratch with --set encoder.weights=none"
        )

    def _features(self, x: Tensor) -> Tensor:
        # one channel is broadcast to (N, 3, H, W) here
        return cast(Tensor, self.network((x - self.mean) / self.std))

    def _settle_statistics(self) -> None:
        """Make the running statistics of the first batches their mean, and later ones a mean that forgets.

        With a constant momentum, (1 - momentum)^n of the values of the start, 0 and 1 or those of ImageNet, is left
        after n batches. Where the variances are small, as deep in ResNet50, the network in evaluation would differ from
        that in training for a hundred batches.
        """
        norms = self._norms()
        seen = int(norms[0].num_batches_tracked or 0) if norms else 0
        momentum = max(MOMENTUM, 1 / (seen + 1))
        for norm in norms:
            norm.momentum = momentum
        self._settles = bool(norms) and momentum > MOMENTUM

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.network.modules() if isinstance(module, nn.BatchNorm2d)]


@register(ENCODERS, "vgg16")
class VGG16Encoder(PretrainedEncoder):
    """Encoder of the five convolutional blocks of VGG16, each with its max-pooling; features of at least 0."""

    network_name = "vgg16"
    width = 512


@register(ENCODERS, "resnet50")
class ResNet50Encoder(PretrainedEncoder):
    """Encoder of ResNet50 without its global pooling and classifier; features of at least 0."""

    network_name = "resnet50"
    width = 2048

    def forward(self, x: Tensor) -> Tensor:
        learning = self.network.get_submodule("bn1").training  # a loss term may switch it to evaluation mode
        if learning and x.shape[0] * x.shape[2] * x.shape[3] <= STRIDE * STRIDE:
            raise UsageError(
                "batch normalisation in encoder 'resnet50' cannot learn from one image of "
                f"{x.shape[3]} × {x.shape[2]} pixels; set training.batch=2 or more, or a larger patch.size"
            )
        return super().forward(x)


@register(ENCODERS, "efficientnet-lite")
class EfficientNetLiteEncoder(PretrainedEncoder):
    """Encoder of EfficientNet-Lite0 up to a sixteenth of the size, the grid of the paper's plain encoder.

    Parameters
    ----------
    channels, patch, pretrained: as of the others; ``patch`` is a multiple of 16.
    weights: ``package`` (the installed package, extra ``features``), ``none`` (from scratch), or a path.

    Raises
    ------
    MissingExtraError
        When the package is not installed.
    """

    network_name = "efficientnet-lite"
    stride = 16
    width = SIXTEENTH

    def __init__(
        self, *, channels: int, patch: int = 256, weights: str = "package", pretrained: bool = True
    ) -> None:
        super().__init__(channels=channels, patch=patch, weights=weights, pretrained=pretrained)

    def _load(self, weights: str) -> nn.Module:
        return load_efficientnet_lite0(weights)

    def _features(self, x: Tensor) -> Tensor:
        _, sixteenth = self.network(x)  # which normalises colours itself, and broadcasts one channel
        return cast(Tensor, sixteenth)
