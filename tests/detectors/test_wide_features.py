"""Images of many channels: features of ten thousand values, in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from blemish.detectors.feature_extractors import Structure, structure
from blemish.detectors.patch_bank import PatchBank
from blemish.detectors.principal_components import principal_components
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


@pytest.mark.parametrize("size", [(33, 47), (40, 32)])
def test_channels_taken_by_and_by_give_the_structure_of_all(size: tuple[int, int]) -> None:
    x = torch.rand(1, 19, *size)
    extractor = Structure(patch=8)
    whole = structure(x, 8, 4, extractor.floor)
    mean, basis = torch.randn(19 * 64), torch.randn(19 * 64, 6)
    expected = (whole - mean) @ basis
    torch.testing.assert_close(extractor.projected(x, mean, basis), expected, atol=1e-3, rtol=1e-4)
    places = torch.tensor([5, 0, 17])
    torch.testing.assert_close(
        extractor.drawn(x, lambda rows, columns: places), whole.flatten(0, 2)[places], atol=1e-5, rtol=1e-4
    )
    record = ExportedExtractor(
        name="structure", patch=8, floor=extractor.floor, stride=4, least_side=5, title=""
    )
    exported = StructureFeatures(record).projected(x[0].numpy(), None, mean.numpy(), basis.numpy())
    np.testing.assert_allclose(exported, expected[0].numpy(), atol=1e-3, rtol=1e-3)
