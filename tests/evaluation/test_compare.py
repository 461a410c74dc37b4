from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.errors import FileError, RecipeError, Stopped, UsageError
from blemish.evaluation.compare import Comparison, compare, fit_once, good_images
from blemish.evaluation.reconstruction_baselines import BLURRED, FLAT, MEAN, RESIDUALS
from blemish.observer import Observer
from blemish.recipes import load_recipe, override

pytestmark = pytest.mark.usefixtures("few_resamples")
RATE = "threshold.false_reject_rate=0.2"


@pytest.fixture(scope="module")
def compared(
    dataset: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("compared") / "out"
    return compare(dataset, ["l2-ae", "ssim-ae"], out, seeds=[0, 1], settings=[*tiny, RATE]), out


@pytest.fixture
def again(compared: tuple[Comparison, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(compared[1], tmp_path / "again"))


def model_file(out: Path, run: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((out / run / "model" / "model.json").read_text())
    return document


def test_every_recipe_is_fitted_with_every_seed_on_one_split_a_seed(
    compared: tuple[Comparison, Path],
) -> None:
    comparison, out = compared
    assert [(run.recipe, run.seed) for run in comparison.runs] == [
        ("l2-ae", 0),
        ("l2-ae", 1),
        ("ssim-ae", 0),
        ("ssim-ae", 1),
    ]
    for seed in (0, 1):
        l2, ssim = (model_file(out, f"{name}-{seed}") for name in ("l2-ae", "ssim-ae"))
        assert l2["split"] == ssim["split"]
        assert l2["fingerprint"] == ssim["fingerprint"]
        assert l2["recipe"]["loss"] != ssim["recipe"]["loss"]
    assert model_file(out, "l2-ae-0")["split"] != model_file(out, "l2-ae-1")["split"]


def test_rows_are_means_over_seeds(compared: tuple[Comparison, Path]) -> None:
    comparison, _ = compared
    values = [run.evaluation.pixel.auroc for run in comparison.runs if run.recipe == "l2-ae"]
    row = next(row for row in comparison.rows() if row[0] == "l2-ae")
    assert row[1] == 2
    assert row[5] == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def test_json_report_and_words(compared: tuple[Comparison, Path]) -> None:
    comparison, out = compared
    assert Comparison.model_validate(json.loads((out / "comparison.json").read_text())) == comparison
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "2 recipes on waves" in page
    assert str(out.parent) not in page
    lines = comparison.in_words().splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["recipe", "l2-ae", "ssim-ae"]
    baselines = [f"{name}, {residual}" for name in (FLAT, BLURRED, MEAN) for residual in RESIDUALS]
    assert [line.split("  ")[0] for line in lines[3:]] == baselines
    assert f"{comparison.baselines[0].rows[0].pixel.auroc:.3f}" in lines[3]
    assert all(one in page for one in baselines)
    assert (out / "ssim-ae-1" / "found" / "report.html").exists()


def test_finished_fits_and_evaluations_are_not_repeated(
    compared: tuple[Comparison, Path],
    again: Path,
    dataset: Path,
    tiny: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.rmtree(again / "ssim-ae-1" / "found")
    evaluated: list[Path] = []
    from blemish.evaluation import compare as comparing

    real = comparing.evaluate

    def spy(*words: Any, out: Path, **options: Any) -> Any:
        evaluated.append(out)
        return real(*words, out=out, **options)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(comparing, "evaluate", spy)
    monkeypatch.setattr("blemish.training.fit.fit", never)
    result = compare(dataset, ["l2-ae", "ssim-ae"], again, seeds=[0, 1], settings=[*tiny, RATE])
    assert evaluated == [again / "ssim-ae-1" / "found"]
    assert [run.evaluation.image for run in result.runs] == [run.evaluation.image for run in compared[0].runs]


def test_reconstructions_without_learning_are_kept_and_follow_the_preprocessing(
    again: Path, dataset: Path, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = compare(dataset, ["l2-ae"], again, settings=[*tiny, RATE]).baselines
    from blemish.evaluation import compare as comparing

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("evaluated again")

    with monkeypatch.context() as patch:
        patch.setattr(comparing, "reconstruction_baselines", never)
        assert compare(dataset, ["l2-ae"], again, settings=[*tiny, RATE]).baselines == before
    own = {"l2-ae": [], "ssim-ae": ["image.size=32"]}
    two = compare(dataset, own, tmp_path / "two", settings=[*tiny, RATE])
    assert [one.recipes for one in two.baselines] == [("l2-ae",), ("ssim-ae",)]
    assert two.baselines[0].rows == before[0].rows != two.baselines[1].rows
    assert two.rows()[2][0] == "flat grey, mse (images as for l2-ae)"


@pytest.mark.parametrize("width", [32, 40])
def test_the_mean_image_is_aligned_where_a_recipe_aligns(
    tiny: list[str], tmp_path: Path, draw: Callable[..., Any], save: Callable[..., Path], width: int
) -> None:
    """Where the images are square, as the recipe's transformer needs them."""
    data = tmp_path / "squares"
    for seed in range(12):
        save(data / "train" / "good" / f"{seed}.png", draw(seed, 32, width))
    save(data / "test" / "good" / "0.png", draw(100, 32, width))
    save(data / "test" / "dot" / "0.png", draw(101, 32, width, dot=True))
    whole = ["image.size=32", "patch.size=32", "patch.stride=32"]
    length = ["training.steps=1", "training.validate_every=1", "alignment.pretraining=1", RATE]
    found = compare(data, ["stn-ae-frozen"], tmp_path / "out", settings=[*tiny, *whole, *length])
    names = [row.name for row in found.baselines[0].rows if row.residual == "mse"]
    assert names == [FLAT, BLURRED, MEAN, *([f"{MEAN}, aligned by stn-ae-frozen"] if width == 32 else [])]


@pytest.mark.parametrize("changed", ["test/dot/0.png", "ground_truth/dot/0_mask.png"])
def test_an_evaluation_of_other_test_images_is_not_used_again(
    again: Path, dataset: Path, tiny: list[str], tmp_path: Path, save: Callable[..., Path], changed: str
) -> None:
    other = Path(shutil.copytree(dataset, tmp_path / "waves"))
    before = compare(other, ["l2-ae"], again, settings=[*tiny, RATE]).runs[0].evaluation
    pixels = np.zeros((40, 48), np.uint8)
    pixels[:9, :9] = 255
    save(other / changed, pixels)
    after = compare(other, ["l2-ae"], again, settings=[*tiny, RATE]).runs[0].evaluation
    assert before.items_sha256 != after.items_sha256
    assert before.pixel != after.pixel


def test_other_settings_and_other_images_are_refused(
    again: Path, dataset: Path, tiny: list[str], tmp_path: Path
) -> None:
    with pytest.raises(
        UsageError, match=r"was fitted with training\.learning_rate 0\.0002, not 0\.1; choose another --out"
    ):
        compare(dataset, ["l2-ae"], again, settings=[*tiny, RATE, "training.learning_rate=0.1"])
    other = Path(shutil.copytree(dataset, tmp_path / "waves"))
    (other / "train" / "good" / "0.png").unlink()
    with pytest.raises(
        UsageError, match="was fitted on other images; choose another --out, or remove that folder"
    ):
        compare(other, ["l2-ae"], again, settings=[*tiny, RATE])


def test_what_cannot_work_is_refused_before_any_fit(dataset: Path, tiny: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RecipeError, match="did you mean 'ssim-ae'"):
        compare(dataset, ["l2-ae", "ssim"], out)
    with pytest.raises(UsageError, match="name at least one"):
        compare(dataset, [], out)
    with pytest.raises(FileError, match="has no folder of good images"):
        compare(dataset / "train", ["l2-ae"], out)
    mine = tmp_path / "mine.yaml"
    mine.write_text(json.dumps(load_recipe("l2-ae").model_dump(mode="json")))
    with pytest.raises(UsageError, match="both have the name 'l2-ae'; rename one"):
        compare(dataset, ["l2-ae", str(mine)], out)
    badly = tmp_path / "badly.yaml"
    badly.write_text(
        json.dumps(
            {**load_recipe("l2-ae").model_dump(mode="json"), "name": "badly", "residual": {"name": "ms-ssim"}}
        )
    )
    with pytest.raises(RecipeError, match=r"badly: MS-SSIM .* needs sides of at least 161 pixels"):
        compare(dataset, ["l2-ae", str(badly)], out, settings=[*tiny, RATE])
    with pytest.raises(RecipeError, match=r"training\.seed"):
        compare(dataset, ["l2-ae"], out, seeds=[0, -1], settings=[*tiny, RATE])
    assert not out.exists()


def test_a_stopped_comparison_goes_on(
    compared: tuple[Comparison, Path],
    dataset: Path,
    tiny: list[str],
    tmp_path: Path,
    recorder: Callable[..., Any],
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        compare(dataset, ["l2-ae"], out, settings=[*tiny, RATE], observer=recorder(27))
    result = compare(dataset, ["l2-ae"], out, settings=[*tiny, RATE])
    assert result.runs[0].evaluation.image == compared[0].runs[0].evaluation.image


def test_a_finished_fit_is_taken_as_it_is_or_refused(
    again: Path, dataset: Path, tiny: list[str], recorder: Callable[..., Any]
) -> None:
    recipe = override(load_recipe("l2-ae"), [*tiny, RATE, "training.seed=1"])
    model, recorded = again / "l2-ae-1" / "model", recorder()
    before = (model / "model.json").read_bytes()
    good = good_images(dataset)
    assert fit_once(good, recipe, model, title="l2", observer=recorded).recipe == recipe
    assert recorded.stages == []
    with pytest.raises(UsageError, match=r"was fitted with training\.steps 6, not 7"):
        fit_once(good, override(recipe, ["training.steps=7"]), model, title="l2", observer=recorded)
    with pytest.raises(UsageError, match="was fitted on other images"):
        fit_once(dataset / "test" / "good", recipe, model, title="l2", observer=recorded)
    assert (model / "model.json").read_bytes() == before


def test_a_stopped_fit_goes_on(
    compared: tuple[Comparison, Path],
    dataset: Path,
    tiny: list[str],
    tmp_path: Path,
    recorder: Callable[..., Any],
) -> None:
    recipe = override(load_recipe("l2-ae"), [*tiny, RATE, "training.seed=0"])
    good, recorded = good_images(dataset), recorder(27)
    with pytest.raises(Stopped):
        fit_once(good, recipe, tmp_path / "model", title="l2, seed 0", observer=recorded)
    assert recorded.stages[0] == "l2, seed 0"
    detector = fit_once(good, recipe, tmp_path / "model", title="", observer=Observer())
    assert detector.file.weights_sha256 == model_file(compared[1], "l2-ae-0")["weights_sha256"]


def test_a_list_of_images_is_fitted_on_as_a_folder_of_them_is(dataset: Path, tmp_path: Path) -> None:
    listed = tmp_path / "waves.csv"
    listed.write_text("path,label\n")
    assert good_images(listed) == listed
    assert good_images(dataset) == dataset / "train" / "good"
