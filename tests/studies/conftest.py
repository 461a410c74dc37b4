"""Parts that the runs of all studies go without, so that a run of the smallest length takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from blemish.decision import PixelMetrics
from blemish.layers import pretrained

NARROW = (4, 4, "M", 8, 8, "M", 16, 16, 16, "M", 32, 32, 32, "M", 32, 32, 32, "M")
"""Channels of VGG16's layers, a sixteenth of its own."""


@pytest.fixture(scope="module", autouse=True)
def small_measurements(few_resamples: None) -> Iterator[None]:
    """Few bootstrap replicates, which are tested with the metrics, and few patches to validate on."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("studies.bergmann2018", "studies.radli2022_measures"):
            patch.setattr(f"{module}.PixelMetrics", partial(PixelMetrics, resamples=10))
        patch.setattr("blemish.training.trainer.VALIDATION_PATCHES", 8)
        yield


@pytest.fixture(scope="module")
def plain_layout() -> Iterator[None]:
    """Figures as they are, without the search for a layout without overlaps, which takes half the time of each."""
    from matplotlib.figure import Figure

    def savefig(figure: Figure, *places: Any, **options: Any) -> None:
        figure.set_layout_engine("none")
        original(figure, *places, **options)

    original = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield


@pytest.fixture
def narrow_vgg16(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG16 with a sixteenth of its channels; encoders of the true width are tested with the models."""

    def make() -> nn.Sequential:
        from torchvision.models.vgg import make_layers

        return nn.Sequential(make_layers(list(NARROW)))

    monkeypatch.setattr("blemish.models.pretrained_encoders.VGG16Encoder.width", NARROW[-2])
    monkeypatch.setitem(pretrained._MAKERS, "vgg16", make)


@pytest.fixture
def without_drawings(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``without_drawings(module, *functions)``: from here on these functions of a study draw nothing."""

    def skip(module: Any, *functions: str) -> None:
        for name in functions:
            monkeypatch.setattr(module, name, lambda *_: Path())

    return skip
