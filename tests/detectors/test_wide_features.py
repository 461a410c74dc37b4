"""Features of ten thousand values, in bounded memory: structure without its patches, and principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from blemish.detectors.feature_extractors import Structure, structure
from blemish.detectors.patch_bank import PatchBank
from blemish.detectors.principal_components import principal_components
from blemish.errors import UsageError
from blemish.runtime.features import StructureFeatures
from blemish.runtime.record import ExportedExtractor


class Largest(TorchDispatchMode):
    """Number of values of the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for one in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(one, torch.Tensor):
                self.values = max(self.values, one.numel())
        return found


def test_a_bank_of_many_channels_makes_no_matrix_of_all_features() -> None:
    images = [torch.rand(40, 64, 64) for _ in range(3)]
    bank = PatchBank(Structure(), dimensions=8, capacity=500, images=50, nearest_images=3, reach=1)
    with Largest() as largest:
        bank.fit(images, torch.Generator().manual_seed(0), by_place=False)
    # The covariance of 40 · 16² features has 105 million values; one image has 3 million.
    assert largest.values < 15_000_000
    assert bank.basis.shape == (40 * 256, 8)
    assert torch.isfinite(bank(torch.rand(1, 40, 64, 64))).all()


def test_principal_components_of_wide_features_are_those_of_their_covariance() -> None:
    generator = torch.Generator().manual_seed(0)
    strong = torch.randn(300, 5, generator=generator) * torch.tensor([9.0, 7.0, 5.0, 4.0, 3.0])
    directions, _ = torch.linalg.qr(torch.randn(3000, 5, generator=generator))
    sample = strong @ directions.T + 0.01 * torch.randn(300, 3000, generator=generator)
    sample -= sample.mean(0)
    found = principal_components(sample, 5, generator)
    _, _, expected = torch.linalg.svd(sample, full_matrices=False)
    torch.testing.assert_close(found.T @ found, torch.eye(5), atol=1e-4, rtol=0)
    torch.testing.assert_close((expected[:5] @ found).abs(), torch.eye(5), atol=1e-3, rtol=0)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize(
    ("channels", "patch", "stride", "size"),
    [(1, 16, 4, (64, 71)), (3, 32, 8, (50, 40)), (19, 8, 4, (33, 47)), (19, 8, 3, (40, 32))],
)
def test_structure_without_its_patches_is_that_of_all(
    channels: int, patch: int, stride: int, size: tuple[int, int], outside: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    # Some patches are nearly flat, and light falls off from one side to the other.
    x = 0.2 * torch.rand(1, channels, *size, generator=generator) + torch.linspace(0, 0.7, size[1])
    x[..., :20] = 0.1 + 0.01 * x[..., :20]
    inside = torch.ones(1, *size, dtype=torch.bool)
    inside[:, :9, :12] = not outside
    extractor = Structure(patch=patch, stride=stride)
    own = inside if outside else None
    whole = structure(x, patch, stride, extractor.floor, own)
    mean, basis = torch.randn(channels * patch**2), torch.randn(channels * patch**2, 6)
    basis /= basis.square().sum(0).sqrt()
    expected = (whole - mean) @ basis
    scale = float((whole @ basis).std())
    found = extractor.projected(x, mean, basis, own)
    torch.testing.assert_close(found, expected, atol=1e-4 * scale, rtol=1e-4)
    places = torch.tensor([5, 0, 17])
    torch.testing.assert_close(
        extractor.drawn(x, lambda rows, columns: places, own),
        whole.flatten(0, 2)[places],
        atol=1e-4,
        rtol=1e-4,
    )
    record = ExportedExtractor(
        name="structure", patch=patch, floor=extractor.floor, stride=stride, least_side=5, title=""
    )
    exported = StructureFeatures(record).projected(
        x[0].numpy(), None if own is None else own[0].numpy(), mean.numpy(), basis.numpy()
    )
    np.testing.assert_allclose(exported, expected[0].numpy(), atol=1e-4 * scale, rtol=1e-4)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_a_flat_image_has_no_structure(level: float) -> None:
    x = torch.full((1, 2, 40, 48), level)
    basis = torch.linalg.qr(torch.randn(2 * 256, 6)).Q
    found = Structure().projected(x, torch.zeros(2 * 256), basis)
    assert found.abs().max() < 1e-2
    assert Structure().drawn(x, lambda rows, columns: torch.tensor([0, 7])).abs().max() < 1e-2


def test_an_image_that_is_too_small_for_its_patches_is_refused() -> None:
    for call in (
        lambda x: Structure().projected(x, torch.zeros(256), torch.zeros(256, 2)),
        lambda x: Structure().drawn(x, lambda rows, columns: torch.tensor([0])),
    ):
        with pytest.raises(UsageError, match="16 × 16"):
            call(torch.rand(1, 1, 8, 40))
