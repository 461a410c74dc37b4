from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy import ndimage

from blemish.decision import metrics
from blemish.decision.pixel_metrics import PixelMetrics, PixelResult

FIGURES = ("auroc", "ap", "f1max", "iou_auc", "aupro_30", "aupro_05")


def make_masks(n: int = 10, size: int = 80, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = [ndimage.gaussian_filter(rng.normal(size=(size, size + 5)), 3) > 0.15 for _ in range(n)]
    for mask in masks[::2]:
        mask[:] = False
    return masks


def uniform(z: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.random(z.shape) * (0.7 + 0.3 * mask)


DISTRIBUTIONS = {
    "uniform": uniform,
    "lognormal": lambda z, mask, rng: np.exp(z + mask - 3),
    "near 1": lambda z, mask, rng: 1 + 0.05 * (z + mask),
    "hundredths": lambda z, mask, rng: np.round(np.clip(0.3 + 0.1 * (z + mask), 0, 1), 2),
    "eight bits": lambda z, mask, rng: np.round(np.exp(z + mask - 3).clip(0, 1) * 255) / 255,
    "many zeros": lambda z, mask, rng: np.maximum(0, z + mask - 0.5),
    "saturated": lambda z, mask, rng: np.minimum(1, np.exp(z + 2 * mask - 2)),
    "smooth": lambda z, mask, rng: ndimage.gaussian_filter(np.abs(z), 1) * (1 + 0.3 * mask),
    "wide": lambda z, mask, rng: np.exp(2 * z + mask - 3),
    "two values": lambda z, mask, rng: (z + mask > 1).astype(float),
    "constant": lambda z, mask, rng: np.full(z.shape, 0.3),
}


def make_maps(kind: str, masks: list[np.ndarray], seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [DISTRIBUTIONS[kind](rng.normal(size=m.shape), m, rng).astype(np.float32) for m in masks]


def gathered(
    maps: list[np.ndarray], masks: list[np.ndarray], *, resamples: int = 0, seed: int = 0
) -> PixelMetrics:
    gathering = PixelMetrics(resamples=resamples, seed=seed)
    for residual_map, mask in zip(maps, masks, strict=True):
        gathering.update(residual_map, mask)
    return gathering


def exact(maps: list[np.ndarray], masks: list[np.ndarray]) -> dict[str, float]:
    truth, values = np.concatenate([m.ravel() for m in masks]), np.concatenate([m.ravel() for m in maps])
    return {
        "auroc": metrics.roc_auc(truth, values),
        "ap": metrics.average_precision(truth, values),
        "f1max": metrics.f1_max(truth, values)[0],
        "iou_auc": metrics.iou_auc(masks, maps),
        "aupro_30": metrics.aupro(masks, maps, 0.3),
        "aupro_05": metrics.aupro(masks, maps, 0.05),
    }


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_every_figure_agrees_with_the_exact_one(kind: str) -> None:
    masks = make_masks()
    maps = make_maps(kind, masks)
    result, expected = gathered(maps, masks).result(), exact(maps, masks)
    for name in FIGURES:
        assert getattr(result, name) == pytest.approx(expected[name], abs=1e-4), name


@pytest.mark.parametrize("spread", [0.01, 0.003])
def test_residuals_crowded_around_one_value_cost_little(spread: float) -> None:
    masks = make_masks()
    rng = np.random.default_rng(2)
    maps = [(1 + spread * (rng.normal(size=m.shape) + m)).astype(np.float32) for m in masks]
    result, expected = gathered(maps, masks).result(), exact(maps, masks)
    for name in FIGURES:
        assert getattr(result, name) == pytest.approx(expected[name], abs=5e-4), name


@pytest.mark.parametrize("kind", ["hundredths", "eight bits", "two values", "constant"])
def test_ties_are_exact(kind: str) -> None:
    masks = make_masks(4, 40)
    maps = make_maps(kind, masks)
    result, expected = gathered(maps, masks).result(), exact(maps, masks)
    for name in FIGURES:
        assert getattr(result, name) == pytest.approx(expected[name], abs=1e-12), name


def test_the_state_does_not_grow_with_the_images() -> None:
    masks = make_masks(2, 40)
    maps = make_maps("lognormal", masks)
    gathering = gathered(maps, masks, resamples=20)
    before = len(pickle.dumps(gathering))
    for _ in range(40):
        for residual_map, mask in zip(maps, masks, strict=True):
            gathering.update(residual_map, mask)
    assert abs(len(pickle.dumps(gathering)) - before) < 100


def test_figures_do_not_depend_on_the_order_of_the_images() -> None:
    masks = make_masks(6, 40)
    maps = make_maps("lognormal", masks)
    forward, backward = gathered(maps, masks).result(), gathered(maps[::-1], masks[::-1]).result()
    for name in FIGURES:
        assert getattr(forward, name) == pytest.approx(getattr(backward, name), rel=1e-12)


def test_doubling_all_residuals_changes_nothing() -> None:
    masks = make_masks(4, 40)
    maps = make_maps("lognormal", masks)
    assert gathered(maps, masks).result() == gathered([2 * m for m in maps], masks).result()


def test_a_group_is_its_images_with_all_good_ones() -> None:
    masks = make_masks(8, 40)
    maps = make_maps("lognormal", masks)
    gathering = PixelMetrics(resamples=0)
    groups = ["good", "crack", "good", "crack", "good", "dent", "good", "dent"]
    for residual_map, mask, group in zip(maps, masks, groups, strict=True):
        gathering.update(residual_map, mask, group)
    result = gathering.result()
    assert set(result.groups) == {"crack", "dent"}
    kept = [i for i, group in enumerate(groups) if group != "crack"]
    expected = exact([maps[i] for i in kept], [masks[i] for i in kept])
    for name in FIGURES:
        assert getattr(result.groups["dent"], name) == pytest.approx(expected[name], abs=1e-4)
    assert (result.images, result.defective, result.groups["dent"].images) == (8, 4, 6)
    assert result.regions == sum(ndimage.label(mask, np.ones((3, 3)))[1] for mask in masks)
    assert result.model_copy(update={"groups": {}}) == gathered(maps, masks).result()


def test_intervals_have_the_spread_of_a_bootstrap_that_holds_all_maps() -> None:
    rng = np.random.default_rng(5)
    masks = make_masks(40, 16, seed=6)
    # Images differ in how visible their defects are, which is what the intervals must show.
    maps = [np.exp(rng.normal(size=m.shape) + rng.normal(1, 0.7) * m).astype(np.float32) for m in masks]
    result = gathered(maps, masks, resamples=400).result()
    drawn: dict[str, list[float]] = {name: [] for name in FIGURES}
    for _ in range(150):
        picks = rng.integers(0, len(maps), len(maps))
        figures = exact([maps[i] for i in picks], [masks[i] for i in picks])
        for name in ("auroc", "ap", "f1max", "aupro_30", "aupro_05"):
            drawn[name].append(figures[name])
    for name in ("auroc", "ap", "f1max", "aupro_30", "aupro_05"):
        low, high = result.intervals[name]
        assert low < getattr(result, name) < high
        assert high - low == pytest.approx(np.diff(np.quantile(drawn[name], [0.025, 0.975]))[0], rel=0.3), (
            name
        )


def test_intervals_shrink_with_the_number_of_images() -> None:
    widths = []
    for n in (10, 90):
        masks = make_masks(n, 12)
        low, high = gathered(make_maps("lognormal", masks), masks, resamples=200).result().intervals["auroc"]
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 3, rel=0.5)


def test_intervals_are_repeatable_and_unmoved_by_results_taken_on_the_way() -> None:
    masks = make_masks(8, 16)
    maps = make_maps("lognormal", masks)
    first = gathered(maps, masks, resamples=50, seed=4)
    second = PixelMetrics(resamples=50, seed=4)
    for residual_map, mask in zip(maps, masks, strict=True):
        second.update(residual_map, mask)
        second.result()
    for name, (low, high) in first.result().intervals.items():
        assert second.result().intervals[name] == pytest.approx((low, high), rel=1e-5)
    assert first.result().intervals != gathered(maps, masks, resamples=50, seed=5).result().intervals


def test_no_interval_from_a_single_image_with_defects() -> None:
    masks = make_masks(3, 16)
    assert gathered(make_maps("lognormal", masks), masks, resamples=50).result().intervals == {}


def test_without_a_class_there_are_no_figures() -> None:
    good = gathered([np.ones((4, 4))] * 2, [np.zeros((4, 4))] * 2, resamples=10).result()
    bad = gathered([np.ones((4, 4))] * 2, [np.ones((4, 4))] * 2, resamples=10).result()
    for result in (good, bad, PixelMetrics().result()):
        assert [getattr(result, name) for name in FIGURES] == [None] * 6
        assert result.intervals == {}
    assert (good.defective, bad.defective, bad.regions) == (0, 2, 2)


def test_maps_of_zeros_have_no_iou_curve_but_are_ties_elsewhere() -> None:
    mask = np.eye(4, dtype=bool)
    result = gathered([np.zeros((4, 4))] * 2, [mask] * 2, resamples=10).result()
    assert (result.auroc, result.ap, result.iou_auc) == (0.5, 0.25, None)
    assert "iou_auc" not in result.intervals


def test_the_result_survives_json() -> None:
    masks = make_masks(6, 16)
    result = gathered(make_maps("lognormal", masks), masks, resamples=20).result()
    assert PixelResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 65536.0, 1e300])
def test_residuals_out_of_range_are_refused_and_not_counted(value: float) -> None:
    residual_map = np.full((2, 2), 0.5)
    residual_map[1, 0] = value
    gathering = PixelMetrics(resamples=0)
    with pytest.raises(ValueError, match="residuals lie from 0"), np.errstate(over="ignore"):
        gathering.update(residual_map)
    assert gathering.result().images == 0


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="share one shape"):
        PixelMetrics().update(np.ones((2, 2)), np.ones((2, 3)))
    for wrong in (np.ones(4), np.ones((0, 4))):
        with pytest.raises(ValueError, match="anomaly map"):
            PixelMetrics().update(wrong)


def test_negative_zero_and_maps_that_are_views_are_read_right() -> None:
    mask = np.array([[True, False, False, False]])
    residual_map = np.array([[0.7, 9.0, 0.2, 9.0, -0.0, 9.0, 0.1, 9.0]])[:, ::2]
    assert gathered([residual_map], [mask]).result().auroc == 1.0


def test_only_counted_pixels_count() -> None:
    rng = np.random.default_rng(0)
    values, truth = rng.random((20, 30)), rng.random((20, 30)) > 0.8
    part, whole = PixelMetrics(resamples=0), PixelMetrics(resamples=0)
    counted = np.zeros((20, 30), np.bool_)
    counted[:, 10:] = True
    part.update(np.where(counted, values, 70000), truth, counted=counted)
    whole.update(values[:, 10:], truth[:, 10:])
    assert part.result() == whole.result()
    with pytest.raises(ValueError, match="at least one"):
        part.update(values, truth, counted=np.zeros((20, 30), np.bool_))
