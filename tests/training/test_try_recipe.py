from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blemish.errors import RecipeError
from blemish.recipes import load_recipe
from blemish.training.fit import fit
from blemish.training.try_recipe import check_recipe


def test_trying_the_parts_leaves_the_random_state_unchanged() -> None:
    before = torch.random.get_rng_state()
    check_recipe(load_recipe("ssim-ae"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_train_mean_threshold_of_a_memory_bank_is_refused(bolts: Path, quick: list[str]) -> None:
    with pytest.raises(RecipeError, match="train-mean scores the training images, which its memory") as error:
        fit(bolts, settings=[*quick, "threshold.rule=train-mean"])
    assert "\n" not in str(error.value)
