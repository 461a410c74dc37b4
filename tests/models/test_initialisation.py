"""Initial weights: the variance of a signal, in each layer and through the whole network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from blemish.models.initialisation import keep_variance, start_grey


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(64, 64, 3, padding=1),
        nn.Conv2d(64, 64, 4, stride=2, padding=1),
        nn.ConvTranspose2d(64, 64, 3, padding=1),
        nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1),
    ],
    ids=str,
)
def test_the_second_moment_is_preserved_by_layer_and_activation(
    layer: nn.Conv2d | nn.ConvTranspose2d,
) -> None:
    torch.manual_seed(0)
    keep_variance(layer, slope=0.2)
    # Output of the previous layer: leaky ReLU of a normal variable, scaled to a second moment of 1.
    x = F.leaky_relu(torch.randn(4, 64, 24, 24), 0.2)
    x /= x.square().mean().sqrt()
    with torch.no_grad():
        y = F.leaky_relu(layer(x), 0.2)[..., 4:-4, 4:-4]
    assert y.square().mean().item() == pytest.approx(1, rel=0.15)
    assert layer.bias is not None
    assert not layer.bias.any()


def test_weights_are_larger_where_fewer_inputs_reach_a_pixel() -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(100, 32, 8)
    keep_variance(layer, reached=100)
    with torch.no_grad():
        y = layer(torch.randn(16, 100, 1, 1))
    assert y.var().item() == pytest.approx(1, rel=0.15)


def test_the_initial_output_is_faint_around_mid_grey() -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(32, 3, 4, 2, 1)
    start_grey(layer, contrast=0.1)
    with torch.no_grad():
        y = layer(torch.randn(2, 32, 32, 32))
    assert y.mean().item() == pytest.approx(0.5, abs=0.02)
    assert 0.05 < y.std().item() < 0.2
