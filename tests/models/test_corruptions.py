"""Corruptions: their strength, their location, and their random generator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from blemish.data.modality import Modality
from blemish.errors import RecipeError
from blemish.models import build
from blemish.models.corruptions import (
    DeletedBlocks,
    GaussianNoise,
    ModalityDropout,
    RegionDropout,
    SaltAndPepper,
    add_gaussian_noise,
    add_salt_and_pepper,
    delete_blocks,
    drop_modalities,
    drop_regions,
)
from blemish.recipes import load_recipe, override

PARTS = [GaussianNoise(sigma=0.2), SaltAndPepper(share=0.3), DeletedBlocks(size=4, count=2)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_gaussian_noise_has_the_mean_and_deviation_asked_for() -> None:
    x = torch.full((4, 3, 64, 64), 0.5)
    noise = add_gaussian_noise(x, 0.05, seeded()) - x
    error = 0.05 / math.sqrt(x.numel())
    assert abs(noise.mean()) < 4 * error
    assert abs(noise.std() - 0.05) < 4 * error / math.sqrt(2)
    # The noise is independent for every value, channel and image.
    assert abs(torch.corrcoef(torch.stack([noise[0, 0].flatten(), noise[0, 1].flatten()]))[0, 1]) < 0.07
    assert not torch.equal(noise[0], noise[1])


def test_salt_and_pepper_change_whole_pixels_in_equal_shares() -> None:
    x = torch.rand(4, 3, 64, 64, generator=seeded(1)) * 0.8 + 0.1
    y = add_salt_and_pepper(x, 0.2, seeded())
    salt, pepper = (y == 1), (y == 0)
    assert torch.equal(y[~(salt | pepper)], x[~(salt | pepper)])
    for extreme in (salt, pepper):
        assert torch.equal(extreme[:, :1].expand_as(extreme), extreme)
        count = extreme[:, 0].numel()
        assert abs(extreme[:, 0].float().mean() - 0.1) < 4 * math.sqrt(0.1 * 0.9 / count)


def test_a_share_of_one_changes_every_pixel() -> None:
    y = add_salt_and_pepper(torch.full((1, 1, 16, 16), 0.5), 1.0, seeded())
    assert ((y == 0) | (y == 1)).all()


def test_a_block_is_a_square_inside_the_image() -> None:
    x = torch.full((64, 2, 12, 20), 0.5)
    deleted = delete_blocks(x, size=5, count=1, fill=0.25, generator=seeded()) == 0.25
    assert torch.equal(deleted[:, 0], deleted[:, 1])
    corners = set()
    for mask in deleted[:, 0]:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert (len(rows), len(columns), int(mask.sum())) == (5, 5, 25)
        corners.add((int(rows[0]), int(columns[0])))
    # 8 × 16 positions, of which 64 draws cover many, including both borders.
    assert len(corners) > 40
    assert {top for top, _ in corners} == set(range(8))


@pytest.mark.parametrize("count", [1, 3])
def test_blocks_are_as_many_as_asked_unless_they_overlap(count: int) -> None:
    areas = (delete_blocks(torch.ones(64, 1, 40, 40), 4, count, 0.0, seeded()) == 0).sum((1, 2, 3))
    assert areas.max() == 16 * count
    assert areas.min() >= 16


def test_a_block_wider_than_the_image_covers_its_whole_width() -> None:
    assert not delete_blocks(torch.ones(2, 3, 5, 7), size=9, count=1).any()


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("channels", [1, 3, 11])
def test_corrupted_images_keep_shape_and_range_and_the_input_is_not_modified(
    part: torch.nn.Module, channels: int
) -> None:
    x = torch.rand(2, channels, 9, 13, generator=seeded())
    before = x.clone()
    y: Tensor = part(x, seeded())
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert y.min() >= 0
    assert y.max() <= 1
    assert not torch.equal(y, x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_draws_come_from_the_given_or_the_global_generator(part: torch.nn.Module) -> None:
    x = torch.full((2, 1, 16, 16), 0.5)
    assert torch.equal(part(x, seeded(3)), part(x, seeded(3)))
    assert not torch.equal(part(x, seeded(3)), part(x, seeded(4)))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    part(x, seeded(3))
    assert torch.equal(torch.get_rng_state(), state)
    first = part(x)
    torch.manual_seed(5)
    assert torch.equal(part(x), first)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_absent_values_stay_absent(part: torch.nn.Module) -> None:
    x = torch.rand(4, 3, 16, 16)
    x[:, 1, 3:9] = torch.nan
    assert torch.equal(part(x, seeded()).isnan(), x.isnan())


def absent_modalities(x: Tensor) -> Tensor:
    """(N, 3) booleans, for modalities of 3, 1 and 2 channels."""
    parts = x.isnan().split((3, 1, 2), 1)  # type: ignore[no-untyped-call]
    for part in parts:
        assert torch.equal(part.flatten(1).all(1), part.flatten(1).any(1))
    return torch.stack([part[:, 0, 0, 0] for part in parts], 1)


def test_whole_modalities_are_dropped_with_the_given_probability() -> None:
    count, chance = 4000, 0.3
    x = torch.rand(count, 6, 2, 2)
    y = drop_modalities(x, (3, 1, 2), chance, seeded())
    assert torch.equal(y[~y.isnan()], x[~y.isnan()])
    dropped = absent_modalities(y)
    # If all three would be dropped, as in one of 37 images, one stays, each equally likely.
    expected = chance - chance**3 / 3
    error = math.sqrt(expected * (1 - expected) / count)
    assert ((dropped.float().mean(0) - expected).abs() < 4 * error).all()
    assert not dropped.all(1).any()


def test_one_present_modality_of_an_image_always_stays() -> None:
    x = torch.rand(600, 6, 2, 2)
    x[:200, :3] = torch.nan
    x[200:400, 3:] = torch.nan
    y = drop_modalities(x, (3, 1, 2), 1.0, seeded())
    left = ~absent_modalities(y)
    assert (left.sum(1) == 1).all()
    assert left[:200, 1:].float().mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.15)
    assert left[200:400, 0].all()
    assert left[400:].float().mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.12)
    nothing = torch.full((2, 6, 2, 2), torch.nan)
    assert drop_modalities(nothing, (3, 1, 2), 0.5, seeded()).isnan().all()


def test_dropped_regions_are_squares_within_one_modality() -> None:
    x = torch.rand(8, 6, 20, 20)
    y = drop_regions(x, (3, 1, 2), 5, 1, seeded())
    holes = y.isnan()
    assert torch.equal(y[~holes], x[~holes])
    assert (holes.sum((2, 3)) == 25).all()
    for channel, first in ((1, 0), (2, 0), (5, 4)):
        assert torch.equal(holes[:, channel], holes[:, first])
    assert not torch.equal(holes[:, 0], holes[:, 3])


@pytest.mark.parametrize("kind", [ModalityDropout, RegionDropout])
def test_dropouts_follow_the_seed(kind: type[ModalityDropout] | type[RegionDropout]) -> None:
    part = kind(modalities=[Modality(name="a", channels=1), Modality(name="b", channels=2)])
    x = torch.rand(32, 3, 16, 16)
    before = x.clone()
    assert part.makes_absent
    assert torch.equal(part(x, seeded(3)).isnan(), part(x, seeded(3)).isnan())
    assert not torch.equal(part(x, seeded(3)).isnan(), part(x, seeded(4)).isnan())
    torch.manual_seed(5)
    first = part(x).isnan()
    torch.manual_seed(5)
    assert torch.equal(part(x).isnan(), first)
    assert first.any()
    assert torch.equal(x, before)


def test_a_recipe_applies_several_in_their_order() -> None:
    blocks, grains = "{name: blocks, size: 32, count: 1, fill: 0.5}", "{name: salt-and-pepper, share: 1}"
    x = torch.rand(2, 1, 32, 32)

    def values_after(first: str, second: str) -> list[float]:
        settings = ["patch.size=32", "patch.stride=32", f"corruption=[{first}, {second}]"]
        model = build(override(load_recipe("dae-mse"), settings), 1).train()
        values: list[float] = model.corrupt(x).unique().tolist()
        return values

    assert values_after(blocks, grains) == [0, 1]
    assert values_after(grains, blocks) == [0.5]


@pytest.mark.parametrize("name", ["dae-mse", "dae-ssim"])
def test_denoising_recipes_corrupt_inspected_images_and_compare_with_the_clean_ones(name: str) -> None:
    torch.manual_seed(0)
    model = build(override(load_recipe(name), ["patch.size=32", "patch.stride=32"]), 1).eval()
    x = torch.rand(2, 1, 32, 32)
    corrupted = model.corrupt(x)
    assert 0.02 < (corrupted - x).std() < 0.1
    with torch.no_grad():
        residual, y = model.examine(x)
        assert torch.equal(y, model.decode(model.encode(corrupted)))
        assert torch.equal(residual, model.measure.distance_map(x, y))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("{name: gaussian, sigma: 0}", "corruption 'gaussian': sigma is 0; input should be greater than 0"),
        ("{name: salt-and-pepper, share: 1.5}", "corruption 'salt-and-pepper': share is 1.5; "),
        ("{name: blocks, count: 0}", "corruption 'blocks': count is 0; "),
        ("{name: blocks, size: 0}", "corruption 'blocks': size is 0; "),
        ("{name: blocks, fill: 2}", "corruption 'blocks': fill is 2; "),
        ("{name: modality-dropout, probability: 0}", "corruption 'modality-dropout': probability is 0; "),
        (
            "{name: modality-dropout, modalities: 2}",
            "corruption 'modality-dropout' has no setting 'modalities'",
        ),
        ("{name: region-dropout, size: 0}", "corruption 'region-dropout': size is 0; "),
        ("{name: gausian}", "unknown corruption 'gausian'; did you mean 'gaussian'?"),
    ],
)
def test_invalid_settings_are_refused(part: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build(override(load_recipe("dae-mse"), [f"corruption=[{part}]"]), 1)
    assert str(caught.value).startswith(message)
