from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from blemish.errors import FileError
from blemish.jpeg import protection_page
from blemish.jpeg.encoder import Encoder
from blemish.jpeg.protection import ImageDecision, Protection, RateSplit
from blemish.jpeg.protection_page import Protected, write_protection_page

if TYPE_CHECKING:
    from blemish.inspection.detector import Detector

ENCODER = Encoder()


def protection(
    *, before: bool = True, after: bool = True, plain: bool = False, score: float = 0.5
) -> Protection:
    def spent(is_anomalous: bool, score: float, inside: float) -> RateSplit:
        verdict = ImageDecision(score=score, is_anomalous=is_anomalous)
        return RateSplit(
            verdict=verdict, bits_per_pixel=1.25, bits_inside=inside, bits_outside=1000 - inside,
            psnr_inside=41.5, psnr_outside=None,
        )  # fmt: skip

    return Protection(
        threshold=0.4,
        strength=4,
        inside=0.125,
        before=ImageDecision(score=0.5, is_anomalous=before),
        after=spent(after, score, 400),
        plain=spent(plain, 0.3, 200),
    )


@pytest.fixture
def made(tmp_path: Path, draw: Callable[..., Any]) -> Callable[..., Protected]:
    def make(name: str, *, in_place: bool = False, **found: Any) -> Protected:
        pixels = draw(1, dot=True)
        image, file = tmp_path / f"{name}.png", tmp_path / f"{name}.jpg"
        Image.fromarray(pixels).save(image)
        file.write_bytes(ENCODER.encode(np.asarray(pixels), quality=50).data)
        return Protected(f"{name}.jpg", protection(**found), None if in_place else image, file)

    return make


def page(files: list[Protected], detector: Detector, tmp_path: Path, recorder: Any) -> str:
    path = tmp_path / "page.html"
    write_protection_page(path, files, detector, recorder())
    return path.read_text()


def labels(text: str) -> list[str]:
    return [
        re.split(r"[:<]", part)[0].strip() for part in re.findall(r"<figcaption>(.*?)</figcaption>", text)
    ]


def test_a_page_of_decisions_bits_and_maps(
    made: Callable[..., Protected], detector: Detector, tmp_path: Path, recorder: Any
) -> None:
    files = [made("same"), made("<changed>", after=False, score=0.35)]
    text = page(files, detector, tmp_path, recorder)
    assert "Compression changed 1 decision" in text
    assert "&lt;changed&gt;.jpg" in text
    assert "<changed>" not in text
    assert text.index("&lt;changed&gt;.jpg") < text.index("same.jpg")  # what went wrong comes first
    assert "without protection 2, at the same size" in text
    assert "40.0 %" in text  # of the bits lie inside
    assert "without protection 20.0 %" in text
    assert labels(text) == ["image", "file", "heat map", "bits per pixel"] * 2
    assert "https:" not in text


def test_in_place_the_page_notes_that_the_image_was_replaced(
    made: Callable[..., Protected], detector: Detector, tmp_path: Path, recorder: Any
) -> None:
    text = page([made("a", in_place=True)], detector, tmp_path, recorder)
    assert "Compression changed no decision" in text
    assert labels(text) == ["file", "heat map", "bits per pixel"]
    assert "has replaced the image" in text


def test_removed_files_are_reported_on_the_page(
    made: Callable[..., Protected], detector: Detector, tmp_path: Path, recorder: Any
) -> None:
    files = [made("here"), made("gone")]
    files[1].file.unlink()
    text = page(files, detector, tmp_path, recorder)
    assert "Cannot be shown" in text
    assert len(labels(text)) == 4


def test_some_images_are_shown_and_all_are_listed(
    made: Callable[..., Protected],
    detector: Detector,
    tmp_path: Path,
    recorder: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protection_page, "SHOWN", 1)
    text = page([made("little", score=0.49), made("much", score=0.9)], detector, tmp_path, recorder)
    assert len(labels(text)) == 4
    assert text.count("little.jpg") == 3  # in the tables alone: scores once, bits with and without protection
    assert text.count("much.jpg") > 3


def test_a_folder_that_cannot_be_written(
    made: Callable[..., Protected], detector: Detector, tmp_path: Path, recorder: Any
) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(FileError, match="a part of this path is a file"):
        write_protection_page(tmp_path / "taken" / "page.html", [made("a")], detector, recorder())
