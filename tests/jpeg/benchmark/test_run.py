from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.errors import BlemishError, FileError, Stopped, UsageError
from blemish.jpeg.benchmark.baselines import PILLOW_420, PILLOW_444
from blemish.jpeg.benchmark.records import CodecEvaluation, CodecRecord
from blemish.jpeg.benchmark.run import EVALUATION_FILE, RECORDS_FILE, REPORT_FILE, TABLE_FILE, evaluate
from blemish.jpeg.benchmark.summary import rate_between
from blemish.observer import Observer
from blemish.storage.records_log import RecordsLog

Pixels = NDArray[np.uint8]
LADDER = (5, 25, 60, 92)
WIDE = (0.01, 20.0)


@dataclass
class Padded:
    """Pillow 4:2:0 with bytes after the end of the image: ``factor`` times the size, the same pixels."""

    factor: float
    name: str = "padded"
    description: str = "first"
    encoded: list[int] = field(default_factory=list)

    def encode(self, pixels: Pixels, quality: int) -> bytes:
        self.encoded.append(quality)
        data = PILLOW_420.encode(pixels, quality)
        return data + bytes(round((self.factor - 1) * len(data)))


class Fussy(Padded):
    def encode(self, pixels: Pixels, quality: int) -> bytes:
        if pixels.shape[1] == 170:
            raise BlemishError("fussy: not an image of this width")
        return super().encode(pixels, quality)


class RecordingObserver(Observer):
    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.problems: list[str] = []
        self.counts = 0

    def problem(self, error: BlemishError) -> None:
        self.problems.append(str(error))

    def count(self, done: int, total: int) -> None:
        self.counts += 1

    def should_stop(self) -> bool:
        return self.stop_after is not None and self.counts >= self.stop_after


def draw(path: Path, seed: int, width: int = 176) -> None:
    y, x = np.mgrid[:168, :width]
    waves = np.stack([128 + 80 * np.sin(x / (6 + seed + c)) * np.cos(y / 9) for c in range(3)], -1)
    noise = np.random.default_rng(seed).normal(0, 6, waves.shape)
    Image.fromarray(np.clip(waves + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    draw(folder / "a.png", 0)
    draw(folder / "b.png", 1, width=170)
    return folder


def run(images: Path, out: Path, *encoders: Padded, **options: object) -> CodecEvaluation:
    settings: dict[str, object] = {
        "qualities": LADDER, "bpp_range": WIDE, "ssimulacra2": False, "lpips": False, "crops": 0, **options,
    }  # fmt: skip
    return evaluate(images, out, encoders=encoders, **settings)  # type: ignore[arg-type]


def test_a_file_of_twice_the_size_is_twice_the_rate(images: Path, tmp_path: Path) -> None:
    found = run(images, tmp_path / "out", Padded(2.0), ssimulacra2=True)
    assert found.images == ("a.png", "b.png")
    for measure in ("psnr_rgb", "psnr_y", "ms_ssim", "ssimulacra2"):
        rate = found.rate("pillow-420", "padded", measure)
        assert rate is not None
        assert rate.images == 2
        assert (rate.mean, rate.low, rate.high) == pytest.approx((100, 100, 100), abs=0.1)
    assert found.rate("pillow-420", "pillow-420", "psnr_rgb") is None
    honest, papers = (found.rate(a, "padded", "psnr_rgb") for a in ("pillow-420", "pillow-444"))
    assert honest is not None
    assert papers is not None
    assert papers.mean < honest.mean  # the papers' baseline flatters
    padded = found.encoders[-1]
    assert [ratio for _, ratio in padded.relative_rate["psnr_rgb"]] == pytest.approx(
        [2.0] * len(padded.relative_rate["psnr_rgb"]), rel=1e-3
    )


def test_records_are_of_the_files(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "out", Padded(1.0))
    records = RecordsLog(tmp_path / "out" / RECORDS_FILE, CodecRecord).records
    assert len(records) == 2 * 3 * len(LADDER)
    pixels = np.asarray(Image.open(images / "b.png"))
    for record in records:
        if record.image == "b.png" and record.encoder == "pillow-444":
            data = PILLOW_444.encode(pixels, record.quality)
            assert record.bytes == len(data)
            assert record.bits_per_pixel == pytest.approx(8 * len(data) / (168 * 170))
            assert record.seconds > 0


def test_an_evaluation_writes_its_files(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = run(images, out, Padded(1.5), crops=2, lpips=True, command="blemish jpeg evaluate <images>")
    assert CodecEvaluation.model_validate(json.loads((out / EVALUATION_FILE).read_text())) == found
    table = (out / TABLE_FILE).read_text()
    for anchor in ("pillow-420", "pillow-444"):
        assert f"## BD-rate against {anchor}" in table
    assert "| padded | +50" in table
    page = (out / REPORT_FILE).read_text()
    assert "blemish jpeg evaluate &lt;images&gt;" in page
    # of two images the original and three encoders, as details and as maps of bits
    assert page.count("data:image/png") == 2 * 2 * 4
    assert "data:image/jpeg" not in page
    assert "https:" not in page
    assert str(tmp_path) not in page + table
    if "LPIPS" in found.missing:
        assert "without LPIPS" in table
        assert "without LPIPS" in page
    assert "+50" in found.in_words()


def test_a_second_run_encodes_nothing_and_finds_the_same(images: Path, tmp_path: Path) -> None:
    first = run(images, tmp_path / "out", Padded(1.5))
    again = Padded(1.5)
    assert run(images, tmp_path / "out", again) == first
    assert again.encoded == []


def test_only_what_is_new_is_measured(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(images, out, Padded(1.5))

    further = Padded(1.5)
    run(images, out, further, qualities=(*LADDER, 40))
    assert [q for q in further.encoded if q != 50] == [40, 40]  # 50 is the warming up

    other = Padded(1.5, description="second")
    run(images, out, other)
    assert len([q for q in other.encoded if q != 50]) == 2 * len(LADDER)

    draw(images / "a.png", 5)
    changed = Padded(1.5)
    run(images, out, changed)
    assert len([q for q in changed.encoded if q != 50]) == len(LADDER)

    anew = Padded(1.5)
    run(images, out, anew, overwrite=True)
    assert len([q for q in anew.encoded if q != 50]) == 2 * len(LADDER)


@dataclass
class Laddered(Padded):
    ladder: tuple[int, ...] = (30, 70)


def test_an_encoder_may_bring_its_own_ladder(images: Path, tmp_path: Path) -> None:
    found = run(images, tmp_path / "out", Laddered(2.0))
    assert {one.name: [point.quality for point in one.points] for one in found.encoders} == {
        "pillow-420": list(LADDER),
        "pillow-444": list(LADDER),
        "padded": [30, 70],
    }
    pixels = np.asarray(Image.open(images / "b.png"))
    records = RecordsLog(tmp_path / "out" / RECORDS_FILE, CodecRecord).records
    own = {one.quality: one.bytes for one in records if (one.encoder, one.image) == ("padded", "b.png")}
    assert own == {quality: 2 * len(PILLOW_420.encode(pixels, quality)) for quality in (30, 70)}


def test_any_two_encoders_can_be_compared_by_their_records(images: Path, tmp_path: Path) -> None:
    found = run(images, tmp_path / "out", Padded(1.5), Padded(3.0, "thrice"))
    records = RecordsLog(tmp_path / "out" / RECORDS_FILE, CodecRecord).records
    twice = rate_between(records, "padded", "thrice", "psnr_rgb", WIDE)
    assert twice is not None
    assert (twice.mean, twice.images) == (pytest.approx(100, abs=0.1), 2)
    assert rate_between(records, "pillow-420", "padded", "ms_ssim", WIDE) == found.rate(
        "pillow-420", "padded", "ms_ssim"
    )
    alone = rate_between(records, "padded", "thrice", "psnr_rgb", WIDE, ["b.png"])
    assert alone is not None
    assert alone.images == 1
    assert rate_between(records, "padded", "nobody", "psnr_rgb", WIDE) is None


def test_a_stopped_run_resumes(images: Path, tmp_path: Path) -> None:
    whole = run(images, tmp_path / "whole", Padded(1.5))
    with pytest.raises(Stopped):
        run(images, tmp_path / "out", Padded(1.5), observer=RecordingObserver(stop_after=2))
    assert len(RecordsLog(tmp_path / "out" / RECORDS_FILE, CodecRecord).records) == 2 * len(LADDER)
    assert run(images, tmp_path / "out", Padded(1.5)).rates == whole.rates


def test_worker_processes_find_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "ab":  # too small for MS-SSIM, so that the processes need not load torch
        Image.fromarray(np.random.default_rng(ord(name)).integers(0, 255, (40, 50), np.uint8)).save(
            folder / f"{name}.png"
        )
    here = run(folder, tmp_path / "here")
    there = run(folder, tmp_path / "there", workers=2)
    assert there.rates == here.rates


def test_a_damaged_image_is_reported_once_and_the_others_go_on(images: Path, tmp_path: Path) -> None:
    (images / "c.png").write_bytes((images / "a.png").read_bytes()[:500])
    observer = RecordingObserver()
    found = run(images, tmp_path / "out", Padded(1.5), observer=observer, crops=3)
    assert found.images == ("a.png", "b.png")
    assert len(observer.problems) == 1
    assert "c.png" in observer.problems[0]


def test_all_are_compared_on_the_same_images(images: Path, tmp_path: Path) -> None:
    observer = RecordingObserver()
    found = run(images, tmp_path / "out", Fussy(1.5, "fussy"), observer=observer)
    assert observer.problems == ["fussy: not an image of this width"]
    assert found.images == ("a.png",)
    assert {rate.images for rate in found.rates} == {1}


@dataclass
class Failing(Padded):
    """Fails as ``error`` says, or gives ``data``."""

    error: Exception | None = None
    data: bytes = b""

    def encode(self, pixels: Pixels, quality: int) -> bytes:
        if self.error is not None:
            raise self.error
        return self.data


@pytest.mark.parametrize(
    ("failing", "words"),
    [
        ({"error": OSError("encoder error -2 when writing image file")}, "encoder error -2 when"),
        ({"data": b"no file"}, "its file cannot be decoded (not a JPEG file)"),
        ({"data": PILLOW_420.encode(np.eye(64, dtype=np.uint8), 50)[:-20]}, "its file cannot be decoded ("),
    ],
)
def test_an_encoder_that_breaks_is_a_line_and_the_others_go_on(
    images: Path, tmp_path: Path, failing: dict[str, Any], words: str
) -> None:
    observer = RecordingObserver()
    encoder = Failing(1.0, "failing", **failing)
    found = run(images, tmp_path / "out", encoder, Padded(1.5), observer=observer, crops=1)
    assert [encoder.name for encoder in found.encoders] == ["pillow-420", "pillow-444", "padded"]
    assert found.missing == {"failing": "it failed on every image"}
    assert len(observer.problems) == 1
    assert observer.problems[0].startswith("failing: ")
    assert words in observer.problems[0]
    assert observer.problems[0].endswith("leave this encoder out")


def test_records_of_the_first_format_are_used_again(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run(images, out, Padded(1.5))
    log = out / RECORDS_FILE
    log.write_text(log.read_text().replace('"image', '"picture'))
    assert '"picture_sha256"' in log.read_text()
    again = Padded(1.5)
    assert run(images, out, again) == first
    assert again.encoded == []


def test_an_encoder_that_always_fails_leaves_the_others_unaffected(images: Path, tmp_path: Path) -> None:
    (images / "a.png").unlink()
    found = run(images, tmp_path / "out", Fussy(1.5, "fussy"), Padded(1.5))
    assert found.images == ("b.png",)
    assert [encoder.name for encoder in found.encoders] == ["pillow-420", "pillow-444", "padded"]
    assert found.missing["fussy"] == "it failed on every image"


def test_grey_and_tiny_images(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30), np.uint8)).save(folder / "a.png")
    found = run(folder, tmp_path / "out", Padded(2.0), crops=1)
    assert found.rate("pillow-420", "padded", "ms_ssim") is None  # which such an image has not
    rate = found.rate("pillow-420", "padded", "psnr_y")
    assert rate is not None
    assert rate.mean == pytest.approx(100, abs=0.5)


def test_a_folder_without_encodable_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not an image")
    with pytest.raises(FileError, match="holds no image that could be encoded"):
        run(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"qualities": (0, 50)}, "0 is not between 1 and 100"),
        ({"qualities": (50, 50)}, "at least two"),
        ({"bpp_range": (1.0, 0.2)}, "the lower first"),
    ],
)
def test_wrong_usage_before_any_work(
    images: Path, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        run(images, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
