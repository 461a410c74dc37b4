"""Places outside the image are absent: not remembered, not in the statistics of good images, and no neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blemish.detectors.feature_extractors import Colour, FeatureExtractor, LocalContrast, Structure
from blemish.detectors.filter_bank import FilterBank
from blemish.detectors.map_normaliser import MapNormaliser
from blemish.detectors.patch_bank import ABSENT, PatchBank
from blemish.export.graphs import search_graph
from blemish.runtime.bank import ArrayBank
from blemish.runtime.features import EXTRACTORS
from blemish.runtime.record import ExportedBank, ExportedExtractor
from blemish.runtime.sessions import open_session

EDGE = 72
"""First column outside of the images that are cut."""


def textures(count: int, seed: int = 0, channels: int = 2) -> list[Tensor]:
    """Smooth noise (C, 104, 120)."""
    noise = torch.rand(count, channels, 104, 120, generator=torch.Generator().manual_seed(seed))
    return list(torch.nn.functional.avg_pool2d(noise, 5, 1, 2))


def cut(image: Tensor) -> Tensor:
    image = image.clone()
    image[:, :, EDGE:] = torch.nan
    return image


def filled_bank(extractor: FeatureExtractor, good: list[Tensor], *, by_place: bool, **more: Any) -> PatchBank:
    settings = {"dimensions": 4096, "capacity": 10**6, "images": 100, "nearest_images": 100, "reach": 0}
    bank = PatchBank(extractor, **{**settings, **more})
    bank.fit(good, torch.Generator().manual_seed(0), by_place=by_place)
    return bank


extractors = pytest.mark.parametrize(
    "make", [lambda: Structure(patch=8), lambda: LocalContrast(patch=8, stride=2), lambda: Colour()]
)


def test_a_bank_anywhere_holds_no_place_outside() -> None:
    good = textures(4)
    bank = filled_bank(Colour(patch=8, stride=4), [*good[:3], cut(good[3])], by_place=False)
    rows, columns, inside = 104 // 4 + 1, 120 // 4 + 1, EDGE // 4
    # the first place is at pixel 0, and place 18 at column 72, the first one outside
    assert len(bank.bank) == 3 * rows * columns + rows * inside


@extractors
def test_a_bank_by_place_marks_the_places_outside(make: Any) -> None:
    good = textures(4)
    extractor = make()
    bank = filled_bank(extractor, [*good[:3], cut(good[3])], by_place=True)
    is_absent = (bank.bank == ABSENT).all(3)
    columns = torch.arange(is_absent.shape[1]) * extractor.stride * extractor.reduction
    assert (is_absent.sum((0, 2)) == torch.where(columns >= EDGE, is_absent.shape[0], 0)).all()
    assert torch.isfinite(bank.bank).all()  # weights with NaN are refused as damaged


def test_what_is_absent_is_never_the_nearest() -> None:
    good, x = textures(4), textures(1, seed=5)[0][None]
    # All dimensions are kept, so that distances do not depend on the axes.
    cut_one = filled_bank(Structure(patch=8), [*good[:3], cut(good[3])], by_place=True).distances(x)[0]
    without = filled_bank(Structure(patch=8), good[:3], by_place=True).distances(x)[0]
    whole = filled_bank(Structure(patch=8), good, by_place=True).distances(x)[0]
    right = EDGE // 4 + 4
    torch.testing.assert_close(cut_one[:, right:], without[:, right:], atol=2e-3, rtol=0)
    assert (cut_one[:, right:] - whole[:, right:]).abs().max() > 0.02
    assert (cut_one[:, :12] - without[:, :12]).abs().max() > 0.02


def test_where_no_good_image_reaches_the_nearest_known_place_counts() -> None:
    bank = filled_bank(Structure(patch=8), [cut(image) for image in textures(5)], by_place=True)
    x = textures(1, seed=5)[0]
    distances = bank.distances(x[None])[0]
    assert distances[:, EDGE // 4 + 4 :].isnan().all()
    values = bank(x[None])[0, 0]
    assert torch.isfinite(values).all()
    assert (values[:, -1] == values[:, -8]).all()


@extractors
@pytest.mark.parametrize("by_place", [False, True])
def test_the_map_is_zero_outside_and_depends_on_the_inside_alone(make: Any, by_place: bool) -> None:
    bank = filled_bank(make(), [*textures(5), cut(textures(1, 3)[0])], by_place=by_place, capacity=2000)
    x = cut(textures(1, seed=5)[0])[None]
    values = bank(x)[0, 0]
    assert torch.isfinite(values).all()
    assert not values[:, EDGE:].any()
    assert values[:, :EDGE].any()


@pytest.mark.parametrize("make", [lambda: Structure(patch=8), lambda: LocalContrast(patch=8, stride=2)])
def test_the_moments_of_an_extractor_are_those_of_the_inside(make: Any) -> None:
    """Far from its border an image that is cut has the features of its left part alone."""
    extractor = make()
    bank = filled_bank(extractor, textures(3), by_place=False)
    whole = textures(1, seed=5)[0]
    whole[:, :, EDGE:] *= 8  # so that moments of the right part would show
    own = bank._features(bank._reduced(cut(whole)[None]))[0]
    alone = bank._features(bank._reduced(whole[None, :, :, :EDGE]))[0]
    columns = EDGE // 3 // (extractor.stride * extractor.reduction)
    assert columns >= 2
    torch.testing.assert_close(own[:, :columns], alone[:, :columns], atol=0.06, rtol=0.05)


def test_a_normaliser_measures_the_inside_of_each_place() -> None:
    maps = list(torch.rand(20, 24, 30, generator=torch.Generator().manual_seed(0)))
    whole, found = MapNormaliser(), MapNormaliser()
    whole.fit(maps[4:], by_place=True)
    for one in maps[:4]:
        one[:, 20:] = torch.nan
    found.fit(maps, by_place=True)
    torch.testing.assert_close(found.mean[:, 22:], whole.mean[:, 22:])
    torch.testing.assert_close(found.spread[:, 22:], whole.spread[:, 22:])


def test_a_normaliser_of_all_places_measures_the_inside() -> None:
    maps = list(torch.rand(4, 24, 30, generator=torch.Generator().manual_seed(0)))
    maps[0][:, 20:] = torch.nan
    found = MapNormaliser()
    found.fit(maps, by_place=False)
    inside = torch.cat([maps[0][:, :20].flatten(), *(one.flatten() for one in maps[1:])])
    torch.testing.assert_close(found.mean.squeeze(), inside.mean())
    torch.testing.assert_close(found.spread.squeeze(), inside.std(correction=0))


def test_a_filter_bank_measures_the_inside() -> None:
    good = [image.numpy() for image in textures(20)]
    others, found = FilterBank(), FilterBank()
    others.fit_images(good[2:])
    found.fit_images([cut(image).numpy() for image in textures(20)[:2]] + good[2:])
    right = EDGE // 4 + 4
    torch.testing.assert_close(found.mean[..., right:], others.mean[..., right:], atol=1e-4, rtol=1e-3)
    assert torch.isfinite(found.mean).all()
    assert torch.isfinite(found.spread).all()
    few = FilterBank()
    few.fit_images([cut(image).numpy() for image in textures(4)])
    assert torch.isfinite(few.mean).all()


@extractors
@pytest.mark.parametrize("by_place", [False, True])
def test_an_exported_bank_gives_the_same_map(make: Any, by_place: bool) -> None:
    extractor = make()
    good = [*textures(17), *(cut(image) for image in textures(3, seed=4))]
    bank = filled_bank(
        extractor, good, by_place=by_place, capacity=2000, dimensions=8, nearest_images=6, reach=1
    )
    name = {Structure: "structure", LocalContrast: "local-contrast", Colour: "colour"}[type(extractor)]
    record = ExportedBank(
        extractor=ExportedExtractor(
            name=name,
            patch=extractor.patch,
            floor=getattr(extractor, "floor", 0.0),
            stride=extractor.stride,
            least_side=extractor.least_side,
            title=extractor.title,
        ),
        search=None if by_place else "search.onnx",
        nearest_images=6,
        reach=1,
    )
    arrays = {name: value.numpy() for name, value in bank.state_dict().items()}
    search = None if by_place else open_session("onnx", search_graph(bank.bank), None, path="search.onnx")
    exported = ArrayBank(record, EXTRACTORS[name](record.extractor), arrays, search)
    for x in (cut(textures(1, seed=5)[0]), textures(1, seed=6)[0]):
        own = bank(x[None])[0, 0].numpy()
        assert own.max() > 0
        np.testing.assert_allclose(exported(x.numpy()), own, atol=2e-3 * own.max())
