from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blemish.errors import FileError, RecipeError, Stopped, UsageError
from blemish.inspection.detector import load
from blemish.recipes import load_recipe, override
from blemish.training.fit import fit
from blemish.training.runs import train_for

RATE = 0.2
SMALL = "ssim-ae"


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
        with pytest.raises(FileError, match="choose another --out"):
            fit(good, SMALL, settings=tiny, false_reject_rate=RATE, out=out)
    assert read == []


def test_trimming_is_for_detectors() -> None:
    recipe: Any = override(load_recipe("ssim-ae"), ["training.trim=0.1"])
    nothing: Any = None
    rest: dict[str, Any] = dict.fromkeys(("machine", "data", "split", "observer"))
    with pytest.raises(RecipeError, match=r"training\.trim is for detectors; set it to 0"):
        train_for(None, nothing, recipe, nothing, nothing, resume=False, **rest)
