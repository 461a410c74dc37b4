"""Pixel metrics on 100 maps of 256 × 256: ours, gathered image by image, against the exact ones.

    python benchmarks/pixel_metrics.py --out benchmarks/results/pixel_metrics.json

Compared are our PixelMetrics (six figures at once, with and without intervals), scikit-learn's
roc_auc_score, our exact AUPRO and, where it can be imported, the exact AUPRO of anomalib 2.7.0. All take
turns within one run, and ratios of the medians count. The peers are given the maps already joined, and the
time to join them is not counted; ours is given them one by one.
"""

from __future__ import annotations

import argparse
import json
import pickle
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from blemish.decision import PixelMetrics, PixelResult, aupro

ROUNDS = 5
SEED = 0


def make_images(count: int, size: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Smooth log-normal residuals, raised over a few blobs in every second image; both (N, H, W)."""
    rng = np.random.default_rng(SEED)
    masks = np.zeros((count, size, size), dtype=np.bool_)
    maps = np.empty((count, size, size), dtype=np.float32)
    for i in range(count):
        if i % 2:
            masks[i] = ndimage.gaussian_filter(rng.normal(size=(size, size)), 6) > 0.11
        noise = ndimage.gaussian_filter(rng.normal(size=(size, size)), 1.5) * 5
        maps[i] = np.exp(noise + rng.normal(1.5, 0.5) * masks[i] - 3)
    return masks, maps


def streaming(masks: NDArray[np.bool_], maps: NDArray[np.float32], resamples: int) -> PixelMetrics:
    gathering = PixelMetrics(resamples=resamples)
    for mask, residual_map in zip(masks, maps, strict=True):
        gathering.update(residual_map, mask)
    return gathering


def anomalib_aupro(
    masks: NDArray[np.bool_], maps: NDArray[np.float32]
) -> tuple[Callable[[], float] | None, str]:
    """A function that computes anomalib's AUPRO, or None, and its version or why it is missing."""
    try:
        import torch

        # before anomalib imports torchvision
        from blemish.layers import torchvision_operators as torchvision_operators  # isort: skip
        import anomalib
        from anomalib.metrics.aupro import _AUPRO
    except ImportError as error:
        return None, f"missing: {error}"

    predictions, targets = torch.from_numpy(maps), torch.from_numpy(masks.astype(np.int64))

    def compute() -> float:
        metric = _AUPRO(fpr_limit=0.3)
        metric.update(predictions, targets)
        return float(metric.compute())

    return compute, anomalib.__version__


def measure(count: int, size: int) -> dict[str, Any]:
    masks, maps = make_images(count, size)
    truth, values = masks.ravel(), maps.ravel()
    contenders: dict[str, Callable[[], Any]] = {
        "blemish PixelMetrics": lambda: streaming(masks, maps, 0).result(),
        "blemish PixelMetrics, 200 resamples": lambda: streaming(masks, maps, 200).result(),
        "scikit-learn roc_auc_score": lambda: float(roc_auc_score(truth, values)),
        "blemish exact aupro": lambda: aupro(masks, maps),
    }
    peer, peer_version = anomalib_aupro(masks, maps)
    if peer:
        contenders["anomalib AUPRO"] = peer
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    values_of: dict[str, Any] = {}
    for _ in range(ROUNDS):
        for name, compute in contenders.items():
            start = time.perf_counter()
            values_of[name] = compute()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ours = medians["blemish PixelMetrics"]
    with_intervals = medians["blemish PixelMetrics, 200 resamples"]
    result: PixelResult = values_of["blemish PixelMetrics"]
    assert result.auroc is not None
    assert result.aupro_30 is not None
    states = {
        n: len(pickle.dumps(streaming(masks[:n], maps[:n], resamples=200))) for n in (count // 10, count)
    }
    peers = [name for name in medians if not name.startswith("blemish PixelMetrics")]
    return {
        "maps": count,
        "size": size,
        "seconds_median": medians,
        "seconds": seconds,
        "times_quicker": {name: medians[name] / ours for name in peers},
        "times_quicker_with_intervals": {name: medians[name] / with_intervals for name in peers},
        "error": {
            "auroc, scikit-learn": abs(result.auroc - values_of["scikit-learn roc_auc_score"]),
            "aupro, exact": abs(result.aupro_30 - values_of["blemish exact aupro"]),
            **({"aupro, anomalib": abs(result.aupro_30 - values_of["anomalib AUPRO"])} if peer else {}),
        },
        "state_bytes_after_maps": states,
        "result": result.model_dump(exclude={"groups"}),
        "anomalib": peer_version,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--maps", type=int, default=100)
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()
    import scipy
    import sklearn

    report = {
        "command": f"python benchmarks/pixel_metrics.py --maps {arguments.maps} --size {arguments.size}",
        "seed": SEED,
        "rounds": ROUNDS,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "machine": f"{platform.machine()}, {platform.system()}",
        **measure(arguments.maps, arguments.size),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, seconds in report["seconds_median"].items():
        print(f"{name:40} {1000 * seconds:9.1f} ms", file=sys.stderr)
    for name in report["times_quicker"]:
        plain, full = report["times_quicker"][name], report["times_quicker_with_intervals"][name]
        print(f"against {name:32} {plain:6.1f} times quicker, {full:.1f} with intervals", file=sys.stderr)
    print(f"errors {report['error']}", file=sys.stderr)


if __name__ == "__main__":
    main()
