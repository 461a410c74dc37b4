"""Whether bfloat16 training changes what is found: the same fits in float32 and in bfloat16.

    python benchmarks/precision.py --out benchmarks/results/precision.json

Generated weaves, the recipe ssim-ae with patches of 64 pixels, several seeds; the spread over seeds is the
noise that a difference between the two must be held against.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from blemish.demo.generated import write_dataset
from blemish.evaluation.evaluate import evaluate
from blemish.inspection.document import versions
from blemish.training.fit import fit

FIGURES = ("image_auroc", "pixel_auroc", "aupro_30", "held_out_loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_dataset(folder, "weave")
        for seed in range(options.seeds):
            for precision in ("float32", "bfloat16"):
                detector = fit(
                    dataset / "train" / "good",
                    "ssim-ae",
                    settings=[
                        f"training.steps={options.steps}",
                        f"training.seed={seed}",
                        f"training.precision={precision}",
                        "training.learning_rate=1e-3",
                        "patch.size=64",
                        "patch.stride=32",
                    ],
                )
                evaluation = evaluate(detector, dataset)
                runs.append(
                    {
                        "seed": seed,
                        "precision": precision,
                        "image_auroc": evaluation.image["all"].figures["auroc"].value,
                        "pixel_auroc": evaluation.pixel.auroc,
                        "aupro_30": evaluation.pixel.aupro_30,
                        "held_out_loss": detector.file.training.best_loss,
                        "training_seconds": round(detector.file.training.seconds, 1),
                    }
                )
                print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
        "runs": runs,
        "summary": {
            precision: {
                figure: _mean_and_spread([run[figure] for run in runs if run["precision"] == precision])
                for figure in FIGURES
            }
            for precision in ("float32", "bfloat16")
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


def _mean_and_spread(values: list[float]) -> dict[str, float]:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.fmean(values), 4), "standard_deviation": round(spread, 4)}


if __name__ == "__main__":
    main()
