"""Regions of interest: what lies outside is never an anomaly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.data.image import LoadedImage
from blemish.decision import read_records
from blemish.errors import FileError, UsageError
from blemish.inspection.detector import Detector, load
from blemish.preprocessing.area_files import read_area
from blemish.preprocessing.judged_area import JudgedArea
from blemish.training.fit import fit

H, W = 40, 48


@pytest.fixture
def left() -> NDArray[np.bool_]:
    """The left half of an image."""
    marked = np.zeros((H, W), bool)
    marked[:, : W // 2] = True
    return marked


@pytest.fixture
def mask(tmp_path: Path, left: NDArray[np.bool_]) -> Path:
    path = tmp_path / "mask.png"
    Image.fromarray(left.astype(np.uint8) * 255).save(path)
    return path


@pytest.mark.parametrize("seed", range(4))
def test_an_area_is_the_mask_that_it_was_made_of(seed: int) -> None:
    marked = np.random.default_rng(seed).random((7, 9)) < 0.5
    marked[0, 0] = seed % 2
    area = JudgedArea.of(marked)
    np.testing.assert_array_equal(area.mask(7, 9), marked)
    assert JudgedArea.model_validate_json(area.model_dump_json()) == area


def test_an_area_fits_images_of_another_size(left: NDArray[np.bool_]) -> None:
    area = JudgedArea.of(left)
    np.testing.assert_array_equal(area.mask(2 * H, 2 * W), left.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(area.mask(H // 2, W // 2), left[::2, ::2])


def test_polygons_and_images_mark_the_same(tmp_path: Path, mask: Path, left: NDArray[np.bool_]) -> None:
    path = tmp_path / "mask.json"
    corners = [[0, 0], [W // 2 - 1, 0], [W // 2 - 1, H - 1], [0, H - 1]]
    path.write_text(json.dumps({"width": W, "height": H, "polygons": [corners]}))
    assert read_area(path) == read_area(mask) == JudgedArea.of(left)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "is not readable JSON"),
        ("[" * 5000, "is not readable JSON"),
        ("{}", "'width': Field required"),
        ('{"width": 4, "height": 4, "polygons": [[[0, 0], [1, 1]]]}', "fewer than three corners"),
        ('{"width": 4, "height": 4, "polygons": [[["a", 0]]]}', "is no list of polygons"),
        ('{"width": 9999999, "height": 4, "polygons": [[[0, 0]]]}', "'width'"),
        ('{"width": 4, "height": 4, "polygons": [[[9, 9], [9, 8], [8, 8]]]}', "marks nothing"),
    ],
)
def test_areas_that_cannot_be_read(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "mask.json"
    path.write_text(content)
    with pytest.raises(FileError, match=words):
        read_area(path)


def test_runs_that_do_not_fill_the_mask_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fill it"):
        JudgedArea(height=2, width=2, runs=(1, 2))


def test_what_lies_outside_is_no_anomaly(
    good: Path, tiny: list[str], mask: Path, left: NDArray[np.bool_], tmp_path: Path, draw: Callable[..., Any]
) -> None:
    out = tmp_path / "model"
    detector = fit(good, "ssim-ae", settings=tiny, false_reject_rate=0.2, mask=mask, out=out)
    assert load(out).file.preprocessing.area == JudgedArea.of(left)
    plain = fit(good, "ssim-ae", settings=tiny, false_reject_rate=0.2)
    image = draw(5)
    marred = image.copy()
    marred[8:30, 34:46] = 255 - marred[8:30, 34:46]  # far from the area, so that no window reaches both
    inside, outside = detector.inspect(image), detector.inspect(marred)
    assert outside.map[~left].max() == 0
    assert plain.inspect(marred).map[~left].max() > plain.inspect(image).map[~left].max()
    assert outside.score <= plain.inspect(marred).score
    assert not outside.mask[~left].any()
    np.testing.assert_allclose(outside.map[:, :12], inside.map[:, :12], atol=0.2)
    # Calibration judges the same places: its scores are those of an inspection.
    held_out = [detector.inspect(good / str(name)).score for name in detector.file.split["calibration"]]
    assert held_out == list(detector.file.calibration.scores)
    assert max(held_out) <= max(plain.file.calibration.scores)


def test_an_area_at_inspection_narrows_that_of_the_model(detector: Detector, left: NDArray[np.bool_]) -> None:
    upper = np.zeros_like(left)
    upper[: H // 2] = True
    both = detector.with_judged_area(JudgedArea.of(left)).with_judged_area(JudgedArea.of(upper))
    area = both.file.preprocessing.area
    assert area is not None
    np.testing.assert_array_equal(area.mask(H, W), left & upper)
    assert both.threshold == detector.threshold


def test_an_area_on_the_command_line(
    blemish: Callable[..., Any], model: Path, good: Path, mask: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found"
    assert blemish("inspect", model, good, "--out", out, "--mask", mask).code in (0, 1)
    whole = tmp_path / "whole"
    blemish("inspect", model, good, "--out", whole)
    narrow, all_of_it = (
        {record.path: record.score for record in read_records(folder / "inspections.jsonl")}
        for folder in (out, whole)
    )
    assert all(narrow[name] <= all_of_it[name] for name in narrow)
    ran = blemish("inspect", model, good, "--out", out, "--resume")
    assert "was inspected with another mask" in ran.error
    assert "marks nothing" in blemish("inspect", model, good, "--out", out, "--mask", empty(tmp_path)).error


def empty(folder: Path) -> Path:
    Image.new("L", (W, H)).save(folder / "empty.png")
    return folder / "empty.png"


def test_an_area_of_an_object_in_a_pose_lies_in_its_image(
    posed: tuple[Detector, Path], draw_part: Callable[..., Any]
) -> None:
    part = draw_part(600, 103, 96)
    lower = np.zeros(part.shape, bool)
    lower[50:] = True
    narrow = posed[0].with_judged_area(JudgedArea.of(lower))
    found = narrow.inspect(part)
    assert found.map[:50].max() == 0
    assert found.score <= posed[0].inspect(part).score


def test_scenes_have_no_area(
    painting: Callable[..., Path], mask: Path, tiny: list[str], tmp_path: Path
) -> None:
    painting(tmp_path / "scenes" / "virgin", 0)
    with pytest.raises(UsageError, match="a region of interest is one of single images"):
        fit(tmp_path / "scenes", "fp-cae-add", settings=tiny, mask=mask)


def test_classes_of_an_object_in_a_pose_lie_in_its_image(
    posed: tuple[Detector, Path], draw_part: Callable[..., Any]
) -> None:
    part = draw_part(600, 103, 96)
    labels = np.ones(part.shape, np.uint8)
    labels[50:] = 2
    file = posed[0].file
    area = JudgedArea.of_classes(labels, ("upper", "lower"), (0.5, 2.0))
    classes = posed[0].with_file(
        file.model_copy(update={"preprocessing": file.preprocessing.model_copy(update={"area": area})})
    )
    plain, found = posed[0].measure(LoadedImage(Path("a"), part[None])), classes.inspect(part)
    np.testing.assert_allclose(found.map, plain.map / np.where(labels == 1, 0.5, 2).astype(np.float32))
    upper, lower = (
        posed[0].with_judged_area(JudgedArea.of(labels == number)).inspect(part) for number in (1, 2)
    )
    assert {own.name: own.score for own in found.classes} == pytest.approx(
        {"upper": upper.score, "lower": lower.score}, rel=1e-6
    )
    assert found.score == max(found.classes[0].score / (0.5 if found.classes[0].name == "upper" else 2.0), 0)
