from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import blemish
from blemish.data.maps import write_image
from blemish.errors import FileError, UsageError
from blemish.observer import Observer
from blemish.recipes import load_recipe, override
from blemish.training.defects import read_defects
from blemish.training.image_source import ImageSource

RATE = 0.2


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four good images of noise, and bad ones with a dark line or a bright square."""
    root = tmp_path_factory.mktemp("surfaces")
    rng = np.random.default_rng(0)

    def draw(path: Path, change: Callable[[np.ndarray], None] = lambda x: None) -> None:
        x = (0.5 + 0.05 * rng.standard_normal((1, 64, 64))).clip(0, 1).astype(np.float32)
        change(x)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, x)

    def line(x: np.ndarray) -> None:
        x[0, 20:50, 30:32] = 0.2

    def square(x: np.ndarray) -> None:
        x[0, 20:30, 30:40] += 0.3

    for number in range(24):
        draw(root / "good" / f"{number:02d}.png")
    for number in range(3):
        draw(root / "bad" / "line" / f"{number}.png", line)
        draw(root / "bad" / "square" / f"{number}.png", square)
    return root


SETTINGS = ["image.size=null", "image.pose=never", "memory=null", f"threshold.false_reject_rate={RATE}"]


def source(root: Path) -> ImageSource:
    recipe = override(load_recipe("filter-bank"), SETTINGS)
    return ImageSource(root / "good", recipe, Observer(), None)


def test_test_images_of_a_list_do_not_choose(surfaces: Path, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(surfaces / "bad", tmp_path / "bad"))
    rows = [f"line/{number}.png,line,{'test' if number else 'train'}" for number in range(3)]
    (bad / "labels.csv").write_text("\n".join(["path,label,split", *rows, "square/0.png,square,train"]))
    found = read_defects(bad / "labels.csv", source(surfaces), Observer())
    assert sorted(map(str, found.groups)) == ["line", "square"]
    (bad / "labels.csv").write_text(
        "\n".join(["path,label,split", *(row.replace("train", "test") for row in rows)])
    )
    assert len(read_defects(bad / "labels.csv", source(surfaces), Observer()).images) == 3


def test_the_folder_is_the_group_and_copies_count_once(surfaces: Path, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(surfaces / "bad", tmp_path / "bad"))
    shutil.copy(bad / "line" / "0.png", bad / "line" / "again.png")
    found = read_defects(bad, source(surfaces), Observer())
    assert found.groups == ["line"] * 3 + ["square"] * 3
    assert found.images[0].shape == (1, 64, 64)


def test_a_defect_among_the_good_images_is_named(surfaces: Path, tmp_path: Path) -> None:
    shutil.copy(surfaces / "good" / "03.png", tmp_path / "odd.png")
    with pytest.raises(FileError, match=r"odd\.png: is among the good images, too"):
        read_defects(tmp_path, source(surfaces), Observer())


def test_a_damaged_defect_is_reported_and_the_others_are_used(surfaces: Path, tmp_path: Path) -> None:
    class Problems(Observer):
        def __init__(self) -> None:
            self.found: list[str] = []

        def problem(self, error: Exception) -> None:
            self.found.append(str(error))

    observer = Problems()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(FileError, match="holds no image with a defect that can be used"):
        read_defects(tmp_path, source(surfaces), observer)
    (found,) = observer.found
    assert "broken.png" in found
    shutil.copy(surfaces / "bad" / "line" / "1.png", tmp_path)
    assert len(read_defects(tmp_path, source(surfaces), observer).images) == 1


def test_defects_neither_train_nor_calibrate(surfaces: Path, quick: list[str]) -> None:
    """The same fit with and without them: the members may differ, the images of the decision do not."""
    settings = [*quick, "image.pose=never", f"threshold.false_reject_rate={RATE}"]
    fits: list[Any] = [
        blemish.fit(surfaces / "good", settings=settings, defects=defects)
        for defects in (None, surfaces / "bad")
    ]
    assert fits[0].file.split == fits[1].file.split
    assert fits[0].file.fingerprint == fits[1].file.fingerprint
    assert len(fits[0].decision.calibration.scores) == len(fits[1].decision.calibration.scores)
    (note,) = [note for note in fits[1].file.training.notes if "onfirmed defects (6)" in note]
    assert note in fits[1].card()
    if note.startswith("All models stay"):
        assert fits[0].decision == fits[1].decision


def test_other_combinations_refuse_defects_before_reading(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ssim-ae: confirmed defects choose among models combined by"):
        blemish.fit(tmp_path, "ssim-ae", defects=tmp_path)


def test_of_many_defects_some_are_taken_evenly_and_it_is_said(
    surfaces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stages(Observer):
        def __init__(self) -> None:
            self.stages: list[str] = []

        def stage(self, text: str) -> None:
            self.stages.append(text)

    observer = Stages()
    monkeypatch.setattr("blemish.training.defects.MOST", 3)
    found = read_defects(surfaces / "bad", source(surfaces), observer)
    assert found.groups == ["line", "line", "square"]
    assert "Of 6 confirmed defects 3 are compared, evenly over the list" in observer.stages


def test_one_model_alone_has_nothing_to_choose_from(surfaces: Path) -> None:
    detector = blemish.fit(surfaces / "good", "filter-bank", settings=SETTINGS, defects=surfaces / "bad")
    assert any("nothing to choose from" in note for note in detector.file.training.notes)
