"""What every registered recipe's network must do."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from blemish.models import Autoencoder, build
from blemish.recipes import load_recipe, override, recipe_names

pytestmark = pytest.mark.parametrize("name", recipe_names())

CHANNELS = [1, 3, 4, 11]


@cache
def small(name: str, channels: int) -> Autoencoder:
    torch.manual_seed(0)
    return build(override(load_recipe(name), ["patch.size=32", "patch.stride=16"]), channels)


def pictures(count: int, channels: int, height: int = 32, width: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, channels, height, width, generator=generator)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (17, 64), (11, 13)])
def test_shapes_are_kept(name: str, channels: int, size: tuple[int, int]) -> None:
    x = pictures(2, channels, *size)
    model = small(name, channels).eval()
    with torch.no_grad():
        output, (residual, reconstruction) = model(x), model.examine(x)
    assert output.reconstruction.shape == x.shape
    assert len(output.latent) == 2
    assert reconstruction.shape == x.shape
    assert residual.shape == (2, 1, *size)
    assert residual.dtype == reconstruction.dtype == torch.float32
    assert residual.isfinite().all()
    assert residual.min() >= 0


def test_the_map_is_measured_on_the_reconstruction(name: str) -> None:
    x = pictures(2, 3, 33, 40)
    model = small(name, 3).eval()
    with torch.no_grad():
        residual, reconstruction = model.examine(x)
        assert torch.equal(reconstruction, model(x).reconstruction)
        assert torch.equal(residual, model.residual(x))
        assert residual.max() > 0


@pytest.mark.parametrize("channels", CHANNELS)
def test_loss_terms_are_named_and_sum_to_the_total(name: str, channels: int) -> None:
    total, terms = small(name, channels).train().loss(pictures(2, channels))
    assert [term.split("-", 1)[-1] if term[0].isdigit() else term for term in terms] == [
        term.name for term in load_recipe(name).loss
    ]
    assert all(term.ndim == 0 for term in terms.values())
    torch.testing.assert_close(total, torch.stack(list(terms.values())).sum())


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_parameter_receives_a_gradient(name: str, channels: int, dtype: torch.dtype) -> None:
    model = small(name, channels).train()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        total = model.loss(pictures(2, channels)).total
    total.backward()  # type: ignore[no-untyped-call]
    assert total.isfinite()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("autocast", [False, True])
def test_constant_pictures_give_finite_values_and_gradients(name: str, value: float, autocast: bool) -> None:
    model = small(name, 3).train()
    model.zero_grad()
    x = torch.full((2, 3, 32, 32), value)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total = model.loss(x).total
        residual = model.residual(x)
    total.backward()  # type: ignore[no-untyped-call]
    assert total.isfinite()
    assert residual.dtype == torch.float32
    assert residual.isfinite().all()
    assert residual.min() >= 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_evaluation_is_deterministic_and_leaves_the_input_alone(name: str) -> None:
    x = pictures(2, 3, 33, 47)
    before = x.clone()
    model = small(name, 3).eval()
    with torch.no_grad():
        first, again = model.examine(x), model.examine(x)
    assert torch.equal(first.map, again.map)
    assert torch.equal(first.reconstruction, again.reconstruction)
    assert torch.equal(x, before)


def test_a_picture_alone_is_as_in_a_batch(name: str) -> None:
    x = pictures(3, 3, 33, 47)
    model = small(name, 3).eval()
    with torch.no_grad():
        together = model.residual(x)
        alone = torch.cat([model.residual(picture[None]) for picture in x])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_save_and_load_give_the_same_bits(name: str) -> None:
    x = pictures(2, 3, 33, 47)
    model = small(name, 3).eval()
    torch.manual_seed(99)
    other = build(override(load_recipe(name), ["patch.size=32", "patch.stride=16"]), 3).eval()
    with torch.no_grad():
        assert not torch.equal(other.residual(x), model.residual(x))
        other.load_state_dict(load(save(model.state_dict())))
        assert torch.equal(other.residual(x), model.residual(x))


def test_one_batch_can_be_learned(name: str) -> None:
    torch.manual_seed(0)
    model = build(override(load_recipe(name), ["patch.size=32", "patch.stride=16"]), 1).train()
    wave = torch.linspace(0, 12, 32).sin() / 2 + 0.5
    x = torch.stack([wave.expand(32, 32), wave[:, None].expand(32, 32)])[:, None]  # (2, 1, 32, 32)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    for _ in range(80):
        total = model.loss(x).total
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < 0.5 * losses[0]
