"""Files that mark classes of regions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from blemish.errors import FileError, UsageError
from blemish.preprocessing.area_files import read_area
from blemish.preprocessing.judged_area import JudgedArea

H, W = 40, 48


def label_image(*values: int) -> np.ndarray[Any, Any]:
    """Stripes of ``values``, from left to right, on 0."""
    labels = np.zeros((H, W), np.uint16 if max(values) > 255 else np.uint8)
    for number, value in enumerate(values):
        labels[4:-4, W * number // len(values) : W * (number + 1) // len(values)] = value
    return labels


def saved(folder: Path, image: Any, name: str = "mask.png", **options: Any) -> Path:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(folder / name, **options)
    return folder / name


def test_grey_values_are_classes(tmp_path: Path) -> None:
    labels = label_image(7, 3, 200)
    area = read_area(saved(tmp_path, labels))
    assert area.names == ("3", "7", "200")
    np.testing.assert_array_equal(
        area.labels(H, W), np.select([labels == 3, labels == 7, labels == 200], [1, 2, 3])
    )
    np.testing.assert_array_equal(area.mask(H, W), labels > 0)
    assert JudgedArea.model_validate_json(area.model_dump_json()) == area


def test_values_of_16_bits_and_colours_are_classes(tmp_path: Path) -> None:
    assert read_area(saved(tmp_path, label_image(300, 60000))).names == ("300", "60000")
    colours = np.zeros((H, W, 3), np.uint8)
    colours[:, :20], colours[:, 20:40] = (255, 0, 0), (9, 9, 9)
    assert read_area(saved(tmp_path, colours)).names == ("9", "#ff0000")


def test_numbers_of_a_palette_are_classes(tmp_path: Path) -> None:
    image = Image.fromarray(label_image(1, 2), "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    assert set(read_area(saved(tmp_path, image)).names) == {"1", "2"}


def plain_masks() -> dict[str, Any]:
    white = np.zeros((H, W), np.uint8)
    white[8:30, 8:40] = 255
    large = Image.new("L", (8 * W, 8 * H))
    ImageDraw.Draw(large).ellipse([40, 40, 300, 250], fill=255)
    random = np.random.default_rng(0)
    return {
        "black and white": white,
        "one grey": white // 2,
        "bits": Image.fromarray(white > 0),
        "smooth border": large.resize((W, H), Image.Resampling.LANCZOS),
        "few levels at the border": large.resize((W, H), Image.Resampling.BILINEAR).quantize(4).convert("L"),
        "blurred": Image.fromarray(white).filter(ImageFilter.GaussianBlur(6)),
        "widely blurred": Image.fromarray(white.repeat(8, 0).repeat(8, 1)).filter(
            ImageFilter.GaussianBlur(20)
        ),
        "noise": random.integers(0, 256, (H, W)).astype(np.uint8),
    }


@pytest.mark.parametrize("name", plain_masks())
def test_a_mask_in_one_colour_is_one_area(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path, plain_masks()[name])
    area = read_area(path)
    assert area.classes == ()
    height, width = np.asarray(Image.open(path)).shape
    np.testing.assert_array_equal(area.mask(height, width), np.asarray(Image.open(path)) > 0)


def test_a_mask_in_jpeg_is_one_area(tmp_path: Path) -> None:
    assert read_area(saved(tmp_path, plain_masks()["smooth border"], "mask.jpg", quality=60)).classes == ()


def spot(labels: np.ndarray[Any, Any], value: int) -> np.ndarray[Any, Any]:
    labels[10:12, 10:12] = value
    return labels


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (spot(label_image(1, 2), 3), "'3' is too small for one: 4 pixels"),
        (
            label_image(*range(1, 18)).repeat(3, 1),
            "has 17 values, and each is a class of regions, of which there are at most 16",
        ),
        (
            np.asarray(
                Image.fromarray(label_image(90, 220).repeat(20, 0).repeat(20, 1))
                .rotate(20)
                .resize((900, 700), Image.Resampling.LANCZOS)
            ),
            "has 2 large values, as classes of regions, and [0-9]+ more at their borders",
        ),
    ],
    ids=["small", "many", "smooth"],
)
def test_label_images_that_are_refused(labels: np.ndarray[Any, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=words) as caught:
        read_area(saved(tmp_path, labels))
    assert "\n" not in str(caught.value)


# -- polygons ------------------------------------------------------------------------------------------


def square(left: int, right: int, name: str | None = None) -> Any:
    corners = [[left, 4], [right, 4], [right, 30], [left, 30]]
    return corners if name is None else {"class": name, "points": corners}


def written(folder: Path, *polygons: Any) -> Path:
    path = folder / "mask.json"
    path.write_text(json.dumps({"width": W, "height": H, "polygons": polygons}), encoding="utf-8")
    return path


def test_polygons_have_classes(tmp_path: Path) -> None:
    area = read_area(
        written(tmp_path, square(0, 9, "seal"), square(20, 29, "Dichtung ü"), square(12, 15, "seal"))
    )
    assert area.names == ("seal", "Dichtung ü")
    labels = area.labels(H, W)
    assert [labels[10, x] for x in (5, 25, 13, 40)] == [1, 2, 1, 0]


def test_polygons_without_a_class_beside_others_are_the_class_other(tmp_path: Path) -> None:
    assert read_area(written(tmp_path, square(0, 9, "seal"), square(20, 29))).names == ("seal", "other")


def test_where_polygons_overlap_the_later_one_counts(tmp_path: Path) -> None:
    labels = read_area(written(tmp_path, square(0, 30, "a"), square(10, 19, "b"))).labels(H, W)
    assert [labels[10, x] for x in (5, 15, 25)] == [1, 2, 1]


@pytest.mark.parametrize(
    ("polygons", "words"),
    [
        (
            [square(0, 9, "a"), {"class": "b", "points": [[30, 30], [31, 30], [31, 31]]}],
            "class 'b' marks . of 48 × 40 pixels",
        ),
        ([square(0, 40, "a"), square(0, 40, "b")], "class 'a' marks 0 of"),
        (
            [square(2 * n, 2 * n + 1, str(n)) for n in range(17)],
            "has 17 classes of regions, of which there are at most 16",
        ),
        ([square(0, 9, "")], "name of a class"),
        ([square(0, 9, "a\nb")], "name of a class"),
        ([{"class": "a", "corners": []}], "is no list of polygons"),
        ([{"class": "a", "points": [[0, 0]]}], "fewer than three corners"),
    ],
)
def test_polygons_that_are_refused(polygons: list[Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=words) as caught:
        read_area(written(tmp_path, *polygons))
    assert "\n" not in str(caught.value)


# -- classes of an area --------------------------------------------------------------------------------


def test_no_place_between_classes_is_lost_at_another_size() -> None:
    labels = np.array([[1, 1, 2, 2, 3, 3, 3]], np.uint8).repeat(5, 0)
    area = JudgedArea.of_classes(labels, ("a", "b", "c"))
    for size in ((10, 14), (4, 5), (33, 47)):
        found = area.labels(*size)
        assert found.min() == 1
        assert (np.diff(found.astype(int), axis=1) >= 0).all()


def test_narrowing_keeps_classes_and_their_usual_scores() -> None:
    labels = np.repeat(np.array([[1] * 4 + [2] * 4], np.uint8), 4, 0)
    own = JudgedArea.of_classes(labels, ("a", "b"), (0.5, 2.0))
    upper = np.zeros((4, 8), bool)
    upper[:2] = True
    plain = JudgedArea.of(upper).within(own)
    assert (plain.names, plain.scales) == (("a", "b"), (0.5, 2.0))
    np.testing.assert_array_equal(plain.labels(4, 8), np.where(upper, labels, 0))
    # Of an area with classes only places that are of the same class in both.
    named = JudgedArea.of_classes(np.where(upper, np.uint8(1), np.uint8(0)), ("b",)).within(own)
    np.testing.assert_array_equal(named.labels(4, 8), np.where(upper & (labels == 2), 2, 0))
    with pytest.raises(UsageError, match="the model has no class 'lid'; its classes are a, b"):
        JudgedArea.of_classes(labels, ("a", "lid")).within(own)
    with pytest.raises(UsageError, match="no place in common"):
        JudgedArea.of_classes(np.where(labels == 1, labels, 0), ("b",)).within(own)


@pytest.mark.parametrize("change", [{"runs": (1, 3)}, {"name": "b"}, {"scale": 0.0}, {"scale": float("nan")}])
def test_damaged_classes_are_refused(change: dict[str, Any]) -> None:
    area = JudgedArea.of_classes(np.array([[1, 2, 2]], np.uint8), ("a", "b")).model_dump()
    area["classes"][0].update(change)
    with pytest.raises(ValueError, match=r"do not fill it|one name|scale"):
        JudgedArea.model_validate(area)
