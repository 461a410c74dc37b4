"""Dense and attention bottlenecks: their computation, and the recipes that they refuse."""

from __future__ import annotations

import pytest
import torch

from blemish.errors import RecipeError, UsageError
from blemish.models import build
from blemish.models.bottlenecks import AttentionBottleneck, DenseBottleneck
from blemish.recipes import load_recipe, override

SMALL = override(load_recipe("cae-mse"), ["patch.size=32", "patch.stride=32"])


@pytest.mark.parametrize(
    ("activation", "function"),
    [("none", lambda a: a), ("tanh", torch.tanh), ("sigmoid", torch.sigmoid), ("relu", torch.relu)],
)
def test_the_code_is_a_linear_map_of_all_features_and_an_activation(activation, function) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    dense = DenseBottleneck(shape=(3, 2, 4), latent=5, activation=activation)
    h = torch.randn(6, 3, 2, 4)
    z = dense.encode(h)
    assert z.shape == (6, *dense.latent_shape) == (6, 5, 1, 1)
    expected = function(h.reshape(6, 24) @ dense.squeeze.weight.T + dense.squeeze.bias)
    torch.testing.assert_close(z.flatten(1), expected)
    y = dense.decode(z)
    assert y.shape == (6, *dense.code_shape) == (6, 3, 2, 4)
    torch.testing.assert_close(y.flatten(1), z.flatten(1) @ dense.expand.weight.T + dense.expand.bias)


def test_the_order_of_features_does_not_depend_on_the_memory_layout() -> None:
    dense = DenseBottleneck(shape=(3, 4, 4), latent=5)
    h = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(dense.encode(h.to(memory_format=torch.channels_last)), dense.encode(h))


def test_the_initial_code_has_the_variance_of_the_features() -> None:
    torch.manual_seed(0)
    dense = DenseBottleneck(shape=(32, 4, 4), latent=256)
    with torch.no_grad():
        z = dense.encode(torch.randn(64, 32, 4, 4))
        assert z.std().item() == pytest.approx(1, rel=0.1)
        assert dense.decode(z).std().item() == pytest.approx(1, rel=0.1)


def test_a_dense_bottleneck_refuses_larger_images() -> None:
    model = build(SMALL, 1).eval()
    assert model(torch.rand(1, 1, 20, 30)).reconstruction.shape == (1, 1, 20, 30)
    with pytest.raises(UsageError, match="dense bottleneck was built for images of 32 × 32 pixels") as caught:
        model(torch.rand(1, 1, 32, 48))
    assert "\n" not in str(caught.value)


def attention(c: int = 8, heads: int = 2) -> AttentionBottleneck:
    torch.manual_seed(0)
    return AttentionBottleneck(shape=(c, 3, 5), heads=heads)


def test_attention_is_softmax_of_products_added_to_its_input() -> None:
    c, heads = 8, 2
    part = attention(c, heads)
    h = torch.randn(2, c, 3, 5)
    assert part.latent_shape == part.code_shape == (c, 3, 5)
    x = h.flatten(2).transpose(1, 2)  # (N, T, c)
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + part.norm.eps).sqrt()
    projected = x @ part.attention.in_proj_weight.T + part.attention.in_proj_bias
    q, k, v = (
        whole.reshape(2, 15, heads, c // heads).transpose(1, 2) for whole in projected.split(c, dim=-1)
    )
    shares = (q @ k.transpose(-1, -2) / (c // heads) ** 0.5).softmax(-1)
    mixed = (shares @ v).transpose(1, 2).reshape(2, 15, c)
    out = part.attention.out_proj
    expected = h + (mixed @ out.weight.T + out.bias).transpose(1, 2).reshape(h.shape)
    torch.testing.assert_close(part.encode(h), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(part.decode(h), h)


def test_attention_is_equivariant_to_permutations_and_accepts_any_grid() -> None:
    part = attention()
    h = torch.randn(1, 8, 4, 6)
    order = torch.randperm(24)
    moved = h.flatten(2)[..., order].reshape(h.shape)
    with torch.no_grad():
        expected = part.encode(h).flatten(2)[..., order].reshape(h.shape)
        torch.testing.assert_close(part.encode(moved), expected)


def test_every_location_depends_on_all_others() -> None:
    part = attention()
    h = torch.randn(1, 8, 3, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(part.encode(h)[0, :, 0, 0].sum(), h)
    assert (gradient.abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    "bottleneck",
    ["[{name: attention}]", "[{name: attention, heads: 8}, {name: dense, latent: 9}]"],
    ids=["alone", "before a dense one"],
)
def test_any_recipe_with_a_grid_accepts_attention(bottleneck: str) -> None:
    torch.manual_seed(0)
    model = build(override(SMALL, [f"bottleneck={bottleneck}"]), 3).train()
    x = torch.rand(2, 3, 32, 32)
    total = model.loss(x).total
    total.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    assert model.eval()(x).reconstruction.shape == x.shape


def test_attention_over_a_single_location_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"attention' needs a grid of features.* such as those of dae-ssim"):
        build(override(load_recipe("ssim-ae"), ["bottleneck=[{name: attention}]"]), 1)


@pytest.mark.parametrize(("heads", "fitting"), [(3, 2), (100, 64), (129, 128)])
def test_heads_that_do_not_divide_the_channels_are_refused(heads: int, fitting: int) -> None:
    with pytest.raises(RecipeError, match=f"{heads} heads.* 128 channels before it; try heads: {fitting}$"):
        build(override(SMALL, [f"bottleneck=[{{name: attention, heads: {heads}}}]"]), 1)


@pytest.mark.parametrize("setting", ["latent: 0", "activation: swish", "heads: 2"])
def test_invalid_settings_of_a_dense_bottleneck_are_refused(setting: str) -> None:
    with pytest.raises(RecipeError, match=r"^bottleneck 'dense'"):
        build(override(SMALL, [f"bottleneck=[{{name: dense, {setting}}}]"]), 1)
