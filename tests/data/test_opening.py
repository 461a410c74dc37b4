from __future__ import annotations

import ast
import io
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps, UnidentifiedImageError

import blemish
from blemish.data.image import read_image
from blemish.data.opening import (
    PILLOW_FORMATS,
    PLUGINS,
    as_stored,
    damaged,
    exif_orientation,
    file_bytes,
    first_bytes,
    image_format,
    open_with_pillow,
    upright,
)
from blemish.data.windowed import open_windowed
from blemish.errors import ImageError
from blemish.jpeg.source_image import read_source

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


def encoded(format: str, image: Image.Image | None = None) -> bytes:
    buffer = io.BytesIO()
    names = {"PNM": "PPM", "JPEG 2000": "JPEG2000"}
    (image or Image.new("RGB", (6, 4), (10, 200, 30))).save(buffer, names.get(format, format))
    return buffer.getvalue()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The programs that were started, which is prevented."""
    programs: list[object] = []

    def start(program: object, *_: object, **__: object) -> None:
        programs.append(program)
        raise OSError("a program was started")

    for name in ("Popen", "check_call", "check_output", "call", "run"):
        monkeypatch.setattr(subprocess, name, start)
    monkeypatch.setattr(os, "system", start)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: start("gs"))
    return programs


@pytest.mark.parametrize("name", ["drawing.eps", "drawing.png", "drawing.jpg", "drawing.tif"])
def test_no_reader_starts_a_program_for_postscript(tmp_path: Path, name: str, started: list[object]) -> None:
    path = tmp_path / name
    path.write_bytes(POSTSCRIPT)
    with Image.open(path) as image, pytest.raises(OSError):  # noqa: PT011 -- that of the fixture
        image.load()  # as Pillow reads it by default
    assert started
    started.clear()
    for read in (read_image, open_windowed, read_source):
        with pytest.raises(ImageError, match=f"{name}: is not a"):
            read(path)
    with pytest.raises(UnidentifiedImageError):
        open_with_pillow(POSTSCRIPT)
    assert started == []


def test_every_image_is_opened_with_the_formats_that_are_listed() -> None:
    package = Path(blemish.__file__).parent
    calls = [
        (path, call)
        for path in package.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("Image.open")
    ]
    assert calls
    for path, call in calls:
        assert "formats" in {keyword.arg for keyword in call.keywords}, f"{path}:{call.lineno}"


def test_formats_that_start_programs_or_other_readers_are_not_listed() -> None:
    Image.init()
    assert {name for name in Image.OPEN if name not in PILLOW_FORMATS} >= {
        "EPS",
        "BUFR",
        "GRIB",
        "HDF5",
        "IPTC",
    }
    assert {"PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000"} <= PILLOW_FORMATS & set(
        Image.OPEN
    )


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "TGA", "ICO"])
def test_listed_formats_are_decoded_as_pillow_decodes_them(format: str) -> None:
    data = encoded(format)
    with open_with_pillow(data) as image, Image.open(io.BytesIO(data)) as expected:
        assert image.format == expected.format
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


@pytest.mark.parametrize("format", PLUGINS)
def test_the_content_decides_the_format(format: str) -> None:
    data = encoded(format)
    assert image_format(data) == format
    with PLUGINS[format](io.BytesIO(data)) as image:
        assert image.size == (6, 4)


def test_other_content_has_no_format() -> None:
    for start in (b"", b"%!PS", b"GIF", b"P7\n", b"P5x", b"RIFF\0\0\0\0WAVE", b"\x89PNG\n"):
        assert image_format(start) is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_as_pillow_turns_them_and_back(orientation: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    with open_with_pillow(buffer.getvalue()) as stored:
        assert exif_orientation(stored) == orientation
        expected = np.asarray(ImageOps.exif_transpose(stored)).transpose(2, 0, 1)
        planes = np.asarray(stored).transpose(2, 0, 1)  # (C, H, W)
    np.testing.assert_array_equal(upright(planes, orientation), expected)
    np.testing.assert_array_equal(as_stored(expected, orientation), planes)
    np.testing.assert_array_equal(upright(planes[0], orientation), expected[0])


def test_an_invalid_orientation_is_upright() -> None:
    image = Image.new("L", (2, 2))
    assert exif_orientation(image) == 1
    for value in (0, 9, 300):
        image.getexif()[0x0112] = value
        assert exif_orientation(image) == 1


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for name, first, whole in (
        ("none.png", "does not exist; check the path", "cannot be read (No such file or directory)"),
        ("empty.png", "is empty (0 bytes); save it again", "is empty (0 bytes); save it again"),
        ("folder", "is a folder, not an image", "is not a regular file"),
        ("pipe.png", "is not a regular file", "is not a regular file"),
    ):
        for read, words in ((first_bytes, first), (file_bytes, whole)):
            with pytest.raises(ImageError) as caught:
                read(tmp_path / name)
            assert str(caught.value).startswith(f"{tmp_path / name}: {words}")


def test_damage_is_one_short_line(tmp_path: Path) -> None:
    error = damaged(tmp_path, ValueError("of\n several   lines " + "x" * 300))
    assert "is truncated or damaged (of several lines xxx" in str(error)
    assert len(error.problem) < 160
    assert "(KeyError)" in str(damaged(tmp_path, KeyError()))
