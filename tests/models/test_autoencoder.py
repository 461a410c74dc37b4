"""Composition of the autoencoder, tested with parts of one simple operation each."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from blemish.errors import UsageError
from blemish.models import Autoencoder
from blemish.models.contracts import (
    Aligned,
    Alignment,
    Bottleneck,
    Corruption,
    ImageDecoder,
    ImageEncoder,
    Pass,
    Posterior,
    Residual,
    ResidualRule,
    StochasticBottleneck,
    Term,
)
from blemish.similarity import MSE


class Through(ImageEncoder):
    stride = 16
    patch = 32
    latent_shape = (1, 32, 32)

    def forward(self, x: Tensor) -> Tensor:
        return x


class Back(ImageDecoder):
    latent_grid = (32, 32)

    def forward(self, latent: Tensor) -> Tensor:
        return latent


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1), (50, 20), (31, 64)])
def test_the_reconstruction_is_cropped_to_the_image(size: tuple[int, int]) -> None:
    model = Autoencoder(Through(), Back(), {"mse": (1.0, MSE(data_range=1.0))}, MSE(data_range=1.0))
    x = torch.rand(2, 3, *size)
    reconstruction, latent, *_ = model(x)
    assert torch.equal(reconstruction, x)
    assert all(side >= 32 and side % 16 == 0 for side in latent.shape[-2:])
    assert model.residual(x).max() == 0
    # The padding repeats the border, so it adds no new value.
    assert (latent.amin((2, 3)) == x.amin((2, 3))).all()
    assert (latent.amax((2, 3)) == x.amax((2, 3))).all()


MSE_LOSS = {"mse": (1.0, MSE(data_range=1.0))}


class Noise(Corruption):
    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x + torch.rand(x.shape, generator=generator)


def test_corruption_changes_the_input_and_not_the_target() -> None:
    model = Autoencoder(
        Through(), Back(), MSE_LOSS, MSE(data_range=1.0), corruptions=[(Noise(), False)]
    ).train()
    x = torch.rand(2, 1, 32, 32)
    torch.manual_seed(0)
    noise = torch.rand(x.shape)
    torch.manual_seed(0)
    torch.testing.assert_close(model.loss(x).total, noise.square().mean())
    assert model.eval().loss(x).total == 0


def test_corruption_at_inspection_is_the_same_for_every_image() -> None:
    model = Autoencoder(
        Through(), Back(), MSE_LOSS, MSE(data_range=1.0), corruptions=[(Noise(), True)]
    ).eval()
    x = torch.rand(3, 1, 32, 32)
    first = model(x).reconstruction
    torch.rand(5)
    torch.testing.assert_close(model(x).reconstruction, first, rtol=0, atol=0)
    torch.testing.assert_close(model(x[1:2]).reconstruction, first[1:2], rtol=0, atol=0)
    noise = first - x
    torch.testing.assert_close(noise[0], noise[2])
    assert noise.std() > 0.2


def test_corruptions_at_inspection_are_drawn_independently() -> None:
    twice = [(Noise(), True), (Noise(), True)]
    model = Autoencoder(Through(), Back(), MSE_LOSS, MSE(data_range=1.0), corruptions=twice).eval()
    noise = model(torch.zeros(1, 1, 32, 32)).reconstruction
    # The sum of two independent uniform draws; the same draw twice would have 0.58.
    assert noise.std().item() == pytest.approx((2 / 12) ** 0.5, rel=0.1)


class Double(Bottleneck):
    def encode(self, h: Tensor) -> Tensor:
        return 2 * h

    def decode(self, z: Tensor) -> Tensor:
        return z / 2


class AddOne(Bottleneck):
    def encode(self, h: Tensor) -> Tensor:
        return h + 1

    def decode(self, z: Tensor) -> Tensor:
        return z - 1


def test_bottlenecks_are_decoded_in_reverse_order() -> None:
    model = Autoencoder(Through(), Back(), MSE_LOSS, MSE(data_range=1.0), bottlenecks=[Double(), AddOne()])
    x = torch.rand(1, 1, 32, 32)
    output = model(x)
    torch.testing.assert_close(output.latent, 2 * x + 1)
    torch.testing.assert_close(output.reconstruction, x)


class OneSize(Bottleneck):
    one_size = True

    def encode(self, h: Tensor) -> Tensor:
        return h


def test_a_part_for_one_size_accepts_smaller_images_and_refuses_larger_ones() -> None:
    model = Autoencoder(Through(), Back(), MSE_LOSS, MSE(data_range=1.0), bottlenecks=[OneSize()])
    assert model(torch.rand(1, 1, 20, 32)).reconstruction.shape == (1, 1, 20, 32)
    with pytest.raises(UsageError, match=r"dense bottleneck was built for images of 32 × 32 .* not 40 × 20"):
        model(torch.rand(1, 1, 20, 40))


class Spread(StochasticBottleneck):
    """Bottleneck of twice the input, with a standard deviation of 3."""

    def posterior(self, h: Tensor) -> Posterior:
        return Posterior(2 * h, torch.full_like(h, 2 * torch.log(torch.tensor(3.0)).item()))


def test_a_stochastic_latent_is_drawn_in_training_and_the_mean_otherwise() -> None:
    model = Autoencoder(Through(), Back(), MSE_LOSS, MSE(data_range=1.0), bottlenecks=[Double(), Spread()])
    x = torch.rand(4, 1, 32, 32)
    drawn = model.train()(x)
    assert drawn.posterior is not None
    torch.testing.assert_close(drawn.posterior.mu, 4 * x)
    noise = drawn.latent - 4 * x
    assert noise.std().item() == pytest.approx(3, rel=0.05)
    assert abs(noise.mean().item()) < 0.2
    output = model.eval()(x)
    torch.testing.assert_close(output.latent, 4 * x)
    torch.testing.assert_close(model.encode(x), 4 * x)


class Quarter(Alignment):
    """Alignment that turns every image by 90°."""

    def forward(self, x: Tensor) -> Aligned:
        return Aligned(x.rot90(1, (2, 3)), x.new_full((len(x),), torch.pi / 2))

    def restore(self, y: Tensor, aligned: Aligned) -> Tensor:
        return y.rot90(-1, (2, 3))


def test_alignment_turns_before_the_encoder_and_back_after_the_decoder() -> None:
    model = Autoencoder(Through(), Back(), MSE_LOSS, MSE(data_range=1.0), alignment=Quarter())
    x = torch.rand(2, 1, 30, 32)
    output = model(x)
    torch.testing.assert_close(output.reconstruction, x)
    torch.testing.assert_close(output.angle, torch.full((2,), torch.pi / 2))
    assert output.latent.shape == (2, 1, 32, 32)
    # Padded by one row above and below, then turned.
    torch.testing.assert_close(output.latent[..., 1:31], x.rot90(1, (2, 3)))
    with pytest.raises(UsageError, match="alignment was built for images of 32 × 32"):
        model(torch.rand(1, 1, 33, 32))


@pytest.mark.parametrize("alignment", [None, Quarter()])
def test_a_prepared_image_is_restored_to_its_position_and_pose(alignment: Alignment | None) -> None:
    model = Autoencoder(
        Through(), Back(), MSE_LOSS, MSE(data_range=1.0), corruptions=[(Noise(), True)], alignment=alignment
    ).eval()
    x = torch.rand(2, 1, 30, 27)
    prepared = model.prepare(x)
    assert prepared.image.shape == (2, 1, 32, 32)
    torch.testing.assert_close(model.restore(prepared.image, prepared), model.corrupt(x))
    # Another latent is restored in the same way.
    torch.testing.assert_close(model.restore(2 * prepared.image, prepared), 2 * model.corrupt(x))
    torch.testing.assert_close(model.reconstruct(prepared).reconstruction, model(x).reconstruction)


class Two(Term):
    def forward(self, done: Pass) -> dict[str, Tensor]:
        return {
            "latent": done.output.latent.mean(),
            "difference": (done.target - done.output.reconstruction).abs().mean(),
        }


def test_a_term_receives_the_whole_pass_and_may_have_several_values() -> None:
    model = Autoencoder(
        Through(), Back(), {"mse": (1.0, MSE(data_range=1.0)), "two": (0.5, Two())}, MSE(data_range=1.0)
    )
    x = torch.rand(2, 1, 32, 32)
    total, terms = model.loss(x)
    assert list(terms) == ["mse", "two-latent", "two-difference"]
    torch.testing.assert_close(terms["two-latent"], 0.5 * x.mean())
    torch.testing.assert_close(total, 0.5 * x.mean())


class Inverted(ResidualRule):
    title = "inverted"

    def forward(self, model: Autoencoder, x: Tensor) -> Residual:
        return Residual(1 - x, model(x).reconstruction)


def test_a_residual_may_be_a_custom_rule() -> None:
    model = Autoencoder(Through(), Back(), MSE_LOSS, Inverted())
    x = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(model.residual(x), 1 - x)
