"""Agreement with torch: how far a member of an ensemble may differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.detectors.combination import CombinedModel
from blemish.errors import ExportError
from blemish.export.parity import SCORE_TOLERANCE, compared
from blemish.inspection.detector import Detector
from blemish.observer import Observer
from blemish.runtime.bank import ArrayMemory
from blemish.runtime.model import ExportedModel, RuntimeNetwork


def member(exported: Detector, kind: type[Any]) -> Any:
    """The first member of ``kind`` of an exported ensemble."""
    assert isinstance(exported.model, ExportedModel)
    assert isinstance(exported.model.model, CombinedModel)
    return next(one for one in exported.model.model.models if isinstance(one, kind))


def shift(monkeypatch: pytest.MonkeyPatch, member: Any, by: float) -> None:
    maps = member.maps

    def shifted(*x: Any, **options: Any) -> Any:
        found = maps(*x, **options)
        return found._replace(anomaly=found.anomaly + by)

    monkeypatch.setattr(member, "maps", shifted)


def test_a_network_may_differ_by_the_share_of_its_least_evidence(
    posed: tuple[Detector, Path], exported_posed: tuple[Detector, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_model = posed[0].model
    assert isinstance(torch_model, CombinedModel)
    least = [getattr(torch_model.models[number], "least_evidence", 0.0) for number in torch_model.used]
    assert max(least) == pytest.approx(np.log(2))
    network, bank = (member(exported_posed[0], kind) for kind in (RuntimeNetwork, ArrayMemory))
    with monkeypatch.context() as patch:
        shift(patch, network, 0.5 * SCORE_TOLERANCE * max(least))
        assert compared(posed[0], exported_posed[0], None, Observer()).score <= SCORE_TOLERANCE
    for one, by in ((network, 2 * SCORE_TOLERANCE * max(least)), (bank, 0.01)):
        with monkeypatch.context() as patch:
            shift(patch, one, by)
            with pytest.raises(ExportError, match="nothing is written"):
                compared(posed[0], exported_posed[0], None, Observer())
