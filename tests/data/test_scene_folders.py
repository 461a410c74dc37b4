from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blemish.data.maps import write_image
from blemish.data.scene_folders import names_sensors, unused_lines
from blemish.data.scenes import find_scenes, looks_like_scenes


def write(folder: Path, **channels: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in channels.items():
        write_image(folder / f"{name}.png", np.full((count, 8, 8), 0.5))
    return folder


def test_every_data_file_that_is_not_used_is_named(tmp_path: Path) -> None:
    scene = write(tmp_path / "eve", visible=3, infrared=1)
    for name in ("raking.psb", "notes.txt", "stack.h5", "stack.nc"):
        (scene / name).write_text("x")
    expected = (
        "raking.psb: not used, files of this kind are not read; export it as TIFF",
        "stack.h5: not used, no modality of this scene names it",
        "stack.nc: not used, files of this kind are not read; export it as TIFF",
    )
    assert find_scenes(tmp_path)[0].notices == expected
    (tmp_path / "modalities.yaml").write_text("modalities: [{name: v, file: visible.png}]\n")
    assert find_scenes(tmp_path)[0].notices == (
        "infrared.png: not used, no modality of this scene names it",
        *expected,
    )
    (modality,) = find_scenes(tmp_path)[0].modalities
    assert find_scenes(scene, [modality.model_copy(update={"name": "visible"})])[0].notices == (
        "infrared.png: not used, the model does not know it",
        *expected,
    )


def test_used_files_are_not_named(tmp_path: Path) -> None:
    scene = write(tmp_path / "eve", visible=3)
    assert list(unused_lines(scene, [scene / "visible.png"])) == []


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"rgb": 3, "band_560nm": 1}, {"rgb": 3, "band_560nm": 1}, True),
        ({"band_560nm": 1, "band_580nm": 1}, {"band_560nm": 1, "band_580nm": 1}, True),
        ({"front": 3, "depth": 1}, {"front": 3, "depth": 1}, True),
        ({"a_560nm": 1, "a_580nm": 1}, {"b_560nm": 1, "b_580nm": 1}, True),
        ({"001": 1, "002": 1}, {"001": 1, "002": 1}, False),
        ({"screw": 3, "ring": 3}, {"screw": 3, "ring": 3}, False),
        ({"visible": 3, "infrared": 1}, {"left": 3, "right": 1}, False),
    ],
)
def test_a_folder_looks_like_scenes_by_names_and_kinds(
    tmp_path: Path, first: dict[str, int], second: dict[str, int], expected: bool
) -> None:
    write(tmp_path / "a", **first)
    write(tmp_path / "b", **second)
    assert looks_like_scenes(tmp_path) is expected


def test_words_for_sensors_are_words() -> None:
    assert names_sensors(["painting_ir", "painting_uv", "x-ray"])
    assert not names_sensors(["bird", "universe", "mirror"])
