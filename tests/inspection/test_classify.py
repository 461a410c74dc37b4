from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.maps import write_image
from blemish.data.region_labels import read_region_labels
from blemish.errors import FileError, Stopped, UsageError
from blemish.inspection import classify as classifying
from blemish.inspection.classify import classify
from blemish.inspection.detector import Detector
from blemish.inspection.features import Features
from blemish.inspection.latent_pixels import LatentPixels
from blemish.inspection.pixel_features import FILTERS, SIGMAS, filter_features

SIDE = 160


def cracked(seed: int = 0, side: int = SIDE) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A grey image (1, side, side) with dark lines, and where these are."""
    rng = np.random.default_rng(seed)
    image = 0.6 + 0.08 * ndimage.gaussian_filter(rng.normal(size=(side, side)), 3) * 3
    truth = np.zeros((side, side), np.bool_)
    for start in range(10, side, 30):
        rows = np.clip(start + np.cumsum(rng.integers(-1, 2, side)), 1, side - 2)
        truth[rows, np.arange(side)] = truth[rows + 1, np.arange(side)] = True
    image[truth] -= 0.3
    return image.clip(0, 1).astype(np.float32)[None], truth


def some_labels(truth: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """7 in parts of the lines, 9 in squares without any, else 0."""
    labels = np.zeros(truth.shape, np.uint8)
    for left in (5, 60, 120):
        columns = slice(left, left + 15)
        labels[:, columns][truth[:, columns]] = 7
    far = ndimage.distance_transform_edt(~truth) > 4
    for top, left in ((20, 30), (60, 90), (110, 40), (130, 100)):
        square = (slice(top, top + 14), slice(left, left + 14))
        labels[square][far[square]] = 9
    return labels


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("panel")
    image, truth = cracked()
    write_image(folder / "panel.png", image)
    write_image(folder / "labels.png", some_labels(truth)[None] / 255)
    return folder


def test_cracks_are_found_from_a_few_labels(panel: Path, tmp_path: Path) -> None:
    done = classify(panel / "panel.png", panel / "labels.png", tmp_path / "out", dpi=254)
    crack, sound = done.classes
    assert (crack.name, sound.name) == ("7", "9")
    truth = cracked()[1]
    probability = tifffile.imread(tmp_path / "out" / "probability.tif")
    assert probability.shape == (SIDE, SIDE, 2)
    assert np.abs(probability.astype(int).sum(2) - 255).max() <= 1
    found = probability[..., 0] > 127
    assert (found & truth).sum() / truth.sum() > 0.9
    assert (found & ndimage.binary_dilation(truth, iterations=2)).sum() / found.sum() > 0.95
    assert crack.average_precision is not None
    assert crack.average_precision > 0.9
    assert crack.share + sound.share == pytest.approx(1)
    assert crack.square_millimetres == pytest.approx(crack.pixels * 0.01)


def test_what_is_written_is_geojson_in_pixels(panel: Path, tmp_path: Path) -> None:
    classify(panel / "panel.png", panel / "labels.png", tmp_path / "out", learner="logistic")
    regions = json.loads((tmp_path / "out" / "regions.geojson").read_text())["features"]
    assert {one["properties"]["class"] for one in regions} == {"7", "9"}
    places = np.concatenate([one["geometry"]["coordinates"][0] for one in regions])
    assert places.min() >= 0
    assert places.max() <= SIDE
    for one in regions:
        ring = one["geometry"]["coordinates"][0]
        assert ring[0] == ring[-1]
    suggestions = json.loads((tmp_path / "out" / "suggestions.geojson").read_text())["features"]
    labels = read_region_labels(panel / "labels.png", (SIDE, SIDE)).labels
    for one in suggestions:
        (left, top), (right, _), (_, bottom), *_ = one["geometry"]["coordinates"][0]
        assert not labels[top:bottom, left:right].any()
    with pytest.raises(UsageError, match="holds a classification; pass --overwrite"):
        classify(panel / "panel.png", panel / "labels.png", tmp_path / "out")


def test_blocks_show_no_seam(panel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classify(panel / "panel.png", panel / "labels.png", tmp_path / "whole")
    monkeypatch.setattr(classifying, "BLOCK", 64)
    classify(panel / "panel.png", panel / "labels.png", tmp_path / "blocks")
    whole, blocks = (
        tifffile.imread(tmp_path / name / "probability.tif").astype(int) for name in ("whole", "blocks")
    )
    assert (np.abs(whole - blocks) > 25).mean() < 0.01


def test_a_figure_needs_regions_that_can_be_left_out(panel: Path, tmp_path: Path) -> None:
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[20:40, 20:40], labels[100:120, 100:120] = 1, 2
    write_image(tmp_path / "one.png", labels[None] / 255)
    done = classify(panel / "panel.png", tmp_path / "one.png", tmp_path / "out")
    assert [one.average_precision for one in done.classes] == [None, None]
    assert "label a second region" in done.in_words()


def test_a_scene_is_classified_by_all_its_modalities(panel: Path, tmp_path: Path) -> None:
    """The class shows in the second modality alone."""
    rng = np.random.default_rng(0)
    bright = np.zeros((SIDE, SIDE))
    bright[:, 80:] = 0.5
    write_image(tmp_path / "scene" / "visible.png", rng.random((1, SIDE, SIDE)))
    write_image(tmp_path / "scene" / "infrared.png", (bright + 0.2)[None])
    features = [
        {
            "properties": {"class": name},
            "geometry": {"type": "LineString", "coordinates": [[x, y], [x + 20, y]]},
        }
        for name, x in (("dark", 10), ("bright", 110))
        for y in (20, 90)
    ]
    (tmp_path / "strokes.geojson").write_text(json.dumps({"features": features}))
    done = classify(tmp_path / "scene", tmp_path / "strokes.geojson", tmp_path / "out")
    assert [one.name for one in done.classes] == ["bright", "dark"]
    assert [one.average_precision for one in done.classes] == [pytest.approx(1), pytest.approx(1)]
    assert [one.share for one in done.classes] == [pytest.approx(0.5, abs=0.05)] * 2


def test_a_stop_writes_nothing(panel: Path, tmp_path: Path, recorder: type) -> None:
    with pytest.raises(Stopped):
        classify(panel / "panel.png", panel / "labels.png", tmp_path / "out", observer=recorder(1))
    assert not (tmp_path / "out" / "probability.tif").exists()


def test_features_are_of_each_channel_and_know_no_absent_value() -> None:
    image = cracked()[0]
    found = filter_features(np.concatenate([image, 1 - image]))
    assert found.shape == (2 * FILTERS * len(SIGMAS), SIDE, SIDE)
    np.testing.assert_allclose(
        found[1], ndimage.gaussian_gradient_magnitude(image[0], 1, truncate=3, mode="nearest"), atol=1e-4
    )
    image[:, :50] = np.nan
    assert np.isfinite(filter_features(image)).all()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            {
                "features": [
                    {"properties": {"class": "a"}, "geometry": {"type": "Point", "coordinates": [500, 5]}}
                ]
            },
            "outside 160 × 160 pixels",
        ),
        (
            {
                "features": [
                    {"properties": {"class": "a"}, "geometry": {"type": "Point", "coordinates": [5, 5]}}
                ]
            },
            "has labels of one class alone (a)",
        ),
        ({"features": []}, "has no labels"),
        ({"crs": {}, "features": []}, "is in another coordinate system"),
        (
            {"features": [{"properties": {}, "geometry": {"type": "Point", "coordinates": [5, 5]}}]},
            "is neither GeoJSON nor COCO",
        ),
        ([1], "is neither GeoJSON nor COCO"),
    ],
)
def test_wrong_labels_are_one_line(tmp_path: Path, content: object, problem: str) -> None:
    path = tmp_path / "labels.geojson"
    path.write_text(json.dumps(content))
    with pytest.raises(FileError) as error:
        read_region_labels(path, (SIDE, SIDE))
    assert problem in str(error.value)


def test_labels_of_coco_and_of_a_small_image(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    square = [10, 10, 30, 10, 30, 30, 10, 30]
    path.write_text(
        json.dumps(
            {
                "categories": [{"id": 3, "name": "loss"}, {"id": 4, "name": "paint"}],
                "annotations": [
                    {"category_id": 3, "segmentation": [square]},
                    {"category_id": 4, "segmentation": [[value + 60 for value in square]]},
                ],
            }
        )
    )
    found = read_region_labels(path, (SIDE, SIDE))
    assert found.classes == ("loss", "paint")
    assert (found.labels[10:31, 10:31] == 1).all()
    assert (found.labels == 1).sum() == (found.labels == 2).sum() == 21 * 21
    write_image(tmp_path / "small.png", np.ones((1, 8, 8)))
    with pytest.raises(FileError, match=r"is 8 × 8 pixels, the image 160 × 160"):
        read_region_labels(tmp_path / "small.png", (SIDE, SIDE))


def test_latents_of_a_model_are_compared_with_filters(
    panel: Path, make_detector: Callable[..., Detector], painting: Callable[..., Path], tmp_path: Path
) -> None:
    scene = painting(tmp_path / "scenes" / "eve", height=96, width=96)
    model = make_detector(tmp_path / "scenes", "fp-cae-add").save(tmp_path / "model")
    labels = np.zeros((96, 96), np.uint8)
    for number, left in ((1, 4), (2, 40)):
        labels[10:20, left : left + 10] = labels[60:70, left : left + 10] = number
    write_image(tmp_path / "labels.png", labels[None] / 255)
    done = classify(
        scene, tmp_path / "labels.png", tmp_path / "out", model=model, features="both", learner="logistic"
    )
    for one in done.classes:
        assert list(one.by_features) == ["filters", "latents", "both"]
        assert one.average_precision == one.by_features["both"]
    written = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert (written["features"], len(written["weights_sha256"])) == ("both", 64)
    assert "average precision by features: filters" in done.in_words()
    filters = classify(scene, tmp_path / "labels.png", tmp_path / "plain", learner="logistic")
    for own, other in zip(filters.classes, done.classes, strict=True):
        assert own.average_precision == other.by_features["filters"]
    with pytest.raises(UsageError, match="needs a fitted model; name its folder by --model"):
        classify(panel / "panel.png", panel / "labels.png", tmp_path / "no", features="latents")


def test_what_is_not_judged_has_no_class(panel: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "eve" / "visible.png", cracked()[0])
    write_image(tmp_path / "eve" / "infrared.png", cracked()[0])
    left = np.broadcast_to(np.arange(SIDE) < 50, (SIDE, SIDE)).astype(np.float32)
    write_image(tmp_path / "eve" / "exclude.png", left[None])
    classify(tmp_path / "eve", panel / "labels.png", tmp_path / "out", learner="logistic")
    probability = tifffile.imread(tmp_path / "out" / "probability.tif")
    assert not probability[:, :50].any()
    assert probability[:, 50:].any(2).all()


def test_latents_are_interpolated_between_their_places() -> None:
    array = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    features = Features("eve", Path("eve"), array, 8, (3.5, 3.5), (1.0, 1.0), (24, 32), (), (), "0")
    latents = LatentPixels(features, (24, 32))
    whole = latents.read(0, 0, 24, 32)
    # Between the middles of cells a plane is itself: one a column of 8 pixels, four a row.
    rows, columns = np.mgrid[4:20, 4:28]
    np.testing.assert_allclose(whole[0, 4:20, 4:28], ((columns - 3.5) + 4 * (rows - 3.5)) / 8, atol=1e-5)
    np.testing.assert_allclose(latents.read(5, 9, 7, 13), whole[:, 5:12, 9:22], atol=1e-5)
    with pytest.raises(UsageError, match="sees eve as 32 × 24 pixels, not as 30 × 24"):
        LatentPixels(features, (24, 30))
