"""Every recipe: fitted on images, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blemish.inspection.detector import load
from blemish.recipes import load_recipe, recipe_names
from blemish.training import trainer as loop
from blemish.training.fit import fit

pytestmark = pytest.mark.usefixtures("narrow_backbones")


def settings_of(name: str) -> list[str]:
    """Settings for two steps on small patches without pretrained weights."""
    recipe = load_recipe(name)
    # Batch normalisation needs more than one location in the features of a single patch.
    patch = 64 if recipe.encoder is not None and recipe.encoder.name == "resnet50" else 32
    settings = [
        f"image.size={patch}",
        f"patch.size={patch}",
        f"patch.stride={patch}",
        "training.batch=2",
        "training.budget=null",
        "training.steps=2",
        "training.validate_every=2",
        "training.device=cpu",
        "training.precision=float32",
    ]
    if recipe.threshold.rule == "conformal":
        settings.append("threshold.false_reject_rate=0.2")
    if recipe.alignment is not None and recipe.alignment.settings.get("pretraining"):
        settings.append("alignment.pretraining=2")
    if "weights" in recipe.needs:
        settings += ["encoder.weights=none"] * (recipe.encoder.name in ("vgg16", "resnet50"))
        settings += [
            f"loss.{index}.network=gabor"
            for index, term in enumerate(recipe.loss)
            if "network" in term.settings
        ]
    return settings


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_fits_inspects_and_is_loaded_from_disk(
    name: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "VALIDATION_PATCHES", 4)
    images = tmp_path / "good"
    images.mkdir()
    for path in sorted(good.iterdir())[:10]:
        (images / path.name).symlink_to(path)
    fitted = fit(images, name, settings=settings_of(name), out=tmp_path / "model")
    image = sorted(good.iterdir())[10]  # not one that a memory bank may contain
    found = fitted.inspect(image)
    assert np.isfinite(found.score)
    assert np.isfinite(found.threshold)
    assert found.map.shape == (40, 48)
    assert found.map.max() > 0
    again = load(tmp_path / "model").inspect(image)
    assert again.score == found.score
    assert again.threshold == found.threshold
    assert np.array_equal(again.map, found.map)
    if load_recipe(name).threshold.rule == "train-mean":
        names = fitted.file.split["train"]
        assert found.threshold == np.mean([fitted.inspect(images / each).score for each in names])
