"""Padding and cropping, seen through parts that change nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from blemish.models import Autoencoder
from blemish.models.autoencoder import Decoder, Encoder
from blemish.similarity import MSE


class Through(Encoder):
    stride = 16
    patch = 32
    latent_shape = (1, 32, 32)

    def forward(self, x: Tensor) -> Tensor:
        return x


class Back(Decoder):
    latent_grid = (32, 32)

    def forward(self, latent: Tensor) -> Tensor:
        return latent


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1), (50, 20), (31, 64)])
def test_the_reconstruction_is_cropped_where_the_picture_was(size: tuple[int, int]) -> None:
    model = Autoencoder(Through(), Back(), {"mse": (1.0, MSE(data_range=1.0))}, MSE(data_range=1.0))
    x = torch.rand(2, 3, *size)
    reconstruction, latent, *_ = model(x)
    assert torch.equal(reconstruction, x)
    assert all(side >= 32 and side % 16 == 0 for side in latent.shape[-2:])
    assert model.residual(x).max() == 0
    # The filling repeats the border, so it brings no value that the picture does not have.
    assert (latent.amin((2, 3)) == x.amin((2, 3))).all()
    assert (latent.amax((2, 3)) == x.amax((2, 3))).all()
