from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from blemish.data.image import LoadedImage, read_image
from blemish.decision import conformal_threshold, p_values, read_records
from blemish.detectors.ensemble import Ensemble
from blemish.detectors.patch_bank import ABSENT, PatchBank
from blemish.errors import CalibrationError, ImageError, ModelError, UsageError
from blemish.inspection.detector import Detector, load
from blemish.inspection.folder import inspect_folder
from blemish.observer import Observer
from blemish.preprocessing.absent import mask_at
from blemish.preprocessing.pose import crop
from blemish.recipes import Part


def names_one_line(error: pytest.ExceptionInfo[ModelError], path: Path) -> str:
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert ";" in message
    return message


# -- one code path -------------------------------------------------------------------------------------


def test_calibration_scores_are_what_inspect_gives(detector: Detector, good: Path) -> None:
    names = detector.file.split["calibration"]
    found = [detector.inspect(good / name) for name in names]
    assert [one.score for one in found] == list(detector.file.calibration.scores)
    assert [float(one.map.max()) for one in found] == list(detector.file.calibration.map_maxima)


def test_a_loaded_model_gives_the_same_bits(fitted: tuple[Detector, Path], good: Path) -> None:
    detector, folder = fitted
    again = load(folder)
    for name in ("0.png", "7.png"):
        before, after = detector.inspect(good / name), again.inspect(good / name)
        assert after.score == before.score
        assert after.p_value == before.p_value
        assert after.regions == before.regions
        np.testing.assert_array_equal(after.map, before.map)
        np.testing.assert_array_equal(after.reconstruction, before.reconstruction)
    assert (again.threshold, again.pixel_threshold) == (detector.threshold, detector.pixel_threshold)
    assert again.file.weights_sha256 == detector.file.weights_sha256


def test_a_path_an_image_and_an_array_give_the_same_result(detector: Detector, good: Path) -> None:
    image = read_image(good / "3.png")
    found = detector.inspect(good / "3.png")
    for source in (image, image.pixels, image.pixels[0]):
        np.testing.assert_array_equal(detector.inspect(source).map, found.map)


@pytest.mark.parametrize("size", [(40, 48), (33, 71), (17, 16), (97, 45)])
def test_results_have_the_size_of_the_image(
    detector: Detector, draw: Callable[..., np.ndarray], size: tuple[int, int]
) -> None:
    found = detector.inspect(draw(5, *size), name="odd")
    assert found.size == size[::-1]
    assert found.map.shape == found.mask.shape == size
    assert found.image.shape == found.reconstruction.shape == (1, *size)
    assert found.map.min() >= 0
    assert 0 <= found.reconstruction.min() <= found.reconstruction.max() <= 1


def test_regions_and_mask_are_the_pixels_above_the_pixel_threshold(
    detector: Detector, draw: Callable[..., np.ndarray]
) -> None:
    found = detector.inspect(draw(5, dot=True))
    np.testing.assert_array_equal(found.mask, found.map > found.pixel_threshold)
    assert sum(region.area for region in found.regions) == found.mask.sum()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 1, 40, 48), np.uint8), "shape"),
        (np.zeros((40, 48), np.int64), "int64"),
        (np.full((40, 48), 2.0), "outside 0..1"),
        (np.full((40, 48), np.nan), "NaN"),
        (np.zeros((3, 40, 48), np.uint8), "3 channels"),
        (np.zeros((40, 48), np.uint16), "16-bit"),
        (np.zeros((40, 48)), "floating-point"),
        (np.zeros((40, 15), np.uint8), "too small"),
    ],
)
def test_an_invalid_array_is_refused(detector: Detector, array: np.ndarray, words: str) -> None:
    with pytest.raises(ImageError, match=words) as error:
        detector.inspect(array, name="frame 7")
    assert str(error.value).startswith("frame 7: ")


def test_an_image_that_does_not_fit_into_memory_is_named(
    detector: Detector, draw: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("blemish.detectors.tiled.Blender", out_of_memory)
    with pytest.raises(ImageError, match=r"^frame 7: does not fit into memory; cut it"):
        detector.inspect(draw(5), name="frame 7")


# -- the decision --------------------------------------------------------------------------------------


def test_threshold_is_the_conformal_one_of_the_calibration_scores(detector: Detector) -> None:
    scores = detector.file.calibration.scores
    assert detector.threshold == conformal_threshold(scores, 0.2)
    assert detector.pixel_threshold == conformal_threshold(detector.file.calibration.map_maxima, 0.2)


@pytest.mark.parametrize("rate", [0.2, 0.35, 0.5, 0.9])
def test_p_values_agree_with_the_decision_at_every_rate(
    detector: Detector, good: Path, draw: Callable[..., np.ndarray], rate: float
) -> None:
    other = detector.with_false_reject_rate(rate)
    sources = [good / name for name in detector.file.split["calibration"]]
    found = [other.inspect(source) for source in sources] + [other.inspect(draw(9, dot=True))]
    for one in found:
        assert one.is_anomalous == (one.p_value <= rate) == (one.score > one.threshold)
        assert one.p_value == p_values(detector.file.calibration.scores, one.score)
    assert len({one.is_anomalous for one in found}) == 2 or rate == 0.2


def test_another_rate_needs_no_retraining_and_leaves_the_first_alone(detector: Detector) -> None:
    before = detector.threshold
    looser = detector.with_false_reject_rate(0.5)
    assert looser.model is detector.model
    assert looser.threshold < detector.threshold == before
    assert "at most 50 %" in looser.guarantee


def test_a_rate_too_low_for_the_calibration_is_refused(detector: Detector) -> None:
    with pytest.raises(CalibrationError, match="calibrate on 99 or more"):
        detector.with_false_reject_rate(0.01)
    for rate in (0, 1, -0.1, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            detector.with_false_reject_rate(rate)


def test_a_threshold_set_by_hand_has_no_guarantee(detector: Detector, good: Path) -> None:
    score = detector.inspect(good / "0.png").score
    at, below = detector.with_threshold(score), detector.with_threshold(np.nextafter(score, 0))
    assert not at.inspect(good / "0.png").is_anomalous
    assert below.inspect(good / "0.png").is_anomalous
    assert "no promise" in at.guarantee
    for value in (float("nan"), float("inf")):
        with pytest.raises(UsageError, match="finite"):
            detector.with_threshold(value)


def test_the_chosen_threshold_is_saved(detector: Detector, tmp_path: Path) -> None:
    detector.with_threshold(0.25).save(tmp_path / "fixed")
    detector.with_false_reject_rate(0.5).save(tmp_path / "half")
    assert load(tmp_path / "fixed").threshold == 0.25
    half = load(tmp_path / "half")
    assert half.threshold == detector.with_false_reject_rate(0.5).threshold
    assert half.guarantee == detector.with_false_reject_rate(0.5).guarantee


# -- the model folder ----------------------------------------------------------------------------------


def test_folder_holds_tensors_json_and_a_card_and_no_pickle(fitted: tuple[Detector, Path]) -> None:
    detector, folder = fitted
    assert sorted(path.name for path in folder.iterdir()) == ["card.md", "model.json", "model.safetensors"]
    for path in folder.iterdir():
        content = path.read_bytes()
        assert b"\x80\x02" not in content[:4]
        assert not content.startswith(b"PK")
    card = (folder / "card.md").read_text()
    for essential in (
        "ssim-ae",
        "arXiv:1807.02011",
        detector.guarantee,
        f"{detector.threshold:.6g}",
        "24 images, 1 channel, uint8",
        "17 for train, 2 for validation, 5 for calibration",
        detector.file.fingerprint.sha256,
        str(detector.file.training.machine),
    ):
        assert essential in card


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(ModelError, match="fit") as error:
        load(model)
    assert name in names_one_line(error, model if name == "model.json" else model / name)


def test_other_folders_are_not_loaded_as_models(tmp_path: Path, model: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(ModelError, match=r"holds no model\.json"):
        load(tmp_path / "bare")
    with pytest.raises(ModelError, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="is a file, not a model folder"):
        load(model / "model.json")
    with pytest.raises(ModelError, match="cannot be read"):
        load("a" * 300)


def edit(model: Path, *keys: str, to: object) -> None:
    document = json.loads((model / "model.json").read_text())
    target = document
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = to
    (model / "model.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("keys", "to", "words"),
    [
        (("calibration", "scores"), [0.1, 0.2, 0.3, 0.4, 0.5], "was edited after it was written"),
        (("calibration", "scores"), [0.5, 0.6], "there are 2 scores and 5 maxima of maps"),
        (("recipe", "threshold", "false_reject_rate"), 0.4, "was edited after it was written"),
        (("calibration", "scores"), "high", r"calibration\.scores"),
        (("calibration", "colour"), 1, r"calibration\.colour"),
        (("preprocessing", "kind"), "uint9", r"preprocessing\.kind"),
        (("colour",), "blue", "colour"),
        (("format",), "one", "format"),
    ],
)
def test_edited_json_is_noticed(model: Path, keys: tuple[str, ...], to: object, words: str) -> None:
    edit(model, *keys, to=to)
    with pytest.raises(ModelError, match=words) as error:
        load(model)
    assert "undo the edit" in names_one_line(error, model / "model.json")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"format": 1}', "\x00\x01"])
def test_other_json_is_not_loaded_as_a_model(model: Path, content: str) -> None:
    (model / "model.json").write_text(content)
    with pytest.raises(ModelError, match="fit again") as error:
        load(model)
    names_one_line(error, model / "model.json")


def test_a_newer_format_names_the_version_to_upgrade_to(model: Path) -> None:
    edit(model, "blemish", to="9.1")
    edit(model, "format", to=3)
    with pytest.raises(ModelError, match=r"upgrade Blemish to 9\.1 or newer") as error:
        load(model)
    assert "format 3" in names_one_line(error, model / "model.json")


def test_edited_and_truncated_weights_are_noticed(model: Path) -> None:
    path = model / "model.safetensors"
    content = path.read_bytes()
    edited = bytearray(content)
    edited[-1] ^= 1
    for damaged in (bytes(edited), content[: len(content) // 2], b""):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="is damaged") as error:
            load(model)
        assert "fit again" in names_one_line(error, path)


def test_weights_of_another_model_are_noticed(detector: Detector, model: Path, tmp_path: Path) -> None:
    other = load(model)
    with torch.no_grad():
        next(iter(other.model.parameters())).add_(1)
    other.save(tmp_path / "other")
    (model / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"not the one that model\.json was written for"):
        load(model)


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        (Part(name="bergman"), "unknown encoder 'bergman'; did you mean 'bergmann'"),
        (Part.model_validate({"name": "bergmann", "latent": 9}), "does not fit the recipe"),
    ],
)
def test_a_recipe_that_this_version_cannot_build(
    detector: Detector, tmp_path: Path, encoder: Part, words: str
) -> None:
    file = detector.file.model_copy(
        update={"recipe": detector.recipe.model_copy(update={"encoder": encoder})}
    )
    Detector(detector.model, file).save(tmp_path / "odd")
    with pytest.raises(ModelError, match=words) as error:
        load(tmp_path / "odd")
    assert "fit again" in names_one_line(error, tmp_path / "odd" / "model.safetensors")


def test_saving_to_an_unwritable_folder_is_reported(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="choose another --out"):
        detector.save(tmp_path / "file" / "model")


def test_an_edit_is_noticed_without_the_checksum(model: Path) -> None:
    path = model / "model.json"
    document = json.loads(path.read_text())
    del document["content_sha256"]
    document["calibration"]["scores"] = [0.5] * 5
    path.write_text(json.dumps(document))
    with pytest.raises(ModelError, match="was edited after it was written"):
        load(model)


# -- a detector that poses and remembers ---------------------------------------------------------------


def test_posed_calibration_scores_are_what_inspect_gives(posed: tuple[Detector, Path], bolts: Path) -> None:
    detector = posed[0]
    assert detector.file.preprocessing.crop is not None
    names = detector.file.split["calibration"]
    found = [detector.inspect(bolts / name) for name in reversed(names)][::-1]
    assert [one.score for one in found] == list(detector.file.calibration.scores)
    assert [float(one.map.max()) for one in found] == list(detector.file.calibration.map_maxima)


def test_a_loaded_memory_gives_the_same_bits(posed: tuple[Detector, Path], bolts: Path) -> None:
    detector, folder = posed
    assert isinstance(detector.model, Ensemble)
    (bank,) = detector.model.banks.values()
    assert not bank.is_empty
    again = load(folder)
    before, after = detector.inspect(bolts / "5.png"), again.inspect(bolts / "5.png")
    assert (after.score, after.p_value, after.regions) == (before.score, before.p_value, before.regions)
    np.testing.assert_array_equal(after.map, before.map)
    np.testing.assert_array_equal(after.reconstruction, before.reconstruction)
    assert again.file.candidates == detector.file.candidates
    assert again.measure_name == detector.measure_name
    assert again.measure_name.endswith(f"with {bank.title}")


def test_a_gap_in_a_bolt_is_found_where_it_is(
    posed: tuple[Detector, Path], draw_part: Callable[..., np.ndarray]
) -> None:
    detector = posed[0]
    good, broken = (detector.inspect(draw_part(300, broken=gap)) for gap in (False, True))
    assert broken.score > detector.threshold
    assert broken.score > 2 * good.score
    changed = draw_part(300, broken=True).astype(int) - draw_part(300) > 60
    row, column = np.unravel_index(broken.map.argmax(), broken.map.shape)
    gap = np.argwhere(changed)
    assert np.hypot(*(gap - [row, column]).T).min() < 8


@pytest.mark.parametrize("size", [(96, 103), (131, 97)])
def test_a_part_without_a_pose_is_still_inspected(
    posed: tuple[Detector, Path], size: tuple[int, int]
) -> None:
    detector = posed[0]
    noise = np.random.default_rng(0).integers(0, 255, size, np.uint8)
    for image in (np.full(size, 200, np.uint8), noise):
        found = detector.inspect(image)
        assert np.isfinite(found.score)
        assert found.map.shape == found.mask.shape == size
        assert found.map.min() >= 0
        assert found.reconstruction.shape == (1, *size)
    assert found.is_anomalous


def test_a_part_scores_the_same_in_a_folder_and_alone(
    posed: tuple[Detector, Path], bolts: Path, tmp_path: Path, draw_part: Callable[..., np.ndarray]
) -> None:
    images = Path(shutil.copytree(bolts, tmp_path / "images", ignore=shutil.ignore_patterns("1*", "2*")))
    Image.fromarray(draw_part(700, 120, 90, broken=True)).save(images / "broken.png")
    inspect_folder(posed[0], images, tmp_path / "found")
    records = read_records(tmp_path / "found" / "inspections.jsonl")
    assert len(records) == 9
    for record in records:
        alone = posed[0].inspect(images / record.path)
        assert (record.score, record.regions) == (alone.score, alone.regions)


def sign(model: Path) -> None:
    """Write the checksum that ``model.json`` has now, as nobody does by mistake."""
    document = json.loads((model / "model.json").read_text())
    del document["content_sha256"]
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    (model / "model.json").write_text(json.dumps({**document, "content_sha256": digest}))


@pytest.mark.parametrize(
    ("keys", "to"),
    [
        (("calibration", "scores"), [float("nan")] * 5),
        (("calibration", "map_maxima"), []),
        (("calibration", "map_maxima"), [float("inf")] * 5),
        (("preprocessing", "channels"), 0),
        (("preprocessing", "channels"), 10**9),
        (("preprocessing", "size"), -5),
        (("preprocessing", "scale"), float("nan")),
        (("preprocessing", "crop"), {"height": 0, "width": 5}),
        (("recipe", "patch", "size"), 10**9),
        (("recipe", "name"), "../../elsewhere"),
        (("recipe", "encoder", "latent"), 10**9),
    ],
)
def test_forged_values_are_refused_in_one_line(
    blemish: Callable[..., Any], model: Path, good: Path, tmp_path: Path, keys: tuple[str, ...], to: object
) -> None:
    edit(model, *keys, to=to)
    sign(model)
    ran = blemish("inspect", model, good, "--out", tmp_path / "found")
    assert ran.code == 1
    assert "unexpected" not in ran.error
    assert "model" in ran.error


def test_a_forged_model_without_scores_decides_nothing(model: Path) -> None:
    document = json.loads((model / "model.json").read_text())
    document["calibration"] |= {"scores": [], "map_maxima": []}
    (model / "model.json").write_text(json.dumps(document))
    sign(model)
    detector = load(model)
    with pytest.raises(CalibrationError):
        _ = detector.threshold
    with pytest.raises(CalibrationError):
        _ = detector.pixel_threshold


def test_weights_that_are_no_numbers_are_refused(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name] = weights[name] * float("nan")
    save_file(weights, model / "model.safetensors")
    sha256 = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    edit(model, "weights_sha256", to=sha256)
    sign(model)
    with pytest.raises(ModelError, match=rf"holds NaN in '{name}'"):
        load(model)


def test_other_weights_beside_a_checkpoint_are_those_of_an_interrupted_fit(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"half of the next")
    (model / "checkpoint").mkdir()
    with pytest.raises(ModelError, match="finish the interrupted fit with --resume"):
        load(model)


def test_a_score_does_not_depend_on_pixels_invented_outside_the_image(
    posed: tuple[Detector, Path], draw_part: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = draw_part(3)
    image = LoadedImage(Path("cut.png"), np.ascontiguousarray(part[part.shape[0] // 2 :])[None])
    before = posed[0].measure(image)
    placed = posed[0].file.preprocessing.apply(image)
    assert placed.inside is not None
    outside = ~placed.inside

    def invented(*options: Any) -> np.ndarray:
        pixels = crop(*options)
        pixels[:, outside] = np.random.default_rng(0).random(int(outside.sum()), np.float32)
        return pixels

    monkeypatch.setattr("blemish.preprocessing.cells.crop", invented)
    assert (posed[0].file.preprocessing.apply(image).pixels != placed.pixels).any()
    after = posed[0].measure(image)
    assert after.score == before.score
    np.testing.assert_array_equal(after.map, before.map)


def test_an_export_scores_an_image_at_the_border_alike(
    posed: tuple[Detector, Path], draw_part: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    from blemish.export.export_model import exported_detector

    exported = exported_detector(posed[0], "onnx", tmp_path / "exported", Observer())
    part = draw_part(3)
    for cut in (part, part[part.shape[0] // 2 :], part[:, part.shape[1] // 3 :]):
        image = LoadedImage(Path("cut.png"), np.ascontiguousarray(cut)[None])
        own, other = posed[0].measure(image), exported.measure(image)
        assert other.score == pytest.approx(own.score, rel=1e-4)
        np.testing.assert_allclose(other.map, own.map, atol=1e-3 * own.map.max())


def test_a_bank_of_posed_images_holds_no_place_outside(posed: tuple[Detector, Path], bolts: Path) -> None:
    """Most of these crops reach beyond their small images."""
    detector = posed[0]
    kept = [*detector.file.split["train"], *detector.file.split["validation"]]
    placed = [detector.file.preprocessing.apply(read_image(bolts / str(name))) for name in kept]
    cut = [one.inside for one in placed if one.inside is not None]
    assert cut
    assert isinstance(detector.model, Ensemble)
    (memory,) = detector.model.banks.values()
    bank = memory.banks[0]
    assert isinstance(bank, PatchBank)
    assert bank.by_place
    stride = bank.extractor.stride
    height, width = bank.bank.shape[:2]
    outside = sum(int((~mask_at(one, stride, 0, (height, width))).sum()) for one in cut)
    assert int((bank.bank[..., 0] == ABSENT).sum()) == outside > 0


def test_a_place_outside_the_image_does_not_decide(
    posed: tuple[Detector, Path], draw_part: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = posed[0]
    crop = detector.file.preprocessing.crop
    assert crop is not None
    part = draw_part(3)
    cut = np.ascontiguousarray(part[part.shape[0] // 2 :])  # what is left of the bolt lies at the border
    placed = detector.file.preprocessing.apply(LoadedImage(Path("cut.png"), cut[None]))
    outside = placed.judged(np.ones((crop.height, crop.width), np.float32)) == 0
    assert outside.any()
    bright_outside = outside.astype(np.float32) * 100
    monkeypatch.setattr(detector, "examine", lambda x: (bright_outside, None))
    assert detector.measure(LoadedImage(Path("cut.png"), cut[None])).score == 0
