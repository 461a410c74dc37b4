"""The extractors of the package against their definitions, and what every registered extractor promises."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from blemish.detectors.feature_extractors import (
    FEATURE_EXTRACTORS,
    FeatureExtractor,
    LocalContrast,
    Structure,
    WideStructure,
    local_contrast,
    local_means,
    structure,
)
from blemish.errors import UsageError
from blemish.training.fit import fit


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, channels: int = 1, height: int = 32, width: int = 40, seed: int = 0) -> list[Tensor]:
    return list(torch.rand(count, channels, height, width, generator=seeded(seed)))


# -- patches -------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_differ_by_twice_what_their_structure_lacks(channels: int) -> None:
    x, y = images(2, channels, 21, 17)
    one, other = structure(torch.stack([x, y]), 8, 4, 1e-9)
    assert one.shape == (6, 5, channels * 64)
    own, others = patches_of(x), patches_of(y)
    for place in np.ndindex(6, 5):
        difference = float((one[place] - other[place]).square().mean())
        assert difference == pytest.approx(2 * (1 - likeness(own[place], others[place])), abs=1e-5)


def test_flat_patches_count_the_less_the_flatter_they_are() -> None:
    x = torch.rand(1, 1, 32, 32, generator=seeded())
    x[..., :16] = 0.5 + 0.01 * (x[..., :16] - 0.5)
    length = structure(x, 8, 4, 1.0).square().mean(-1).sqrt()[0]
    assert length[:, :3].max() < 0.05
    assert length[:, 6:].min() > 0.4
    assert structure(torch.full((1, 1, 32, 32), 0.3), 8, 4, 1.0).abs().max() < 1e-3


@pytest.mark.parametrize("size", [(4, 40), (40, 3)])
def test_an_image_too_small_to_be_mirrored_is_refused_in_a_line(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=f"{size[1]} × {size[0]} pixels is too small .* at least 5 × 5$"):
        structure(torch.rand(1, 1, *size), 8, 4, 1.0)


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
    torch.testing.assert_close(local_contrast(x).double(), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        local_contrast(3 * x + 0.2), local_contrast(x) + math.log(3), atol=1e-3, rtol=0
    )
    assert local_contrast(torch.full((1, 1, 32, 32), 0.7)).isfinite().all()


# -- every registered extractor ------------------------------------------------------------------------


@pytest.fixture(params=sorted(FEATURE_EXTRACTORS))
def extractor(request: pytest.FixtureRequest) -> FeatureExtractor:
    return FEATURE_EXTRACTORS[request.param]().eval()


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3])
def test_features_lie_on_a_grid_and_are_those_of_each_image_alone(
    extractor: FeatureExtractor, channels: int
) -> None:
    x = torch.rand(2, channels, 150, 171, generator=seeded())
    reduced = extractor.reduced(x)
    assert reduced.shape[2:] == (150 // extractor.reduction, 171 // extractor.reduction)
    features = extractor(reduced)
    for side, count in zip(reduced.shape[2:], features.shape[1:3], strict=True):
        last = extractor.offset + (count - 1) * extractor.stride
        assert side - extractor.stride <= last <= side
    assert features.isfinite().all()
    assert torch.equal(extractor(extractor.reduced(x)), features)
    for one, own in zip(x, features, strict=True):
        torch.testing.assert_close(extractor(extractor.reduced(one[None]))[0], own, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_light_is_ignored_where_that_is_promised(extractor: FeatureExtractor) -> None:
    x = torch.rand(1, 1, 140, 150, generator=seeded())
    before, after = (extractor(extractor.reduced(one)) for one in (x, 0.4 * x + 0.3))
    if extractor.ignores_light:
        torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-2)
    else:
        assert not torch.allclose(after, before, atol=1e-3, rtol=1e-2)


@torch.no_grad()
def test_the_least_side_is_the_least(extractor: FeatureExtractor) -> None:
    side = extractor.least_side
    extractor.check(side, side + 9)
    assert extractor(extractor.reduced(torch.rand(1, 1, side, side + 9))).isfinite().all()
    with pytest.raises(UsageError, match=f"{side + 9} × {side - 1} pixels is too small"):
        extractor.check(side - 1, side + 9)


def test_flat_images_have_finite_features(extractor: FeatureExtractor) -> None:
    flat = torch.full((1, 2, 64, 64), 0.4)
    assert extractor(extractor.reduced(flat)).isfinite().all()


def test_local_contrast_has_room_from_two_patches_on() -> None:
    sizes = torch.tensor([[127, 300], [128, 130], [128, 128]])
    assert LocalContrast().has_room(sizes)
    assert not LocalContrast().has_room(sizes - 1)
    assert not LocalContrast().has_room(torch.tensor([[35, 300], [128, 130], [128, 128]]))
    assert Structure().has_room(torch.tensor([[9, 9]]))
    assert WideStructure().has_room(sizes)
    assert not WideStructure().has_room(sizes - 1)
    assert not WideStructure().has_room(torch.tensor([[16, 300], [128, 130], [128, 128]]))


# -- colour --------------------------------------------------------------------------------------------


def test_local_means_are_those_of_the_patches() -> None:
    x = torch.rand(2, 3, 24, 32)
    found = local_means(x, 8, 4)
    assert found.shape == (2, 7, 9, 3)
    torch.testing.assert_close(found[1, 3, 4], x[1, :, 8:16, 12:20].mean((1, 2)))
    torch.testing.assert_close(local_means(x + 0.25, 8, 4), found + 0.25)


@pytest.mark.parametrize(
    ("features", "sees"), [("[{name: structure}]", False), ("[{name: structure}, {name: colour}]", True)]
)
def test_another_colour_of_a_whole_surface_is_seen_by_its_colour_alone(
    tmp_path: Path, features: str, sees: bool
) -> None:
    def surface(seed: int, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
        rng = np.random.default_rng(seed)
        noise = rng.normal(0, 6, (48, 64, 1)) + rng.normal(0, 2, (48, 64, 3))
        return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)

    (tmp_path / "good").mkdir()
    for seed in range(24):
        Image.fromarray(surface(seed, (150, 110, 90))).save(tmp_path / "good" / f"{seed}.png")
    recipe = tmp_path / "bank.yaml"
    recipe.write_text(
        "name: bank\ntitle: Bank\npaper: none\nexpect: a test\n"
        f"image: {{size: 48, other_kinds: accept}}\nmemory: {{features: {features}}}\n"
    )
    detector = fit(tmp_path / "good", recipe, false_reject_rate=0.2)
    other = [detector.inspect(surface(100 + seed, (90, 110, 150))).is_anomalous for seed in range(8)]
    same = [detector.inspect(surface(200 + seed, (150, 110, 90))).is_anomalous for seed in range(8)]
    assert np.mean(same) < 0.6
    assert all(other) == sees
    assert np.mean(other) > 0.9 if sees else np.mean(other) < 0.6
