"""Comparison of two models on past images: counts against inspections one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.data.image import LoadedImage
from blemish.errors import ImageError
from blemish.inspection.detector import Detector
from blemish.serve.comparison import compare
from blemish.serve.contracts import StoredDecision
from tests.serve.test_good_images import TO_TEST, decision

Draw = Callable[..., NDArray[np.uint8]]


@pytest.fixture(scope="module")
def pixels(draw: Draw) -> dict[int, NDArray[np.uint8]]:
    return {number: draw(500 + number, dot=number % 3 == 0) for number in range(12)}


def test_counts_are_those_of_both_models_one_by_one(
    exported: tuple[Detector, Path], pixels: dict[int, NDArray[np.uint8]]
) -> None:
    running, candidate = exported[0], exported[0].with_false_reject_rate(0.6)
    decisions = [
        decision(number, rejected=number % 3 == 0, verdict=(True, None) if number < 9 else None)
        for number in pixels
    ]
    # Only those that no fit has seen measure; the seventh and later ones may have been fitted on.
    decisions[:6] = [one.model_copy(update={"image_sha256": TO_TEST}) for one in decisions[:6]]
    done: list[int] = []

    def image(one: StoredDecision) -> LoadedImage | None:
        return None if one.id == 11 else LoadedImage(Path(one.name), pixels[one.id][None])

    found = compare(running, candidate, decisions, image, progress=done.append)
    before = {number: running.inspect(pixels[number]).is_anomalous for number in range(11)}
    after = {number: candidate.inspect(pixels[number]).is_anomalous for number in range(11)}
    assert done == list(range(1, 13))
    assert (found.compared, found.skipped, found.judged) == (11, 1, 6)
    assert found.running.rejected == sum(before.values())
    assert found.candidate.rejected == sum(after.values())
    changed = [number for number in before if before[number] != after[number]]
    assert [one.decision.id for one in found.changed] == changed
    assert len(changed) == found.newly_rejected + found.newly_accepted > 0
    truth = {number: number % 3 == 0 for number in range(6)}
    assert found.running.agreeing == sum(before[number] == truth[number] for number in truth)
    assert found.candidate.agreeing == sum(after[number] == truth[number] for number in truth)
    assert found.running.seconds > 0


def test_a_model_agrees_with_itself(
    exported: tuple[Detector, Path], pixels: dict[int, NDArray[np.uint8]]
) -> None:
    decisions = [decision(number, rejected=False) for number in pixels]
    found = compare(
        exported[0], exported[0], decisions, lambda one: LoadedImage(Path("a"), pixels[one.id][None])
    )
    assert (found.newly_rejected, found.newly_accepted, found.changed) == (0, 0, [])
    assert found.running.rejected == found.candidate.rejected


def test_damaged_and_foreign_images_are_left_out(exported: tuple[Detector, Path]) -> None:
    def image(one: StoredDecision) -> LoadedImage:
        if one.id == 1:
            raise ImageError(Path("a.png"), "is damaged", "convert it")
        return LoadedImage(Path("b.png"), np.zeros((1, 40, 48), np.uint16))  # fitted on 8 bits

    found = compare(
        exported[0], exported[0], [decision(1, rejected=False), decision(2, rejected=False)], image
    )
    assert (found.compared, found.skipped) == (0, 2)


def test_it_stops_when_asked(exported: tuple[Detector, Path], pixels: dict[int, NDArray[np.uint8]]) -> None:
    decisions = [decision(number, rejected=False) for number in pixels]
    done: list[int] = []
    found = compare(
        exported[0], exported[0], decisions, lambda one: LoadedImage(Path("a"), pixels[one.id][None]),
        progress=done.append, should_stop=lambda: len(done) == 3,
    )  # fmt: skip
    assert found.compared == 3
