from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.decision import IndependentImages, train_mean_threshold
from blemish.errors import BlemishError, CalibrationError
from blemish.inspection.detector import Detector, load
from blemish.observer import Observer
from blemish.training.fit import fit

RATE = 0.2
SMALL = "ssim-ae"


def test_train_mean_rule_as_published(good: Path, tiny: list[str]) -> None:
    detector = fit(good, SMALL, settings=[*tiny, "threshold.rule=train-mean"])
    scores = [detector.inspect(good / name).score for name in detector.file.split["train"]]
    assert detector.threshold == train_mean_threshold(scores)
    assert list(detector.file.calibration.training_scores) == scores
    assert "Kumar" in detector.guarantee
    assert "no promise" in detector.guarantee
    assert detector.with_false_reject_rate(RATE).threshold == sorted(detector.file.calibration.scores)[-1]


def test_fixed_rule(good: Path, tiny: list[str]) -> None:
    detector = fit(good, SMALL, settings=[*tiny, "threshold.rule=fixed", "threshold.value=0.7"])
    assert detector.threshold == 0.7
    assert detector.file.calibration.training_scores == ()


def test_groups_stay_together_and_weaken_the_promise(
    good: Path,
    tmp_path: Path,
    tiny: list[str],
    draw: Callable[..., np.ndarray],
    save: Callable[..., Path],
    listed: Callable[..., Any],
) -> None:
    groups = {path.name: f"part {number // 3}" for number, path in enumerate(sorted(good.iterdir()))}
    source = listed(good, groups, tmp_path / "good.csv")
    detector = fit(source, SMALL, settings=tiny, false_reject_rate=RATE, out=tmp_path / "model")
    parts = [{groups[Path(name).name] for name in names} for names in detector.file.split.values()]
    assert sum(len(one) for one in parts) == 8
    held_out = detector.file.split["calibration"]
    assert f"{len(held_out)} held-out images of {len(held_out) // 3} groups" in detector.guarantee
    assert (
        "Images of one group resemble each other, so this is a guide for other groups" in detector.guarantee
    )
    assert load(tmp_path / "model").guarantee == detector.guarantee
    # A new image of a group that the model knows goes where the others of it are.
    more = tmp_path / "more"
    shutil.copytree(good, more)
    for number, name in enumerate(held_out):
        save(more / f"new {number}.png", draw(700 + number))
        groups[f"new {number}.png"] = groups[Path(name).name]
    for number in range(6):
        save(more / f"other {number}.png", draw(800 + number))
    again = fit(listed(more, groups, tmp_path / "more.csv"), continue_from=tmp_path / "model")
    new = {Path(name).name for name in again.file.split["calibration"]}
    assert {name for name in groups if name.startswith("new")} <= new
    # Without a list the images that are known keep their groups.
    again = fit(more, continue_from=tmp_path / "model", out=tmp_path / "again")
    calibrating = again.file.split["calibration"]
    others = set(calibrating) - {Path(name).name for name in held_out}
    assert f"{len(calibrating)} held-out images of {len(others) + len(held_out) // 3}" in again.guarantee
    assert load(tmp_path / "again").file.groups == detector.file.groups
    # Each by itself, the promise is one.
    alone = fit(listed(good, {}, tmp_path / "alone.csv"), SMALL, settings=tiny, false_reject_rate=RATE)
    assert alone.file.calibration.unit == IndependentImages()
    assert "guide" not in alone.guarantee


def test_the_largest_calibration_scores_are_left_out_on_request_and_reported(
    mixed: Path, tiny: list[str], tmp_path: Path
) -> None:
    plain = fit(mixed, "l2-ae", settings=tiny, false_reject_rate=RATE).file.calibration
    settings = [*tiny, "threshold.trim=0.2"]
    detector = fit(mixed, "l2-ae", settings=settings, false_reject_rate=RATE, out=tmp_path / "model")
    found = detector.file.calibration
    assert sorted([*found.scores, *found.left_out.values()]) == sorted(plain.scores)
    assert min(found.left_out.values()) >= max(found.scores)
    assert len(found.left_out) == int(0.2 * len(plain.scores)) == 1
    names = detector.file.split["calibration"]
    assert [detector.inspect(mixed / name).score for name in names] == list(found.scores)
    assert len(found.map_maxima) == len(found.scores)
    (left_out,) = found.left_out
    assert left_out not in names
    assert detector.threshold == max(found.scores) < max(plain.scores)
    assert "assumption: the highest of 6 held-out scores was" in detector.guarantee
    again = load(tmp_path / "model")
    assert (again.threshold, again.guarantee) == (detector.threshold, detector.guarantee)


def test_a_group_that_is_left_out_is_not_counted(
    mixed: Path, tiny: list[str], tmp_path: Path, listed: Callable[..., Any], dots: Callable[..., Any]
) -> None:
    pairs = {
        path.name: f"part {path.stem}"[:-1] for path in mixed.iterdir() if not path.name.startswith("dot")
    }
    source = listed(mixed, pairs, tmp_path / "mixed.csv")
    detector = fit(source, "l2-ae", settings=[*tiny, "threshold.trim=0.2"], false_reject_rate=RATE)
    assert dots(Path(name).name for name in detector.file.calibration.left_out)
    names = [Path(name).name for name in detector.file.split["calibration"]]
    groups = {pairs.get(name, name) for name in names}
    assert f"{len(names)} held-out images of {len(groups)} groups" in detector.guarantee


# -- images that vanish --------------------------------------------------------------------------------


class Removing(Observer):
    """Removes files when the calibration begins, as somebody may who tidies up."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.problems: list[str] = []

    def stage(self, text: str) -> None:
        if text.startswith("Calibrating"):
            for path in self.paths:
                path.unlink()

    def problem(self, error: BlemishError) -> None:
        self.problems.append(str(error))


@pytest.fixture
def copied(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "good"))


def test_a_calibration_image_that_vanishes_is_left_out(
    detector: Detector, copied: Path, tiny: list[str], tmp_path: Path
) -> None:
    *kept, gone = detector.file.split["calibration"]
    observer = Removing([copied / str(gone)])
    found = fit(
        copied, SMALL, settings=tiny, false_reject_rate=RATE, out=tmp_path / "model", observer=observer
    )
    (problem,) = observer.problems
    assert f"{gone}: does not exist" in problem
    assert found.file.split["calibration"] == tuple(kept)
    assert found.file.calibration.scores == detector.file.calibration.scores[:-1]
    assert load(tmp_path / "model").threshold == found.threshold


def test_too_few_calibration_images_that_are_left_cost_no_training(
    detector: Detector, copied: Path, good: Path, tiny: list[str], tmp_path: Path
) -> None:
    names = [str(name) for name in detector.file.split["calibration"]]
    out, most = tmp_path / "model", names[1:]
    with pytest.raises(
        CalibrationError, match="or bring back the images named above, and go on with --resume"
    ):
        fit(
            copied,
            SMALL,
            settings=tiny,
            false_reject_rate=RATE,
            out=out,
            observer=Removing([copied / name for name in most]),
        )
    for name in most:
        shutil.copy(good / name, copied / name)
    again = fit(copied, SMALL, settings=tiny, false_reject_rate=RATE, out=out, resume=True)
    assert again.file.calibration == detector.file.calibration
    assert again.file.weights_sha256 == detector.file.weights_sha256
