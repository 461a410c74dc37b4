"""Features as arrays: the values of the extractors in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blemish.detectors.feature_extractors import (
    Colour,
    FeatureExtractor,
    LocalContrast,
    Structure,
    WideStructure,
)
from blemish.errors import ModelError, UsageError
from blemish.runtime.features import extractor_of
from blemish.runtime.record import ExportedExtractor

rng = np.random.default_rng(0)
CASES = {
    "structure": Structure(),
    "structure of other patches": Structure(patch=12, stride=3, floor=0.5),
    "structure of wide patches": WideStructure(),
    "local-contrast": LocalContrast(),
    "colour": Colour(),
}


def record_of(extractor: FeatureExtractor, name: str) -> ExportedExtractor:
    return ExportedExtractor(
        name=name,
        patch=extractor.patch,
        floor=getattr(extractor, "floor", 0.0),
        stride=extractor.stride,
        offset=extractor.offset,
        least_side=extractor.least_side,
        title=extractor.title,
    )


@pytest.mark.parametrize("size", [(64, 80), (57, 91)])
@pytest.mark.parametrize("channels", [1, 3, 11])
@pytest.mark.parametrize("case", CASES)
def test_features_are_those_of_torch(case: str, channels: int, size: tuple[int, int]) -> None:
    extractor = CASES[case]
    x = rng.random((channels, *size), dtype=np.float32)
    with torch.no_grad():
        reduced = extractor.reduced(torch.from_numpy(x)[None])
        features = extractor(reduced)[0].numpy()  # (h, w, f)
    mean = features.mean((0, 1))
    basis = np.linalg.qr(rng.normal(size=(len(mean), min(8, len(mean)))))[0].astype(np.float32)
    own = extractor_of(record_of(extractor, case.split()[0]), {}, "model")
    view = own.reduced(x, None)
    np.testing.assert_allclose(view, reduced[0], rtol=1e-4, atol=1e-5)
    found = own.projected(view, None, mean, basis)
    np.testing.assert_allclose(found, (features - mean) @ basis, rtol=1e-4, atol=1e-4)


def test_an_even_image_has_features_without_division_by_zero() -> None:
    extractor = CASES["structure"]
    own = extractor_of(record_of(extractor, "structure"), {}, "model")
    count = extractor.patch**2
    found = own.projected(
        np.full((1, 40, 40), 0.5, np.float32), None, np.zeros(count, np.float32), np.eye(count)
    )
    np.testing.assert_allclose(found, 0, atol=1e-3)


def test_an_image_that_is_too_small_is_refused_as_in_torch() -> None:
    extractor = CASES["structure"]
    x = np.zeros((1, extractor.patch // 2, 60), np.float32)
    with pytest.raises(UsageError) as expected:
        extractor(torch.from_numpy(x)[None])
    own = extractor_of(record_of(extractor, "structure"), {}, "model")
    with pytest.raises(UsageError) as caught:
        own.projected(x, None, np.zeros(64, np.float32), np.zeros((64, 2), np.float32))
    assert str(caught.value) == str(expected.value)


def test_an_extractor_of_a_newer_version_is_named() -> None:
    record = record_of(CASES["colour"], "gloss")
    with pytest.raises(ModelError, match="model: needs the feature extractor 'gloss'; upgrade Blemish"):
        extractor_of(record, {}, "model")
