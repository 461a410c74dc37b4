"""Functions of other projects; one that is not installed is a reason instead of a row.

anomalib and piq are in the extra ``bench``, for an environment of its own:
``python -m venv bench && bench/bin/pip install -e '.[train,jpeg,bench]' scikit-image torchmetrics pytorch-msssim``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.suite.turns import Call

# First of all, so that torchvision imports.
from blemish.layers import torchvision_operators as torchvision_operators

Found = tuple[dict[str, Any], dict[str, str]]
"""Functions by the name of their project, and why others are missing."""


def collect(makers: dict[str, Callable[[], Any]]) -> Found:
    """What the makers give, and why those of them cannot that lack a package."""
    made = {name: _made(make) for name, make in makers.items()}
    missing = {name: f"not installed ({one})" for name, one in made.items() if isinstance(one, ImportError)}
    return {name: one for name, one in made.items() if name not in missing}, missing


def _made(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except ImportError as error:
        return error


def ssim_functions() -> Found:
    """Mean SSIM over the places of a window of 11 within the images: functions of two batches (N, C, H, W)."""

    def msssim() -> Any:
        import pytorch_msssim

        return lambda x, y: pytorch_msssim.ssim(x, y, data_range=1.0)

    def metrics() -> Any:
        from torchmetrics.functional.image import structural_similarity_index_measure as measure

        return lambda x, y: measure(x, y, data_range=1.0)

    def piq() -> Any:
        import piq

        return lambda x, y: piq.ssim(x, y, data_range=1.0, downsample=False)

    def skimage() -> Any:
        from skimage.metrics import structural_similarity

        def each(x: Tensor, y: Tensor) -> float:
            pairs = zip(x.numpy(), y.numpy(), strict=True)
            return float(
                np.mean(
                    [
                        structural_similarity(
                            one,
                            other,
                            data_range=1.0,
                            channel_axis=0,
                            gaussian_weights=True,
                            sigma=1.5,
                            use_sample_covariance=False,
                        )
                        for one, other in pairs
                    ]
                )
            )

        return each

    return collect({"pytorch-msssim": msssim, "torchmetrics": metrics, "piq": piq, "scikit-image": skimage})


def pixel_functions(masks: Any, maps: Any) -> Found:
    """Pixel AUROC or AUPRO of all maps (N, H, W) at once."""

    def sklearn() -> Call:
        from sklearn.metrics import roc_auc_score

        return lambda: float(roc_auc_score(masks.ravel(), maps.ravel()))

    def torchmetrics() -> Call:
        from torchmetrics.functional.classification import binary_auroc

        values, truth = torch.from_numpy(maps).flatten(), torch.from_numpy(masks).flatten().int()
        # Values above 1 would be taken for logits.
        scaled = values / values.max()
        return lambda: float(binary_auroc(scaled, truth))

    def anomalib() -> Call:
        from anomalib.metrics.aupro import _AUPRO

        values, truth = torch.from_numpy(maps), torch.from_numpy(masks.astype(np.int64))

        def compute() -> float:
            metric = _AUPRO(fpr_limit=0.3)
            metric.update(values, truth)
            return float(metric.compute())

        return compute

    return collect(
        {
            "scikit-learn, AUROC": sklearn,
            "torchmetrics, AUROC": torchmetrics,
            "anomalib, AUPRO": anomalib,
        }
    )


def anomalib_models(good: Tensor) -> Found:
    """Models of anomalib with random weights, fitted to ``good`` (N, 3, H, W) where they are: fit and inspection.

    Random weights take as long as pretrained ones. The fit of a network is one step on 2 images of 128 × 128 (forward,
    backward, Adam), and that of PaDiM and PatchCore the whole of it; PatchCore keeps 1 % of its features by its own coreset.
    """
    few = good[:2, :, :128, :128]

    def timed(model: Any, fit: Call) -> dict[str, Call]:
        def inspect() -> object:
            model.eval()
            with torch.no_grad():
                return model(good[:1])

        return {"fit": fit, "inspect": inspect}

    def padim() -> dict[str, Call]:
        from anomalib.models.image.padim.torch_model import PadimModel

        model = PadimModel(backbone="resnet18", layers=["layer1", "layer2", "layer3"], pre_trained=False)

        def fit() -> None:
            model.train()
            model.memory_bank = []
            with torch.no_grad():
                for image in good.split(1):
                    model(image)
            model.fit()

        return timed(model, fit)

    def patchcore() -> dict[str, Call]:
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel

        model = PatchcoreModel(layers=("layer2", "layer3"), backbone="resnet18", pre_trained=False)

        def fit() -> None:
            model.train()
            model.embedding_store = []
            with torch.no_grad():
                for image in good.split(1):
                    model(image)
            model.subsample_embedding(0.01)

        return timed(model, fit)

    def step(model: Any, loss: Callable[[], Tensor]) -> Call:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

        def one() -> None:
            model.train()
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            optimizer.step()

        return one

    def draem() -> dict[str, Call]:
        from anomalib.models.image.draem.loss import DraemLoss
        from anomalib.models.image.draem.torch_model import DraemModel

        model, loss = DraemModel(), DraemLoss()
        mask = torch.zeros(len(few), 1, *few.shape[2:])

        def of_a_batch() -> Tensor:
            reconstruction, prediction = model(few)
            found: Tensor = loss(few, reconstruction, mask, prediction)
            return found

        return timed(model, step(model, of_a_batch))

    def ganomaly() -> dict[str, Call]:
        from anomalib.models.image.ganomaly.loss import GeneratorLoss
        from anomalib.models.image.ganomaly.torch_model import GanomalyModel

        def made(images: Tensor) -> Any:
            size = (images.shape[2], images.shape[3])
            return GanomalyModel(input_size=size, num_input_channels=3, n_features=64, latent_vec_size=100)

        model, whole, loss = made(few), made(good), GeneratorLoss()

        def of_a_batch() -> Tensor:
            padded, fake, latent, again = model(few)
            real, _ = model.discriminator(padded)
            made, _ = model.discriminator(fake)
            found: Tensor = loss(latent, again, padded, fake, real, made)
            return found

        return timed(whole, step(model, of_a_batch))

    return collect(
        {
            "anomalib PaDiM, ResNet-18": padim,
            "anomalib PatchCore, ResNet-18": patchcore,
            "anomalib DRAEM": draem,
            "anomalib GANomaly": ganomaly,
        }
    )
