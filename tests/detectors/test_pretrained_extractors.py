from __future__ import annotations

import torch

from blemish.detectors.memory_bank import MemoryBank
from blemish.detectors.pretrained_extractors import EfficientNetLiteFeatures


def extractor() -> EfficientNetLiteFeatures:
    torch.manual_seed(0)
    return EfficientNetLiteFeatures(weights="none")


def test_a_place_has_the_features_of_both_levels() -> None:
    assert extractor()(torch.rand(2, 3, 64, 96)).shape == (2, 8, 12, 152)


def test_any_number_of_channels_is_taken_and_grey_is_repeated() -> None:
    features = extractor()
    grey = torch.rand(1, 1, 48, 48)
    torch.testing.assert_close(features(grey), features(grey.expand(-1, 3, -1, -1)))
    assert features(torch.rand(1, 11, 48, 48)).shape == features(grey).shape


def test_nothing_of_it_is_trained() -> None:
    features = extractor().train()
    assert not features.training
    assert not features.network.training
    assert not any(parameter.requires_grad for parameter in features.parameters())


def test_the_weights_are_saved_with_the_bank() -> None:
    bank = MemoryBank([extractor()], capacity=50)
    bank.fit_images(
        [torch.rand(1, 48, 48) for _ in range(3)], torch.Generator().manual_seed(0), by_place=False
    )
    other = MemoryBank([EfficientNetLiteFeatures(pretrained=False)], capacity=50)
    other.load_state_dict(bank.state_dict())
    x = torch.rand(1, 1, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(other.eval()(x), bank.eval()(x))
