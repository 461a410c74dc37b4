"""Draws generated sets whose images differ in one stated way: light, orientation, size, place, number of objects.

    python -m benchmarks.variations --out runs/variations

Textures are of the family ``weave``, objects of the family ``rod``, which lie in any orientation as they are drawn. Of
several objects in one image at most one has a defect. Folders in the MVTec layout, ``weave-turned`` and the like.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.maps import write_image
from blemish.demo.generated import DEFECTS, make_sample
from blemish.errors import UsageError
from blemish.storage.atomic import atomic_folder

Floats = NDArray[np.float32]
Masks = NDArray[np.bool_]

SIDE = 256
GOOD, TEST_GOOD, EACH = 120, 40, 12
LIGHT, RAMP = (0.6, 1.25), 0.3
"""Range of the gain of the whole image, and by how much light rises or falls from its middle to a border, at most."""
SIZES = (0.8, 1.25)
"""Range of the sizes of a texture, beside that in which it is drawn."""
OBJECT = (0.55, 0.75)
"""Range of the sizes of an object at any place, in sides of the image."""
SEVERAL = (0.35, 0.45)
"""The same of one of several objects."""
SMALLEST = 12
"""Pixels that a defect takes at least; what is cut off at the border is drawn again."""
ATTEMPTS = 100
"""Drawings of one image, after which its kind counts as impossible."""
STRENGTH = {"weave": 2.0, "rod": 1.0}
"""Contrast of the defects, plain to see."""


def as_drawn(family: str, kind: str, seed: int) -> tuple[Floats, Masks]:
    """Image (C, 256, 256) in [0, 1] and mask (256, 256) as the family has them."""
    return _drawn(family, kind, seed, SIDE)


def lit(family: str, kind: str, seed: int) -> tuple[Floats, Masks]:
    """Brighter or darker as a whole, and from one border to the other."""
    image, mask = as_drawn(family, kind, seed)
    rng = _rng(seed)
    gain, slope, angle = rng.uniform(*LIGHT), rng.uniform(0, RAMP), rng.uniform(0, 2 * math.pi)
    y, x = np.linspace(-1, 1, SIDE)[:, None], np.linspace(-1, 1, SIDE)
    light = gain * (1 + slope * (math.cos(angle) * x + math.sin(angle) * y))
    return (image * light).clip(0, 1).astype(np.float32), mask


def turned(family: str, kind: str, seed: int) -> tuple[Floats, Masks]:
    """Turned by any angle, cut from a larger drawing."""
    angle = _rng(seed).uniform(0, 360)
    image, mask = _drawn(family, kind, seed, math.ceil(SIDE * math.sqrt(2)))
    image = ndimage.rotate(image, angle, axes=(1, 2), reshape=False, order=3, mode="mirror")
    mask = ndimage.rotate(mask.astype(np.uint8), angle, reshape=False, order=0) > 0
    return _middle(image), _middle(mask)


def resized(family: str, kind: str, seed: int) -> tuple[Floats, Masks]:
    """Of a smaller or larger size, cut from a larger drawing."""
    scale = _rng(seed).uniform(*SIZES)
    image, mask = _drawn(family, kind, seed, math.ceil(SIDE / SIZES[0]))
    return (
        _middle(ndimage.zoom(image, (1, scale, scale), order=3, mode="mirror")),
        _middle(ndimage.zoom(mask.astype(np.uint8), scale, order=0) > 0),
    )


def moved(family: str, kind: str, seed: int) -> tuple[Floats, Masks]:
    """A smaller object at any place; the ground around it is made of the pixels of its border."""
    rng = _rng(seed)
    side = int(rng.uniform(*OBJECT) * SIDE)
    image, mask = _drawn(family, kind, seed, side)
    top, left = rng.integers(0, SIDE - side + 1, 2)
    return _placed([(image, mask, int(top), int(left))], rng)


def tray(family: str, kind: str, seed: int) -> tuple[Floats, Masks]:
    """Four smaller objects, one in the middle of each quarter of the image, each in its own orientation."""
    half = SIDE // 2
    places = [(0, 0), (0, half), (half, 0), (half, half)]
    return _placed(_objects(family, kind, seed, half, places), _rng(seed))


def several(family: str, kind: str, seed: int) -> tuple[Floats, Masks]:
    """Two to four smaller objects at any places where they do not cover each other."""
    rng = _rng(seed)
    side = int(rng.uniform(*SEVERAL) * SIDE)
    wanted = int(rng.integers(2, 5))
    for _ in range(ATTEMPTS):
        places: list[tuple[int, int]] = []
        for top, left in rng.integers(0, SIDE - side + 1, (ATTEMPTS, 2)).tolist():
            if all(max(abs(top - other[0]), abs(left - other[1])) >= side for other in places):
                places.append((top, left))
        if len(places) >= wanted:
            break
    else:
        raise UsageError(f"{wanted} objects of {side} pixels found no places at seed {seed}")
    places = places[:wanted]
    return _placed(_objects(family, kind, seed, side, places), rng)


def _objects(
    family: str, kind: str, seed: int, side: int, places: list[tuple[int, int]]
) -> list[tuple[Floats, Masks, int, int]]:
    """An object at each place (top, left); the first one, whose place is drawn, has the defect."""
    order = _rng(seed).permutation(len(places)).tolist()
    kinds = [kind, *["good"] * (len(places) - 1)]
    return [
        (*_drawn(family, own, seed * 4 + number, side), *places[place])
        for number, (own, place) in enumerate(zip(kinds, order, strict=True))
    ]


Variation = Callable[[str, str, int], tuple[Floats, Masks]]
VARIATIONS: dict[str, dict[str, Variation]] = {
    "weave": {"as drawn": as_drawn, "lit": lit, "turned": turned, "resized": resized},
    "rod": {"as drawn": as_drawn, "lit": lit, "moved": moved, "tray": tray, "several": several},
}
"""Of each family, those that make sense."""


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 77])


def _drawn(family: str, kind: str, seed: int, side: int) -> tuple[Floats, Masks]:
    sample = make_sample(family, kind, seed=seed, size=side, strength=STRENGTH[family])
    return sample.image.astype(np.float32) / 255, sample.mask


def _middle(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """The 256 × 256 pixels in the middle of an image of at least that size."""
    top, left = ((side - SIDE) // 2 for side in image.shape[-2:])
    return image[..., top : top + SIDE, left : left + SIDE]


def _placed(objects: list[tuple[Floats, Masks, int, int]], rng: np.random.Generator) -> tuple[Floats, Masks]:
    first = objects[0][0]
    border = np.concatenate([first[:, 0], first[:, -1], first[:, :, 0], first[:, :, -1]], axis=1)
    ground = border[:, rng.integers(0, border.shape[1], SIDE * SIDE)].reshape(len(first), SIDE, SIDE)
    defect = np.zeros((SIDE, SIDE), dtype=bool)
    for image, mask, top, left in objects:
        rows, columns = slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1])
        ground[:, rows, columns], defect[rows, columns] = image, mask
    return ground, defect


def write_variation(folder: Path, family: str, name: str) -> Path:
    """Draw one set into ``folder``, unless it is there: whole, or not at all."""
    if not folder.exists():
        with atomic_folder(folder) as temporary:
            _write(temporary, family, VARIATIONS[family][name])
    return folder


def _write(folder: Path, family: str, variation: Variation) -> None:
    plan = [("train", "good", GOOD), ("test", "good", TEST_GOOD)]
    plan += [("test", kind, EACH) for kind in DEFECTS[family]]
    seed = 0
    for split, kind, count in plan:
        for number in range(count):
            seed, image, mask = _next(variation, family, kind, seed)
            write_image(_path(folder / split / kind / f"{number:03d}.png"), image.clip(0, 1))
            if kind != "good":
                place = folder / "ground_truth" / kind / f"{number:03d}_mask.png"
                write_image(_path(place), mask[None].astype(np.float32))


def _next(variation: Variation, family: str, kind: str, seed: int) -> tuple[int, Floats, Masks]:
    """The first image after ``seed`` whose defect can be seen, and its seed."""
    for own in range(seed + 1, seed + 1 + ATTEMPTS):
        try:
            image, mask = variation(family, kind, own)
        except UsageError:  # too faint or too small at this seed
            continue
        if kind == "good" or mask.sum() >= SMALLEST:
            return own, image, mask
    raise UsageError(f"{family} with {kind} cannot be drawn in {ATTEMPTS} attempts from seed {seed}")


def _path(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/variations"))
    out = parser.parse_args().out
    for family, variations in VARIATIONS.items():
        for name in variations:
            print(write_variation(out / f"{family}-{name.replace(' ', '-')}", family, name))


if __name__ == "__main__":
    main()
