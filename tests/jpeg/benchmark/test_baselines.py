from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from blemish.errors import BlemishError
from blemish.jpeg.benchmark import baselines
from blemish.jpeg.benchmark.baselines import JPEGLI, MOZJPEG, PILLOW_420, PILLOW_444, find_baselines
from blemish.jpeg.benchmark.codecs import Codec

Pixels = NDArray[np.uint8]
ALL: list[Codec] = [PILLOW_420, PILLOW_444, *MOZJPEG, JPEGLI]


@pytest.fixture(scope="module")
def image() -> Pixels:
    y, x = np.mgrid[:97, :131]
    waves = np.stack([128 + 90 * np.sin(x / (5 + c)) * np.cos(y / 6) for c in range(3)], -1)
    return np.clip(waves + np.random.default_rng(0).normal(0, 6, waves.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def no_cjpeg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(baselines, "_cjpeg_version", baselines._cjpeg_version.__wrapped__)


@pytest.mark.parametrize("encoder", ALL, ids=lambda encoder: encoder.name)
def test_files_open_and_a_higher_quality_is_closer(encoder: Codec, image: Pixels) -> None:
    files = [encoder.encode(image, quality) for quality in (10, 50, 90)]
    errors = []
    for data in files:
        with Image.open(io.BytesIO(data)) as decoded_file:
            assert (decoded_file.format, decoded_file.mode, decoded_file.size) == ("JPEG", "RGB", (131, 97))
            errors.append(float(np.mean((np.asarray(decoded_file, float) - image) ** 2)))
    assert [len(data) for data in files] == sorted(len(data) for data in files)
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("encoder", ALL, ids=lambda encoder: encoder.name)
def test_sampling_is_the_one_named(encoder: Codec, image: Pixels) -> None:
    with Image.open(io.BytesIO(encoder.encode(image, 50))) as decoded_file:
        expected = 0 if encoder is PILLOW_444 else 2
        assert JpegImagePlugin.get_sampling(decoded_file) == expected


@pytest.mark.parametrize("encoder", ALL, ids=lambda encoder: encoder.name)
@pytest.mark.parametrize("shape", [(1, 1), (9, 17), (1, 1, 3), (17, 9, 3)])
def test_grey_and_tiny(encoder: Codec, shape: tuple[int, ...]) -> None:
    pixels = np.full(shape, 77, np.uint8)
    if encoder is JPEGLI and pixels.ndim == 2:
        with pytest.raises(BlemishError, match="jpegli: takes colour images only"):
            encoder.encode(pixels, 90)
        return
    with Image.open(io.BytesIO(encoder.encode(pixels, 90))) as decoded_file:
        decoded = np.asarray(decoded_file)
    assert decoded.shape == shape
    assert np.abs(decoded.astype(int) - 77).max() <= 3


def test_the_pillow_baselines_are_optimised_and_differ_in_sampling(image: Pixels) -> None:
    plain = io.BytesIO()
    Image.fromarray(image).save(plain, "JPEG", quality=60, subsampling=2)
    assert len(PILLOW_420.encode(image, 60)) < len(plain.getvalue()) < len(PILLOW_444.encode(image, 60))


def test_mozjpegs_differ_in_their_tables(image: Pixels) -> None:
    tables = []
    for encoder in MOZJPEG:
        with Image.open(io.BytesIO(encoder.encode(image, 50))) as decoded_file:
            tables.append(decoded_file.quantization[0])
    assert len(set(map(tuple, tables))) == 3
    assert len(set(tables[1])) == 1  # the flat one


def test_names_are_unique_and_descriptions_hold_versions() -> None:
    found, missing = find_baselines()
    names = [one.name for one in (*found, *missing)]
    assert names[: len(ALL)] == [encoder.name for encoder in ALL]
    assert len(set(names)) == len(names)
    assert all(any(c.isdigit() for c in encoder.description) for encoder in found)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("no_cjpeg")
def test_missing_peers_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvips", None)
    monkeypatch.setitem(sys.modules, "pyjpegli", None)
    found, missing = find_baselines()
    assert found == [PILLOW_420, PILLOW_444]
    assert {one.name for one in missing} == {
        "mozjpeg", "mozjpeg-psnr", "mozjpeg-ms-ssim", "jpegli", "cjpeg-psnr", "cjpeg-ms-ssim",
    }  # fmt: skip
    assert next(one.remedy for one in missing if one.name == "jpegli") == "type: pip install pyjpegli"
    assert "pip install" in next(one.remedy for one in missing if one.name == "mozjpeg")


def test_errors_of_libvips_are_one_line() -> None:
    with pytest.raises(BlemishError, match=r"libvips: .*; leave mozjpeg out$") as caught:
        MOZJPEG[0].encode(np.zeros((1, 70000), np.uint8), 50)  # longer than a side of a JPEG can be
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_cjpeg")
def test_libvips_without_the_options_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pixels: Pixels, **options: object) -> bytes:
        raise BlemishError("libvips: jpegsave_buffer does not support optional argument trellis_quant")

    monkeypatch.setattr(baselines, "_vips_jpeg", refuse)
    _, missing = find_baselines()
    assert "built without mozjpeg" in next(one.remedy for one in missing if one.name == "mozjpeg")


@pytest.mark.usefixtures("no_cjpeg")
def test_libvips_without_mozjpeg_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "_vips_jpeg", lambda pixels, **options: b"the same whatever is asked")
    _, missing = find_baselines()
    assert "built without mozjpeg" in next(one.remedy for one in missing if one.name == "mozjpeg")


def cjpeg(folder: Path, version: str) -> None:
    """A stand-in on the PATH: its version, else a JPEG of what comes in with the arguments as a comment."""
    script = folder / "cjpeg"
    script.write_text(
        f"#!{sys.executable}\n"
        "import io, sys\n"
        f"if '-version' in sys.argv: print({version!r}, file=sys.stderr); sys.exit()\n"
        "from PIL import Image\n"
        "if '13' in sys.argv: sys.exit('out of luck')\n"
        "image = Image.open(io.BytesIO(sys.stdin.buffer.read()))\n"
        "image.save(sys.stdout.buffer, 'JPEG', comment=' '.join(sys.argv[1:]))\n"
    )
    script.chmod(0o755)


@pytest.mark.usefixtures("no_cjpeg")
def test_mozjpegs_cjpeg_is_used_if_found(tmp_path: Path, image: Pixels) -> None:
    cjpeg(tmp_path, "mozjpeg version 4.1.1 (build 20240101)")
    found, _ = find_baselines()
    tuned = found[-1]
    assert tuned.name == "cjpeg-ms-ssim"
    with Image.open(io.BytesIO(tuned.encode(image, 40))) as decoded_file:
        assert decoded_file.size == (131, 97)
        assert decoded_file.info["comment"] == b"-quality 40 -sample 2x2 -tune-ms-ssim -quant-table 2"
    with pytest.raises(BlemishError, match="cjpeg: out of luck"):
        tuned.encode(image, 13)


@pytest.mark.usefixtures("no_cjpeg")
def test_another_cjpeg_is_not_used(tmp_path: Path) -> None:
    cjpeg(tmp_path, "libjpeg-turbo version 3.0")
    assert "cjpeg-psnr" in {one.name for one in find_baselines()[1]}
