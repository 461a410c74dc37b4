from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blemish.data.open_scenes import open_scenes
from blemish.errors import RecipeError
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from blemish.training.fit import fit
from blemish.training.partition import PARTS
from blemish.training.scene_source import SceneSource

Painting = Callable[..., Path]


@pytest.mark.parametrize("setting", ["training.trim=0.1", "threshold.trim=0.1"])
def test_trimming_is_for_images(tmp_path: Path, setting: str) -> None:
    (tmp_path / "modalities.yaml").write_text("")
    with pytest.raises(RecipeError, match=f"{setting.replace('=', ' ')} is for images, not for scenes"):
        fit(tmp_path, settings=[setting])


def test_the_whole_of_a_part_is_its_columns_of_each_scene(painting: Painting, tmp_path: Path) -> None:
    for seed, name in enumerate(["adam", "eve"]):
        painting(tmp_path / name, seed)
    (tmp_path / "eve" / "xray.tif").unlink()
    recipe = override(load_recipe("fp-cae-add"), ["threshold.false_reject_rate=0.3"])
    source = SceneSource(tmp_path, recipe, Observer())
    scenes = open_scenes(tmp_path, patch=recipe.patch.size, observer=Observer()).readers
    for number, scene in enumerate(scenes):
        pixels = scene.read(0, 0, scene.height, scene.width)
        images = [source.whole(part).images[number] for part in PARTS]
        np.testing.assert_array_equal(np.concatenate(images, axis=2), pixels)
    whole = source.whole("train")
    assert (len(whole.images), list(whole.groups)) == (2, ["adam", "eve"])
    assert np.isnan(whole.images[1]).any()
