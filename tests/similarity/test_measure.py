"""Contract of every measure in the registry."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from blemish.errors import UsageError
from blemish.similarity import MEASURES, Measure

SETTINGS: dict[str, dict[str, Any]] = {
    "ms-ssim": {"weights": (0.4, 0.6)},  # the default five scales need 161 pixels
    "perceptual": {"network": "gabor"},  # VGG16 needs its weights; it is tested with the features
}


@pytest.fixture(params=MEASURES)
def measure(request: pytest.FixtureRequest) -> Measure:
    return make(request.param)


def make(name: str, data_range: float | None = 1.0) -> Measure:
    return MEASURES[name](data_range=data_range, **SETTINGS.get(name, {}))


def pair(channels: int = 3, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(channels)
    x = torch.rand(2, channels, 33, 27, generator=generator).to(dtype)
    return x, (x + 0.2 * torch.rand(x.shape, generator=generator).to(dtype)).clamp(0, 1)


@pytest.mark.parametrize("channels", [1, 3, 11])
def test_shapes_and_signs(measure: Measure, channels: int) -> None:
    x, y = pair(channels)
    where, how_much, loss = measure.distance_map(x, y), measure.distance(x, y), measure(x, y)
    assert where.shape == (2, 1, 33, 27)
    assert where.dtype == how_much.dtype == torch.float32
    assert where.min() >= 0
    assert how_much.shape == (2,)
    assert (how_much > 0).all()
    torch.testing.assert_close(loss, how_much.mean())


def test_distances_are_symmetric(measure: Measure) -> None:
    x, y = pair()
    torch.testing.assert_close(measure.distance(x, y), measure.distance(y, x))
    torch.testing.assert_close(measure.distance_map(x, y), measure.distance_map(y, x))


def test_the_distance_of_an_image_to_itself_is_zero(measure: Measure) -> None:
    x, _ = pair()
    assert measure.distance(x, x.clone()).abs().max() < 1e-6
    assert measure.distance_map(x, x.clone()).abs().max() < 1e-6


def test_the_map_is_highest_where_the_images_differ(measure: Measure) -> None:
    x, _ = pair()
    y = x.clone()
    y[:, :, 15:19, 12:16] = 1 - y[:, :, 15:19, 12:16]
    where = measure.distance_map(x, y)
    assert where[..., 15:19, 12:16].mean() > 5 * where.mean()


def test_an_image_has_the_same_distance_alone_and_in_a_batch(measure: Measure) -> None:
    x, y = pair()
    for n in range(2):
        torch.testing.assert_close(measure.distance(x[n : n + 1], y[n : n + 1])[0], measure.distance(x, y)[n])
        alone = measure.distance_map(x[n : n + 1], y[n : n + 1])
        torch.testing.assert_close(alone[0], measure.distance_map(x, y)[n])


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("other", [0.0, 0.4, "image"])
def test_finite_gradient_on_constant_images(measure: Measure, level: float, other: float | str) -> None:
    image, _ = pair()
    x = torch.full_like(image, level).requires_grad_()
    y = (image if isinstance(other, str) else torch.full_like(image, other)).requires_grad_()
    (measure(x, y) + measure.distance_map(x, y).mean()).backward()
    for batch in (x, y):
        assert batch.grad is not None
        assert batch.grad.isfinite().all()


@pytest.mark.parametrize("options", [{"gamma": 0.5}, {"alpha": 2, "beta": 0.5}], ids=str)
@pytest.mark.parametrize("name", ["ssim", "log-ssim"])
def test_finite_gradient_with_exponents(name: str, options: dict[str, float]) -> None:
    image, _ = pair()
    for other in (torch.full_like(image, 0.4), image, 1 - image):
        y = torch.full_like(image, 0.4).requires_grad_()
        MEASURES[name](data_range=1.0, **options)(other, y).backward()
        assert y.grad is not None
        assert y.grad.isfinite().all()


def test_a_step_along_the_gradient_lowers_the_distance(measure: Measure) -> None:
    x, y = pair()
    y = y.requires_grad_()
    before = measure(x, y)
    before.backward()
    assert y.grad is not None
    step = 1e-3 / y.grad.norm() * y.grad
    assert measure(x, y.detach() - step) < before


def test_an_image_gets_a_gradient_only_if_it_needs_one(measure: Measure) -> None:
    x, y = pair()
    both_x, both_y = x.clone().requires_grad_(), y.clone().requires_grad_()
    measure(both_x, both_y).backward()
    only_x, only_y = x.clone().requires_grad_(), y.clone().requires_grad_()
    measure(only_x, y).backward()
    measure(x, only_y).backward()
    torch.testing.assert_close(only_x.grad, both_x.grad)
    torch.testing.assert_close(only_y.grad, both_y.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(measure: Measure, dtype: torch.dtype) -> None:
    x, y = pair(dtype=dtype)
    y = y.requires_grad_()
    exact = measure.distance(x.float(), y.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = measure.distance(x, y)
        found.mean().backward()
    torch.testing.assert_close(found, exact)
    assert y.grad is not None
    assert y.grad.dtype == dtype
    assert y.grad.isfinite().all()


def test_double_precision_is_kept(measure: Measure) -> None:
    x, y = pair(dtype=torch.float64)
    exact = measure.distance(x, y)
    assert exact.dtype == measure.distance_map(x, y).dtype == torch.float64
    torch.testing.assert_close(exact.float(), measure.distance(x.float(), y.float()), atol=1e-5, rtol=1e-5)


def test_distances_do_not_depend_on_the_scale_of_the_values() -> None:
    x, y = pair()
    for name in MEASURES:
        torch.testing.assert_close(
            make(name, 255.0).distance(255 * x, 255 * y), make(name).distance(x, y), atol=1e-5, rtol=1e-4
        )


def test_the_input_images_are_not_modified(measure: Measure) -> None:
    x, y = pair()
    before = x.clone(), y.clone()
    measure(x, y.requires_grad_()).backward()
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


def test_a_measure_has_no_parameters_and_no_state(measure: Measure) -> None:
    assert not measure.state_dict()
    assert repr(type(measure)(**measure.settings())) == repr(measure)


@pytest.mark.parametrize("data_range", [None, 0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", MEASURES)
def test_the_data_range_must_be_given(name: str, data_range: float | None) -> None:
    with pytest.raises(UsageError, match="data_range"):
        make(name, data_range)
    with pytest.raises(UsageError, match="data_range"):
        MEASURES[name](**SETTINGS.get(name, {}))


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 31), "one shape"),
        (torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32), "one shape"),
        (torch.zeros(3, 32, 32), torch.zeros(3, 32, 32), "(N, C, H, W)"),
        (torch.zeros(1, 3, 32, 32).byte(), torch.zeros(1, 3, 32, 32).byte(), "uint8"),
        (torch.zeros(0, 3, 32, 32), torch.zeros(0, 3, 32, 32), "at least one pixel"),
    ],
    ids=["size", "channels", "one image", "bytes", "empty"],
)
def test_invalid_pairs_of_images_are_refused(measure: Measure, x: Tensor, y: Tensor, words: str) -> None:
    for call in (measure.distance, measure.distance_map):
        with pytest.raises(UsageError) as refusal:
            call(x, y)
        assert words in str(refusal.value)
