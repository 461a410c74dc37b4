"""Classes of regions from fit to inspection: a threshold for each, and one promise for the image."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.decision import needed, read_records
from blemish.errors import UsageError
from blemish.evaluation.evaluate import evaluate
from blemish.inspection.calibration import calibrate
from blemish.inspection.detector import Detector, load
from blemish.inspection.folder import Outputs, inspect_folder
from blemish.preprocessing.area_files import read_area
from blemish.preprocessing.judged_area import JudgedArea
from blemish.training.fit import fit

H, W, RATE = 48, 64, 0.1
DEFECT = slice(20, 26), slice(12, 18)


def draw(seed: int, contrast: float = 0, at: tuple[slice, slice] = DEFECT) -> NDArray[np.uint8]:
    """An image that is quiet on the left and noisy on the right; ``contrast``: with a small defect."""
    noise = np.random.default_rng(seed).normal(0, 1, (H, W))
    values = 128 + noise * np.where(np.arange(W) < W // 2, 1.5, 15)
    values[at] += contrast
    return np.clip(values, 0, 255).astype(np.uint8)


def labels() -> NDArray[np.uint8]:
    return np.repeat(np.where(np.arange(W) < W // 2, 60, 200).astype(np.uint8)[None], H, 0)


class Models(NamedTuple):
    """Models fitted on the same images with one area and with two classes, and their folders."""

    folder: Path
    one: Detector
    two: Detector


@pytest.fixture(scope="module")
def models(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("classes")
    (folder / "good").mkdir()
    for seed in range(36):
        Image.fromarray(draw(seed)).save(folder / "good" / f"{seed:02}.png")
    Image.fromarray(labels()).save(folder / "two.png")
    Image.fromarray(np.full((H, W), 255, np.uint8)).save(folder / "one.png")
    settings = [*tiny, "training.steps=60", "training.validate_every=20", "score.sigma=2"]
    one, two = (
        fit(
            folder / "good",
            "l2-ae",
            settings=[*settings, "image.other_kinds=accept"],
            false_reject_rate=RATE,
            mask=folder / f"{name}.png",
            out=folder / name,
        )
        for name in ("one", "two")
    )
    return Models(folder, one, two)


def test_a_small_defect_of_the_quiet_class_is_found_with_its_own_threshold(models: Models) -> None:
    marred = [draw(seed, contrast=15) for seed in range(5000, 5010)]
    assert sum(models.one.inspect(image).is_anomalous for image in marred) < 4
    for image in marred:
        found = models.two.inspect(image)
        assert found.is_anomalous
        first, second = found.classes
        assert (first.name, first.is_above, second.name, second.is_above) == ("60", True, "200", False)
        assert first.score > first.threshold == models.two.class_thresholds["60"]
        assert second.score <= second.threshold == models.two.class_thresholds["200"]
        # Its strongest place is shown, though the map may be higher in the other class.
        assert found.mask[DEFECT].any()
        assert any(region.region_class == "60" for region in found.regions)
        assert "by class '60'" in repr(found)


def test_good_images_are_rejected_as_rarely_as_promised(models: Models) -> None:
    calibrated = models.two.decision.calibration.scores
    # One promise for the image needs no more images than without classes.
    assert needed(RATE) <= len(calibrated) == len(models.one.decision.calibration.scores) < needed(RATE / 2)
    found = [models.two.inspect(draw(seed)) for seed in range(1000, 1100)]
    promise = models.two.decision.promise
    assert promise is not None
    assert np.mean([one.is_anomalous for one in found]) <= promise.interval(len(found))[1]
    for one in found:
        assert one.is_anomalous == any(own.is_above for own in one.classes) == bool(one.regions)
        assert all(own.is_above == (own.score > own.threshold) for own in one.classes)


def test_calibration_and_inspection_give_the_same_scores(models: Models, tmp_path: Path) -> None:
    two = models.two
    held_out = [
        two.inspect(models.folder / "good" / str(name)).score for name in two.file.split["calibration"]
    ]
    assert held_out == list(two.decision.calibration.scores)
    again = calibrate(models.folder / "two", models.folder / "good", tmp_path / "again")
    assert again.decision == two.decision
    assert again.class_thresholds == two.class_thresholds
    assert load(models.folder / "two").class_thresholds == two.class_thresholds


def test_usual_scores_are_of_images_that_do_not_calibrate(models: Models) -> None:
    area = models.two.file.preprocessing.area
    assert area is not None
    names = [str(name) for name in models.two.file.split["validation"]]
    scores = [
        {one.name: one.score for one in models.two.inspect(models.folder / "good" / name).classes}
        for name in names
    ]
    for own in area.classes:
        assert own.scale == pytest.approx(np.quantile([found[own.name] for found in scores], 0.9))


def test_another_promise_moves_the_thresholds_of_all_classes(models: Models) -> None:
    strict = models.two.with_false_reject_rate(0.3)
    factor = strict.threshold / models.two.threshold
    assert factor < 1
    assert strict.class_thresholds == pytest.approx(
        {name: factor * own for name, own in models.two.class_thresholds.items()}
    )


def test_one_class_scores_as_an_area_without_classes(models: Models, tiny: list[str], tmp_path: Path) -> None:
    everything = [[0, 0], [W, 0], [W, H], [0, H]]
    polygon = {"class": "all", "points": everything}
    path = tmp_path / "mask.json"
    path.write_text(json.dumps({"width": W, "height": H, "polygons": [polygon]}))
    named = fit(models.folder / "good", "l2-ae", settings=tiny, false_reject_rate=RATE, mask=path)
    plain = fit(models.folder / "good", "l2-ae", settings=tiny, false_reject_rate=RATE)
    assert named.decision == plain.decision
    assert named.inspect(draw(1)).classes == ()
    assert "classes" not in json.loads(named.file.preprocessing.model_dump_json())["area"]
    narrowed = named.with_judged_area(read_area(path))
    assert narrowed.inspect(draw(1)).score == named.inspect(draw(1)).score


def test_an_area_at_inspection_narrows_classes(models: Models) -> None:
    right = np.zeros((H, W), bool)
    right[:, W // 2 :] = True
    marred = draw(7, contrast=60)
    assert models.two.inspect(marred).is_anomalous
    narrow = models.two.with_judged_area(JudgedArea.of(right))
    found = narrow.inspect(marred)
    assert found.map[~right].max() == 0
    assert not found.is_anomalous
    assert narrow.class_thresholds == models.two.class_thresholds
    assert {own.name: own.score for own in found.classes}["60"] == 0


@pytest.mark.parametrize(
    ("classes", "model", "words"),
    [
        (("60", "lid"), "two", "the model has no class 'lid'; its classes are 60, 200"),
        (("60", "200"), "one", "has the classes 60, 200, and the model was fitted without classes"),
    ],
)
def test_classes_that_the_model_has_not(
    models: Models,
    blemish: Callable[..., Any],
    tmp_path: Path,
    classes: tuple[str, str],
    model: str,
    words: str,
) -> None:
    path = tmp_path / "mask.json"
    squares = [[[x, 4], [x + 20, 4], [x + 20, 30], [x, 30]] for x in (2, 40)]
    polygons = [{"class": name, "points": square} for name, square in zip(classes, squares, strict=True)]
    path.write_text(json.dumps({"width": W, "height": H, "polygons": polygons}))
    out = tmp_path / "found"
    ran = blemish("inspect", models.folder / model, models.folder / "good", "--out", out, "--mask", path)
    assert words in ran.error


def test_a_class_that_is_too_small_for_the_model(models: Models, tiny: list[str], tmp_path: Path) -> None:
    marked = labels()
    marked[:6, :6] = 130
    Image.fromarray(marked).save(tmp_path / "mask.png")
    small = [*tiny, "image.size=16", "patch.size=16"]
    with pytest.raises(
        UsageError, match=r"class '130' marks 36 of the 64 × 48 pixels of an image.*scale of 0.333"
    ):
        fit(
            models.folder / "good",
            "l2-ae",
            settings=small,
            false_reject_rate=RATE,
            mask=tmp_path / "mask.png",
        )


def test_records_reports_and_exports_name_the_class(
    models: Models, tmp_path: Path, few_resamples: None
) -> None:
    parts = tmp_path / "parts"
    for name, image in {
        "test/good/a.png": draw(2000),
        "test/dent/b.png": draw(2001, contrast=15),
        "test/dent/c.png": draw(2002, contrast=120, at=(slice(8, 20), slice(44, 56))),
    }.items():
        (parts / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(parts / name)
    out = tmp_path / "found"
    inspect_folder(models.two, parts / "test", out, outputs=Outputs(masks=True, coco=True))
    records = {record.path: record for record in read_records(out / "inspections.jsonl")}
    named = {path: record.classes[0].name for path, record in records.items() if record.is_anomalous}
    assert named["dent/b.png"] == "60"
    assert named["dent/c.png"] == "200"
    text = (out / "inspections.csv").read_text(encoding="utf-8-sig")
    for row in csv.DictReader(io.StringIO(text, newline="")):
        first = records[row["path"]].classes[0]
        assert (row["class"], float(row["class_score"]), float(row["class_threshold"])) == (
            first.name,
            first.score,
            first.threshold,
        )
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "60: score" in report
    assert "furthest above its threshold" in report
    coco = json.loads((out / "coco.json").read_text())
    names = {one["id"]: one["file_name"] for one in coco["images"]}
    assert {(names[one["image_id"]], one["class"]) for one in coco["annotations"]} >= {
        ("dent/b.png", "60"),
        ("dent/c.png", "200"),
    }
    for path, record in records.items():
        mask = np.asarray(Image.open(out / "masks" / path))
        assert record.is_anomalous == bool(record.regions) == mask.any()
    assert "| 60 |" in models.two.card()
    # Evaluation has the same decisions.
    result = evaluate(models.two, parts)
    assert result.image["all"].figures["bad_rejected"].value == 1
    assert result.threshold == models.two.threshold


@pytest.mark.parametrize("runtime", ["onnx"])
def test_an_exported_model_decides_by_the_same_classes(models: Models, runtime: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from blemish.export.export_model import export_model

    export_model(models.folder / "two", tmp_path / "exported", to=runtime, images=models.folder / "good")
    exported = load(tmp_path / "exported")
    for image in (draw(2003), draw(2004, contrast=15)):
        own, other = models.two.inspect(image), exported.inspect(image)
        assert (own.is_anomalous, own.classes[0].name) == (other.is_anomalous, other.classes[0].name)
        for first, second in zip(own.classes, other.classes, strict=True):
            assert first.threshold == second.threshold
            assert first.score == pytest.approx(second.score, rel=1e-3)
