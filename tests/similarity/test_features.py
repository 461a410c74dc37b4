from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blemish.errors import FileError, UsageError
from blemish.similarity import FeatureDistance, PerceptualDistance
from blemish.similarity.features import WAVELENGTH, GaborFeatures, gabor_bank

torchvision: Any = importlib.import_module("torchvision")  # after blemish.layers, which makes it importable


def wave(angle: float, *, length: float = WAVELENGTH, amplitude: float = 0.3, phase: float = 0.0) -> Tensor:
    """A grating (1, 1, 64, 64) whose brightness changes along ``angle``."""
    side = torch.arange(64.0)
    along = math.cos(angle) * side + math.sin(angle) * side[:, None]
    return (0.5 + amplitude * torch.cos(2 * math.pi / length * along + phase))[None, None]


def pair(channels: int = 3, side: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(channels)
    x, y = torch.rand(2, 2, channels, side, side, generator=generator)
    return x, y


def untrained(depth: int = 2) -> FeatureDistance:
    torch.manual_seed(0)
    return FeatureDistance(data_range=1.0, network="vgg16", depth=depth, weights="none")


def vgg16_of(measure: FeatureDistance) -> nn.Sequential:
    """torchvision's own VGG16 features with the weights of ``measure``."""
    with torch.device("meta"):
        features: nn.Sequential = torchvision.models.vgg16().features
    convolutions = [layer for layer in features if isinstance(layer, nn.Conv2d)]
    features.to_empty(device="cpu")
    state = measure.state_dict()
    with torch.no_grad():
        for place in range(len(state) // 2):
            convolutions[place].weight.copy_(state[f"features.weight_{place}"])
            convolutions[place].bias.copy_(state[f"features.bias_{place}"])  # type: ignore[union-attr]
    return features


@pytest.mark.parametrize("phase", [0.0, 0.4, 1.3])
@pytest.mark.parametrize("orientation", range(4))
def test_a_filter_responds_to_a_wave_across_it_with_its_amplitude(orientation: int, phase: float) -> None:
    amplitudes = GaborFeatures(1)(wave(orientation * math.pi / 4, phase=phase))[0][0, :, 16, 16]
    assert amplitudes.argmax() == orientation
    assert amplitudes[orientation] == pytest.approx(0.3, rel=0.02)
    assert amplitudes[(orientation + 2) % 4] < 0.01


def test_a_wave_one_octave_longer_is_found_at_the_next_level() -> None:
    fine, coarse = GaborFeatures(2)(wave(0, length=2 * WAVELENGTH))
    assert coarse[0, 0, 8, 8] > 0.25
    assert fine[0, 0, 16, 16] < 0.1


def test_the_map_is_aligned_with_the_image() -> None:
    x = torch.full((1, 1, 64, 64), 0.5)
    y = x.clone()
    y[..., 29:33, 37:41] = 1
    for depth in (1, 2):
        where = FeatureDistance(data_range=1.0, depth=depth).distance_map(x, y)[0, 0]
        side = torch.arange(64.0)
        middle = (where.sum(1) @ side / where.sum(), where.sum(0) @ side / where.sum())
        assert [float(place) for place in middle] == pytest.approx([30.5, 38.5], abs=0.1)


def test_gabor_features_ignore_brightness() -> None:
    assert gabor_bank().sum((2, 3)).abs().max() < 1e-6


def test_the_distance_ignores_the_phase_of_a_wave_but_not_its_absence() -> None:
    measure = FeatureDistance(data_range=1.0, depth=1)
    inner = (..., slice(8, -8), slice(8, -8))
    shifted = measure.distance_map(wave(0), wave(0, phase=math.pi / 2))[inner].mean()
    turned = measure.distance_map(wave(0), wave(math.pi / 2))[inner].mean()
    gone = measure.distance_map(wave(0), torch.full((1, 1, 64, 64), 0.5))[inner].mean()
    assert shifted < 1e-3 * gone
    assert gone == pytest.approx(0.3**2 / 4, rel=0.15)  # one of four orientations vanishes
    assert turned > 1.8 * gone


def test_channels_are_compared_independently() -> None:
    x, y = pair(5)
    measure = FeatureDistance(data_range=1.0)
    each = [measure.distance(x[:, c : c + 1], y[:, c : c + 1]) for c in range(5)]
    torch.testing.assert_close(measure.distance(x, y), torch.stack(each).mean(0))


@pytest.mark.parametrize(("depth", "layers"), [(1, (3,)), (2, (3, 8)), (3, (3, 8, 15)), (4, (3, 8, 15, 22))])
def test_vgg16_features_equal_those_of_torchvision(depth: int, layers: tuple[int, ...]) -> None:
    measure = untrained(depth)
    features = vgg16_of(measure)
    x, y = pair()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        expected = []
        for layer in layers:  # up to and with the ReLU after the block's last convolution
            f_x, f_y = (features[: layer + 1]((batch - mean) / std) for batch in (x, y))
            expected.append((f_x - f_y).square().mean((1, 2, 3)))
        torch.testing.assert_close(measure.distance(x, y), torch.stack(expected).mean(0))
        assert isinstance(features[layers[-1]], nn.ReLU)
        assert isinstance(features[layers[-1] + 1], nn.MaxPool2d)


def test_the_map_is_the_distance_of_each_pixel_at_full_size() -> None:
    x, y = pair()
    measure = untrained(1)
    torch.testing.assert_close(measure.distance_map(x, y).mean((1, 2, 3)), measure.distance(x, y))
    deep = untrained(2)
    assert deep.distance_map(x[..., :-3, :-1], y[..., :-3, :-1]).shape == (2, 1, 29, 31)
    y = x.clone()
    y[..., 10:14, 20:24] = 0
    where = deep.distance_map(x, y)[0, 0]
    assert where[10:14, 20:24].mean() > 20 * where[:, :12].mean()


def test_vgg16_accepts_any_number_of_channels_and_float64() -> None:
    measure = untrained()
    grey, other = pair(1)
    three = measure.distance(grey.expand(2, 3, 32, 32), other.expand(2, 3, 32, 32))
    torch.testing.assert_close(measure.distance(grey, other), three)
    x, y = pair(4)
    each = [measure.distance(x[:, c : c + 1], y[:, c : c + 1]) for c in range(4)]
    torch.testing.assert_close(measure.distance(x, y), torch.stack(each).mean(0))
    double = measure.distance(x.double(), y.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), measure.distance(x, y))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(measure.distance(x, y), each_again := untrained().distance(x, y))
    assert each_again.dtype == torch.float32


def test_vgg16_is_frozen_and_saved_with_the_model() -> None:
    measure, other = (
        untrained(),
        FeatureDistance(data_range=1.0, network="vgg16", weights="imagenet", pretrained=False),
    )
    assert not list(measure.parameters())
    assert len(measure.state_dict()) == 8  # weights and biases of four convolutions
    x, y = pair()
    y.requires_grad_()
    measure(x, y).backward()
    assert y.grad is not None
    assert y.grad.any()
    assert not torch.equal(measure.distance(x, y), other.distance(x, y))
    other.load_state_dict(measure.state_dict())
    assert torch.equal(measure.distance(x, y), other.distance(x, y))


def test_missing_weights_suggest_the_gabor_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLEMISH_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileError, match=r"--set loss\.1\.network=gabor --set loss\.1\.weight=1") as caught:
        FeatureDistance(data_range=1.0, network="vgg16")
    assert "vgg16-397923af.pth" in str(caught.value)
    with pytest.raises(FileError, match=r"set network=gabor, a fixed bank .* no longer") as caught:
        PerceptualDistance(data_range=1.0)
    assert "vgg16-397923af.pth" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "fixed bank" in PerceptualDistance(data_range=1.0, network="gabor").title


def test_titles_name_the_features() -> None:
    assert "fixed bank" in FeatureDistance(data_range=1.0).title
    assert "untrained" in untrained().title
    assert "untrained" not in FeatureDistance(data_range=1.0, network="vgg16", pretrained=False).title


def test_the_perceptual_distance_differs_in_its_depth_only() -> None:
    x, y = pair(side=40)
    perceptual = PerceptualDistance(data_range=1.0, pretrained=False)
    same = untrained(4)
    same.load_state_dict(perceptual.state_dict())
    with torch.no_grad():
        assert torch.equal(perceptual.distance(x, y), same.distance(x, y))
    deeper = FeatureDistance(data_range=1.0, depth=4)
    blurred = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    fine = FeatureDistance(data_range=1.0, depth=1)
    assert deeper.distance(x, blurred).mean() < fine.distance(x, blurred).mean()


@pytest.mark.parametrize("depth", [0, 5])
def test_a_depth_out_of_range_is_refused(depth: int) -> None:
    with pytest.raises(UsageError, match="1 to 4"):
        FeatureDistance(data_range=1.0, depth=depth)


def test_an_image_smaller_than_the_poolings_is_refused() -> None:
    x, y = pair(side=7)
    with pytest.raises(UsageError, match="at least 8 pixels"):
        untrained(4).distance(x, y)
