"""Encoder and decoder against the layers stated in the paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from blemish.errors import RecipeError
from blemish.models import build
from blemish.models.kumar import KumarDecoder, KumarEncoder
from blemish.recipes import load_recipe, override, recipe_names

TWELVE = sorted(
    "-".join(word for word in (kind, network, loss) if word)
    for kind in ("dae", "cae")
    for network in ("", "vgg16", "resnet50")
    for loss in ("mse", "ssim")
)


def kinds(layers: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in layers]


def test_the_encoder_has_four_convolutions_and_four_poolings() -> None:
    encoder = KumarEncoder(channels=3)
    assert kinds(encoder.layers) == ["Conv2d", "ReLU", "MaxPool2d"] * 4
    assert encoder.latent_shape == (128, 16, 16)


def test_the_decoder_has_four_upsamplings_and_five_convolutions() -> None:
    decoder = KumarDecoder(channels=3, shape=(128, 16, 16))
    assert kinds(decoder.layers) == ["Conv2d", "ReLU", "Upsample"] * 4 + ["Conv2d"]
    assert decoder.latent_grid == (16, 16)
    last = decoder.layers[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.out_channels == 3


@pytest.mark.parametrize(("shape", "more"), [((512, 8, 8), 1), ((2048, 8, 8), 1), ((7, 16, 16), 0)])
def test_the_decoder_is_the_same_for_every_encoder_but_for_one_more_upsampling(
    shape: tuple[int, int, int], more: int
) -> None:
    decoder = KumarDecoder(channels=2, patch=256, shape=shape)
    assert kinds(decoder.layers)[:more] == ["Upsample"] * more
    assert kinds(decoder.layers)[more:] == kinds(KumarDecoder(channels=2, shape=(128, 16, 16)).layers)
    assert decoder.latent_grid == shape[1:]
    with torch.no_grad():
        assert decoder(torch.rand(1, *shape)).shape == (1, 2, 256, 256)


@pytest.mark.parametrize(("patch", "channels"), [(16, 1), (48, 3), (64, 11)])
def test_shapes_and_widths(patch: int, channels: int) -> None:
    encoder = KumarEncoder(channels=channels, patch=patch, widths=(3, 4, 5, 6))
    decoder = KumarDecoder(channels=channels, patch=patch, shape=encoder.latent_shape, widths=(3, 4, 5, 6))
    x = torch.rand(2, channels, patch, patch)
    latent = encoder(x)
    assert latent.shape == (2, *encoder.latent_shape) == (2, 6, patch // 16, patch // 16)
    assert decoder(latent).shape == x.shape
    outputs = [layer.out_channels for layer in decoder.layers if isinstance(layer, nn.Conv2d)]
    assert outputs == [6, 5, 4, 3, channels]


@pytest.mark.parametrize(("patch", "nearest"), [(100, 96), (17, 16), (40, 32)])
def test_a_patch_that_is_not_divisible_by_the_poolings_is_refused(patch: int, nearest: int) -> None:
    recipe = override(load_recipe("dae-mse"), [f"patch.size={patch}", "patch.stride=8"])
    with pytest.raises(
        RecipeError, match=f"multiple of 16, but patch.size is {patch}.*patch.size={nearest}$"
    ):
        build(recipe, 3)


@pytest.mark.parametrize("widths", ["[1, 2, 3]", "[1, 2, 3, 0]", "4"], ids=["three", "a zero", "one number"])
def test_widths_that_are_not_four_numbers_are_refused(widths: str) -> None:
    with pytest.raises(RecipeError, match=r"^encoder 'kumar': widths is "):
        build(override(load_recipe("dae-mse"), [f"encoder.widths={widths}"]), 3)


def test_a_latent_grid_of_another_stride_is_refused() -> None:
    recipe = override(load_recipe("dae-mse"), ["encoder={name: bergmann}"])
    with pytest.raises(RecipeError, match="gives a latent grid of 1×1 but decoder 'kumar' expects 16×16"):
        build(recipe, 3)


@pytest.mark.parametrize("channels", [1, 3, 11])
@pytest.mark.parametrize("name", ["dae-ssim", "cae-ssim"])
def test_an_untrained_network_keeps_the_signal_and_outputs_faint_structure_on_grey(
    name: str, channels: int
) -> None:
    torch.manual_seed(0)
    model = build(override(load_recipe(name), ["patch.size=128", "patch.stride=128"]), channels).eval()
    with torch.no_grad():
        reconstruction, latent, *_ = model(torch.rand(4, channels, 128, 128))
    assert 0.1 < latent.std() < 10
    assert abs(reconstruction.mean() - 0.5) < 0.1
    assert 0.01 < reconstruction.std() < 0.5
    assert (reconstruction[0] - reconstruction[1]).abs().mean() > 1e-3


def test_the_twelve_recipes_have_the_settings_of_the_paper() -> None:
    own = [
        name for name in recipe_names() if name.startswith(("dae-", "cae-")) and "efficientnet" not in name
    ]
    assert own == TWELVE
    for name in TWELVE:
        recipe = load_recipe(name)
        kind, *network, loss = name.split("-")
        assert recipe.image.size == recipe.patch.size == recipe.patch.stride == 256
        assert (recipe.training.batch, recipe.training.learning_rate) == (32, 1e-4)
        assert (recipe.encoder.name, recipe.decoder.name) == ((network or ["kumar"])[0], "kumar")
        # The threshold of the paper is the mean of the training error.
        assert (recipe.score.name, recipe.threshold.rule) == ("mean", "train-mean")
        assert recipe.loss[0].name == recipe.residual.name == loss
        assert recipe.loss[0].settings == recipe.residual.settings
        assert [term.name for term in recipe.loss[1:]] == (["contractive"] if kind == "cae" else [])
        assert [part.at_inspection for part in recipe.corruption] == ([True] if kind == "dae" else [])
        dense = kind == "cae" or network == ["vgg16"]
        assert [part.name for part in recipe.bottleneck] == (["dense"] if dense else [])
        assert ("weights" in recipe.needs) == ("backbones" in recipe.needs) == bool(network)
