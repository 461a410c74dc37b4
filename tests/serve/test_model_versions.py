"""Versions of a served model: whole or not there, one running, promotion and roll-back by one pointer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from blemish.errors import FileError, ModelError, ServeError
from blemish.inspection.detector import Detector, load
from blemish.serve import model_versions
from blemish.serve.model_versions import ModelVersions, check_model_name


@pytest.fixture
def versions(tmp_path: Path) -> ModelVersions:
    return ModelVersions(tmp_path / "models" / "waves")


@pytest.fixture(scope="module")
def other(exported: tuple[Detector, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported model at another false-reject rate: another document, the same weights."""
    return exported[0].with_false_reject_rate(0.5).save(tmp_path_factory.mktemp("other") / "model")


def test_a_version_is_the_model_that_was_added(
    versions: ModelVersions, exported: tuple[Detector, Path]
) -> None:
    added = versions.add(exported[1], "command line")
    assert (added.number, added.weights_sha256) == (
        1,
        exported[0].file.weights_sha256 or added.weights_sha256,
    )
    assert versions.all() == [added]
    assert versions.running() is None
    assert load(versions.folder_of(1)).threshold == exported[0].threshold
    with pytest.raises(ServeError, match="no version of model waves runs; promote one: there are 1"):
        versions.running_folder()


def test_the_same_model_is_one_version(
    versions: ModelVersions, exported: tuple[Detector, Path], other: Path
) -> None:
    first, second = versions.add(exported[1], "command line"), versions.add(other, "fit 1")
    assert versions.add(exported[1], "fit 2") == first
    assert [version.number for version in versions.all()] == [1, 2]
    assert first.content_sha256 != second.content_sha256
    assert versions.all()[1].origin == "fit 1"


def test_promotion_and_roll_back_outlive_the_process(
    versions: ModelVersions, exported: tuple[Detector, Path], other: Path
) -> None:
    assert versions.adopt(exported[1]).number == 1
    versions.add(other, "fit 1")
    assert versions.promote(2).number == 2
    assert versions.promote(2).number == 2  # again changes nothing

    again = ModelVersions(versions.folder)
    assert again.running() == again.version(2)
    assert again.previous() == again.version(1)
    # The command that started the server is given again, with its model of that time.
    assert again.adopt(exported[1]).number == 2
    assert again.roll_back().number == 1
    assert again.running_folder() == versions.folder_of(1)
    with pytest.raises(ServeError, match="no version of model waves ran before"):
        again.roll_back()


def test_a_new_model_on_the_command_line_runs(
    versions: ModelVersions, exported: tuple[Detector, Path], other: Path
) -> None:
    versions.adopt(exported[1])
    assert versions.adopt(other).number == 2
    assert versions.running() == versions.version(2)


def test_a_version_that_is_not_there_is_named(
    versions: ModelVersions, exported: tuple[Detector, Path]
) -> None:
    with pytest.raises(ServeError, match="model waves has no version 3; there is none"):
        versions.promote(3)
    versions.add(exported[1], "command line")
    with pytest.raises(ServeError, match="no version 3; there are 1"):
        versions.promote(3)
    assert versions.pointer() is None


def test_a_damaged_model_is_refused_and_leaves_nothing(
    versions: ModelVersions, exported: tuple[Detector, Path], tmp_path: Path
) -> None:
    model = Path(shutil.copytree(exported[1], tmp_path / "damaged"))
    graph = next(model.glob("*.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(ModelError, match=f"{graph.name}: is damaged"):
        versions.add(model, "command line")
    (model / "model.json").unlink()
    with pytest.raises(ModelError, match="no finished model"):
        versions.add(model, "command line")
    assert versions.all() == []
    assert list((versions.folder / "versions").iterdir()) == []


def test_a_copy_that_fails_leaves_no_version(
    versions: ModelVersions, exported: tuple[Detector, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Any, target: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_versions.shutil, "copyfile", full)
    with pytest.raises(FileError, match="disk is full"):
        versions.add(exported[1], "command line")
    monkeypatch.undo()
    assert versions.all() == []
    assert versions.add(exported[1], "command line").number == 1


def test_what_a_kill_leaves_is_no_version(versions: ModelVersions, exported: tuple[Detector, Path]) -> None:
    versions.add(exported[1], "command line")
    (versions.folder / "versions" / "2").mkdir()  # without version.json
    assert [version.number for version in versions.all()] == [1]
    with pytest.raises(ServeError, match="no version 2"):
        versions.promote(2)
    (versions.folder / "running.json").write_text('{"number": 1')
    with pytest.raises(FileError, match=r"running\.json: is damaged"):
        versions.running()


def test_a_model_in_torch_is_a_version_too(versions: ModelVersions, fitted: tuple[Detector, Path]) -> None:
    assert versions.add(fitted[1], "command line").number == 1
    assert not (versions.folder_of(1) / "checkpoint").exists()


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "ä", "con", "COM1.x", "end.", "a" * 64])
def test_names_that_paths_do_not_take_are_refused(name: str) -> None:
    with pytest.raises(ServeError, match="no name of a model"):
        check_model_name(name)


@pytest.mark.parametrize("name", ["screw", "Screw-M4_v1.2", "7", "a" * 63, "console"])
def test_usual_names_are_taken(name: str) -> None:
    assert check_model_name(name) == name
