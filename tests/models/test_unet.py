"""U-Net and its decoder: size, invariances, and refused settings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from blemish.errors import RecipeError
from blemish.models import Autoencoder, build
from blemish.models.contracts import moments
from blemish.models.unet import UNet
from blemish.recipes import override, parse_recipe

RECIPE = parse_recipe(
    {
        "name": "small",
        "title": "Small",
        "paper": "none",
        "expect": "little",
        "patch": {"size": 32, "stride": 32},
        "encoder": {"name": "unet", "widths": [4, 6, 8]},
        "decoder": {"name": "pointwise"},
        "loss": [{"name": "mse"}],
        "residual": {"name": "mse"},
    },
    "small",
)


def model(*settings: str, channels: int = 1) -> Autoencoder:
    torch.manual_seed(0)
    return build(override(RECIPE, list(settings)), channels).eval()


def images(count: int = 2, channels: int = 1, side: int = 32) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1)) / 2


def test_the_default_has_the_documented_size() -> None:
    network = model("encoder={name: unet}", "patch.size=256", "patch.stride=256")
    size = sum(parameter.numel() for parameter in network.encoder.parameters())
    assert round(size / 1000) == 407
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images(1, side=256))
    assert 3.7e9 < counter.get_total_flops() < 4e9


def test_every_pixel_has_features() -> None:
    encoder = UNet(channels=3, patch=32, widths=(4, 6, 8)).eval()
    assert encoder.stride == 4
    assert encoder.latent_shape == (4, 32, 32)
    assert encoder(images(2, 3)).shape == (2, 4, 32, 32)
    assert encoder(images(2, 3, 44)).shape == (2, 4, 44, 44)


def test_one_level_has_no_downsampling() -> None:
    assert model("encoder.widths=[5]")(images()).latent.shape == (2, 5, 32, 32)


def test_moments_are_those_of_the_image_and_the_deviation_is_positive() -> None:
    x = images(2, 3)
    mean, deviation = moments(x)
    assert mean.shape == deviation.shape == (2, 1, 1, 1)
    assert mean[1].item() == pytest.approx(x[1].numpy().mean(), abs=1e-6)
    assert deviation[1].item() == pytest.approx(x[1].numpy().std(), abs=1e-6)
    assert moments(torch.full((1, 1, 4, 4), 0.5))[1].item() == pytest.approx(1 / 255)


def test_features_ignore_brightness_and_contrast_and_the_reconstruction_follows_them() -> None:
    network, x = model(), images()
    with torch.no_grad():
        plain, lit = network(x), network(0.1 + 1.5 * x)
    torch.testing.assert_close(lit.latent, plain.latent, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(lit.reconstruction, 0.1 + 1.5 * plain.reconstruction, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        bare = model("encoder.normalise=false")
        assert (bare(0.1 + 1.5 * x).latent - bare(x).latent).abs().max() > 0.01


def test_a_constant_image_is_reconstructed_at_its_own_level() -> None:
    with torch.no_grad():
        y = model()(torch.full((1, 1, 32, 32), 0.7)).reconstruction
    assert (y - 0.7).abs().max() < 10 / 255


def test_skips_keep_detail_and_deep_levels_have_a_large_receptive_field() -> None:
    encoder = UNet(channels=1, patch=64, widths=(4, 6, 8), normalise=False).eval()
    x = images(1, side=64).requires_grad_()
    (gradient,) = torch.autograd.grad(encoder(x)[0, :, 32, 32].sum(), x)
    rows = gradient[0, 0].abs().sum(1).nonzero().flatten()
    assert gradient[0, 0, 32, 32] != 0
    assert 20 < rows.max() - rows.min() < 63


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["patch.size=30", "patch.stride=30"],
            r"multiple of 4, but patch.size is 30; try --set patch.size=32",
        ),
        (["decoder={name: bergmann}"], r"latent grid of 32×32 but decoder 'bergmann' expects 1×1"),
        (["encoder={name: bergmann}"], r"latent grid of 1×1 but decoder 'pointwise' expects 32×32"),
        (["encoder.widths=[]"], r"encoder 'unet': widths is \[\]"),
        (["encoder.widths=[4, 0]"], r"encoder 'unet': widths is \[4, 0\]"),
    ],
)
def test_invalid_settings_are_refused_in_one_line(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        model(*settings)
    assert "\n" not in str(caught.value)


def test_at_inspection_batch_normalisation_is_part_of_the_convolutions() -> None:
    """The features are those of the layers one after the other, as training and export have them."""
    torch.manual_seed(0)
    encoder = UNet(channels=2, patch=32)
    x = torch.rand(2, 2, 32, 48)
    for _ in range(3):  # running figures that are not those of the start
        encoder(3 * torch.rand_like(x))
    for norm in (module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, -1, 2)
        nn.init.normal_(norm.bias)
    encoder.eval()
    plain = encoder(x)
    assert plain.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), plain, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            assert (encoder(x).float() - plain).abs().max() < 0.1 * plain.abs().max()
