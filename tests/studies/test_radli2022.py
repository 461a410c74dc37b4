"""The cloth and its defects, the pose measure, the published tables, and runs of the smallest length."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from blemish.data.layouts import read_labelled
from blemish.errors import FileError, Stopped, UsageError
from blemish.inspection.detector import Detector, load
from blemish.observer import Observer
from blemish.training.fit import fit
from studies import StudyResult, radli2022, radli2022_figures, radli2022_measures, run_study
from studies.radli2022_cloth import CLOTH_DEFECTS, draw_cloth
from studies.radli2022_columns import COLUMNS, CURVES, PRETRAINED, PRINTED, PUBLISHED, RESIDUALS
from studies.radli2022_measures import dataset_tests, pose, residuals

pytestmark = pytest.mark.usefixtures("plain_layout")

RATE = "threshold.false_reject_rate=0.2"


def test_cloths_are_reproducible_whole_grey_levels_and_differ() -> None:
    one, again, other = draw_cloth(3, 64), draw_cloth(3, 64), draw_cloth(4, 64)
    np.testing.assert_array_equal(one.image, again.image)
    assert not np.array_equal(one.image, other.image)
    assert one.angle != other.angle
    assert not one.mask.any()
    np.testing.assert_allclose(one.image * 255, np.rint(one.image * 255), atol=1e-4)


def test_the_angle_is_that_at_which_the_ribs_lie() -> None:
    for seed in range(8):
        cloth = draw_cloth(seed, 64)
        g_y, g_x = np.gradient(cloth.image.astype(float))
        # twice the direction of steepest change, as a mean vector; the ribs lie across it
        twice = np.arctan2((2 * g_x * g_y).sum(), (g_x**2 - g_y**2).sum())
        lying = -(twice / 2 - math.pi / 2)  # y points down, angles go counter-clockwise
        off = (lying - cloth.angle + math.pi / 2) % math.pi - math.pi / 2
        assert abs(off) < math.radians(4)


@pytest.mark.parametrize("defect", CLOTH_DEFECTS)
def test_a_defect_changes_the_cloth_where_its_mask_says(defect: str) -> None:
    for seed in range(5):
        clean, flawed = draw_cloth(seed, 64), draw_cloth(seed, 64, defect=defect)
        change = np.abs(flawed.image - clean.image)
        assert 0.0005 < flawed.mask.mean() < 0.15
        assert change[flawed.mask].mean() > 10 * change[~flawed.mask].mean()
        assert change[flawed.mask].mean() > 8 / 255


def test_published_figures_are_four_a_row_and_the_papers_best_ones() -> None:
    for published in PUBLISHED.values():
        rows = [
            published.mse,
            published.ssim,
            *(areas[key] for areas in published.areas.values() for key in CURVES),
        ]
        assert {len(row) for row in rows} == {PRINTED}
    columns = list(COLUMNS)
    screw = PUBLISHED["screw"]
    best = [
        np.argmin(screw.mse),
        np.argmax(screw.ssim),
        *(np.argmax(screw.areas[name]["auroc"]) for name in RESIDUALS),
    ]
    assert {columns[place] for place in best} == {"frozen"}  # bold in Tables 5 and 8


def test_residuals_are_zero_for_a_perfect_reconstruction_and_square_errors() -> None:
    x = draw_cloth(0, 64).image[None, None]
    assert all(values.max() < 1e-5 for values in residuals(x, x).values())
    np.testing.assert_allclose(residuals(x, x + np.float32(0.1))["MSE"], 0.01, rtol=1e-4)


@pytest.fixture(scope="module")
def cloths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return radli2022._write_cloths(tmp_path_factory.mktemp("cloths"), 12, 64, Observer())


@pytest.fixture(scope="module")
def unaligned(cloths: Path) -> Detector:
    small = ["patch.size=64", "patch.stride=64", "training.steps=1", "training.batch=2", RATE]
    return fit(cloths, "stn-ae-unaligned", settings=small)


def test_the_pose_of_images_that_lie_alike_has_no_spread(unaligned: Detector) -> None:
    images = np.zeros((4, 1, 64, 64), np.float32)
    alike = pose(unaligned, images, np.array([0.3, 0.3, 0.3 + math.pi, 0.3 - math.pi], np.float32))
    assert alike.spread < 0.1
    assert alike.misses == 0
    np.testing.assert_allclose(alike.poses, 0, atol=1e-3)
    anyhow = pose(unaligned, images, np.linspace(0, math.pi, 5, dtype=np.float32)[:-1])
    assert anyhow.spread > 80
    apart = np.radians(np.array([-10, 10, -10, 10], np.float32))
    assert pose(unaligned, images, apart).spread == pytest.approx(10, abs=0.3)
    assert pose(unaligned, images, np.radians(np.array([0, 0, 0, 40], np.float32))).misses == 0.25


def test_without_known_angles_the_least_gradient_loss_stands_in(unaligned: Detector) -> None:
    # not all around the circle, where a mean pose means little
    drawn = [one for one in (draw_cloth(seed, 64) for seed in range(40)) if abs(math.sin(one.angle)) < 0.5]
    images = np.stack([one.image[None] for one in drawn])
    angles = np.array([one.angle for one in drawn], np.float32)
    measured, true = pose(unaligned, images, None), pose(unaligned, images, angles)
    assert 10 < true.spread < 30
    np.testing.assert_allclose(measured.poses, true.poses, atol=3)
    assert measured.unturned == 0  # nothing is turned, so nothing is left unturned for a reason


def test_patches_of_a_data_set_tile_its_test_images(dataset: Path, unaligned: Detector) -> None:
    tests = dataset_tests(_for(unaligned, dataset), dataset, None)
    assert tests.good.shape[1:] == tests.bad.shape[1:]
    assert tests.masks.shape == (len(tests.bad), *tests.bad.shape[2:])
    assert tests.masks.any()
    assert tests.angles is None
    with pytest.raises(FileError, match="no bad test images"):
        dataset_tests(_for(unaligned, dataset), dataset, "no such defect")


def _for(detector: Detector, dataset: Path) -> Detector:
    """The same network, as if it had been fitted on images like those of ``dataset``."""
    from blemish.data.datasets import find_images
    from blemish.data.image import read_image

    image = read_image(find_images(dataset / "train" / "good")[0].path)
    kept = detector.file.preprocessing.model_copy(update={"channels": image.channels, "kind": image.kind})
    return Detector(detector.model, detector.file.model_copy(update={"preprocessing": kept}))


class Stages(Observer):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def stage(self, text: str) -> None:
        self.messages.append(text)


class Stopping(Observer):
    def should_stop(self) -> bool:
        return True


@pytest.fixture(scope="module")
def settings(tiny: list[str]) -> Iterator[list[str]]:
    """With which both parts take seconds."""
    length = radli2022.QUICK._replace(
        settings=(), pretraining=1, cloth_settings=(), cloth_pretraining=1, cloth_good=12, cloth_tests=4
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(radli2022, "QUICK", length)
        for module in (radli2022_figures, radli2022_measures):
            patch.setattr(module, "CURVE_ANGLES", 19)
        yield [*tiny, "training.steps=1", "training.batch=4", RATE]


@pytest.fixture(scope="module")
def finished(
    dataset: Path, settings: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[StudyResult, Path]:
    """A run of both parts and where it lies; not to be changed."""
    out = tmp_path_factory.mktemp("radli2022")
    return run_study("radli2022", out, data=dataset, quick=True, settings=settings), out


def test_a_run_writes_both_parts_and_goes_on_where_it_was(
    dataset: Path,
    settings: list[str],
    finished: tuple[StudyResult, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result, out = finished
    assert all(path.exists() for path in result.files)
    stem = f"radli2022-{dataset.name}-quick"
    # Images of the data set itself are not among what may be passed on.
    written = {f"{stem}{ending}" for ending in (".json", ".md", "-curves.png")}
    written |= {f"{stem}-cloth{ending}" for ending in (".png", "-curves.png", "-alignment.png")}
    kept = {f"{stem}-work/{stem}{ending}" for ending in (".png", "-alignment.png")}
    assert {path.relative_to(out).as_posix() for path in result.files} == written | kept
    figures = json.loads((out / f"{stem}.json").read_text())
    assert [(row["part"], row["column"]) for row in figures["rows"]] == [
        (part, column) for part in ("dataset", "cloth") for column in COLUMNS
    ]
    for row in figures["rows"]:
        assert row["mse"] > 0
        assert row["ssim"] <= 1
        assert {0 <= row["areas"][name][key] <= 1 for name in RESIDUALS for key in CURVES} == {True}
    assert [claim["part"] for claim in figures["claims"]] == ["dataset", "cloth"]
    assert "| SSIM |" in result.table
    trained = "Patches of 32 × 32 pixels, at most 1 steps of batch 4, transformers after 1 of their own, "
    assert f"Ours: {trained}" in result.table
    assert "our training is shorter and on smaller images, as --quick asks." in result.table
    assert "Not in the paper. Patches of 64 × 64 pixels, " in result.table
    assert "The paper also turns its training patches at random" in result.table

    monkeypatch.setattr(radli2022, "draw", lambda *arguments: [])
    again = Stages()
    same = run_study("radli2022", out, data=dataset, quick=True, settings=settings, observer=again)
    assert not [text for text in again.messages if text.startswith("Training")]
    assert [row["mse"] for row in same.figures["rows"]] == [row["mse"] for row in result.figures["rows"]]
    other = [*settings, "encoder.latent=7", "decoder.name=bergmann"]
    with pytest.raises(UsageError, match="was fitted with encoder"):
        run_study("radli2022", out, data=dataset, quick=True, settings=other)


def test_a_list_of_images_is_a_data_set_too(
    dataset: Path,
    settings: list[str],
    finished: tuple[StudyResult, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = tmp_path / "screw.csv"
    rows = [
        f"{item.path},{item.label},{'|'.join(map(str, item.masks))},{item.split}"
        for item in read_labelled(dataset).items
    ]
    listed.write_text("\n".join(["path,label,mask,split", *rows]))
    monkeypatch.setattr(radli2022, "draw", lambda *arguments: [])
    work = tmp_path / "out" / "radli2022-screw.csv-quick-work"
    before = finished[1] / f"radli2022-{dataset.name}-quick-work"
    shutil.copytree(before, work, ignore=shutil.ignore_patterns("dataset"))  # the fits of the cloth
    result = run_study("radli2022", tmp_path / "out", data=listed, quick=True, settings=settings)
    assert {row["part"] for row in result.figures["rows"]} == {"dataset", "cloth"}
    fitted = load(work / "dataset" / "plain-0")
    trained = [item for item in read_labelled(dataset).items if item.split == "train"]
    assert sum(map(len, fitted.file.split.values())) == len(trained)


def test_pretraining_can_be_set_for_the_columns_that_have_it(
    dataset: Path,
    settings: list[str],
    finished: tuple[StudyResult, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other columns take no notice of it: their finished fits are used again."""
    monkeypatch.setattr(radli2022, "draw", lambda *arguments: [])
    before, work = finished[1] / f"radli2022-{dataset.name}-quick-work", tmp_path / "radli2022-quick-work"
    shutil.copytree(before, work)
    for column in PRETRAINED:
        shutil.rmtree(work / "cloth" / f"{column}-0")
    settings = [*settings, "alignment.pretraining=2"]
    run_study("radli2022", tmp_path, quick=True, settings=settings)
    found = {}
    for column in COLUMNS:
        alignment = load(tmp_path / "radli2022-quick-work" / "cloth" / f"{column}-0").recipe.alignment
        assert alignment is not None
        found[column] = alignment.settings.get("pretraining", 0)
    assert found == {"plain": 0, "frozen": 2, "joint": 0, "finetuned": 2, "joint-direction": 0}


def test_a_study_stops_on_request(settings: list[str], tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run_study("radli2022", tmp_path, quick=True, settings=settings, observer=Stopping())
