"""Registration of real bands: errors of known maps, and hits and false alarms of the check.

    python benchmarks/registration.py cave_panels/ --out benchmarks/results/registration.json

Each band is moved by known shifts, turned and scaled, and registered to the scene's RGB image. The error is the largest
distance, in pixels, from where the registration of the untouched band puts a place: the bands of one camera have
slightly different scales of their own. The check is asked about bands that are moved by 0, by 3 to 20 pixels, and
replaced by those of another scene.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blemish.data.affine import as_transform, places, resample_affine
from blemish.data.modality import channel_slices
from blemish.data.phase_correlation import cross_power, edge_strength, find_peak
from blemish.data.registration import SURE, register
from blemish.data.scene_checks import LEAST_OFFSET
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.storage.atomic import write_json, write_text

MAPS = {
    "shift": (0.0, 1.0, -12.3, 7.6),
    "turned by 1.5 degrees": (1.5, 1.0, 4.0, -6.0),
    "turned by 5 degrees, scaled by 1.1": (5.0, 1.1, 4.0, -6.0),
    "another crop, scaled by 1.33": (0.0, 4 / 3, 0.0, 0.0),
}
SHIFTS = ((3, 0), (-2, 4), (7, -12), (-20, 5), (0, 20))


def known_map(side: int, degrees: float, scale: float, dx: float, dy: float) -> NDArray[np.float64]:
    """Rotation and scale about the middle, then a shift, as a 3 × 3 matrix."""
    across, down = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    matrix = np.array([[across, -down, 0.0], [down, across, 0.0], [0.0, 0.0, 1.0]])
    matrix[:2, 2] = side / 2 - matrix[:2, :2] @ [side / 2, side / 2] + [dx, dy]
    return matrix


def moved(band: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """The band as a sensor shows it whose place ``matrix`` p shows what the band shows at p."""

    def read(top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        return band[:, top : top + height, left : left + width]

    size = (band.shape[1], band.shape[2])
    return resample_affine(read, size, len(band), np.linalg.inv(matrix), (0, 0, *size))


def checked(first: NDArray[np.float32], second: NDArray[np.float32], size: int = 256) -> tuple[float, float]:
    """Offset in pixels and confidence, from nine windows as the check of a scene reads them."""
    total: Any = 0
    starts = [round((first.shape[1] - size) * number / 2) for number in range(3)]
    for top in starts:
        for left in starts:
            window = (slice(None), slice(top, top + size), slice(left, left + size))
            edges = edge_strength(first[window]), edge_strength(second[window])
            if edges[0] is not None and edges[1] is not None:
                total = total + cross_power(edges[0], edges[1])
    found = find_peak(total, (size, size))
    return math.hypot(found.dx, found.dy), found.confidence


def markdown(document: dict[str, Any]) -> str:
    """Tables of errors of registration, and of warnings of the check."""
    text = "| known map | bands | within 0.5 pixel | median error | largest error |\n| --- | ---: | ---: | ---: | ---: |\n"
    for title, one in document["registration"].items():
        figures = f"{one['median error']:.2f} | {one['largest error']:.2f}"
        text += f"| {title} | {one['bands']} | {one['within half a pixel']} | {figures} |\n"
    text += "\n| bands that the check is asked about | bands | warned of |\n| --- | ---: | ---: |\n"
    for title, one in document["check"].items():
        if isinstance(one, dict):
            text += f"| {title} | {one['bands']} | {one['warned']} |\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("panels", type=Path, help="folder of train/ and test/, each with scenes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/registration.json"))
    parser.add_argument("--bands", type=int, default=2, help="bands of each scene that are registered")
    arguments = parser.parse_args()
    scenes = [scene for part in ("train", "test") for scene in find_scenes(arguments.panels / part)]
    images = []
    for scene in scenes:
        with SceneReader(scene) as reader:
            pixels = reader.read(0, 0, reader.height, reader.width)
            slices = dict(
                zip((one.name for one in reader.modalities), channel_slices(reader.modalities), strict=True)
            )
            images.append({name: pixels[own] for name, own in slices.items()})
    errors: dict[str, list[float]] = {name: [] for name in MAPS}
    failed = dict.fromkeys(MAPS, 0)
    counts = {"aligned": [0, 0], "displaced": [0, 0], "of another scene": [0, 0]}
    unrelated: list[float] = []
    related: list[float] = []
    for number, bands in enumerate(images):
        names = [name for name in bands if name != "rgb"]
        other = images[(number + 1) % len(images)]
        for name in names[:: max(1, len(names) // arguments.bands)][: arguments.bands]:
            band, side = bands[name], bands[name].shape[1]
            origin = register(bands["rgb"], band)
            for title, how in MAPS.items():
                true = known_map(side, *how)
                found = register(bands["rgb"], moved(band, true))
                if found is None or origin is None:
                    failed[title] += 1
                    continue
                y, x = np.mgrid[0:side:32, 0:side:32] + 0.5
                (u, v), (own_u, own_v) = (places(one, x, y) for one in (true @ origin.matrix, found.matrix))
                inside = (u > 0) & (u < side) & (v > 0) & (v < side)
                errors[title].append(float(np.hypot(u - own_u, v - own_v)[inside].max()))
        for name in names:
            for dx, dy in ((0, 0), *SHIFTS):
                offset, confidence = checked(bands["rgb"], np.roll(bands[name], (dy, dx), (1, 2)))
                related.append(confidence)
                count = counts["displaced" if dx or dy else "aligned"]
                count[0] += 1
                count[1] += confidence >= SURE and offset > LEAST_OFFSET
            offset, confidence = checked(bands["rgb"], other[name])
            unrelated.append(confidence)
            counts["of another scene"][0] += 1
            counts["of another scene"][1] += confidence >= SURE and offset > LEAST_OFFSET
        print(scenes[number].name, flush=True)
    document = {
        "scenes": [scene.name for scene in scenes],
        "registration": {
            title: {
                "bands": len(errors[title]) + failed[title],
                "not registered": failed[title],
                "within half a pixel": sum(error < 0.5 for error in errors[title]),
                "median error": statistics.median(errors[title]) if errors[title] else None,
                "largest error": max(errors[title], default=None),
                "map": as_transform(known_map(512, *how)),
            }
            for title, how in MAPS.items()
        },
        "check": {
            "bound": SURE,
            **{title: {"bands": bands, "warned": warned} for title, (bands, warned) in counts.items()},
            "least confidence of related bands": min(related),
            "largest confidence of unrelated bands": max(unrelated),
        },
    }
    write_json(arguments.out, document)
    write_text(arguments.out.with_suffix(".md"), markdown(document))


if __name__ == "__main__":
    main()
