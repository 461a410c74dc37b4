"""Do random weights or trivial statistics solve the generated data sets? They must not.

A data set on which an untrained network separates good from defective images proves nothing about a trained one.
This writes each family as `blemish demo` would, and measures image and pixel AUROC of

- ``padim``: a Gaussian at every position over the features of a random ResNet-18 (stages 1 to 3, 100 channels
  drawn at random), Mahalanobis distance (Defard et al. 2021, without the trained weights);
- ``padim-anywhere``: one Gaussian for all positions;
- ``filters-anywhere``: one Gaussian over two random convolution layers of fine resolution;
- trivial statistics of the image, as the value itself (``mean``: its AUROC or that of its negative, the
  larger) and as the distance from the good training images (``mean-deviation``).

    python benchmarks/random_baseline.py --out benchmarks/results/random_baseline.json

Families already in the file and not asked for again stay as they are.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

from blemish import __version__
from blemish.demo.generated import DEFECTS, FAMILIES, write_dataset

Floats = NDArray[np.float64]


class Block(nn.Module):
    """The basic residual block of ResNet-18 (He et al. 2016), its normalisation left at the identity."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.skip = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv2(torch.relu(self.conv1(x)))
        return torch.relu(y + self.skip(x))


class RandomResNet(nn.Module):
    """Stem and first three stages of ResNet-18 with random weights: (N, 3, H, W) to (N, 100, H/4, W/4)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        widths = [(64, 64, 1), (64, 128, 2), (128, 256, 2)]
        self.stages = nn.ModuleList(nn.Sequential(Block(i, o, s), Block(o, o, 1)) for i, o, s in widths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.register_buffer("kept", torch.randperm(64 + 128 + 256)[:100])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        fine = [functional.interpolate(m, size=maps[0].shape[-2:]) for m in maps]
        return torch.cat(fine, dim=1)[:, self.kept]


def random_filters() -> nn.Module:
    """Two random layers of small reach: (N, 3, H, W) to (N, 48, H/2, W/2)."""
    return nn.Sequential(nn.Conv2d(3, 32, 5, 1, 2), nn.ReLU(), nn.Conv2d(32, 48, 5, 2, 2), nn.ReLU())


@torch.inference_mode()
def extract(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([network(batch) for batch in images.split(16)])


def gaussian_maps(train: torch.Tensor, test: torch.Tensor, *, per_position: bool) -> Floats:
    """Mahalanobis distance (N, h, w) of features (N, C, h, w) from the Gaussian fitted to ``train``."""
    mean, std = train.mean(dim=(0, 2, 3), keepdim=True), train.std(dim=(0, 2, 3), keepdim=True) + 1e-6
    c, h, w = train.shape[1:]
    # (N, C, h, w) -> (positions, samples, C)
    fit, seen = (((x - mean) / std).permute(2, 3, 0, 1).reshape(h * w, -1, c) for x in (train, test))
    if not per_position:
        fit, seen = fit.reshape(1, -1, c), seen.reshape(1, -1, c)
    parts = []
    for good, new in zip(fit.split(256), seen.split(256), strict=True):
        mu = good.mean(dim=1, keepdim=True)
        cov = (good - mu).mT @ (good - mu) / (good.shape[1] - 1)
        factor = torch.linalg.cholesky(cov + 0.01 * torch.eye(c))
        white = torch.linalg.solve_triangular(factor, (new - mu).mT, upper=False)
        parts.append(white.square().sum(dim=1).sqrt())
    d = torch.cat(parts)
    maps: Floats = d.reshape(h, w, -1).permute(2, 0, 1).double().numpy()
    return maps


def resized(maps: Floats, size: int) -> Floats:
    """Maps (N, h, w) at the images' size, smoothed with sigma 4 as in PaDiM."""
    full = functional.interpolate(torch.from_numpy(maps)[:, None], size=(size, size), mode="bilinear")
    return np.stack([ndimage.gaussian_filter(m, 4) for m in full[:, 0].numpy()])


def histogram(image: Floats) -> Floats:
    counts = np.histogram(image, bins=64, range=(0, 1))[0]
    return counts / counts.sum()


def max_gradient(image: Floats) -> float:
    gy, gx = np.gradient(image, axis=(-2, -1))
    return float(np.hypot(gy, gx).max())


STATISTICS: dict[str, Callable[[Floats], float]] = {
    "mean": lambda p: float(p.mean()),
    "std": lambda p: float(p.std()),
    "max": lambda p: float(p.max()),
    "min": lambda p: float(p.min()),
    "max-gradient": max_gradient,
}


def trivial_figures(train: Floats, test: Floats, labels: NDArray[np.bool_]) -> dict[str, float]:
    figures = {}
    for name, statistic in STATISTICS.items():
        good, seen = (np.array([statistic(p) for p in images]) for images in (train, test))
        auroc = float(roc_auc_score(labels, seen))
        figures[name] = max(auroc, 1 - auroc)
        figures[f"{name}-deviation"] = float(roc_auc_score(labels, np.abs(seen - good.mean())))
    usual = np.mean([histogram(p) for p in train], axis=0)
    distance = [np.abs(histogram(p) - usual).sum() for p in test]
    figures["histogram-distance"] = float(roc_auc_score(labels, distance))
    return figures


def read(folder: Path) -> Floats:
    """All images of a folder, (N, C, H, W) in [0, 1]."""
    images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]
    return np.moveaxis(np.stack(images), -1, 1) / 255.0


def measure(folder: Path, family: str, seeds: list[int]) -> dict[str, Any]:
    train = read(folder / "train" / "good")
    parts = [read(folder / "test" / kind) for kind in ("good", *DEFECTS[family])]
    kinds = np.repeat(["good", *DEFECTS[family]], [len(part) for part in parts])
    test, labels = np.concatenate(parts), kinds != "good"
    size = test.shape[-1]
    masks = np.zeros((len(test), size, size), dtype=bool)
    masks[labels] = np.concatenate(
        [read(folder / "ground_truth" / kind)[:, 0] > 0.5 for kind in DEFECTS[family]]
    )
    as_tensor = [torch.from_numpy((p - train.mean()) / train.std()).float() for p in (train, test)]
    found: dict[str, dict[str, list[Any]]] = {}
    for seed in seeds:
        torch.manual_seed(seed)
        deep = [extract(RandomResNet().eval(), p) for p in as_tensor]
        fine = [extract(random_filters().eval(), p) for p in as_tensor]
        for name, (a, b), per_position in (
            ("padim", deep, True),
            ("padim-anywhere", deep, False),
            ("filters-anywhere", fine, False),
        ):
            maps = resized(gaussian_maps(a, b, per_position=per_position), size)
            scores = maps.max(axis=(1, 2))
            entry = found.setdefault(name, {"image_auroc": [], "pixel_auroc": [], "by_kind": []})
            entry["image_auroc"].append(float(roc_auc_score(labels, scores)))
            entry["pixel_auroc"].append(
                float(roc_auc_score(masks[:, ::2, ::2].ravel(), maps[:, ::2, ::2].ravel()))
            )
            entry["by_kind"].append(
                {
                    kind: float(roc_auc_score(labels[chosen], scores[chosen]))
                    for kind in DEFECTS[family]
                    if (chosen := (kinds == "good") | (kinds == kind)).any()
                }
            )
    random_weights = {
        name: {
            "image_auroc": round(float(np.mean(entry["image_auroc"])), 3),
            "image_auroc_by_seed": [round(v, 3) for v in entry["image_auroc"]],
            "pixel_auroc": round(float(np.mean(entry["pixel_auroc"])), 3),
            "image_auroc_by_kind": {
                kind: round(float(np.mean([by[kind] for by in entry["by_kind"]])), 3)
                for kind in DEFECTS[family]
            },
        }
        for name, entry in found.items()
    }
    trivial = {name: round(v, 3) for name, v in trivial_figures(train, test, labels).items()}
    area = masks[labels].mean(axis=(1, 2))
    return {
        "images": {
            "train_good": len(train),
            "test_good": int((~labels).sum()),
            "blemished": int(labels.sum()),
        },
        "blemished_share": {
            q: round(float(f(area)), 5)
            for q, f in (("least", np.min), ("median", np.median), ("most", np.max))
        },
        "random_weights": random_weights,
        "trivial_statistics": trivial,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="of the random weights")
    parser.add_argument("--data-seed", type=int, default=0)
    arguments = parser.parse_args()
    families = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    made_by = {
        "command": "python " + " ".join(sys.argv),
        "data_seed": arguments.data_seed,
        "weight_seeds": arguments.seeds,
        "versions": {
            "blemish": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "torch": torch.__version__,
        },
        "device": "cpu",
    }
    with tempfile.TemporaryDirectory() as root:
        for family in arguments.families:
            folder = write_dataset(root, family, seed=arguments.data_seed)
            families[family] = measure(folder, family, arguments.seeds) | made_by
            print(family, json.dumps(families[family], indent=1), flush=True)
    arguments.out.write_text(json.dumps(families, indent=2) + "\n")


if __name__ == "__main__":
    main()
