"""Protection by a detector, from its map to the file; the detector is small but fitted well enough to find scratches."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.data.image import read_image
from blemish.errors import BlemishError, ImageError, ModelError, UsageError
from blemish.jpeg.batch import JOURNAL_FILE, PROTECTION_FILE, BatchSettings, EncodedFile, encode_folder
from blemish.jpeg.encoder import Encoder
from blemish.jpeg.entropy import bits_per_block, image_bits
from blemish.jpeg.file import from_bytes
from blemish.jpeg.protection import (
    MARGIN,
    RegionOfInterest,
    bits_map,
    encode_protected,
    importance,
    load_detector,
    suspicion,
)
from blemish.jpeg.source_image import read_source
from blemish.observer import Observer
from blemish.storage.records_log import RecordsLog

if TYPE_CHECKING:
    from blemish.inspection.detector import Detector

ENCODER = Encoder()
SETTINGS = (
    "patch.size=32", "patch.stride=16", "encoder.latent=8", "training.batch=16", "training.steps=60",
    "training.validate_every=20", "training.learning_rate=2e-3", "training.device=cpu",
    "training.precision=float32",
)  # fmt: skip
SEEDS = range(300, 316)


class RecordingObserver(Observer):
    def __init__(self) -> None:
        self.problems: list[str] = []

    def problem(self, error: BlemishError) -> None:
        self.problems.append(str(error))


def surface(
    seed: int, height: int = 64, width: int = 80, *, scratch: bool = False, noise: float = 4
) -> NDArray[np.uint8]:
    """A softly lit grey surface, with noise; if defective, with a thin scratch somewhere."""
    rng = np.random.default_rng(seed)
    x = np.arange(width)
    values = 110 + 20 * np.sin(x / 30 + 6 * rng.random()) + rng.normal(0, noise, (height, width))
    if scratch:
        top, left, along = rng.integers(10, height - 26), rng.integers(10, width - 26), np.arange(16)
        for thick in (0, 1):
            values[top + along, left + along // 2 + thick] += 50
    return np.clip(values, 0, 255).astype(np.uint8)


def save(path: Path, pixels: NDArray[np.uint8], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from blemish.training.fit import fit

    folder = tmp_path_factory.mktemp("protection")
    for seed in range(24):
        save(folder / "good" / f"{seed}.png", surface(seed))
    fit(folder / "good", "l2-ae", settings=SETTINGS, false_reject_rate=0.2, out=folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def detector(model: Path) -> Detector:
    return load_detector(model)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Two defective parts and a good one."""
    root = tmp_path / "parts"
    save(root / "a.png", surface(300, scratch=True))
    save(root / "b.png", surface(301, scratch=True))
    save(root / "good.png", surface(302))
    return root


def protected(out: Path) -> list[EncodedFile]:
    return list(RecordsLog(out / JOURNAL_FILE, EncodedFile).records)


# -- from the map to the importance --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (17, 33), (40, 57)])
def test_suspicion_follows_the_map_up_to_the_pixel_threshold(shape: tuple[int, int]) -> None:
    blocks = (-(-shape[0] // 8), -(-shape[1] // 8))
    for value, expected in ((0.0, 0.0), (0.1, 0.25), (0.4, 1.0), (9.0, 1.0)):
        found = suspicion(np.full(shape, value, np.float32), pixel_threshold=0.4)
        assert found.shape == blocks
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_suspicion_reaches_over_the_margin_and_falls_without_steps() -> None:
    residual_map = np.zeros((8, 128), np.float32)
    residual_map[:, 64] = 1
    found = suspicion(residual_map, pixel_threshold=1)[0]
    assert found[8] == 1  # the block of the pixel
    assert found[(64 - MARGIN) // 8] > 0.5
    assert (found[: (64 - 2 * MARGIN) // 8] == 0).all()
    assert np.abs(np.diff(found)).max() < 0.6


def test_with_a_threshold_of_0_every_positive_value_is_suspicious() -> None:
    residual_map = np.zeros((8, 64), np.float32)
    residual_map[:, :8] = 1e-6
    found = suspicion(residual_map, pixel_threshold=0)
    assert (found[0, 0], found[0, -1]) == (1, 0)


def test_importance_is_geometric_between_the_strength_and_its_inverse() -> None:
    found = importance(np.linspace(0, 1, 9, dtype=np.float32), 9)
    np.testing.assert_allclose(found[[0, 4, 8]], [1 / 9, 1, 9], rtol=1e-6)
    ratios = found[1:] / found[:-1]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)
    assert (importance(np.array([0, 0.3, 1], np.float32), 1) == 1).all()


# -- encoding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tune", ["psnr", "balanced"])
def test_importance_that_all_blocks_share_is_a_matter_of_quality(tune: Any) -> None:
    pixels = surface(0)
    same = np.full((8, 10), 0.25, np.float32)
    plain = ENCODER.encode(pixels, quality=70, tune=tune)
    assert encode_protected(ENCODER, pixels, np.ones_like(same), quality=70, tune=tune).data == plain.data
    squeezed = encode_protected(ENCODER, pixels, same, quality=70, tune=tune)
    lam = [ENCODER.ladder.at(quality, tune).lam for quality in (70, squeezed.quality)]
    assert lam[1] == pytest.approx(4 * lam[0], rel=1e-6)
    assert squeezed.data == ENCODER.encode(pixels, quality=squeezed.quality, tune=tune).data
    # with a target nothing is left to move
    at_size = ENCODER.encode(pixels, target_bpp=1.5, tune=tune)
    assert encode_protected(ENCODER, pixels, same, target_bpp=1.5, tune=tune).data == at_size.data


def test_beyond_the_ladder_the_weights_go_on() -> None:
    pixels = surface(0)
    least = encode_protected(ENCODER, pixels, np.full((8, 10), 1e-3, np.float32), quality=2)
    assert least.quality == 1
    assert len(least.data) < len(ENCODER.encode(pixels, quality=1).data)


def test_at_a_quality_the_inside_keeps_more_and_the_outside_less() -> None:
    pixels = surface(1)
    counts = importance(np.repeat(np.array([[0, 1]], np.float32), 5, axis=1).repeat(8, axis=0), 4)
    plain = ENCODER.encode(pixels, quality=60)
    moved = encode_protected(ENCODER, pixels, counts, quality=60)
    bits, plain_bits = bits_per_block(moved.coefficients), bits_per_block(plain.coefficients)
    assert bits[:, :5].sum() < plain_bits[:, :5].sum()
    assert bits[:, 5:].sum() > plain_bits[:, 5:].sum()


def test_a_target_is_met_with_protection() -> None:
    counts = importance(np.eye(8, 10, dtype=np.float32), 8)
    found = encode_protected(ENCODER, surface(2), counts, target_bpp=2.0)
    assert found.bits_per_pixel == pytest.approx(2.0, rel=0.011)
    assert found.notice == ""


# -- with a detector -----------------------------------------------------------------------------------------


def test_the_score_changes_less_than_without_protection_at_the_same_size(
    detector: Detector, tmp_path: Path
) -> None:
    found = []
    for seed in SEEDS:
        region = RegionOfInterest(
            detector, read_source(save(tmp_path / f"{seed}.png", surface(seed, scratch=True))), 4
        )
        pixels = region.source.pixels
        for bpp in (0.5, 1.0):
            moved = encode_protected(ENCODER, pixels, region.importance, target_bpp=bpp)
            plain = ENCODER.encode(pixels, target_bpp=moved.bits_per_pixel)
            found.append(region.protection(moved, plain))
    for each in found:
        assert each.after.bits_per_pixel <= 1.02 * each.plain.bits_per_pixel
    scores = np.array([[f.before.score, f.after.verdict.score, f.plain.verdict.score] for f in found])
    before, after, plain_score = scores.T
    change, plain_change = np.abs(after - before), np.abs(plain_score - before)
    assert change.mean() < 0.8 * plain_change.mean()
    assert (change < plain_change).mean() > 0.6
    inside, plain_inside = np.array([[f.after.psnr_inside, f.plain.psnr_inside] for f in found], float).T
    assert inside.mean() > plain_inside.mean()


def test_what_the_detector_sees_is_what_inspect_sees(
    model: Path, detector: Detector, parts: Path, tmp_path: Path
) -> None:
    encode_folder(parts, tmp_path / "out", settings=BatchSettings(quality=60, protect=model))
    for record in protected(tmp_path / "out"):
        assert record.protection is not None
        before = detector.inspect(parts / record.input)
        after = detector.inspect(tmp_path / "out" / record.output)
        assert record.protection.before.score == before.score
        assert record.protection.after.verdict.score == after.score
        assert record.protection.before.is_anomalous == before.is_anomalous
        assert record.protection.threshold == detector.threshold


def test_the_detector_judges_the_bytes_that_are_encoded(
    detector: Detector, parts: Path, tmp_path: Path
) -> None:
    source = read_source(parts / "a.png")
    expected = detector.inspect(parts / "a.png").score
    (parts / "a.png").write_bytes((parts / "good.png").read_bytes())  # as soon as it was read
    found = RegionOfInterest(detector, source, 4).found
    assert found.score == expected != detector.inspect(parts / "a.png").score


def test_files_that_the_detector_cannot_read_are_named(detector: Detector, tmp_path: Path) -> None:
    page = Image.fromarray(surface(0))
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    with pytest.raises(ImageError, match=r"pages\.tif: ") as caught:
        RegionOfInterest(detector, read_source(tmp_path / "pages.tif"), 4)
    assert "image.jpg" not in str(caught.value)


def test_bits_add_up_to_the_entropy_coded_data_and_errors_to_the_mean(
    detector: Detector, parts: Path
) -> None:
    region = RegionOfInterest(detector, read_source(parts / "a.png"), 4)
    encoded = encode_protected(ENCODER, region.source.pixels, region.importance, quality=50)
    spent = region.protection(encoded, encoded).after
    assert spent.bits_inside > 0
    assert spent.bits_inside + spent.bits_outside == pytest.approx(image_bits(encoded.coefficients), abs=1e-6)
    share = region.inside.repeat(8, 0).repeat(8, 1).mean()  # 64 × 80 pixels are whole blocks
    assert spent.psnr_inside is not None
    assert spent.psnr_outside is not None
    error = share * 10 ** (-spent.psnr_inside / 10) + (1 - share) * 10 ** (-spent.psnr_outside / 10)
    decoded = np.asarray(Image.open(io.BytesIO(encoded.data)), np.float64)
    expected = np.mean((decoded - region.source.pixels) ** 2) / 255**2
    assert error == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_importance_lies_as_the_pixels_do(detector: Detector, tmp_path: Path, orientation: int) -> None:
    stored = surface(0, 64, 88, noise=0)
    stored[16:24, 64:72] = 250
    tags = Image.Exif()
    tags[0x0112] = orientation
    path = save(tmp_path / "turned.png", stored, exif=tags)
    region = RegionOfInterest(detector, read_source(path), 4)
    assert region.suspicion.shape == (8, 11)
    assert region.suspicion[2, 8] == 1
    assert region.suspicion[1:4, 7:10].min() > region.suspicion[4:, :6].max()
    encoded = encode_protected(
        ENCODER, region.source.pixels, region.importance, quality=95, segments=region.source.segments
    )
    spent = region.protection(encoded, encoded).after
    assert spent.psnr_inside is not None
    assert spent.psnr_inside > 35  # decoded and original lie alike
    shape = bits_map(encoded.coefficients, orientation).shape
    assert shape == read_image(path).pixels.shape[1:]


# -- a folder ------------------------------------------------------------------------------------------------


def test_a_folder_with_its_records_and_page(model: Path, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = BatchSettings(target_bpp=1.5, protect=model)
    done = encode_folder(parts, out, settings=settings)
    assert sorted(path.name for path in out.iterdir()) == [
        "a.jpg", "b.jpg", PROTECTION_FILE, JOURNAL_FILE, "good.jpg",
    ]  # fmt: skip
    assert done.pages == (out / PROTECTION_FILE,)
    assert "compression changed the detector's decision on" in done.in_words()
    for record in done.files:
        assert record.protection is not None
        assert record.protection.after.bits_per_pixel == record.bits_per_pixel
        bits = bits_per_block(from_bytes((out / record.output).read_bytes())).sum()
        spent = record.protection.after
        assert spent.bits_inside + spent.bits_outside == pytest.approx(bits, abs=1e-6)
        assert spent.bits_inside > record.protection.plain.bits_inside or record.protection.inside == 0
    assert protected(out) == list(done.files)


def test_finished_files_are_skipped_until_detector_or_strength_change(
    model: Path, parts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    settings = BatchSettings(quality=50, protect=model)
    encode_folder(parts, out, settings=settings)
    page = (out / PROTECTION_FILE).stat().st_mtime_ns
    again = encode_folder(parts, out, settings=settings)
    assert (again.done_before, again.pages) == (3, (out / PROTECTION_FILE,))
    assert (out / PROTECTION_FILE).stat().st_mtime_ns == page
    moved = Path(shutil.copytree(model, tmp_path / "elsewhere"))
    assert BatchSettings(protect=moved).fingerprint() == BatchSettings(protect=model).fingerprint()
    assert encode_folder(parts, out, settings=BatchSettings(quality=50, protect=moved)).done_before == 3
    stronger = BatchSettings(quality=50, protect=model, protect_strength=6)
    assert encode_folder(parts, out, settings=stronger).done_before == 0
    other = json.loads((moved / "model.json").read_text())
    other["training"]["notes"] = ["another fit"]
    (moved / "model.json").write_text(json.dumps(other))
    assert BatchSettings(protect=moved).fingerprint() != BatchSettings(protect=model).fingerprint()


def test_strength_1_is_the_plain_encoder(model: Path, parts: Path, tmp_path: Path) -> None:
    weak = BatchSettings(quality=50, protect=model, protect_strength=1)
    encode_folder(parts, tmp_path / "1", settings=weak)
    encode_folder(parts, tmp_path / "2", settings=BatchSettings(quality=50))
    for name in ("a.jpg", "b.jpg", "good.jpg"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_worker_processes_make_the_same_files(model: Path, parts: Path, tmp_path: Path) -> None:
    settings = BatchSettings(quality=50, protect=model)
    (parts / "broken.png").write_bytes(b"")
    observer = RecordingObserver()
    encode_folder(parts, tmp_path / "2", settings=settings, workers=2, observer=observer)
    assert len(observer.problems) == 1
    (parts / "broken.png").unlink()
    encode_folder(parts, tmp_path / "1", settings=settings)
    for name in ("a.jpg", "b.jpg", "good.jpg"):
        assert (tmp_path / "2" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_in_place(model: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", surface(300, scratch=True), quality=97)
    settings = BatchSettings(quality=50, protect=model)
    done = encode_folder(path, in_place=True, settings=settings)
    assert done.pages == (tmp_path / PROTECTION_FILE,)
    assert "has replaced the image" in (tmp_path / PROTECTION_FILE).read_text()
    assert encode_folder(path, in_place=True, settings=settings).done_before == 1


def test_a_kept_file_has_no_protection_record(model: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", surface(300, scratch=True), quality=5, optimize=True)
    done = encode_folder(path, tmp_path / "out", settings=BatchSettings(quality=99, protect=model))
    assert [(file.action, file.protection) for file in done.files] == [("kept", None)]
    assert done.pages == ()
    assert "decision" not in done.in_words()


# -- bad input -----------------------------------------------------------------------------------------------


def test_images_that_do_not_fit_the_detector_are_a_line_each_and_the_others_go_on(
    model: Path, parts: Path, tmp_path: Path
) -> None:
    save(parts / "colour.png", np.zeros((64, 80, 3), np.uint8))
    save(parts / "small.png", surface(0, 9, 12))
    observer = RecordingObserver()
    done = encode_folder(parts, tmp_path / "out", settings=BatchSettings(protect=model), observer=observer)
    assert [file.output for file in done.files] == ["a.jpg", "b.jpg", "good.jpg"]
    colour, small = sorted(observer.problems)
    assert "colour.png: has 3 channels, the model was fitted on 1; convert it" in colour
    assert "small.png: " in small
    assert "give images of at least 16 × 16 pixels" in small
    assert not any("\n" in problem for problem in observer.problems)


def test_a_model_that_is_no_detector_is_one_line(model: Path, parts: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(model, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"cut off")
    for folder, words in (
        (tmp_path / "nowhere", "does not exist"),
        (parts, "holds no model.json"),
        (parts / "a.png", "is a file, not a model folder"),
        (broken, "is damaged"),
    ):
        with pytest.raises(ModelError, match=words) as error:
            encode_folder(parts, tmp_path / "out", settings=BatchSettings(protect=folder))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("channels", "kind"), [(5, "uint8"), (3, "uint16")])
def test_a_detector_for_images_that_no_jpeg_holds_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch, channels: int, kind: str
) -> None:
    from blemish.inspection import detector as home

    def load(folder: Path) -> Detector:
        found = original(folder)
        preparation = found.file.preprocessing.model_copy(update={"channels": channels, "kind": kind})
        return type(found)(found.model, found.file.model_copy(update={"preprocessing": preparation}))

    original = home.load
    monkeypatch.setattr(home, "load", load)
    load_detector.cache_clear()
    with pytest.raises(ModelError, match="which no JPEG holds; protect with a model fitted on 8-bit"):
        load_detector(model)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"protect": Path("m"), "lossless": True}, "leave --protect out"),
        ({"protect_strength": 4.0}, "give --protect too"),
        ({"protect": Path("m"), "protect_strength": 0.5}, "--protect-strength 0.5: choose"),
        ({"protect": Path("m"), "protect_strength": float("nan")}, "--protect-strength nan: choose"),
        ({"protect": Path("m"), "protect_strength": 101.0}, "--protect-strength 101: choose"),
        ({"model": Path("m"), "protect": Path("m")}, "knows no --protect; leave --protect out"),
        ({"model": Path("m"), "tune": "balanced"}, "knows no --tune; leave --tune out"),
        ({"model": Path("m"), "sampling": "4:2:0"}, "knows no --sampling; leave --sampling out"),
        ({"model": Path("m"), "lossless": True}, "knows no --lossless; leave --lossless out"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        BatchSettings(**settings)
