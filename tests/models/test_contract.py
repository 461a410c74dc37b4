"""Contract of the network of every recipe."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from blemish.errors import UsageError
from blemish.models import Autoencoder, build
from blemish.models.contracts import Loss
from blemish.recipes import load_recipe, override, recipe_names
from blemish.similarity import MEASURES

pytestmark = pytest.mark.usefixtures("narrow_backbones")
CHANNELS = [1, 3, 4, 11]
MOST_ALIGNED = 4
"""Largest number of channels that an alignment accepts."""
PATCH = 32
BACKBONES = ("vgg16", "resnet50")
# Steps and learning rate to learn one batch; all other encoders use (80, 2e-3).
PACE = {**dict.fromkeys(BACKBONES, (40, 1e-3)), "kumar": (40, 2e-3), "unet": (30, 2e-3)}


def settings_of(name: str) -> list[str]:
    """Settings for small patches without pretrained weights."""
    recipe = load_recipe(name)
    settings = [f"patch.size={PATCH}", f"patch.stride={PATCH // 2}"]
    if "weights" in recipe.needs:
        settings += ["encoder.weights=none"] * (recipe.encoder.name in BACKBONES)
        settings += [
            f"loss.{index}.network=gabor"
            for index, term in enumerate(recipe.loss)
            if "network" in term.settings
        ]
    return settings


def untrained(name: str, channels: int, seed: int = 0) -> Autoencoder:
    torch.manual_seed(seed)
    return build(override(load_recipe(name), settings_of(name)), channels)


# Only the networks in use are cached.
small = lru_cache(maxsize=len(CHANNELS))(untrained)


def is_aligned(name: str) -> bool:
    return load_recipe(name).alignment is not None


def has_one_size(name: str) -> bool:
    model = small(name, 1)
    return model.alignment is not None or any(part.one_size for part in model.bottlenecks)


def odd_sides(name: str) -> tuple[int, int]:
    """Unusual (height, width) that the network accepts."""
    return (29, 31) if has_one_size(name) else (33, 47)


OF_SEVERAL_MODALITIES = {"other-pixels"}
"""Recipes that refuse images of one modality; tests of their parts have the contract for scenes."""
RECIPES = [name for name in recipe_names() if load_recipe(name).encoder and name not in OF_SEVERAL_MODALITIES]
PAIRS = [
    (name, channels)
    for name in RECIPES
    for channels in CHANNELS
    if channels <= MOST_ALIGNED or not is_aligned(name)
]
# In the order of the recipes, not of the tests, so that each network is built once.
each_recipe = pytest.mark.parametrize("name", RECIPES, scope="module")
each_recipe_and_channels = pytest.mark.parametrize(("name", "channels"), PAIRS, scope="module")


def images(count: int, channels: int, height: int = PATCH, width: int = PATCH) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, channels, height, width, generator=generator)


def losses(model: Autoencoder, x: Tensor) -> list[Loss]:
    """Losses of all training stages."""
    return [model.pretraining_loss(x), model.loss(x)] if model.pretraining else [model.loss(x)]


@each_recipe_and_channels
@pytest.mark.parametrize("size", [(32, 32), (17, 30), (11, 13), (33, 47), (17, 64)])
def test_outputs_have_the_shape_of_the_input(name: str, channels: int, size: tuple[int, int]) -> None:
    x = images(2, channels, *size)
    model = small(name, channels).eval()
    if has_one_size(name) and max(size) > PATCH:
        with pytest.raises(UsageError, match="built for images of 32 × 32 pixels") as caught:
            model(x)
        assert "\n" not in str(caught.value)
        return
    with torch.no_grad():
        output, (residual, reconstruction) = model(x), model.examine(x)
    assert output.reconstruction.shape == x.shape
    assert len(output.latent) == 2
    assert reconstruction.shape == x.shape
    assert residual.shape == (2, 1, *size)
    assert residual.dtype == reconstruction.dtype == torch.float32
    assert residual.isfinite().all()
    assert residual.min() >= 0


@pytest.mark.parametrize("name", [name for name in RECIPES if is_aligned(name)])
def test_an_aligned_recipe_refuses_several_modalities(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        untrained(name, MOST_ALIGNED + 1)
    assert "\n" not in str(caught.value)
    assert "alignment" in str(caught.value)


@each_recipe
def test_the_map_belongs_to_the_reconstruction(name: str) -> None:
    x = images(2, 3, *odd_sides(name))
    model = small(name, 3).eval()
    with torch.no_grad():
        residual, reconstruction = model.examine(x)
        assert torch.equal(reconstruction, model(x).reconstruction)
        assert torch.equal(residual, model.residual(x))
        assert residual.max() > 0


@each_recipe_and_channels
def test_loss_terms_are_named_and_sum_to_the_total(name: str, channels: int) -> None:
    model = small(name, channels).train()
    for total, terms in losses(model, images(2, channels)):
        assert all(term.ndim == 0 for term in terms.values())
        torch.testing.assert_close(total, torch.stack(list(terms.values())).sum())
    asked = [term.name for term in load_recipe(name).loss]
    named = [term.split("-", 1)[-1] if term[0].isdigit() else term for term in terms]
    assert len(named) >= len(asked)
    # A measure has one term; other losses may have several, with names of their own.
    assert [term for term in named if term in MEASURES] == [term for term in asked if term in MEASURES]


@each_recipe_and_channels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_parameter_receives_a_gradient(name: str, channels: int, dtype: torch.dtype) -> None:
    model = small(name, channels).train()
    model.zero_grad()
    x = images(2, channels).to(memory_format=torch.channels_last)  # as in training
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        total = torch.stack([loss.total for loss in losses(model, x)]).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert total.isfinite()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name
    model.zero_grad()


@each_recipe
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("autocast", [False, True])
def test_constant_images_give_finite_values_and_gradients(name: str, value: float, autocast: bool) -> None:
    model = small(name, 3).train()
    model.zero_grad()
    x = torch.full((2, 3, PATCH, PATCH), value)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total = torch.stack([loss.total for loss in losses(model, x)]).sum()
        residual = model.residual(x)
    total.backward()  # type: ignore[no-untyped-call]
    assert total.isfinite()
    assert residual.dtype == torch.float32
    assert residual.isfinite().all()
    assert residual.min() >= 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad()


@each_recipe
def test_evaluation_is_deterministic_and_does_not_modify_the_input(name: str) -> None:
    x = images(2, 3, *odd_sides(name))
    before = x.clone()
    model = small(name, 3).eval()
    with torch.no_grad():
        first, again = model.examine(x), model.examine(x)
    assert torch.equal(first.map, again.map)
    assert torch.equal(first.reconstruction, again.reconstruction)
    assert torch.equal(x, before)


@each_recipe
def test_an_image_has_the_same_map_alone_and_in_a_batch(name: str) -> None:
    x = images(3, 3, *odd_sides(name))
    model = untrained(name, 3).eval()  # after constant images batch normalisation divides by almost 0
    with torch.no_grad():
        together = model.residual(x)
        alone = torch.cat([model.residual(image[None]) for image in x])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@each_recipe
def test_absent_values_are_accepted_or_refused_in_one_line(name: str) -> None:
    x = images(2, 3)
    x[0, 1, :9] = torch.nan
    before = x.clone()
    model = small(name, 3).eval()
    with torch.no_grad():
        if model.encoder.takes_absent:
            output, examined = model(x), model.examine(x)
            for values in (output.reconstruction, output.latent, *examined, model.loss(x).total):
                assert values.isfinite().all()
        else:
            for call in (model, model.examine, model.loss):
                with pytest.raises(UsageError, match=r"absent values \(NaN\)") as caught:
                    call(x)
                assert "\n" not in str(caught.value)
    assert torch.equal(x.isnan(), before.isnan())
    assert torch.equal(x.nan_to_num(), before.nan_to_num())


@each_recipe
def test_a_loaded_model_gives_bit_identical_maps(name: str) -> None:
    x = images(2, 3, *odd_sides(name))
    model = small(name, 3).eval()
    other = untrained(name, 3, seed=99).eval()
    with torch.no_grad():
        assert not torch.equal(other.residual(x), model.residual(x))
        other.load_state_dict(load(save(model.state_dict())))
        assert torch.equal(other.residual(x), model.residual(x))


@each_recipe
def test_one_batch_can_be_learned(name: str) -> None:
    model = untrained(name, 1).train()
    wave = torch.linspace(0, 12, PATCH).sin() / 2 + 0.5
    # Reconstructing both as their mean leaves about half of the squared error of grey.
    x = torch.stack([wave.expand(PATCH, PATCH), wave[:, None].expand(PATCH, PATCH)])[:, None]  # (2, 1, P, P)
    steps, learning_rate = PACE.get(load_recipe(name).encoder.name, (80, 2e-3))
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    losses = []
    for _ in range(steps):
        total, terms = model.loss(x)
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        # The first term compares images; a penalty may rise meanwhile.
        losses.append(next(iter(terms.values())).item())
        if max(losses[-5:]) < 0.4 * losses[0]:  # for good
            break
    assert losses[-1] < 0.4 * losses[0]
