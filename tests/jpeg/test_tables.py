from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.errors import ModelError, UsageError
from blemish.jpeg.distortion import TUNES
from blemish.jpeg.encoder import Encoder
from blemish.jpeg.entropy import UNZIGZAG
from blemish.jpeg.quality import ssimulacra2
from blemish.jpeg.tables import (
    SHIPPED,
    Knot,
    Ladder,
    annex_k,
    as_json,
    file_table,
    read_ladder,
    shipped_ladder,
)


def flat(value: float) -> list[list[float]]:
    return [[value] * 8] * 8


def small_ladder() -> Ladder:
    low = Knot(quality=1, lam=400, luma=flat(100), chroma=flat(200))
    high = Knot(quality=100, lam=1, luma=flat(1), chroma=flat(2))
    return Ladder(made_with="a test", tunes={"psnr": [low, high]})


@pytest.mark.parametrize("quality", [1, 2, 10, 49, 50, 75, 90, 99, 100])
def test_the_tables_of_annex_k_are_those_that_libjpeg_writes(quality: int) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "jpeg", quality=quality)
    written = Image.open(file).quantization
    for number, table in enumerate(annex_k(quality)):
        assert table.ravel().tolist() == list(written[number])


def test_annex_k_refuses_other_qualities() -> None:
    with pytest.raises(UsageError, match="quality is 0"):
        annex_k(0)


def test_knots_come_back_as_they_are_and_between_them_logarithms_are_interpolated() -> None:
    ladder = small_ladder()
    assert set(ladder.at(1, "psnr").luma) == {100}
    assert set(ladder.at(100, "psnr").chroma) == {2}
    middle = ladder.at(50.5, "psnr")
    assert set(middle.luma) == {10}
    assert set(middle.chroma) == {20}
    assert middle.lam == pytest.approx(20)


def test_chroma_of_full_size_has_steps_twice_as_wide_up_to_255() -> None:
    assert set(small_ladder().at(50.5, "psnr", "4:4:4").chroma) == {40}
    assert set(small_ladder().at(1, "psnr", "4:4:4").chroma) == {255}
    assert set(small_ladder().at(50.5, "psnr", "4:4:4").luma) == {10}


def test_tables_are_in_zigzag_order_inside_and_by_frequency_in_files() -> None:
    luma = np.arange(1.0, 65).reshape(8, 8)
    knots = [Knot(quality=q, lam=1, luma=luma.tolist(), chroma=flat(9)) for q in (1, 100)]
    tables = Ladder(made_with="a test", tunes={"psnr": knots}).at(30, "psnr")
    assert (tables.luma[UNZIGZAG].reshape(8, 8) == luma).all()
    assert (file_table(tables.luma) == luma).all()
    assert file_table(np.full(64, 300.0)).max() == 255
    assert file_table(np.full(64, 0.2)).min() == 1


@pytest.mark.parametrize("quality", [0, 101, float("nan")])
def test_a_ladder_refuses_other_qualities_and_tunes(quality: float) -> None:
    with pytest.raises(UsageError, match="choose a number from 1 to 100"):
        small_ladder().at(quality, "psnr")
    with pytest.raises(UsageError, match="there are psnr"):
        small_ladder().at(50, "ms-ssim")


def test_a_ladder_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "tables.json"
    path.write_text(as_json(small_ladder()), encoding="utf-8")
    assert read_ladder(path) == small_ladder()


def test_bad_files_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "tables.json"
    with pytest.raises(ModelError, match="cannot be read"):
        read_ladder(path)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="made_with: Field required"):
        read_ladder(path)
    content = json.loads(as_json(small_ladder()))
    content["tunes"]["psnr"][0]["luma"][0][0] = 0
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match=r"tunes\.psnr\.0\.luma\.0\.0"):
        read_ladder(path)
    content["tunes"]["psnr"][0] |= {"quality": 5, "luma": flat(9)}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match="do not rise from 1 to 100"):
        read_ladder(path)


def test_of_files_of_one_size_that_tuned_for_ssimulacra2_scores_best() -> None:
    # 256 a side: SSIMULACRA2's weights are for six scales, and of smaller images it takes fewer
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256))
    frequency[0, 0] = 1
    noise = rng.normal(size=(3, 256, 256))
    noise[1:] = 0.8 * noise[:1] + 0.6 * noise[1:]  # colours that are alike
    waves = np.fft.ifft2(np.fft.fft2(noise) / frequency**1.1).real  # a spectrum like a photograph's
    pixels = np.clip(128 + 45 * waves / waves.std(), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    scores = {}
    for tune in TUNES:
        data = Encoder().encode(pixels, target_bpp=1.0, tune=tune).data
        scores[tune] = ssimulacra2(pixels, np.asarray(Image.open(io.BytesIO(data))))
    own = scores.pop("ssimulacra2")
    assert own > max(scores.values()) + 3


def test_the_shipped_tables_become_finer_and_bits_cheaper_with_quality() -> None:
    assert tuple(shipped_ladder().tunes) == TUNES
    assert SHIPPED.stat().st_size < 200_000
    for tune in TUNES:
        points = [shipped_ladder().at(quality, tune) for quality in (1, 15, 30, 50, 70, 85, 95, 100)]
        assert (np.diff([point.lam for point in points]) < 0).all()
        for plane in ("luma", "chroma"):
            assert (np.diff([np.log(getattr(point, plane)).mean() for point in points]) < 0).all()
