from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from blemish.data.maps import write_image
from blemish.data.modality import Modality
from blemish.data.scene_description import MODALITIES_FILE
from blemish.data.scenes import find_scenes, holds_scenes, scene_files
from blemish.errors import FileError, ImageError


def image(path: Path, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.full((channels, 8, 8), 0.5))
    return path


def describe(folder: Path, *modalities: dict[str, Any], **keys: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODALITIES_FILE
    path.write_text(yaml.safe_dump({"modalities": list(modalities), **keys}), encoding="utf-8")
    return path


VISIBLE = {"name": "visible", "file": "rgb.png"}
XRAY = {"name": "x-ray", "file": "x.png"}


@pytest.fixture
def paintings(tmp_path: Path) -> Path:
    """Two paintings, of which the second lacks its X-ray."""
    for name in ("adam", "eve"):
        image(tmp_path / name / "rgb.png", 3)
    image(tmp_path / "adam" / "x.png")
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_a_yaml_describes_the_scenes_of_a_folder(paintings: Path) -> None:
    path = describe(
        paintings,
        {**VISIBLE, "grey": False},
        {**XRAY, "range": [0, 4095], "no_data": 0, "channels": 1},
        grid="visible",
    )
    expected = (
        Modality(name="visible", channels=3, grey=False, file="rgb.png", grid=True),
        Modality(name="x-ray", channels=1, file="x.png", range=(0, 4095), no_data=0),
    )
    for source in (paintings, path):
        adam, eve = find_scenes(source)
        assert (adam.name, adam.folder, adam.modalities) == ("adam", paintings / "adam", expected)
        assert (eve.name, eve.folder, eve.modalities) == ("eve", paintings / "eve", expected)
    assert scene_files(eve) == {"visible": [paintings / "eve" / "rgb.png"], "x-ray": []}
    assert holds_scenes(paintings)
    assert holds_scenes(path)


def test_a_yaml_beside_the_files_describes_one_scene(paintings: Path, tmp_path: Path) -> None:
    describe(paintings / "adam", VISIBLE, XRAY)
    (scene,) = find_scenes(paintings / "adam")
    assert (scene.name, [modality.channels for modality in scene.modalities]) == ("adam", [3, 1])


def test_the_root_may_be_elsewhere(paintings: Path) -> None:
    path = describe(paintings / "notes", VISIBLE, XRAY, root="..")
    assert [scene.folder.resolve() for scene in find_scenes(path)] == [
        (paintings / name).resolve() for name in ("adam", "eve")
    ]


def test_without_a_yaml_each_image_is_a_modality(paintings: Path) -> None:
    for band in ("b10.png", "b9.png"):
        image(paintings / "eve" / band)
    image(paintings / "adam" / "b9.tif")
    adam, eve = find_scenes(paintings)
    assert [modality.name for modality in adam.modalities] == ["b9", "b10", "rgb", "x"]
    assert [modality.channels for modality in eve.modalities] == [1, 1, 3, 1]
    assert (adam.modalities[0].file, eve.modalities[0].file) == ("b9.tif", "b9.png")
    assert scene_files(adam)["b10"] == []
    assert holds_scenes(paintings)
    (itself,) = find_scenes(paintings / "adam")
    assert (itself.name, len(itself.modalities)) == ("adam", 3)


def test_holds_scenes_recognises_folders_of_modalities(tmp_path: Path) -> None:
    for name in "abc":
        image(tmp_path / "flat" / f"{name}.png")
        image(tmp_path / "single" / name / "rgb.png")
    assert not holds_scenes(tmp_path / "flat")  # images, each for itself
    assert not holds_scenes(tmp_path / "single")
    assert not holds_scenes(tmp_path / "flat" / "a.png")
    assert not holds_scenes(tmp_path / "nowhere")
    image(tmp_path / "flat" / "rgb.png", 3)
    assert holds_scenes(tmp_path / "flat")
    for number in range(65):
        (tmp_path / "many" / "good").mkdir(parents=True, exist_ok=True)
        (tmp_path / "many" / "good" / f"{number}.png").touch()
    assert not holds_scenes(tmp_path / "many")


def test_a_file_that_a_pattern_gives_to_a_second_modality(tmp_path: Path) -> None:
    image(tmp_path / "x_0.png")
    image(tmp_path / "x_1.png")
    (tmp_path / MODALITIES_FILE).write_text(
        "modalities: [{name: a, file: 'x_{column}.png'}, {name: b, file: x_1.png}]"
    )
    with pytest.raises(FileError, match=r"gives x_1\.png to both 'a' and 'b'; give each"):
        find_scenes(tmp_path)


@pytest.mark.parametrize("name", [" rgb.png", f"{'r' * 101}.png", "rgb_{row.png", "rgb_{}.png"])
def test_an_image_whose_name_no_modality_can_have(tmp_path: Path, name: str) -> None:
    image(tmp_path / "x.png")
    image(tmp_path / name)
    with pytest.raises(ImageError, match=r"has a name that no modality can have; rename it"):
        find_scenes(tmp_path)


def test_folders_that_hold_no_scene(tmp_path: Path) -> None:
    for name in ("one", "empty"):
        (tmp_path / name).mkdir()
    image(tmp_path / "one" / "a" / "rgb.png")
    two = tmp_path / "two" / "a"
    image(two / "rgb.png")
    image(two / "rgb.tif")
    image(tmp_path / "both" / "rgb.png")
    image(tmp_path / "both" / "ir.png")
    image(tmp_path / "both" / "masks" / "cracks.png")
    own = tmp_path / "own" / "a"
    image(own / "x.png")
    describe(own, VISIBLE)
    for source, message in {
        "one": "holds 1 image, each of them a modality",
        "empty": "holds no scene",
        "both": "holds images, and so does masks in it",
        "two": "rgb.tif: would be the same modality as rgb.png",
        "own": f"has a {MODALITIES_FILE} of its own",
        "gone": "does not exist",
        "one/a/rgb.png": "is one file, not a scene",
    }.items():
        with pytest.raises(FileError, match=message):
            find_scenes(tmp_path / source)


def test_a_model_asks_for_its_own_modalities(paintings: Path) -> None:
    model = (
        Modality(name="visible", channels=3, file="rgb.png", depth="uint8"),
        Modality(name="x", channels=1, file="scan/xray.tif", range=(0, 9)),
        Modality(name="uv", channels=3, file="uv.png"),
    )
    image(paintings / "adam" / "other.png")
    adam, eve = find_scenes(paintings, model)
    assert [modality.name for modality in adam.modalities] == ["visible", "x", "uv"]
    assert adam.modalities[1] == model[1].model_copy(update={"file": "x.png"})  # found by its stem
    assert adam.notices == ("other.png: not used, the model does not know it",)
    assert scene_files(eve) == {"visible": [paintings / "eve" / "rgb.png"], "x": [], "uv": []}
    with pytest.raises(FileError, match="holds none of the modalities uv"):
        find_scenes(paintings, model[2:])


def test_a_yaml_and_a_model_must_agree(paintings: Path) -> None:
    model = (Modality(name="visible", channels=3), Modality(name="uv", channels=3))
    describe(paintings, {**VISIBLE, "range": [0, 200]}, XRAY)
    adam, _ = find_scenes(paintings, model)
    visible, uv = adam.modalities
    assert (visible.file, visible.range, uv.file) == ("rgb.png", (0, 200), "")
    assert adam.notices == (
        "x-ray: not used, the model does not know it",
        "visible: scaled by 0 to 200 here, by the file's full range where the model was fitted",
    )
    describe(paintings, {**VISIBLE, "channels": 1})
    with pytest.raises(FileError, match="gives 'visible' 1 channel, the model was fitted on 3 channels"):
        find_scenes(paintings, model)
    describe(paintings, XRAY)
    with pytest.raises(FileError, match="names none of the model's modalities"):
        find_scenes(paintings, model)
