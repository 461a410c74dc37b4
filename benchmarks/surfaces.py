"""Draws the generated stochastic surfaces with defects of graded contrast.

    python -m benchmarks.surfaces --out runs/surface

The same kinds of defect are drawn at three contrasts: 1 is seen by those who know where to look, 1.5 by those who look,
2.5 by everybody. A folder of the MVTec layout, in which a kind is ``crack_1.5`` and the like.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from blemish.data.maps import write_image
from blemish.demo.generated import DEFECTS, make_sample
from blemish.errors import UsageError

FAMILY = "surface"
CONTRASTS = (1.0, 1.5, 2.5)
GOOD, TEST_GOOD, EACH = 140, 60, 10
FIRST_SEED = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/surface"))
    out = parser.parse_args().out
    if out.exists():
        raise SystemExit(f"{out}: is there already; remove it, or choose another --out")
    seed = FIRST_SEED
    for split, count in (("train", GOOD), ("test", TEST_GOOD)):
        for number in range(count):
            draw(out / split / "good" / f"{number:03d}.png", "good", seed)
            seed += 1
    for contrast in CONTRASTS:
        for kind in DEFECTS[FAMILY]:
            label = f"{kind}_{contrast:g}"
            drawn = 0
            while drawn < EACH:
                mask = out / "ground_truth" / label / f"{drawn:03d}_mask.png"
                drawn += draw(out / "test" / label / f"{drawn:03d}.png", kind, seed, contrast, mask)
                seed += 1


def draw(path: Path, kind: str, seed: int, contrast: float = 1.0, mask: Path | None = None) -> bool:
    """Write one image, and its mask; False where the defect would be too faint or too small to be one."""
    try:
        sample = make_sample(FAMILY, kind, seed=seed, strength=contrast)
    except UsageError:
        return False
    for file, values in ((path, sample.image.astype(np.float32) / 255), (mask, sample.mask[None])):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_image(file, values.astype(np.float32))
    return True


if __name__ == "__main__":
    main()
