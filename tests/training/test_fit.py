from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blemish.data.image import LoadedImage, read_image
from blemish.decision import train_mean_threshold
from blemish.detectors.ensemble import Ensemble
from blemish.errors import CalibrationError, FileError, ModelError, RecipeError, Stopped, UsageError
from blemish.inspection.detector import MODEL_FILE, Detector, load
from blemish.recipes import load_recipe, override
from blemish.training import fit as fitting
from blemish.training import patches
from blemish.training.fit import CHECKPOINT, fit

RATE = 0.2
SMALL = "ssim-ae"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every image that fit opens."""
    opened: list[Path] = []

    def spy(path: str | Path, **options: int) -> LoadedImage:
        opened.append(Path(path))
        return read_image(path, **options)

    for module in (fitting, patches, __import__("blemish.data.fingerprint", fromlist=["read_image"])):
        monkeypatch.setattr(module, "read_image", spy)
    return opened


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


def test_test_and_defective_images_are_never_opened(
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
    detector = fit(listed, SMALL, settings=tiny, false_reject_rate=0.3)
    assert {path.name for path in read} == set(names[:16])
    assert detector.file.fingerprint.count == 16


def test_a_data_set_root_is_refused_rather_than_learned(dataset: Path, tiny: list[str]) -> None:
    with pytest.raises(FileError, match="name one part"):
        fit(dataset, SMALL, settings=tiny, false_reject_rate=RATE)


def test_train_mean_rule_as_published(good: Path, tiny: list[str]) -> None:
    detector = fit(good, SMALL, settings=[*tiny, "threshold.rule=train-mean"])
    scores = [detector.inspect(good / name).score for name in detector.file.split["train"]]
    assert detector.threshold == train_mean_threshold(scores)
    assert list(detector.file.calibration.training_scores) == scores
    assert "Kumar" in detector.guarantee
    assert "no promise" in detector.guarantee
    assert detector.with_false_reject_rate(RATE).threshold == sorted(detector.file.calibration.scores)[-1]


def test_fixed_rule(good: Path, tiny: list[str]) -> None:
    detector = fit(good, SMALL, settings=[*tiny, "threshold.rule=fixed", "threshold.value=0.7"])
    assert detector.threshold == 0.7
    assert detector.file.calibration.training_scores == ()


def test_a_false_reject_rate_asks_for_the_rule_that_promises_it(good: Path, tiny: list[str]) -> None:
    detector = fit(good, SMALL, settings=[*tiny, "threshold.rule=train-mean"], false_reject_rate=RATE)
    assert detector.rule.rule == "conformal"


def test_too_few_images_are_refused_before_training(good: Path, tiny: list[str], tmp_path: Path) -> None:
    with pytest.raises(CalibrationError) as error:
        fit(good, SMALL, settings=tiny, false_reject_rate=0.05, out=tmp_path / "model")
    assert error.value.exit_code == 2
    assert not (tmp_path / "model").exists()
    message = str(error.value)
    # With 12 of 24 held out, the smallest p-value is 1/13.
    assert "24 good images can promise a false-reject rate of 7.69 % at best" in message
    assert "needs 19" in message
    assert "at least 38 good images" in message
    assert message.endswith("--false-reject-rate 0.077")


def listed(folder: Path, groups: dict[str, str], path: Path) -> Path:
    rows = [f"{one},{groups.get(one.name, '')}" for one in sorted(folder.iterdir())]
    path.write_text("path,group\n" + "\n".join(rows), encoding="utf-8")
    return path


def test_groups_stay_together_and_weaken_the_promise(
    good: Path, tmp_path: Path, tiny: list[str], draw: Callable[..., np.ndarray], save: Callable[..., Path]
) -> None:
    groups = {path.name: f"part {number // 3}" for number, path in enumerate(sorted(good.iterdir()))}
    source = listed(good, groups, tmp_path / "good.csv")
    detector = fit(source, SMALL, settings=tiny, false_reject_rate=RATE, out=tmp_path / "model")
    parts = [{groups[Path(name).name] for name in names} for names in detector.file.split.values()]
    assert sum(len(one) for one in parts) == 8
    held_out = detector.file.split["calibration"]
    assert f"{len(held_out)} held-out images of {len(held_out) // 3} groups" in detector.guarantee
    assert (
        "Images of one group resemble each other, so this is a guide for other groups" in detector.guarantee
    )
    assert load(tmp_path / "model").guarantee == detector.guarantee
    # A new image of a group that the model knows goes where the others of it are.
    more = tmp_path / "more"
    shutil.copytree(good, more)
    for number, name in enumerate(held_out):
        save(more / f"new {number}.png", draw(700 + number))
        groups[f"new {number}.png"] = groups[Path(name).name]
    for number in range(6):
        save(more / f"other {number}.png", draw(800 + number))
    again = fit(listed(more, groups, tmp_path / "more.csv"), continue_from=tmp_path / "model")
    new = {Path(name).name for name in again.file.split["calibration"]}
    assert {name for name in groups if name.startswith("new")} <= new
    # Without a list the images that are known keep their groups.
    again = fit(more, continue_from=tmp_path / "model", out=tmp_path / "again")
    calibrating = again.file.split["calibration"]
    others = set(calibrating) - {Path(name).name for name in held_out}
    assert f"{len(calibrating)} held-out images of {len(others) + len(held_out) // 3}" in again.guarantee
    assert load(tmp_path / "again").file.groups == detector.file.groups
    # Each by itself, the promise is one.
    alone = fit(listed(good, {}, tmp_path / "alone.csv"), SMALL, settings=tiny, false_reject_rate=RATE)
    assert alone.file.calibration.groups is None
    assert "guide" not in alone.guarantee


@pytest.mark.parametrize("count", [3, 4, 7, 10, 24])
def test_the_rate_that_the_refusal_offers_can_be_had(good: Path, tmp_path: Path, count: int) -> None:
    from blemish.data.datasets import Item

    usable = {str(index): Item(Path(str(index)), str(index)) for index in range(count)}
    recipe = override(load_recipe("ssim-ae"), ["threshold.false_reject_rate=0.001"])
    with pytest.raises(CalibrationError) as error:
        fitting._split(usable, recipe)
    offered = str(error.value).rsplit(" ", 1)[1]
    split = fitting._split(usable, override(recipe, [f"threshold.false_reject_rate={offered}"]))
    assert len(split["calibration"]) == count // 2


def test_images_that_do_not_fit_are_named_and_left_out(
    good: Path,
    tmp_path: Path,
    tiny: list[str],
    draw: Callable[..., np.ndarray],
    save: Callable[..., Path],
    recorder: type,
) -> None:
    images = Path(shutil.copytree(good, tmp_path / "good"))
    (images / "empty.png").write_bytes(b"")
    save(images / "colour.png", np.stack([draw(1)] * 3, axis=-1))
    save(images / "deep.png", draw(1).astype(np.uint16) * 256)
    save(images / "small.png", draw(1, 15, 60))
    told = recorder()
    detector = fit(images, SMALL, settings=tiny, false_reject_rate=RATE, observer=told)
    problems = {problem.path.name: str(problem) for problem in told.problems}
    assert sorted(problems) == ["colour.png", "deep.png", "empty.png", "small.png"]
    assert all(";" in problem and "\n" not in problem for problem in problems.values())
    assert "image.size=32" in problems["small.png"]
    assert detector.file.fingerprint.count == 24


def test_no_image_that_can_be_used(tmp_path: Path, tiny: list[str], save: Callable[..., Path]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="holds no image"):
        fit(tmp_path / "empty", SMALL, settings=tiny)
    save(tmp_path / "small" / "a.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(FileError, match="no good image that can be used"):
        fit(tmp_path / "small", SMALL, settings=tiny)


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
    with pytest.raises(UsageError, match="--resume or pass --overwrite"):
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


def test_a_checkpoint_that_was_never_written_is_none(
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


def test_a_finished_model_is_kept_until_its_replacement_is_whole(
    good: Path, model: Path, tiny: list[str], recorder: type
) -> None:
    before = load(model).file.weights_sha256
    with pytest.raises(UsageError, match="already holds a finished model"):
        fit(good, SMALL, settings=tiny, false_reject_rate=RATE, out=model)
    with pytest.raises(UsageError, match="already holds a finished model"):
        fit(good, SMALL, settings=tiny, false_reject_rate=RATE, out=model, resume=True)
    other = [*tiny, "training.seed=3"]
    with pytest.raises(Stopped):
        fit(
            good,
            SMALL,
            settings=other,
            false_reject_rate=RATE,
            out=model,
            overwrite=True,
            observer=recorder(26),
        )
    assert load(model).file.weights_sha256 == before
    fit(good, SMALL, settings=other, false_reject_rate=RATE, out=model, resume=True)
    assert load(model).file.weights_sha256 != before


def test_out_that_cannot_be_written_is_refused_before_reading(
    good: Path, tmp_path: Path, tiny: list[str], read: list[Path]
) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below" / "model", tmp_path / ("a" * 300)):
        with pytest.raises(ModelError, match="choose another --out"):
            fit(good, SMALL, settings=tiny, false_reject_rate=RATE, out=out)
    assert read == []


def test_settings_that_contradict_each_other(good: Path, tmp_path: Path, tiny: list[str]) -> None:
    with pytest.raises(UsageError, match="give one"):
        fit(good, SMALL, settings=tiny, out=tmp_path / "model", resume=True, overwrite=True)
    with pytest.raises(UsageError, match="give out"):
        fit(good, SMALL, settings=tiny, resume=True)
    with pytest.raises(RecipeError, match=r"did you mean 'training\.steps'"):
        fit(good, SMALL, settings=["training.step=6"])
    with pytest.raises(RecipeError, match="did you mean 'ssim-ae'"):
        fit(good, "sim-ae")
    for rate in (0, 1, -0.1, float("nan")):
        with pytest.raises(UsageError, match=r"--false-reject-rate .*: choose a number between 0 and 1"):
            fit(good, SMALL, settings=tiny, false_reject_rate=rate)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("encoder.latnet=8", "encoder 'bergmann' has no setting 'latnet'; did you mean 'latent'"),
        ("decoder.name=bergman", "unknown decoder 'bergman'; did you mean 'bergmann'"),
        ("patch.size=40", "needs a patch that is a multiple of 16"),
        ("loss.0.window=10", "give an odd number"),
        ("residual={name: ms-ssim}", "needs sides of at least 161 pixels"),
        ("image.size=15", "image.size 15 is less than half of patch.size 32; use at least 16"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_anything_is_read_or_removed(
    good: Path, tmp_path: Path, tiny: list[str], read: list[Path], setting: str, words: str
) -> None:
    state = tmp_path / "model" / CHECKPOINT / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    with pytest.raises(RecipeError, match=re.escape(words)) as error:
        fit(
            good,
            SMALL,
            settings=[*tiny, setting],
            false_reject_rate=RATE,
            out=tmp_path / "model",
            overwrite=True,
        )
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
    images = Path(shutil.copytree(good, tmp_path / "good"))
    colour = np.stack([draw(50), draw(51), draw(52)], axis=-1)
    save(images / "colour.png", colour)
    detector = fit(images, SMALL, settings=[*tiny, "image.channels=3"], false_reject_rate=RATE)
    assert detector.file.fingerprint.count == 25
    assert detector.inspect(images / "colour.png").image.shape == (3, 40, 48)
    assert detector.inspect(images / "0.png").reconstruction.shape == (3, 40, 48)


def test_images_are_resized_when_size_is_set(good: Path, tiny: list[str]) -> None:
    detector = fit(good, SMALL, settings=[*tiny, "image.size=32"], false_reject_rate=RATE)
    found = detector.inspect(good / "0.png")
    assert found.map.shape == (40, 48)
    names = detector.file.split["calibration"]
    assert [detector.inspect(good / name).score for name in names] == list(detector.file.calibration.scores)


@pytest.mark.parametrize(("striped", "poseless"), [(False, 5), (True, 0)])
def test_images_without_an_orientation_are_spoken_of(
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
    detector = fit(tmp_path, "stn-ae-frozen", settings=settings, observer=told)
    expected = f"{poseless} of 5 held-out patches have no dominant orientation"
    assert any(stage.startswith(expected) for stage in told.stages) == bool(poseless)
    assert (expected in detector.card()) == bool(poseless)


# -- a budget of time ----------------------------------------------------------------------------------


def test_a_budget_takes_the_place_of_the_steps(good: Path, tiny: list[str], recorder: type) -> None:
    told = recorder()
    settings = [*tiny, "training.steps=1000000"]
    detector = fit(good, SMALL, settings=settings, false_reject_rate=RATE, budget="1s", observer=told)
    training = detector.file.training
    assert 1 <= training.steps < 1000
    assert training.seconds >= 1
    assert training.budget == detector.recipe.training.budget == 1.0
    assert any(" for 1 s on " in stage for stage in told.stages)
    assert "in a budget of 1 s" in detector.card()
    by_setting = [*tiny, "training.budget=0.5s"]
    assert fit(good, SMALL, settings=by_setting, false_reject_rate=RATE).file.training.budget == 0.5


@pytest.mark.parametrize("budget", ["5", "5 parsecs", "0m", "-3s", 0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_is_no_time_is_refused(good: Path, tiny: list[str], budget: str | float) -> None:
    with pytest.raises(UsageError, match=f"^--budget {re.escape(str(budget))}: ") as error:
        fit(good, SMALL, settings=tiny, budget=budget)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("budget", ["5 parsecs", "0m", "0", "-1", ".nan", ".inf"])
def test_nor_is_it_taken_as_a_setting(good: Path, tiny: list[str], budget: str) -> None:
    with pytest.raises(RecipeError, match=r"training\.budget.*(90s, 5m or 1h|greater than 0|finite)"):
        fit(good, SMALL, settings=[*tiny, f"training.budget={budget}"])


# -- good images added later -------------------------------------------------------------------------

Draw = Callable[..., np.ndarray]
Save = Callable[..., Path]


@pytest.fixture
def more(good: Path, tmp_path: Path, draw: Draw, save: Save) -> Path:
    """The 24 images under other names, and 10 new ones under the old names."""
    folder = tmp_path / "more"
    folder.mkdir()
    for path in good.iterdir():
        shutil.copy(path, folder / f"old {path.name}")
    for seed in range(10):
        save(folder / f"{seed}.png", draw(500 + seed))
    return folder


@pytest.fixture
def base(fitted: tuple[Detector, Path]) -> Path:
    return fitted[1]


def test_a_model_goes_on_with_what_is_new_and_what_it_knew(
    detector: Detector, base: Path, more: Path, tmp_path: Path
) -> None:
    again = fit(more, continue_from=base, out=tmp_path / "model")
    before, now = detector.file.split, again.file.split
    for part in fitting.PARTS:
        assert {name for name in now[part] if name.startswith("old")} == {f"old {n}" for n in before[part]}
    new = [len([name for name in names if not name.startswith("old")]) for names in now.values()]
    assert sum(new) == 10
    assert min(new) >= 1
    assert again.file.weights_sha256 != detector.file.weights_sha256
    assert again.file.training.steps == 1  # a fifth of six, rounded down
    assert again.recipe == detector.recipe
    assert again.file.preparation == detector.file.preparation
    (ancestor,) = again.file.lineage
    assert (ancestor.weights_sha256, ancestor.steps, ancestor.images) == (
        detector.file.weights_sha256,
        6,
        17,
    )
    scores = [again.inspect(more / name).score for name in now["calibration"]]
    assert list(again.file.calibration.scores) == scores
    card = (tmp_path / "model" / "card.md").read_text(encoding="utf-8")
    assert "Before that: 6 steps on 17 images" in card
    assert f"{new[0]} new and 17 earlier for train" in card
    assert load(tmp_path / "model").file == again.file.model_copy(
        update={"content_sha256": load(tmp_path / "model").file.content_sha256}
    )


def test_it_begins_with_the_weights_of_the_model(
    detector: Detector, base: Path, more: Path, tiny: list[str]
) -> None:
    still = fit(more, continue_from=base, settings=["training.learning_rate=1e-12", "training.steps=2"])
    assert still.file.training.steps == 2
    for name, value in detector.model.state_dict().items():
        torch.testing.assert_close(still.model.state_dict()[name], value)


def test_going_on_again_remembers_all_that_was_seen_and_the_first_length(
    base: Path, more: Path, tmp_path: Path, draw: Draw, save: Save
) -> None:
    second = fit(more, continue_from=base, settings=["training.steps=2"], out=tmp_path / "second")
    third = tmp_path / "third"  # without the images of the first fit, some of the second one's renamed
    for path in more.iterdir():
        if not path.name.startswith("old"):
            third.mkdir(exist_ok=True)
            shutil.copy(path, third / f"again {path.name}")
    for seed in range(12):
        save(third / f"{seed}.png", draw(700 + seed))
    last = fit(third, continue_from=tmp_path / "second")
    for part, names in second.file.split.items():
        newer = {f"again {name}" for name in names if not name.startswith("old")}
        assert newer == {name for name in last.file.split[part] if name.startswith("again")}
    assert [one.steps for one in last.file.lineage] == [6, 2]
    assert last.file.training.steps == 1
    assert len(last.file.seen) == 24 + 10 + 12
    assert last.file.seen.items() >= second.file.seen.items()


def test_new_images_alone_will_do_where_they_can_calibrate(
    base: Path, tmp_path: Path, draw: Draw, save: Save
) -> None:
    for seed in range(4):
        save(tmp_path / "few" / f"{seed}.png", draw(500 + seed))
    with pytest.raises(CalibrationError) as error:
        fit(tmp_path / "few", continue_from=base)
    assert "holds the earlier ones too" in str(error.value)
    offered = float(str(error.value).rsplit(" ", 1)[1])
    assert len(fit(tmp_path / "few", continue_from=base, false_reject_rate=offered).file.split["train"]) == 2


def test_one_new_image_beside_the_earlier_ones_trains(
    good: Path, base: Path, tmp_path: Path, draw: Draw, save: Save, detector: Detector
) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "good"))
    save(folder / "new.png", draw(999))
    again = fit(folder, continue_from=base)
    assert set(again.file.split["train"]) == {*detector.file.split["train"], "new.png"}
    assert again.file.split["calibration"] == detector.file.split["calibration"]


def test_of_equal_images_in_two_parts_the_one_that_trains_counts() -> None:
    split = {"train": ("a",), "validation": ("b",), "calibration": ("c", "d", "e")}
    sha256 = {"a": "1", "b": "2", "c": "1", "d": "2", "e": "3"}
    assert fitting._seen(split, sha256, {}) == {"1": "train", "2": "validation", "3": "calibration"}
    assert fitting._seen(split, sha256, {"3": "train"})["3"] == "train"


def test_what_a_model_cannot_go_on_with_is_refused_in_a_line(
    base: Path, good: Path, more: Path, tmp_path: Path, draw: Draw, save: Save
) -> None:
    def refused(images: Path, *arguments: Any, **options: Any) -> str:
        with pytest.raises(UsageError) as error:
            fit(images, *arguments, continue_from=base, out=tmp_path / "model", **options)
        assert not (tmp_path / "model").exists()
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "leave --recipe out" in refused(more, "l2-ae")
    said = refused(more, settings=["encoder.latent=9"])
    assert said.startswith(f"{base}: was fitted with encoder.latent 8 and goes on with it, not with 9")
    assert "score.sigma" in refused(more, settings=["score.sigma=3"])
    assert "no image that is new" in refused(good)
    save(tmp_path / "one" / "a.png", draw(999))
    assert "give at least 3" in refused(tmp_path / "one")
    for seed in range(9):
        save(tmp_path / "colour" / f"{seed}.png", np.stack([draw(seed)] * 3, axis=-1))
        save(tmp_path / "deep" / f"{seed}.png", draw(seed).astype(np.uint16) * 256)
    assert "of 3 channels, 8-bit, and" in refused(tmp_path / "colour")
    assert "of 1 channel, 16-bit, and" in refused(tmp_path / "deep")


def test_the_same_recipe_and_settings_of_training_and_threshold_may_be_given(
    base: Path, more: Path, detector: Detector
) -> None:
    again = fit(
        more, "ssim-ae", continue_from=base, settings=["training.batch=4", "threshold.false_reject_rate=0.3"]
    )
    assert again.recipe.training.batch == 4
    assert again.recipe.threshold.false_reject_rate == 0.3
    timed = fit(more, continue_from=base, budget="0.2s")
    assert timed.file.training.budget == 0.2
    assert timed.recipe.training == detector.recipe.training


def test_a_model_that_did_not_note_its_images_is_refused(
    detector: Detector, more: Path, tmp_path: Path
) -> None:
    file = detector.file.model_copy(update={"seen": {}})
    Detector(detector.model, file).save(tmp_path / "old")
    with pytest.raises(UsageError, match="did not note which images it saw; fit a new model"):
        fit(more, continue_from=tmp_path / "old")


def test_going_on_interrupted_goes_on_to_the_same_model(
    base: Path, good: Path, more: Path, tmp_path: Path, tiny: list[str], recorder: type
) -> None:
    longer: dict[str, Any] = {"settings": ["training.steps=6"], "continue_from": base}
    whole = fit(more, **longer)
    out = tmp_path / "model"
    with pytest.raises(Stopped):
        fit(more, **longer, out=out, observer=recorder(34 + 3))
    with pytest.raises(ModelError, match="another model to go on from"):
        fit(more, SMALL, settings=[*tiny, "training.seed=0"], false_reject_rate=RATE, out=out, resume=True)
    again = fit(more, **longer, out=out, resume=True)
    assert again.file.weights_sha256 == whole.file.weights_sha256
    assert again.file.calibration == whole.file.calibration


# -- folders that hold blemished images --------------------------------------------------------------


@pytest.fixture
def mixed(good: Path, tmp_path: Path, draw: Draw, save: Save) -> Path:
    """24 good images, and 4 with a dot."""
    folder = Path(shutil.copytree(good, tmp_path / "mixed"))
    for seed in range(4):
        save(folder / f"dot {seed}.png", draw(600 + seed, dot=True))
    return folder


def dots(names: Any) -> set[str]:
    return {name for name in names if name.startswith("dot")}


def test_nothing_is_left_out_unless_asked(mixed: Path, tiny: list[str]) -> None:
    detector = fit(mixed, "l2-ae", settings=tiny, false_reject_rate=RATE)
    assert detector.file.training.left_out == ()
    assert detector.file.calibration.left_out == {}
    assert detector.file.training.notes == ()
    assert "assumption" not in detector.guarantee


def test_the_worst_training_images_are_left_out_at_half_time_and_named(
    mixed: Path, tiny: list[str], tmp_path: Path, recorder: type
) -> None:
    told = recorder()
    settings = [*tiny, "training.trim=0.2"]
    options: dict[str, Any] = {"settings": settings, "false_reject_rate": RATE}
    detector = fit(mixed, "l2-ae", **options, observer=told)
    file = detector.file
    assert dots(file.split["train"])
    assert len(file.training.left_out) == int(0.2 * len(file.split["train"]))
    # A network that has learned nothing but grey already finds the bright dots worst.
    assert dots(file.training.left_out) == dots(file.split["train"])
    assert any(stage.startswith("Half time: scoring") for stage in told.stages)
    for name in file.training.left_out:
        assert name in detector.card()
        assert any(name in stage for stage in told.stages if stage.startswith("Left out"))
    # Stopped before, at and after half time, it goes on to the same model; 28 images are read first.
    for number, stopping in enumerate((30, 31, 35, 28 + 3 + len(file.split["train"]) + 2)):
        out = tmp_path / str(number)
        with pytest.raises(Stopped):
            fit(mixed, "l2-ae", **options, out=out, observer=recorder(stopping))
        again = fit(mixed, "l2-ae", **options, out=out, resume=True)
        assert again.file.weights_sha256 == file.weights_sha256
        assert again.file.training.left_out == file.training.left_out


def test_a_share_of_less_than_one_image_is_spoken_of(good: Path, tiny: list[str]) -> None:
    detector = fit(good, SMALL, settings=[*tiny, "training.trim=0.01"], false_reject_rate=RATE)
    assert detector.file.training.left_out == ()
    assert "left out no training image" in detector.card()


def test_the_largest_calibration_scores_are_left_out_only_when_asked_and_in_words(
    mixed: Path, tiny: list[str], tmp_path: Path
) -> None:
    plain = fit(mixed, "l2-ae", settings=tiny, false_reject_rate=RATE).file.calibration
    settings = [*tiny, "threshold.trim=0.2"]
    detector = fit(mixed, "l2-ae", settings=settings, false_reject_rate=RATE, out=tmp_path / "model")
    found = detector.file.calibration
    assert sorted([*found.scores, *found.left_out.values()]) == sorted(plain.scores)
    assert min(found.left_out.values()) >= max(found.scores)
    assert len(found.left_out) == int(0.2 * len(plain.scores)) == 1
    names = detector.file.split["calibration"]
    assert [detector.inspect(mixed / name).score for name in names] == list(found.scores)
    assert len(found.peaks) == len(found.scores)
    (left_out,) = found.left_out
    assert left_out not in names
    assert detector.threshold == max(found.scores) < max(plain.scores)
    assert "assumption: the highest of 6 held-out scores was" in detector.guarantee
    again = load(tmp_path / "model")
    assert (again.threshold, again.guarantee) == (detector.threshold, detector.guarantee)


def test_what_stands_out_is_left_out_without_being_counted_first(mixed: Path, tiny: list[str]) -> None:
    settings = [*tiny, "training.trim=auto", "threshold.trim=auto"]
    file = fit(mixed, "l2-ae", settings=settings, false_reject_rate=RATE).file
    # The images with dots are far above the others, and all of them and no others are found.
    assert set(file.training.left_out) == dots(file.split["train"])
    assert set(file.calibration.left_out) == dots(file.calibration.left_out)
    assert not dots(file.split["calibration"])
    assert "as the outlying of the training images" in " ".join(file.training.notes)
    for wrong in ("0.5", "-0.1", "often"):
        with pytest.raises(RecipeError, match=f"trim {wrong}: give a share from 0 to less than 0.5, or auto"):
            fit(mixed, "l2-ae", settings=[f"threshold.trim={wrong}"])


def test_a_group_that_is_left_out_is_not_counted(mixed: Path, tiny: list[str], tmp_path: Path) -> None:
    pairs = {
        path.name: f"part {path.stem}"[:-1] for path in mixed.iterdir() if not path.name.startswith("dot")
    }
    source = listed(mixed, pairs, tmp_path / "mixed.csv")
    detector = fit(source, "l2-ae", settings=[*tiny, "threshold.trim=0.2"], false_reject_rate=RATE)
    assert dots(Path(name).name for name in detector.file.calibration.left_out)
    names = [Path(name).name for name in detector.file.split["calibration"]]
    groups = {pairs.get(name, name) for name in names}
    assert f"{len(names)} held-out images of {len(groups)} groups" in detector.guarantee


def test_images_to_be_left_out_are_held_out_on_top_of_those_that_promise() -> None:
    rule = load_recipe("ssim-ae").threshold
    for trim, share in ((0.0, 0.0), (0.1, 0.1), (0.3, 0.3), (0.49, 0.49), ("auto", 0.25)):
        count = fitting._to_hold_out(rule.model_copy(update={"trim": trim}))
        assert count - int(share * count + 1e-9) == 19
        assert count - 1 - int(share * (count - 1) + 1e-9) < 19


def test_scenes_and_other_networks_leave_nothing_out_and_go_on_from_nothing(
    base: Path, tmp_path: Path
) -> None:
    (tmp_path / "modalities.yaml").write_text("")
    with pytest.raises(UsageError, match="going on from a model is for images"):
        fit(tmp_path, continue_from=base)
    for setting in ("training.trim=0.1", "threshold.trim=0.1"):
        with pytest.raises(RecipeError, match=f"{setting.replace('=', ' ')} is for images, not for scenes"):
            fit(tmp_path, settings=[setting])
    recipe: Any = override(load_recipe("ssim-ae"), ["training.trim=0.1"])
    nothing: Any = None
    rest: dict[str, Any] = dict.fromkeys(("machine", "data", "split", "observer"))
    with pytest.raises(RecipeError, match=r"training\.trim is for detectors; set it to 0"):
        fitting.train_for(None, nothing, recipe, nothing, nothing, resume=False, **rest)


# -- the default recipe: posed, trained to find synthetic blemishes, with a memory ---------------------


def test_without_a_recipe_images_take_blemish(posed: tuple[Detector, Path]) -> None:
    detector = posed[0]
    assert detector.recipe.name == "blemish"
    assert detector.file.training.candidates


@pytest.mark.parametrize("described", ["modalities.yaml", "panels.yaml"])
def test_without_a_recipe_scenes_take_one_for_sensors(tmp_path: Path, described: str) -> None:
    (tmp_path / described).write_text("")
    source = tmp_path if described == "modalities.yaml" else tmp_path / described
    with pytest.raises(RecipeError, match=r"^fp-cae-add: training\.trim 0\.1 is for images"):
        fit(source, settings=["training.trim=0.1"])


def test_what_is_looked_at_is_said_and_on_the_card(
    posed: tuple[Detector, Path], good: Path, quick: list[str], recorder: type
) -> None:
    detector, folder = posed
    crop = detector.file.preparation.crop
    assert crop is not None
    said = (
        "Looking at one object on a plain ground, each turned into one pose, "
        f"in {crop.width} × {crop.height} pixels."
    )
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert said in card
    assert 32 <= crop.height <= 48
    assert 64 <= crop.width <= 80
    told = recorder()
    whole = fit(good, settings=quick, false_reject_rate=RATE, observer=told)
    assert whole.file.preparation.crop is None
    assert [stage for stage in told.stages if stage.startswith("Looking at whole images: ")]
    assert "Looking at whole images: " in whole.card()
    assert "Comparing ways to use 17 images in the memory bank" in told.stages


def test_a_thin_object_is_given_a_crop_that_tiles_fit(
    tmp_path: Path, quick: list[str], save: Callable[..., Path]
) -> None:
    for seed in range(24):
        needle = np.full((96, 103), 200, np.uint8)
        needle[40 + seed % 9 : 44 + seed % 9, 20:80] = 60
        needle[38 + seed % 9 : 46 + seed % 9, 20:28] = 60
        save(tmp_path / f"{seed}.png", needle)
    settings = [*quick, "patch.size=64", "patch.stride=64"]
    detector = fit(tmp_path, settings=settings, false_reject_rate=RATE)
    assert detector.file.preparation.crop is not None
    assert detector.file.preparation.crop.height == 32
    assert detector.inspect(tmp_path / "0.png").map.shape == (96, 103)


def test_all_images_keep_one_scale_and_one_far_too_small_for_it_is_left_out(
    good: Path, tmp_path: Path, quick: list[str], draw: Draw, save: Save, recorder: type
) -> None:
    images = Path(shutil.copytree(good, tmp_path / "good"))
    save(images / "small.png", draw(1, 10, 60))
    save(images / "large.png", draw(2, 100, 120))
    told = recorder()
    settings = [*quick, "image.size=60"]  # the others have 40
    detector = fit(images, settings=settings, false_reject_rate=RATE, observer=told)
    assert detector.file.preparation.scale == 1.5
    assert detector.file.preparation.scaled(100, 120) == (150, 180)
    (problem,) = told.problems
    assert str(problem).startswith(f"{images / 'small.png'}: is 60 × 10 pixels")
    assert str(problem).endswith("leave it out, or fit with --set image.scale=each")
    assert detector.file.fingerprint.count == 25
    each = fit(images, settings=[*settings, "image.scale=each"], false_reject_rate=RATE)
    assert each.file.fingerprint.count == 26


def test_the_model_shows_what_it_was_trained_to_find(
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
    good, spoiled, labels = (sheet.pixels[:, top : top + 32, ~between] for top in (0, 36, 72))
    assert set(np.unique(labels)) == {0, 255}
    assert (good != spoiled).any()
    assert np.abs(good.astype(int) - spoiled)[labels == 255].mean() > 10
    image = "](blemishes.png)"
    assert image in (folder / "card.md").read_text(encoding="utf-8")
    assert not (fitted[1] / "blemishes.png").exists()
    assert image not in (fitted[1] / "card.md").read_text(encoding="utf-8")
    # A model in its place that was not trained so shows none.
    other = Path(shutil.copytree(folder, tmp_path / "model"))
    fit(bolts, SMALL, settings=tiny, false_reject_rate=RATE, out=other, overwrite=True)
    assert sorted(path.name for path in other.iterdir()) == ["card.md", "model.json", "model.safetensors"]
    assert image not in (other / "card.md").read_text(encoding="utf-8")


def test_going_on_keeps_pose_and_scale_and_remembers_what_is_new(
    posed: tuple[Detector, Path],
    quick: list[str],
    bolts: Path,
    tmp_path: Path,
    draw_part: Draw,
    save: Save,
) -> None:
    detector, folder = posed
    more = Path(shutil.copytree(bolts, tmp_path / "more"))
    for seed in range(6):
        save(more / f"new {seed}.png", draw_part(500 + seed))
    settings = ["memory.share=1"]
    with pytest.raises(RecipeError, match=r"was fitted with memory\.share"):
        fit(more, settings=settings, continue_from=folder)
    again = fit(more, continue_from=folder, out=tmp_path / "model")
    assert again.file.preparation == detector.file.preparation
    assert again.file.training.steps == 1
    assert again.file.training.candidates
    assert isinstance(again.model, Ensemble)
    assert load(tmp_path / "model").inspect(more / "0.png").score == again.inspect(more / "0.png").score


def test_planted_blemished_images_are_not_remembered_and_named(
    bolts: Path, tmp_path: Path, quick: list[str], draw_part: Draw, save: Save
) -> None:
    folder = Path(shutil.copytree(bolts, tmp_path / "parts"))
    for seed in range(3):
        save(folder / f"dot {seed}.png", draw_part(600 + seed, broken=True))
    settings = [*quick, "training.trim=0.2", "memory.by_place=true", "memory.share=1"]
    detector = fit(folder, settings=settings, false_reject_rate=RATE)
    planted = dots(detector.file.split["train"])
    assert planted
    (said,) = [note for note in detector.file.training.notes if note.startswith("Not in the memory bank")]
    assert dots(said.partition(": ")[2].rstrip(".").split(", ")) == planted
    assert said in detector.card()


def test_what_is_usual_is_told_between_the_groups_of_a_list(
    bolts: Path, tmp_path: Path, quick: list[str]
) -> None:
    """Each bolt is there three times, as if it had been photographed again."""
    folder, groups = tmp_path / "parts", {}
    folder.mkdir()
    for path in sorted(bolts.iterdir())[:8]:
        for number in range(3):
            shutil.copy(path, folder / f"{path.stem} {number}.png")
            groups[f"{path.stem} {number}.png"] = path.stem
    usual = {}
    for told in (groups, {}):
        source = listed(folder, told, tmp_path / "parts.csv")
        settings = [*quick, "memory.by_place=true", "memory.share=1"]
        model = fit(source, settings=settings, false_reject_rate=RATE).model
        assert isinstance(model, Ensemble)
        usual[bool(told)] = model.banks[1].banks[0].normaliser.mean.mean()
    assert usual[False] < 0.5 * usual[True]


def test_it_can_be_stopped_while_looking_and_while_remembering_and_goes_on(
    posed: tuple[Detector, Path], bolts: Path, quick: list[str], tmp_path: Path, recorder: type
) -> None:
    options: dict[str, Any] = {"settings": quick, "false_reject_rate": RATE, "out": tmp_path / "model"}

    def stopped(stage: str) -> str:
        class Then(recorder):  # type: ignore[misc]
            def should_stop(self) -> bool:
                return any(said.startswith(stage) for said in self.stages)

            def count(self, done: int, total: int) -> None:
                if stage == "24 looked at" and total == 17:
                    self.stages.append(stage)

        with pytest.raises(Stopped) as error:
            fit(bolts, **options, resume=True, observer=Then())
        return str(error.value)

    assert re.search("looking at .* before training", stopped("24 looked at"))
    assert "while weighting the memory bank" in stopped("Comparing ways")
    again = fit(bolts, **options, resume=True)
    assert again.file.weights_sha256 == posed[0].file.weights_sha256
    assert again.file.calibration == posed[0].file.calibration


def test_images_that_do_not_fit_in_memory_are_prepared_once_and_give_the_same_model(
    posed: tuple[Detector, Path],
    bolts: Path,
    quick: list[str],
    read: list[Path],
    recorder: type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fitting, "PreparedImages", partial(patches.PreprocessedImages, memory_limit=0))
    told = recorder()
    file = fit(bolts, settings=quick, false_reject_rate=RATE, observer=told).file
    assert file.weights_sha256 == posed[0].file.weights_sha256
    assert file.calibration == posed[0].file.calibration
    opened = Counter(path.name for path in read)
    # To be checked, to be prepared and, of those that train, to see what they show.
    assert {opened[name] for name in file.split["train"]} == {3}
    assert {opened[name] for name in file.split["validation"]} == {2}
    assert any(said.startswith("Preparing 17 images of train") for said in told.stages)

    class Stopping(recorder):  # type: ignore[misc]
        def should_stop(self) -> bool:
            return any(said.startswith("Preparing") for said in self.stages)

    with pytest.raises(Stopped, match="stopped after preparing 1 of 17 images, before training"):
        fit(bolts, settings=quick, false_reject_rate=RATE, observer=Stopping())


def test_the_mean_of_scores_known_by_heart_is_no_threshold(bolts: Path, quick: list[str]) -> None:
    with pytest.raises(RecipeError, match="train-mean scores the training images, which its memory") as error:
        fit(bolts, settings=[*quick, "threshold.rule=train-mean"])
    assert "\n" not in str(error.value)
