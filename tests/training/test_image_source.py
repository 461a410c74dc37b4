from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from blemish.errors import Stopped
from blemish.inspection.detector import Detector
from blemish.training import image_source, patches
from blemish.training.fit import fit

RATE = 0.2
SMALL = "ssim-ae"


def test_grey_and_colour_together_when_channels_are_set(
    good: Path, tmp_path: Path, tiny: list[str], draw: Callable[..., np.ndarray], save: Callable[..., Path]
) -> None:
    images = Path(shutil.copytree(good, tmp_path / "good"))
    colour = np.stack([draw(50), draw(51), draw(52)], axis=-1)
    save(images / "colour.png", colour)
    detector = fit(images, SMALL, settings=[*tiny, "image.channels=3"], false_reject_rate=RATE)
    assert detector.file.fingerprint.count == 25
    assert detector.inspect(images / "colour.png").image.shape == (3, 40, 48)
    assert detector.inspect(images / "0.png").reconstruction.shape == (3, 40, 48)


def test_images_are_resized_when_size_is_set(good: Path, tiny: list[str]) -> None:
    detector = fit(good, SMALL, settings=[*tiny, "image.size=32"], false_reject_rate=RATE)
    found = detector.inspect(good / "0.png")
    assert found.map.shape == (40, 48)
    names = detector.file.split["calibration"]
    assert [detector.inspect(good / name).score for name in names] == list(detector.file.calibration.scores)


def test_the_crop_is_announced_and_on_the_card(
    posed: tuple[Detector, Path], good: Path, quick: list[str], recorder: type
) -> None:
    detector, folder = posed
    crop = detector.file.preprocessing.crop
    assert crop is not None
    sentence = (
        "Looking at one object on a plain ground, each turned into one pose, "
        f"in {crop.width} × {crop.height} pixels at a scale of 1."
    )
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert sentence in card
    assert 32 <= crop.height <= 48
    assert 64 <= crop.width <= 80
    recorded = recorder()
    whole = fit(good, settings=quick, false_reject_rate=RATE, observer=recorded)
    assert whole.file.preprocessing.crop is None
    assert [stage for stage in recorded.stages if stage.startswith("Looking at whole images: ")]
    assert "Looking at whole images: " in whole.card()
    assert "Filling the memory bank from 19 images" in recorded.stages


def test_a_thin_object_is_given_a_crop_that_tiles_fit(
    tmp_path: Path, quick: list[str], save: Callable[..., Path]
) -> None:
    for seed in range(24):
        needle = np.full((96, 103), 200, np.uint8)
        needle[40 + seed % 9 : 44 + seed % 9, 20:80] = 60
        needle[38 + seed % 9 : 46 + seed % 9, 20:28] = 60
        save(tmp_path / f"{seed}.png", needle)
    settings = [*quick, "patch.size=64", "patch.stride=64"]
    detector = fit(tmp_path, settings=settings, false_reject_rate=RATE)
    assert detector.file.preprocessing.crop is not None
    assert detector.file.preprocessing.crop.height == 32
    assert detector.inspect(tmp_path / "0.png").map.shape == (96, 103)


def test_images_that_do_not_fit_in_memory_are_prepared_once_and_give_the_same_model(
    posed: tuple[Detector, Path],
    bolts: Path,
    quick: list[str],
    read: list[Path],
    recorder: type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        image_source, "PreprocessedImages", partial(patches.PreprocessedImages, memory_limit=0)
    )
    recorded = recorder()
    file = fit(bolts, settings=quick, false_reject_rate=RATE, observer=recorded).file
    assert file.weights_sha256 == posed[0].file.weights_sha256
    assert file.calibration == posed[0].file.calibration
    opened = Counter(path.name for path in read)
    # To be checked, to be prepared and, of those that train, to see what they show.
    assert {opened[name] for name in file.split["train"]} == {3}
    assert {opened[name] for name in file.split["validation"]} == {2}
    assert any(sentence.startswith("Preparing 17 images of train") for sentence in recorded.stages)

    class Stopping(recorder):  # type: ignore[misc]
        def should_stop(self) -> bool:
            return any(line.startswith("Preparing") for line in self.stages)

    with pytest.raises(Stopped, match="stopped after preparing 1 of 17 images, before training"):
        fit(bolts, settings=quick, false_reject_rate=RATE, observer=Stopping())


@pytest.fixture
def trays(tmp_path: Path, draw_part: Callable[..., np.ndarray], save: Callable[..., Path]) -> Path:
    """Folder of trays, 192 × 206 pixels, of three or four bolts that lie anyhow each."""
    ground = np.full_like(draw_part(0), np.median(draw_part(0)[0]))
    for seed in range(24):
        parts = [draw_part(100 + 4 * seed + number) for number in range(4)]
        if seed % 3 == 0:
            parts[seed % 4] = ground
        save(tmp_path / "trays" / f"{seed}.png", np.block([parts[:2], parts[2:]]))
    return tmp_path / "trays"


def test_each_of_several_objects_is_inspected_in_its_own_pose(
    trays: Path, quick: list[str], draw_part: Callable[..., np.ndarray], recorder: type
) -> None:
    recorded = recorder()
    detector = fit(trays, settings=quick, false_reject_rate=RATE, observer=recorded)
    crop, scale = detector.file.preprocessing.crop, detector.file.preprocessing.scale
    assert crop is not None
    assert scale is not None
    # Finer than a whole tray of 96 pixels a side would be, so that the bolts together have as many pixels.
    assert scale > 1.2 * 96 / 192
    assert 0.6 < crop.shape[0] * crop.shape[1] / 96**2 < 1.3
    assert any(
        sentence.startswith(
            "Looking at up to 4 objects on a plain ground, each turned into one pose, each in "
        )
        for sentence in recorded.stages
    )
    names = detector.file.split["calibration"]
    found = [detector.inspect(trays / name) for name in names]
    assert [one.score for one in found] == list(detector.file.calibration.scores)
    assert {one.map.shape for one in found} == {(192, 206)}
    parts = np.concatenate([draw_part(1), draw_part(2)], axis=1)
    two = np.concatenate([parts, np.full_like(parts, np.median(parts[0]))])
    assert "2 objects are found, in good images 3 to 4" in str(detector.inspect(two).other_kind)
