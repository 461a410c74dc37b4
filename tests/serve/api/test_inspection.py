"""Inspection over HTTP: the decision of the library, the history behind it, and bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blemish.inspection.detector import Detector, load
from tests.serve.serving import Served, png

Draw = Callable[..., NDArray[np.uint8]]


def test_a_decision_is_that_of_the_library_to_the_last_bit(
    served: Served, exported: tuple[Detector, Path], draw: Draw, tmp_path: Path
) -> None:
    for seed, dot in ((900, False), (901, True)):
        content = png(draw(seed, dot=dot))
        path = tmp_path / f"{seed}.png"
        path.write_bytes(content)
        expected = load(exported[1]).inspect(path)
        answer = served.post(content, name=path.name)
        assert answer.status_code == 200, answer.text
        (result,) = answer.json()["results"]
        record = result["record"]
        assert record["score"] == expected.score
        assert record["p_value"] == expected.p_value
        assert record["threshold"] == expected.threshold
        assert record["is_anomalous"] is bool(expected.is_anomalous)
        assert record["name"] == result["name"] == path.name
        assert [one["peak"] for one in record["regions"]] == [one.peak for one in expected.regions]
        assert served.client.get(f"/api/decisions/{result['id']}").json() == record
