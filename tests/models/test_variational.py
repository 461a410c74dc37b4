"""Variational bottleneck, its divergence, and the reconstruction probability."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MixtureSameFamily, Normal, kl_divergence

from blemish.errors import RecipeError
from blemish.models import Autoencoder, build
from blemish.models import variational as room
from blemish.models.contracts import Output, Pass, Posterior
from blemish.models.variational import KullbackLeibler, VariationalBottleneck
from blemish.recipes import load_recipe, override
from blemish.training.try_recipe import check_recipe

SMALL = ["patch.size=32", "patch.stride=16", "encoder.latent=12", "bottleneck.0.latent=6"]


def model(*settings: str, recipe: str = "vae", channels: int = 3, seed: int = 0) -> Autoencoder:
    torch.manual_seed(seed)
    return build(override(load_recipe(recipe), [*SMALL, *settings]), channels).eval()


def images(count: int = 2, channels: int = 3, side: int = 32) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))


def spread_out(network: Autoencoder) -> Autoencoder:
    """Return the network with a posterior so wide that its samples differ clearly."""
    (bottleneck,) = network.bottlenecks
    assert isinstance(bottleneck, VariationalBottleneck)
    assert bottleneck.log_var.bias is not None
    torch.nn.init.constant_(bottleneck.log_var.bias, 1.0)
    return network


# -- the divergence ------------------------------------------------------------------------------------


def test_the_divergence_equals_that_of_torch() -> None:
    mu, log_var = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    expected = kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(torch.zeros_like(mu), 1.0))
    torch.testing.assert_close(room.kl_divergence(mu, log_var), expected)


def test_the_divergence_is_the_mean_log_ratio_of_samples() -> None:
    mu, log_var = torch.tensor(0.7, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    posterior, prior = Normal(mu, (log_var / 2).exp()), Normal(torch.zeros_like(mu), 1.0)
    noise = torch.randn(200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = mu + posterior.scale * noise
    ratios = posterior.log_prob(z) - prior.log_prob(z)
    error = ratios.std() / math.sqrt(len(ratios))
    assert (ratios.mean() - room.kl_divergence(mu, log_var)).abs() < 4 * error


def test_the_divergence_is_zero_only_at_the_prior_and_positive_elsewhere() -> None:
    near = torch.linspace(-1e-3, 1e-3, 201)
    divergence = room.kl_divergence(torch.zeros_like(near), near)
    assert divergence[100] == 0
    assert (divergence >= 0).all()
    # To second order it is v² / 4, which exp(v) - 1 - v would lose in float32.
    torch.testing.assert_close(divergence[[0, -1]], torch.full((2,), 2.5e-7), rtol=1e-3, atol=0)


def test_the_term_is_the_sum_over_the_latent_for_each_pixel_value() -> None:
    mu, log_var = torch.randn(2, 4, 6, 1, 1, generator=torch.Generator().manual_seed(0))
    x = images(4)
    network = model()
    done = Pass(network, x, Output(x, mu, Posterior(mu, log_var)), network.prepare(x))
    summed = kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(torch.zeros_like(mu), 1.0)).sum() / 4
    torch.testing.assert_close(KullbackLeibler()(done), summed / (3 * 32 * 32))


@pytest.mark.parametrize("weight", [0.02, 0.5])
def test_weight_and_noise_give_the_evidence_lower_bound(weight: float) -> None:
    """Compare mse + 2σ² kl with the negative lower bound times 2σ² / (C H W), up to a constant."""
    network, x = model(f"loss.1.weight={weight}"), images()
    sigma = math.sqrt(weight / 2)
    with torch.no_grad():
        total, output = network.loss(x).total, network(x)
        log_p = Normal(output.reconstruction, sigma).log_prob(x).sum((1, 2, 3))
        assert output.posterior is not None
        kl = room.kl_divergence(*output.posterior).sum((1, 2, 3))
    size = x[0].numel()
    constant = size * math.log(sigma * math.sqrt(2 * math.pi))
    bound = ((kl - log_p - constant) * 2 * sigma**2 / size).mean()
    torch.testing.assert_close(total, bound)


# -- the bottleneck ------------------------------------------------------------------------------------


def test_training_samples_the_posterior_and_evaluation_uses_its_mean() -> None:
    network, x = spread_out(model()), images(1)
    with torch.no_grad():
        still = network(x)
        assert still.posterior is not None
        assert torch.equal(still.latent, still.posterior.mu)
        network.train()
        torch.manual_seed(0)
        draws = network(x.repeat(400, 1, 1, 1)).latent
    sigma = (still.posterior.log_var[0] / 2).exp()
    z = (draws.mean(0) - still.latent[0]) / (sigma / 20)  # of 400 draws
    assert z.abs().max() < 5
    assert ((draws.std(0) / sigma) - 1).abs().max() < 0.2


def test_the_posterior_begins_narrow_and_stays_within_its_bound() -> None:
    torch.manual_seed(0)
    bottleneck = VariationalBottleneck(shape=(12, 1, 1), latent=6)
    assert bottleneck.latent_shape == bottleneck.code_shape == (6, 1, 1)
    h = torch.randn(64, 12, 1, 1)
    mu, log_var = bottleneck.posterior(h)
    assert 0.5 < mu.std() < 2
    assert (log_var - room.START).abs().max() < 2
    wild = (1e4 * h).requires_grad_()
    log_var = bottleneck.posterior(wild).log_var
    assert log_var.abs().max() <= room.BOUND
    assert log_var.exp().isfinite().all()


def test_the_posterior_is_exact_under_autocast() -> None:
    torch.manual_seed(0)
    bottleneck, h = VariationalBottleneck(shape=(12, 1, 1), latent=6), torch.randn(4, 12, 1, 1)
    exact = bottleneck.posterior(h)
    with torch.autocast("cpu", torch.bfloat16):
        under = bottleneck.posterior(h)
    assert all(torch.equal(a, b) for a, b in zip(exact, under, strict=True))


# -- the residual --------------------------------------------------------------------------------------


def test_the_map_is_the_log_density_of_a_mixture_above_its_mode() -> None:
    """Compare with torch.distributions: N equal Gaussians, one at each sample of the reconstruction."""
    network, x = spread_out(model("residual.samples=5", "residual.sigma=0.3")), images()
    with torch.no_grad():
        map_, reconstruction = network.examine(x)
        posterior = network(x).posterior
        assert posterior is not None
        generator = torch.Generator().manual_seed(0)
        samples = []
        for _ in range(5):
            noise = torch.randn(6, 1, 1, generator=generator)
            samples.append(network.decode(posterior.mu + (posterior.log_var / 2).exp() * noise))
        y = torch.stack(samples).permute(1, 3, 4, 0, 2)  # (5, N, C, H, W) -> (N, H, W, 5, C)
        mixture = MixtureSameFamily(
            torch.distributions.Categorical(torch.ones(5)), Independent(Normal(y, 0.3), 1)
        )
        density = mixture.log_prob(x.permute(0, 2, 3, 1))
        mode = Independent(Normal(torch.zeros(3), 0.3), 1).log_prob(torch.zeros(3))
        assert y.std(-2).mean() > 0.01
        torch.testing.assert_close(map_[:, 0], mode - density, rtol=1e-4, atol=1e-4)
        assert torch.equal(reconstruction, network(x).reconstruction)


def test_without_variance_the_map_is_the_squared_error() -> None:
    network, x = model("residual.samples=4", "residual.sigma=0.2"), images()
    (bottleneck,) = network.bottlenecks
    assert isinstance(bottleneck, VariationalBottleneck)
    assert bottleneck.log_var.bias is not None
    torch.nn.init.constant_(bottleneck.log_var.bias, -1e6)
    with torch.no_grad():
        map_, y = network.examine(x)
    # The bound leaves a standard deviation of exp(-6).
    expected = (x - y).square().sum(1, keepdim=True) / (2 * 0.2**2)
    torch.testing.assert_close(map_, expected, rtol=0.05, atol=0.05)


def test_more_samples_never_make_a_pixel_less_probable_than_their_share() -> None:
    x = images()
    with torch.no_grad():
        one = spread_out(model("residual.samples=1")).residual(x)
        many = spread_out(model("residual.samples=6")).residual(x)
    # The first draw is the same and contributes at least a sixth of the probability.
    assert (many <= one + math.log(6) + 1e-4).all()
    assert not torch.allclose(one, many)


def test_every_image_has_the_same_draws_in_any_batch() -> None:
    network, x = spread_out(model()), images(3)
    torch.manual_seed(5)
    with torch.no_grad():
        together = network.residual(x)
        torch.manual_seed(6)
        alone = torch.cat([network.residual(one[None]) for one in x.flip(0)]).flip(0)
        twice = network.residual(x[:1].repeat(2, 1, 1, 1))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(twice[0], twice[1], rtol=1e-4, atol=1e-4)


def test_the_map_of_an_odd_size_is_cropped_like_the_reconstruction() -> None:
    network, x = model("residual.samples=2", "residual.sigma=0.5"), images(side=37)
    with torch.no_grad():
        map_, y = network.examine(x)
    # With a narrow posterior the samples are near the mean, and the map near its squared error.
    near = (x - y).square().sum(1, keepdim=True) / (2 * 0.5**2)
    assert map_.shape == (2, 1, 37, 37)
    assert (map_ - near).abs().mean() < 0.2 * near.mean()


def test_samples_are_those_of_the_corrupted_and_aligned_image_in_the_input_pose() -> None:
    corrupted = "corruption=[{name: gaussian, sigma: 0.2, at_inspection: true}]"
    turned = "alignment={name: rotation, strategy: joint}"
    network = model("residual.samples=2", "residual.sigma=0.5", corrupted, turned)
    x = images(side=29)
    with torch.no_grad():
        map_, y = network.examine(x)
        assert torch.equal(y, network(x).reconstruction)
    near = (x - y).square().sum(1, keepdim=True) / (2 * 0.5**2)
    assert (map_ - near).abs().mean() < 0.2 * near.mean()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "residual.samples=0",
            "residual 'reconstruction-probability': samples is 0; input should be greater",
        ),
        ("residual.sigma=0", "sigma is 0"),
        ("bottleneck.0.latent=0", "bottleneck 'variational': latent is 0"),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        model(setting)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (["loss=[{name: mse}, {name: kl}]"], "loss 'kl'"),
        (["residual={name: reconstruction-probability}"], "residual 'reconstruction-probability'"),
    ],
)
def test_a_recipe_without_posterior_is_refused_by_name(settings: list[str], part: str) -> None:
    recipe = override(load_recipe("l2-ae"), ["patch.size=32", "patch.stride=16", *settings])
    with pytest.raises(RecipeError, match=f"^l2-ae: {part} needs a posterior.*variational") as error:
        check_recipe(recipe)
    assert "\n" not in str(error.value)


def test_the_posterior_does_not_collapse_in_training() -> None:
    """Check that the posterior depends on the image; a collapsed posterior equals the prior."""
    network = model(channels=1).train()
    wave = torch.linspace(0, 12, 32).sin() / 2 + 0.5
    x = torch.stack([wave.expand(32, 32), wave[:, None].expand(32, 32)])[:, None]  # (2, 1, 32, 32)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        network.loss(x).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        posterior = network.eval()(x).posterior
    assert posterior is not None
    apart = (posterior.mu[0] - posterior.mu[1]).abs() / (posterior.log_var / 2).exp().amax(0)
    assert apart.max() > 5
