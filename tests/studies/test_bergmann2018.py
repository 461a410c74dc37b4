"""Four autoencoders on textures and the boards of Figure 3, and runs of the smallest length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.errors import FileError, Stopped, UsageError
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from studies import STUDIES, bergmann2018, run_study
from studies.bergmann2018 import RECIPES, RESIDUALS, defective_board, good_board, residuals
from studies.bergmann2018_page import lead
from studies.protocol import Request

pytestmark = pytest.mark.usefixtures("plain_layout")

DRAWINGS = ("draw_examples", "draw_curves", "_draw_figure_3")


def test_boards_are_reproducible_and_differ() -> None:
    np.testing.assert_array_equal(good_board(3), good_board(3))
    assert not np.array_equal(good_board(3), good_board(4))


def test_a_defective_board_is_grey_where_its_mask_says() -> None:
    board, mask = defective_board(0)
    assert 0 < mask.mean() < 0.2
    clean = good_board(10**6)
    assert np.abs(board - clean)[mask].mean() > 10 * np.abs(board - clean)[~mask].mean()
    assert np.abs(board - bergmann2018.GREY)[mask].max() < 0.25


def test_residuals_are_zero_for_a_perfect_reconstruction() -> None:
    board, _ = defective_board(1)
    for name, values in residuals(board, board).items():
        assert values.max() < 1e-5, name


def test_each_residual_answers_to_its_own_kind_of_change() -> None:
    """Brighter: luminance; fainter: contrast; turned around: structure (Bergmann et al. 2018, Figure 2)."""
    board = good_board(0)
    mean = board.mean()
    brighter = residuals(board, board + np.float32(0.3))
    fainter = residuals(board, mean + (board - mean) * np.float32(0.3))
    turned = residuals(board, 2 * mean - board)
    assert brighter["luminance"].mean() > 10 * brighter["structure"].mean()
    assert fainter["contrast"].mean() > 10 * fainter["structure"].mean()
    assert turned["structure"].mean() > 10 * turned["contrast"].mean()
    np.testing.assert_allclose(brighter["L2"], 0.09, rtol=1e-4)


class Stages(Observer):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def stage(self, text: str) -> None:
        self.messages.append(text)


class Stopping(Observer):
    def should_stop(self) -> bool:
        return True


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tiny: list[str], tmp_path: Path) -> list[str]:
    """With which both parts take seconds, on a machine without ImageNet weights."""
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    length = bergmann2018.QUICK._replace(
        settings=(),
        images={"good": 12, "test_good": 2, "per_blemish": 1, "size": 64},
        boards=12,
        board_tests=2,
    )
    monkeypatch.setattr(bergmann2018, "QUICK", length)
    shorter = ["training.steps=2", "training.batch=2", "patch.stride=32", "threshold.false_reject_rate=0.2"]
    return [*tiny, *shorter]


def test_the_study_writes_both_parts_and_uses_finished_fits_again(
    tmp_path: Path, settings: list[str], without_drawings: Callable[..., None]
) -> None:
    first, second = Stages(), Stages()
    out = tmp_path / "results"
    result = run_study("bergmann2018", out, quick=True, seeds=(3,), settings=settings, observer=first)
    without_drawings(bergmann2018, *DRAWINGS)
    again = run_study("bergmann2018", out, quick=True, seeds=(3,), settings=settings, observer=second)
    assert again.figures == result.figures
    assert sum(text.startswith("Training") for text in first.messages) == len(RECIPES) + 1
    assert not any(text.startswith("Training") for text in second.messages)
    with pytest.raises(Stopped, match="while measuring"):
        run_study("bergmann2018", out, quick=True, seeds=(3,), settings=settings, observer=Stopping())

    written = json.loads((out / "bergmann2018-quick.json").read_text(encoding="utf-8"))
    assert written["command"].startswith("blemish study bergmann2018 --quick --seeds 3 --set patch.size=32")
    assert [(row["recipe"], row["seed"], row["steps"]) for row in written["rows"]] == [
        (recipe, 3, 2) for recipe in RECIPES
    ]
    assert [row["residual"] for row in written["figure_3"]] == list(RESIDUALS)
    assert all(0 <= row["auroc"] <= 1 for row in written["figure_3"])
    page = (out / "bergmann2018-quick.md").read_text(encoding="utf-8")
    assert page == result.table
    names = [(row["name"], row["residual"]) for row in written["baselines"]]
    ways = ("flat grey", "blurred by 4 pixels", "mean training image")
    assert names == [(name, residual) for name in ways for residual in ("mse", "ssim")]
    assert f"| flat grey | mse | {written['baselines'][0]['pixel']['auroc']:.3f} |" in page
    assert f"| {written['rows'][1]['pixel']['auroc']:.3f} |" in page
    assert f"| {written['figure_3'][0]['auroc']:.3f} |" in page
    assert "at most 2 steps of batch 2, Adam with a learning rate of 0.0002, constant. The paper: " in page
    assert "our training is shorter, on smaller images and" not in page  # the rate is the paper's
    assert "our training is shorter and on smaller images, as --quick asks." in page
    assert "at most 2 steps of batch 2, Adam with a learning rate of 0.001, falling to 0." in page
    assert {path.name for path in result.files} == {
        f"bergmann2018-quick{ending}" for ending in (".json", ".md", ".png", "-curves.png", "-figure3.png")
    }
    for path in result.files:
        if path.suffix == ".png":
            with Image.open(path) as figure:
                assert figure.width > 500


def test_without_weights_a_gabor_bank_stands_in_and_is_named(
    tmp_path: Path, settings: list[str], dataset: Path, without_drawings: Callable[..., None]
) -> None:
    """On a data set of one's own, of which the files are named, and without the boards of Figure 3."""
    without_drawings(bergmann2018, *DRAWINGS)
    result = run_study("bergmann2018", tmp_path, data=dataset, quick=True, settings=settings)
    assert "| fm-ae (Gabor bank instead of a pretrained CNN) |" in result.table
    losses = {row["recipe"]: row["settings"]["loss"] for row in result.figures["rows"]}
    assert losses["fm-ae"][1]["network"] == "gabor"
    assert result.figures["features"] == "Gabor bank instead of a pretrained CNN"
    assert result.figures["figure_3"] == []
    assert "Figure 3" not in result.table
    assert result.files[0].name == "bergmann2018-waves-quick.json"


def test_boards_fitted_with_other_settings_are_not_taken_for_these(
    tmp_path: Path, settings: list[str]
) -> None:
    one, other = (
        Request("bergmann2018", tmp_path, quick=True, settings=(*settings, f"training.steps={steps}"))
        for steps in (2, 3)
    )
    bergmann2018._figure_3(one, bergmann2018.QUICK, (0,), Observer())
    more = bergmann2018.QUICK._replace(boards=13)
    with pytest.raises(UsageError, match="was fitted on other images"):
        bergmann2018._figure_3(one, more, (0,), Observer())
    with pytest.raises(UsageError, match=r"training\.steps 2, not 3"):
        bergmann2018._figure_3(other, bergmann2018.QUICK, (0,), Observer())


def test_the_full_length_is_the_papers() -> None:
    for name in RECIPES:
        recipe = override(load_recipe(name), list(bergmann2018.FULL.settings))
        assert recipe.training.steps == 200 * 10_000 / recipe.training.batch
        assert (recipe.training.learning_rate, recipe.patch.size) == (2e-4, 128)


def _row(recipe: str, seed: int, auroc: float | None) -> dict[str, Any]:
    return {"recipe": recipe, "seed": seed, "pixel": {"auroc": auroc}}


def test_the_lead_of_ssim_is_reported() -> None:
    ahead = {"l2-ae": 0.6, "vae": 0.5, "fm-ae": 0.7, "ssim-ae": 0.9}
    behind = {"l2-ae": 0.6, "vae": 0.5, "fm-ae": 0.7, "ssim-ae": 0.4}
    rows = [
        _row(recipe, seed, auroc) for seed, one in enumerate((ahead, behind)) for recipe, auroc in one.items()
    ]
    words = lead(rows)
    assert "less that of fm-ae, the best of the others: -0.050" in words
    assert "in 1 of 2 seed(s)" in words
    assert "no pixel figures" in lead([_row(recipe, 0, None) for recipe in RECIPES])
    assert "all four recipes" in lead(rows[:3])


def test_an_unknown_study_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="did you mean 'bergmann2018'"):
        run_study("bergman", Path())
    with pytest.raises(UsageError, match=f"there are {', '.join(STUDIES)}"):
        run_study("xyz", Path())


def test_an_output_folder_that_cannot_be_is_refused_first() -> None:
    with pytest.raises(FileError, match="choose another --out"):
        run_study("bergmann2018", "a" * 300)
