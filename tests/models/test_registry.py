from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from blemish.errors import RecipeError
from blemish.models import DECODERS, ENCODERS, build, register
from blemish.models.contracts import Bottleneck, ImageEncoder
from blemish.models.registry import BOTTLENECKS
from blemish.recipes import load_recipe, override

SMALL = override(load_recipe("ssim-ae"), ["patch.size=32", "patch.stride=16", "encoder.latent=8"])


class CoarseEncoder(ImageEncoder):
    """Encoder with a grid of 2×2, which no decoder accepts."""

    stride = 16

    def __init__(self, *, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.latent_shape = (channels, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x, 2)


def test_parts_that_do_not_fit_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS, "coarse", CoarseEncoder)
    with pytest.raises(RecipeError) as caught:
        build(override(SMALL, ["encoder={name: coarse}"]), 1)
    assert "encoder 'coarse' gives a latent grid of 2×2" in str(caught.value)
    assert "decoder 'bergmann' expects 1×1" in str(caught.value)


class Flat(Bottleneck):
    """Bottleneck that encodes to ``keep`` channels at one location and decodes to the input shape."""

    def __init__(self, *, shape: tuple[int, int, int], keep: int) -> None:
        super().__init__()
        self.latent_shape = (keep, 1, 1)
        self.code_shape = shape


class Halved(Bottleneck):
    """Bottleneck that halves the channels in both directions."""

    def __init__(self, *, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.latent_shape = self.code_shape = (shape[0] // 2, *shape[1:])


@pytest.fixture
def bottlenecks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BOTTLENECKS, "flat", Flat)
    monkeypatch.setitem(BOTTLENECKS, "halved", Halved)


@pytest.mark.usefixtures("bottlenecks")
def test_the_decoder_is_built_for_the_output_of_the_bottlenecks() -> None:
    def decoder_inputs(bottleneck: str) -> int:
        model = build(override(SMALL, [f"bottleneck={bottleneck}"]), 1)
        return next(model.decoder.parameters()).shape[0]

    assert decoder_inputs("[]") == 8
    assert decoder_inputs("[{name: flat, keep: 3}]") == 8
    assert decoder_inputs("[{name: halved}]") == 4
    assert decoder_inputs("[{name: halved}, {name: flat, keep: 3}]") == 4


@pytest.mark.usefixtures("bottlenecks")
def test_bottlenecks_that_do_not_fit_each_other_are_both_named() -> None:
    chain = "bottleneck=[{name: flat, keep: 6}, {name: halved}]"
    with pytest.raises(RecipeError) as caught:
        build(override(SMALL, [chain]), 1)
    assert str(caught.value) == (
        "bottleneck 'flat' expects back 6×1×1 but bottleneck 'halved' gives 3×1×1; choose parts that fit"
    )


def test_a_registered_part_is_available_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    available: dict[str, Any] = {}
    assert register(available, "coarse")(CoarseEncoder) is CoarseEncoder
    assert available == {"coarse": CoarseEncoder}
    assert "bergmann" in ENCODERS
    assert "bergmann" in DECODERS


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("encoder.name=bergman", "unknown encoder 'bergman'; did you mean 'bergmann'?"),
        ("decoder.name=zzz", "unknown decoder 'zzz'; there are as-predicted, bergmann"),
        ("residual.name=sim", "unknown residual 'sim'; did you mean 'ssim'?"),
        ("loss.0.name=msee", "unknown loss 'msee'; did you mean 'mse'?"),
        ("encoder.latnt=3", "encoder 'bergmann' has no setting 'latnt'; did you mean 'latent'?"),
        ("decoder.latent=3", "decoder 'bergmann' has no setting 'latent'; there are none"),
        ("encoder.channels=3", "encoder 'bergmann' has no setting 'channels'"),
        ("loss.0.wieght=3", "loss 'ssim' has no setting 'wieght'; did you mean 'weight'?"),
        ("residual.data_range=255", "residual 'ssim' has no setting 'data_range'"),
        ("encoder.latent=0", "encoder 'bergmann': latent is 0; input should be greater than or equal to 1"),
        ("encoder.latent=2.5", "encoder 'bergmann': latent is 2.5; input should be a valid integer"),
        ("encoder.latent=much", "encoder 'bergmann': latent is 'much'; input should be a valid integer"),
        ("residual.sigma=wide", "residual 'ssim': sigma is 'wide'; input should be a valid number"),
        ("residual.sigma=.inf", "residual 'ssim': sigma is inf; input should be a finite number"),
        ("residual.kind=round", "residual 'ssim': kind is 'round'; input should be 'gaussian' or 'uniform'"),
    ],
)
def test_an_unknown_part_or_setting_is_named(assignment: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build(override(SMALL, [assignment]), 1)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_settings_reach_their_parts() -> None:
    model = build(override(SMALL, ["residual.k1=2e-2", "residual.window=7", "encoder.latent=5"]), 1)
    assert model.encoder.latent_shape == (5, 1, 1)
    settings = model.measure.settings()
    # YAML 1.1 reads 2e-2 as text.
    assert (settings["k1"], settings["window"], settings["data_range"]) == (0.02, 7, 1.0)


def test_weights_scale_the_terms_and_repeated_names_stay_separate() -> None:
    terms = "loss=[{name: mse, weight: 3}, {name: l1}, {name: mse, weight: 0.5}]"
    model = build(override(SMALL, [terms]), 1)
    x = torch.rand(2, 1, 32, 32)
    y = model(x).reconstruction
    total, parts = model.loss(x)
    square, absolute = (x - y).square().mean(), (x - y).abs().mean()
    assert list(parts) == ["0-mse", "l1", "2-mse"]
    torch.testing.assert_close(parts["0-mse"], 3 * square)
    torch.testing.assert_close(parts["l1"], absolute)
    torch.testing.assert_close(parts["2-mse"], 0.5 * square)
    torch.testing.assert_close(total, 3.5 * square + absolute)


def test_the_seed_determines_the_weights() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build(SMALL, 1).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
