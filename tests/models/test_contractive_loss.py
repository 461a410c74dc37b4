"""Contractive term in the loss of a recipe."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from blemish.errors import RecipeError
from blemish.layers import jacobian_norm_exact
from blemish.models import Autoencoder, build
from blemish.models.contractive_loss import EXACT_UP_TO, Contractive
from blemish.models.contracts import ImageDecoder, ImageEncoder
from blemish.recipes import load_recipe, override, recipe_names
from blemish.similarity import MSE

SMALL = override(
    load_recipe("cae-mse"), ["patch.size=16", "patch.stride=16", "bottleneck.0.latent=6", "loss.1.weight=2"]
)


def model_with(*settings: str, channels: int = 1) -> Autoencoder:
    torch.manual_seed(0)
    return build(override(SMALL, list(settings)), channels).train()


def images(count: int = 3, channels: int = 1, side: int = 16) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))


class Normed(ImageEncoder):
    """Encoder with batch normalisation, which couples the images of a batch in training."""

    stride, patch, latent_shape = 1, 8, (4, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layers(x)
        return h


class Summed(ImageDecoder):
    latent_grid = (8, 8)

    def forward(self, latent: Tensor) -> Tensor:
        return latent.mean(1, keepdim=True)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_exact_term_is_the_mean_norm_divided_by_the_number_of_values(channels: int) -> None:
    noise = "corruption=[{name: gaussian, sigma: 0.3}]"
    model, x = (
        model_with("loss.1.method=exact", "loss.1.images=3", noise, channels=channels),
        images(3, channels),
    )
    value = model.loss(x).terms["contractive"]
    expected = 2 * jacobian_norm_exact(model.encode, x).mean() / (channels * 16 * 16)
    torch.testing.assert_close(value, expected)
    assert value > 0


def test_estimates_have_the_exact_value_as_their_mean() -> None:
    x = images(3)
    every = model_with("loss.1.method=exact", "loss.1.images=3")
    exact = float(every.loss(x).terms["contractive"].detach())
    model = model_with("loss.1.method=projections", "loss.1.images=2")
    with torch.no_grad():
        drawn = torch.stack([model.loss(x).terms["contractive"] for _ in range(200)])
    standard_error = float(drawn.std()) / math.sqrt(len(drawn))
    assert abs(float(drawn.mean()) - exact) < 4 * standard_error
    assert 4 * standard_error < 0.2 * exact


@pytest.mark.parametrize(("latent", "method"), [(8, "exact"), (9, "projections"), (128, "projections")])
def test_small_latents_use_the_exact_norm(latent: int, method: str) -> None:
    settings, x = (f"bottleneck.0.latent={latent}", "loss.1.images=3"), images(3)
    values = {}
    for one in ("auto", "exact", "projections"):
        model = model_with(*settings, *([] if one == "auto" else [f"loss.1.method={one}"]))
        torch.manual_seed(2)
        values[one] = float(model.loss(x).terms["contractive"].detach())
    assert values["exact"] != values["projections"]
    assert values["auto"] == values[method]


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("cae-")])
def test_the_recipes_use_projections(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.loss[1].name == "contractive"
    assert "method" not in recipe.loss[1].settings
    assert recipe.bottleneck[-1].settings["latent"] > EXACT_UP_TO


def test_draws_follow_the_seed_of_torch_and_change_at_every_step() -> None:
    model, x = model_with("loss.1.method=projections", "loss.1.images=1"), images(3)

    def term() -> float:
        return float(model.loss(x).terms["contractive"].detach())

    torch.manual_seed(3)
    first, second = term(), term()
    torch.manual_seed(3)
    assert term() == first
    assert second != first


def test_no_gradient_reaches_the_decoder_and_every_weight_before_it_gets_one() -> None:
    model = model_with()
    model.loss(images()).terms["contractive"].backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in model.decoder.parameters())
    for name, parameter in model.encoder.named_parameters():
        # The encoder is piecewise linear: biases only select the pieces.
        assert name.endswith("bias") or (parameter.grad is not None and parameter.grad.any())
    squeeze = model.bottlenecks[0].squeeze
    assert isinstance(squeeze, nn.Linear)
    assert squeeze.weight.grad is not None
    assert squeeze.weight.grad.any()


def test_training_on_the_term_alone_lowers_it() -> None:
    model, x = model_with("loss.1.method=exact"), images()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    values = []
    for _ in range(20):
        value = model.loss(x).terms["contractive"]
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.5 * values[0]


@pytest.mark.parametrize("training", [True, False])
def test_batch_normalisation_uses_the_statistics_of_the_batch_in_training_and_the_running_ones_after(
    training: bool,
) -> None:
    model, norm = normed_model()
    for _ in range(3):
        model(images(4, side=8) * 3)
    model.train(training)
    assert norm.num_batches_tracked is not None
    seen = int(norm.num_batches_tracked)
    x = images(4, side=8)
    total = model.loss(x).total
    assert norm.training is training
    assert int(norm.num_batches_tracked) == seen + training
    if training:
        with torch.no_grad():
            h = model.encoder.layers[0](x)  # type: ignore[index, operator, union-attr]
        variance, mean = torch.var_mean(h, (0, 2, 3), correction=0)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    norm.eval()
    alone = torch.cat([jacobian_norm_exact(model.encode, image[None]) for image in x])
    torch.testing.assert_close(total, alone.mean() / 64)


def test_the_gradient_knows_that_the_statistics_follow_the_weights() -> None:
    """Weights before a normalisation have no scale: neither the norm nor its slope may depend on one."""
    model, norm = normed_model()
    norm.eps = 1e-12
    layer = model.encoder.layers[0]  # type: ignore[index, union-attr]
    assert isinstance(layer, nn.Conv2d)
    x = images(4, side=8)
    value = model.loss(x).total
    (slope,) = torch.autograd.grad(value, layer.weight)
    assert float(slope.norm()) > 0
    cosine = (slope * layer.weight).sum() / (slope.norm() * layer.weight.norm())
    assert abs(float(cosine.detach())) < 1e-4
    with torch.no_grad():
        layer.weight.mul_(0.1)
    torch.testing.assert_close(model.loss(x).total, value)


def normed_model() -> tuple[Autoencoder, nn.BatchNorm2d]:
    torch.manual_seed(0)
    term = Contractive(method="exact", images=8)
    model = Autoencoder(Normed(), Summed(), {"contractive": (1.0, term)}, MSE(data_range=1.0)).train()
    norm = model.encoder.layers[1]  # type: ignore[index, union-attr]
    assert isinstance(norm, nn.BatchNorm2d)
    return model, norm


def train_a_hundred_steps(name: str) -> None:
    """Train a recipe, and see its terms fall: in training and held out, where batch normalisation has its running statistics."""
    settings = ["patch.size=32", "patch.stride=32", "image.size=32"]
    settings += ["encoder.weights=none"] if name.count("-") == 2 else []
    recipe = override(load_recipe(name), settings)
    torch.manual_seed(0)
    model = build(recipe, 1).train()
    y, x = torch.meshgrid(*[torch.arange(32.0)] * 2, indexing="ij")
    phases = torch.rand(24, 2, 1, 1, generator=torch.Generator().manual_seed(1)) * 2 * math.pi
    waves = 0.5 + 0.2 * (x / 3 + phases[:, 0]).sin() + 0.2 * (y / 4 + phases[:, 1]).cos()
    good, held_out = waves[:16, None], waves[16:, None]
    optimizer = torch.optim.Adam(model.parameters(), recipe.training.learning_rate)
    history, looks = [], []
    for step in range(1, 101):
        loss = model.loss(good[torch.randperm(16)[:8]])
        optimizer.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        history.append({key: float(value.detach()) for key, value in loss.terms.items()})
        if step in (10, 100):
            model.eval()
            with torch.no_grad():
                looks.append({key: float(value) for key, value in model.loss(held_out).terms.items()})
            model.train()
    first, last = (
        {key: sum(row[key] for row in rows) for key in history[0]} for rows in (history[:10], history[-10:])
    )
    assert sum(last.values()) < sum(first.values())
    assert sum(looks[-1].values()) < sum(looks[0].values())
    assert last["contractive"] < 2 * first["contractive"]
    assert last[recipe.loss[0].name] < first[recipe.loss[0].name]


CONTRACTIVE = [name for name in recipe_names() if name.startswith("cae-")]
LARGE = [name for name in CONTRACTIVE if "vgg16" in name or "resnet50" in name]
"""Recipes whose hundred steps take about a minute; ``test_contractive_backbones.py`` trains them at an eighth of their width."""
NOT_IN_CI = [*LARGE, "cae-efficientnet-mse"]
"""Those, and one whose twin with SSIM is in."""


@pytest.mark.parametrize(
    "name",
    [
        "cae-mse",
        *(
            pytest.param(name, marks=pytest.mark.long if name in NOT_IN_CI else pytest.mark.slow)
            for name in CONTRACTIVE
            if name != "cae-mse"
        ),
    ],
)
def test_a_hundred_steps_lower_the_loss_and_its_terms(name: str) -> None:
    train_a_hundred_steps(name)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_term_is_float32_under_autocast_and_accepts_every_layout(
    memory_format: torch.memory_format,
) -> None:
    model, x = model_with("loss.1.method=exact", channels=3), images(2, 3)
    expected = model.loss(x).terms["contractive"]
    with torch.autocast("cpu", torch.bfloat16):
        value = model.loss(x.to(memory_format=memory_format)).terms["contractive"]
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("projections=0", "loss 'contractive': projections is 0; input should be greater than or equal to 1"),
        ("images=0", "loss 'contractive': images is 0; "),
        (
            "method=some",
            "loss 'contractive': method is 'some'; input should be 'auto', 'projections' or 'exact'",
        ),
    ],
)
def test_invalid_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        model_with(f"loss.1.{setting}")
    assert str(caught.value).startswith(message)
