from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from blemish.detectors.filter_bank import FilterBank, border_levels
from blemish.detectors.filter_deviation import largest_deviation, responses_of
from blemish.errors import UsageError


def surface(seed: int, shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1)
    return (0.5 + 0.1 * noise / noise.std()).clip(0, 1).astype(np.float32)[None]


@pytest.fixture(scope="module")
def bank() -> FilterBank:
    fitted = FilterBank()
    fitted.fit_images([surface(seed) for seed in range(24)])
    return fitted


def test_a_dark_line_is_where_the_map_is_largest(bank: FilterBank) -> None:
    x = surface(100)
    x[0, 20:44, 50] -= 0.35
    found = bank.maps(x).anomaly
    assert found.shape == x.shape[1:]
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert 14 <= row < 50
    assert 44 <= column < 56
    good = [bank.maps(surface(seed)).anomaly.max() for seed in range(200, 210)]
    assert found.max() > max(good)


def test_mean_and_spread_are_those_of_each_place(bank: FilterBank) -> None:
    responses = np.stack([responses_of(surface(seed)) for seed in range(24)])  # (n, 2, k, h, w)
    mean = responses.mean(0)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    expected = ndimage.uniform_filter(mean, (1, 1, 3, 3), mode="nearest")
    np.testing.assert_allclose(bank.mean.numpy()[inner], expected[inner], rtol=1e-3, atol=1e-3)
    variance = ndimage.uniform_filter(responses.var(0), (1, 1, 5, 5), mode="nearest")
    spread = np.sqrt(variance)
    spread += 0.5 * spread.mean((2, 3), keepdims=True) + 1e-3
    level = (np.abs(responses - bank.mean.numpy()) / spread).max(2).mean(1)  # (n, h, w)
    spread *= border_levels(level.astype(np.float32))
    np.testing.assert_allclose(bank.spread.numpy(), spread, rtol=1e-2, atol=1e-4)


def test_good_images_deviate_as_much_at_the_border_as_farther_inside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = (96, 96)
    responses = [responses_of(surface(seed, shape)) for seed in range(120)]

    def share_at_the_border() -> float:
        """Share of unseen good images whose largest deviation is in the outermost cells, 16 % of all."""
        fitted = FilterBank()
        fitted.fit_responses(responses[:60])
        reference = fitted.mean.numpy(), fitted.spread.numpy()
        deviations = [largest_deviation(one, *reference) for one in responses[60:]]
        return float(np.mean([one[1:-1, 1:-1].max() < one.max() for one in deviations]))

    assert share_at_the_border() < 0.3
    monkeypatch.setattr(
        "blemish.detectors.filter_bank.border_levels", lambda some: np.ones(some.shape[1:], np.float32)
    )
    assert share_at_the_border() > 0.45


def test_levels_at_the_border_are_at_least_one() -> None:
    rng = np.random.default_rng(0)
    deviations = rng.random((20, 12, 16)).astype(np.float32)
    deviations[:, 0] *= 3  # loud above
    deviations[:, 1:-1, 1] *= 0.2  # quiet beside
    levels = border_levels(deviations)
    assert levels[0, 5] == pytest.approx(
        np.quantile(deviations[:, _ring(12, 16) == 0], 0.99)
        / np.quantile(deviations[:, _ring(12, 16) >= 3], 0.99)
    )
    assert levels.min() == 1
    # Cells outside every image have no part in it.
    deviations[:, :, 0] = np.nan
    assert np.isfinite(border_levels(deviations)).all()
    assert np.array_equal(border_levels(np.full((3, 8, 8), np.nan, np.float32)), np.ones((8, 8)))
    assert np.array_equal(border_levels(np.zeros((3, 8, 8), np.float32)), np.ones((8, 8)))


def _ring(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.minimum(np.minimum(y, height - 1 - y), np.minimum(x, width - 1 - x))


def test_few_images_have_one_mean_for_all_places() -> None:
    few = FilterBank()
    few.fit_images([surface(seed) for seed in range(3)])
    assert few.mean.shape == (2, 31, 1, 1)
    assert np.isfinite(few.maps(surface(9)).anomaly).all()


def test_images_of_other_sizes_have_maps_of_their_own_size(bank: FilterBank) -> None:
    assert bank.maps(surface(1, (71, 99))).anomaly.shape == (71, 99)


def test_it_comes_back_from_its_state(bank: FilterBank) -> None:
    copy = FilterBank()
    copy.load_state_dict(bank.state_dict())
    x = surface(5)
    np.testing.assert_array_equal(copy.maps(x).anomaly, bank.maps(x).anomaly)
    copy.reset()
    assert copy.is_empty
    with pytest.raises(UsageError, match="fit them first"):
        copy.maps(x)
    copy.load_state_dict(FilterBank().state_dict())  # of a set whose filters do not count
    assert copy.is_empty


def test_images_of_one_grey_level_are_alike_and_a_defect_on_them_is_found() -> None:
    flat = FilterBank()
    flat.fit_images([np.full((1, 48, 48), 0.5, np.float32)] * 20)
    assert flat.maps(np.full((1, 48, 48), 0.5, np.float32)).anomaly.max() < 1e-2
    x = np.full((1, 48, 48), 0.5, np.float32)
    x[0, 24, 10:40] = 0.4
    assert flat.maps(x).anomaly.max() > 10


def test_what_it_cannot_take_is_refused(bank: FilterBank) -> None:
    x = np.repeat(surface(6), 2, 0)
    x[0, 3, 4] = np.nan  # a place that is absent in one channel only
    with pytest.raises(UsageError, match="absent values"):
        bank.maps(x)
    with pytest.raises(UsageError, match="30 × 64 pixels is too small"):
        bank.window((64, 30), slice(0, 64), slice(0, 30))


def test_colour_is_among_theresponses_of() -> None:
    """A place recoloured at the same brightness is far from the good images."""
    rng = np.random.default_rng(7)
    good = [np.repeat(surface(seed), 3, 0) + rng.normal(0, 0.005, (3, 1, 1)) for seed in range(20)]
    coloured = FilterBank()
    coloured.fit_images([image.astype(np.float32) for image in good])
    x = np.repeat(surface(50), 3, 0)
    before = coloured.maps(x).anomaly[20:40, 20:40].max()
    x[0, 20:40, 20:40] += 0.1
    x[1, 20:40, 20:40] -= 0.1
    assert coloured.maps(x).anomaly[20:40, 20:40].max() > 5 * before
