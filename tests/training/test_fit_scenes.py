"""Fitting on scenes, from files to a saved model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from blemish.decision import SceneSquares
from blemish.errors import CalibrationError, ModelError, RecipeError, Stopped, UsageError
from blemish.inspection.calibration import calibrate
from blemish.inspection.detector import load
from blemish.inspection.document import SceneColumns
from blemish.recipes import load_recipe, override
from blemish.storage.model_folder import CHECKPOINT
from blemish.training.fit import fit
from blemish.training.sources import images_sha256

Painting = Callable[..., Path]

TINY = (
    "training.batch=4",
    "training.steps=4",
    "training.validate_every=2",
    "training.device=cpu",
    "training.precision=float32",
    "threshold.false_reject_rate=0.1",
)


@pytest.fixture(scope="module")
def paintings(painting: Painting, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three, of which the second has no X-ray and the third's infrared covers a part."""
    root = tmp_path_factory.mktemp("scenes")
    for seed, name in enumerate(["adam", "eve", "zachary"]):
        painting(root / name, seed, height=96, width=160)
    (root / "eve" / "xray.tif").unlink()
    path = root / "zachary" / "infrared.tif"
    pixels = tifffile.imread(path) / np.float32(65535)
    pixels[:48] = np.nan
    tifffile.imwrite(path, pixels)
    return root


@pytest.fixture(scope="module")
def folder(paintings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model fitted on them."""
    folder = tmp_path_factory.mktemp("fitted") / "model"
    fit(paintings, "fp-cae-concat", settings=TINY, out=folder)
    return folder


def test_a_fit_on_scenes_survives_saving(paintings: Path, folder: Path) -> None:
    detector = load(folder)
    file = detector.file
    assert [(one.name, one.channels) for one in file.preprocessing.modalities] == [
        ("infrared", 1),
        ("rgb", 3),
        ("xray", 1),
    ]
    # Columns 120 to 159 calibrate; of the squares of 32 pixels that is column 4 with three, in three scenes.
    assert file.calibration is not None
    assert file.calibration.unit == SceneSquares(side=32)
    assert len(file.calibration.scores) == len(file.calibration.map_maxima) == 9
    assert np.isfinite(file.calibration.scores).all()
    assert detector.threshold == max(file.calibration.scores)
    assert file.fingerprint.sha256 == images_sha256(paintings, file.recipe)
    assert file.split["calibration"] == tuple(
        SceneColumns(scene=name, start=120, stop=160) for name in ("adam", "eve", "zachary")
    )
    card = (folder / "card.md").read_text()
    assert "9 squares of 32 × 32 pixels" in card
    assert "| xray | 1 | no |" in card
    assert "| eve | 0 to 87 | 88 to 119 | 120 to 159 |" in card
    assert "eve: xray: missing, there is no xray.tif." in card
    assert "resemble each other" in detector.guarantee
    assert not (folder / CHECKPOINT).exists()


def test_the_same_fit_gives_the_same_model(paintings: Path, folder: Path) -> None:
    again = fit(paintings, "fp-cae-concat", settings=TINY)
    before = load(folder).file
    assert again.file.weights_sha256 == before.weights_sha256
    assert again.file.calibration == before.calibration


def test_a_stopped_fit_goes_on_to_the_same_model(
    paintings: Path, folder: Path, tmp_path: Path, recorder: Any
) -> None:
    out = tmp_path / "model"
    with pytest.raises(Stopped, match="step 2 of 4"):
        fit(paintings, "fp-cae-concat", settings=TINY, out=out, observer=recorder(stop_after=3 + 1))
    resumed = fit(paintings, "fp-cae-concat", settings=TINY, out=out, resume=True)
    assert resumed.file.weights_sha256 == load(folder).file.weights_sha256


def test_a_checkpoint_of_other_scenes_is_refused(
    painting: Painting, paintings: Path, tmp_path: Path, recorder: Any
) -> None:
    out = tmp_path / "model"
    with pytest.raises(Stopped):
        fit(paintings, "fp-cae-concat", settings=TINY, out=out, observer=recorder(stop_after=3))
    others = tmp_path / "scenes"
    for seed, name in enumerate(["adam", "eve", "zachary"]):
        painting(others / name, seed + 5, height=96, width=160)
    with pytest.raises(ModelError, match="another set of images"):
        fit(others, "fp-cae-concat", settings=TINY, out=out, resume=True)


def test_a_whole_image_is_refused_by_a_model_of_scenes(paintings: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"fitted on scenes of infrared, rgb, xray.*inspect_scenes"):
        load(folder).inspect(paintings / "adam" / "rgb.png")


def test_too_few_squares_for_the_false_reject_rate_are_refused(paintings: Path) -> None:
    settings = [*TINY, "threshold.false_reject_rate=0.01"]
    with pytest.raises(CalibrationError, match=r"give 9 squares of 32 × 32 .* --false-reject-rate 0\.1$"):
        fit(paintings, "fp-cae-concat", settings=settings)


def test_a_recipe_that_needs_every_modality_refuses_a_missing_one(paintings: Path) -> None:
    with pytest.raises(UsageError, match=r"eve: has no xray, which stacked-ae cannot do without"):
        fit(paintings, "stacked-ae", settings=TINY)


def test_settings_of_images_do_not_apply(paintings: Path) -> None:
    with pytest.raises(RecipeError, match=r"image\.size 64 is for images"):
        fit(paintings, "fp-cae-add", settings=[*TINY, "image.size=64"])


def test_any_recipe_fits_scenes_that_a_yaml_describes(
    painting: Painting, tmp_path: Path, tiny: list[str]
) -> None:
    for seed, name in enumerate(["adam", "eve"]):
        painting(tmp_path / name, seed)
    (tmp_path / "modalities.yaml").write_text(
        "modalities:\n- {name: rgb, file: rgb.png}\n- {name: ir, file: infrared.tif}\n"
    )
    settings = [*tiny, "threshold.false_reject_rate=0.2"]
    detector = fit(tmp_path, "l2-ae", settings=settings)
    assert detector.file.preprocessing.channels == 4
    assert len(detector.file.calibration.scores) == 4


def test_a_recipe_for_modalities_takes_an_image_as_one_modality(good: Path) -> None:
    detector = fit(good, "fp-cae-add", settings=[*TINY, "threshold.false_reject_rate=0.2"])
    assert detector.file.preprocessing.modalities == ()
    assert np.isfinite(detector.inspect(good / "0.png").score)


def test_the_mean_of_training_squares_as_threshold(painting: Painting, tmp_path: Path) -> None:
    settings = override(load_recipe("fp-cae-add"), [*TINY, "threshold.rule=train-mean"])
    painting(tmp_path / "scenes" / "eve")
    detector = fit(tmp_path / "scenes", settings)
    calibration = detector.file.calibration
    assert calibration is not None
    assert calibration.unit == SceneSquares(side=32)
    assert len(calibration.training_scores) == 2 * 2  # of 80 columns and 64 rows
    assert detector.threshold == pytest.approx(np.mean(calibration.training_scores))


def test_a_warm_start_goes_on_with_modalities_ranges_and_columns(
    paintings: Path, folder: Path, painting: Painting, tmp_path: Path
) -> None:
    more = tmp_path / "more"
    shutil.copytree(paintings, more)
    painting(more / "mary", 7, height=96, width=200)
    again = fit(more, continue_from=folder, settings=["training.steps=2"], out=tmp_path / "model")
    before = load(folder)
    assert again.file.preprocessing == before.file.preprocessing
    assert again.file.weights_sha256 != before.file.weights_sha256
    assert [one.weights_sha256 for one in again.file.lineage] == [before.file.weights_sha256]
    for part, columns in before.file.split.items():
        assert set(columns) < set(again.file.split[part])
    assert "Warm start on 1 new and 3 earlier scenes, by their names." in again.file.training.notes
    calibrated = calibrate(tmp_path / "model", more, tmp_path / "calibrated")
    assert calibrated.file.calibration == again.file.calibration


def test_a_warm_start_on_images_is_refused(folder: Path, good: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no scenes, and .* was fitted on such"):
        fit(good / "0.png", continue_from=folder)


def test_the_command(blemish: Any, paintings: Path, tmp_path: Path) -> None:
    options = [word for setting in TINY for word in ("--set", setting)]
    ran = blemish("fit", paintings, "--recipe", "fp-cae-concat", "--out", tmp_path / "model", *options)
    assert ran.code == 0, ran.err
    assert "held-out squares of 32 × 32" in ran.out
    assert "eve: xray: missing" in ran.err
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "modalities.yaml").write_text("modalities: [{name: a, file: a.tif}]")
    ran = blemish(
        "fit", tmp_path / "empty", "--recipe", "fp-cae-concat", "--out", tmp_path / "other", *options
    )
    assert ran.code == 1
    assert "names files that are nowhere" in ran.error
