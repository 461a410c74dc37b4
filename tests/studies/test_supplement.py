"""Supplements of results: what is added, what stays, and results that cannot be supplemented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blemish.errors import UsageError
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from studies import supplement

pytestmark = pytest.mark.usefixtures("few_resamples")
DROPPED = {"version", "name", "title", "paper", "needs", "expect"}


def textures(**changes: Any) -> dict[str, Any]:
    """A result of Bergmann et al. 2018 as version 0.1.0 wrote it, of very few images."""
    recipe = override(load_recipe("l2-ae"), ["patch.size=32", "patch.stride=32"])
    figures = {
        "dataset": "generated",
        "quick": True,
        "seeds": [0],
        "settings": [],
        "machine": "CPU, 1 of 2 cores",
        "features": "VGG16 with ImageNet weights",
        "length": {
            "images": {"family": "weave", "good": 3, "test_good": 2, "per_blemish": 1, "size": 64},
            "figure 3": ["training.learning_rate=1e-3"],
            "board_steps": 7,
        },
        "rows": [{"recipe": "l2-ae", "settings": recipe.model_dump(mode="json", exclude=DROPPED)}],
        "figure_3": [{"residual": "L2"}],
    }
    return figures | changes


def test_a_result_of_generated_images_gets_the_rows_without_a_network(tmp_path: Path) -> None:
    before = textures()
    after = supplement.supplement(tmp_path / "bergmann2018.json", before, None, Observer())
    assert {key: after[key] for key in before} == before
    assert [(row["name"], row["residual"]) for row in after["baselines"]] == [
        (name, residual)
        for name in ("flat grey", "blurred by 4 pixels", "mean training image")
        for residual in ("mse", "ssim")
    ]
    assert after["figure_3_settings"][0]["training"]["steps"] == 7
    assert after["supplement"]["command"] == "python -m studies.supplement studies/results/bergmann2018.json"
    assert after["supplement"]["added"] == ["baselines", "figure_3_settings"]


def test_a_result_of_another_data_set_is_refused(tmp_path: Path) -> None:
    figures = textures(dataset="mvtec_screw")
    for data in (None, tmp_path / "tiles"):
        with pytest.raises(UsageError, match="is of the data set mvtec_screw; give its folder with --data"):
            supplement.supplement(tmp_path / "kumar2025-mvtec_screw.json", figures, data, Observer())


def test_a_page_is_only_made_of_a_study_that_makes_it_from_its_figures() -> None:
    assert supplement.study_of(Path("radli2022-mvtec_screw.json")) == "radli2022"
    assert supplement.study_of(Path("jpeg-kodak.json")) is None
    with pytest.raises(UsageError, match="is no result of"):
        supplement.page_of(Path("jpeg-kodak.json"), {})
