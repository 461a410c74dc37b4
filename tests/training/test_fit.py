from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.data.image import read_image
from blemish.detectors.ensemble import Ensemble
from blemish.errors import (
    CalibrationError,
    FileError,
    ImageError,
    ModelError,
    RecipeError,
    Stopped,
    UsageError,
)
from blemish.inspection.calibration import calibrate
from blemish.inspection.detector import Detector, load
from blemish.storage.model_folder import CHECKPOINT, MODEL_FILE
from blemish.training.fit import fit

RATE = 0.2
SMALL = "ssim-ae"
Draw = Callable[..., np.ndarray]
Save = Callable[..., Path]


def test_the_same_seed_gives_the_same_model(detector: Detector, good: Path, tiny: list[str]) -> None:
    again = fit(good, SMALL, settings=tiny, false_reject_rate=RATE)
    assert again.file.weights_sha256 == detector.file.weights_sha256
    assert again.file.calibration == detector.file.calibration
    assert again.file.split == detector.file.split
    other = fit(good, SMALL, settings=[*tiny, "training.seed=1"], false_reject_rate=RATE)
    assert other.file.weights_sha256 != detector.file.weights_sha256
    assert other.file.split != detector.file.split


def test_split_parts_are_disjoint_and_hold_every_image(detector: Detector, good: Path) -> None:
    parts = detector.file.split
    names = [name for part in parts.values() for name in part]
    assert sorted(names) == sorted(path.name for path in good.iterdir())
    assert len(parts["calibration"]) == len(detector.file.calibration.scores) == 5


def test_interrupted_fit_goes_on_to_the_same_model(
    detector: Detector, good: Path, tmp_path: Path, tiny: list[str], recorder: type
) -> None:
    out = tmp_path / "model"
    # should_stop is asked once for each of the 24 images read, then after every step.
    for stopping in (2, 27):
        with pytest.raises(Stopped):
            fit(
                good,
                SMALL,
                settings=tiny,
                false_reject_rate=RATE,
                out=out,
                resume=True,
                observer=recorder(stopping),
            )
        assert not (out / MODEL_FILE).exists()
    assert (out / CHECKPOINT).exists()
    with pytest.raises(UsageError, match="--resume, or pass --overwrite"):
        fit(good, SMALL, settings=tiny, false_reject_rate=RATE, out=out)
    again = fit(good, SMALL, settings=tiny, false_reject_rate=RATE, out=out, resume=True)
    assert again.file.weights_sha256 == detector.file.weights_sha256
    assert again.file.calibration == detector.file.calibration
    assert not (out / CHECKPOINT).exists()


def test_stop_while_calibrating_loses_no_training(
    detector: Detector, good: Path, tmp_path: Path, tiny: list[str], recorder: type
) -> None:
    out = tmp_path / "model"

    class AtCalibration(recorder):  # type: ignore[misc]
        def should_stop(self) -> bool:
            return any(stage.startswith("Calibrating") for stage in self.stages)

    with pytest.raises(Stopped, match="while calibrating"):
        fit(good, SMALL, settings=tiny, false_reject_rate=RATE, out=out, observer=AtCalibration())
    again = fit(good, SMALL, settings=tiny, false_reject_rate=RATE, out=out, resume=True)
    assert again.file.training.steps == 6
    assert again.file.calibration == detector.file.calibration


def test_resuming_before_the_first_checkpoint_starts_anew(
    detector: Detector, good: Path, tmp_path: Path, tiny: list[str]
) -> None:
    out = tmp_path / "model"
    (out / CHECKPOINT).mkdir(parents=True)
    (out / CHECKPOINT / "state-6.safetensors").write_bytes(b"")
    again = fit(good, SMALL, settings=tiny, false_reject_rate=RATE, out=out, resume=True)
    assert again.file.weights_sha256 == detector.file.weights_sha256


def test_resume_refuses_other_settings(good: Path, tmp_path: Path, tiny: list[str], recorder: type) -> None:
    out = tmp_path / "model"
    with pytest.raises(Stopped):
        fit(good, SMALL, settings=tiny, false_reject_rate=RATE, out=out, observer=recorder(26))
    with pytest.raises(ModelError, match=r"another training\.learning_rate"):
        fit(
            good,
            SMALL,
            settings=[*tiny, "training.learning_rate=0.1"],
            false_reject_rate=RATE,
            out=out,
            resume=True,
        )


def test_a_budget_takes_the_place_of_the_steps(good: Path, tiny: list[str], recorder: type) -> None:
    recorded = recorder()
    settings = [*tiny, "training.steps=1000000"]
    detector = fit(good, SMALL, settings=settings, false_reject_rate=RATE, budget="1s", observer=recorded)
    training = detector.file.training
    assert 1 <= training.steps < 1000
    assert training.seconds >= 0.2  # what reading and scoring leave, and a fifth at least
    assert training.budget == detector.recipe.training.budget == 1.0
    assert any(" for 1 s on " in stage for stage in recorded.stages)
    assert "in a budget of 1 s" in detector.card()
    by_setting = [*tiny, "training.budget=0.5s"]
    assert fit(good, SMALL, settings=by_setting, false_reject_rate=RATE).file.training.budget == 0.5


@pytest.mark.parametrize(("striped", "poseless"), [(False, 5), (True, 0)])
def test_images_without_an_orientation_are_noted(
    tmp_path: Path, recorder: Callable[..., Any], striped: bool, poseless: int
) -> None:
    y, x = np.mgrid[:32, :32] - 15.5
    for index in range(24):  # stripes, or rings, which look the same from every side
        wave = np.sin((y if striped else np.hypot(x, y)) / 1.5 + index)
        Image.fromarray((128 + 90 * wave).astype(np.uint8)).save(tmp_path / f"{index}.png")
    settings = [
        "patch.size=32",
        "patch.stride=32",
        "training.steps=1",
        "training.batch=2",
        "alignment.pretraining=1",
        "threshold.false_reject_rate=0.2",
    ]
    recorded = recorder()
    detector = fit(tmp_path, "stn-ae-frozen", settings=settings, observer=recorded)
    expected = f"{poseless} of 5 held-out patches have no dominant orientation"
    assert any(stage.startswith(expected) for stage in recorded.stages) == bool(poseless)
    assert (expected in detector.card()) == bool(poseless)


def test_the_model_has_a_contact_sheet_of_synthetic_anomalies(
    posed: tuple[Detector, Path],
    fitted: tuple[Detector, Path],
    bolts: Path,
    tmp_path: Path,
    tiny: list[str],
) -> None:
    _, folder = posed
    sheet = read_image(folder / "blemishes.png")
    assert sheet.pixels.shape == (3, 3 * 32 + 2 * 4, 8 * 32 + 7 * 4)
    between = np.arange(8 * 36 - 4) % 36 >= 32
    good, altered, labels = (sheet.pixels[:, top : top + 32, ~between] for top in (0, 36, 72))
    assert set(np.unique(labels)) == {0, 255}
    assert (good != altered).any()
    assert np.abs(good.astype(int) - altered)[labels == 255].mean() > 10
    image = "](blemishes.png)"
    assert image in (folder / "card.md").read_text(encoding="utf-8")
    assert not (fitted[1] / "blemishes.png").exists()
    assert image not in (fitted[1] / "card.md").read_text(encoding="utf-8")
    # A model in its place that was not trained so shows none.
    other = Path(shutil.copytree(folder, tmp_path / "model"))
    fit(bolts, SMALL, settings=tiny, false_reject_rate=RATE, out=other, overwrite=True)
    assert sorted(path.name for path in other.iterdir()) == ["card.md", "model.json", "model.safetensors"]
    assert image not in (other / "card.md").read_text(encoding="utf-8")


def test_planted_defective_images_are_left_out_of_the_memory_bank_and_named(
    bolts: Path, tmp_path: Path, quick: list[str], draw_part: Draw, save: Save, dots: Callable[..., Any]
) -> None:
    folder = Path(shutil.copytree(bolts, tmp_path / "parts"))
    for seed in range(3):
        save(folder / f"dot {seed}.png", draw_part(600 + seed, broken=True))
    settings = [*quick, "training.trim=0.2", "memory.by_place=true"]
    detector = fit(folder, settings=settings, false_reject_rate=RATE)
    planted = dots(detector.file.split["train"])
    assert planted
    (note_left_out,) = [
        note for note in detector.file.training.notes if note.startswith("Not in the memory bank")
    ]
    assert dots(note_left_out.partition(": ")[2].rstrip(".").split(", ")) == planted
    assert note_left_out in detector.card()


def test_the_normaliser_compares_images_of_different_groups_only(
    bolts: Path, tmp_path: Path, quick: list[str], listed: Callable[..., Any]
) -> None:
    """Each bolt is there three times, as if it had been photographed again."""
    folder, groups = tmp_path / "parts", {}
    folder.mkdir()
    for path in sorted(bolts.iterdir())[:8]:
        for number in range(3):
            pixels = read_image(path).pixels[0].copy()
            pixels[0, 0] = number  # the same bytes would be one group without a list
            Image.fromarray(pixels).save(folder / f"{path.stem} {number}.png")
            groups[f"{path.stem} {number}.png"] = path.stem
    usual = {}
    for given in (groups, {}):
        source = listed(folder, given, tmp_path / "parts.csv")
        settings = [*quick, "memory.by_place=true"]
        model = fit(source, settings=settings, false_reject_rate=RATE).model
        assert isinstance(model, Ensemble)
        usual[bool(given)] = model.banks[1].banks[0].normaliser.mean.mean()
    assert usual[False] < 0.5 * usual[True]


def test_a_fit_stopped_while_filling_or_weighting_the_memory_bank_resumes(
    posed: tuple[Detector, Path], bolts: Path, quick: list[str], tmp_path: Path, recorder: type
) -> None:
    options: dict[str, Any] = {"settings": quick, "false_reject_rate": RATE, "out": tmp_path / "model"}

    def stopped(stage: str) -> str:
        class Then(recorder):  # type: ignore[misc]
            def should_stop(self) -> bool:
                return any(line.startswith(stage) for line in self.stages)

            def count(self, done: int, total: int) -> None:
                if stage == "24 looked at" and total == 17:
                    self.stages.append(stage)

        with pytest.raises(Stopped) as error:
            fit(bolts, **options, resume=True, observer=Then())
        return str(error.value)

    assert re.search("looking at .* before training", stopped("24 looked at"))
    assert "before the calibration" in stopped("Reading the models")
    again = fit(bolts, **options, resume=True)
    assert again.file.weights_sha256 == posed[0].file.weights_sha256
    assert again.file.calibration == posed[0].file.calibration


def test_an_overwriting_fit_that_is_stopped_is_unfinished_and_no_finished_model(
    detector: Detector, model: Path, good: Path, tiny: list[str], recorder: type
) -> None:
    with pytest.raises(Stopped):
        fit(
            good,
            SMALL,
            settings=[*tiny, "training.seed=1"],
            false_reject_rate=RATE,
            out=model,
            overwrite=True,
            observer=recorder(27),
        )
    assert (model / MODEL_FILE).exists()  # of the fit before
    settings = [*tiny, "training.seed=1"]
    with pytest.raises(UsageError, match="holds the checkpoint of an unfinished fit; go on with --resume"):
        fit(good, SMALL, settings=settings, false_reject_rate=RATE, out=model)
    again = fit(good, SMALL, settings=settings, false_reject_rate=RATE, out=model, resume=True)
    anew = fit(good, SMALL, settings=settings, false_reject_rate=RATE)
    assert again.file.weights_sha256 == anew.file.weights_sha256 != detector.file.weights_sha256


def test_copies_neither_train_and_calibrate_nor_promise_more(
    good: Path, tiny: list[str], tmp_path: Path, recorder: type
) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "good"))
    for path in sorted(folder.iterdir()):
        shutil.copy(path, folder / f"copy of {path.name}")
    recorded = recorder()
    file = fit(folder, SMALL, settings=tiny, false_reject_rate=RATE, observer=recorded).file
    parts = {
        part: {str(name).removeprefix("copy of ") for name in names} for part, names in file.split.items()
    }
    assert all(len(names) * 2 == len(file.split[part]) for part, names in parts.items())
    assert not parts["train"] & parts["calibration"]
    words = "24 images of these are copies of others, byte by byte, and stay with them."
    assert words in recorded.stages
    assert words in file.training.notes or words in str(file.training)
    assert f"of {len(parts['calibration'])} groups" in file.decision.guarantee


# -- 12 bits in files of 16 ----------------------------------------------------------------------------


@pytest.fixture
def narrow(good: Path, tmp_path: Path) -> Path:
    """The good images as 12 bits in files of 16."""
    folder = tmp_path / "narrow"
    folder.mkdir()
    for path in good.iterdir():
        Image.fromarray(16 * read_image(path).pixels[0].astype(np.uint16)).save(folder / path.name)
    return folder


def test_a_narrow_range_is_said_and_shown_brighter(
    blemish: Callable[..., Any], narrow: Path, tiny_options: list[str], tmp_path: Path
) -> None:
    ran = blemish("fit", narrow, "--out", tmp_path / "model", *tiny_options)
    assert "% of the range of 16-bit values, and are shown brighter; if they are of 12 bits" in ran.err
    assert "--set image.range=4095" in ran.err
    assert "image.range=4095" in (tmp_path / "model" / "card.md").read_text(encoding="utf-8")
    blemish("inspect", tmp_path / "model", narrow, "--out", tmp_path / "found", "--threshold", 1e6)
    assert read_image(tmp_path / "found" / "overlays" / "0.png").pixels.max() > 200
    assert read_image(tmp_path / "found" / "reconstructions" / "0.png").pixels.mean() > 50


def test_a_range_makes_12_bits_what_8_bits_are(
    detector: Detector, good: Path, narrow: Path, tiny: list[str], tmp_path: Path
) -> None:
    # 4080 is 16 times 255: full scale of the same images in 8 bits.
    found = fit(
        narrow, SMALL, settings=[*tiny, "image.range=4080"], false_reject_rate=RATE, out=tmp_path / "model"
    )
    np.testing.assert_allclose(found.file.calibration.scores, detector.file.calibration.scores, rtol=0.02)
    assert load(tmp_path / "model").file.preprocessing.range == 4080
    Image.fromarray(np.full((40, 48), 5000, np.uint16)).save(tmp_path / "above.png")
    with pytest.raises(ImageError, match="holds values up to 5000, above the 4080 that mean 1"):
        found.inspect(tmp_path / "above.png")
    with pytest.raises(RecipeError, match=r"image\.range 4080 is for images of 16 bits, and these are 8-bit"):
        fit(good, SMALL, settings=[*tiny, "image.range=4080"], false_reject_rate=RATE)


def test_without_calibration_images_all_but_the_validation_train(
    good: Path, tiny: list[str], tmp_path: Path
) -> None:
    """As Kumar et al. 2025, whose threshold is the mean of the training scores."""
    settings = [*tiny, "threshold.rule=train-mean"]
    usual = fit(good, SMALL, settings=settings)
    found = fit(good, SMALL, settings=[*settings, "threshold.hold_out=false"], out=tmp_path / "model")
    count = len(list(good.iterdir()))
    parts = {part: len(names) for part, names in found.file.split.items()}
    assert parts["calibration"] == 0
    assert parts["train"] + parts["validation"] == count
    assert parts["train"] == len(usual.file.split["train"]) + len(usual.file.split["calibration"])
    calibration = found.file.calibration
    assert calibration is not None
    assert len(calibration.training_scores) == parts["train"]
    assert found.threshold == pytest.approx(np.mean(calibration.training_scores))
    assert len(calibration.scores) == parts["validation"]
    assert "no promise" in found.guarantee
    with pytest.raises(CalibrationError, match=r"without calibration images \(threshold\.hold_out=false\)"):
        found.with_false_reject_rate(0.2)
    again = load(tmp_path / "model")
    image = next(iter(good.iterdir()))
    assert again.inspect(image).score == found.inspect(image).score
    with pytest.raises(RecipeError, match=r"needs threshold\.rule 'train-mean'"):
        fit(good, SMALL, settings=[*tiny, "threshold.hold_out=false"])


def test_images_that_come_later_calibrate_a_model_that_held_out_none(
    good: Path, tiny: list[str], tmp_path: Path, draw: Draw, save: Save
) -> None:
    settings = [*tiny, "threshold.rule=train-mean", "threshold.hold_out=false"]
    fit(good, SMALL, settings=settings, out=tmp_path / "model")
    for seed in range(6):
        save(tmp_path / "new" / f"{seed}.png", draw(1000 + seed))
    with pytest.raises(FileError, match="holds no image that may calibrate the model"):
        calibrate(tmp_path / "model", good, out=tmp_path / "same")
    detector = calibrate(tmp_path / "model", tmp_path / "new", out=tmp_path / "other", false_reject_rate=0.2)
    assert len(detector.decision.calibration.scores) == 6
    assert detector.with_false_reject_rate(0.2).decision.promised_rate == 0.2
