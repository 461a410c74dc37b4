from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics as reference

from blemish.decision import metrics


def sample(seed: int, n: int = 400, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.3
    scores = rng.normal(size=n) + labels
    return labels, np.round(scores, 1) if ties else scores


def masks_and_maps(
    seed: int, n: int = 6, size: int = 24, digits: int = 9
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    masks = [ndimage.gaussian_filter(rng.normal(size=(size, size + 3)), 2) > 0.25 for _ in range(n)]
    masks[0][:] = False
    maps = [np.round(np.abs(rng.normal(size=mask.shape) + mask), digits) for mask in masks]
    return masks, maps


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_areas_agree_with_scikit_learn(seed: int, ties: bool) -> None:
    labels, scores = sample(seed, ties=ties)
    assert metrics.roc_auc(labels, scores) == pytest.approx(
        reference.roc_auc_score(labels, scores), abs=1e-12
    )
    assert metrics.average_precision(labels, scores) == pytest.approx(
        reference.average_precision_score(labels, scores), abs=1e-12
    )


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    labels, scores = sample(0, n=60, ties=True)
    pairs = [(bad > good) + 0.5 * (bad == good) for bad in scores[labels] for good in scores[~labels]]
    assert metrics.roc_auc(labels, scores) == pytest.approx(np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_decisions_at_a_threshold_agree_with_scikit_learn(ties: bool) -> None:
    labels, scores = sample(1, ties=ties)
    for threshold in (-5.0, 0.0, 0.5, 1.0, 9.0):
        called = scores > threshold
        assert metrics.f1_at(labels, scores, threshold) == pytest.approx(reference.f1_score(labels, called))
        assert metrics.accuracy_at(labels, scores, threshold) == pytest.approx(
            reference.accuracy_score(labels, called)
        )
        accepted, rejected = metrics.accepted_and_rejected(labels, scores, threshold)
        assert accepted == pytest.approx(reference.recall_score(~labels, ~called))
        assert rejected == pytest.approx(reference.recall_score(labels, called))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_f1_max_is_the_best_of_all_thresholds_and_its_threshold_gives_it(seed: int, ties: bool) -> None:
    labels, scores = sample(seed, ties=ties)
    best, threshold = metrics.f1_max(labels, scores)
    assert best == pytest.approx(max(metrics.f1_at(labels, scores, t) for t in [-9.0, *scores]))
    assert metrics.f1_at(labels, scores, threshold) == best


def test_f1_max_can_call_all() -> None:
    best, threshold = metrics.f1_max([1, 1, 0], [0.0, 1.0, 0.5])
    assert best == pytest.approx(0.8)
    assert threshold < 0
    assert metrics.f1_at([1, 1, 0], [0.0, 1.0, 0.5], threshold) == best


def test_curves_agree_with_scikit_learn() -> None:
    labels, scores = sample(2, ties=True)
    roc = metrics.roc_curve(labels, scores)
    fpr, tpr, thresholds = reference.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc.x, fpr)
    np.testing.assert_allclose(roc.y, tpr)
    np.testing.assert_allclose(roc.thresholds, thresholds)
    pr = metrics.pr_curve(labels, scores)
    precision, recall, _ = reference.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(pr.x, recall[-2::-1])
    np.testing.assert_allclose(pr.y, precision[-2::-1])


def test_thinned_curves_keep_their_ends_and_their_shape() -> None:
    labels, scores = sample(3, n=5000)
    for curve in (metrics.roc_curve, metrics.pr_curve):
        full, thin = curve(labels, scores, points=10**6), curve(labels, scores, points=200)
        assert thin.x.size <= 200 < full.x.size
        for ours, whole in zip(thin, full, strict=True):
            assert (ours[0], ours[-1]) == (whole[0], whole[-1])
            assert np.isin(ours, whole).all()
        assert metrics.area(thin.y, thin.x) == pytest.approx(metrics.area(full.y, full.x), abs=2e-3)


@pytest.mark.parametrize("transform", [np.exp, np.cbrt, lambda s: 3 * s - 7])
def test_figures_that_use_the_order_alone_do_not_change_under_rising_transforms(
    transform: Callable[[np.ndarray], np.ndarray],
) -> None:
    labels, scores = sample(4)
    for metric in (metrics.roc_auc, metrics.average_precision, lambda a, b: metrics.f1_max(a, b)[0]):
        assert metric(labels, transform(scores)) == metric(labels, scores)
    masks, maps = masks_and_maps(4)
    moved = [transform(residual_map) for residual_map in maps]
    assert metrics.aupro(masks, moved) == metrics.aupro(masks, maps)


def test_auroc_of_the_opposite_is_its_complement() -> None:
    labels, scores = sample(5, ties=True)
    area = metrics.roc_auc(labels, scores)
    assert metrics.roc_auc(labels, -scores) == pytest.approx(1 - area, abs=1e-12)
    assert metrics.roc_auc(~labels, scores) == pytest.approx(1 - area, abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_no_area_and_no_curve(label: int) -> None:
    labels, scores = [label] * 3, [0.1, 0.2, 0.3]
    assert math.isnan(metrics.roc_auc(labels, scores))
    assert math.isnan(metrics.average_precision(labels, scores))
    assert metrics.roc_curve(labels, scores).x.size == metrics.pr_curve(labels, scores).x.size == 0
    assert np.isnan(metrics.bootstrap_interval(metrics.roc_auc, labels, scores)).all()
    accepted, rejected = metrics.accepted_and_rejected(labels, scores, 0.15)
    assert math.isnan(accepted if label else rejected)
    assert (rejected if label else accepted) == pytest.approx(2 / 3 if label else 1 / 3)


def test_without_anomalous_ones_there_is_no_f1() -> None:
    assert math.isnan(metrics.f1_at([0, 0], [0.1, 0.2], 0.15))
    assert np.isnan(metrics.f1_max([0, 0], [0.1, 0.2])).all()
    assert math.isnan(metrics.accuracy_at([], [], 0.5))


def overlap_and_fpr(masks: list[np.ndarray], maps: list[np.ndarray], threshold: float) -> tuple[float, float]:
    overlaps, false, good = [], 0, 0
    for mask, residual_map in zip(masks, maps, strict=True):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        overlaps += [np.mean(residual_map[labels == i] >= threshold) for i in range(1, count + 1)]
        false += int(np.sum(residual_map[~mask] >= threshold))
        good += int(np.sum(~mask))
    return float(np.mean(overlaps)), false / good


@pytest.mark.parametrize("digits", [9, 1])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_aupro_is_the_area_under_the_curve_taken_threshold_by_threshold(limit: float, digits: int) -> None:
    masks, maps = masks_and_maps(0, n=3, size=12, digits=digits)
    thresholds = np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]
    points = [(0.0, 0.0), *(overlap_and_fpr(masks, maps, t) for t in thresholds)]
    pro, fpr = np.array(points).T
    at = np.linspace(0, limit, 400_001)
    # At a vertical step np.interp gives its top; the grid makes the difference vanish.
    expected = np.mean(np.interp(at, fpr, pro))
    assert metrics.aupro(masks, maps, limit) == pytest.approx(expected, abs=1e-4)


def test_aupro_weights_regions_equally_whatever_their_area() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[1:11, 1:11] = True  # 100 pixels, found
    mask[15, 15] = True  # 1 pixel, missed
    residual_map = np.full((20, 20), 0.5)
    residual_map[1:11, 1:11] = 1.0
    residual_map[15, 15] = 0.0
    # The overlap is 0.5 at once; the missed pixel comes with the last of all, at a rate of 1.
    assert metrics.aupro([mask], [residual_map]) == pytest.approx(0.5)
    assert metrics.roc_auc(mask, residual_map) == pytest.approx(100 / 101)


def test_aupro_joins_regions_over_corners() -> None:
    mask = np.eye(3, dtype=bool)
    residual_map = np.diag([1.0, 0.0, 0.0]) + 0.5 * ~mask
    assert metrics.aupro([mask], [residual_map]) == pytest.approx(1 / 3)


def test_aupro_limits() -> None:
    masks, maps = masks_and_maps(1)
    assert metrics.aupro(masks, [mask.astype(float) for mask in masks]) == pytest.approx(1)
    assert metrics.aupro(masks, [1 - mask.astype(float) for mask in masks]) == 0
    # A constant map calls all or nothing: a straight line.
    assert metrics.aupro(masks, [np.ones_like(m) for m in maps], 0.3) == pytest.approx(0.15)
    assert math.isnan(metrics.aupro([masks[0]], [maps[0]]))
    assert math.isnan(metrics.aupro([np.ones((2, 2))], [np.ones((2, 2))]))
    with pytest.raises(ValueError, match="limit"):
        metrics.aupro(masks, maps, limit=0)


def test_a_curve_that_steps_up_at_the_limit_is_cut_below_the_step() -> None:
    x, y = np.array([0.0, 0.5, 0.5, 1.0]), np.array([0.0, 0.0, 1.0, 1.0])
    assert metrics.area_up_to(y, x, 0.5) == 0
    assert metrics.area_up_to(y, x, 0.75) == pytest.approx(1 / 3)
    assert metrics.area_up_to(y, x, 1.0) == 0.5


@pytest.mark.parametrize("digits", [9, 1])
def test_iou_auc_is_the_mean_iou_over_evenly_spaced_thresholds(digits: int) -> None:
    masks, maps = masks_and_maps(2, digits=digits)
    truth, values = np.concatenate([m.ravel() for m in masks]), np.concatenate([m.ravel() for m in maps])
    steps = 20_000
    thresholds = (np.arange(steps) + 0.5) / steps * values.max()
    iou = [np.sum(truth & (values > t)) / np.sum(truth | (values > t)) for t in thresholds]
    assert metrics.iou_auc(masks, maps) == pytest.approx(np.mean(iou), abs=1e-5)


def test_iou_auc_limits() -> None:
    masks, maps = masks_and_maps(3)
    assert metrics.iou_auc(masks, [mask.astype(float) for mask in masks]) == 1
    assert metrics.iou_auc(masks, [7 * m for m in maps]) == pytest.approx(metrics.iou_auc(masks, maps))
    share = np.mean(np.concatenate([m.ravel() for m in masks]))
    assert metrics.iou_auc(masks, [np.ones_like(m) for m in maps]) == pytest.approx(share)
    assert math.isnan(metrics.iou_auc([masks[0]], [maps[0]]))
    assert math.isnan(metrics.iou_auc(masks, [0 * m for m in maps]))
    with pytest.raises(ValueError, match="below 0"):
        metrics.iou_auc(masks, [-m for m in maps])


def test_the_bootstrap_has_the_spread_that_theory_gives() -> None:
    labels, scores = sample(6, n=600)
    low, high = metrics.bootstrap_interval(metrics.roc_auc, labels, scores, seed=1)
    # DeLong's variance of the area under the ROC curve
    bad, good = scores[labels], scores[~labels]
    higher = (bad[:, None] > good).astype(float)
    deviation = math.sqrt(
        np.var(higher.mean(1), ddof=1) / bad.size + np.var(higher.mean(0), ddof=1) / good.size
    )
    assert (high - low) / (2 * 1.96) == pytest.approx(deviation, rel=0.1)
    assert (high + low) / 2 == pytest.approx(metrics.roc_auc(labels, scores), abs=deviation / 5)


def test_the_bootstrap_keeps_its_seed_and_widens_with_confidence() -> None:
    labels, scores = sample(7, n=50)
    narrow, same, wide = (
        metrics.bootstrap_interval(metrics.roc_auc, labels, scores, resamples=200, confidence=c, seed=3)
        for c in (0.8, 0.8, 0.99)
    )
    assert narrow == same
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_bootstrap_draws_within_the_classes() -> None:
    drawn = []

    def keep(labels: np.ndarray, scores: np.ndarray) -> float:
        drawn.append(scores[labels])
        return float(labels.sum())

    labels, scores = [0, 0, 0, 1], [1.0, 2.0, 3.0, 9.0]
    assert metrics.bootstrap_interval(keep, labels, scores, resamples=20) == (1.0, 1.0)
    assert np.all(np.concatenate(drawn) == 9.0)


def test_labels_and_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 labels for 3 scores"):
        metrics.roc_auc([0, 1], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="not finite"):
        metrics.average_precision([0, 1], [0.1, np.nan])
    with pytest.raises(ValueError, match="one shape"):
        metrics.aupro([np.zeros((2, 2))], [np.zeros((2, 3))])
    with pytest.raises(ValueError, match="not finite"):
        metrics.iou_auc([np.ones((1, 1))], [np.full((1, 1), np.inf)])
