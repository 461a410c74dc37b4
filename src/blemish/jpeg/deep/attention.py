"""Attention networks: logits of the maps A_L and A_C, which weight the coefficients of an image.

Maps are learned per block and coefficient, one for luma and one that Cb and Cr share. Strümpler, Yang, Timofte
2020 take them from the features of a network at an eighth of the image's size, where every place is a block;
Liu, Liu, Mantravadi 2022 also from LSTMs that read the blocks in order. All end in a linear map to the 64
coefficients; A is the sigmoid of the logits.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Literal, NamedTuple, TypeAlias, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from blemish.jpeg.coefficients import Sampling
from blemish.layers.pretrained import IMAGENET_MEAN, IMAGENET_STD, load_network
from blemish.models.registry import register

Start: TypeAlias = Annotated[float, Field(gt=0, lt=1)]


class Logits(NamedTuple):
    """Logits of A_L and A_C, (N, rows, columns, 8, 8) each, like the blocks of luma and of chroma."""

    luma: Tensor
    chroma: Tensor


class Attention(nn.Module):
    """Base class of attention networks.

    ``start`` is about where the maps begin: at 0.5 with biases of 0, as in the papers, which halves what is
    left of every coefficient. Nearer to 1 a short training arrives.
    """

    @abstractmethod
    def forward(self, x: Tensor, blocks: tuple[Tensor, ...]) -> Logits | None:
        """Logits of the maps; None stands for A = 1 everywhere.

        Parameters
        ----------
        x: (N, 3, H, W) in [0, 1], sides multiples of 8.
        blocks: the DCT of Y, Cb and Cr, (N, rows, columns, 8, 8) each, of pixels in -128..127.
        """


ATTENTIONS: dict[str, type[Attention]] = {}


@register(ATTENTIONS, "none")
class NoAttention(Attention):
    """No attention: the tables alone."""

    def forward(self, x: Tensor, blocks: tuple[Tensor, ...]) -> None:
        return None


class TrunkAttention(Attention):
    """ImageNet features at an eighth of the size → 1 × 1 convolution to 2 × 64 maps.

    ::

        x ─► network ─► head ─┬─► luma
                              └─► (means of 2 × 2 blocks at 4:2:0) ─► chroma

    Everything is trained on, as in the code released with Strümpler, Yang, Timofte 2020. Batch normalisation
    keeps its statistics: those of a batch would let an image's maps depend on its companions, in training
    unlike in encoding, and a batch may be one image.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, channels: int, *, sampling: Sampling, start: float) -> None:
        super().__init__()
        self.network = network
        self.sampling = sampling
        self.head = _begun(nn.Conv2d(channels, 128, 1), start)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.train()

    def train(self, mode: bool = True) -> TrunkAttention:
        super().train(mode)
        self.network.eval()  # matters to the statistics of batch normalisation alone
        return self

    def forward(self, x: Tensor, blocks: tuple[Tensor, ...]) -> Logits:
        features = self.network((x - self.mean) / self.std)  # (N, channels, rows, columns)
        luma, chroma = self.head(features).float().chunk(2, 1)  # (N, 64, rows, columns) each
        if self.sampling == "4:2:0":
            chroma = F.avg_pool2d(chroma, 2, ceil_mode=True)
        return Logits(_by_block(luma), _by_block(chroma))


@register(ATTENTIONS, "vgg19")
class VGG19Attention(TrunkAttention):
    """VGG19 up to its third max-pooling: Strümpler, Yang, Timofte 2020.

    Parameters
    ----------
    weights: as :func:`~blemish.layers.pretrained.load_network` takes them.
    start: see :class:`Attention`.
    sampling, pretrained: of the recipe and of :class:`~blemish.jpeg.deep.DeepJpeg`.
    """

    def __init__(
        self, *, sampling: Sampling, pretrained: bool, weights: str = "imagenet", start: Start = 0.5
    ) -> None:
        network = _load("vgg19", weights, pretrained)
        super().__init__(network, 256, sampling=sampling, start=start)


@register(ATTENTIONS, "resnet152")
class ResNet152Attention(TrunkAttention):
    """ResNet-152 up to a block of conv3: Liu, Liu, Mantravadi 2022, section 5.2.

    Parameters
    ----------
    block: of conv3, 1 or 7.
    weights, start, sampling, pretrained: as of :class:`VGG19Attention`.
    """

    def __init__(
        self,
        *,
        sampling: Sampling,
        pretrained: bool,
        block: Literal[1, 7] = 1,
        weights: str = "imagenet",
        start: Start = 0.5,
    ) -> None:
        network = _load("resnet152", weights, pretrained)
        network.layer2 = cast(nn.Sequential, network.layer2)[:block]
        super().__init__(network, 512, sampling=sampling, start=start)


class RecurrentAttention(Attention):
    """LSTMs that read the DCT blocks row by row, one for luma and one for chroma → linear map to 64.

    Liu, Liu, Mantravadi 2022, section 5.3. Left open there: how states in (-1, 1) become a map in [0, 1], for
    which this takes the linear map and sigmoid of the other networks; and which of Cb and Cr is read for the
    map that they share, for which this reads both and takes the mean of their logits.

    Parameters
    ----------
    hidden: units of each LSTM and direction.
    start: see :class:`Attention`.
    """

    def __init__(self, *, hidden: int, start: float, bidirectional: bool) -> None:
        super().__init__()
        width = 2 * hidden if bidirectional else hidden
        self.luma, self.chroma = (
            nn.LSTM(64, hidden, batch_first=True, bidirectional=bidirectional) for _ in range(2)
        )
        self.luma_head, self.chroma_head = (_begun(nn.Linear(width, 64), start) for _ in range(2))

    def forward(self, x: Tensor, blocks: tuple[Tensor, ...]) -> Logits:
        y, cb, cr = blocks
        # A state is carried over thousands of blocks: half precision would lose it.
        with torch.autocast(x.device.type, enabled=False):
            luma = self._read(y, self.luma, self.luma_head)
            chroma = self._read(torch.cat([cb, cr]), self.chroma, self.chroma_head)
        return Logits(luma, torch.stack(chroma.chunk(2)).mean(0))

    def _read(self, blocks: Tensor, lstm: nn.LSTM, head: nn.Module) -> Tensor:
        """(N, rows, columns, 8, 8) to logits of that shape."""
        # The DCT of pixels in [-1, 1): unscaled, the gates would be saturated.
        sequence = blocks.flatten(3).flatten(1, 2) / 128  # (N, rows · columns, 64)
        states, _ = lstm(sequence)
        logits: Tensor = head(states)
        return logits.reshape(blocks.shape)


@register(ATTENTIONS, "lstm")
class LstmAttention(RecurrentAttention):
    """LSTMs that read the blocks from the first to the last."""

    def __init__(self, *, hidden: Annotated[int, Field(ge=1, le=8192)] = 64, start: Start = 0.5) -> None:
        super().__init__(hidden=hidden, start=start, bidirectional=False)


@register(ATTENTIONS, "bilstm")
class BiLstmAttention(RecurrentAttention):
    """LSTMs that read the blocks from both ends: section 6.8."""

    def __init__(self, *, hidden: Annotated[int, Field(ge=1, le=8192)] = 64, start: Start = 0.5) -> None:
        super().__init__(hidden=hidden, start=start, bidirectional=True)


def _load(name: str, weights: str, pretrained: bool) -> nn.Sequential:
    return load_network(
        name,
        weights if pretrained else "none",
        without="train from scratch with --set attention.weights=none",
    )


def _begun(head: nn.Conv2d | nn.Linear, start: float) -> nn.Module:
    # As in the code released with Strümpler, Yang, Timofte 2020.
    nn.init.xavier_uniform_(head.weight)
    nn.init.constant_(cast(Tensor, head.bias), math.log(start / (1 - start)))
    return head


def _by_block(maps: Tensor) -> Tensor:
    """(N, 64, rows, columns) to (N, rows, columns, 8, 8)."""
    return maps.movedim(1, -1).reshape(-1, *maps.shape[2:], 8, 8)
