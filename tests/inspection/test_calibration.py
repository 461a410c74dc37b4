from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from blemish.data.image import read_image
from blemish.data.open_scenes import open_scenes
from blemish.decision import GroupedImages, SceneSquares
from blemish.errors import CalibrationError, FileError, ModelError, Stopped, UsageError
from blemish.inspection import scene_scorer
from blemish.inspection.calibration import calibrate
from blemish.inspection.detector import Detector, load
from blemish.inspection.scenes import inspect_scenes
from blemish.inspection.square_scores import choose_squares, score_squares
from blemish.observer import Observer
from blemish.training.fit import fit

Painting = Callable[..., Path]
Draw = Callable[..., np.ndarray]
Save = Callable[..., Path]

TINY = (
    "training.batch=4",
    "training.steps=2",
    "training.validate_every=2",
    "training.device=cpu",
    "training.precision=float32",
    "threshold.false_reject_rate=0.15",
)


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Blocks of 64 pixels, so that a scene has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_scorer, "SMALLEST_BLOCK", 64)
        patch.setattr(scene_scorer, "TILES_A_SIDE", 1)
        yield


@pytest.fixture(scope="module")
def scenes(painting: Painting, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two; the infrared of the second is absent in a part, also of the calibration band."""
    root = tmp_path_factory.mktemp("scenes")
    for seed, name in enumerate(["adam", "eve"]):
        painting(root / name, seed, height=104, width=300)
    path = root / "eve" / "infrared.tif"
    pixels = tifffile.imread(path) / np.float32(65535)
    pixels[:30, 100:] = np.nan
    tifffile.imwrite(path, pixels)
    return root


@pytest.fixture(scope="module")
def of_scenes(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    """A detector fitted on them, and its folder."""
    folder = tmp_path_factory.mktemp("fitted") / "model"
    return fit(scenes, "fp-cae-add", settings=TINY, out=folder), folder


def inspected_scores(out: Path) -> dict[tuple[str, int, int], float | None]:
    """Scores of an inspection by scene, row and column of the squares."""
    found = {}
    for path in sorted((out / "maps").glob("*.blocks.jsonl")):
        attributes = zarr.open_group(str(path).replace(".blocks.jsonl", ".zarr"), mode="r").attrs
        per_block = int(attributes["block"]) // int(attributes["square"])
        for line in path.read_text().splitlines():
            block = json.loads(line)
            for row, scores in enumerate(block["scores"]):
                for column, score in enumerate(scores):
                    place = block["row"] * per_block + row, block["column"] * per_block + column
                    found[(path.name.removesuffix(".blocks.jsonl"), *place)] = score
    return found


# -- the same score in calibration and inspection ------------------------------------------------------


def test_a_calibration_square_has_the_very_score_of_an_inspection(
    of_scenes: tuple[Detector, Path], scenes: Path, tmp_path: Path
) -> None:
    detector = of_scenes[0]
    calibration = detector.decision.calibration
    inspect_scenes(detector, scenes, tmp_path)
    inspected = inspected_scores(tmp_path)
    # Columns 225 to 299 calibrate: of the squares of 32 pixels on the grid 256 to 287, with three rows, in two scenes.
    places = [(name, row, 8) for name in ("adam", "eve") for row in range(3)]
    assert calibration.unit == SceneSquares(side=32)
    assert list(calibration.scores) == [inspected[place] for place in places]
    for (name, row, column), maximum in zip(places, calibration.map_maxima, strict=True):
        written = zarr.open_array(str(tmp_path / "maps" / f"{name}.zarr" / "residual"), mode="r")
        inside = written[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
        assert inside.max() == np.float16(maximum)


@pytest.mark.parametrize("recipe", ["fp-cae-concat", "ssim-ae"])
def test_all_squares_of_a_scene_have_the_scores_of_an_inspection(
    painting: Painting, make_detector: Callable[..., Detector], tmp_path: Path, recipe: str
) -> None:
    painting(tmp_path / "in" / "eve", 3, height=104, width=150)
    settings = ("patch.size=32", "patch.stride=12")
    detector = make_detector(
        tmp_path / "in", recipe, *settings, *(("encoder.latent=8",) if recipe == "ssim-ae" else ())
    )
    opened = open_scenes(tmp_path / "in", patch=32, observer=Observer()).readers
    side, squares = choose_squares(opened, [slice(0, 150)], detector.recipe, sides=(32,))
    assert (side, len(squares)) == (32, 3 * 4)
    scored = score_squares(detector, opened, squares, Observer())
    inspect_scenes(detector, tmp_path / "in", tmp_path / "out")
    inspected = inspected_scores(tmp_path / "out")
    assert list(scored.scores) == [
        inspected["eve", square.rows.start // 32, square.columns.start // 32] for square in squares
    ]
    # One square alone, with its block, has the same score as among all.
    assert score_squares(detector, opened, squares[5:6], Observer()).scores == scored.scores[5:6]


def test_a_stopped_calibration_writes_nothing(
    of_scenes: tuple[Detector, Path], scenes: Path, tmp_path: Path, recorder: Any
) -> None:
    with pytest.raises(Stopped, match="stopped while calibrating; nothing is written"):
        # Twice it is asked while the scenes are opened.
        calibrate(of_scenes[1], scenes, tmp_path / "out", observer=recorder(stop_after=3))
    assert not (tmp_path / "out").exists()


# -- again, without training ---------------------------------------------------------------------------


def test_an_output_that_cannot_be_written_is_refused_before_any_scoring(
    of_scenes: tuple[Detector, Path], scenes: Path, tmp_path: Path, recorder: type
) -> None:
    (tmp_path / "out").write_text("mine")
    recorded = recorder()
    with pytest.raises(
        FileError, match=r"out: is a file, so nothing can be written here; choose another --out"
    ):
        calibrate(of_scenes[1], scenes, tmp_path / "out", observer=recorded)
    assert recorded.stages == []
    assert (tmp_path / "out").read_text() == "mine"


def test_scenes_calibrate_again_to_the_same_model(
    of_scenes: tuple[Detector, Path], scenes: Path, tmp_path: Path
) -> None:
    detector, folder = of_scenes
    again = calibrate(folder, scenes, tmp_path / "again")
    assert again.file.calibration == detector.file.calibration
    assert load(tmp_path / "again").threshold == detector.threshold
    assert again.file.weights_sha256 == detector.file.weights_sha256
    with pytest.raises(UsageError, match=r"again: already holds a finished model; .* --overwrite"):
        calibrate(folder, scenes, tmp_path / "again")
    calibrate(folder, scenes, tmp_path / "again", overwrite=True)
    with pytest.raises(
        CalibrationError, match=r"give 6 squares of 32 × 32 pixels .* --false-reject-rate 0\.143"
    ):
        calibrate(folder, scenes, tmp_path / "other", false_reject_rate=0.01)
    assert not (tmp_path / "other").exists()


def test_other_scenes_do_not_calibrate(
    of_scenes: tuple[Detector, Path], painting: Painting, tmp_path: Path
) -> None:
    painting(tmp_path / "in" / "adam", 9, height=104, width=300)
    with pytest.raises(UsageError, match="holds other scenes than the model was fitted on"):
        calibrate(of_scenes[1], tmp_path / "in", tmp_path / "out")


def as_format_1(model: Path, folder: Path) -> Path:
    """The model of scenes in ``model`` as format 1 kept it."""
    content = json.loads((model / "model.json").read_text())
    tensors = load_tensors((model / "model.safetensors").read_bytes())
    weights = save_tensors({name.removeprefix("autoencoder."): value for name, value in tensors.items()})
    calibration, training = content.pop("calibration"), content["training"]
    content |= {
        "format": 1,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "preparation": content.pop("preprocessing"),
        "calibration": {
            "scores": [0.5] * len(calibration["scores"]),
            "peaks": calibration["map_maxima"],
            "square": 32,
            "groups": None,
        },
        "split": {
            part: [f"{one['scene']}, columns {one['start']} to {one['stop'] - 1}" for one in bands]
            for part, bands in content["split"].items()
        },
        "training": {
            **training,
            "machine": "CPU, 1 of 2 cores; float32 (as asked); channels_last; torch 2",
            "history": [
                {**{key: look[key] for key in ("step", "training", "validation")}, "validation x": 0.5}
                for look in training["history"]
            ],
            "candidates": [],
        },
    }
    for name in ("candidates", "content_sha256"):
        del content[name]
    content["recipe"]["picture"] = content["recipe"].pop("image")
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({**content, "content_sha256": digest}))
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_scenes_of_format_1_ask_to_be_calibrated_again_and_are_without_training(
    of_scenes: tuple[Detector, Path], scenes: Path, tmp_path: Path, blemish: Callable[..., Any]
) -> None:
    detector, folder = of_scenes
    old = as_format_1(folder, tmp_path / "old")
    with pytest.raises(ModelError) as error:
        load(old)
    line = str(error.value)
    assert line.startswith(f"{old}: was calibrated by Blemish")
    assert f"run blemish calibrate {old} SCENES --out NEW, which does not train" in line
    ran = blemish("inspect", old, scenes, "--out", tmp_path / "found")
    assert (ran.code, ran.error) == (1, f"blemish: {line}")
    ran = blemish("calibrate", old, scenes, "--out", tmp_path / "new")
    assert ran.code == 0, ran.err
    assert "calibrated on 6 squares of 32 × 32 pixels" in ran.out
    assert load(tmp_path / "new").file.calibration == detector.file.calibration
    # Features need no decision.
    assert blemish("features", old, scenes, "--out", tmp_path / "features").code == 0


def test_images_calibrate_again_to_the_same_model(
    fitted: tuple[Detector, Path], good: Path, tmp_path: Path
) -> None:
    detector, folder = fitted
    renamed = tmp_path / "good"
    renamed.mkdir()
    for path in good.iterdir():
        shutil.copy(path, renamed / f"again {path.name}")
    again = calibrate(folder, renamed, tmp_path / "again")
    before, after = detector.decision.calibration, again.decision.calibration
    assert sorted(after.scores) == sorted(before.scores)
    assert (again.threshold, again.pixel_threshold) == (detector.threshold, detector.pixel_threshold)
    assert again.file.seen == detector.file.seen
    assert set(again.file.split["calibration"]) == {
        f"again {name}" for name in detector.file.names("calibration")
    }
    assert load(tmp_path / "again").guarantee == detector.guarantee


def test_a_region_of_interest_is_calibrated_without_training(
    exported: tuple[Detector, Path],
    good: Path,
    tmp_path: Path,
    draw: Draw,
    save: Save,
    blemish: Callable[..., Any],
) -> None:
    detector, folder = exported
    marked = np.zeros((40, 48), np.uint8)
    marked[:, :17] = 255
    mask = save(tmp_path / "mask.png", marked)
    ran = blemish("calibrate", folder, good, "--out", tmp_path / "masked", "--mask", mask)
    assert ran.code == 0, ran.err
    found = load(tmp_path / "masked")
    area = found.file.preprocessing.area
    assert area is not None
    assert np.array_equal(area.mask(40, 48), marked > 0)
    expected = detector.with_judged_area(area)
    names = detector.file.names("calibration")
    scores = [expected.measure(read_image(good / str(name))).score for name in names]
    assert sorted(found.decision.calibration.scores) == sorted(scores)
    assert found.threshold <= detector.threshold
    assert not found.inspect(draw(900, dot=True)).is_anomalous, "the dot lies outside"
    assert found.file.weights_sha256 == detector.file.weights_sha256
    with pytest.raises(UsageError, match="has no place in common"):
        calibrate(
            tmp_path / "masked", good, tmp_path / "none", mask=save(tmp_path / "other.png", 255 - marked)
        )


def test_images_that_the_model_has_not_seen_calibrate_too_and_promise_a_lower_rate(
    fitted: tuple[Detector, Path], good: Path, tmp_path: Path, draw: Draw, save: Save, recorder: Any
) -> None:
    detector, folder = fitted
    more = Path(shutil.copytree(good, tmp_path / "more"))
    with pytest.raises(CalibrationError):
        calibrate(folder, more, tmp_path / "out", false_reject_rate=0.1)
    for number in range(4):
        save(more / f"new {number}.png", draw(500 + number))
    save(more / "colour.png", np.zeros((40, 48, 3), np.uint8))
    observer = recorder()
    again = calibrate(folder, more, tmp_path / "out", false_reject_rate=0.1, observer=observer)
    assert [problem.path.name for problem in observer.problems] == ["colour.png"]
    names = set(again.file.names("calibration"))
    assert names == {*detector.file.names("calibration"), *(f"new {number}.png" for number in range(4))}
    assert again.decision.false_reject_rate == 0.1
    assert [again.inspect(more / name).score for name in again.file.names("calibration")] == list(
        again.decision.calibration.scores
    )
    assert set(again.file.seen.items()) >= set(detector.file.seen.items())
    assert sum(part == "calibration" for part in again.file.seen.values()) == len(names)


def test_an_image_of_a_group_that_trained_does_not_calibrate(
    fitted: tuple[Detector, Path], good: Path, tmp_path: Path, draw: Draw, save: Save
) -> None:
    detector, folder = fitted
    trained, calibrating = (next(detector.file.names(part)) for part in ("train", "calibration"))
    extra = [save(tmp_path / f"{name}.png", draw(seed)) for seed, name in ((600, "a"), (601, "b"))]
    groups = {trained: "one", "a.png": "one", calibrating: "two", "b.png": "two"}
    rows = [f"{path},{groups.get(path.name, '')}" for path in [*sorted(good.iterdir()), *extra]]
    (tmp_path / "good.csv").write_text("\n".join(["path,group", *rows]))
    again = calibrate(folder, tmp_path / "good.csv", tmp_path / "out")
    names = {Path(name).name for name in again.file.names("calibration")}
    assert names == {*detector.file.names("calibration"), "b.png"}
    assert again.decision.calibration.unit == GroupedImages(groups=len(names) - 1)


def test_images_without_any_held_out_one_do_not_calibrate(
    fitted: tuple[Detector, Path], good: Path, tmp_path: Path
) -> None:
    detector, folder = fitted
    some = tmp_path / "some"
    some.mkdir()
    for name in detector.file.names("train"):
        shutil.copy(good / name, some)
    with pytest.raises(FileError, match="holds no image that may calibrate the model; give the images"):
        calibrate(folder, some, tmp_path / "out")
    unknowing = detector.with_file(detector.file.model_copy(update={"seen": {}}))
    unknowing.save(tmp_path / "unknowing")
    with pytest.raises(UsageError, match="did not note which images it saw; fit a new model"):
        calibrate(tmp_path / "unknowing", good, tmp_path / "out")


def test_the_command(blemish: Callable[..., Any], model: Path, good: Path, tmp_path: Path) -> None:
    (model / "blemishes.png").write_bytes(b"a contact sheet")
    ran = blemish("calibrate", model, good, "--out", tmp_path / "new", "--json")
    assert ran.code == 0
    figures = json.loads(ran.out)
    assert figures["threshold"] == load(model).threshold
    assert figures["calibration_scores"] == 5
    assert (tmp_path / "new" / "blemishes.png").read_bytes() == b"a contact sheet"
    ran = blemish("calibrate", model, good, "--out", tmp_path / "new", "--false-reject-rate", "0.5")
    assert (ran.code, "--overwrite" in ran.error) == (2, True)
    ran = blemish(
        "calibrate", model, good, "--out", tmp_path / "new", "--false-reject-rate", "0.5", "--overwrite"
    )
    assert ran.code == 0
    assert "calibrated on 5 images" in ran.out
    assert load(tmp_path / "new").decision.false_reject_rate == 0.5
