"""Input images of the golden runs, drawn from seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MODALITIES = "modalities:\n- {name: rgb, file: rgb.png}\n- {name: infrared, file: infrared.png}\n- {name: xray, file: xray.png}\n"


def texture(seed: int, height: int = 48, width: int = 56, *, dot: float = 0) -> NDArray[np.uint8]:
    """Waves with noise (H, W); ``dot`` is added to a rectangle in them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(2 * np.pi * (x / 8 + rng.random())) * np.sin(2 * np.pi * (y / 8 + rng.random()))
    values = 128 + 50 * waves + rng.normal(0, 4, (height, width))
    values[14:22, 24:34] += dot
    image: NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8)
    return image


def part(seed: int, height: int = 88, width: int = 96, *, broken: bool = False) -> NDArray[np.uint8]:
    """A bright bolt at any angle on a dark plain ground (H, W); with ``broken`` its shank has a gap."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-4, 4, 2) + np.array([height, width]) / 2
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width] - centre[:, None, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), np.abs(y * np.cos(angle) - x * np.sin(angle))
    head = np.minimum(8 - np.abs(along + 24), 13 - across)
    shank = np.minimum(24 - np.abs(along - 8), 7 - across)
    metal = 180 + 25 * np.sin(along)
    if broken:
        metal = np.where(np.abs(along - 14) < 4, 60, metal)
    cover = np.clip(np.maximum(head, shank) + 0.5, 0, 1)
    values = 50 + cover * (metal - 50) + rng.normal(0, 2, (height, width))
    image: NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8)
    return image


def photo(seed: int, height: int = 72, width: int = 90) -> NDArray[np.uint8]:
    """Soft colours, an edge and noise (H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([110 + 70 * np.sin(x / (5 + c + seed)) * np.cos(y / (9 - c)) for c in range(3)], axis=-1)
    waves[x + y > 80] += 35
    return np.clip(waves + rng.normal(0, 6, waves.shape), 0, 255).astype(np.uint8)


def write(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_scene(folder: Path, seed: int, height: int = 96, width: int = 160) -> None:
    """RGB of 8 bits, infrared of 16 bits, X-ray at half the resolution."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / height
    waves = np.sin(9 * x + 7 * y + 6 * rng.random()) + np.sin(13 * y - 5 * x + 6 * rng.random())
    grey = np.clip(0.5 + 0.2 * waves + 0.05 * rng.standard_normal((height, width)), 0, 1)
    write(folder / "rgb.png", (255 * np.stack([grey, grey**2, 1 - grey], axis=-1)).round().astype(np.uint8))
    write(folder / "infrared.png", (65535 * (1 - grey)).astype(np.uint16))
    half = grey.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    write(folder / "xray.png", (255 * half).astype(np.uint8))
