from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from blemish.errors import FileError, ImageError, UsageError
from blemish.jpeg import Coefficients, Plane, Sampling, blocks_dct, from_bytes, planes_of, quantise, to_bytes
from blemish.jpeg.coefficients import block_counts
from blemish.jpeg.file import recode

SIZES = [(1, 1), (8, 8), (9, 9), (4, 3), (17, 33), (303, 193)]
KINDS: list[tuple[int, Sampling]] = [(1, "4:4:4"), (3, "4:4:4"), (3, "4:2:0")]


def coefficients(width: int, height: int, planes: int, sampling: Sampling, seed: int = 0) -> Coefficients:
    """Random ones, mostly zero as in an image, each plane with a table of its own."""
    rng = np.random.default_rng(seed)
    parts = []
    for rows, columns in block_counts(width, height, planes, sampling):
        values = rng.normal(0, 3, (rows, columns, 8, 8)) * (rng.random((rows, columns, 8, 8)) < 0.2)
        values[:, :, 0, 0] = rng.integers(-30, 30, (rows, columns))
        table = rng.integers(1, 256, (8, 8)).astype(np.uint16)
        parts.append(Plane(values.astype(np.int16), table))
    return Coefficients(width, height, tuple(parts), sampling)


def photo(height: int = 40, width: int = 56) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(x / a + y / b) for a, b in ((5, 9), (11, 4), (3, 17))]
    noise = np.random.default_rng(3).normal(0, 8, (height, width, 3))
    return np.clip(np.stack(waves, 2) + noise, 0, 255).astype(np.uint8)


def saved(pixels: NDArray[np.uint8], **settings: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **settings)
    return buffer.getvalue()


def of_pixels(pixels: NDArray[np.uint8], sampling: Sampling) -> Coefficients:
    """An image's own coefficients under coarse tables, one for luma and one for chroma."""
    tables = [np.add.outer(np.arange(8), np.arange(8)).astype(np.uint16) * 3 + step for step in (8, 12, 12)]
    planes = zip(planes_of(pixels, sampling), tables, strict=False)
    height, width = pixels.shape[:2]
    parts = tuple(Plane(quantise(blocks_dct(plane), table), table) for plane, table in planes)
    return Coefficients(width, height, parts, sampling)


def by_pillow(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)


def by_imagecodecs(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(imagecodecs.jpeg8_decode(data)).squeeze()


def by_djpeg(data: bytes) -> NDArray[np.uint8]:
    ran = subprocess.run(["djpeg", "-pnm"], input=data, capture_output=True, check=True)
    return by_pillow(ran.stdout)


def decoders() -> list[Callable[[bytes], NDArray[np.uint8]]]:
    """Pillow's, that of imagecodecs, and libjpeg's own program where there is one."""
    return [by_pillow, by_imagecodecs, *([by_djpeg] if shutil.which("djpeg") else [])]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("planes", "sampling"), KINDS)
def test_all_decoders_read_the_same_pixels(size: tuple[int, int], planes: int, sampling: Sampling) -> None:
    width, height = size
    pixels = photo(height, width)
    if planes == 1:
        pixels = pixels[:, :, 0]
    data = to_bytes(of_pixels(pixels, sampling))
    first, *others = (decode(data) for decode in decoders())
    assert first.shape == pixels.shape
    assert len(others) >= 1
    for other in others:
        np.testing.assert_array_equal(first.squeeze(), other.squeeze())
    if sampling == "4:4:4":
        assert np.abs(first.astype(int) - pixels).mean() < 12


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("planes", "sampling"), KINDS)
def test_coefficients_and_tables_come_back(size: tuple[int, int], planes: int, sampling: Sampling) -> None:
    written = coefficients(*size, planes, sampling)
    data = to_bytes(written)
    assert from_bytes(data) == written

    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.size == size
        assert image.mode == ("L" if planes == 1 else "RGB")
        numbers = [number for number, _, _, _ in image.layer]
        assert numbers == [1, 2, 3][:planes]
        for plane, (_, across, down, table) in zip(written.planes, image.layer, strict=True):
            halved = sampling == "4:2:0" and plane is written.planes[0]
            assert (across, down) == ((2, 2) if halved else (1, 1))
            assert image.quantization[table] == plane.table.ravel().tolist()


def test_planes_with_equal_tables_share_one() -> None:
    y, cb, cr = coefficients(16, 16, 3, "4:2:0").planes
    data = to_bytes(Coefficients(16, 16, (y, cb, Plane(cr.coefficients, cb.table)), "4:2:0"))
    with Image.open(io.BytesIO(data)) as image:
        assert sorted(image.quantization) == [0, 1]


def test_largest_coefficients_come_back() -> None:
    rng = np.random.default_rng(4)
    values = rng.choice(np.array([-1023, 1023], np.int16), (2, 2, 8, 8))
    values[:, :, 0, 0] = [[-1024, 1023], [1023, -1024]]
    written = Coefficients(16, 16, (Plane(values, np.ones((8, 8), np.uint16)),), "4:4:4")
    assert from_bytes(to_bytes(written)) == written


def test_the_smaller_of_baseline_and_progressive() -> None:
    tiny, large = to_bytes(coefficients(8, 8, 1, "4:4:4")), to_bytes(from_bytes(saved(photo(400, 560))))
    assert b"\xff\xc0" in tiny
    assert b"\xff\xc2" in large
    optimised = saved(photo(400, 560), optimize=True)
    assert len(large) < min(len(optimised), len(saved(photo(400, 560), progressive=True)))
    assert from_bytes(large) == from_bytes(optimised)


def test_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    from_bytes(to_bytes(coefficients(9, 9, 3, "4:2:0")))
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_temporary_files_is_no_damaged_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = coefficients(9, 9, 3, "4:2:0")
    data = to_bytes(made)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    for use in (lambda: to_bytes(made), lambda: from_bytes(data)):
        with pytest.raises(FileError, match=r"missing: temporary files cannot be written here \(No such"):
            use()


def test_segments_follow_the_jfif_header() -> None:
    written = coefficients(9, 9, 3, "4:4:4")
    comment = b"\xff\xfe\x00\x06\xff\xd9hi"[:8]
    data = to_bytes(written, segments=comment + b"\xff\xe1\x00\x05abc")
    assert data[2:4] == b"\xff\xe0"
    assert data[20:35] == comment + b"\xff\xe1\x00\x05abc"
    assert from_bytes(data) == written
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["comment"] == b"\xff\xd9hi"


def test_a_jfif_header_of_ones_own_replaces_the_usual() -> None:
    jfif = b"\xff\xe0\x00\x10JFIF\0\x01\x01\x01\x01\x2c\x00\x96\x00\x00"
    data = to_bytes(coefficients(9, 9, 1, "4:4:4"), segments=jfif)
    assert data.count(b"JFIF") == 1
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["dpi"] == (300, 150)


@pytest.mark.parametrize(
    "segments",
    [
        b"no marker",
        b"\xff\xfe\x00\x09cut",
        b"\xff\xfe\x00\x04hi trailing",
        b"\xff\xdb\x00\x04hi",
        b"\xff\xfe\x00\x04hi\xff\xd9",
        b"\xff\xff\xfe\x00\x04hi",
        b"\xff\xfe\x00\x01",
    ],
)
def test_refuses_segments_that_are_no_metadata(segments: bytes) -> None:
    with pytest.raises(UsageError, match="APPn and COM"):
        to_bytes(coefficients(8, 8, 1, "4:4:4"), segments=segments)


@pytest.mark.parametrize(
    "settings",
    [
        {"subsampling": "4:2:0"},
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:0", "progressive": True},
        {"subsampling": "4:4:4", "progressive": True, "quality": 100},
        {"subsampling": "4:2:0", "restart_marker_blocks": 2},
        {"subsampling": "4:2:0", "comment": b"\xff\xd8\xff\xdb", "dpi": (10, 10)},
    ],
)
def test_a_rewritten_file_has_the_same_pixels(settings: dict[str, object]) -> None:
    for pixels in (photo(), photo(33, 17), photo()[:, :, 0].copy()):
        data = saved(pixels, **settings)
        rewritten = to_bytes(from_bytes(data))
        before, after = (np.asarray(Image.open(io.BytesIO(each))) for each in (data, rewritten))
        np.testing.assert_array_equal(before, after)


def resampled(data: bytes, factors: int) -> bytes:
    """The file with other luma factors; of a square image the blocks are as many, and mean another image."""
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: frame + 11] + bytes([factors]) + data[frame + 12 :]


def of_any_sampling() -> dict[str, bytes]:
    square = photo(64, 64)
    return {
        "grey": saved(square[:, :, 0].copy()),
        "4:4:4": saved(square, subsampling="4:4:4"),
        "4:2:2": saved(square, subsampling="4:2:2"),
        "4:2:2 progressive": saved(square, subsampling="4:2:2", progressive=True),
        "4:2:0": saved(square, subsampling="4:2:0"),
        "4:4:0": resampled(saved(square, subsampling="4:2:2"), 0x12),
        "4:1:1": resampled(saved(square, subsampling="4:2:0"), 0x41),
        "odd sides": saved(photo(33, 17), subsampling="4:2:2"),
        "restarts": saved(square, subsampling="4:2:2", restart_marker_blocks=2),
    }


@pytest.mark.parametrize("kind", of_any_sampling())
def test_recoded_files_of_any_sampling_are_smaller_and_decode_to_the_same(kind: str) -> None:
    data = of_any_sampling()[kind]
    comment = b"\xff\xfe\x00\x06made"
    recoded = recode(data, segments=comment)
    assert len(recoded) < len(data)
    for decode in decoders():
        np.testing.assert_array_equal(decode(recoded), decode(data))
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(recoded)) as after:
        assert after.layer == before.layer  # sampling and tables
        assert after.quantization == before.quantization
        assert (before.info.get("comment"), after.info["comment"]) == (None, b"made")
    assert recode(recoded, segments=comment) == recoded


def test_a_file_that_mozjpeg_makes_no_smaller_keeps_its_own_scans() -> None:
    tiny = to_bytes(coefficients(8, 8, 1, "4:4:4"))
    assert b"\xff\xc0" in tiny
    assert recode(tiny) == tiny
    assert recode(tiny[:2] + b"\xff\xfe\x00\x06made" + tiny[2:] + b"thumbnail") == tiny


@pytest.mark.parametrize("kind", ["CMYK", "YCCK", "RGB"])
def test_recoded_files_keep_colours_that_are_not_ycbcr(kind: str) -> None:
    if kind == "RGB":
        data = saved(photo(120, 160), keep_rgb=True)
    else:
        stream = io.BytesIO()
        Image.fromarray(photo(120, 160)).convert("CMYK").save(stream, "JPEG", quality=80)
        data = stream.getvalue()
        if kind == "YCCK":  # the last byte of Adobe's marker says so
            at = data.index(b"Adobe") + 11
            data = data[:at] + b"\x02" + data[at + 1 :]
    comment = b"\xff\xfe\x00\x06made"
    recoded = recode(data, segments=comment)
    assert len(recoded) < len(data)
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(recoded)) as after:
        assert after.mode == before.mode
        assert after.info["comment"] == b"made"
        np.testing.assert_array_equal(np.asarray(after), np.asarray(before))
    np.testing.assert_array_equal(imagecodecs.jpeg8_decode(recoded), imagecodecs.jpeg8_decode(data))


def test_files_that_cannot_be_recoded_are_reported_in_one_line() -> None:
    good = saved(photo(), subsampling="4:2:2")
    table = good[good.index(b"\xff\xdb") :][: 2 + 67]
    cases = {
        "is not a JPEG": b"\x89PNG\r\n",
        "breaks off": good[:-2],
        "arithmetic-coded": good.replace(b"\xff\xc0", b"\xff\xc9"),
        "mozjpeg cannot read": resampled(good, 0x00),
        "between scans": good[: good.index(b"\xff\xda")] + b"\xff\xda\x00\x02" + table + b"\xff\xd9",
    }
    for problem, data in cases.items():
        with pytest.raises(ImageError) as caught:
            recode(data, name="folder/part.jpg")
        line = str(caught.value)
        assert line.startswith("folder/part.jpg: ")
        assert problem in line
        assert "\n" not in line
    with pytest.raises(UsageError, match="APPn and COM"):
        recode(good, segments=b"no marker")


def test_reads_past_many_segments_and_trailing_data() -> None:
    data = saved(photo())
    segment = b"\xff\xe5\x00\x10" + b"\xff\xc0" * 7
    assert from_bytes(data[:20] + segment * 200 + data[20:] + b"\xff\xdbthumbnail") == from_bytes(data)


def test_reads_luma_factors_of_a_grey_file_as_1() -> None:
    written = coefficients(17, 9, 1, "4:4:4")
    data = bytearray(to_bytes(written))
    factors = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 11
    assert data[factors] == 0x11
    data[factors] = 0x22
    assert from_bytes(bytes(data)) == written


def test_names_the_file_and_what_is_wrong() -> None:
    good = saved(photo(), progressive=True)
    frame = good.index(b"\xff\xc2")
    second_scan = good.index(b"\xff\xda", good.index(b"\xff\xda") + 2)
    table = good[good.index(b"\xff\xdb") :][: 2 + 67]
    cmyk = io.BytesIO()
    Image.new("CMYK", (8, 8)).save(cmyk, "JPEG")
    cases = {
        "is not a JPEG": b"\x89PNG\r\n",
        "truncated": good[: len(good) // 2],
        "breaks off": good[:-2],
        "CMYK": cmyk.getvalue(),
        "2×1, 1×1, 1×1": saved(photo(), subsampling="4:2:2"),
        "RGB": saved(photo(), keep_rgb=True),
        "12 bits": good[: frame + 4] + b"\x0c" + good[frame + 5 :],
        "arithmetic": good[: frame + 1] + b"\xca" + good[frame + 2 :],
        "56 × 0 pixels": good[: frame + 5] + b"\0\0" + good[frame + 7 :],
        "65535 × 65535 pixels, more than": good[: frame + 5] + b"\xff" * 4 + good[frame + 9 :],
        "frame header": good[: frame + 9] + b"\x02" + good[frame + 10 :],
        "between scans": good[:second_scan] + table + good[second_scan:],
        "holds no image": b"\xff\xd8\xff\xd9",
    }
    for problem, data in cases.items():
        with pytest.raises(ImageError) as caught:
            from_bytes(data, name="folder/part.jpg")
        line = str(caught.value)
        assert line.startswith("folder/part.jpg: ")
        assert problem in line
        assert "\n" not in line


def test_damaged_tables_are_reported_in_one_line() -> None:
    good = saved(photo())
    table = good.index(b"\xff\xdb")
    with pytest.raises(ImageError, match="1 to 255"):
        from_bytes(good[: table + 10] + b"\0" + good[table + 11 :])
    huffman = good.index(b"\xff\xc4")
    with pytest.raises(ImageError, match="damaged"):
        from_bytes(good[: huffman + 5] + b"\xff" * 16 + good[huffman + 21 :])
