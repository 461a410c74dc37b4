"""Good images: each once, nothing that is no image, copies that later changes do not reach."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from blemish.errors import ImageError
from blemish.serve.contracts import StoredDecision, Verdict
from blemish.serve.good_images import GoodImageFolder, collect, is_good
from blemish.serve.verdicts import is_to_test
from tests.serve.serving import png

Draw = Callable[..., NDArray[np.uint8]]
TO_FIT, TO_TEST = (
    next(sha for sha in map(str, range(99)) if is_to_test(sha) is part) for part in (False, True)
)
NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)


@pytest.fixture
def images(tmp_path: Path) -> GoodImageFolder:
    return GoodImageFolder(tmp_path / "good" / "waves", max_pixels=10_000)


def decision(
    number: int, *, rejected: bool, verdict: tuple[bool, str | None] | None = None
) -> StoredDecision:
    return StoredDecision(
        id=number, request=str(number), time=NOW, model="waves", model_sha256="0" * 64, source="api", name=f"{number}.png",
        image_sha256=TO_FIT, size=(48, 40), score=1.0, threshold=2.0, pixel_threshold=1.0, p_value=0.5,
        is_anomalous=rejected, seconds=0.1, kept=True,
        verdict=None if verdict is None else Verdict(
            id=number, decision=number, time=NOW, is_right=verdict[0], label=verdict[1]
        ),
    )  # fmt: skip


def test_an_image_counts_once_under_a_name_of_ours(images: GoodImageFolder, draw: Draw) -> None:
    assert len(images) == 0
    assert images.add(png(draw(1)), "../../etc/passwd")
    assert not images.add(png(draw(1)), "other name.png")
    assert images.add(png(draw(2)), "b.png")
    assert len(images) == 2
    assert all(path.parent == images.folder and path.suffix == ".png" for path in images)
    assert images.clear() == 2
    assert list(images) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "empty"), (b"no image", "is not a PNG"), (b"\x89PNG\r\n\x1a\nrest", "PNG")],
)
def test_what_is_no_image_is_refused_and_leaves_nothing(
    images: GoodImageFolder, content: bytes, problem: str
) -> None:
    with pytest.raises(ImageError, match=problem) as raised:
        images.add(content, "a.png")
    assert raised.value.path == Path("a.png")
    assert len(images) == 0
    assert not images.folder.exists() or list(images.folder.iterdir()) == []


def test_an_image_beyond_the_limit_is_refused(images: GoodImageFolder) -> None:
    with pytest.raises(ImageError):
        images.add(png(np.zeros((200, 200), np.uint8)), "large.png")
    assert len(images) == 0


def test_a_snapshot_outlives_the_collection(images: GoodImageFolder, draw: Draw, tmp_path: Path) -> None:
    images.add(png(draw(1)), "a.png")
    images.add(png(draw(2)), "b.png")
    assert images.snapshot(tmp_path / "fits" / "1" / "good") == 2
    images.clear()
    images.add(png(draw(3)), "c.png")
    copies = sorted((tmp_path / "fits" / "1" / "good").iterdir())
    assert sorted(path.read_bytes() for path in copies) == sorted([png(draw(1)), png(draw(2))])


@pytest.mark.parametrize(
    ("rejected", "verdict", "expected"),
    [
        (False, None, None),
        (False, (True, None), True),
        (False, (False, None), False),
        (True, (True, None), False),
        (True, (False, None), True),
        (True, (False, "good"), True),
        (False, (False, "scratch"), False),
        (True, (True, "scratch"), False),
        # Rejected rightly, as of another kind, though the part itself is good.
        (True, (True, "good"), True),
    ],
)
def test_a_label_says_more_than_right_or_wrong(
    rejected: bool, verdict: tuple[bool, str | None] | None, expected: bool | None
) -> None:
    assert is_good(decision(1, rejected=rejected, verdict=verdict)) is expected


def test_only_good_images_are_collected(images: GoodImageFolder, draw: Draw) -> None:
    decisions = [
        decision(1, rejected=False),
        decision(2, rejected=False, verdict=(True, None)),
        decision(3, rejected=False, verdict=(False, None)),
        decision(4, rejected=True, verdict=(True, None)),
        decision(5, rejected=True, verdict=(False, None)),
        decision(6, rejected=True),
        decision(7, rejected=False),
    ]
    kept = {number: png(draw(number)) for number in range(1, 7)}  # the seventh is not kept

    def content(one: StoredDecision) -> bytes | None:
        return kept.get(one.id)

    assert collect(images, decisions, content, wanted="confirmed", count=10) == (2, 0, 0)
    assert sorted(path.read_bytes() for path in images) == sorted([kept[2], kept[5]])
    assert collect(images, decisions, content, wanted="accepted", count=10) == (1, 1, 0)
    unseen = [one.model_copy(update={"image_sha256": TO_TEST}) for one in decisions]
    images.clear()
    assert collect(images, unseen, content, wanted="confirmed", count=10) == (0, 0, 2)
    # Those without a verdict may get one, and would be tests then.
    assert collect(images, unseen, content, wanted="accepted", count=10) == (0, 0, 3)
    assert collect(images, decisions, content, wanted="accepted", count=1) == (1, 0, 0)
