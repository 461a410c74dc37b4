"""The checkerboard study: its boards, its residuals, and a run of the smallest length."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.errors import FileError, Stopped, UsageError
from blemish.observer import Observer
from blemish.studies import STUDIES, bergmann2018, run_study
from blemish.studies.bergmann2018 import RESIDUALS, Length, defective_board, good_board, residuals


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


def test_the_study_writes_its_figures_and_uses_finished_fits_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bergmann2018, "QUICK", Length(boards=40, steps=2, tests=2, seeds=(0,)))

    class Stages(Observer):
        said: list[str]

        def __init__(self) -> None:
            self.said = []
            self.counts: list[tuple[int, int]] = []

        def stage(self, text: str) -> None:
            self.said.append(text)

        def count(self, done: int, total: int) -> None:
            self.counts.append((done, total))

    class Stopping(Observer):
        def should_stop(self) -> bool:
            return True

    first, second = Stages(), Stages()
    result = run_study("bergmann2018", tmp_path, quick=True, observer=first)
    assert run_study("bergmann2018", tmp_path, quick=True, observer=second).figures == result.figures
    assert any(text.startswith("Training") for text in first.said)
    assert not any(text.startswith("Training") for text in second.said)
    assert second.counts == [(1, 2), (2, 2)]
    with pytest.raises(Stopped, match="while measuring"):
        run_study("bergmann2018", tmp_path, quick=True, observer=Stopping())

    written = json.loads((tmp_path / "bergmann2018-quick.json").read_text(encoding="utf-8"))
    assert written["command"] == "blemish study bergmann2018 --quick"
    assert {(row["autoencoder"], row["residual"]) for row in written["rows"]} == {
        ("l2-ae", residual) for residual in RESIDUALS
    }
    assert all(0 <= row["auroc"] <= 1 for row in written["rows"])
    table = (tmp_path / "bergmann2018-quick.md").read_text(encoding="utf-8")
    assert table == result.table
    assert f"{written['rows'][0]['auroc']:.3f}" in table
    with Image.open(tmp_path / "bergmann2018-quick.png") as figure:
        assert figure.width > 1000


def test_an_unknown_study_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="did you mean 'bergmann2018'"):
        run_study("bergman", Path())
    with pytest.raises(UsageError, match=f"there are {', '.join(STUDIES)}"):
        run_study("xyz", Path())


def test_an_output_folder_that_cannot_be_is_refused_first() -> None:
    with pytest.raises(FileError, match="choose another --out"):
        run_study("bergmann2018", "a" * 300)
