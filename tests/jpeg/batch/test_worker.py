"""What becomes of a JPEG, of what it holds beside its pixels, and of images that would grow; with the encoder itself."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from blemish.jpeg.batch import JOURNAL_FILE, BatchSettings, EncodedFile, encode_folder
from blemish.observer import Observer
from blemish.storage.records_log import RecordsLog

Pixels = NDArray[np.uint8]

IPTC = b"\xff\xed\x00\x1cPhotoshop 3.0\0copyright me"
C2PA = b"\xff\xeb\x00\x10JP\0\1\0\0\0\1jumb.."


class Problems(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def problem(self, error: Exception) -> None:
        self.lines.append(str(error))


def photograph(height: int = 96, width: int = 128, seed: int = 0) -> Pixels:
    rng = np.random.default_rng(seed)
    soft = rng.integers(20, 230, (6, 8, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(soft).resize((width, height), 3)).astype(np.float64)
    return np.clip(image + rng.normal(0, 9, (height, width, 1)), 0, 255).astype(np.uint8)


def drawing() -> Pixels:
    """Thin black lines on white."""
    image = np.full((96, 128), 255, np.uint8)
    image[::7], image[:, ::11] = 0, 0
    return image


def jpeg(path: Path, before: bytes = b"", after: bytes = b"", **options: object) -> Path:
    stream = io.BytesIO()
    Image.fromarray(photograph()).save(stream, "JPEG", **{"quality": 90, **options})  # type: ignore[arg-type]
    data = stream.getvalue()
    path.write_bytes(data[:2] + before + data[2:] + after)
    return path


def pixels_of(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image)


def encode(path: Path, out: Path, **settings: object) -> EncodedFile:
    [file] = encode_folder(path, out, settings=BatchSettings(**settings)).files  # type: ignore[arg-type]
    return file


# -- without loss where that is as small ----------------------------------------------------------------------


@pytest.mark.parametrize("quality", [20, 40])
def test_a_coarse_jpeg_is_recoded_without_loss_instead_of_kept(tmp_path: Path, quality: int) -> None:
    path = jpeg(tmp_path / "a.jpg", quality=quality)
    file = encode(path, tmp_path / "out")
    assert (file.action, file.quality) == ("recoded", None)
    assert file.bytes_after < file.bytes_before
    np.testing.assert_array_equal(pixels_of(tmp_path / "out" / "a.jpg"), pixels_of(path))


def test_lossless_is_taken_where_it_is_no_larger_than_the_new_file(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg", quality=60)
    lossless = encode(path, tmp_path / "lossless", lossless=True)
    lossy = encode(path, tmp_path / "small", quality=10)
    assert (lossless.action, lossy.action) == ("recoded", "encoded")
    assert lossy.bytes_after < lossless.bytes_after
    same = encode(path, tmp_path / "same", quality=75)
    assert same.bytes_after <= lossless.bytes_after
    assert (same.action == "recoded") == (same.bytes_after == lossless.bytes_after)


def test_in_place_loses_no_quality_for_few_bytes(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg", quality=15)
    before = pixels_of(path)
    [file] = encode_folder(path, in_place=True, settings=BatchSettings(quality=50)).files
    assert file.action == "recoded"
    np.testing.assert_array_equal(pixels_of(path), before)


@pytest.mark.parametrize(("subsampling", "expected"), [(0, 0), (1, 0), (2, 2)])
def test_the_sampling_of_a_jpeg_is_kept(tmp_path: Path, subsampling: int, expected: int) -> None:
    path = jpeg(tmp_path / "a.jpg", quality=97, subsampling=subsampling)
    file = encode(path, tmp_path / "out", quality=40)
    assert file.action == "encoded"
    assert file.notices == ()
    with Image.open(tmp_path / "out" / "a.jpg") as image:
        assert get_sampling(image) == expected  # a half that is no half of both sides becomes none


def test_a_smaller_sampling_is_taken_when_asked_for_and_reported(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg", quality=97, subsampling=0)
    file = encode(path, tmp_path / "out", quality=40, sampling="4:2:0")
    assert file.sampling == "4:2:0"
    assert file.notices == (f"{path}: its chroma, of a larger size, is halved to 4:2:0",)


def test_cmyk_is_recoded_without_conversion(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(photograph(200, 240)).convert("CMYK").save(path, quality=90)
    file = encode(path, tmp_path / "out", lossless=True)
    assert (file.action, file.notices) == ("recoded", ())
    with Image.open(tmp_path / "out" / "a.jpg") as image:
        assert image.mode == "CMYK"
    np.testing.assert_array_equal(pixels_of(tmp_path / "out" / "a.jpg"), pixels_of(path))


# -- beside the pixels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"quality": 20}, {"lossless": True}])
def test_segments_that_nothing_here_reads_travel(tmp_path: Path, settings: dict[str, object]) -> None:
    path = jpeg(tmp_path / "a.jpg", before=C2PA + IPTC)
    file = encode(path, tmp_path / "kept", **settings)
    data = (tmp_path / "kept" / "a.jpg").read_bytes()
    assert data.count(IPTC) == data.count(C2PA) == 1
    assert (file.metadata_kept, file.metadata_left_out) == (len(IPTC) + len(C2PA), 0)
    assert any(
        "C2PA manifest is kept, and vouches for the former file alone" in line for line in file.notices
    )
    dropped = encode(path, tmp_path / "dropped", keep_metadata=False, **settings)
    data = (tmp_path / "dropped" / "a.jpg").read_bytes()
    assert IPTC not in data
    assert C2PA not in data
    assert (dropped.metadata_kept, dropped.metadata_left_out) == (0, len(IPTC) + len(C2PA))


@pytest.mark.parametrize("settings", [{}, {"lossless": True}, {"quality": 10}])
def test_bytes_behind_the_end_are_refused_in_place(tmp_path: Path, settings: dict[str, object]) -> None:
    path = jpeg(tmp_path / "a.jpg", after=b"ftypmp42 a video")
    before, problems = path.read_bytes(), Problems()
    done = encode_folder(path, in_place=True, settings=BatchSettings(**settings), observer=problems)  # type: ignore[arg-type]
    assert done.files == ()
    assert problems.lines == [
        f"{path}: holds 16 bytes behind its end, such as a video, and in place they would be lost; use --out"
    ]
    assert path.read_bytes() == before


def test_bytes_behind_the_end_that_are_left_out_are_reported(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg", after=b"ftypmp42 a video")
    file = encode(path, tmp_path / "out", quality=20)
    assert file.notices == (f"{path}: holds 16 bytes behind its end, such as a video; they are left out",)
    assert file.after_end_left_out == 16
    assert b"a video" not in (tmp_path / "out" / "a.jpg").read_bytes()


def test_padding_behind_the_end_is_nothing_to_lose(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg", after=bytes(4096))
    [file] = encode_folder(path, in_place=True, settings=BatchSettings(lossless=True)).files
    assert (file.notices, file.after_end_left_out) == ((), 0)


def test_the_summary_adds_up_what_was_kept_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    jpeg(tmp_path / "in" / "a.jpg", before=IPTC * 40, after=b"v" * 2000)
    jpeg(tmp_path / "in" / "b.jpg", quality=10)
    kept = encode_folder(tmp_path / "in", tmp_path / "1", settings=BatchSettings(quality=40))
    assert "; 1 recoded without loss" in kept.in_words()
    assert "; 1.2 kB of metadata kept; 2.0 kB behind the end of 1 file left out" in kept.in_words()
    dropped = encode_folder(
        tmp_path / "in", tmp_path / "2", settings=BatchSettings(quality=40, keep_metadata=False)
    )
    assert "; 1.2 kB of metadata left out" in dropped.in_words()


# -- formats and folders --------------------------------------------------------------------------------------


def test_a_drawing_that_would_grow_is_kept_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    Image.fromarray(drawing()).convert("1").save(path)
    out = tmp_path / "out"
    file = encode(path, out)
    assert (file.action, file.output, file.bytes_after) == ("kept", "a.png", path.stat().st_size)
    assert (out / "a.png").read_bytes() == path.read_bytes()
    assert file.notices[0].startswith(f"{path}: kept as it is, for a JPEG would have ")
    assert sorted(one.name for one in out.iterdir()) == ["a.png", JOURNAL_FILE]
    again = encode_folder(path, out)
    assert again.done_before == 1
    assert again.files == (file,)


def test_a_drawing_whose_metadata_are_dropped_is_encoded_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(drawing()).convert("1").save(path)
    file = encode(path, tmp_path / "out", keep_metadata=False)
    assert (file.action, file.output) == ("encoded", "a.jpg")
    assert f"grows from {file.bytes_before} to {file.bytes_after} bytes" in file.notices[0]


def test_a_folder_is_searched_for_all_kinds_and_others_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    image = Image.fromarray(photograph(40, 48))
    for name, kind in (
        ("a.jfif", "JPEG"),
        ("b.jpe", "JPEG"),
        ("d.ppm", "PPM"),
        ("e.tga", "TGA"),
        ("f.bmp", "BMP"),
    ):
        image.save(folder / name, kind)
    frames = [Image.fromarray(photograph(40, 48, seed)) for seed in range(2)]
    frames[0].save(folder / "c.gif", save_all=True, append_images=frames[1:])
    for name in ("x.heic", "y.heic", "z.psd"):
        (folder / name).write_bytes(b"?")
    done = encode_folder(folder, tmp_path / "out")
    assert [file.output for file in done.files] == ["a.jfif", "b.jpe", "c.jpg", "d.jpg", "e.jpg", "f.jpg"]
    assert "holds 2 images; a JPEG holds one, the first" in done.files[2].notices[0]
    assert done.passed_over == (
        "Passed over, because files of these kinds are not read: 2 .heic, 1 .psd; convert them to PNG or TIFF",
    )


def test_an_image_that_lies_where_its_output_would_has_the_right_reason(tmp_path: Path) -> None:
    from blemish.errors import UsageError

    path = jpeg(tmp_path / "a.jpg")
    with pytest.raises(
        UsageError, match=r"a\.jpg: lies where its output would; give another --out, or --in-place"
    ):
        encode_folder(path, tmp_path)
    Image.fromarray(photograph()).save(tmp_path / "b.png")
    encode_folder(tmp_path / "b.png", tmp_path)  # whose output lies beside it
    assert (tmp_path / "b.jpg").exists()


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """A child that dies while it writes; its name tells that it is gone."""
    path, out = jpeg(tmp_path / "a.jpg"), tmp_path / "out"
    out.mkdir()
    script = (
        "import os, signal, sys\n"
        "from blemish.storage.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(out / "b.jpg")], check=False)
    assert [one.name for one in out.iterdir() if one.name.startswith(".part-")]
    encode_folder(path, out)
    assert sorted(one.name for one in out.iterdir()) == ["a.jpg", JOURNAL_FILE]


def test_lines_of_earlier_logs_are_read(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILE).write_text(
        '{"input":"a.jpg","input_sha256":"0","output":"a.jpg","output_sha256":"1","settings":"{}","action":"encoded",'
        '"bytes_before":9,"bytes_after":5,"bits_per_pixel":1.0,"quality":75.0,"notices":[],"protection":null}\n'
    )
    [record] = RecordsLog(tmp_path / JOURNAL_FILE, EncodedFile).records
    assert (record.sampling, record.metadata_kept) == (None, 0)
