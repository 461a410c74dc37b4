from __future__ import annotations

import numpy as np
import pytest

from blemish.decision.scores import SCORES, image_score
from blemish.errors import RecipeError


@pytest.fixture
def residual_map() -> np.ndarray:
    return np.random.default_rng(0).gamma(2.0, size=(37, 23)).astype(np.float32)


def test_mean_and_max_are_those_of_the_map_in_double_precision(residual_map: np.ndarray) -> None:
    assert image_score(residual_map, kind="mean") == np.mean(residual_map, dtype=np.float64)
    assert image_score(residual_map, kind="max") == float(residual_map.max())


def test_top_quantile_averages_the_largest_values(residual_map: np.ndarray) -> None:
    largest = np.sort(residual_map.ravel().astype(np.float64))[::-1]
    kept = largest.size - int(np.ceil(0.9 * (largest.size - 1)))
    assert image_score(residual_map, kind="top-quantile", quantile=0.9) == pytest.approx(
        largest[:kept].mean(), rel=1e-14
    )


def test_top_quantile_spans_from_the_mean_to_the_maximum(residual_map: np.ndarray) -> None:
    assert image_score(residual_map, kind="top-quantile", quantile=0) == image_score(
        residual_map, kind="mean"
    )
    assert image_score(residual_map, kind="top-quantile", quantile=1) == image_score(residual_map, kind="max")


def test_smoothed_max_of_a_single_pixel_is_the_peak_of_the_gaussian() -> None:
    residual_map = np.zeros((101, 101))
    residual_map[50, 50] = 1.0
    taps = np.exp(-0.5 * (np.arange(-16, 17) / 4.0) ** 2)
    assert image_score(residual_map, kind="smoothed-max", sigma=4.0) == pytest.approx(
        (1 / taps.sum()) ** 2, rel=1e-12
    )


def test_smoothed_max_prefers_a_large_defect_to_a_brighter_pixel() -> None:
    pixel, blob = np.zeros((2, 64, 64))
    pixel[30, 30] = 1.0
    blob[25:35, 25:35] = 0.5
    assert image_score(pixel, kind="max") > image_score(blob, kind="max")
    assert image_score(pixel, kind="smoothed-max") < image_score(blob, kind="smoothed-max")


@pytest.mark.parametrize("kind", SCORES)
def test_every_score_of_a_constant_map_is_the_constant(kind: str) -> None:
    assert image_score(np.full((9, 14), 0.25), kind=kind) == pytest.approx(0.25, rel=1e-14)


@pytest.mark.parametrize("kind", SCORES)
def test_every_score_scales_with_the_map_and_grows_with_it(kind: str, residual_map: np.ndarray) -> None:
    score = image_score(residual_map, kind=kind)
    assert image_score(4 * residual_map, kind=kind) == pytest.approx(4 * score, rel=1e-14)
    assert image_score(residual_map + 1, kind=kind) > score
    assert image_score(residual_map[:, ::-1].T, kind=kind) == pytest.approx(score, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"kind": "median"}, "median"),
        ({"kind": "top-quantile", "quantile": 1.5}, "1.5"),
        ({"kind": "smoothed-max", "sigma": 0}, "sigma 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        image_score(np.ones((3, 3)), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("broken", [np.ones(3), np.ones((0, 3)), np.array([[np.nan]]), np.array([[np.inf]])])
def test_maps_without_a_score_are_refused(broken: np.ndarray) -> None:
    with pytest.raises(ValueError, match="anomaly map"):
        image_score(broken, kind="mean")


def test_multi_scale_max_is_the_geometric_mean_over_three_scales(residual_map: np.ndarray) -> None:
    each = [image_score(residual_map, kind="smoothed-max", sigma=sigma) for sigma in (1.5, 3.0, 6.0)]
    found = image_score(residual_map, kind="multi-scale-max", sigma=1.5)
    assert found == pytest.approx(np.prod(each) ** (1 / 3), rel=1e-12)
    assert image_score(7 * residual_map, kind="multi-scale-max", sigma=1.5) == pytest.approx(7 * found)
    assert image_score(np.zeros((9, 9)), kind="multi-scale-max") == 0


def test_multi_scale_max_prefers_a_connected_line_to_a_speckle_of_the_same_height() -> None:
    line, speckle = np.zeros((64, 64)), np.zeros((64, 64))
    line[32, 12:52] = 1.0
    speckle[32, 32] = 1.0
    assert image_score(line, kind="max") == image_score(speckle, kind="max")
    scores = [image_score(one, kind="multi-scale-max", sigma=2.0) for one in (line, speckle)]
    assert scores[0] > 5 * scores[1]
