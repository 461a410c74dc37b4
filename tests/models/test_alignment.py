"""Spatial transformer: the layers of the paper, the strategies of training, and the estimated pose."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blemish.errors import RecipeError, UsageError
from blemish.layers.rotation import rotate
from blemish.models import build
from blemish.models.alignment import LocalisationNetwork, Rotation
from blemish.recipes import load_recipe, override

RECIPES = [f"stn-ae-{strategy}" for strategy in ("unaligned", "joint", "frozen", "finetuned")]


def stripes(angles: Tensor, *, side: int = 32, tilt: float = 0.0) -> Tensor:
    """(N, 1, S, S) in [0, 1]: edges that lie horizontally after a turn by -angle; ``tilt`` of brightness across."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    across = [np.sin(angle) * x + np.cos(angle) * y for angle in angles.double().numpy()]
    images = [0.5 + 0.2 * np.sin(2 * math.pi * a / 8) - tilt * a / side for a in across]
    return torch.from_numpy(np.stack(images)).float()[:, None]


def part(strategy: str = "frozen", *, patch: int = 32, **settings: object) -> Rotation:
    torch.manual_seed(0)
    pretraining = 1 if strategy in ("frozen", "finetuned") else 0
    return Rotation(channels=1, patch=patch, strategy=strategy, pretraining=pretraining, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained() -> Rotation:
    """Alignment pretrained for a few seconds on stripes at any angle."""
    aligner = part()
    optimizer = torch.optim.Adam(aligner.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(120):
        angles = 2 * math.pi * torch.rand(16, generator=generator)
        loss = aligner.pretraining_loss(stripes(angles, tilt=0.3))["gradient"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return aligner.eval()


def test_the_localisation_network_has_the_layers_of_table_2() -> None:
    kinds = [type(layer) for layer in LocalisationNetwork(output="angle").layers]
    connected = [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert kinds == 4 * [nn.Conv2d, nn.ReLU, nn.MaxPool2d] + connected


@pytest.mark.parametrize("output", ["angle", "direction"])
def test_an_untrained_network_turns_images_by_small_angles(output: str) -> None:
    torch.manual_seed(0)
    view = torch.randn(8, 1, 64, 64)
    angles = LocalisationNetwork(output)(view)  # type: ignore[arg-type]
    assert angles.shape == (8,)
    assert angles.abs().max() < math.radians(45)
    assert len(angles.unique()) == 8


def test_pretraining_lays_stripes_horizontally(trained: Rotation) -> None:
    angles = 2 * math.pi * torch.rand(40, generator=torch.Generator().manual_seed(2))
    x = stripes(angles, tilt=0.3)
    with torch.no_grad():
        off = torch.remainder(trained.angle(x) + angles + math.pi / 2, math.pi) - math.pi / 2
    assert off.abs().median() < math.radians(3)


def test_the_brighter_half_is_laid_upwards(trained: Rotation) -> None:
    angles = 2 * math.pi * torch.rand(40, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        turned = trained.angle(stripes(angles, tilt=0.3)) + angles
    # over the whole circle, not half of it
    assert torch.cos(turned).median() > 0.99
    assert (torch.cos(turned) > 0.9).float().mean() > 0.9


def test_an_image_and_its_half_turn_get_the_same_pose(trained: Rotation) -> None:
    x = stripes(torch.tensor([0.4, 1.3]), tilt=0.3)
    with torch.no_grad():
        one, other = trained(x).image, trained(x.rot90(2, (2, 3))).image
    assert (one - other).abs().mean() < 0.02
    assert (one - other.rot90(2, (2, 3))).abs().mean() > 0.04


def test_images_without_orientation_are_not_turned() -> None:
    aligner = part()
    flat = torch.full((1, 1, 32, 32), 0.5)
    from_the_middle = torch.arange(32) - 15.5
    rings = (0.5 + torch.hypot(from_the_middle, from_the_middle[:, None]).cos() / 4)[None, None]
    with torch.no_grad():
        assert (aligner.localisation(aligner.view(rings)) != 0).all()  # type: ignore[misc]
        assert aligner.angle(torch.cat([flat, rings])).tolist() == [0, 0]


def test_the_threshold_of_orientation_is_a_setting() -> None:
    x = stripes(torch.tensor([0.4]))
    strength = float(part().modulation(x))
    assert part(least_modulation=strength - 0.01).angle(x) != 0
    assert part(least_modulation=strength + 0.01).angle(x) == 0


def test_the_view_does_not_depend_on_brightness_contrast_and_channels() -> None:
    x = stripes(torch.tensor([0.4]))
    aligner = part()
    view = aligner.view(x)
    assert view.shape == (1, 1, 64, 64)
    torch.testing.assert_close(aligner.view(0.1 + 0.5 * x), view, atol=1e-4, rtol=0)
    torch.testing.assert_close(aligner.view(x.expand(-1, 3, -1, -1)), view, atol=1e-4, rtol=0)


@pytest.mark.parametrize("strategy", ["unaligned", "joint", "frozen", "finetuned"])
def test_restoring_inverts_the_alignment(strategy: str) -> None:
    aligner = part(strategy)
    if aligner.localisation is not None:
        last = aligner.localisation.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, 0.7)
    x = stripes(torch.tensor([0.4, 1.1]))
    with torch.no_grad():
        aligned = aligner(x)
        back = aligner.restore(aligned.image, aligned)
    assert (aligned.angle == 0).all() == (strategy == "unaligned")
    assert (back - x).abs().mean() < 3 / 255


def test_the_angle_is_the_turn_of_the_image(trained: Rotation) -> None:
    x = stripes(torch.tensor([0.4]))
    with torch.no_grad():
        aligned = trained(x)
    middle = (..., slice(8, -8), slice(8, -8))
    expected = rotate(x, aligned.angle, scale=1 / math.sqrt(2))
    torch.testing.assert_close(aligned.image[middle], expected[middle])


def test_strategy_unaligned_has_no_parameters() -> None:
    assert not list(part("unaligned").parameters())


@pytest.mark.parametrize("strategy", ["joint", "frozen", "finetuned"])
def test_the_strategy_decides_which_loss_trains_the_localisation_network(strategy: str) -> None:
    model = build(
        override(load_recipe(f"stn-ae-{strategy}"), ["patch.size=32", "patch.stride=16"]), 1
    ).train()
    assert isinstance(model.alignment, Rotation)
    assert model.alignment.localisation is not None
    parameters = list(model.alignment.localisation.parameters())
    x = stripes(torch.tensor([0.4, 1.1]))
    model.loss(x).total.backward()  # type: ignore[no-untyped-call]
    trained_ones = [p.grad is not None and bool(p.grad.any()) for p in parameters]
    assert all(trained_ones) if strategy != "frozen" else not any(trained_ones)
    if strategy != "joint":
        model.zero_grad()
        model.pretraining_loss(x).total.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None and p.grad.any() for p in parameters)
        assert all(p.grad is None for p in model.encoder.parameters())


@pytest.mark.parametrize("strategy", ["joint", "finetuned"])
def test_the_gradient_by_the_angle_includes_both_turns(strategy: str) -> None:
    """Against finite differences of the last bias, with a stand-in for the autoencoder."""
    aligner = part(strategy, output="angle")
    assert aligner.localisation is not None
    bias = aligner.localisation.layers[-1].bias
    assert isinstance(bias, nn.Parameter)
    x = stripes(torch.tensor([0.4, 1.1]))
    gain = stripes(torch.tensor([0.2]))

    def value() -> Tensor:
        aligned = aligner(x)
        return ((aligner.restore(gain * aligned.image, aligned) - x) ** 2).sum()

    value().backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        bias.add_(3e-3)
        above = float(value())
        bias.sub_(6e-3)
        below = float(value())
    assert bias.grad is not None
    assert abs(above - below) > 0.01
    assert bias.grad.item() == pytest.approx((above - below) / 6e-3, rel=0.05)


def test_constant_images_have_finite_gradients() -> None:
    aligner = part("finetuned")
    aligner.pretraining_loss(torch.full((2, 1, 32, 32), 0.5))["gradient"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in aligner.parameters())


def test_more_than_four_channels_are_refused_in_one_line() -> None:
    with pytest.raises(RecipeError, match=r"not in 5 channels; choose a recipe without alignment") as error:
        build(load_recipe("stn-ae-frozen"), 5)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("recipe", "setting"),
    [
        ("stn-ae-frozen", "alignment.pretraining=0"),
        ("stn-ae-finetuned", "alignment.pretraining=0"),
        ("stn-ae-joint", "alignment.pretraining=5"),
        ("stn-ae-unaligned", "alignment.pretraining=5"),
        ("stn-ae-frozen", "alignment.pretraining=-1"),
        ("stn-ae-frozen", "alignment.strategy=sideways"),
        ("stn-ae-frozen", "alignment.output=radians"),
    ],
)
def test_contradictory_settings_are_refused(recipe: str, setting: str) -> None:
    with pytest.raises(RecipeError, match="alignment 'rotation'"):
        build(override(load_recipe(recipe), [setting]), 1)


def test_the_recipes_differ_only_in_the_alignment() -> None:
    plain, *others = (
        load_recipe(name).model_dump(exclude={"name", "title", "expect", "alignment"}) for name in RECIPES
    )
    assert all(other == plain for other in others)
    assert (plain["encoder"]["latent"], plain["training"]["weight_decay"]) == (100, 1e-5)


def test_a_larger_image_than_the_patch_is_refused() -> None:
    model = build(override(load_recipe("stn-ae-frozen"), ["patch.size=32", "patch.stride=16"]), 1)
    with pytest.raises(UsageError, match="the alignment was built for images of 32 × 32"):
        model(torch.rand(1, 1, 64, 64))
