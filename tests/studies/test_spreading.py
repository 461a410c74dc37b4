"""Fits of a comparison spread over a cluster: the same figures as one after the other, and errors in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from blemish.errors import UsageError
from blemish.observer import Observer
from studies import run_study
from studies.protocol import comparison
from studies.spreading import APART, fit_one, is_spread, spread_over

ROOT = Path(__file__).parents[2]
RECIPES = {"ssim-ae": ("encoder.latent=8",), "l2-ae": ()}

CODE = """
import json, sys
from pathlib import Path
from blemish.observer import Observer
from studies.protocol import comparison
from studies.spreading import spread_over
data, work, recipes, settings = json.loads(sys.argv[1])
with spread_over("local", 2):
    found = comparison(Path(work), Path(data), recipes, [0], settings, Observer())
print(json.dumps([[run.recipe, run.seed, run.evaluation.image["all"].figures["auroc"].value] for run in found.runs]))
"""


@pytest.mark.long
def test_a_spread_comparison_has_the_figures_of_one_in_order(
    dataset: Path, tiny: list[str], tmp_path: Path
) -> None:
    settings = [*tiny, "threshold.false_reject_rate=0.2"]
    words = json.dumps([str(dataset), str(tmp_path / "spread"), RECIPES, settings])
    ran = subprocess.run(
        [sys.executable, "-c", CODE, words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = comparison(tmp_path / "alone", dataset, RECIPES, [0], settings, Observer())
    expected = [
        [run.recipe, run.seed, run.evaluation.image["all"].figures["auroc"].value] for run in found.runs
    ]
    assert json.loads(ran.stdout) == expected
    for name in ("ssim-ae-0", "l2-ae-0"):
        weights = [tmp_path / where / name / "model" / "model.safetensors" for where in ("alone", "spread")]
        assert weights[0].read_bytes() == weights[1].read_bytes()
        assert not (tmp_path / "spread" / APART / name / name).exists()


def test_an_unfinished_fit_moves_apart_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ssim-ae-0" / "model").mkdir(parents=True)
    (tmp_path / "ssim-ae-0" / "model" / "checkpoint").touch()

    def compare(data: Path, recipes: object, out: Path, **options: object) -> None:
        assert (out / "ssim-ae-0" / "model" / "checkpoint").exists(), "goes on from its checkpoint"
        (out / "ssim-ae-0" / "done").touch()

    monkeypatch.setattr("studies.spreading.compare", compare)
    fit_one(Path("data"), tmp_path, "ssim-ae", (), 0, ())
    assert (tmp_path / "ssim-ae-0" / "done").exists()


def test_what_cannot_be_spread_is_refused(tmp_path: Path) -> None:
    assert not is_spread()
    with spread_over(None):
        assert not is_spread()
    with pytest.raises(UsageError, match="a folder that all workers see"), spread_over("ray://host:1"):
        pass
    with pytest.raises(UsageError, match="the fits of radli2022 are not spread"):
        run_study("radli2022", tmp_path, on="local")
