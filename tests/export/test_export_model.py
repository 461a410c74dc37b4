"""An exported folder is a model like any other, and gives the answers of the one in torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from blemish.data.image import read_image
from blemish.errors import BlemishError, ExportError, UsageError
from blemish.evaluation.evaluate import evaluate
from blemish.export import export_model as module
from blemish.export.export_model import export_model, exported_detector
from blemish.export.parity import compared
from blemish.export.parts import Parts, parts_of
from blemish.inspection.calibration import calibrate
from blemish.inspection.detector import Detector, load
from blemish.inspection.folder import inspect_folder
from blemish.observer import Observer
from blemish.runtime.model import ExportedModel
from blemish.training.fit import fit

Draw = Callable[..., NDArray[np.uint8]]
Save = Callable[[Path, NDArray[np.generic]], Path]
SCORE, MAP = 1e-4, 1e-3
slow = pytest.mark.slow


def agree(one: Detector, other: Detector, path: Path) -> None:
    first, second = one.inspect(path), other.inspect(path)
    assert second.score == pytest.approx(first.score, rel=SCORE)
    np.testing.assert_allclose(second.map, first.map, rtol=0, atol=MAP * first.map.max())
    assert second.threshold == first.threshold
    assert second.is_anomalous == first.is_anomalous
    assert second.other_kind == first.other_kind
    assert len(second.regions) == len(first.regions)


# -- one answer ----------------------------------------------------------------------------------------


def test_posed_objects(
    posed: tuple[Detector, Path],
    exported_posed: tuple[Detector, Path],
    draw_part: Draw,
    save: Save,
    tmp_path: Path,
) -> None:
    for number, image in enumerate([draw_part(60), draw_part(61, broken=True), draw_part(62, 101, 131)]):
        agree(posed[0], exported_posed[0], save(tmp_path / f"{number}.png", image))


@pytest.mark.parametrize(
    "shape", [(11, 61, 77), *(pytest.param(one, marks=slow) for one in ((3, 57, 91), (64, 75)))], ids=str
)
def test_images_in_16_bits_of_any_channels(shape: tuple[int, ...], quick: list[str], tmp_path: Path) -> None:
    """Of the default recipe, which compares features anywhere here, and odd sides."""

    def write(path: Path, seed: int, *, spot: bool = False) -> Path:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[: shape[-2], : shape[-1]]
        waves = np.sin(x / 5 + 6 * rng.random()) + np.sin(y / 4 + 6 * rng.random())
        values = np.broadcast_to(30000 + 7000 * waves, shape) + rng.normal(0, 900, shape)
        if spot:
            values[..., 20:32, 30:44] = 50000
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(
            path,
            values.round().astype(np.uint16),
            photometric="minisblack",
            metadata={"axes": "CYX"[-len(shape) :]},
        )
        return path

    for seed in range(16):
        write(tmp_path / "good" / f"{seed}.tif", seed)
    settings = [*quick, "image.size=null"]
    detector = fit(tmp_path / "good", settings=settings, false_reject_rate=0.3, out=tmp_path / "model")
    images = [write(tmp_path / f"{seed}.tif", seed, spot=seed > 100) for seed in (100, 101)]
    for to in ("onnx", "openvino"):
        exported = export_model(tmp_path / "model", tmp_path / to, to=to, images=tmp_path / "good")
        assert exported.file.export is not None
        assert exported.file.export.parity is not None
        assert not exported.file.export.parity.generated
        for path in images:
            agree(detector, load(tmp_path / to), path)


@pytest.mark.parametrize(
    "recipe",
    [
        "stacked-ae",
        "other-pixels",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("fp-cae", "fp-cae-add")),
    ],
)
def test_scenes(
    recipe: str,
    painting: Callable[..., Path],
    make_detector: Callable[..., Detector],
    tmp_path: Path,
) -> None:
    (painting(tmp_path / "scenes" / "one", 0) / "xray.tif").unlink()
    detector = make_detector(tmp_path / "scenes", recipe)
    parts = parts_of(detector.model, 4)
    x = np.random.default_rng(0).random((4, 50, 61), np.float32)
    for runtime in ("onnx", "openvino"):
        exported = exported_detector(detector, runtime, tmp_path / "out", Observer(), parts)
        assert compared(detector, exported, None, Observer()).score < SCORE
        same_maps_of_modalities(detector, exported, x)


def same_maps_of_modalities(detector: Detector, exported: Detector, x: NDArray[np.float32]) -> None:
    one, other = (own.model.maps(x) for own in (detector, exported))
    assert one.own is not None
    assert other.own is not None
    np.testing.assert_allclose(other.own, one.own, atol=1e-4)
    assert (one.cross is None) == (other.cross is None)
    if one.cross is not None and other.cross is not None:
        np.testing.assert_allclose(other.cross, one.cross, atol=1e-4)


# -- a model like any other ----------------------------------------------------------------------------


def test_what_the_model_knows_travels_along(
    fitted: tuple[Detector, Path], exported: tuple[Detector, Path]
) -> None:
    before, after = fitted[0].file, load(exported[1]).file
    changed = {"export", "weights_sha256", "content_sha256"}
    assert after.model_dump(exclude=changed) == before.model_dump(exclude=changed)
    assert after.export is not None
    assert after.export.weights_sha256 == load(fitted[1]).file.weights_sha256
    assert after.export.parity is not None
    assert after.export.parity.score < SCORE
    assert {path.name for path in exported[1].iterdir()} == {
        "model.json", "model.safetensors", "network-0.onnx", "card.md", "README.md", "settings.json",
    }  # fmt: skip


def test_a_folder_is_inspected_evaluated_and_calibrated(
    fitted: tuple[Detector, Path],
    exported: tuple[Detector, Path],
    good: Path,
    dataset: Path,
    tmp_path: Path,
    few_resamples: None,
) -> None:
    found = []
    for name, folder in (("torch", fitted[1]), ("onnx", exported[1])):
        inspect_folder(load(folder), dataset / "test", tmp_path / name)
        lines = (tmp_path / name / "inspections.jsonl").read_text().splitlines()
        found.append({line["path"]: line for line in map(json.loads, lines)})
    assert found[0].keys() == found[1].keys()
    for path, record in found[0].items():
        assert found[1][path]["score"] == pytest.approx(record["score"], rel=SCORE)
        assert found[1][path]["is_anomalous"] == record["is_anomalous"]
    figures = [evaluate(load(folder), dataset) for folder in (fitted[1], exported[1])]
    for figure in ("auroc", "bad_rejected", "good_accepted"):
        first, second = (found.image["all"].figures[figure].value for found in figures)
        assert second == pytest.approx(first)
    again = calibrate(exported[1], good, tmp_path / "again")
    assert isinstance(load(tmp_path / "again").model, ExportedModel)
    assert again.threshold == pytest.approx(fitted[0].threshold, rel=SCORE)


def test_another_rate_without_training(
    fitted: tuple[Detector, Path], exported: tuple[Detector, Path]
) -> None:
    for rate in (0.17, 0.4):
        expected = fitted[0].with_false_reject_rate(rate)
        assert load(exported[1]).with_false_reject_rate(rate).threshold == expected.threshold


def test_graphs_alone_take_all_threads_or_those_asked_for(
    exported: tuple[Detector, Path], good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = min(good.iterdir())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = load(exported[1]).inspect(path).score
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert load(exported[1]).inspect(path).score == pytest.approx(one, rel=1e-6)


# -- what does not agree, or cannot be exported --------------------------------------------------------


def nothing_in(folder: Path) -> bool:
    return not folder.exists() or not any(
        path.is_file() for path in folder.iterdir() if path.suffix != ".lock"
    )


def test_what_does_not_agree_is_not_written(
    fitted: tuple[Detector, Path], good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*args: Any) -> Detector:
        exported = exported_detector(*args)
        maps = exported.model.maps
        monkeypatch.setattr(
            exported.model,
            "maps",
            lambda x, hidden=(): (found := maps(x, hidden=hidden))._replace(anomaly=1.001 * found.anomaly),
        )
        return exported

    monkeypatch.setattr(module, "exported_detector", other)
    with pytest.raises(ExportError, match="the exported model gives the score") as caught:
        export_model(fitted[1], tmp_path / "out", images=good)
    assert "nothing is written" in str(caught.value)
    assert nothing_in(tmp_path / "out")


def refused(error: type[BlemishError], words: str, folder: Path, *args: Any, **options: Any) -> None:
    with pytest.raises(error, match=words) as caught:
        export_model(*args, folder, **options)
    assert "\n" not in str(caught.value)
    assert nothing_in(folder)


def test_an_exported_model_is_not_exported_again(exported: tuple[Detector, Path], tmp_path: Path) -> None:
    refused(UsageError, "is exported already", tmp_path / "out", exported[1])


def test_a_part_that_cannot_be_exported_is_named(quick: list[str], good: Path, tmp_path: Path) -> None:
    from blemish.detectors.feature_extractors import FEATURE_EXTRACTORS, Colour, register_extractor

    @register_extractor("own-means")
    class OwnMeans(Colour):
        title = "own means"

        def forward(self, x: Any) -> Any:
            return super().forward(x) if x.sum().item() > 0 else super().forward(-x)

    try:
        settings = [*quick, "memory={name: features, features: [{name: own-means}]}", "filters=false"]
        fit(good, settings=settings, false_reject_rate=0.3, out=tmp_path / "model")
        refused(UsageError, "'own means', which cannot be exported", tmp_path / "out", tmp_path / "model")
    finally:
        del FEATURE_EXTRACTORS["own-means"]


def test_a_model_in_the_way_is_kept(
    fitted: tuple[Detector, Path], exported: tuple[Detector, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(exported[1], tmp_path / "model"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(BlemishError, match="overwrite"):
        export_model(fitted[1], folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in before} == before


def test_images_of_another_kind_are_nothing_to_compare_on(
    fitted: tuple[Detector, Path], tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "one.tif", np.zeros((40, 48), np.uint16))
    refused(
        BlemishError,
        "holds no image that the model takes",
        tmp_path / "out",
        fitted[1],
        images=tmp_path / "images",
    )


# -- lower precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [pytest.param("fp16", marks=slow), "int8"])
def test_a_lower_precision_is_calibrated_again_and_its_cost_is_known(
    precision: Any,
    fitted: tuple[Detector, Path],
    fitted_parts: Parts,
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("blemish.export.precision.FEWEST", 2)
    exported = export_model(fitted[1], tmp_path / "out", precision=precision, images=good)
    record = exported.file.export
    assert record is not None
    assert record.precision == precision
    assert record.cost is not None
    assert 0 <= min(record.cost.auroc) <= max(record.cost.auroc) <= 1
    assert record.cost.threshold == (fitted[0].threshold, exported.threshold)
    loaded = load(tmp_path / "out")
    assert loaded.threshold == exported.threshold
    # The threshold is a score of the quantised model itself.
    scores = [loaded.measure(read_image(good / name)).score for name in loaded.file.split["calibration"]]
    assert loaded.threshold in scores
    assert scores != [
        fitted[0].measure(read_image(good / name)).score for name in loaded.file.split["calibration"]
    ]
    size = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.onnx"))
    assert size < 0.62 * sum(map(len, fitted_parts.graphs.values()))


def test_too_few_held_out_images(fitted: tuple[Detector, Path], good: Path, tmp_path: Path) -> None:
    words = r"\d held-out good images are too few to lower the precision on, which needs 8"
    refused(UsageError, words, tmp_path / "out", fitted[1], precision="int8", images=good)


def test_a_lower_precision_needs_images(fitted: tuple[Detector, Path], tmp_path: Path) -> None:
    refused(UsageError, "int8 needs the good images", tmp_path / "out", fitted[1], precision="int8")
    refused(
        UsageError, "int8 is for ONNX Runtime", tmp_path / "out", fitted[1], precision="int8", to="openvino"
    )
