from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.inspection.features import read_features

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, painting: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    painting(folder / "virgin", 0, height=64, width=80)
    painting(folder / "donor", 1, height=64, width=80)
    return folder


@pytest.fixture(scope="module")
def scenes_model(
    scenes: Path, make_detector: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder: Path = make_detector(scenes).save(tmp_path_factory.mktemp("fitted") / "model")
    return folder


def test_inspect_and_its_report(blemish: Run, scenes: Path, scenes_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    ran = blemish("inspect", scenes_model, scenes, "--out", out, "--hide", "infrared", "--json")
    assert ran.code == 0
    records = json.loads(ran.out)
    assert [record["path"] for record in records] == ["donor", "virgin"]
    assert records[0]["modalities"][0]["state"] == "hidden"
    assert (out / "report.html").exists()
    again = blemish("inspect", scenes_model, scenes, "--out", out, "--hide", "infrared", "--resume")
    assert again.code == 0
    assert "2 scenes inspected" in again.out
    assert str(out / "report.html") in again.out
    assert not (out / "maps" / "virgin.zarr" / "reconstruction").exists()
    whole = blemish("inspect", scenes_model, scenes, "--out", out, "--reconstruction", "--overwrite")
    assert whole.code == 0
    assert (out / "maps" / "virgin.zarr" / "reconstruction").exists()


def test_a_failed_scene_gives_exit_code_1(
    blemish: Run, scenes: Path, scenes_model: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(scenes, tmp_path / "in"))
    (source / "donor" / "rgb.png").write_bytes(b"no image")
    ran = blemish("inspect", scenes_model, source, "--out", tmp_path / "found")
    assert ran.code == 1
    assert [str(source / "donor" / "rgb.png") in line for line in ran.skipped] == [True]
    assert "1 file was skipped" in ran.error


def test_an_unknown_modality_is_refused(
    blemish: Run, scenes: Path, scenes_model: Path, tmp_path: Path
) -> None:
    ran = blemish("inspect", scenes_model, scenes, "--out", tmp_path / "found", "--hide", "infrarde")
    assert ran.code == 2
    assert "did you mean 'infrared'" in ran.error


def test_options_for_scenes_are_refused_for_images(
    blemish: Run, model: Path, good: Path, tmp_path: Path
) -> None:
    for option in (["--hide", "rgb"], ["--reconstruction"]):
        ran = blemish("inspect", model, good, "--out", tmp_path / "found", *option)
        assert (ran.code, "are for scenes" in ran.error) == (2, True)
    assert not (tmp_path / "found").exists()


def test_features_of_scenes_and_of_images(
    blemish: Run, scenes: Path, scenes_model: Path, model: Path, good: Path, tmp_path: Path
) -> None:
    ran = blemish("features", scenes_model, scenes, "--out", tmp_path / "a", "--json")
    assert ran.code == 0
    assert [one["shape"] for one in json.loads(ran.out)] == [[80, 7, 9], [80, 7, 9]]
    assert np.isfinite(read_features(tmp_path / "a" / "donor.zarr").at(10, 10)).all()
    ran = blemish("features", model, good / "0.png", "--out", tmp_path / "b")
    assert ran.code == 0
    assert "0.png: 8 features for each of" in ran.out
    again = blemish("features", model, good / "0.png", "--out", tmp_path / "b")
    assert (again.code, "--resume" in again.error) == (2, True)


def test_the_help_has_an_example(blemish: Run) -> None:
    ran = blemish("features", "--help")
    assert ran.code == 0
    assert "Example: blemish features" in ran.out
    assert "--json" in ran.out
