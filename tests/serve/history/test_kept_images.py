"""Kept images: by rule, as they came, and never under a name that somebody else chose."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from blemish.data.image import read_image
from blemish.serve.contracts import Frame, NewDecision
from blemish.serve.history import KeepRule, KeptImages
from tests.serve.history.made import decision, many

MAP = np.linspace(0, 3, 12, dtype=np.float32).reshape(3, 4)


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (200, 30, 9)).save(file, "JPEG")
    return file.getvalue()


def test_an_image_is_kept_as_it_came_with_its_map(tmp_path: Path) -> None:
    images, content = KeptImages(tmp_path / "images"), jpeg()
    kept = images.keep(Frame(content, "a.jpg"), MAP, decision(1))
    path, shown = images.image(kept), images.map(kept)
    assert path is not None
    assert shown is not None
    assert path.suffix == ".jpg"
    assert path.read_bytes() == content
    assert (kept.kept, kept.until_delivered) == (True, False)
    assert kept.kept_bytes == len(content) + shown.stat().st_size
    found, values = images.read(kept)
    assert found == content
    assert values is not None
    np.testing.assert_allclose(values, MAP, atol=8 * 1.5 / 65535)
    assert images.read(decision(2)) == (None, None)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.arange(36, dtype=np.uint16).reshape(3, 4, 3) * 1800,
        np.arange(36, dtype=np.uint8).reshape(3, 4, 3)[:, ::-1],
    ],
    ids=["grey", "colour of 16 bits", "not contiguous"],
)
def test_an_array_is_kept_to_the_bit_as_png(tmp_path: Path, array: np.ndarray) -> None:  # type: ignore[type-arg]
    images = KeptImages(tmp_path)
    kept = images.keep(Frame(array, "camera"), MAP, decision(1))
    path = images.image(kept)
    assert path is not None
    pixels = read_image(path).pixels
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0).reshape(array.shape), array)


def kept_by(rule: KeepRule, new: list[NewDecision], folder: Path) -> list[int]:
    images = KeptImages(folder, rule)
    frame = Frame(jpeg(), "a.jpg")
    return [place for place, one in enumerate(new) if images.keep(frame, MAP, one).kept]


def test_rules_keep_what_they_say(tmp_path: Path) -> None:
    new = [
        one.model_copy(update={"p_value": place / 20}) for place, one in enumerate(many(20))
    ]  # every fifth rejected
    nothing = KeepRule(all=False, rejects=False)
    assert kept_by(nothing, new, tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    assert kept_by(KeepRule(), new, tmp_path) == list(range(20))
    assert kept_by(KeepRule(all=False), new, tmp_path) == [4, 9, 14, 19]
    uncertain = nothing.model_copy(update={"uncertain": (0.05, 0.15)})
    assert kept_by(uncertain, new, tmp_path) == [1, 2, 3]
    both = KeepRule(all=False, uncertain=(0.05, 0.15))
    assert kept_by(both, new, tmp_path) == [1, 2, 3, 4, 9, 14, 19]
    assert both.in_words() == "rejects, p-values of 0.05 to 0.15"


def test_one_in_n_is_that_share_and_the_same_for_a_repeated_request() -> None:
    rule = KeepRule(all=False, rejects=False, one_in=10)
    chosen = [rule.keeps(one) for one in many(4000)]
    assert 330 < sum(chosen) < 470  # 400 ± 3.7 standard deviations
    assert chosen == [rule.keeps(one) for one in many(4000)]
    assert all(KeepRule(all=False, rejects=False, one_in=1).keeps(one) for one in many(10))


@pytest.mark.parametrize("bounds", [(0.2, 0.1), (-0.1, 0.1), (0.5, 1.1)])
def test_bounds_that_are_no_p_values_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="two p-values between 0 and 1"):
        KeepRule(uncertain=bounds)


def test_images_that_sinks_need_are_kept_until_then(tmp_path: Path) -> None:
    images = KeptImages(tmp_path, KeepRule(all=False, rejects=False))
    frame = Frame(jpeg(), "a.jpg")
    accepted, rejected = decision(1), decision(2, is_anomalous=True)
    assert not images.keep(frame, MAP, accepted, ["rejected"]).kept
    kept = images.keep(frame, MAP, rejected, ["rejected"])
    assert (kept.kept, kept.until_delivered) == (True, True)
    assert images.keep(frame, MAP, accepted, ["all"]).until_delivered


@pytest.mark.parametrize("request_", ["../../etc/passwd", "a/b", "x" * 5000, "\x00", "\udcff"])
def test_a_request_leads_to_no_place_of_its_own(tmp_path: Path, request_: str) -> None:
    images = KeptImages(tmp_path / "images")
    kept = images.keep(Frame(jpeg(), "../x.jpg"), MAP, decision(1, request=request_, name="../../x"))
    path = images.image(kept)
    assert path is not None
    assert path.parent.parent == tmp_path / "images"
    assert {one.name for one in tmp_path.iterdir()} == {"images"}


def test_another_image_under_a_used_request_replaces_nothing(tmp_path: Path) -> None:
    images = KeptImages(tmp_path)
    first = images.keep(Frame(jpeg(), "a"), MAP, decision(1))
    images.keep(Frame(b"BM other", "b"), MAP, decision(1, image_sha256="f" * 64))
    assert images.read(first)[0] == jpeg()


def test_a_disk_that_refuses_loses_the_image_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file where the folder should be")
    images = KeptImages(tmp_path / "images")
    kept = images.keep(Frame(jpeg(), "a"), MAP, decision(1))
    assert kept == decision(1)
    assert images.problem is not None
    assert "a part of this path is a file" in str(images.problem)
