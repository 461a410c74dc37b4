from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blemish import fitting
from blemish.detect import train_mean_threshold
from blemish.errors import CalibrationError, FileError, ModelError, RecipeError, Stopped, UsageError
from blemish.fitting import CHECKPOINT, fit
from blemish.images import Picture, read_picture
from blemish.inspector import MODEL_FILE, Inspector, load
from blemish.recipes import load_recipe, override
from blemish.training import patches

RATE = 0.2


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every picture that fit opens."""
    opened: list[Path] = []

    def spy(path: str | Path, **options: int) -> Picture:
        opened.append(Path(path))
        return read_picture(path, **options)

    for module in (fitting, patches, __import__("blemish.images.fingerprint", fromlist=["read_picture"])):
        monkeypatch.setattr(module, "read_picture", spy)
    return opened


def test_the_same_seed_gives_the_same_model(inspector: Inspector, good: Path, tiny: list[str]) -> None:
    again = fit(good, settings=tiny, false_reject_rate=RATE)
    assert again.file.weights_sha256 == inspector.file.weights_sha256
    assert again.file.calibration == inspector.file.calibration
    assert again.file.split == inspector.file.split
    other = fit(good, settings=[*tiny, "training.seed=1"], false_reject_rate=RATE)
    assert other.file.weights_sha256 != inspector.file.weights_sha256
    assert other.file.split != inspector.file.split


def test_split_parts_are_disjoint_and_hold_every_picture(inspector: Inspector, good: Path) -> None:
    parts = inspector.file.split
    names = [name for part in parts.values() for name in part]
    assert sorted(names) == sorted(path.name for path in good.iterdir())
    assert len(parts["calibration"]) == len(inspector.file.calibration.scores) == 5


def test_test_and_defective_pictures_are_never_opened(
    good: Path, tmp_path: Path, tiny: list[str], read: list[Path]
) -> None:
    names = sorted(path.name for path in good.iterdir())
    shutil.copytree(good, tmp_path / "all")
    rows = [f"all/{name},good,train" for name in names[:16]]
    rows += [f"all/{name},good,test" for name in names[16:20]]
    rows += [f"all/{name},dot,test" for name in names[20:22]]
    rows += [f"all/{name},dot,train" for name in names[22:]]
    listed = tmp_path / "list.csv"
    listed.write_text("path,label,split\n" + "\n".join(rows))
    inspector = fit(listed, settings=tiny, false_reject_rate=0.3)
    assert {path.name for path in read} == set(names[:16])
    assert inspector.file.fingerprint.count == 16


def test_a_data_set_root_is_refused_rather_than_learned(dataset: Path, tiny: list[str]) -> None:
    with pytest.raises(FileError, match="name one part"):
        fit(dataset, settings=tiny, false_reject_rate=RATE)


def test_train_mean_rule_as_published(good: Path, tiny: list[str]) -> None:
    inspector = fit(good, settings=[*tiny, "threshold.rule=train-mean"])
    scores = [inspector.inspect(good / name).score for name in inspector.file.split["train"]]
    assert inspector.threshold == train_mean_threshold(scores)
    assert list(inspector.file.calibration.training_scores) == scores
    assert "Kumar" in inspector.guarantee
    assert "no promise" in inspector.guarantee
    assert inspector.with_false_reject_rate(RATE).threshold == sorted(inspector.file.calibration.scores)[-1]


def test_fixed_rule(good: Path, tiny: list[str]) -> None:
    inspector = fit(good, settings=[*tiny, "threshold.rule=fixed", "threshold.value=0.7"])
    assert inspector.threshold == 0.7
    assert inspector.file.calibration.training_scores == ()


def test_a_false_reject_rate_asks_for_the_rule_that_promises_it(good: Path, tiny: list[str]) -> None:
    inspector = fit(good, settings=[*tiny, "threshold.rule=train-mean"], false_reject_rate=RATE)
    assert inspector.rule.rule == "conformal"


def test_too_few_pictures_are_refused_before_training(good: Path, tiny: list[str], tmp_path: Path) -> None:
    with pytest.raises(CalibrationError) as error:
        fit(good, settings=tiny, false_reject_rate=0.05, out=tmp_path / "model")
    assert error.value.exit_code == 2
    assert not (tmp_path / "model").exists()
    message = str(error.value)
    # With 12 of 24 held out, the smallest p-value is 1/13.
    assert "24 good pictures can promise a false-reject rate of 7.69 % at best" in message
    assert "needs 19" in message
    assert "at least 38 good pictures" in message
    assert message.endswith("--false-reject-rate 0.077")


@pytest.mark.parametrize("count", [3, 4, 7, 10, 24])
def test_the_rate_that_the_refusal_offers_can_be_had(good: Path, tmp_path: Path, count: int) -> None:
    from blemish.images import Item

    usable = {str(index): Item(Path(str(index)), str(index)) for index in range(count)}
    recipe = override(load_recipe("ssim-ae"), ["threshold.false_reject_rate=0.001"])
    with pytest.raises(CalibrationError) as error:
        fitting._split(usable, recipe)
    offered = str(error.value).rsplit(" ", 1)[1]
    split = fitting._split(usable, override(recipe, [f"threshold.false_reject_rate={offered}"]))
    assert len(split["calibration"]) == count // 2


def test_pictures_that_do_not_fit_are_named_and_left_out(
    good: Path,
    tmp_path: Path,
    tiny: list[str],
    draw: Callable[..., np.ndarray],
    save: Callable[..., Path],
    recorder: type,
) -> None:
    pictures = Path(shutil.copytree(good, tmp_path / "good"))
    (pictures / "empty.png").write_bytes(b"")
    save(pictures / "colour.png", np.stack([draw(1)] * 3, axis=-1))
    save(pictures / "deep.png", draw(1).astype(np.uint16) * 256)
    save(pictures / "small.png", draw(1, 15, 60))
    told = recorder()
    inspector = fit(pictures, settings=tiny, false_reject_rate=RATE, observer=told)
    problems = {problem.path.name: str(problem) for problem in told.problems}
    assert sorted(problems) == ["colour.png", "deep.png", "empty.png", "small.png"]
    assert all(";" in problem and "\n" not in problem for problem in problems.values())
    assert "picture.size=32" in problems["small.png"]
    assert inspector.file.fingerprint.count == 24


def test_no_picture_that_can_be_used(tmp_path: Path, tiny: list[str], save: Callable[..., Path]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="holds no picture"):
        fit(tmp_path / "empty", settings=tiny)
    save(tmp_path / "small" / "a.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(FileError, match="no good picture that can be used"):
        fit(tmp_path / "small", settings=tiny)


def test_interrupted_fit_goes_on_to_the_same_model(
    inspector: Inspector, good: Path, tmp_path: Path, tiny: list[str], recorder: type
) -> None:
    out = tmp_path / "model"
    # should_stop is asked once for each of the 24 pictures read, then after every step.
    for stopping in (2, 27):
        with pytest.raises(Stopped):
            fit(
                good, settings=tiny, false_reject_rate=RATE, out=out, resume=True, observer=recorder(stopping)
            )
        assert not (out / MODEL_FILE).exists()
    assert (out / CHECKPOINT).exists()
    with pytest.raises(UsageError, match="--resume or pass --overwrite"):
        fit(good, settings=tiny, false_reject_rate=RATE, out=out)
    again = fit(good, settings=tiny, false_reject_rate=RATE, out=out, resume=True)
    assert again.file.weights_sha256 == inspector.file.weights_sha256
    assert again.file.calibration == inspector.file.calibration
    assert not (out / CHECKPOINT).exists()


def test_stop_while_calibrating_loses_no_training(
    inspector: Inspector, good: Path, tmp_path: Path, tiny: list[str], recorder: type
) -> None:
    out = tmp_path / "model"

    class AtCalibration(recorder):  # type: ignore[misc]
        def should_stop(self) -> bool:
            return any(stage.startswith("Calibrating") for stage in self.stages)

    with pytest.raises(Stopped, match="while calibrating"):
        fit(good, settings=tiny, false_reject_rate=RATE, out=out, observer=AtCalibration())
    again = fit(good, settings=tiny, false_reject_rate=RATE, out=out, resume=True)
    assert again.file.training.steps == 6
    assert again.file.calibration == inspector.file.calibration


def test_a_checkpoint_that_was_never_written_is_none(
    inspector: Inspector, good: Path, tmp_path: Path, tiny: list[str]
) -> None:
    out = tmp_path / "model"
    (out / CHECKPOINT).mkdir(parents=True)
    (out / CHECKPOINT / "state-6.safetensors").write_bytes(b"")
    again = fit(good, settings=tiny, false_reject_rate=RATE, out=out, resume=True)
    assert again.file.weights_sha256 == inspector.file.weights_sha256


def test_resume_refuses_other_settings(good: Path, tmp_path: Path, tiny: list[str], recorder: type) -> None:
    out = tmp_path / "model"
    with pytest.raises(Stopped):
        fit(good, settings=tiny, false_reject_rate=RATE, out=out, observer=recorder(26))
    with pytest.raises(ModelError, match=r"another training\.learning_rate"):
        fit(
            good,
            settings=[*tiny, "training.learning_rate=0.1"],
            false_reject_rate=RATE,
            out=out,
            resume=True,
        )


def test_a_finished_model_is_kept_until_its_replacement_is_whole(
    good: Path, model: Path, tiny: list[str], recorder: type
) -> None:
    before = load(model).file.weights_sha256
    with pytest.raises(UsageError, match="already holds a finished model"):
        fit(good, settings=tiny, false_reject_rate=RATE, out=model)
    with pytest.raises(UsageError, match="already holds a finished model"):
        fit(good, settings=tiny, false_reject_rate=RATE, out=model, resume=True)
    other = [*tiny, "training.seed=3"]
    with pytest.raises(Stopped):
        fit(good, settings=other, false_reject_rate=RATE, out=model, overwrite=True, observer=recorder(26))
    assert load(model).file.weights_sha256 == before
    fit(good, settings=other, false_reject_rate=RATE, out=model, resume=True)
    assert load(model).file.weights_sha256 != before


def test_out_that_cannot_be_written_is_refused_before_reading(
    good: Path, tmp_path: Path, tiny: list[str], read: list[Path]
) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below" / "model", tmp_path / ("a" * 300)):
        with pytest.raises(ModelError, match="choose another --out"):
            fit(good, settings=tiny, false_reject_rate=RATE, out=out)
    assert read == []


def test_settings_that_contradict_each_other(good: Path, tmp_path: Path, tiny: list[str]) -> None:
    with pytest.raises(UsageError, match="give one"):
        fit(good, settings=tiny, out=tmp_path / "model", resume=True, overwrite=True)
    with pytest.raises(UsageError, match="give out"):
        fit(good, settings=tiny, resume=True)
    with pytest.raises(RecipeError, match=r"did you mean 'training\.steps'"):
        fit(good, settings=["training.step=6"])
    with pytest.raises(RecipeError, match="did you mean 'ssim-ae'"):
        fit(good, "sim-ae")
    for rate in (0, 1, -0.1, float("nan")):
        with pytest.raises(UsageError, match=r"--false-reject-rate .*: choose a number between 0 and 1"):
            fit(good, settings=tiny, false_reject_rate=rate)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("encoder.latnet=8", "encoder 'bergmann' has no setting 'latnet'; did you mean 'latent'"),
        ("decoder.name=bergman", "unknown decoder 'bergman'; did you mean 'bergmann'"),
        ("patch.size=40", "needs a patch that is a multiple of 16"),
        ("loss.0.window=10", "give an odd number"),
        ("residual={name: ms-ssim}", "needs sides of at least 161 pixels"),
        ("picture.size=15", "picture.size 15 is less than half of patch.size 32; use at least 16"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_anything_is_read_or_removed(
    good: Path, tmp_path: Path, tiny: list[str], read: list[Path], setting: str, words: str
) -> None:
    state = tmp_path / "model" / CHECKPOINT / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    with pytest.raises(RecipeError, match=re.escape(words)) as error:
        fit(good, settings=[*tiny, setting], false_reject_rate=RATE, out=tmp_path / "model", overwrite=True)
    assert "\n" not in str(error.value)
    assert read == []
    assert state.exists()


def test_trying_the_parts_leaves_the_random_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    fitting.check_recipe(load_recipe("ssim-ae"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_grey_and_colour_together_when_channels_are_set(
    good: Path, tmp_path: Path, tiny: list[str], draw: Callable[..., np.ndarray], save: Callable[..., Path]
) -> None:
    pictures = Path(shutil.copytree(good, tmp_path / "good"))
    colour = np.stack([draw(50), draw(51), draw(52)], axis=-1)
    save(pictures / "colour.png", colour)
    inspector = fit(pictures, settings=[*tiny, "picture.channels=3"], false_reject_rate=RATE)
    assert inspector.file.fingerprint.count == 25
    assert inspector.inspect(pictures / "colour.png").picture.shape == (3, 40, 48)
    assert inspector.inspect(pictures / "0.png").reconstruction.shape == (3, 40, 48)


def test_pictures_are_resized_when_size_is_set(good: Path, tiny: list[str]) -> None:
    inspector = fit(good, settings=[*tiny, "picture.size=32"], false_reject_rate=RATE)
    found = inspector.inspect(good / "0.png")
    assert found.map.shape == (40, 48)
    names = inspector.file.split["calibration"]
    assert [inspector.inspect(good / name).score for name in names] == list(inspector.file.calibration.scores)


@pytest.mark.parametrize(("striped", "poseless"), [(False, 5), (True, 0)])
def test_pictures_without_an_orientation_are_spoken_of(
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
    told = recorder()
    inspector = fit(tmp_path, "stn-ae-frozen", settings=settings, observer=told)
    expected = f"{poseless} of 5 held-out patches have no dominant orientation"
    assert any(stage.startswith(expected) for stage in told.stages) == bool(poseless)
    assert (expected in inspector.card()) == bool(poseless)
