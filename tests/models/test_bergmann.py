"""Network of Bergmann et al. against the layer table of the papers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from blemish.errors import RecipeError
from blemish.models import build
from blemish.models.bergmann import BergmannDecoder, BergmannEncoder
from blemish.recipes import load_recipe, override

# Rádli & Czúni 2022, Table 1, for 128×128×3 and d = 100: kernel, stride, padding, channels in and out.
TABLE = [
    (4, 2, 1, 3, 32),
    (4, 2, 1, 32, 32),
    (3, 1, 1, 32, 32),
    (4, 2, 1, 32, 64),
    (3, 1, 1, 64, 64),
    (4, 2, 1, 64, 128),
    (3, 1, 1, 128, 64),
    (3, 1, 1, 64, 32),
    (8, 1, 0, 32, 100),
]


def table_of(
    layers: nn.Sequential, kind: type[nn.Conv2d] | type[nn.ConvTranspose2d]
) -> list[tuple[int, ...]]:
    rows: list[tuple[int, ...]] = []
    for layer in layers:
        if isinstance(layer, kind):
            (kernel, width), (stride, across), padding = layer.kernel_size, layer.stride, layer.padding
            assert (width, across) == (kernel, stride)
            assert isinstance(padding, tuple)
            assert padding == (padding[0], padding[0])
            rows.append((kernel, stride, padding[0], layer.in_channels, layer.out_channels))
    return rows


def test_the_encoder_has_the_layers_of_the_table() -> None:
    assert table_of(BergmannEncoder(channels=3).layers, nn.Conv2d) == TABLE


def test_the_decoder_mirrors_the_encoder_in_transposed_convolutions() -> None:
    mirrored = [(k, s, p, c_out, c_in) for k, s, p, c_in, c_out in reversed(TABLE)]
    assert table_of(BergmannDecoder(channels=3).layers, nn.ConvTranspose2d) == mirrored


@pytest.mark.parametrize("half", [BergmannEncoder, BergmannDecoder])
def test_leaky_relu_follows_every_layer_but_the_last(half: type[BergmannEncoder | BergmannDecoder]) -> None:
    layers = list(half(channels=3).layers)
    assert len(layers) == 2 * len(TABLE) - 1
    for activation in layers[1::2]:
        assert isinstance(activation, nn.LeakyReLU)
        assert activation.negative_slope == 0.2


def test_the_number_of_parameters_is_that_of_the_table() -> None:
    encoder = sum(k * k * c_in * c_out + c_out for k, _, _, c_in, c_out in TABLE)
    decoder = sum(k * k * c_in * c_out + c_in for k, _, _, c_in, c_out in TABLE)
    model = build(load_recipe("ssim-ae"), 3)
    assert sum(p.numel() for p in model.parameters()) == encoder + decoder


@pytest.mark.parametrize(("patch", "channels"), [(128, 3), (32, 1), (16, 4)])
def test_one_patch_has_one_latent_vector(patch: int, channels: int) -> None:
    encoder = BergmannEncoder(channels=channels, patch=patch)
    decoder = BergmannDecoder(channels=channels, patch=patch, latent=100)
    x = torch.rand(2, channels, patch, patch)
    latent = encoder(x)
    assert latent.shape == (2, 100, 1, 1)
    assert encoder.latent_shape == (100, 1, 1)
    assert decoder(latent).shape == x.shape


def test_larger_images_give_a_grid_of_latents() -> None:
    model = build(override(load_recipe("l2-ae"), ["patch.size=32", "patch.stride=16", "encoder.latent=5"]), 1)
    output = model(torch.rand(1, 1, 64, 48))
    assert output.latent.shape == (1, 5, 3, 2)
    assert output.reconstruction.shape == (1, 1, 64, 48)


@pytest.mark.parametrize(("patch", "nearest"), [(100, 96), (17, 16), (127, 128), (40, 32)])
def test_a_patch_that_is_not_divisible_by_the_stride_is_refused(patch: int, nearest: int) -> None:
    recipe = override(load_recipe("ssim-ae"), [f"patch.size={patch}", "patch.stride=8"])
    with pytest.raises(
        RecipeError, match=f"multiple of 16, but patch.size is {patch}.*patch.size={nearest}$"
    ):
        build(recipe, 3)


@pytest.mark.parametrize("channels", [1, 3, 11])
def test_an_untrained_network_keeps_the_signal_and_outputs_faint_structure_on_grey(channels: int) -> None:
    torch.manual_seed(0)
    model = build(load_recipe("ssim-ae"), channels).eval()
    with torch.no_grad():
        reconstruction, latent, *_ = model(torch.rand(4, channels, 128, 128))
    # From torch's default weights the reconstructions of two images differ by some 1e-9.
    assert 0.1 < latent.std() < 10
    assert abs(reconstruction.mean() - 0.5) < 0.1
    assert 0.01 < reconstruction.std() < 0.5
    assert (reconstruction[0] - reconstruction[1]).abs().mean() > 1e-3
