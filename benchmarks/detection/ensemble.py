"""What the mean over fits with several seeds is worth."""

from __future__ import annotations

import argparse
import time
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection.options import whole_dataset
from benchmarks.detection.trials import Bench
from benchmarks.detection.whole_fits import by_name, fits, tested
from blemish.data.image import LoadedImage
from studies.protocol import fitted

HELP = "the mean over seeds"


def add_options(parser: argparse.ArgumentParser) -> None:
    whole_dataset(parser)


def answer(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Compare the mean over fits with several seeds with each fit alone: of scores, and of maps for pixels.

    The maps have one scale, so that no weights are needed. Its cost is that of inspecting with every fit.
    """
    work, runs = fits(bench, options)
    begun = time.perf_counter()
    detectors = {f"seed {run.seed}": fitted(work, run.recipe, run.seed) for run in runs}
    together = "mean of all"

    def score(image: LoadedImage) -> dict[str, tuple[float, NDArray[np.float32]]]:
        measured = {name: detector.measure(image) for name, detector in detectors.items()}
        found = {name: (one.score, one.map) for name, one in measured.items()}
        scores, shown = zip(*found.values(), strict=True)
        return {**found, together: (fmean(scores), np.mean(shown, axis=0))}

    rows = tested(bench, score)
    bench.seconds += sum(run.training_seconds for run in runs) + time.perf_counter() - begun
    return {"budget": options.budget, "rows": rows, **by_name(rows, "fit", together)}
