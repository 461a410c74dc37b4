"""Models of format 1, as commit 9a9b874 wrote them: parts by the default recipe, and scenes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blemish.decision import GroupedImages, IndependentImages
from blemish.errors import ModelError
from blemish.inspection.detector import load
from blemish.inspection.document import ModelFile, SceneColumns
from blemish.inspection.upgrade import upgrade_v1
from blemish.storage.training_record import Machine

FORMAT_1 = Path(__file__).parents[1] / "format-1"
# Of the bolt draw_part(302, broken=True), whose crop lies inside its image, by that commit.
SCORE, THRESHOLD, PIXEL_THRESHOLD, MAP_SUM = (
    37.188161762431335,
    4.13374971040371,
    5.615522384643555,
    23503.984440335127,
)


def content(kind: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((FORMAT_1 / kind / "model.json").read_text(encoding="utf-8"))
    return found


def test_a_model_of_format_1_decides_as_before(draw_part: Callable[..., np.ndarray]) -> None:
    detector = load(FORMAT_1 / "parts")
    assert (detector.threshold, detector.pixel_threshold) == (THRESHOLD, PIXEL_THRESHOLD)
    found = detector.inspect(draw_part(302, broken=True))
    # Sums of convolutions depend on the processor in their last bits.
    assert found.score == pytest.approx(SCORE, rel=1e-5)
    assert found.map.sum(dtype=np.float64) == pytest.approx(MAP_SUM, rel=1e-5)
    assert (found.p_value, found.is_anomalous) == (1 / 6, True)


def test_facts_of_format_1_become_structured() -> None:
    file = load(FORMAT_1 / "parts").file
    assert file.format == 2
    assert file.training.machine == Machine(
        device="cpu",
        processor="CPU",
        threads=1,
        cores=2,
        precision="float32",
        native_bfloat16=True,
        torch="2.13.0+cpu",
    )
    (look,) = file.training.history
    assert look.step == 2
    assert set(look.terms) == {"mse", "segmentation-focal", "segmentation-dice"}
    assert file.recipe.image.size == 96
    assert sum(one.is_chosen for one in file.candidates) == 1
    assert file.calibration is not None
    assert file.calibration.unit == IndependentImages()
    assert len(file.calibration.map_maxima) == len(file.split["calibration"]) == 5


def test_groups_of_format_1_weaken_the_promise() -> None:
    old = content("parts")
    old["calibration"] = {**old["calibration"], "groups": 3}  # type: ignore[dict-item]
    file = ModelFile.model_validate({**upgrade_v1(old), "stored_format": 1})
    assert file.calibration is not None
    assert file.calibration.unit == GroupedImages(groups=3)


def test_scenes_of_format_1_have_columns_and_no_calibration() -> None:
    file = ModelFile.model_validate(upgrade_v1(content("scenes")))
    assert file.calibration is None
    assert file.decision is None
    assert file.split["calibration"] == (
        SceneColumns(scene="adam", start=192, stop=256),
        SceneColumns(scene="eve", start=192, stop=256),
    )
    with pytest.raises(ModelError, match=r"scenes: was calibrated by Blemish 0\.1\.0 .* blemish calibrate"):
        load(FORMAT_1 / "scenes")


def test_a_model_of_format_1_is_saved_in_the_newest(
    tmp_path: Path, draw_part: Callable[..., np.ndarray]
) -> None:
    before = load(FORMAT_1 / "parts")
    before.save(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "model.json").read_text())["format"] == 2
    after = load(tmp_path / "new")
    image = draw_part(301)
    np.testing.assert_array_equal(after.inspect(image).map, before.inspect(image).map)
    assert after.file.calibration == before.file.calibration


def test_an_edit_of_format_1_is_noticed(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FORMAT_1 / "parts", tmp_path / "model"))
    text = (folder / "model.json").read_text().replace("0.2", "0.3", 1)
    (folder / "model.json").write_text(text)
    with pytest.raises(ModelError, match="was edited after it was written"):
        load(folder)
