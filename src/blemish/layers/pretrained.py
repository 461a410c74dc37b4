"""Load pretrained torchvision networks, or their first layers, from local ImageNet weights.

Nothing is downloaded unless the user asks for it with ``weights: download``.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from blemish.errors import BlemishError, FileError, RecipeError, nearest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of red, green and blue in [0, 1] that torchvision's weights were trained with."""

FOLDER_VARIABLE = "BLEMISH_WEIGHTS"
"""Environment variable that names a folder of weight files."""

CHOICES = ("imagenet", "download", "none")
ENDINGS = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class WeightsSource:
    """Published weights of one torchvision network."""

    title: str
    files: tuple[str, ...]
    """Official file names; the first is the one to download."""
    version: str
    """Version of the first file in torchvision's weights API."""
    unused: tuple[str, ...]
    """Prefixes of the keys that are not used: those of the classifier and of layers beyond the last one used."""

    @property
    def url(self) -> str:
        return f"https://download.pytorch.org/models/{self.files[0]}"


# ResNets have two versions of weights: V1 from the training of the paper, V2, a stronger classifier, from a
# training with label smoothing, mixup and random erasing. Either file can be used.
SOURCES = {
    "vgg16": WeightsSource("VGG16", ("vgg16-397923af.pth",), "IMAGENET1K_V1", ("classifier.",)),
    "resnet50": WeightsSource(
        "ResNet50", ("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"), "IMAGENET1K_V1", ("fc.",)
    ),
    "vgg19": WeightsSource(
        "VGG19",
        ("vgg19-dcbb9e9d.pth",),
        "IMAGENET1K_V1",
        ("classifier.", *(f"features.{place}." for place in (19, 21, 23, 25, 28, 30, 32, 34))),
    ),
    "resnet152": WeightsSource(
        "ResNet152",
        ("resnet152-394f9c45.pth", "resnet152-f82ba261.pth"),
        "IMAGENET1K_V1",
        ("layer3.", "layer4.", "fc."),
    ),
}


def load_network(name: str, weights: str, *, without: str) -> nn.Sequential:
    """Load the first layers of ``name``: (N, 3, H, W) to features at 1/32 or 1/8 of the size.

    The keys of the state dict are those of torchvision.

    Parameters
    ----------
    name: ``vgg16`` (all five blocks) or ``resnet50`` (up to ``layer4``), both at 1/32; ``vgg19`` (three
        blocks, 256 channels) or ``resnet152`` (up to ``layer2``, 512 channels), both at 1/8.
    weights: ``imagenet`` (a file on this machine, see :func:`find_weights`), ``download`` (torchvision
        downloads it), ``none`` (random initialisation), or the path of a .pth or .safetensors file of
        torchvision's layout.
    without: how to work without the weights; ends the message that they are missing.

    Raises
    ------
    FileError
        If the weights are missing, or the file holds something else.
    RecipeError
        For ``weights`` that are neither a choice nor such a path.
    ImportError
        Without torchvision.
    """
    if weights not in CHOICES and not weights.endswith(ENDINGS):
        raise RecipeError(
            f"{name}: weights is '{weights}'; {nearest(weights, CHOICES)}, "
            "or give the path of a .pth or .safetensors file"
        )
    if weights == "none":
        return _MAKERS[name]()
    source = SOURCES[name]
    if weights == "download":
        state = _download(name, without)
        network = _MAKERS[name]()
        network.load_state_dict(_used(source, state))
    else:
        path = _existing(name, without) if weights == "imagenet" else Path(weights).expanduser()
        state = _read(path, source)
        network = _MAKERS[name]()
        _fill(network, source, path, state)
    return network


def find_weights(name: str) -> Path | None:
    """Find the file with the ImageNet weights of ``name`` on this machine; None if there is none.

    The search covers the folder that ``BLEMISH_WEIGHTS`` names, then the cache of torch hub, where torchvision
    stores downloads; the file has the official name, or the same name with the ending .safetensors.
    """
    for folder in _folders():
        for file in SOURCES[name].files:
            for ending in (".pth", ".safetensors"):
                path = (folder / file).with_suffix(ending)
                if path.is_file():
                    return path
    return None


def _folders() -> list[Path]:
    named = os.environ.get(FOLDER_VARIABLE)
    if named and not Path(named).is_dir():
        raise FileError(named, f"{FOLDER_VARIABLE} names no folder", "correct or unset it")
    return [Path(folder) for folder in (named, Path(torch.hub.get_dir()) / "checkpoints") if folder]


def expected_path(name: str) -> Path:
    """Path of the weights of ``name`` in the first folder that :func:`find_weights` searches."""
    return _folders()[0] / SOURCES[name].files[0]


def _existing(name: str, without: str) -> Path:
    path = find_weights(name)
    if path is None:
        source = SOURCES[name]
        raise FileError(
            expected_path(name),
            f"the ImageNet weights of {source.title} are not here",
            f"put {source.url} there, or into a folder that {FOLDER_VARIABLE} names, or {without}",
        )
    return path


def _download(name: str, without: str) -> Mapping[str, Tensor]:
    import torchvision

    source = SOURCES[name]
    published = torchvision.models.get_model_weights(name)[source.version]
    try:
        state: Mapping[str, Tensor] = published.get_state_dict(progress=False, check_hash=True)
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: the file has another hash
        reason = " ".join(str(error).split())
        raise BlemishError(
            f"{source.url} cannot be downloaded ({reason}); put the file into a folder that {FOLDER_VARIABLE} "
            f"names, or {without}"
        ) from None
    return state


def _read(path: Path, source: WeightsSource) -> Any:
    try:
        path.open("rb").close()
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror})", "check the path") from None
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        struct.error,
        AttributeError,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ):  # all that torch raises on damaged pickles and archives
        raise FileError(path, "is damaged or not a file of weights", f"give {source.url}") from None


def _used(source: WeightsSource, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(source.unused)}


def _fill(network: nn.Module, source: WeightsSource, path: Path, state: Any) -> None:
    """Load ``state``, read from ``path``, into ``network``; every key in use must match."""

    def refuse(found: str) -> FileError:
        problem = f"holds other weights than those of torchvision's {source.title} ({found})"
        return FileError(path, problem, f"give {source.url}")

    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise refuse("it is no table of tensors")
    state = _used(source, state)
    own = network.state_dict()
    for key, value in own.items():
        # Batch counters, which nothing reads; old files lack them.
        if key not in state and key.endswith("num_batches_tracked"):
            state[key] = value
        if key not in state:
            raise refuse(f"no '{key}'")
        if state[key].shape != value.shape:
            raise refuse(f"'{key}' is {_by(state[key])} instead of {_by(value)}")
        if not bool(state[key].isfinite().all()):
            # Training would notice it only by its loss, and blame the learning rate.
            raise FileError(path, f"'{key}' holds values that are no numbers", f"give {source.url}")
    for key in state:
        if key not in own:
            raise refuse(f"'{key}' is one too many")
    network.load_state_dict(state)


def _by(value: Tensor) -> str:
    return "×".join(str(side) for side in value.shape) or "one number"


def _vgg16() -> nn.Sequential:
    return _vgg("vgg16", 31)


def _vgg19() -> nn.Sequential:
    return _vgg("vgg19", 19)


def _vgg(name: str, layers: int) -> nn.Sequential:
    import torchvision

    with torch.device("meta"):  # the classifier alone would take half a gigabyte
        features = getattr(torchvision.models, name)(init_weights=False).features[:layers]
    features.to_empty(device="cpu")
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            # He et al. 2015, equation 10. torchvision's own initialisation, by the fan-out, lets the signal
            # fade in the widening blocks, which have no batch normalisation to restore it.
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return nn.Sequential(OrderedDict(features=features))


def _resnet50() -> nn.Sequential:
    return _resnet("resnet50", "layer4")


def _resnet152() -> nn.Sequential:
    return _resnet("resnet152", "layer2")


def _resnet(name: str, last: str) -> nn.Sequential:
    import torchvision

    network = getattr(torchvision.models, name)()
    for key, parameter in network.named_parameters():
        if key.endswith("bn3.weight"):
            # Residual branches start with a small gain, as in Goyal et al. 2017 (section 5.1): otherwise sixteen
            # of them amplify the signal wherever batch normalisation is not in training mode. The gain is not
            # 0, or nothing in a branch would learn.
            nn.init.constant_(parameter, 0.1)
    layers = list(network.named_children())
    used = [key for key, _ in layers].index(last) + 1
    return nn.Sequential(OrderedDict(layers[:used]))


_MAKERS = {"vgg16": _vgg16, "resnet50": _resnet50, "vgg19": _vgg19, "resnet152": _resnet152}
