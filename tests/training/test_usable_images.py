from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blemish.errors import FileError
from blemish.training.fit import fit

RATE = 0.2
SMALL = "ssim-ae"
Draw = Callable[..., np.ndarray]
Save = Callable[..., Path]


def test_test_and_defective_images_are_never_opened(
    good: Path, tmp_path: Path, tiny: list[str], read: list[Path]
) -> None:
    names = sorted(path.name for path in good.iterdir())
    shutil.copytree(good, tmp_path / "all")
    rows = [f"all/{name},good,train" for name in names[:16]]
    rows += [f"all/{name},good,test" for name in names[16:20]]
    rows += [f"all/{name},dot,test" for name in names[20:22]]
    rows += [f"all/{name},dot,train" for name in names[22:]]
    listed = tmp_path / "list.csv"
    listed.write_text("path,label,split\n" + "\n".join(rows))
    detector = fit(listed, SMALL, settings=tiny, false_reject_rate=0.3)
    assert {path.name for path in read} == set(names[:16])
    assert detector.file.fingerprint.count == 16


def test_the_root_of_a_data_set_is_refused(dataset: Path, tiny: list[str]) -> None:
    with pytest.raises(FileError, match="name one part"):
        fit(dataset, SMALL, settings=tiny, false_reject_rate=RATE)


def test_images_that_do_not_fit_are_named_and_left_out(
    good: Path,
    tmp_path: Path,
    tiny: list[str],
    draw: Callable[..., np.ndarray],
    save: Callable[..., Path],
    recorder: type,
) -> None:
    images = Path(shutil.copytree(good, tmp_path / "good"))
    (images / "empty.png").write_bytes(b"")
    save(images / "colour.png", np.stack([draw(1)] * 3, axis=-1))
    save(images / "deep.png", draw(1).astype(np.uint16) * 256)
    save(images / "small.png", draw(1, 15, 60))
    recorded = recorder()
    detector = fit(images, SMALL, settings=tiny, false_reject_rate=RATE, observer=recorded)
    problems = {problem.path.name: str(problem) for problem in recorded.problems}
    assert sorted(problems) == ["colour.png", "deep.png", "empty.png", "small.png"]
    assert all(";" in problem and "\n" not in problem for problem in problems.values())
    assert "image.size=32" in problems["small.png"]
    assert detector.file.fingerprint.count == 24


def test_a_folder_without_usable_images_is_refused(
    tmp_path: Path, tiny: list[str], save: Callable[..., Path]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="holds no image"):
        fit(tmp_path / "empty", SMALL, settings=tiny)
    save(tmp_path / "small" / "a.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(FileError, match="no good image that can be used"):
        fit(tmp_path / "small", SMALL, settings=tiny)


def test_all_images_keep_one_scale_and_one_far_too_small_for_it_is_left_out(
    good: Path, tmp_path: Path, quick: list[str], draw: Draw, save: Save, recorder: type
) -> None:
    images = Path(shutil.copytree(good, tmp_path / "good"))
    save(images / "small.png", draw(1, 10, 60))
    save(images / "large.png", draw(2, 100, 120))
    recorded = recorder()
    settings = [*quick, "image.size=60"]  # the others have 40
    detector = fit(images, settings=settings, false_reject_rate=RATE, observer=recorded)
    assert detector.file.preprocessing.scale == 1.5
    assert detector.file.preprocessing.scaled(100, 120) == (150, 180)
    (problem,) = recorded.problems
    assert str(problem).startswith(f"{images / 'small.png'}: is 60 × 10 pixels")
    assert str(problem).endswith("leave it out, or fit with --set image.scale=each")
    assert detector.file.fingerprint.count == 25
    each = fit(images, settings=[*settings, "image.scale=each"], false_reject_rate=RATE)
    assert each.file.fingerprint.count == 26
