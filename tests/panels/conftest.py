from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from blemish.images import Fingerprint, Preparation, find_scenes
from blemish.images.fingerprint import Spread
from blemish.inspector import FORMAT, Calibration, Inspector, ModelFile, Training
from blemish.models import build
from blemish.recipes import load_recipe, override

H, W = 64, 160

Painting = Callable[..., Path]


def surface(seed: int, height: int, width: int) -> NDArray[np.float64]:
    """Soft waves in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / height
    waves = np.sin(9 * x + 7 * y + 6 * rng.random()) + np.sin(13 * y - 5 * x + 6 * rng.random())
    return np.clip(0.5 + 0.2 * waves + 0.05 * rng.standard_normal((height, width)), 0, 1)


def paint(folder: Path, seed: int = 0, *, height: int = H, width: int = W) -> Path:
    """A scene of three sensors: RGB in 8 bits, infrared in 16-bit tiles, X-ray at half the resolution."""
    folder.mkdir(parents=True, exist_ok=True)
    grey = surface(seed, height, width)
    rgb = np.stack([grey, grey**2, 1 - grey], axis=-1)
    Image.fromarray((255 * rgb).round().astype(np.uint8)).save(folder / "rgb.png")
    tifffile.imwrite(
        folder / "infrared.tif", (65535 * grey).astype(np.uint16), tile=(32, 32), compression="zlib"
    )
    half = grey.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    tifffile.imwrite(folder / "xray.tif", (4095 * half).astype(np.uint16))
    return folder


@pytest.fixture(scope="session")
def painting() -> Painting:
    """``painting(folder, seed, height=64, width=160)``: writes a scene and returns its folder."""
    return paint


@pytest.fixture(scope="session")
def make_inspector() -> Callable[..., Inspector]:
    """``make_inspector(scene_folder, recipe, *settings)``: an inspector of such scenes with random weights."""

    def make(source: Path, name: str = "fp-cae-add", *settings: str) -> Inspector:
        recipe = override(load_recipe(name), list(settings))
        modalities = find_scenes(source)[0].modalities
        channels = sum(modality.channels for modality in modalities)
        torch.manual_seed(0)
        model = build(recipe, channels, modalities=modalities)
        spread = Spread(min=W, median=W, max=W)
        file = ModelFile(
            format=FORMAT,
            blemish="0",
            versions={},
            recipe=recipe,
            preparation=Preparation(
                channels=channels, convert=False, kind="float32", size=None, modalities=modalities
            ),
            calibration=Calibration(
                scores=tuple(np.linspace(0.5, 1.0, 39)), peaks=tuple(np.linspace(0.8, 1.0, 39)), square=32
            ),
            fingerprint=Fingerprint(
                count=1, channels=channels, kind="float32", width=spread, height=spread, sha256="0"
            ),
            split={"train": (), "validation": (), "calibration": ()},
            training=Training(steps=1, best_step=1, best_loss=1.0, seconds=1.0, machine="none", history=()),
            weights_sha256="0",
        )
        return Inspector(model, file)

    return make
