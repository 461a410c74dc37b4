from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from blemish.data.maps import write_image
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.decision import Calibration, SceneSquares
from blemish.inspection.detector import Detector, load
from blemish.inspection.document import CalibrationWithout
from blemish.inspection.scenes import inspect_scenes
from blemish.inspection.subset_calibration import decision_without
from blemish.training.fit import fit

TINY = [
    "training.batch=4",
    "training.device=cpu",
    "training.precision=float32",
    "training.steps=12",
    "training.validate_every=6",
    "encoder.width=1",
    "threshold.false_reject_rate=0.1",
]


def pixels(seed: int, height: int, width: int) -> NDArray[np.float32]:
    """(3, height, width): two sensors that nearly agree, and one that hardly depends on them."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    shared, own = (
        ndimage.gaussian_filter(rng.normal(size=(height, width)), 1.5) * 0.6 + 0.5 for _ in range(2)
    )
    first = shared + rng.normal(0, 0.01, shared.shape)
    return np.stack([first, shared, 0.3 * shared + 0.7 * own]).clip(0, 1).astype(np.float32)


def write(folder: Path, seed: int, height: int = 192, width: int = 256) -> Path:
    for name, plane in zip(("a", "b", "c"), pixels(seed, height, width), strict=True):
        write_image(folder / f"{name}.png", plane[None])
    return folder


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    root = tmp_path_factory.mktemp("fitted")
    for seed in range(3):
        write(root / "scenes" / f"scene{seed}", seed)
    torch.manual_seed(0)
    fit(root / "scenes", "other-pixels", settings=TINY, out=root / "model")
    return load(root / "model")


def test_each_modality_is_left_out_in_turn(fitted: Detector) -> None:
    assert [one.names for one in fitted.file.without] == [("a",), ("b",), ("c",)]
    for one in fitted.file.without:
        assert len(one.calibration.scores) == len(fitted.decision.calibration.scores)
    without_c = next(one for one in fitted.file.without if one.names == ("c",))
    assert np.median(without_c.calibration.scores) != pytest.approx(
        np.median(fitted.decision.calibration.scores), rel=0.01
    )


def test_a_scene_that_lacks_a_modality_is_rejected_at_the_promised_rate(
    fitted: Detector, tmp_path: Path
) -> None:
    """New good scenes without one modality: about 1 square in 10 by its own calibration, others by the common one."""
    for seed in range(20, 22):
        write(tmp_path / "new" / f"scene{seed}", seed)
    common = fitted.with_file(fitted.file.model_copy(update={"without": ()}))
    rates = {}
    for name in ("a", "c"):
        for title, detector in (("own", fitted), ("common", common)):
            done = inspect_scenes(detector, tmp_path / "new", tmp_path / f"{name}-{title}", hide=[name])
            squares = sum(record.squares for record in done.records)
            rates[name, title] = sum(record.above for record in done.records) / squares
            notice = "decided by" if title == "own" else "no calibration for scenes without"
            assert all(any(line.startswith(notice) for line in record.notices) for record in done.records)
    own = [rates[name, "own"] for name in ("a", "c")]
    assert max(own) < 0.3
    assert np.mean(own) < 0.2
    off = max(abs(rates[name, "common"] - 0.1) for name in ("a", "c"))
    assert off > max(abs(rate - 0.1) for rate in own), "the common threshold is further from the promise"


def calibration(*scores: float) -> Calibration:
    return Calibration(scores=scores, map_maxima=scores, unit=SceneSquares(side=32))


def test_the_decision_is_that_of_the_missing_set(fitted: Detector) -> None:
    common = fitted.decision
    subset = {
        ("a",): calibration(*np.linspace(1, 2, 40)),
        ("a", "b"): calibration(*np.linspace(5, 6, 40)),
        ("b",): calibration(*np.linspace(3, 4, 40)),
    }
    without = tuple(CalibrationWithout(names=names, calibration=one) for names, one in subset.items())
    detector = fitted.with_file(fitted.file.model_copy(update={"without": without}))
    assert decision_without(detector, []).decision == common
    assert decision_without(detector, []).notices == ()
    for names in (["a"], ["b"], ["b", "a"]):
        found = decision_without(detector, names)
        assert found.decision.calibration == subset[tuple(sorted(names))]
        assert found.notices[0].startswith("decided by 40 calibration squares scored without ")
    unknown = decision_without(detector, ["b", "c"])
    assert unknown.decision.threshold == decision_without(detector, ["b"]).decision.threshold
    assert (
        "no calibration for scenes without b, c, so that the promised rate is not for this scene"
        in unknown.notices[0]
    )
    by_hand = detector.with_threshold(0.5)
    assert decision_without(by_hand, ["a"]).decision.threshold == 0.5


def test_a_subset_with_too_few_scores_for_the_rate_is_not_used(fitted: Detector) -> None:
    without = (CalibrationWithout(names=("a",), calibration=calibration(1.0, 2.0)),)
    detector = fitted.with_file(fitted.file.model_copy(update={"without": without}))
    found = decision_without(detector, ["a"])
    assert found.decision.threshold == fitted.decision.threshold
    assert "no calibration" in found.notices[0]


def test_a_reader_without_more_modalities_keeps_those_that_are_left(tmp_path: Path) -> None:
    (scene,) = find_scenes(write(tmp_path / "one", 0, 40, 50))
    reader = SceneReader(scene, without=["a"])
    left = reader.leaving_out(["b"])
    assert left is not None
    assert left.missing == ("a", "b")
    np.testing.assert_array_equal(left.read(0, 0, 40, 50)[2], reader.read(0, 0, 40, 50)[2])
    assert left.leaving_out(["c"]) is None
