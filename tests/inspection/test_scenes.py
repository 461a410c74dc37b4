from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from numpy.typing import NDArray

from blemish.data.open_scenes import open_scenes
from blemish.data.scene_reader import SceneReader
from blemish.data.scenes import find_scenes
from blemish.decision import benjamini_hochberg, image_score, p_values, read_records
from blemish.detectors.reconstruction import ReconstructionModel
from blemish.errors import FileError, ImageError, Stopped, UsageError
from blemish.inspection import scene_decision, scene_scorer
from blemish.inspection.detector import Detector
from blemish.inspection.scene_records import SceneRecord
from blemish.inspection.scene_scorer import SceneScorer
from blemish.inspection.scenes import SceneInspection, inspect_scenes
from blemish.models import modal_residuals
from blemish.observer import Observer
from blemish.preprocessing.tiling import Blender, TilePlan
from blemish.similarity import ssim_map
from blemish.storage.blocks import blocks

Make = Callable[..., Detector]
Painting = Callable[..., Path]
HEIGHT, WIDTH = 102, 150  # blocks of 64: two by three, the last ones cut
NAMES = ("infrared", "rgb", "xray")
STRIDE = "patch.stride=24"


SIZES = {"SMALLEST_BLOCK": 64, "TILES_A_SIDE": 1, "OVERVIEW_SIDE": 100}


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, size in SIZES.items():
            patch.setattr(scene_scorer, name, size)
        yield


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, painting: Painting) -> Path:
    """Two scenes; the infrared of the second covers only a part of it."""
    folder = tmp_path_factory.mktemp("scenes")
    for seed, name in enumerate(("virgin", "donor")):
        painting(folder / name, seed, height=HEIGHT, width=WIDTH)
    return folder


@pytest.fixture(scope="module")
def detector(scenes: Path, make_detector: Make) -> Detector:
    return make_detector(scenes, "fp-cae-add", STRIDE)


@pytest.fixture(scope="module")
def inspected(
    scenes: Path, detector: Detector, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SceneInspection, Path]:
    """An inspection of the scenes that nothing disturbed, not to be changed."""
    out = tmp_path_factory.mktemp("inspected")
    return inspect_scenes(detector, scenes, out, reconstruction=True), out


def with_hole(scenes: Path, folder: Path) -> Path:
    """A copy of the first scene, of which no sensor saw the middle and the infrared not the left either."""
    copied = Path(shutil.copytree(scenes / "virgin", folder / "virgin"))
    (folder / "modalities.yaml").write_text(
        "modalities:\n"
        "  - {name: infrared, file: infrared.tif, no_data: 7}\n"
        "  - {name: rgb, file: rgb.tif, no_data: 7}\n"
        "  - {name: xray, file: xray.tif, no_data: 7}\n"
    )
    for name in ("infrared", "rgb", "xray"):
        path = copied / f"{name}.tif"
        if name == "rgb":
            from PIL import Image

            pixels = np.asarray(Image.open(copied / "rgb.png")).copy()
            (copied / "rgb.png").unlink()
        else:
            pixels = tifffile.imread(path)
        step = 2 if name == "xray" else 1
        pixels[40 // step : 80 // step, 60 // step : 120 // step] = 7
        if name == "infrared":
            pixels[:, :20] = 7
        tifffile.imwrite(path, pixels)
    return folder


def whole(detector: Detector, reader: SceneReader) -> dict[str, NDArray[np.float32]]:
    """The maps of a scene that is read, cut and blended as one."""
    x = reader.read(0, 0, reader.height, reader.width)
    patch, stride = detector.recipe.patch.size, detector.recipe.patch.stride
    plan = TilePlan(x.shape[1:], (patch, patch), (stride, stride))
    modalities = len(reader.modalities)
    blended = Blender(plan, 1 + len(x) + 2 * modalities)
    with torch.inference_mode():
        for where, tiles in plan.tiles(x, batch=7):
            tensor = torch.from_numpy(tiles)
            examined = detector.autoencoder.examine(tensor)
            found = modal_residuals(detector.autoencoder, tensor)
            values = [examined.map, examined.reconstruction, found.own, found.crossed]
            blended.add(where, torch.cat(values, 1).numpy())
    residual, reconstruction, own, cross = np.split(
        blended.result(), [1, 1 + len(x), 1 + len(x) + modalities]
    )
    nowhere = ~np.isfinite(x).any(0)
    return {
        "residual": np.where(nowhere, np.nan, residual[0]),
        "reconstruction": reconstruction.clip(0, 1),
        "own": own,
        "cross": cross,
    }


def maps(folder: Path, scene: str = "virgin") -> dict[str, NDArray[np.float32]]:
    group = folder / "maps" / f"{scene}.zarr"
    names = sorted(path.name for path in group.iterdir() if path.is_dir())
    return {name: zarr.open_array(str(group / name), mode="r")[...].astype(np.float32) for name in names}


def same_records(one: SceneInspection, other: SceneInspection, count: int = 2) -> bool:
    mine, others = (
        [record.model_dump(exclude={"time", "seconds"}) for record in inspection.records[:count]]
        for inspection in (one, other)
    )
    return mine == others


# -- the maps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["fp-cae-add", "fp-cae-concat", "fp-cae"])
@pytest.mark.parametrize("hole", [False, True])
def test_stitched_blocks_equal_one_run_over_the_whole_scene(
    scenes: Path, make_detector: Make, tmp_path: Path, recipe: str, hole: bool
) -> None:
    source = with_hole(scenes, tmp_path) if hole else scenes
    detector = make_detector(source, recipe, STRIDE)
    with SceneReader(find_scenes(source, detector.file.preprocessing.modalities)[-1]) as reader:
        scorer = SceneScorer(detector, reader, 32)
        assert scorer.block_side == 64
        expected = whole(detector, reader)
        stitched = {name: np.full_like(values, np.inf) for name, values in expected.items()}
        for found in scorer.blocks(blocks((reader.height, reader.width), 64)):
            for name, values in stitched.items():
                part = found.anomaly if name == "residual" else getattr(found, name)
                values[..., found.block.rows, found.block.columns] = part
    for name, values in expected.items():
        np.testing.assert_allclose(stitched[name], values, atol=1e-5, err_msg=name)
    assert np.isnan(expected["residual"]).any() == hole


def test_written_maps_equal_the_measured_maps(
    scenes: Path, detector: Detector, inspected: tuple[SceneInspection, Path]
) -> None:
    written = maps(inspected[1])
    with SceneReader(find_scenes(scenes)[-1]) as reader:
        expected = whole(detector, reader)
        image = reader.read(0, 0, reader.height, reader.width)
    for name, values in expected.items():
        np.testing.assert_allclose(written[name], values, rtol=2**-11, atol=1e-4, err_msg=name)
    assert written["overview_picture"].shape == (5, 51, 75)
    np.testing.assert_allclose(
        written["overview_picture"][:, 3, 4], image[:, 6:8, 8:10].mean((1, 2)), rtol=1e-3
    )
    np.testing.assert_allclose(
        written["overview_residual"][3, 4], expected["residual"][6:8, 8:10].max(), rtol=1e-3
    )


def test_pixels_without_any_modality_have_no_map_value(
    scenes: Path, make_detector: Make, tmp_path: Path
) -> None:
    source = with_hole(scenes, tmp_path / "in")
    detector = make_detector(source)
    done = inspect_scenes(detector, source, tmp_path / "out")
    written = maps(tmp_path / "out")
    middle, left = (..., slice(42, 78), slice(62, 118)), (..., slice(None), slice(0, 18))
    assert np.isnan(written["residual"][middle]).all()
    assert np.isfinite(written["residual"][left]).all()
    own = dict(zip(NAMES, written["own"], strict=True))
    assert np.isnan(own["infrared"][left]).all()
    assert np.isfinite(own["rgb"][left]).all()
    with_nothing_hidden = done.records[0]
    assert 0 < with_nothing_hidden.squares < -(-HEIGHT // 32) * -(-WIDTH // 32)


def test_what_is_not_judged_has_no_map_value_and_changes_no_other(
    scenes: Path, detector: Detector, inspected: tuple[SceneInspection, Path], tmp_path: Path
) -> None:
    source = Path(shutil.copytree(scenes, tmp_path / "in"))
    left = np.arange(WIDTH)[None].repeat(HEIGHT, 0) < 70
    tifffile.imwrite(source / "virgin" / "exclude.tif", left.astype(np.uint8))
    out = tmp_path / "out"
    done = inspect_scenes(detector, source, out)
    before, after = maps(inspected[1]), maps(out)
    for name in ("residual", "own", "cross"):
        assert np.isnan(after[name][..., :70]).all()
        np.testing.assert_array_equal(after[name][..., 70:], before[name][..., 70:])
    record, whole_record = done.records[-1], inspected[0].records[-1]
    assert record.squares == 3 * 3 < whole_record.squares
    assert any("exclude.tif: 53 % of the scene is judged" in notice for notice in record.notices)
    assert done.records[0].squares == whole_record.squares


def test_memory_and_work_do_not_depend_on_the_size_of_the_scene() -> None:
    # What is read for a block in the middle is the block and one tile around it, whatever surrounds it.
    for size in ((2_000, 2_000), (20_000, 20_000)):
        plan = TilePlan(size, (32, 32), (16, 16))
        rows, columns = plan.around(slice(512, 1024), slice(512, 1024))
        assert (rows, columns) == (slice(496, 1040), slice(496, 1040))
        tiles = len(TilePlan((544, 544), (32, 32), (16, 16)))
        assert tiles <= 1.1 * (512 / 16) ** 2


# -- the record ----------------------------------------------------------------------------------------


def test_a_record_agrees_with_the_maps(
    scenes: Path, detector: Detector, inspected: tuple[SceneInspection, Path]
) -> None:
    done, out = inspected
    assert [record.path for record in done.records] == ["donor", "virgin"]
    record = done.records[1]
    with SceneReader(find_scenes(scenes)[-1]) as reader:
        expected = whole(detector, reader)
    rule, residual = detector.recipe.score, expected["residual"]
    scores = {
        (x, y): image_score(residual[y : y + 32, x : x + 32], kind=rule.name, sigma=rule.sigma)
        for y in range(0, 96, 32)  # what is left below is less than half a square
        for x in range(0, 150, 32)  # on the right it is more
    }
    assert record.squares == len(scores)
    best = max(scores, key=lambda place: scores[place])
    assert (record.strongest[0].x, record.strongest[0].y) == best
    assert record.score == pytest.approx(scores[best], abs=1e-5)
    assert record.above == sum(score > detector.threshold for score in scores.values())
    p = p_values(np.array(detector.file.calibration.scores), np.array(list(scores.values())))
    ordered = np.sort(p)
    assert record.p_value == pytest.approx(min(len(p) * ordered / np.arange(1, len(p) + 1)))
    assert record.called == benjamini_hochberg(p, detector.rule.false_reject_rate).sum()
    assert record.is_anomalous == (record.p_value <= detector.rule.false_reject_rate) == (record.called > 0)
    for modality, own, cross in zip(record.modalities, expected["own"], expected["cross"], strict=True):
        assert modality.state == "present"
        assert modality.similarity == pytest.approx(1 - own.mean(), abs=1e-5)
        assert modality.from_others == pytest.approx(1 - cross.mean(), abs=1e-5)
    for region in record.regions:
        inside = residual[region.y : region.y + region.height, region.x : region.x + region.width]
        assert region.peak == pytest.approx(inside.max(), rel=1e-3)
        assert region.peak > detector.pixel_threshold
        assert region.x + region.width <= WIDTH
        assert region.y + region.height <= HEIGHT
    assert read_records(out / "inspections.jsonl")[1].score == record.score


def test_only_the_strongest_of_many_regions_are_recorded(
    scenes: Path,
    detector: Detector,
    inspected: tuple[SceneInspection, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everything = inspected[0].records[1].regions
    assert len(everything) > 5
    monkeypatch.setattr(scene_decision, "MOST_REGIONS", 5)
    done = inspect_scenes(detector, scenes / "virgin", tmp_path)
    peaks = [region.peak for region in done.records[0].regions]
    assert peaks == [region.peak for region in everything[:5]]


def test_a_threshold_set_by_hand_decides_alone(scenes: Path, detector: Detector, tmp_path: Path) -> None:
    for threshold, anomalous in ((0.0, True), (9.0, False)):
        source, out = scenes / "virgin", tmp_path / str(threshold)
        done = inspect_scenes(detector.with_threshold(threshold), source, out)
        assert all(record.is_anomalous is anomalous for record in done.records)


def test_a_hidden_modality_is_reconstructed_from_the_others(
    scenes: Path, detector: Detector, inspected: tuple[SceneInspection, Path], tmp_path: Path
) -> None:
    done = inspect_scenes(detector, scenes / "virgin", tmp_path, hide=["infrared"])
    hidden, plain = done.records[0].modalities[0], inspected[0].records[1].modalities[0]
    assert (hidden.name, hidden.state, hidden.similarity) == ("infrared", "hidden", None)
    # With one modality hidden, its reconstruction is the one that the others always make of it.
    assert hidden.from_others == pytest.approx(plain.from_others, abs=1e-6)
    np.testing.assert_allclose(maps(tmp_path)["cross"][0], maps(inspected[1])["cross"][0], atol=1e-3)
    with SceneReader(find_scenes(scenes)[-1]) as reader:
        x = torch.from_numpy(reader.read(32, 32, 32, 32))[None]
    blind = x.clone()
    blind[:, 0] = torch.nan
    made = detector.autoencoder(blind).reconstruction
    distance = 1 - ssim_map(x[:, :1], made[:, :1], data_range=1.0, window=detector.autoencoder.measure.window)
    found = modal_residuals(detector.autoencoder, x).crossed[:, :1]
    torch.testing.assert_close(found, distance.clamp_min(0), atol=1e-5, rtol=0)
    assert "infrared was hidden" in (tmp_path / "report.html").read_text()


def test_a_missing_modality_is_reported(scenes: Path, detector: Detector, tmp_path: Path) -> None:
    source = Path(shutil.copytree(scenes, tmp_path / "in"))
    (source / "virgin" / "infrared.tif").unlink()
    done = inspect_scenes(detector, source, tmp_path / "out")
    missing = done.records[1].modalities[0]
    assert (missing.state, missing.similarity, missing.from_others) == ("missing", None, None)
    assert any("infrared" in notice for notice in done.records[1].notices)
    assert done.records[0].modalities[0].state == "present"
    written = maps(tmp_path / "out")
    assert np.isnan(written["own"][0]).all()
    assert np.isfinite(written["overview_reconstruction"]).all()
    assert np.isfinite(written["residual"]).all()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "infrared is missing: reconstructed from the others" in page
    overviews = {path.name for path in (tmp_path / "out" / "overviews" / "virgin").iterdir()}
    assert "reconstruction-infrared.png" in overviews
    assert not overviews & {"picture-infrared.png", "own-infrared.png", "cross-infrared.png"}


def test_without_the_grids_own_sensor_the_maps_have_the_models_scale(
    painting: Painting, make_detector: Make, tmp_path: Path
) -> None:
    painting(tmp_path / "in" / "eve")
    model = open_scenes(tmp_path / "in", patch=32, observer=Observer()).modalities
    detector = make_detector(tmp_path / "in", "fp-cae-add", STRIDE)
    preprocessing = detector.file.preprocessing.model_copy(update={"modalities": model})
    detector = detector.with_file(detector.file.model_copy(update={"preprocessing": preprocessing}))
    for name in ("infrared.tif", "rgb.png"):
        (tmp_path / "in" / "eve" / name).unlink()
    (record,) = inspect_scenes(detector, tmp_path / "in", tmp_path / "out").records
    assert record.size == (160, 64)
    assert maps(tmp_path / "out", "eve")["own"].shape == (3, 64, 160)
    assert len(record.notices) == len(set(record.notices))


def test_a_constant_sensor_is_taken_for_missing(
    scenes: Path, detector: Detector, tmp_path: Path, recorder: Any
) -> None:
    source = Path(shutil.copytree(scenes, tmp_path / "in"))
    path = source / "virgin" / "infrared.tif"
    tifffile.imwrite(path, np.full((HEIGHT, WIDTH), 9, np.uint16))
    observer = recorder()
    done = inspect_scenes(detector, source, tmp_path / "out", observer=observer)
    (problem,) = observer.problems
    assert str(problem).startswith(f"{path}: is 0.000137")
    assert [[one.state for one in record.modalities] for record in done.records] == [
        ["present"] * 3,
        ["missing", "present", "present"],
    ]
    assert np.isnan(maps(tmp_path / "out")["own"][0]).all()


def test_a_network_that_needs_every_modality_has_no_cross_modal_map(
    scenes: Path, make_detector: Make, tmp_path: Path
) -> None:
    stacked = make_detector(scenes, "stacked-ae", STRIDE)
    done = inspect_scenes(stacked, scenes / "virgin", tmp_path / "out")
    assert all(one.from_others is None for one in done.records[0].modalities)
    assert all(one.similarity is not None for one in done.records[0].modalities)
    with pytest.raises(UsageError, match="stacked-ae cannot do without"):
        inspect_scenes(stacked, scenes, tmp_path / "other", hide=["rgb"])


def test_a_scene_without_a_needed_modality_is_skipped(
    scenes: Path, make_detector: Make, tmp_path: Path, recorder: Any
) -> None:
    source = Path(shutil.copytree(scenes, tmp_path / "in"))
    shutil.copytree(source / "virgin", source / "angel")
    (source / "angel" / "infrared.tif").unlink()
    path = source / "virgin" / "xray.tif"
    partly = tifffile.imread(path) / np.float32(65535)
    partly[:9] = np.nan
    tifffile.imwrite(path, partly)
    observer = recorder()
    stacked = make_detector(scenes, "stacked-ae", STRIDE)
    done = inspect_scenes(stacked, source, tmp_path / "out", observer=observer)
    assert [record.path for record in done.records] == ["donor"]
    missing, absent = map(str, observer.problems)
    assert missing.startswith(f"{source / 'angel'}: has no infrared, which stacked-ae cannot do without; fit")
    assert absent.startswith(
        f"{source / 'virgin'}: has absent values near (0, 0), which stacked-ae cannot do"
    )


def test_pixels_seen_only_by_hidden_modalities_are_not_scored(
    painting: Painting, detector: Detector, tmp_path: Path, recorder: Any
) -> None:
    painting(tmp_path / "in" / "eve", height=HEIGHT, width=WIDTH)
    painting(tmp_path / "in" / "adam", height=HEIGHT, width=WIDTH)
    for name in ("rgb.png", "xray.tif"):
        (tmp_path / "in" / "eve" / name).unlink()
        path = tmp_path / "in" / "adam" / name
        if path.suffix == ".png":
            path.unlink()
            continue
        half = tifffile.imread(path) / np.float32(65535)
        half[:, WIDTH // 4 :] = np.nan
        tifffile.imwrite(path, half)
    observer = recorder()
    done = inspect_scenes(detector, tmp_path / "in", tmp_path / "out", hide=["infrared"], observer=observer)
    (problem,) = observer.problems
    assert str(problem).startswith(f"{tmp_path / 'in' / 'eve'}: has nothing else than what is to be hidden")
    assert [record.path for record in done.records] == ["adam"]
    residual = maps(tmp_path / "out", "adam")["residual"]
    assert np.isfinite(residual[:, : WIDTH // 2 - 2]).all()
    assert np.isnan(residual[:, WIDTH // 2 + 2 :]).all()
    assert any(notice.startswith("xray: absent from ") for notice in done.records[0].notices)


def test_a_network_of_another_kind_is_inspected_by_its_own_map(
    scenes: Path, make_detector: Make, tmp_path: Path
) -> None:
    small = ("patch.size=32", "patch.stride=16", "encoder.latent=8")
    done = inspect_scenes(make_detector(scenes, "ssim-ae", *small), scenes / "virgin", tmp_path)
    assert [one.similarity for one in done.records[0].modalities] == [None] * 3
    assert done.records[0].score > 0
    assert np.isfinite(maps(tmp_path)["residual"]).all()


# -- stopped, killed, damaged, full --------------------------------------------------------------------


def test_an_inspection_stopped_at_any_block_resumes_there(
    scenes: Path,
    detector: Detector,
    inspected: tuple[SceneInspection, Path],
    tmp_path: Path,
    recorder: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[Any] = []
    maps_of = ReconstructionModel.maps

    def spy(model: ReconstructionModel, x: NDArray[np.float32], **options: Any) -> Any:
        measured.append(x.shape)
        return maps_of(model, x, **options)

    monkeypatch.setattr(ReconstructionModel, "maps", spy)
    again: dict[str, Any] = {"reconstruction": True, "resume": True}
    for after in range(12):
        with pytest.raises(Stopped, match=f"stopped after {after} of 12 blocks" if after < 6 else "stopped"):
            inspect_scenes(detector, scenes, tmp_path, observer=recorder(stop_after=min(after, 1)), **again)
        assert (tmp_path / "report.html").exists()
    done = inspect_scenes(detector, scenes, tmp_path, **again)
    assert len(measured) == 12
    assert same_records(done, inspected[0])
    for scene in ("virgin", "donor"):
        for name, values in maps(inspected[1], scene).items():
            np.testing.assert_array_equal(maps(tmp_path, scene)[name], values)


@pytest.mark.slow
def test_worker_processes_give_the_same_maps_and_records(
    scenes: Path,
    detector: Detector,
    inspected: tuple[SceneInspection, Path],
    tmp_path: Path,
    recorder: Any,
) -> None:
    """They stop and resume as one process does, and a damaged scene does not hold up the others."""
    source = Path(shutil.copytree(scenes, tmp_path / "in"))
    shutil.copytree(source / "virgin", source / "torn")
    whole_file = (source / "torn" / "infrared.tif").read_bytes()
    options: dict[str, Any] = {"reconstruction": True, "workers": 2}
    with pytest.raises(Stopped, match=r"stopped after \d of 18 blocks, which are finished"):
        inspect_scenes(detector, source, tmp_path / "out", observer=recorder(2), **options)
    (source / "torn" / "infrared.tif").write_bytes(whole_file[:-4000])
    observer = recorder()
    done = inspect_scenes(detector, source, tmp_path / "out", resume=True, observer=observer, **options)
    assert ["torn" in str(problem) for problem in observer.problems] == [True]
    assert any("blocks already done" in stage for stage in observer.stages)
    single, folder = inspected
    # A scene is recorded when its last block is finished, which the pace of the processes decides.
    mine, others = (
        sorted(
            (one.model_dump(exclude={"time", "seconds"}) for one in run.records), key=lambda one: one["path"]
        )
        for run in (done, single)
    )
    assert mine == others
    for scene in ("virgin", "donor"):
        own, expected = maps(tmp_path / "out", scene), maps(folder, scene)
        assert own.keys() == expected.keys()
        for name, values in own.items():
            np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_a_block_that_a_kill_left_half_written_is_made_anew(
    scenes: Path,
    detector: Detector,
    inspected: tuple[SceneInspection, Path],
    tmp_path: Path,
    recorder: Any,
) -> None:
    with pytest.raises(Stopped):
        inspect_scenes(detector, scenes / "donor", tmp_path / "out", observer=recorder(stop_after=2))
    journal = tmp_path / "out" / "maps" / "donor.blocks.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[1][:20])  # the second block has its chunks, and half its line
    group = tmp_path / "out" / "maps" / "donor.zarr"
    zarr.open_array(str(group / "residual"), mode="r+")[:64, 64:128] = 5
    done = inspect_scenes(detector, scenes / "donor", tmp_path / "out", resume=True)
    assert same_records(done, inspected[0], count=1)
    np.testing.assert_array_equal(
        maps(tmp_path / "out", "donor")["residual"], maps(inspected[1], "donor")["residual"]
    )


def test_a_scene_that_changed_or_lost_its_maps_is_inspected_again(
    scenes: Path, detector: Detector, tmp_path: Path, painting: Painting, recorder: Any
) -> None:
    source, out = tmp_path / "scenes", tmp_path / "out"
    shutil.copytree(scenes, source)
    before = {record.path: record for record in inspect_scenes(detector, source, out).records}
    shutil.rmtree(source / "donor")
    painting(source / "donor", 77, height=HEIGHT, width=WIDTH)
    shutil.rmtree(out / "maps" / "virgin.zarr")
    recorded = recorder()
    done = inspect_scenes(detector, source, out, resume=True, observer=recorded)
    after = {record.path: record for record in done.records}
    assert any(stage.startswith("2 scenes changed, or without maps") for stage in recorded.stages)
    assert after["donor"].sha256 != before["donor"].sha256
    assert after["donor"].score != before["donor"].score
    assert (after["virgin"].sha256, after["virgin"].score) == (
        before["virgin"].sha256,
        before["virgin"].score,
    )
    fresh = inspect_scenes(detector, source, tmp_path / "fresh")
    assert {record.path: record.score for record in fresh.records} == {
        name: record.score for name, record in after.items()
    }
    np.testing.assert_array_equal(
        maps(out, "donor")["residual"], maps(tmp_path / "fresh", "donor")["residual"]
    )
    assert inspect_scenes(detector, source, out, resume=True).records == done.records


def test_a_damaged_file_stops_its_scene_alone(
    scenes: Path, detector: Detector, tmp_path: Path, recorder: Any
) -> None:
    source = Path(shutil.copytree(scenes, tmp_path / "in"))
    path = source / "donor" / "infrared.tif"
    sound = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        place, length = page.dataoffsets[-1], page.databytecounts[-1]  # type: ignore[union-attr]
    path.write_bytes(sound[:place] + bytes(length) + sound[place + length :])
    observer = recorder()
    done = inspect_scenes(detector, source, tmp_path / "out", observer=observer)
    assert [record.path for record in done.records] == ["virgin"]
    (problem,) = observer.problems
    assert isinstance(problem, ImageError)
    assert problem.path == path
    journal = tmp_path / "out" / "maps" / "donor.blocks.jsonl"
    assert len(journal.read_text().splitlines()) == 4  # the fifth block's tiles reach into the damage
    assert str(path) in (tmp_path / "out" / "report.html").read_text()
    path.write_bytes(sound)
    again = inspect_scenes(detector, source, tmp_path / "out", resume=True)
    assert sorted(record.path for record in again.records) == ["donor", "virgin"]


class FillsUp(Observer):
    """Within it no file grows past 2,000 bytes once so many blocks are done, as on a disk that is full."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def count(self, done: int, total: int) -> None:
        if done == self.after:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, self.before[1]))

    def __enter__(self) -> FillsUp:
        return self

    def __exit__(self, *error: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def test_on_a_full_disk_finished_blocks_stay(
    scenes: Path, detector: Detector, inspected: tuple[SceneInspection, Path], tmp_path: Path
) -> None:
    with FillsUp(after=3) as full, pytest.raises(FileError) as failure:
        inspect_scenes(detector, scenes / "donor", tmp_path / "out", observer=full)
    assert "\n" not in str(failure.value)
    assert failure.value.path.is_relative_to(tmp_path / "out")
    journal = tmp_path / "out" / "maps" / "donor.blocks.jsonl"
    assert len(journal.read_text().splitlines()) == 3
    done = inspect_scenes(detector, scenes / "donor", tmp_path / "out", resume=True)
    assert same_records(done, inspected[0], count=1)


# -- the folder ----------------------------------------------------------------------------------------


def test_an_output_folder_in_use_is_refused_or_replaced(
    scenes: Path, detector: Detector, inspected: tuple[SceneInspection, Path], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(inspected[1], tmp_path / "out"))
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="already holds what blemish inspect made"):
        inspect_scenes(detector, scenes, out)
    with pytest.raises(UsageError, match="give one"):
        inspect_scenes(detector, scenes, out, resume=True, overwrite=True)
    with pytest.raises(UsageError, match="another reconstruction"):
        inspect_scenes(detector, scenes, out, resume=True)
    for other, words in (({"hide": ["rgb"]}, "another hidden"), ({}, "another threshold")):
        changed = detector if other else detector.with_threshold(0.3)
        with pytest.raises(UsageError, match=words):
            inspect_scenes(changed, scenes, out, resume=True, reconstruction=True, **other)
    done = inspect_scenes(detector, scenes / "donor", out, overwrite=True)
    assert [record.path for record in done.records] == ["donor"]
    assert {path.name for path in (out / "maps").iterdir()} == {"donor.zarr", "donor.blocks.jsonl"}
    assert {path.name for path in (out / "overviews").iterdir()} == {"donor"}
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("hide", "words"),
    [(["infrarde"], "did you mean 'infrared'"), (list(NAMES), "nothing is left")],
)
def test_modalities_that_cannot_be_hidden_are_refused(
    scenes: Path, detector: Detector, tmp_path: Path, hide: list[str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        inspect_scenes(detector, scenes, tmp_path / "out", hide=hide)
    assert not (tmp_path / "out").exists()


def test_a_scene_that_is_too_small_is_skipped(
    scenes: Path, detector: Detector, tmp_path: Path, painting: Painting, recorder: Any
) -> None:
    source = Path(shutil.copytree(scenes, tmp_path / "in"))
    painting(source / "chip", 5, height=10, width=60)
    observer = recorder()
    done = inspect_scenes(detector, source, tmp_path / "out", observer=observer)
    assert len(done.records) == 2
    assert [problem.path.name for problem in observer.problems] == ["chip"]
    assert "60 × 10" in str(observer.problems[0])


def test_progress_counts_the_blocks_of_all_scenes(scenes: Path, detector: Detector, tmp_path: Path) -> None:
    class Counter(Observer):
        counts: list[tuple[int, int]] = []  # noqa: RUF012

        def count(self, done: int, total: int) -> None:
            self.counts.append((done, total))

    inspect_scenes(detector, scenes, tmp_path, observer=Counter())
    assert Counter.counts == [(done, 12) for done in range(1, 13)]


def test_settings_and_report_are_self_contained(scenes: Path, detector: Detector, tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(scenes / "virgin", source / "<b>scene & co")
    done = inspect_scenes(detector, source, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>scene" not in page
    assert "&lt;b&gt;scene &amp; co" in page
    assert not [word for word in ("http:", "https:", 'src="/') if word in page]
    assert "cross-modal residual of each modality" in page
    assert json.loads((tmp_path / "out" / "inspection.json").read_text())["scored_squares"] == 32
    line = (tmp_path / "out" / "inspections.jsonl").read_text().splitlines()[0]
    assert SceneRecord.model_validate_json(line) == done.records[0]
    assert "1 scene inspected" in done.in_words()


def test_a_model_of_images_is_sent_to_the_other_command(
    scenes: Path, detector: Detector, tmp_path: Path
) -> None:
    file = detector.file
    preprocessing = file.preprocessing.model_copy(update={"modalities": ()})
    plain = detector.with_file(file.model_copy(update={"preprocessing": preprocessing}))
    with pytest.raises(UsageError, match="inspect_folder"):
        inspect_scenes(plain, scenes, tmp_path)
