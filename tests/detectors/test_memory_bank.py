"""The memory against a brute-force search over SSIM's structure term, and what it must not depend on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from scipy.ndimage import gaussian_filter
from torch import Tensor

from blemish.detectors.memory_bank import BLOCK, MemoryBank, PatchBank, contrast, structure
from blemish.errors import RecipeError, UsageError
from blemish.models import build
from blemish.recipes import load_recipe, override


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, channels: int = 1, height: int = 32, width: int = 40, seed: int = 0) -> list[Tensor]:
    return list(torch.rand(count, channels, height, width, generator=seeded(seed)))


def small(**settings: Any) -> MemoryBank:
    """Pieces of 8 × 8, four pixels apart, of which nothing is left out."""
    return MemoryBank(**{"patch": 8, "dimensions": 64, "floor": 1e-9, **settings})


def filled(
    good: list[Tensor], *, by_place: bool, groups: Sequence[int] | None = None, **settings: Any
) -> MemoryBank:
    memory = small(**settings)
    memory.fill(good, seeded(), by_place=by_place, groups=groups)
    return memory


both_ways = pytest.mark.parametrize("by_place", [False, True])


# -- pieces --------------------------------------------------------------------------------------------


def pieces_of(image: Tensor, patch: int = 8, stride: int = 4) -> NDArray[np.float64]:
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
    """SSIM's structure term of two pieces (C, p, p), each channel about its own mean."""
    x, y = x - x.mean((1, 2), keepdims=True), y - y.mean((1, 2), keepdims=True)
    return float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()))


@pytest.mark.parametrize("channels", [1, 3])
def test_pieces_differ_by_twice_what_their_structure_lacks(channels: int) -> None:
    x, y = images(2, channels, 21, 17)
    one, other = structure(torch.stack([x, y]), 8, 4, 1e-9)
    assert one.shape == (6, 5, channels * 64)
    own, others = pieces_of(x), pieces_of(y)
    for place in np.ndindex(6, 5):
        difference = float((one[place] - other[place]).square().mean())
        assert difference == pytest.approx(2 * (1 - likeness(own[place], others[place])), abs=1e-5)


def test_flat_pieces_count_the_less_the_flatter_they_are() -> None:
    x = torch.rand(1, 1, 32, 32, generator=seeded())
    x[..., :16] = 0.5 + 0.01 * (x[..., :16] - 0.5)
    length = structure(x, 8, 4, 1.0).square().mean(-1).sqrt()[0]
    assert length[:, :3].max() < 0.05
    assert length[:, 6:].min() > 0.4
    assert structure(torch.full((1, 1, 32, 32), 0.3), 8, 4, 1.0).abs().max() < 1e-3


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.0), (1.0, -0.3), (3.0, 0.7)])
@both_ways
def test_a_gain_and_an_offset_change_nothing(a: float, b: float, by_place: bool) -> None:
    memory = filled(images(4), by_place=by_place, floor=1.0)
    x = images(1, seed=9)[0][None]
    torch.testing.assert_close(memory(a * x + b), memory(x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("size", [(4, 40), (40, 3)])
def test_an_image_too_small_to_be_mirrored_is_refused_in_a_line(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=f"{size[1]} × {size[0]} pixels is too small .* more than 4$"):
        structure(torch.rand(1, 1, *size), 8, 4, 1.0)


# -- the nearest one -----------------------------------------------------------------------------------


def nearest(x: Tensor, good: list[Tensor], allowed: Any = lambda i, j, k, m: True) -> NDArray[np.float64]:
    """Least √(1 - s) of each piece of ``x`` over those of ``good`` at the places ``allowed``."""
    own, others = pieces_of(x), [pieces_of(image) for image in good]
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
    found = memory.distances(x[None])[0].numpy()
    np.testing.assert_allclose(found, nearest(x, good), atol=2e-3)  # remembered in half precision


@pytest.mark.parametrize("reach", [0, 1])
def test_by_place_it_is_the_brute_force_search_around_each_block(reach: int) -> None:
    good, x = images(3, 1, 32, 24), images(1, 1, 32, 24, seed=5)[0]
    memory = filled(good, by_place=True, reach=reach)

    def close(i: int, j: int, k: int, m: int) -> bool:
        return all(-reach <= there - own // BLOCK * BLOCK < BLOCK + reach for own, there in ((i, k), (j, m)))

    np.testing.assert_allclose(memory.distances(x[None])[0].numpy(), nearest(x, good, close), atol=2e-3)


def test_by_place_only_the_images_most_alike_as_a_whole_are_searched() -> None:
    """One image has just the piece that is asked for, but is another image everywhere else."""
    good = images(4)
    x = (0.9 * good[0] + 0.1 * images(1, seed=5)[0])[None]
    x[..., 8:24, 8:24] = good[3][..., 8:24, 8:24]
    all_of_them, two, one = (filled(good, by_place=True, alike=alike).distances(x)[0] for alike in (4, 2, 1))
    assert all_of_them[4, 4] < 0.02 < 0.3 < one[4, 4]
    assert (all_of_them <= two + 1e-3).all()  # remembered in half precision
    assert (two <= one + 1e-3).all()
    alone = filled(good[:1], by_place=True)
    torch.testing.assert_close(one.mean(), alone.distances(x).mean(), rtol=0.1, atol=0.01)
    # Of what is left out, the others remain.
    others = filled(good, by_place=True, alike=2).distances(good[0][None], 0)
    assert others.isfinite().all()
    assert others.mean() > 0.2


@both_ways
def test_principal_components_keep_a_lower_bound(by_place: bool) -> None:
    good, x = images(4), images(1, seed=5)[0][None]
    whole, few = (filled(good, by_place=by_place, dimensions=k).distances(x) for k in (64, 12))
    assert (few <= whole + 2e-3).all()
    assert few.max() > 0


@both_ways
def test_a_remembered_image_has_no_distance_unless_it_is_left_out(by_place: bool) -> None:
    good = images(5)
    memory = filled(good, by_place=by_place)
    assert sorted(memory.kin) == [0, 1, 2, 3, 4]
    for number, image in enumerate(good):
        assert memory.distances(image[None]).max() < 0.01
        without = memory.distances(image[None], number)
        assert without.min() > 0.1
        others = [one for other, one in enumerate(good) if other != number]
        alone = filled(others, by_place=by_place)
        torch.testing.assert_close(without, alone.distances(image[None]), atol=3e-3, rtol=0)


@both_ways
def test_an_image_is_left_out_with_its_group(by_place: bool) -> None:
    """Of four things there are two nearly equal images each."""
    good = [one + 0.01 * noise for one in images(4) for noise in images(2, seed=7)]
    of = [number // 2 for number in range(8)]
    memory = filled(good, by_place=by_place, groups=of)
    without = memory.distances(good[0][None], 0)
    alone = filled(good[2:], by_place=by_place)
    torch.testing.assert_close(without, alone.distances(good[0][None]), atol=3e-3, rtol=0)
    each = filled(good, by_place=by_place)
    assert each.distances(good[0][None], 0).max() < 0.1 < without.min()
    assert each.usual.mean.max() < 0.1 < memory.usual.mean.min()
    # What is remembered is the same, and where all is of one thing each image is by itself.
    assert torch.equal(each.bank, memory.bank)
    one = filled(good, by_place=by_place, groups=[0] * 8)
    assert torch.equal(one.usual.mean, each.usual.mean)


@both_ways
def test_a_group_is_left_out_as_far_as_it_is_remembered(by_place: bool) -> None:
    good = images(9)
    memory = filled(
        good, by_place=by_place, capacity=50, images=4, groups=[number % 3 for number in range(9)]
    )
    for number in memory.kin:
        assert memory.distances(good[number][None], number).isfinite().all()


def test_places_matter_only_where_they_are_asked_to() -> None:
    good = images(4, 1, 64, 64)
    moved = good[0].roll(32, 2)[None]
    inner = (slice(5, -5), slice(10, 15))  # off the border and the seam, where the pieces themselves differ
    anywhere, by_place = (filled(good, by_place=way).distances(moved)[0] for way in (False, True))
    assert anywhere[inner].max() < 0.01
    assert by_place[inner].min() > 0.1


# -- what is shown -------------------------------------------------------------------------------------


@both_ways
def test_what_is_usual_for_good_images_is_not_shown(by_place: bool) -> None:
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
    spoiled = x.clone()
    spoiled[..., 18:30, 18:30] = torch.rand(12, 12, generator=generator)
    assert memory(spoiled)[..., 20:28, 20:28].mean() > 5 * shown.mean() + 1
    torch.testing.assert_close(memory(spoiled)[..., :8, :8], shown[..., :8, :8], atol=0.2, rtol=0.2)


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
    assert memory.size.tolist() == [48, 60]
    for image, size in zip(good, sizes, strict=True):
        assert memory(image[None]).shape == (1, 1, *size)
        brought = torch.nn.functional.interpolate(image[None], (48, 60), mode="bilinear", antialias=True)
        assert memory.distances(brought).max() < 0.02
    assert memory.distances(torch.rand(1, 1, 48, 60, generator=seeded())).mean() > 0.3


@both_ways
def test_one_image_can_be_remembered(by_place: bool) -> None:
    (only,) = images(1)
    memory = filled([only], by_place=by_place)
    assert len(memory.kin) == 1
    assert memory(only[None]).max() < 0.02
    assert memory(images(1, seed=3)[0][None]).mean() > 0.1


# -- how much, and where it is kept --------------------------------------------------------------------


@both_ways
def test_no_more_is_remembered_than_is_allowed(by_place: bool) -> None:
    good = images(9)
    memory = filled(good, by_place=by_place, capacity=50, images=4, dimensions=7)
    assert memory.by_place is by_place
    assert memory.bank.shape == ((9, 11, 4, 7) if by_place else (50, 7))
    assert memory.bank.dtype == torch.float16
    assert len(memory.kin) == (4 if by_place else 9)


@both_ways
def test_the_same_seed_remembers_the_same(by_place: bool) -> None:
    first = filled(images(5), by_place=by_place, capacity=60)
    again = filled(images(5), by_place=by_place, capacity=60)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@both_ways
def test_a_memory_comes_back_from_disk_bit_by_bit_into_one_that_is_empty(by_place: bool) -> None:
    memory = filled(images(3), by_place=by_place)
    memory.network.learn([torch.rand(8, 8, generator=seeded(n)) for n in range(20)], by_place=True)
    memory.weigh((2.0, 3.0), 0.7)
    other = small()
    assert other.is_empty
    other.load_state_dict(load(save(memory.state_dict())))
    x = images(1, seed=8)[0][None]
    assert torch.equal(other(x), memory(x))
    network = torch.rand(32, 40, generator=seeded(9))
    assert torch.equal(other.join(network, other(x)[0, 0]), memory.join(network, memory(x)[0, 0]))
    assert (other.by_place, other.is_empty) == (by_place, False)


@both_ways
def test_what_is_forgotten_leaves_the_memory_as_it_was_made(by_place: bool) -> None:
    memory = filled(images(3), by_place=by_place)
    memory.network.learn([torch.rand(8, 8, generator=seeded(n)) for n in range(20)], by_place=True)
    memory.weigh((2.0, 3.0), 0.7)
    memory.forget()
    assert memory.is_empty
    fresh = small().state_dict()
    assert list(memory.state_dict()) == list(fresh)
    assert all(torch.equal(value, fresh[name]) for name, value in memory.state_dict().items())


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
        ("corruption=[]", "memory 'structure' is weighed by the corruption 'blemishes'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_a_line(setting: str, words: str) -> None:
    with pytest.raises(RecipeError) as error:
        build(override(load_recipe("blemish"), [setting]), 1)
    assert "\n" not in str(error.value)
    assert words in str(error.value)


# -- local contrast ------------------------------------------------------------------------------------


def rough(count: int, side: int = 128, seed: int = 3) -> list[Tensor]:
    """Fine noise, everywhere alike."""
    return [0.5 + 0.05 * torch.randn(1, side, side, generator=seeded(seed + k)) for k in range(count)]


def test_contrast_is_the_logarithm_of_the_deviation_in_a_window() -> None:
    x = torch.rand(1, 2, 50, 64, generator=seeded())
    planes = []
    for plane in x[0].double().numpy():
        mean, square = (gaussian_filter(values, 4, truncate=3) for values in (plane, plane * plane))
        sigma = np.sqrt(square - mean * mean)
        planes.append(np.log(sigma + 0.3 * sigma.mean()))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(np.stack(planes))[None], (12, 16), mode="bilinear", antialias=True
    )
    torch.testing.assert_close(contrast(x).double(), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(contrast(3 * x + 0.2), contrast(x) + math.log(3), atol=1e-3, rtol=0)
    assert contrast(torch.full((1, 1, 32, 32), 0.7)).isfinite().all()


@both_ways
def test_an_area_of_another_contrast_is_found_though_its_structure_is_usual(by_place: bool) -> None:
    good = rough(12)
    x, spoiled = good[11][None], good[11][None].clone()
    spoiled[..., 40:88, 40:88] = 0.5 + (spoiled[..., 40:88, 40:88] - 0.5) / 4
    ratios = []
    for contrasts in (False, True):
        memory = MemoryBank(contrast=contrasts)
        memory.fill(good[:11], seeded(), by_place=by_place)
        inside = memory(spoiled)[..., 48:80, 48:80].mean()
        ratios.append(float(inside / memory(x)[..., 48:80, 48:80].mean()))
    assert ratios[0] < 1 < 5 < ratios[1], ratios


@both_ways
def test_structure_and_contrast_are_added(by_place: bool) -> None:
    good = rough(4)
    memory = MemoryBank()
    memory.fill(good[:3], seeded(), by_place=by_place)
    assert memory.contrasts is not None
    x = good[3][None]
    coarse = torch.nn.functional.interpolate(
        memory.contrasts(contrast(x)), x.shape[2:], mode="bilinear", antialias=True
    )
    assert coarse.max() > 0
    torch.testing.assert_close(memory(x), PatchBank.forward(memory, x) + coarse)


@both_ways
def test_with_contrasts_light_changes_nothing_and_the_disk_keeps_them(by_place: bool) -> None:
    good = rough(4)
    memory, other = MemoryBank(), MemoryBank()
    memory.fill(good[:3], seeded(), by_place=by_place)
    assert memory.contrasts is not None
    assert not memory.contrasts.is_empty
    x = good[3][None]
    torch.testing.assert_close(memory(0.7 * x + 0.1), memory(x), atol=2e-2, rtol=2e-2)
    other.load_state_dict(load(save(memory.state_dict())))
    assert torch.equal(other(x), memory(x))
    # A remembered image is as unlike the others as if it had not been remembered.
    left_out, without = memory(good[1][None], 1), memory(good[1][None])
    assert left_out.mean() > without.mean() + 0.1
    memory.forget()
    assert memory.contrasts.is_empty


def test_small_images_are_compared_in_structure_alone() -> None:
    def filled_with(*sizes: int) -> MemoryBank:
        memory = MemoryBank()
        memory.fill(
            [one[:, :size] for one, size in zip(rough(3), sizes, strict=True)], seeded(), by_place=True
        )
        assert not memory.is_empty
        assert memory.contrasts is not None
        return memory

    # The median image counts, as long as each is large enough for one piece.
    assert filled_with(127, 127, 128).contrasts.is_empty
    assert filled_with(35, 128, 128).contrasts.is_empty
    assert not filled_with(36, 128, 128).contrasts.is_empty
    both = MemoryBank()
    both.fill(rough(3), seeded(), by_place=False)
    assert both(rough(1)[0][None, :, :36, :40]).shape == (1, 1, 36, 40)
    with pytest.raises(
        UsageError, match="an image of 40 × 35 pixels is too small to be compared in local contr"
    ):
        both(rough(1)[0][None, :, :35, :40])


# -- how small the shipped detectors are ---------------------------------------------------------------


@pytest.mark.parametrize(("name", "giga"), [("blemish", 20), ("blemish-small", 3)])
@both_ways
def test_the_shipped_detectors_are_small_and_quick(name: str, giga: float, by_place: bool) -> None:
    """Network and a full memory together, for a grey image of 256 × 256."""
    from torch.utils.flop_counter import FlopCounterMode

    from blemish.preprocessing.tiling import TilePlan

    recipe = load_recipe(name)
    torch.manual_seed(0)
    model = build(recipe, 1).eval()
    memory = model.memory
    assert memory is not None
    assert memory.contrasts is not None
    # Full to capacity with noise in place of images, which costs the same.
    for pieces, side in ((memory, 256), (memory.contrasts, 64)):
        places = (side // pieces.stride + 1,) * 2
        shape = (*places, pieces.images) if by_place else (pieces.capacity,)
        pieces.mean = torch.zeros(pieces.patch**2)
        pieces.basis = torch.randn(pieces.patch**2, pieces.dimensions)
        pieces.bank = torch.randn(*shape, pieces.dimensions).half()
        pieces.usual.mean = pieces.usual.spread = torch.ones(places if by_place else (1, 1))
        pieces.size = torch.tensor([side, side])
    x = torch.rand(1, 256, 256, generator=seeded())
    patch, stride = recipe.patch.size, recipe.patch.stride
    plan = TilePlan((256, 256), (patch, patch), (stride, stride))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for _, tiles in plan.tiles(x.numpy(), batch=16):
            model.examine(torch.from_numpy(tiles))
        assert memory(x[None]).isfinite().all()
    assert 0 < counter.get_total_flops() < giga * 1e9
    assert sum(parameter.numel() for parameter in model.parameters()) < 10e6
