"""The memory bank against a brute-force search over SSIM's structure term, and what it must not depend on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from blemish.detectors.ensemble import Ensemble
from blemish.detectors.factory import build_model, networks
from blemish.detectors.feature_extractors import local_contrast
from blemish.detectors.memory_bank import MemoryBank, StructureMemoryBank
from blemish.detectors.patch_bank import BLOCK, PatchBank
from blemish.errors import RecipeError, UsageError
from blemish.recipes import load_recipe, override


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, channels: int = 1, height: int = 32, width: int = 40, seed: int = 0) -> list[Tensor]:
    return list(torch.rand(count, channels, height, width, generator=seeded(seed)))


def small(**settings: Any) -> MemoryBank:
    """Pieces of 8 × 8, four pixels apart, of which nothing is left out."""
    return StructureMemoryBank(**{"patch": 8, "dimensions": 64, "floor": 1e-9, **settings})


def first(memory: MemoryBank) -> PatchBank:
    """Its bank of structure."""
    bank = memory.banks[0]
    assert isinstance(bank, PatchBank)
    return bank


def filled(
    good: list[Tensor], *, by_place: bool, groups: Sequence[int] | None = None, **settings: Any
) -> MemoryBank:
    memory = small(**settings)
    memory.fit_images(good, seeded(), by_place=by_place, groups=groups)
    return memory


both_ways = pytest.mark.parametrize("by_place", [False, True])


# -- patches --------------------------------------------------------------------------------------------


def patches_of(image: Tensor, patch: int = 8, stride: int = 4) -> NDArray[np.float64]:
    """(h, w, C, patch, patch), cut one by one."""
    x = np.pad(image.numpy().astype(np.float64), [(0, 0), *[(patch // 2, patch // 2)] * 2], mode="reflect")
    height, width = image.shape[1] // stride + 1, image.shape[2] // stride + 1
    return np.array(
        [
            [x[:, i * stride : i * stride + patch, j * stride : j * stride + patch] for j in range(width)]
            for i in range(height)
        ]
    )


def likeness(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """SSIM's structure term of two patches (C, p, p), each channel about its own mean."""
    x, y = x - x.mean((1, 2), keepdims=True), y - y.mean((1, 2), keepdims=True)
    return float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()))


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.0), (1.0, -0.3), (3.0, 0.7)])
@both_ways
def test_a_gain_and_an_offset_change_nothing(a: float, b: float, by_place: bool) -> None:
    memory = filled(images(4), by_place=by_place, floor=1.0)
    x = images(1, seed=9)[0][None]
    torch.testing.assert_close(memory(a * x + b), memory(x), atol=1e-3, rtol=1e-3)


# -- the nearest one -----------------------------------------------------------------------------------


def nearest(x: Tensor, good: list[Tensor], allowed: Any = lambda i, j, k, m: True) -> NDArray[np.float64]:
    """Least √(1 - s) of each patch of ``x`` over those of ``good`` at the places ``allowed``."""
    own, others = patches_of(x), [patches_of(image) for image in good]
    height, width = own.shape[:2]
    least = np.full((height, width), np.inf)
    for i, j, k, m in np.ndindex(height, width, height, width):
        if allowed(i, j, k, m):
            for other in others:
                likest = likeness(own[i, j], other[k, m])
                least[i, j] = min(least[i, j], math.sqrt(max(0, 1 - likest)))
    return least


@pytest.mark.parametrize("channels", [1, 2])
def test_anywhere_it_is_the_brute_force_search(channels: int) -> None:
    good, x = images(3, channels, 16, 20), images(1, channels, 16, 20, seed=5)[0]
    memory = filled(good, by_place=False, dimensions=64 * channels)
    found = first(memory).distances(x[None])[0].numpy()
    np.testing.assert_allclose(found, nearest(x, good), atol=2e-3)  # kept in half precision


@pytest.mark.parametrize("reach", [0, 1])
def test_by_place_it_is_the_brute_force_search_around_each_block(reach: int) -> None:
    good, x = images(3, 1, 32, 24), images(1, 1, 32, 24, seed=5)[0]
    memory = filled(good, by_place=True, reach=reach)

    def close(i: int, j: int, k: int, m: int) -> bool:
        return all(-reach <= there - own // BLOCK * BLOCK < BLOCK + reach for own, there in ((i, k), (j, m)))

    np.testing.assert_allclose(
        first(memory).distances(x[None])[0].numpy(), nearest(x, good, close), atol=2e-3
    )


def test_by_place_only_the_images_nearest_as_a_whole_are_searched() -> None:
    """One image has just the patch that is asked for, but is another image everywhere else."""
    good = images(4)
    x = (0.9 * good[0] + 0.1 * images(1, seed=5)[0])[None]
    x[..., 8:24, 8:24] = good[3][..., 8:24, 8:24]
    all_of_them, two, one = (
        first(filled(good, by_place=True, nearest_images=count)).distances(x)[0] for count in (4, 2, 1)
    )
    assert all_of_them[4, 4] < 0.02 < 0.3 < one[4, 4]
    assert (all_of_them <= two + 1e-3).all()  # kept in half precision
    assert (two <= one + 1e-3).all()
    alone = filled(good[:1], by_place=True)
    torch.testing.assert_close(one.mean(), first(alone).distances(x).mean(), rtol=0.1, atol=0.01)
    # Of what is left out, the others remain.
    others = first(filled(good, by_place=True, nearest_images=2)).distances(good[0][None], 0)
    assert others.isfinite().all()
    assert others.mean() > 0.2


@both_ways
def test_principal_components_keep_a_lower_bound(by_place: bool) -> None:
    good, x = images(4), images(1, seed=5)[0][None]
    whole, few = (first(filled(good, by_place=by_place, dimensions=k)).distances(x) for k in (64, 12))
    assert (few <= whole + 2e-3).all()
    assert few.max() > 0


@both_ways
def test_an_image_of_the_bank_has_no_distance_unless_it_is_left_out(by_place: bool) -> None:
    good = images(5)
    memory = filled(good, by_place=by_place)
    assert sorted(first(memory).group_rows) == [0, 1, 2, 3, 4]
    for number, image in enumerate(good):
        assert first(memory).distances(image[None]).max() < 0.01
        without = first(memory).distances(image[None], number)
        assert without.min() > 0.1
        others = [one for other, one in enumerate(good) if other != number]
        alone = filled(others, by_place=by_place)
        torch.testing.assert_close(without, first(alone).distances(image[None]), atol=3e-3, rtol=0)


@both_ways
def test_an_image_is_left_out_with_its_group(by_place: bool) -> None:
    """Of four things there are two nearly equal images each."""
    good = [one + 0.01 * noise for one in images(4) for noise in images(2, seed=7)]
    of = [number // 2 for number in range(8)]
    memory = filled(good, by_place=by_place, groups=of)
    without = first(memory).distances(good[0][None], 0)
    alone = filled(good[2:], by_place=by_place)
    torch.testing.assert_close(without, first(alone).distances(good[0][None]), atol=3e-3, rtol=0)
    each = filled(good, by_place=by_place)
    assert first(each).distances(good[0][None], 0).max() < 0.1 < without.min()
    assert first(each).normaliser.mean.max() < 0.1 < first(memory).normaliser.mean.min()
    # The bank is the same, and where all images are of one group each is a group.
    assert torch.equal(first(each).bank, first(memory).bank)
    one = filled(good, by_place=by_place, groups=[0] * 8)
    assert torch.equal(first(one).normaliser.mean, first(each).normaliser.mean)


@both_ways
def test_a_group_is_left_out_as_far_as_the_bank_holds_it(by_place: bool) -> None:
    good = images(9)
    memory = filled(
        good, by_place=by_place, capacity=50, images=4, groups=[number % 3 for number in range(9)]
    )
    for number in first(memory).group_rows:
        assert first(memory).distances(good[number][None], number).isfinite().all()


def test_places_matter_only_where_they_are_asked_to() -> None:
    good = images(4, 1, 64, 64)
    moved = good[0].roll(32, 2)[None]
    inner = (slice(5, -5), slice(10, 15))  # off the border and the seam, where the patches themselves differ
    anywhere, by_place = (first(filled(good, by_place=way)).distances(moved)[0] for way in (False, True))
    assert anywhere[inner].max() < 0.01
    assert by_place[inner].min() > 0.1


# -- what is shown -------------------------------------------------------------------------------------


@both_ways
def test_the_spread_of_good_images_is_not_shown(by_place: bool) -> None:
    """Standard deviations above what good images have, so some few stand out, and a defect far more."""
    generator = seeded(1)
    board = (torch.arange(48) // 6 % 2).float()
    good = [
        (0.2 + 0.6 * (board[:, None] - board).abs() + 0.05 * torch.randn(48, 48, generator=generator))[None]
        for _ in range(12)
    ]
    memory = filled(good[:11], by_place=by_place, floor=1.0)
    x = good[11][None]
    shown = memory(x)
    assert shown.shape == (1, 1, 48, 48)
    assert shown.min() >= 0
    altered = x.clone()
    altered[..., 18:30, 18:30] = torch.rand(12, 12, generator=generator)
    assert memory(altered)[..., 20:28, 20:28].mean() > 5 * shown.mean() + 1
    torch.testing.assert_close(memory(altered)[..., :8, :8], shown[..., :8, :8], atol=0.2, rtol=0.2)


@both_ways
@pytest.mark.parametrize("size", [(32, 40), (33, 47), (19, 64)])
def test_a_map_has_the_size_of_its_image_and_no_neighbours(by_place: bool, size: tuple[int, int]) -> None:
    memory = filled(images(3), by_place=by_place)
    x = torch.stack(images(3, 1, *size, seed=7))
    together = memory(x)
    assert together.shape == (3, 1, *size)
    assert together.isfinite().all()
    torch.testing.assert_close(together, torch.cat([memory(one[None]) for one in x]), atol=1e-3, rtol=1e-3)


def test_by_place_images_of_several_sizes_are_stretched_to_the_median() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 97), torch.linspace(0, 1, 97), indexing="ij")
    drawn = 0.5 + 0.3 * torch.sin(14 * x + 3 * y) * torch.cos(9 * y)
    sizes = [(40, 56), (48, 64), (52, 60)]
    good = [
        torch.nn.functional.interpolate(drawn[None, None], size, mode="bilinear", antialias=True)[0]
        for size in sizes
    ]
    memory = filled(good, by_place=True, floor=1.0)
    assert first(memory).size.tolist() == [48, 60]
    for image, size in zip(good, sizes, strict=True):
        assert memory(image[None]).shape == (1, 1, *size)
        brought = torch.nn.functional.interpolate(image[None], (48, 60), mode="bilinear", antialias=True)
        assert first(memory).distances(brought).max() < 0.02
    assert first(memory).distances(torch.rand(1, 1, 48, 60, generator=seeded())).mean() > 0.3


@both_ways
def test_one_image_can_fill_a_bank(by_place: bool) -> None:
    (only,) = images(1)
    memory = filled([only], by_place=by_place)
    assert len(first(memory).group_rows) == 1
    assert memory(only[None]).max() < 0.02
    assert memory(images(1, seed=3)[0][None]).mean() > 0.1


# -- how much, and where it is kept --------------------------------------------------------------------


@both_ways
def test_no_more_is_kept_than_is_allowed(by_place: bool) -> None:
    good = images(9)
    memory = filled(good, by_place=by_place, capacity=50, images=4, dimensions=7)
    assert memory.by_place is by_place
    assert first(memory).bank.shape == ((9, 11, 4, 7) if by_place else (50, 7))
    assert first(memory).bank.dtype == torch.float16
    assert len(first(memory).group_rows) == (4 if by_place else 9)


@both_ways
def test_the_same_seed_fills_the_same_bank(by_place: bool) -> None:
    first = filled(images(5), by_place=by_place, capacity=60)
    again = filled(images(5), by_place=by_place, capacity=60)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@both_ways
def test_a_bank_comes_back_from_disk_bit_by_bit_into_one_that_is_empty(by_place: bool) -> None:
    memory = filled(images(3), by_place=by_place)
    other = small()
    assert other.is_empty
    other.load_state_dict(load(save(memory.state_dict())))
    x = images(1, seed=8)[0][None]
    assert torch.equal(other(x), memory(x))
    assert (other.by_place, other.is_empty) == (by_place, False)


@both_ways
def test_a_reset_leaves_the_bank_as_it_was_made(by_place: bool) -> None:
    memory = filled(images(3), by_place=by_place)
    memory.reset()
    assert memory.is_empty
    fresh = small().state_dict()
    assert list(memory.state_dict()) == list(fresh)
    assert all(torch.equal(value, fresh[name]) for name, value in memory.state_dict().items())
    with pytest.raises(UsageError, match="the memory bank is empty"):
        memory(images(1)[0][None])


def test_absent_values_are_refused_in_a_line() -> None:
    memory, x = filled(images(3, channels=2), by_place=False), images(1, channels=2)[0].numpy()
    x[0, 3, 4] = np.nan  # in one channel only; in all it is a place outside the image
    with pytest.raises(UsageError, match=r"absent values .* which a memory bank cannot take") as error:
        memory.maps(x)
    assert "\n" not in str(error.value)


def test_nothing_of_it_is_trained() -> None:
    memory = filled(images(3), by_place=False)
    assert list(memory.parameters()) == []


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("memory.patch=7", "memory 'structure': patch is 7"),
        ("memory.share=1.5", "memory 'structure': share is 1.5"),
        ("memory.dimension=3", "has no setting 'dimension'; did you mean 'dimensions'"),
        ("memory.name=structures", "unknown memory 'structures'; did you mean 'structure'"),
        ("memory.patch=96", "patch.size 96 lets in those of 48; set memory.patch=94 or less"),
        ("corruption=[]", "memory 'structure' is weighted by the corruption 'synthetic-anomalies'"),
        ("memory={features: [{name: structur}]}", "unknown feature extractor 'structur'; did you mean"),
        ("memory={features: [{name: structure, ptch: 8}]}", "feature extractor 'structure' has no setting"),
        (
            "memory={features: [{name: structure}], dimension: 3}",
            "memory 'features' has no setting 'dimension'",
        ),
        ("memory={features: []}", "memory.features is missing"),
        (
            "memory={name: structure, features: [{name: structure}]}",
            "both say what to compare; leave one out",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_a_line(setting: str, words: str) -> None:
    with pytest.raises(RecipeError) as error:
        build_model(override(load_recipe("blemish"), ["combination=weighted-mean", setting]), 1)
    assert "\n" not in str(error.value)
    assert words in str(error.value)


# -- local contrast ------------------------------------------------------------------------------------


def rough(count: int, side: int = 128, seed: int = 3) -> list[Tensor]:
    """Fine noise, everywhere alike."""
    return [0.5 + 0.05 * torch.randn(1, side, side, generator=seeded(seed + k)) for k in range(count)]


@both_ways
def test_an_area_of_another_contrast_is_found_though_its_structure_is_normal(by_place: bool) -> None:
    good = rough(12)
    x, altered = good[11][None], good[11][None].clone()
    altered[..., 40:88, 40:88] = 0.5 + (altered[..., 40:88, 40:88] - 0.5) / 4
    ratios = []
    for contrasts in (False, True):
        memory = StructureMemoryBank(contrast=contrasts)
        memory.fit_images(good[:11], seeded(), by_place=by_place)
        inside = memory(altered)[..., 48:80, 48:80].mean()
        ratios.append(float(inside / memory(x)[..., 48:80, 48:80].mean()))
    assert ratios[0] < 1 < 5 < ratios[1], ratios


@both_ways
def test_structure_and_contrast_are_added(by_place: bool) -> None:
    good = rough(4)
    memory = StructureMemoryBank()
    memory.fit_images(good[:3], seeded(), by_place=by_place)
    x = good[3][None]
    structure, contrast = (bank(x) for bank in memory.banks)
    assert contrast.max() > 0
    assert torch.equal(memory(x), structure + contrast)
    # The bank of contrast is one of structure, of the smaller image of local contrast.
    alone = StructureMemoryBank(contrast=False)
    alone.fit_images([local_contrast(one[None])[0] for one in good[:3]], seeded(), by_place=by_place)
    assert alone(local_contrast(x)).mean() > 0
    assert alone(local_contrast(x)).shape[2:] == (32, 32)


@both_ways
def test_with_contrasts_light_changes_nothing_and_the_disk_keeps_them(by_place: bool) -> None:
    good = rough(4)
    memory, other = StructureMemoryBank(), StructureMemoryBank()
    memory.fit_images(good[:3], seeded(), by_place=by_place)
    assert not memory.banks[1].is_empty
    x = good[3][None]
    torch.testing.assert_close(memory(0.7 * x + 0.1), memory(x), atol=2e-2, rtol=2e-2)
    other.load_state_dict(load(save(memory.state_dict())))
    assert torch.equal(other(x), memory(x))
    # An image of the bank is as far from the others as if the bank did not hold it.
    left_out, without = memory(good[1][None], 1), memory(good[1][None])
    assert left_out.mean() > without.mean() + 0.1
    memory.reset()
    assert memory.banks[1].is_empty


def test_wide_patches_are_compared_where_places_do_not_matter() -> None:
    good = rough(5)
    plain, wide = StructureMemoryBank(), StructureMemoryBank(wide=32)
    x = good[4][None]
    for memory in (plain, wide):
        memory.fit_images(good[:4], seeded(), by_place=True)
    assert [bank.is_empty for bank in wide.banks] == [False, False, True]
    assert torch.equal(wide(x), plain(x))
    for memory in (plain, wide):
        memory.fit_images(good[:4], seeded(), by_place=False)
    assert [bank.is_empty for bank in wide.banks] == [False, False, False]
    assert wide.title.endswith("and structure of wide patches")
    torch.testing.assert_close(wide(x), plain(x) + wide.banks[2](x))
    assert wide.banks[2].extractor.stride == 8, "as far apart in proportion"
    other = StructureMemoryBank(wide=32)
    other.load_state_dict(load(save(wide.state_dict())))
    assert torch.equal(other(x), wide(x))


def test_small_images_are_compared_in_structure_alone() -> None:
    def filled_with(*sizes: int) -> MemoryBank:
        memory = StructureMemoryBank()
        memory.fit_images(
            [one[:, :size] for one, size in zip(rough(3), sizes, strict=True)], seeded(), by_place=True
        )
        assert not memory.banks[0].is_empty
        return memory

    # The median image counts, as long as each is large enough for one patch.
    assert filled_with(127, 127, 128).banks[1].is_empty
    assert filled_with(35, 128, 128).banks[1].is_empty
    assert not filled_with(36, 128, 128).banks[1].is_empty
    both = StructureMemoryBank()
    both.fit_images(rough(3), seeded(), by_place=False)
    assert both(rough(1)[0][None, :, :36, :40]).shape == (1, 1, 36, 40)
    with pytest.raises(
        UsageError, match="an image of 40 × 35 pixels is too small to be compared in local contr"
    ):
        both(rough(1)[0][None, :, :35, :40])


# -- how small the shipped detectors are ---------------------------------------------------------------


@pytest.mark.parametrize(("name", "giga"), [("blemish", 20), ("blemish-small", 3)])
@both_ways
def test_the_shipped_detectors_are_small_and_quick(name: str, giga: float, by_place: bool) -> None:
    """Network and a full memory bank together, for a grey image of 256 × 256."""
    from torch.utils.flop_counter import FlopCounterMode

    from blemish.preprocessing.tiling import TilePlan

    recipe = load_recipe(name)
    torch.manual_seed(0)
    model = build_model(recipe, 1).eval()
    assert isinstance(model, Ensemble)
    (memory,) = model.banks.values()
    (network,) = networks(model).values()
    # Full to capacity with noise in place of images, which costs the same.
    for patches in memory.banks:
        if by_place and patches.extractor.only_anywhere:
            continue
        side = 256 // patches.extractor.reduction
        places = (side // patches.extractor.stride + 1,) * 2
        shape = (*places, patches.images) if by_place else (patches.capacity,)
        patches.mean = torch.zeros(patches.extractor.patch**2)
        patches.basis = torch.randn(patches.extractor.patch**2, patches.dimensions)
        patches.bank = torch.randn(*shape, patches.dimensions).half()
        patches.normaliser.mean = patches.normaliser.spread = torch.ones(places if by_place else (1, 1))
        patches.size = torch.tensor([side, side])
    x = torch.rand(1, 256, 256, generator=seeded())
    patch, stride = recipe.patch.size, recipe.patch.stride
    plan = TilePlan((256, 256), (patch, patch), (stride, stride))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for _, tiles in plan.tiles(x.numpy(), batch=16):
            network.examine(torch.from_numpy(tiles))
        assert memory(x[None]).isfinite().all()
    assert 0 < counter.get_total_flops() < giga * 1e9
    assert sum(parameter.numel() for parameter in model.parameters()) < 10e6
