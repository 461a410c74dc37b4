"""Pixel metrics that never hold the maps: histograms of constant size, whatever the number of pixels.

    map ─► float32 bits ─► bin ─┬─► defect-free pixels ──────────┐
                                ├─► anomalous pixels ────────────┼─► curves ─► figures
                                └─► anomalous pixels, 1/area ────┘
                                └─► coarse bins × Poisson weights ─► curves of replicates ─► intervals

The bits of a non-negative float32 are ordered as its value, so cutting off the low ones gives a bin whose
width is a fixed share (2⁻¹⁴) of its value, without a logarithm and without knowing the range beforehand.
A bin that has seen one value only is a tie and is treated as the exact metrics treat ties; within any other
bin the two classes are taken as evenly mixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

from blemish.decision.regions import EIGHT_CONNECTED

Floats = NDArray[np.float64]

# Bin 0 holds everything below 2^-24, which counts as 0; then come 40 octaves up to 2^16.
_LOWEST, _HIGHEST = -24, 16
_STEPS = 14  # 2^14 bins an octave
_DROPPED = 23 - _STEPS  # low bits of the float32 mantissa that do not count
_OFFSET = ((127 + _LOWEST) << _STEPS) - 1
_BINS = ((_HIGHEST - _LOWEST) << _STEPS) + 1
_COARSER = 7  # the replicates have 2^7 times fewer bins
_COARSE_BINS = ((_HIGHEST - _LOWEST) << (_STEPS - _COARSER)) + 1
_COARSE_STARTS = np.maximum(0, ((np.arange(_COARSE_BINS) - 1) << _COARSER) + 1)  # by :func:`_coarse`
_BATCH = 32  # images whose weights are applied in one matrix product
PIXEL_FIGURES = ("auroc", "ap", "f1max", "iou_auc", "aupro_30", "aupro_05")


class PixelResult(BaseModel):
    """Pixel metrics of some images; a figure is None where a class is absent.

    ``auroc``, ``ap`` (average precision), ``f1max``, ``iou_auc``, ``aupro_30`` and ``aupro_05`` (AUPRO up to
    a false-positive rate of 0.3 and 0.05) are defined in ``blemish.decision.metrics``. ``intervals`` holds the
    95 % interval of each under its name, where at least two images have anomalous pixels. ``groups`` holds
    the result of each group of images together with all images that have no anomalous pixel.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    defective: int
    regions: int
    auroc: float | None
    ap: float | None
    f1max: float | None
    iou_auc: float | None
    aupro_30: float | None
    aupro_05: float | None
    intervals: dict[str, tuple[float, float]] = {}
    groups: dict[str, PixelResult] = {}


class PixelMetrics:
    """Gathers pixel metrics image by image.

    ``resamples`` is the number of bootstrap replicates behind the intervals, 0 for none. Images are
    resampled, not pixels: each counts Poisson(1) times in each replicate (Chamandy et al., Estimating
    Uncertainty for Massive Data Streams, Google, 2012).

    Figures agree with the exact metrics to 1e-4; where nearly all residuals lie within some hundredths of one
    value, they can be off by a few 1e-4. Residuals below 2⁻²⁴ count as 0.

    >>> metrics = PixelMetrics(resamples=0)
    >>> metrics.update([[0.1, 0.2], [0.9, 0.3]], mask=[[0, 0], [1, 0]], group="scratch")
    >>> metrics.update([[0.1, 0.2], [0.1, 0.1]])
    >>> result = metrics.result()
    >>> result.auroc, result.groups["scratch"].aupro_30, result.images
    (1.0, 1.0, 2)
    """

    def __init__(self, *, resamples: int = 200, seed: int = 0) -> None:
        self._resamples = resamples
        self._rng = np.random.default_rng(seed)
        self._ties = _Ties()
        self._good = _Tally(resamples, defective=False)
        self._groups: dict[str, _Tally] = {}

    def update(
        self,
        residual_map: ArrayLike,
        mask: ArrayLike | None = None,
        group: str = "all",
        *,
        counted: ArrayLike | None = None,
    ) -> None:
        """Count one image: its map (H, W), 0 <= values < 65536, and its mask (H, W), true where anomalous.

        Without a mask, or with an empty one, all pixels are defect-free. ``group`` names the type of defect
        for a result of its own; "all" stands for none. Only pixels of ``counted`` (H, W) count, at least one, or all
        without it. Raises ValueError for another shape, for values that
        are not finite or out of range.
        """
        values = np.ascontiguousarray(residual_map, dtype=np.float32)
        if values.ndim != 2 or values.size == 0:
            raise ValueError(f"an anomaly map has shape (H, W) and at least one pixel, not {values.shape}")
        truth = np.zeros(values.shape, np.bool_) if mask is None else np.asarray(mask, dtype=np.bool_)
        if truth.shape != values.shape:
            raise ValueError(f"mask and map share one shape (H, W), not {truth.shape} and {values.shape}")
        shown = None if counted is None else np.asarray(counted, dtype=np.bool_)
        if shown is not None:
            if shown.shape != values.shape or not shown.any():
                raise ValueError("counted pixels are those of the map, and at least one")
            values, truth = np.where(shown, values, 0), truth & shown
        largest = float(values.max())
        # Comparisons are false for NaN, so this also refuses it.
        if not (values.min() >= 0 and largest < 2**_HIGHEST):
            raise ValueError(f"residuals lie from 0 to below {2**_HIGHEST}, and are finite")
        bits = values.ravel().view(np.int32)
        index = np.maximum((bits >> _DROPPED) - _OFFSET, 0, dtype=np.intp)
        there = slice(None) if shown is None else shown.ravel()
        self._ties.see(index[there], bits[there])
        tally = self._group(group) if truth.any() else self._good
        tally.add(index, index[there], truth, largest, self._rng.poisson(1.0, self._resamples))

    def result(self) -> PixelResult:
        """The figures of all images so far; more may follow."""
        groups = {
            name: self._result([tally]) for name, tally in sorted(self._groups.items()) if name != "all"
        }
        return self._result(list(self._groups.values())).model_copy(update={"groups": groups})

    def _group(self, name: str) -> _Tally:
        if name not in self._groups:  # not setdefault: making a tally costs more than counting an image
            self._groups[name] = _Tally(self._resamples, defective=True)
        return self._groups[name]

    def _result(self, defective: list[_Tally]) -> PixelResult:
        tallies = [self._good, *defective]
        for tally in tallies:
            tally.flush()
        largest = max(tally.largest for tally in tallies)
        counts = _total([tally.counts for tally in tallies])
        fine = self._ties.bins(counts, largest)
        figures = _figures(counts[:, fine.index], fine, largest)
        images_with_defects = sum(tally.images for tally in defective)
        intervals: dict[str, tuple[float, float]] = {}
        if self._resamples and images_with_defects > 1:
            coarse = fine.coarser()
            once: Floats = np.stack([np.add.reduceat(row, _COARSE_STARTS) for row in counts])
            replicates = _total([tally.replicates for tally in tallies])
            spread = _figures(replicates[..., coarse.index], coarse, largest)
            # What coarse bins blur is the same for the replicates and for the images as they are.
            spread += (figures - _figures(once[:, coarse.index], coarse, largest))[:, None]
            intervals = {
                name: _percentiles(values.clip(0, 1))
                for name, values in zip(PIXEL_FIGURES, spread, strict=True)
                if np.isfinite(values).any()
            }
        return PixelResult(
            images=sum(tally.images for tally in tallies),
            defective=images_with_defects,
            regions=sum(tally.regions for tally in tallies),
            **{
                name: float(figure) if np.isfinite(figure) else None
                for name, figure in zip(PIXEL_FIGURES, figures, strict=True)
            },
            intervals=intervals,
        )


@dataclass
class _Tally:
    """Histograms of some images: defect-free pixels; if defective, anomalous ones, plain and by 1/area."""

    resamples: int
    defective: bool
    images: int = 0
    regions: int = 0
    largest: float = 0.0
    counts: Floats = field(init=False)  # (1 or 3, bins)
    replicates: NDArray[np.float32] = field(init=False)  # (1 or 3, resamples, coarse bins)

    def __post_init__(self) -> None:
        rows = 3 if self.defective else 1
        self.counts = np.zeros((rows, _BINS))
        self.replicates = np.zeros((rows, self.resamples, _COARSE_BINS), np.float32)
        self._batch = np.zeros((rows, _BATCH, _COARSE_BINS), np.float32)
        self._weights = np.zeros((self.resamples, _BATCH), np.float32)
        self._waiting = 0

    def add(
        self,
        index: NDArray[np.intp],
        counted: NDArray[np.intp],
        truth: NDArray[np.bool_],
        largest: float,
        weights: NDArray[np.int64],
    ) -> None:
        """Count one image by the bins of all its pixels, and of those that count."""
        self.images += 1
        self.largest = max(self.largest, largest)
        rows: list[tuple[NDArray[np.intp], Floats | None]] = [(counted, None)]
        if self.defective:
            inside = np.flatnonzero(truth)
            labels, count = ndimage.label(truth, structure=EIGHT_CONNECTED)
            label = labels.ravel()[inside]
            share = 1 / np.bincount(label)[label]
            self.regions += count
            rows += [(index[inside], None), (index[inside], share)]
        for row, (bins, pixel_weights) in enumerate(rows):
            np.add.at(self.counts[row], bins, 1.0 if pixel_weights is None else pixel_weights)
            if self.resamples:
                self._batch[row, self._waiting] = np.bincount(_coarse(bins), pixel_weights, _COARSE_BINS)
        if self.defective:  # so far the first row holds all pixels
            np.subtract.at(self.counts[0], index[inside], 1.0)
            self._batch[0, self._waiting] -= self._batch[1, self._waiting]
        self._weights[:, self._waiting] = weights
        self._waiting += 1
        if self._waiting == _BATCH:
            self.flush()

    def flush(self) -> None:
        """Apply the weights of the waiting images: (resamples, waiting) @ (rows, waiting, coarse bins)."""
        waiting = slice(self._waiting)
        if self.resamples and self._waiting:
            self.replicates += self._weights[:, waiting] @ self._batch[:, waiting]
        self._waiting = 0


@dataclass
class _Bins:
    """The occupied bins by falling residual: the span of values each stands for, and whether it is a tie."""

    index: NDArray[np.intp]
    low: Floats
    high: Floats
    tie: NDArray[np.bool_]

    def coarser(self) -> _Bins:
        index, start, size = np.unique(-_coarse(self.index), return_index=True, return_counts=True)
        end = start + size - 1
        return _Bins(-index, self.low[end], self.high[start], self.tie[start] & (size == 1))


class _Ties:
    """Bins that hold a single value so far, and that value."""

    def __init__(self) -> None:
        self._bits = np.full(_BINS, -1, np.int32)
        self._several = np.zeros(_BINS, np.bool_)
        self._several[0] = True  # the zeros are a tie by definition; no need to watch them

    def see(self, index: NDArray[np.intp], bits: NDArray[np.int32]) -> None:
        pending = np.flatnonzero(~self._several[index])  # soon only a few pixels
        index, bits = index[pending], bits[pending]
        before = self._bits[index]
        self._bits[index] = bits  # of the pixels that share a bin, the last stays
        differ = ((before != bits) & (before != -1)) | (self._bits[index] != bits)
        self._several[index[differ]] = True

    def bins(self, counts: Floats, largest: float) -> _Bins:
        index = np.flatnonzero(counts.any(axis=0))[::-1]
        tie = ~self._several[index]
        edge = ((index + _OFFSET) << _DROPPED).astype(np.int32).view(np.float32).astype(np.float64)
        above = ((index + _OFFSET + 1) << _DROPPED).astype(np.int32).view(np.float32).astype(np.float64)
        value = self._bits[index].view(np.float32).astype(np.float64)
        low, high = np.where(tie, value, edge), np.where(tie, value, np.minimum(above, largest))
        zero = index == 0
        low[zero], high[zero], tie[zero] = 0.0, 0.0, True
        return _Bins(index, low, high, tie)


def _coarse(index: NDArray[np.intp]) -> NDArray[np.intp]:
    """Coarse bin of each bin; bin 0, the zeros, stays alone."""
    return (index + (1 << _COARSER) - 1) >> _COARSER


def _total(histograms: list[NDArray[np.floating]]) -> Floats:
    """Sum of histograms with one row (defect-free pixels) or three, as three rows."""
    total = np.zeros((3, *histograms[0].shape[1:]))
    for histogram in histograms:
        total[: len(histogram)] += histogram
    return total


def _percentiles(values: Floats) -> tuple[float, float]:
    """95 % of the replicates, less those in which no image with anomalous pixels was drawn (NaN)."""
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def _figures(counts: NDArray[np.floating], bins: _Bins, largest: float) -> Floats:
    """The six figures, shape (6, ...), of histograms ``counts``, shape (3, ..., K) by falling residual."""
    fp, tp, overlap = np.concatenate([np.zeros((*counts.shape[:-1], 1)), np.cumsum(counts, axis=-1)], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        fpr, tpr, overlap = fp / fp[..., -1:], tp / tp[..., -1:], overlap / overlap[..., -1:]
        figures = np.stack(
            [
                np.sum(np.diff(fpr) * (tpr[..., 1:] + tpr[..., :-1]), axis=-1) / 2,
                _average_precision(tp, fp, bins.tie),
                np.max(2 * tp / (tp + fp + tp[..., -1:]), axis=-1),
                _iou_auc(tp / (fp + tp[..., -1:]), bins, largest),
                _aupro(fpr, overlap, 0.3),
                _aupro(fpr, overlap, 0.05),
            ]
        )
    figures[..., (tp[..., -1] == 0) | (fp[..., -1] == 0)] = np.nan
    return figures


def _average_precision(tp: Floats, fp: Floats, tie: NDArray[np.bool_]) -> Floats:
    """Σ ΔR P with P at the end of a tie, and otherwise its mean over a bin that fills evenly.

    With A of B called ones true before the bin, and a of its own b, its k-th true one is expected at place
    k (b + 1)/(a + 1). The mean over k of (A + k)/(B + k (b + 1)/(a + 1)) is taken as an integral over k from
    ½ to a + ½: linear in counts, as Davis and Goadrich (ICML 2006) interpolate precision and recall.
    """
    called = tp + fp
    a, b = np.diff(tp), np.diff(called)
    step = (b + 1) / (a + 1)
    first = tp[..., :-1] + 0.5, called[..., :-1] + 0.5 * step
    # ∫₀¹ (A + a u)/(B + c u) du = r A/B + (1 − r) a/c with r = log(1 + c/B)/(c/B)
    ratio = a * step / first[1]
    r = np.where(a > 0, np.log1p(ratio) / ratio, 1.0)
    mixed = r * first[0] / first[1] + (1 - r) / step
    precision = np.where(tie, tp[..., 1:] / called[..., 1:], mixed)
    return np.asarray(np.sum(np.where(a > 0, a * precision, 0.0), axis=-1) / tp[..., -1])


def _iou_auc(iou: Floats, bins: _Bins, largest: float) -> Floats:
    """Area of IoU over thresholds: level between bins, straight lines within them."""
    within = (iou[..., 1:] + iou[..., :-1]) / 2 * (bins.high - bins.low)
    between = iou[..., 1:] * (bins.low - np.append(bins.high[1:], 0.0))
    return np.asarray(np.sum(within + between, axis=-1) / largest)


def _aupro(fpr: Floats, overlap: Floats, limit: float) -> Floats:
    """Area under the overlap up to the limit, by straight lines, divided by the limit."""
    x, dx = fpr[..., :-1], np.diff(fpr)
    part = np.where(dx > 0, (np.minimum(fpr[..., 1:], limit) - x) / dx, 0.0).clip(0, 1)
    middle = overlap[..., :-1] + np.diff(overlap) * part / 2
    return np.asarray(np.sum(dx * part * middle, axis=-1) / limit)
