"""Time of an inspection beside PatchCore and PaDiM of anomalib, on the same images in turns.

Needs ``pip install -e '.[bench]'``. Their networks have random weights, which take as long as pretrained ones. PatchCore's
memory bank is drawn at random from the features of the good images, with as many rows as its coreset has: selecting a
coreset takes long and changes no time of an inspection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.export.models import fitted, grey, images_in
from benchmarks.export.speed import interleaved
from blemish.export.export_model import export_model
from blemish.inspection.detector import load
from blemish.layers import (
    torchvision_operators as torchvision_operators,
)  # first of all, so that torchvision imports

SIDE = 256
BACKBONE, LAYERS = "resnet18", ("layer2", "layer3")
CORESETS = (0.1, 0.01)
"""Shares of the features that PatchCore keeps: anomalib's default, and a tenth of it."""
MEAN, SPREAD = (
    torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1),
    torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1),
)


def opened(path: Path) -> torch.Tensor:
    """An image as these models take it: (1, 3, 256, 256), normalised."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE)), np.float32) / 255
    return ((torch.from_numpy(pixels).permute(2, 0, 1) - MEAN) / SPREAD)[None]


def patchcore(good: list[Path], share: float) -> Callable[[Path], Any]:
    """PatchCore from file to map and score."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(layers=LAYERS, backbone=BACKBONE, pre_trained=False)
    model.train()
    with torch.no_grad():
        features = torch.cat([model(opened(path)) for path in good])
    drawn = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    model.memory_bank = features[drawn[: round(share * len(features))]]
    model.eval()
    return lambda path: model(opened(path))


def padim(good: list[Path]) -> Callable[[Path], Any]:
    """PaDiM from file to map and score."""
    from anomalib.models.image.padim.torch_model import PadimModel

    model = PadimModel(backbone=BACKBONE, layers=["layer1", "layer2", "layer3"], pre_trained=False)
    model.train()
    with torch.no_grad():
        for path in good:
            model(opened(path))
    model.fit()
    model.eval()
    return lambda path: model(opened(path))


def peers(work: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each model."""
    data = grey(work / "peers")
    good = sorted((data / "train" / "good").iterdir())
    paths = images_in(data)
    functions: dict[str, Callable[[], Any]] = {}
    for recipe in ("ssim-ae", "blemish", "blemish-small"):
        folder = work / "peers" / "models" / recipe
        fitted(recipe, data / "train" / "good", folder / "torch")
        for runtime in ("onnx", "openvino"):
            export_model(folder / "torch", folder / runtime, to=runtime)
            detector = load(folder / runtime)
            functions[f"{recipe}, {runtime}"] = lambda own=detector: own.inspect(paths[0])
        detector = load(folder / "torch")
        functions[f"{recipe}, torch"] = lambda own=detector: own.inspect(paths[0])
    with torch.inference_mode():
        for share in CORESETS:
            own = patchcore(good, share)
            functions[f"PatchCore, ResNet-18, coreset {share:.0%}"] = lambda own=own: own(paths[0])
        other = padim(good)
        functions["PaDiM, ResNet-18"] = lambda: other(paths[0])
        seconds = interleaved(functions, rounds)
    slowest = seconds[f"PatchCore, ResNet-18, coreset {CORESETS[0]:.0%}"]
    for name, value in seconds.items():
        yield {
            "model": name,
            "good_images": len(good),
            "milliseconds": round(1000 * value, 1),
            "times_as_quick_as_patchcore": round(slowest / value, 2),
            "times_as_quick_as_padim": round(seconds["PaDiM, ResNet-18"] / value, 2),
        }
