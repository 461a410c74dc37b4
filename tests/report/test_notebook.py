from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.data.image import LoadedImage
from blemish.decision.regions import find_regions, region_threshold
from blemish.inspection.card import model_in_html, model_in_one_line
from blemish.inspection.detection import Detection
from blemish.inspection.detector import Detector
from blemish.report.colours import HEAT, displayable, fit_map
from blemish.report.notebook import SIDE

BOUND = 1_400_000
"""Characters of a card: two JPEG of noise, the images that compress least, in base64."""
MARKUP = "<script>alert('a')</script>.png"


def detection(pixels: NDArray[Any], anomaly_map: NDArray[np.float32], **fields: Any) -> Detection:
    """An image whose largest map value is its score, at a threshold of 0.5."""
    score = float(anomaly_map.max())
    level = region_threshold(anomaly_map, 0.5, is_anomalous=score > 0.5)
    known: dict[str, Any] = {
        "name": "part.png",
        "size": (pixels.shape[2], pixels.shape[1]),
        "score": score,
        "threshold": 0.5,
        "p_value": 0.05,
        "is_anomalous": score > 0.5,
        "map": anomaly_map,
        "pixel_threshold": 0.5,
        "region_threshold": level,
        "regions": find_regions(anomaly_map, level),
        "loaded": LoadedImage(Path("part.png"), pixels),
        "planes": None,
        "seconds": 0.1,
    }
    return Detection(**{**known, **fields})


def with_defect(height: int, width: int, peak: float = 0.9) -> NDArray[np.float32]:
    """A map of 0.1 with a defect in its middle ninth."""
    found = np.full((height, width), 0.1, np.float32)
    found[height // 3 : height - height // 3, width // 3 : width - width // 3] = peak
    return found


def images(page: Any) -> list[NDArray[np.uint8]]:
    found = []
    for one in page.all("img"):
        head, _, data = str(one["src"]).partition(",")
        assert head in ("data:image/jpeg;base64", "data:image/png;base64")
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        assert image.size == (int(str(one["width"])), int(str(one["height"])))
        found.append(np.asarray(image.convert("RGB")))
    return found


def test_a_detection_shows_image_map_and_decision(parse: Callable[[str], Any]) -> None:
    grey = np.full((1, 96, 128), 120, np.uint8)
    found = detection(grey, with_defect(96, 128))
    page = parse(found._repr_html_())
    image, over = images(page)
    assert image.shape == over.shape == (384, 512, 3)
    assert np.abs(image.astype(int) - 120).max() <= 2
    # The scale is anchored at the pixel threshold: 0.9 of 0.5 is at 9/10 of it, four tenths and four of nine tenths strong.
    expected = 120 + (0.4 + 0.4 * 0.9) * (HEAT[round(0.9 * 254)].astype(float) - 120)
    assert np.abs(over[192, 256] - expected).max() <= 6
    dim = 120 + (0.4 + 0.4 * 0.1) * (HEAT[round(0.1 * 254)].astype(float) - 120)
    assert np.abs(over[10, 10] - dim).max() <= 6
    assert "✕ rejected" in page.text
    assert "score 0.9" in page.text
    assert "threshold 0.5" in page.text
    assert "p-value 0.05" in page.text
    assert "Rejected: its score is above the threshold." in page.text
    assert "1 region; the strongest is 44 × 32 pixels at (42, 32), peak 0.9" in page.text
    assert repr(found) == (
        "Detection('part.png', 128 × 96 pixels, score 0.9, threshold 0.5, p = 0.05, rejected, 1 region)"
    )


def test_regions_are_outlined_in_white_and_accepted_images_have_none() -> None:
    grey, ground = np.full((1, 96, 128), 60, np.uint8), np.zeros((96, 128), np.float32)
    bumpy = ground.copy()
    bumpy[40:60, 50:80] = 0.6

    def lines(found: Detection) -> NDArray[np.bool_]:
        from blemish.report.colours import glow

        drawn = glow(found.image, found.map, 0.5, found.region_threshold, side=512)
        white: NDArray[np.bool_] = (drawn == 255).all(axis=2)
        return white

    where = lines(detection(grey, bumpy))
    inside = fit_map(bumpy > 0.5, (384, 512))
    assert not (where & inside).any()
    rows, columns = np.nonzero(where)
    # A line of 2 pixels just around the 4 times larger region.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (158, 241, 198, 321)
    accepted = detection(grey, bumpy, score=0.4, is_anomalous=False, region_threshold=np.inf, regions=())
    assert not lines(accepted).any()


def test_an_accepted_image_and_one_of_another_kind_say_why(parse: Callable[[str], Any]) -> None:
    grey, low = np.full((1, 40, 48), 120, np.uint8), np.full((40, 48), 0.1, np.float32)
    accepted = detection(grey, low)
    page = parse(accepted._repr_html_())
    assert "✓ accepted" in page.text
    assert "Accepted: its score is not above the threshold." in page.text
    assert "region;" not in page.text
    assert repr(accepted).endswith("accepted, 0 regions)")
    other = detection(grey, low, is_anomalous=True, other_kind="contrast 0 <b>")
    page = parse(other._repr_html_())
    assert (
        "Rejected: not of the kind of the good images (contrast 0 <b>). Its score is not above the threshold."
        in page.text
    )
    assert page.all("b") == []
    assert "rejected as of another kind" in repr(other)


@pytest.mark.parametrize("name", [MARKUP, "two\nlines.png", "not text \udcff.png", '" onerror="alert(1)'])
def test_names_are_escaped(parse: Callable[[str], Any], name: str) -> None:
    found = detection(np.zeros((1, 40, 48), np.uint8), with_defect(40, 48), name=name)
    text = found._repr_html_()
    text.encode("utf-8")
    page = parse(text)
    assert page.all("script") == []
    assert all(set(one) == {"src", "width", "height", "alt", "style"} for one in page.all("img"))
    assert len(images(page)) == 2
    if name == MARKUP:
        assert MARKUP in page.text
    assert "\n" not in repr(found)
    repr(found).encode("utf-8")


@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(1, "uint8"), (2, "uint8"), (3, "uint16"), (4, "uint8"), (11, "uint16"), (11, "float32")],
)
def test_any_kind_of_image_is_shown_as_reports_show_it(
    parse: Callable[[str], Any], rng: np.random.Generator, channels: int, dtype: str
) -> None:
    values = np.repeat(np.repeat(rng.random((channels, 16, 16)), 32, axis=1), 32, axis=2)
    full = 1 if dtype == "float32" else np.iinfo(dtype).max
    pixels = (full * values).astype(dtype)
    found = detection(pixels, with_defect(512, 512))
    image, _ = images(parse(found._repr_html_()))
    middle = (
        slice(16, None, 32),
        slice(16, None, 32),
    )  # of the squares, away from the edges that JPEG softens
    difference = image[middle].astype(int) - displayable(found.image)[middle]
    assert np.abs(difference).max() <= 12


def test_images_of_few_bits_are_shown_as_bright_as_in_reports(parse: Callable[[str], Any]) -> None:
    pixels = np.full((1, 64, 64), 2047, np.uint16)
    dark, bright = (
        images(parse(detection(pixels, with_defect(64, 64), brightness=factor)._repr_html_()))[0].mean()
        for factor in (1.0, 16.0)
    )
    assert dark == pytest.approx(8, abs=1)
    assert bright == pytest.approx(127, abs=2)


@pytest.mark.parametrize("size", [(3000, 4000), (6, 100_000), (1, 1), (8, 8)])
def test_the_size_of_a_card_is_bounded(
    parse: Callable[[str], Any], rng: np.random.Generator, size: tuple[int, int]
) -> None:
    height, width = size
    pixels = rng.integers(0, 256, (3, height, width), np.uint8)
    text = detection(pixels, rng.random(size, np.float32))._repr_html_()
    assert len(text) < BOUND
    for image in images(parse(text)):
        assert max(image.shape[:2]) == SIDE


def test_a_region_of_one_pixel_in_a_large_image_is_seen(parse: Callable[[str], Any]) -> None:
    found = np.zeros((2048, 2048), np.float32)
    found[1000, 700] = 2
    image, over = images(parse(detection(np.full((1, 2048, 2048), 100, np.uint8), found)._repr_html_()))
    differs = np.abs(over.astype(int) - over[5, 5]).max(axis=2) > 60
    rows, columns = np.nonzero(differs)
    assert abs(rows.mean() - 250) < 25
    assert abs(columns.mean() - 175) < 25
    assert np.ptp(image) < 10


def test_a_detector_shows_recipe_images_threshold_and_guarantee(
    parse: Callable[[str], Any], detector: Detector, draw: Callable[..., NDArray[np.uint8]]
) -> None:
    page = parse(detector._repr_html_())
    for words in (detector.recipe.title, "ssim-ae", "24, 1 channel, uint8", f"{detector.threshold:.6g}"):
        assert words in page.text
    assert " ".join(detector.guarantee.split()) in page.text
    assert repr(detector) == f"Detector('ssim-ae', 24 images, threshold {detector.threshold:.4g})"
    found = detector.inspect(draw(0, dot=True), name=MARKUP)
    assert len(images(parse(found._repr_html_()))) == 2


def test_a_detector_without_calibration_and_with_markup_in_its_recipe(
    parse: Callable[[str], Any], detector: Detector
) -> None:
    recipe = detector.recipe.model_copy(update={"title": MARKUP})
    file = detector.file.model_copy(update={"calibration": None, "recipe": recipe})
    page = parse(model_in_html(file))
    assert MARKUP in page.text
    assert "not calibrated" in page.text
    assert "guarantee" not in page.text
    assert model_in_one_line(file) == "'ssim-ae', 24 images, not calibrated"


def test_a_detector_of_scenes(
    parse: Callable[[str], Any],
    painting: Callable[..., Path],
    make_detector: Callable[..., Any],
    tmp_path: Path,
) -> None:
    painting(tmp_path / "scenes" / "first")
    found = make_detector(tmp_path / "scenes")
    assert "scenes" in parse(found._repr_html_()).text
    assert repr(found).startswith("Detector('fp-cae-add', 1 scene, threshold ")
