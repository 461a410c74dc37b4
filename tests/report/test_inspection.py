from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.decision.drift import Drift
from blemish.decision.records import Inspection
from blemish.decision.regions import Region
from blemish.errors import ImageError
from blemish.report.inspection import (
    HANDFUL,
    ModelSummary,
    mistakes,
    most_suspicious_first,
    write_inspection_report,
)
from blemish.report.page import Prose, TableSection
from blemish.report.views import ImageViews

MODEL = ModelSummary("weave", "ssim-ae", "a paper", "1 − SSIM", "trained on 40 good images")


def record(path: str, score: float, **fields: Any) -> Inspection:
    known: dict[str, Any] = {"threshold": 0.5, "p_value": 0.5, "is_anomalous": score > 0.5, "label": None}
    known.update(fields)
    rest: dict[str, Any] = {"size": (16, 12), "regions": (), "time": "2025-01-01T00:00:00Z", "seconds": 0.02}
    return Inspection(path=path, score=score, **{**rest, **known})


def flat(channels: int = 3, height: int = 12, width: int = 16, **fields: Any) -> ImageViews:
    image = np.full((channels, height, width), 0.5)
    return ImageViews(**{"image": image, "reconstruction": image, "map": np.zeros((height, width)), **fields})


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    def write(records: list[Inspection], **changes: Any) -> str:
        arguments: dict[str, Any] = {
            "model": MODEL,
            "panels": lambda _: flat(),
            "calibration_scores": np.linspace(0.1, 0.4, 20),
            "pixel_threshold": 0.1,
            "guarantee": "At most 5 in 100 good ones.",
            "settings": {"seed": "7"},
        }
        path = tmp_path / "report.html"
        write_inspection_report(path, records=records, **{**arguments, **changes})
        return path.read_text(encoding="utf-8")

    return write


def gallery(text: str, title: str) -> list[str]:
    """Names of the images of one gallery, in order."""
    section = re.search(rf"<h2>{title}</h2>(.*?)</section>", text, re.DOTALL)
    return re.findall(r"<h3>(.*?)</h3>", section[1]) if section else []


def test_records_are_sorted_by_p_value_then_score() -> None:
    records = [
        record("b", 0.3, p_value=0.5),
        record("c", 0.7, p_value=0.01),
        record("d", 0.8, p_value=0.01),
    ]
    assert [r.path for r in most_suspicious_first(records)] == ["d", "c", "b"]


def test_mistakes_of_both_kinds_are_sorted_by_severity() -> None:
    records = [
        record("right", 0.1, label="good"),
        record("false 1", 0.6, label="good"),
        record("false 2", 0.9, label="good"),
        record("found", 0.8, label="scratch"),
        record("missed 1", 0.4, label="hole"),
        record("missed 2", 0.2, label="hole"),
        record("unlabelled", 0.9),
    ]
    rejected, accepted = mistakes(records)
    assert [r.path for r in rejected] == ["false 2", "false 1"]
    assert [r.path for r in accepted] == ["missed 2", "missed 1"]


def test_galleries_hold_the_suspicious_the_normal_and_the_mistakes(written: Callable[..., str]) -> None:
    records = [record(f"p{i:02d}", i / 20, p_value=1 - i / 20, label="good") for i in range(20)]
    records.append(record("missed", 0.05, p_value=0.93, label="hole"))
    text = written(records, limit=4)
    assert gallery(text, "Most suspicious") == ["p19", "p18", "p17", "p16"]
    assert gallery(text, "Most normal") == ["p00", "p01", "missed", "p02", "p03"]
    assert gallery(text, "Good images rejected") == [f"p{i}" for i in range(19, 19 - HANDFUL, -1)]
    assert gallery(text, "Anomalies missed") == ["missed"]
    assert "4 of 21 images" in text
    assert f"{HANDFUL} of 9 images" in text


def test_the_page_opens_with_a_good_and_a_defective_image(written: Callable[..., str], parse) -> None:
    records = [
        record("wrong", 0.9, label="good"),
        *(record(f"good {i}", 0.1 * i, label="good") for i in range(1, 4)),
        *(record(f"hole {i}", 0.5 + 0.1 * i, label="hole") for i in range(1, 4)),
        record("missed", 0.3, label="hole"),
    ]
    text = written(records)
    assert gallery(text, "At a glance") == ["good 2", "hole 2"]
    assert text.index("At a glance</h2>") < text.index('class="tiles"') < text.index("<table>")
    page = parse(text)
    assert page.text.count("anomaly map overlay") == 2
    assert "A good image, accepted" in page.text
    assert "A defect (hole), rejected" in page.text


def test_at_a_glance_takes_what_there_is(written: Callable[..., str]) -> None:
    def broken(_: Inspection) -> ImageViews:
        raise ImageError(Path("a.png"), "is gone", "restore it")

    assert gallery(written([record("a", 0.9), record("b", 0.2)]), "At a glance") == ["b", "a"]
    assert gallery(written([record("b", 0.2)]), "At a glance") == ["b"]
    assert gallery(written([record("a", 0.9), record("b", 0.2)], panels=broken), "At a glance") == []
    assert gallery(written([]), "At a glance") == []


def test_no_image_is_shown_twice(written: Callable[..., str]) -> None:
    text = written([record(f"p{i}", i / 10) for i in range(6)])
    assert gallery(text, "Most suspicious") == ["p5", "p4", "p3", "p2", "p1", "p0"]
    assert gallery(text, "Most normal") == []


def test_headline_and_figures_count_the_decisions(written: Callable[..., str], parse) -> None:
    records = [record("a", 0.9, label="hole"), record("b", 0.2, label="good"), record("c", 0.7, label="good")]
    page = parse(written(records, false_reject_rate=0.05))
    assert "2 of 3 images are rejected" in page.text
    assert "false-reject rate at most 5 %" in page.text
    assert "good images rejected 50.0 % 1 of 2" in page.text
    assert "anomalous images rejected 100.0 % 1 of 1" in page.text
    assert "At most 5 in 100 good ones." in page.text
    assert "seed 7" in page.text


def test_without_labels_there_are_no_error_rates(written: Callable[..., str], parse) -> None:
    page = parse(written([record("a", 0.9), record("b", 0.2)]))
    assert "known" not in page.text
    assert "anomalous" not in page.text
    assert "1 of 2 images is rejected" in page.text


def test_an_empty_inspection_gives_a_page(written: Callable[..., str], parse) -> None:
    page = parse(written([], problems=["a.png: is cut off; save it again"]))
    assert "No image was inspected" in page.text
    assert "a.png: is cut off; save it again" in page.text


def test_problems_and_custom_sections_are_shown_as_text(written: Callable[..., str], parse) -> None:
    extra = [TableSection("Metrics", ["name", "AUROC"], [["all", 0.97]]), Prose("more words")]
    page = parse(written([record("<b>.png", 0.9)], problems=["<i>.png: no image; remove it"], sections=extra))
    assert "<i>.png: no image; remove it" in page.text
    assert page.text.count("<b>.png") >= 2
    assert "all 0.97" in page.text
    assert "more words" in page.text
    assert not page.all("b")[1:]  # only the legend has a bold word
    assert page.all("i") == []


@pytest.mark.parametrize(
    "shown",
    [
        flat(1, 33, 35),
        flat(11, 7, 401, reconstruction=None),
        flat(3, 501, 13, mask=np.ones((501, 13), dtype=bool)),
        flat(2, 1, 1),
    ],
    ids=["grey", "eleven channels without reconstruction", "tall with mask", "one pixel"],
)
def test_any_image_can_be_shown(written: Callable[..., str], parse, shown: ImageViews) -> None:
    region = Region(x=0, y=0, width=1, height=1, area=1, peak=0.4, mean=0.4)
    page = parse(written([record("a", 0.9, regions=(region,))], panels=lambda _: shown))
    panels = [image["alt"] for image in page.all("img") if "src" in image]
    expected = ["image", *(["reconstruction"] if shown.reconstruction is not None else []), "heat map"]
    assert panels[:2] == ["a: image", "a: anomaly map"]
    assert panels[3:-1] == [f"a: {name}" for name in expected]
    assert "regions" in (panels[-1] or "")
    assert ("ground-truth mask" in (panels[-1] or "")) == (shown.mask is not None)
    assert "1 region" in page.text


def test_a_missing_image_is_reported_and_the_others_are_shown(written: Callable[..., str], parse) -> None:
    def panels(found: Inspection) -> ImageViews:
        if found.path == "gone":
            raise ImageError("gone.png", "does not exist", "put it back")
        return flat(map=np.full((12, 16), 0.3))

    page = parse(written([record("gone", 0.9), record("here", 0.8)], panels=panels))
    assert "Cannot be shown: gone.png: does not exist; put it back" in page.text
    assert next(image["alt"] for image in page.all("img") if "src" in image) == "here: image"


def test_two_thousand_records_fit_in_a_small_page(written: Callable[..., str], parse) -> None:
    records = [record(f"line/part_{i:04d}.png", i / 4000, p_value=1 - i / 2001) for i in range(2000)]
    asked = []

    def panels(found: Inspection) -> ImageViews:
        asked.append(found.path)
        return flat()

    text = written(records, panels=panels)
    assert len(asked) == 1 + 60 + HANDFUL  # of the first, all are accepted
    assert len(text) < 1_000_000
    assert sum(f"part_{i:04d}" in text for i in range(2000)) == 2000
    rows = re.findall(r"<td>line/part_(\d+)\.png</td>", text)
    assert rows == [f"{i:04d}" for i in range(1999, -1, -1)]


def polyline(text: str) -> list[tuple[float, float]]:
    """Points of the only curve of the page, as they are drawn."""
    (line,) = re.findall(r'<polyline[^>]*points="([^"]*)"', text)
    return [tuple(map(float, point.split(","))) for point in line.split()]  # type: ignore[misc]


def test_images_like_those_of_the_training_follow_the_diagonal(written: Callable[..., str], parse) -> None:
    ranks = tuple((index + 1) / 500 for index in range(500))
    text = written([record("a", 0.2)], drift=Drift(0.7, 500, 520, 40, ranks))
    assert "score like the good ones" in parse(text).text
    assert "p-values of the accepted images" in parse(text).text
    assert "images like those of the training" in parse(text).text
    assert "guessing" not in parse(text).text
    points = polyline(text)
    assert len(points) < 300
    (left, bottom), (right, top) = points[0], points[-1]
    for x, y in points:
        assert (x - left) / (right - left) == pytest.approx((bottom - y) / (bottom - top), abs=0.02)


def test_drift_is_reported_with_a_remedy(written: Callable[..., str], parse) -> None:
    page = parse(written([record("a", 0.2)], drift=Drift(0.0005, 50, 50, 40, (0.1,) * 50)))
    assert "These images do not look like the training images" in page.text
    assert "Check light, focus and position" in page.text


def test_too_few_images_have_no_drift_chart(written: Callable[..., str], parse) -> None:
    page = parse(written([record("a", 0.2)], drift=Drift(0.5, 1, 1, 19, (0.4,))))
    assert "are too few" in page.text
    assert "p-values of the accepted" not in page.text
    assert "are too few" not in parse(written([], drift=Drift(None, 0, 0, 19, ()))).text
