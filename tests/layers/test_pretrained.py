"""Finding and loading ImageNet weights, with files of the official layout that hold other numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from http.client import IncompleteRead
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from blemish.errors import BlemishError, FileError, RecipeError
from blemish.layers.pretrained import SOURCES, find_weights, load_network

torchvision: Any = import_module("torchvision")  # after blemish.layers, which makes it importable
NETWORKS = ("vgg16", "resnet50", "vgg19", "resnet152")
OTHERS = {
    "vgg16": ("vgg19", "vgg16_bn", "resnet50"),
    "resnet50": ("resnet101", "wide_resnet50_2", "vgg16"),
    # Some of their differences from the smaller networks lie beyond the layers in use.
    "vgg19": ("vgg16", "vgg19_bn", "resnet152"),
    "resnet152": ("resnet101", "wide_resnet101_2", "vgg19"),
}


@lru_cache
def layout(name: str) -> dict[str, Tensor]:
    """State dict of torchvision's network without its values."""
    with torch.device("meta"):
        return dict(torchvision.models.get_model(name).state_dict())


def official(name: str) -> dict[str, Tensor]:
    """A state dict of torchvision's layout, the i-th tensor full of i; a few bytes large."""
    return {
        key: torch.tensor(place, dtype=value.dtype).expand(value.shape)
        for place, (key, value) in enumerate(layout(name).items())
    }


def saved(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch hub's folder of downloads, empty."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing was to be downloaded")

    monkeypatch.delenv("BLEMISH_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def no_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """No initialisation, which takes most of the time of a network whose weights are loaded."""
    for initialise in ("kaiming_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(nn.init, initialise, lambda tensor, *_, **__: tensor)


def load(name: str, weights: str | Path = "imagenet") -> nn.Sequential:
    return load_network(name, str(weights), without="train from scratch")


def holds(network: nn.Module, name: str) -> bool:
    expected = {
        key: value for key, value in official(name).items() if not key.startswith(SOURCES[name].unused)
    }
    state = network.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in state)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_are_loaded_from_a_path(name: str, tmp_path: Path) -> None:
    assert holds(load(name, saved(tmp_path / "mine.pth", official(name))), name)
    assert not holds(load(name, "none"), name)


@pytest.mark.usefixtures("no_random_weights")
def test_weights_are_loaded_from_a_safetensors_file(tmp_path: Path) -> None:
    half = {key: value.half().contiguous() for key, value in official("vgg16").items() if "classi" not in key}
    save_file(half, tmp_path / "mine.safetensors")
    assert holds(load("vgg16", tmp_path / "mine.safetensors"), "vgg16")


@pytest.mark.usefixtures("no_random_weights")
@pytest.mark.parametrize(
    ("name", "file"), [(name, file) for name in NETWORKS for file in SOURCES[name].files]
)
def test_every_official_file_name_is_found_in_either_folder(
    name: str, file: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded = saved(cache / file, official(name))
    assert find_weights(name) == downloaded
    monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path / "mine"))
    mine = saved(tmp_path / "mine" / file, official(name))
    downloaded.write_bytes(b"not looked at")
    assert find_weights(name) == mine
    assert holds(load(name), name)


@pytest.mark.usefixtures("no_random_weights")
def test_the_cache_is_searched_where_the_named_folder_lacks_the_weights(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path))
    downloaded = saved(cache / "vgg16-397923af.pth", official("vgg16"))
    assert find_weights("vgg16") == downloaded
    assert holds(load("vgg16"), "vgg16")
    named = tmp_path / "vgg16-397923af.safetensors"
    named.touch()
    assert find_weights("vgg16") == named


@pytest.mark.parametrize("name", NETWORKS)
def test_the_message_of_missing_weights_names_their_source_and_an_alternative(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (cache, tmp_path):
        with pytest.raises(FileError) as caught:
            load(name)
        message = str(caught.value)
        assert message.startswith(f"{folder / SOURCES[name].files[0]}: the ImageNet weights of ")
        assert f"https://download.pytorch.org/models/{SOURCES[name].files[0]}" in message
        assert "BLEMISH_WEIGHTS" in message
        assert message.endswith("or train from scratch")
        monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path))


def test_a_variable_that_names_no_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path / "gone"))
    with pytest.raises(FileError, match="gone: BLEMISH_WEIGHTS names no folder"):
        load("vgg16")


@pytest.mark.usefixtures("no_random_weights")
@pytest.mark.parametrize("name", NETWORKS)
def test_download_takes_the_published_file_and_checks_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def download(url: str, *, check_hash: bool, **_: object) -> dict[str, Tensor]:
        asked.append((url, check_hash))
        return official(name)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    assert holds(load(name, "download"), name)
    assert asked == [(SOURCES[name].url, True)]


@pytest.mark.parametrize(
    "error",
    [URLError("no route\nto host"), IncompleteRead(b""), RuntimeError("invalid hash value")],
)
def test_a_failed_download_is_reported_in_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    with pytest.raises(BlemishError, match=r"vgg16-397923af\.pth cannot be downloaded \(") as caught:
        load("vgg16", "download")
    assert "\n" not in str(caught.value)
    assert "train from scratch" in str(caught.value)


@pytest.mark.usefixtures("no_random_weights")
@pytest.mark.parametrize(("name", "other"), [(name, other) for name in NETWORKS for other in OTHERS[name]])
def test_weights_of_another_network_are_refused(name: str, other: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pth", official(other))
    with pytest.raises(FileError, match="holds other weights than those of torchvision's") as caught:
        load(name, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert SOURCES[name].url in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_random_weights")
def test_one_key_too_few_too_many_or_of_another_shape_is_named(tmp_path: Path) -> None:
    state_dict = official("vgg16")
    key = "features.5.bias"
    for state, words in [
        ({name: value for name, value in state_dict.items() if name != key}, f"no '{key}'"),
        ({**state_dict, "head.bias": torch.zeros(1)}, "'head.bias' is one too many"),
        ({**state_dict, key: torch.zeros(64)}, f"'{key}' is 64 instead of 128"),
    ]:
        with pytest.raises(FileError) as caught:
            load("vgg16", saved(tmp_path / "mine.pth", state))
        assert f"({words})" in str(caught.value)


@pytest.mark.usefixtures("no_random_weights")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("name", "key"), [("vgg16", "features.5.bias"), ("resnet50", "bn1.running_var")])
def test_weights_that_are_not_finite_are_refused_in_one_line(
    name: str, key: str, value: float, tmp_path: Path
) -> None:
    state = official(name)
    state[key] = state[key].clone()
    state[key][3] = value
    path = saved(tmp_path / "mine.pth", state)
    with pytest.raises(FileError) as caught:
        load(name, path)
    message = f"{path}: '{key}' holds values that are no numbers; give {SOURCES[name].url}"
    assert str(caught.value) == message


@pytest.mark.usefixtures("no_random_weights")
def test_old_files_without_batch_counters_are_loaded(tmp_path: Path) -> None:
    state = {key: value for key, value in official("resnet50").items() if "num_batches" not in key}
    found = load("resnet50", saved(tmp_path / "old.pth", state)).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in found.items() if "num_batches" not in key)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"just text, no weights",
        lambda data: b"<!DOCTYPE html><html></html>",
        lambda data: bytes(range(256)) * 40,
        lambda data: data[: len(data) // 2],
        lambda data: data[:-30],
    ],
    ids=["empty", "text", "page", "bytes", "half", "cut"],
)
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_damaged_file_is_refused_in_one_line(
    damage: Callable[[bytes], bytes], ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"mine{ending}"
    if ending == ".pth":
        saved(path, official("vgg16"))
    else:
        save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileError, match="damaged or not a") as caught:
        load("vgg16", path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


class Code:
    """Object that a pickle could execute on loading."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return pytest.fail, ("code in the file was run",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "no table of tensors"),
        ({"state_dict": {}}, "no table of tensors"),
        ({"code": Code()}, "not a file of weights"),
    ],
    ids=["list", "nested", "code"],
)
def test_a_file_with_other_content_is_refused(content: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=words):
        load("vgg16", saved(tmp_path / "mine.pth", content))


def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    for file in ("gone.pth", "gone.safetensors", "folder.pth", "folder.safetensors"):
        with pytest.raises(FileError, match="cannot be read") as caught:
            load("resnet50", tmp_path / file)
        assert "\n" not in str(caught.value)


def test_an_unknown_choice_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match=r"weights is 'imagnet'; did you mean 'imagenet'\?"):
        load("vgg16", "imagnet")


def test_the_features_are_those_of_torchvision(tmp_path: Path) -> None:
    x = torch.rand(1, 3, 40, 64)
    torch.manual_seed(0)
    whole = torchvision.models.resnet50().eval()
    saved(tmp_path / "resnet.pth", whole.state_dict())
    whole.avgpool = whole.fc = nn.Identity()
    with torch.no_grad():
        assert torch.equal(load("resnet50", tmp_path / "resnet.pth").eval()(x).flatten(1), whole(x))
    ours = load("vgg16", "none")
    with torch.device("meta"):
        features = torchvision.models.vgg16().features
    features.to_empty(device="cpu")
    features.load_state_dict(ours.get_submodule("features").state_dict())
    with torch.no_grad():
        assert torch.equal(ours(x), features(x))


def test_the_deeper_networks_end_at_the_right_layer() -> None:
    """VGG19 up to the third max-pooling, ResNet152 up to the eighth block of conv3_x."""
    x = torch.rand(1, 3, 40, 64)
    for name, channels in (("vgg19", 256), ("resnet152", 512)):
        ours = load(name, "none").eval()
        with torch.device("meta"):
            whole = torchvision.models.get_model(name)
        layers = whole.features[:19] if name == "vgg19" else nn.Sequential()
        if name == "resnet152":
            for key in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2"):
                layers.add_module(key, getattr(whole, key))
        layers.to_empty(device="cpu")
        layers.load_state_dict(ours.get_submodule("features" if name == "vgg19" else "").state_dict())
        with torch.no_grad():
            found = ours(x)
            assert found.shape == (1, channels, 5, 8)
            assert torch.equal(found, layers.eval()(x))
    assert len(ours.get_submodule("layer2")) == 8  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "least"), [("vgg16", 0.1), ("resnet50", 0.01), ("vgg19", 0.1), ("resnet152", 0.01)]
)
def test_random_weights_keep_images_distinct_and_features_bounded(name: str, least: float) -> None:
    torch.manual_seed(0)
    network = load(name, "none").eval()
    x, y = torch.randn(2, 2, 3, 64, 64)
    with torch.no_grad():
        h, other = network(x), network(y)
    # with torchvision's own initialisation the difference is 0.02 for VGG16, and ResNet50's features grow to 18
    assert (h - other).square().mean().sqrt() > least
    assert h.square().mean().sqrt() < 3
