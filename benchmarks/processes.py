"""Loss curves of fits by one and by two processes, with the same global batch, and of fits that change the number.

    python -m benchmarks.processes --out benchmarks/results/training-processes.json

Each recipe is fitted on generated images for a few steps: by one process, by two (gloo, on the CPU), and resumed by the
other number of processes after a stop in the middle. The figures are losses and not times; they differ in the last digits
because sums are in another order. A plot stands beside the JSON.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from blemish import __version__
from blemish.data.maps import write_image
from blemish.demo.generated import make_sample
from blemish.errors import Stopped
from blemish.inspection.detector import Detector
from blemish.observer import Observer
from blemish.storage.atomic import write_json
from blemish.storage.model_folder import WEIGHTS_FILE
from blemish.training.contracts import Progress
from blemish.training.fit import fit

COMMON = (
    "patch.size=32",
    "patch.stride=32",
    "training.batch=16",
    "training.budget=null",
    "training.device=cpu",
    "training.precision=float32",
)
RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ssim-ae": ("ssim-ae", ("encoder.latent=16", "image.size=64")),
    "cae-ssim, adversarial and contractive": (
        "cae-ssim",
        ("image.size=64", "loss=[{name: ssim}, {name: adversarial}, {name: contractive, images: 3}]"),
    ),
    "blemish": (
        "blemish",
        ("image.size=96", "encoder.widths=[8, 16, 16]", "memory.patch=8", "memory.capacity=2000"),
    ),
}
RATE = 0.2
IMAGES = 24


class StopAt(Observer):
    """Asks to stop once a step of the training is reported."""

    def __init__(self, step: int) -> None:
        self.step, self.seen = step, 0

    def training(self, progress: Progress) -> None:
        self.seen = progress.step

    def should_stop(self) -> bool:
        return self.seen >= self.step


def curve(detector: Detector) -> dict[str, list[float]]:
    looks = detector.file.training.history
    return {
        "step": [look.step for look in looks],
        "training": [look.training for look in looks],
        "validation": [look.validation for look in looks],
    }


def difference(one: dict[str, list[float]], other: dict[str, list[float]]) -> float:
    """Largest relative difference of two curves."""
    return max(
        abs(a - b) / max(abs(a), 1e-12)
        for part in ("training", "validation")
        for a, b in zip(one[part], other[part], strict=True)
    )


def compare(images: Path, folder: Path, recipe: str, settings: list[str], steps: int) -> dict[str, Any]:
    """Curves of one recipe, and their largest differences from that of one process."""
    given: dict[str, Any] = {"settings": settings, "false_reject_rate": RATE}
    fitted = {
        count: fit(images, recipe, **given, processes=count, out=folder / str(count)) for count in (1, 2)
    }
    curves = {"1 process": curve(fitted[1]), "2 processes": curve(fitted[2])}
    for first, second in ((1, 2), (2, 1)):
        out = folder / f"{first}-{second}"
        try:
            fit(images, recipe, **given, processes=first, out=out, observer=StopAt(steps // 2))
        except Stopped:
            pass
        else:
            raise RuntimeError("the fit was not stopped")
        resumed = fit(images, recipe, **given, processes=second, out=out, resume=True)
        curves[f"{first}, then {second}"] = curve(resumed)
    weights = [load_file(folder / str(count) / WEIGHTS_FILE) for count in (1, 2)]
    banks = [name for name in weights[0] if name.endswith(".bank")]
    return {
        "curves": curves,
        "largest relative difference": {
            name: difference(curves["1 process"], found)
            for name, found in curves.items()
            if name != "1 process"
        },
        "threshold": {
            f"{count} process{'es' if count > 1 else ''}": fitted[count].threshold for count in fitted
        },
        "memory banks": len(banks),
        "memory banks are equal bit for bit": all(
            (weights[0][name] == weights[1][name]).all() for name in banks
        ),
    }


def plot(path: Path, recipes: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(recipes), 3.2), layout="constrained")
    for axes, (name, found) in zip(
        figure.subplots(1, len(recipes), squeeze=False)[0], recipes.items(), strict=True
    ):
        for number, (label, values) in enumerate(found["curves"].items()):
            style = {"lw": 5 - number, "alpha": 0.35 + 0.2 * number, "ls": ("-", "-", "--", ":")[number]}
            axes.plot(values["step"], values["validation"], label=label, **style)
        axes.set(title=name, xlabel="step", ylabel="held-out loss")
        axes.title.set_fontsize(9)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=4, help="steps between looks at the held-out images")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        images = Path(temporary) / "images"
        images.mkdir()
        for seed in range(IMAGES):
            drawn = make_sample("weave", "good", seed=seed, size=96).image
            write_image(images / f"{seed:02d}.png", drawn / np.float32(255))
        for name, (recipe, more) in RECIPES.items():
            settings = [
                *COMMON,
                *more,
                f"training.steps={options.steps}",
                f"training.validate_every={options.every}",
            ]
            found[name] = compare(images, Path(temporary) / name, recipe, settings, options.steps)
            print(name, found[name]["largest relative difference"], flush=True)
    if options.out:
        result = {
            "command": shlex.join(["python", "-m", "benchmarks.processes", *sys.argv[1:]]),
            "blemish": __version__,
            "backend": "gloo",
            "global batch": 16,
            "recipes": found,
        }
        write_json(options.out, result)
        plot(options.out.with_suffix(".png"), found)


if __name__ == "__main__":
    main()
