from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blemish.detectors.ensemble import Ensemble
from blemish.errors import CalibrationError, ModelError, RecipeError, Stopped, UsageError
from blemish.inspection.detector import Detector, load
from blemish.training import partition
from blemish.training.fit import fit

RATE = 0.2
SMALL = "ssim-ae"
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


def test_a_warm_start_trains_on_new_and_earlier_images(
    detector: Detector, base: Path, more: Path, tmp_path: Path
) -> None:
    again = fit(more, continue_from=base, out=tmp_path / "model")
    before, now = detector.file.split, again.file.split
    for part in partition.PARTS:
        assert {name for name in now[part] if name.startswith("old")} == {f"old {n}" for n in before[part]}
    new = [len([name for name in names if not name.startswith("old")]) for names in now.values()]
    assert sum(new) == 10
    assert min(new) >= 1
    assert again.file.weights_sha256 != detector.file.weights_sha256
    assert again.file.training.steps == 1  # a fifth of six, rounded down
    assert again.recipe == detector.recipe
    assert again.file.preprocessing == detector.file.preprocessing
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


def test_a_warm_start_begins_with_the_weights_of_the_model(
    detector: Detector, base: Path, more: Path, tiny: list[str]
) -> None:
    still = fit(more, continue_from=base, settings=["training.learning_rate=1e-12", "training.steps=2"])
    assert still.file.training.steps == 2
    for name, value in detector.model.state_dict().items():
        torch.testing.assert_close(still.model.state_dict()[name], value)


def test_a_second_warm_start_keeps_all_images_seen_and_the_first_length(
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


def test_new_images_alone_suffice_if_they_can_calibrate(
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


def test_an_impossible_warm_start_is_refused_in_one_line(
    base: Path, good: Path, more: Path, tmp_path: Path, draw: Draw, save: Save
) -> None:
    def refused(images: Path, *arguments: Any, **options: Any) -> str:
        with pytest.raises(UsageError) as error:
            fit(images, *arguments, continue_from=base, out=tmp_path / "model", **options)
        assert not (tmp_path / "model").exists()
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "leave --recipe out" in refused(more, "l2-ae")
    message = refused(more, settings=["encoder.latent=9"])
    assert message.startswith(f"{base}: was fitted with encoder.latent 8 and goes on with it, not with 9")
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


def test_an_interrupted_warm_start_resumes_to_the_same_model(
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


def test_a_warm_start_keeps_pose_and_scale_and_adds_new_images_to_the_memory_bank(
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
    settings = ["memory.capacity=77"]
    with pytest.raises(RecipeError, match=r"was fitted with memory\.capacity"):
        fit(more, settings=settings, continue_from=folder)
    again = fit(more, continue_from=folder, out=tmp_path / "model")
    assert again.file.preprocessing == detector.file.preprocessing
    assert again.file.training.steps == 1
    assert isinstance(again.model, Ensemble)
    assert load(tmp_path / "model").inspect(more / "0.png").score == again.inspect(more / "0.png").score


def test_scenes_are_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "modalities.yaml").write_text("")
    with pytest.raises(UsageError, match=r"holds scenes, and .* was fitted on images; fit a new model"):
        fit(tmp_path, continue_from=base)
