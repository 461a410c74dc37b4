"""Models that the benchmarks export: images drawn for them, and short fits at the recipes' own sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from blemish.demo.generated import write_dataset
from blemish.inspection.detector import Detector
from blemish.recipes import load_recipe
from blemish.training.fit import fit

SHORT = (
    "training.budget=null",
    "training.steps=2",
    "training.validate_every=2",
    "training.batch=4",
    "training.device=cpu",
    "training.precision=float32",
)
RATE = 0.5
"""Few images are enough for this promise, and it changes neither agreement nor speed."""
GOOD, TEST_GOOD = 12, 3


def settings_of(recipe: str) -> list[str]:
    """Two steps of training, without pretrained weights: neither agreement nor speed depends on what is learned."""
    own = load_recipe(recipe)
    settings = list(SHORT) if own.encoder is not None else []
    if own.alignment is not None and own.alignment.settings.get("pretraining"):
        settings.append("alignment.pretraining=2")
    if "weights" in own.needs and own.encoder is not None:
        settings += ["encoder.weights=none"] * (own.encoder.name in ("vgg16", "resnet50"))
        settings += [
            f"loss.{index}.network=gabor" for index, term in enumerate(own.loss) if "network" in term.settings
        ]
    return settings


def fitted(recipe: str, good: Path, out: Path, *more: str) -> Detector:
    """A detector of ``recipe``, fitted in two steps on the images in ``good``, and written into ``out``."""
    settings = [*settings_of(recipe), *more]
    if load_recipe(recipe).threshold.rule == "conformal":
        settings.append(f"threshold.false_reject_rate={RATE}")
    return fit(good, recipe, settings=settings, out=out)


def grey(folder: Path) -> Path:
    """Grey surfaces of 256 × 256 pixels in 8 bits."""
    return write_dataset(folder, "surface", good=GOOD, test_good=TEST_GOOD, per_blemish=1)


def posed(folder: Path) -> Path:
    """Grey rods that lie anyhow."""
    return write_dataset(folder, "rod", good=GOOD, test_good=TEST_GOOD, per_blemish=1)


def many_channels(folder: Path) -> Path:
    """Images of eleven channels in 16 bits with odd sides."""
    for part, count in (("train/good", GOOD), ("test/good", TEST_GOOD)):
        for seed in range(count):
            rng = np.random.default_rng(seed + 1000 * len(part))
            noise = ndimage.gaussian_filter(rng.random((11, 261, 275), np.float32), (0.7, 2, 2))
            noise = 0.2 + 0.6 * (noise - noise.min()) / np.ptp(noise)
            path = folder / part / f"{seed}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(
                path,
                np.round(65535 * noise).astype(np.uint16),
                metadata={"axes": "CYX"},
                photometric="minisblack",
            )
    return folder


def images_in(folder: Path) -> list[Path]:
    """Test images of a data set."""
    return sorted(path for path in (folder / "test").rglob("*") if path.suffix in (".png", ".tif"))
