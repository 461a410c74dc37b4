"""What each anomaly map of one fit is worth, alone and added."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.detection.options import whole_dataset
from benchmarks.detection.trials import Bench
from benchmarks.detection.whole_fits import by_name, fits, tested
from blemish.data.image import LoadedImage, read_image
from blemish.decision import image_score
from blemish.detectors.combination import combined
from blemish.detectors.ensemble import Ensemble
from blemish.inspection.detector import Detector
from blemish.similarity import ssim_map
from blemish.similarity.msgms import msgms_map
from studies.protocol import fitted

HELP = "each anomaly map of one fit"


def add_options(parser: argparse.ArgumentParser) -> None:
    whole_dataset(parser)


UNITS = 24
"""Calibration images from which the scale of a map on good images is taken."""


DARK = 1e-3
"""Smallest such scale: a head may be 0 everywhere on good images."""


WHOLE = "network and memory, as fitted"


def answer(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """The maps that one fit can give, alone and added: head, memory bank, residuals of the reconstruction, flips.

    Sums with anything but the memory give each map the weight that brings nine of ten good images below 1.
    """
    work, runs = fits(bench, options)
    dataset = work.name
    rows = []
    for run in runs:
        detector = fitted(work, run.recipe, run.seed)
        begun = time.perf_counter()
        held_out = {Path(name).name for name in detector.file.split["calibration"]}
        calibrating = [item for item in bench.train if item.path.name in held_out][:UNITS]
        good = [maps(detector, read_image(item.path)) for item in calibrating]
        units = {
            name: max(float(np.quantile([score_of(detector, one[name]) for one in good], 0.9)), DARK)
            for name in good[0]
        }
        rows += [
            {**row, "seed": run.seed} for row in tested(bench, partial(alone_and_added, detector, units))
        ]
        bench.seconds += run.training_seconds + time.perf_counter() - begun
        print(f"{dataset}, seed {run.seed}: {time.perf_counter() - begun:.0f} s", flush=True)
    return {"budget": options.budget, "rows": rows, **by_name(rows, "map", WHOLE)}


def alone_and_added(
    detector: Detector, units: dict[str, float], image: LoadedImage
) -> dict[str, tuple[float, NDArray[np.float32]]]:
    """Score and map (H, W) of ``image`` by each of :func:`maps`, and by the head with each of the reconstruction."""
    placed = detector.file.preprocessing.apply(image)
    alone = maps(detector, image)
    sums = {
        f"head and {name}": alone["head"] / units["head"] + alone[name] / units[name]
        for name in alone
        if name.endswith("reconstruction")
    }
    return {
        name: (score_of(detector, shown), placed.map_back(shown)) for name, shown in {**alone, **sums}.items()
    }


def maps(detector: Detector, image: LoadedImage) -> dict[str, NDArray[np.float32]]:
    """Every anomaly map (h, w) that the network and the memory bank of ``detector`` give of an image."""
    x = detector.file.preprocessing.apply(image).model_input
    ensemble = detector.model if isinstance(detector.model, Ensemble) else None
    network = detector.model if ensemble is None else ensemble.models[0]
    head, reconstruction, *_ = network.maps(x)
    assert reconstruction is not None
    both = [torch.from_numpy(one)[None] for one in (x, reconstruction.clip(0, 1))]
    flipped = [
        np.flip(network.maps(np.ascontiguousarray(np.flip(x, axis))).anomaly, axis - 1) for axis in (1, 2)
    ]
    found = {
        "head": head,
        "head, flipped both ways": np.mean([head, *flipped], axis=0),
        "SSIM of the reconstruction": 1 - ssim_map(*both, data_range=1.0).mean(1)[0].numpy(),
        "MSGMS of the reconstruction": 1 - msgms_map(*both, data_range=1.0).mean((0, 1)).numpy(),
    }
    is_weighted = ensemble is not None and ensemble.combination == "weighted-mean"
    if ensemble is not None and is_weighted and any(ensemble.weights[number] for number in ensemble.banks):
        beyond = ensemble.normalised(0, head)
        alone = combined([beyond], [True], ensemble.scales.tolist()[:1], [1.0])
        found["head, as it counts beside the memory"] = alone
        found["memory"] = sum(bank.maps(x).anomaly for bank in ensemble.banks.values())
        found[WHOLE] = ensemble.maps(x).anomaly
    return found


def score_of(detector: Detector, shown: NDArray[np.float32]) -> float:
    rule = detector.recipe.score
    return image_score(shown, kind=rule.name, quantile=rule.quantile, sigma=rule.sigma)
