from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from blemish.errors import ModelError, UsageError
from blemish.jpeg.coefficients import Sampling
from blemish.jpeg.distortion import TUNES, luma_ssim, ms_ssim_sensitivity, pyramid
from blemish.jpeg.encoder import Encoded, Encoder
from blemish.jpeg.file import from_bytes
from blemish.jpeg.tables import file_table

ENCODER = Encoder()


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Soft colours, an edge, and grain that grows to the right: uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    soft = rng.integers(30, 220, (5, 6, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(soft).resize((width, height), 3)).astype(np.float64)
    image[height // 2 :, width // 3 : width // 2] += 40
    image += rng.normal(0, 1, (height, width, 1)) * np.linspace(1, 20, width)[:, None]
    image += rng.normal(0, 4, (height, width, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def decoded(encoded: Encoded) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded.data)))


def squared_error(pixels: np.ndarray, data: bytes) -> float:
    again = np.asarray(Image.open(io.BytesIO(data)), np.float64)
    return float(((again - pixels) ** 2).mean())


def luma(pixels: np.ndarray) -> np.ndarray:
    return (pixels @ np.array([0.299, 0.587, 0.114])).astype(np.float32)


@pytest.mark.parametrize("tune", TUNES)
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 33), (40, 64)])
def test_any_size_becomes_a_file_with_the_tables_of_its_quality(
    size: tuple[int, int], sampling: Sampling, tune: str
) -> None:
    pixels = photograph(*size)
    encoded = ENCODER.encode(pixels, quality=80, tune=tune, sampling=sampling)
    assert decoded(encoded).shape == (*size, 3)
    assert from_bytes(encoded.data) == encoded.coefficients
    assert encoded.coefficients.sampling == sampling
    assert encoded.bits_per_pixel == 8 * len(encoded.data) / (size[0] * size[1])
    tables = ENCODER.ladder.at(80, tune, sampling)
    written = [plane.table.tolist() for plane in encoded.coefficients.planes]
    expected = [file_table(table).tolist() for table in (tables.luma, tables.chroma, tables.chroma)]
    assert written == expected


@pytest.mark.parametrize("tune", TUNES)
def test_grey_images_become_grey_files(tune: str) -> None:
    pixels = photograph(30, 50)[..., 1]
    encoded = ENCODER.encode(pixels, quality=90, tune=tune)
    assert decoded(encoded).shape == (30, 50)
    assert squared_error(pixels, encoded.data) < 40


EXTREMES = {
    "black": np.zeros((1, 1, 3), np.uint8),
    "white": np.full((23, 19, 3), 255, np.uint8),
    "red": np.tile(np.array([255, 0, 0], np.uint8), (11, 12, 1)),
    "grey noise": np.random.default_rng(0).integers(0, 256, (33, 47), np.uint8),
    "noise of black and white": 255 * np.random.default_rng(1).integers(0, 2, (35, 18, 3), np.uint8),
}


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("quality", [1, 100])
def test_extremes_become_files_that_decoders_agree_on(name: str, sampling: Sampling, quality: float) -> None:
    pixels = EXTREMES[name]
    for tune in TUNES:
        encoded = ENCODER.encode(pixels, quality=quality, tune=tune, sampling=sampling)
        again = decoded(encoded)
        assert again.shape == pixels.shape
        other = np.asarray(imagecodecs.jpeg8_decode(encoded.data))
        np.testing.assert_array_equal(again.squeeze(), other.squeeze())
        assert from_bytes(encoded.data) == encoded.coefficients
        flat = pixels.std(axis=(0, 1)).max() == 0
        if quality == 100 and (flat or pixels.ndim == 2):
            assert np.abs(again.astype(int) - pixels).mean() < 2


def test_a_side_longer_than_a_jpegs_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="65501 × 1 pixels; a JPEG has at most 65500 a side"):
        ENCODER.encode(np.zeros((1, 65_501), np.uint8))


def test_memory_is_less_than_40_bytes_a_pixel() -> None:
    pixels = photograph(1024, 1024)
    ENCODER.encode(pixels[:64, :64])  # what is made once
    tracemalloc.start()
    try:
        ENCODER.encode(pixels, quality=90)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 40 * 1024**2


def test_more_quality_is_more_bits_and_less_error() -> None:
    pixels = photograph(64, 80)
    for tune in TUNES:
        files = [ENCODER.encode(pixels, quality=quality, tune=tune).data for quality in (5, 30, 60, 85, 100)]
        assert (np.diff([len(data) for data in files]) > 0).all()
        assert (np.diff([squared_error(pixels, data) for data in files]) < 0).all()


def test_at_the_size_of_libjpegs_file_the_error_is_smaller() -> None:
    pixels = photograph(192, 192)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=60, subsampling="4:2:0", optimize=True)
    theirs = file.getvalue()
    ours = ENCODER.encode(pixels, target_bpp=8 * len(theirs) / 192**2, tune="psnr")
    assert squared_error(pixels, ours.data) < 0.9 * squared_error(pixels, theirs)


def test_each_tune_is_best_at_its_own_measure() -> None:
    pixels = photograph(176, 192)
    files = {tune: ENCODER.encode(pixels, target_bpp=1.0, tune=tune) for tune in TUNES}
    errors = {tune: squared_error(pixels, encoded.data) for tune, encoded in files.items()}
    scales = pyramid(luma(pixels) - 128)
    losses = {
        tune: ms_ssim_sensitivity(scales, pyramid(luma(decoded(encoded)) - 128)).loss
        for tune, encoded in files.items()
    }
    assert errors["psnr"] < errors["balanced"] < errors["ms-ssim"]
    assert losses["ms-ssim"] < losses["balanced"] < losses["psnr"]


@pytest.mark.parametrize("target", [0.6, 3.0])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
def test_a_target_of_bits_is_met_within_one_percent(target: float, sampling: Sampling) -> None:
    encoded = ENCODER.encode(photograph(96, 96), target_bpp=target, sampling=sampling)
    assert encoded.bits_per_pixel == pytest.approx(target, rel=0.0101)
    assert encoded.notice == ""


@pytest.mark.parametrize("target", [0.7, 0.95])
def test_a_target_of_ssim_is_met_within_one_percent(target: float) -> None:
    pixels = photograph(96, 96)
    encoded = ENCODER.encode(pixels, target_ssim=target, tune="ms-ssim")
    measured = luma_ssim(luma(pixels) - 128, luma(decoded(encoded)) - 128)
    assert encoded.ssim == pytest.approx(measured, abs=1e-6)
    assert 1 - measured == pytest.approx(1 - target, rel=0.0101)
    assert encoded.notice == ""


def test_a_target_of_ssim_is_for_images_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses more than twice as many
    assert ENCODER.encode(photograph(48, 48), target_ssim=0.9).notice == ""


def test_targets_out_of_reach_give_the_nearest_and_a_notice() -> None:
    pixels = photograph(64, 64)
    smallest, largest = (ENCODER.encode(pixels, quality=quality).data for quality in (1, 100))
    low, high = (ENCODER.encode(pixels, target_bpp=target) for target in (0.001, 500))
    assert (low.data, high.data) == (smallest, largest)
    assert "0.001 bits per pixel is out of reach; the nearest is" in low.notice
    assert "500 bits per pixel is out of reach" in high.notice
    blurred = ENCODER.encode(pixels, target_ssim=0.01)
    assert blurred.data == smallest
    assert "an SSIM of 0.01 is out of reach" in blurred.notice


def test_segments_are_kept_and_counted() -> None:
    comment = b"\xff\xfe\x00\x08flawed"
    plain = ENCODER.encode(photograph(32, 32), quality=50)
    with_it = ENCODER.encode(photograph(32, 32), quality=50, segments=comment)
    assert Image.open(io.BytesIO(with_it.data)).info["comment"] == b"flawed"
    assert len(with_it.data) == len(plain.data) + len(comment)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quality": 0}, "quality is 0; choose a number from 1 to 100"),
        ({"quality": float("nan")}, "quality is nan"),
        ({"target_bpp": 0}, "target_bpp is 0"),
        ({"target_bpp": float("inf")}, "target_bpp is inf"),
        ({"target_ssim": 1}, "target_ssim is 1"),
        ({"quality": 50, "target_bpp": 1}, "quality and target_bpp exclude each other; choose one"),
        ({"tune": "psn"}, "did you mean 'psnr'"),
        ({"sampling": "4:2:2"}, "there are 4:4:4 and 4:2:0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ENCODER.encode(photograph(8, 8), **settings)


@pytest.mark.parametrize(
    "pixels", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4))]
)
def test_arrays_that_are_no_image_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(UsageError, match="JPEG"):
        ENCODER.encode(pixels)


def test_tables_of_ones_own_are_read_from_a_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        Encoder(tmp_path / "none.json")


def test_chroma_keeps_its_full_size_where_that_pays() -> None:
    fine = np.full((96, 96, 3), 100, np.uint8)
    fine[:, ::2] = (220, 40, 60)  # red lines of one pixel, which halving makes one colour
    for tune in TUNES:
        assert ENCODER.encode(fine, quality=85, tune=tune, sampling="auto").coefficients.sampling == "4:4:4"
    chosen = ENCODER.encode(fine, quality=85, tune="psnr", sampling="auto")
    halved = ENCODER.encode(fine, target_bpp=chosen.bits_per_pixel, tune="psnr", sampling="4:2:0")
    assert squared_error(fine, chosen.data) < 0.5 * squared_error(fine, halved.data)
    soft = photograph(96, 96)
    assert ENCODER.encode(soft, quality=30, sampling="auto").data == ENCODER.encode(soft, quality=30).data
    assert ENCODER.encode(soft[..., 0], sampling="auto").coefficients.sampling == "4:4:4"  # grey has no other


def test_importance_moves_bits_to_where_it_is_high() -> None:
    rng = np.random.default_rng(5)
    pixels = rng.normal(128, 30, (64, 96, 3)).clip(0, 255).astype(np.uint8)
    importance = np.ones((8, 12), np.float32)
    importance[:, :6], importance[:, 6:] = 8, 1 / 8
    plain = Encoder().encode(pixels, quality=50)
    moved = Encoder().encode(pixels, quality=50, importance=importance)
    for before, after in zip(plain.coefficients.planes, moved.coefficients.planes, strict=True):
        half = before.coefficients.shape[1] // 2
        kept = [np.count_nonzero(plane.coefficients[:, :half]) for plane in (before, after)]
        dropped = [np.count_nonzero(plane.coefficients[:, half:]) for plane in (before, after)]
        assert kept[1] > kept[0]
        assert dropped[1] < dropped[0]


def test_importance_has_one_number_above_0_for_each_block() -> None:
    pixels = np.zeros((9, 17, 3), np.uint8)
    with pytest.raises(UsageError, match=r"importance is \(1, 2\); one number for each of \(2, 3\) blocks"):
        Encoder().encode(pixels, importance=np.ones((1, 2), np.float32))
    with pytest.raises(UsageError, match="finite and above 0"):
        Encoder().encode(pixels, importance=np.zeros((2, 3), np.float32))
