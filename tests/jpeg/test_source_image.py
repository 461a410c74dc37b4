from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from blemish.data.opening import as_stored, upright
from blemish.errors import ImageError
from blemish.jpeg import from_bytes, to_bytes
from blemish.jpeg.coefficients import Coefficients, Plane
from blemish.jpeg.source_image import decode, metadata_segments, orientation_segment, read_source
from blemish.jpeg.transform import blocks_dct, planes_of, quantise

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def colours(height: int = 5, width: int = 7) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F] = "Maker"
    return tags.tobytes()


def as_jpeg(pixels: NDArray[np.uint8], segments: bytes) -> Image.Image:
    table = np.ones((8, 8), np.uint16)
    planes = tuple(Plane(quantise(blocks_dct(part), table), table) for part in planes_of(pixels, "4:4:4"))
    size = (pixels.shape[1], pixels.shape[0])
    return Image.open(io.BytesIO(to_bytes(Coefficients(*size, planes, "4:4:4"), segments=segments)))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.gif", "a.jp2"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_lossless_files_keep_their_values(tmp_path: Path, name: str, mode: str) -> None:
    if name == "a.gif" and mode == "RGB":
        image = Image.fromarray(colours()).quantize(8)
        image.save(tmp_path / name)
    else:
        image = Image.fromarray(colours()).convert(mode)
        image.convert("L" if (name, mode) == ("a.jp2", "1") else mode).save(tmp_path / name)
    source = read_source(tmp_path / name)
    expected = np.asarray(image.convert("RGB" if mode == "RGB" else "L"))
    if source.pixels.ndim == 3 and mode != "RGB":  # a GIF is always a palette
        expected = np.repeat(expected[:, :, None], 3, 2)
    np.testing.assert_array_equal(source.pixels, expected)
    assert source.pixels.dtype == np.uint8
    assert source.notices == ()


def test_a_palette_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(colours()).quantize(16).save(tmp_path / "a.png")
    expected = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    np.testing.assert_array_equal(read_source(tmp_path / "a.png").pixels, expected)


def test_transparency_is_composed_over_white_and_reported(tmp_path: Path) -> None:
    alpha = np.linspace(0, 255, 35).reshape(5, 7, 1)
    pixels = np.concatenate([colours(), alpha.astype(np.uint8)], 2)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = read_source(tmp_path / "a.png")
    share = pixels[:, :, 3:] / 255
    np.testing.assert_allclose(source.pixels, pixels[:, :, :3] * share + 255 * (1 - share), atol=1)
    (notice,) = source.notices
    assert notice.startswith(f"{tmp_path / 'a.png'}: ")
    assert "over white" in notice


def test_grey_with_alpha_stays_grey(tmp_path: Path) -> None:
    pixels = np.array([[[10, 255], [10, 0]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_source(tmp_path / "a.png").pixels.tolist() == [[10, 255]]


def test_a_transparent_colour_becomes_white(tmp_path: Path) -> None:
    Image.new("RGB", (2, 1), (1, 2, 3)).save(tmp_path / "a.png", transparency=(1, 2, 3))
    source = read_source(tmp_path / "a.png")
    assert source.pixels.tolist() == [[[255] * 3] * 2]
    assert len(source.notices) == 1


def test_opaque_alpha_is_dropped_without_a_notice(tmp_path: Path) -> None:
    pixels = np.concatenate([colours(), np.full((5, 7, 1), 255, np.uint8)], 2)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = read_source(tmp_path / "a.png")
    np.testing.assert_array_equal(source.pixels, pixels[:, :, :3])
    assert source.notices == ()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_orientation_is_kept_or_applied(tmp_path: Path, orientation: int, name: str) -> None:
    pixels = colours()
    Image.fromarray(pixels).save(tmp_path / name, exif=exif(orientation), lossless=True)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / name)))

    kept = read_source(tmp_path / name)
    np.testing.assert_array_equal(kept.pixels, pixels)
    written = as_jpeg(kept.pixels, kept.segments)
    assert written.getexif()[0x0112] == orientation
    assert written.getexif()[0x010F] == "Maker"

    dropped = read_source(tmp_path / name, keep_metadata=False)
    assert dropped.segments == b""
    np.testing.assert_array_equal(dropped.pixels, upright)


def test_a_tiff_is_upright_either_way_and_keeps_its_metadata(tmp_path: Path) -> None:
    pixels = colours()
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = 6, "Maker"
    tags.get_ifd(0x8769)[0x9003] = "2024:01:02 03:04:05"
    Image.fromarray(pixels).save(tmp_path / "a.tif", exif=tags.tobytes())
    for keep in (True, False):
        source = read_source(tmp_path / "a.tif", keep_metadata=keep)
        np.testing.assert_array_equal(source.pixels, np.rot90(pixels, -1))
    kept = as_jpeg(pixels, read_source(tmp_path / "a.tif").segments).getexif()
    assert kept[0x010F] == "Maker"
    assert kept.get_ifd(0x8769) == {0x9003: "2024:01:02 03:04:05"}
    assert 0x0112 not in kept
    assert 0x0100 not in kept  # the layout of the TIFF


def test_orientation_is_applied_where_exif_is_too_long_to_keep(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[0x0112], tags[0x010E] = 3, "x" * 70_000
    pixels = colours()
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=tags)
    source = read_source(tmp_path / "a.png")
    np.testing.assert_array_equal(source.pixels, pixels[::-1, ::-1])
    assert source.segments == b""
    assert "EXIF does not fit" in source.notices[0]


def test_damaged_exif_leaves_the_image_readable(tmp_path: Path) -> None:
    Image.fromarray(colours()).save(tmp_path / "a.png", exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(read_source(tmp_path / "a.png", keep_metadata=False).pixels, colours())


def test_all_metadata_arrive_in_the_file(tmp_path: Path) -> None:
    xmp = b"<x:xmpmeta/>"
    Image.fromarray(colours(32, 32)).save(
        tmp_path / "a.jpg", exif=exif(1), icc_profile=SRGB, comment=b"hello", dpi=(300, 150), xmp=xmp
    )
    source = read_source(tmp_path / "a.jpg")
    assert source.notices == ()
    info = as_jpeg(source.pixels, source.segments).info
    assert info["exif"].removeprefix(b"Exif\0\0") == exif(1).removeprefix(b"Exif\0\0")
    assert info["icc_profile"] == SRGB
    assert info["comment"] == b"hello"
    assert info["dpi"] == (300, 150)
    assert info["xmp"] == xmp


def test_a_long_profile_goes_in_chunks() -> None:
    profile = SRGB[:128] + bytes(range(256)) * 600
    image = Image.new("RGB", (8, 8))
    image.info["icc_profile"] = profile
    segments = metadata_segments(image)
    assert [segments[16 + start : 18 + start] for start in (0, 65537, 131074)] == [b"\1\3", b"\2\3", b"\3\3"]
    assert int.from_bytes(segments[2:4], "big") == 65535
    assert as_jpeg(np.zeros((8, 8, 3), np.uint8), segments).info["icc_profile"] == profile


def test_a_profile_for_other_channels_is_left_out(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png", icc_profile=SRGB)
    source = read_source(tmp_path / "a.png")
    assert source.segments == b""
    assert "colour profile" in source.notices[0]


def test_a_dropped_profile_is_reported(tmp_path: Path) -> None:
    Image.fromarray(colours()).save(tmp_path / "a.png", icc_profile=SRGB)
    assert "colour profile" in read_source(tmp_path / "a.png", keep_metadata=False).notices[0]


def test_a_comment_in_a_png_is_no_jpeg_comment(tmp_path: Path) -> None:
    text = PngInfo()
    text.add_text("Title", "x")
    Image.fromarray(colours()).save(tmp_path / "a.png", pnginfo=text)
    assert read_source(tmp_path / "a.png").segments == b""


def test_of_an_animation_the_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert (read_source(tmp_path / "a.tif").pixels == 10).all()


def test_a_jpeg_reads_as_pillow_reads_it(tmp_path: Path) -> None:
    Image.fromarray(colours(32, 40)).save(tmp_path / "a.jpg", quality=80)
    source = read_source(tmp_path / "a.jpg")
    np.testing.assert_array_equal(source.pixels, np.asarray(Image.open(tmp_path / "a.jpg")))
    assert from_bytes((tmp_path / "a.jpg").read_bytes()).width == 40


def refusals(folder: Path) -> dict[str, Path]:
    """A file for each fault, by what the line has to say."""
    good = io.BytesIO()
    Image.fromarray(colours(64, 64)).save(good, "PNG")
    jpeg = io.BytesIO()
    Image.fromarray(colours(64, 64)).save(jpeg, "JPEG")
    wide = bytearray(good.getvalue())
    wide[16:24] = (50_000).to_bytes(4, "big") * 2
    wide[29:33] = zlib.crc32(wide[12:29]).to_bytes(4, "big")
    files = {
        "empty": b"",
        "not an image": b"some words, long enough to be looked at",
        "damaged": good.getvalue()[:-3000],
        "truncated": jpeg.getvalue()[:-1500],
        "too many pixels": bytes(wide),
    }
    paths = {}
    for number, (words, data) in enumerate(files.items()):
        paths[words] = folder / f"{number}.png"
        paths[words].write_bytes(data)
    deep = np.full((4, 4), 40_000, np.uint16)
    tifffile.imwrite(folder / "pages16.tif", np.stack([deep] * 2), photometric="minisblack")
    tifffile.imwrite(folder / "float.tif", deep.astype(np.float32) / 65535)
    (folder / "rgb16.ppm").write_bytes(b"P6 1 1 65535\n" + b"\x10\x20" * 3)
    Image.new("L", (65_501, 1)).save(folder / "long.png")
    Image.new("LAB", (4, 4)).save(folder / "lab.tif")
    (folder / "folder").mkdir()
    return paths | {
        "more than 8 bits a channel": folder / "pages16.tif",
        "more than 8 bits a channel, ": folder / "float.tif",
        "more than 8 bits a": folder / "rgb16.ppm",
        "65501": folder / "long.png",
        "LAB": folder / "lab.tif",
        "not a regular file": folder / "folder",
        "No such file": folder / "missing.png",
    }


def test_refusals_name_the_file_and_the_remedy_in_one_line(tmp_path: Path) -> None:
    for words, path in refusals(tmp_path).items():
        with pytest.raises(ImageError) as caught:
            read_source(path)
        line = str(caught.value)
        assert line.startswith(f"{path}: ")
        assert words in line
        assert "; " in line
        assert "\n" not in line


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_a_channel_are_rounded_to_8_with_a_notice(tmp_path: Path, name: str, channels: int) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (6, 5, channels), dtype=np.uint16).squeeze()
    if name == "a.png":
        (tmp_path / name).write_bytes(imagecodecs.png_encode(deep))
    else:
        tifffile.imwrite(tmp_path / name, deep, photometric="rgb" if channels == 3 else "minisblack")
    source = read_source(tmp_path / name)
    np.testing.assert_array_equal(source.pixels, np.rint(deep / 257).astype(np.uint8))
    assert source.notices == (
        f"{tmp_path / name}: holds 16 bits a channel; rounded to 8, the most that a JPEG holds",
    )


def test_16_bits_with_alpha_are_composed_over_white_and_keep_their_metadata(tmp_path: Path) -> None:
    deep = np.zeros((1, 2, 4), np.uint16)
    deep[0, 0] = 257 * 100
    deep[0, 0, 3] = 65535
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    assert read_source(tmp_path / "a.png").pixels.tolist() == [[[100] * 3, [255] * 3]]
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "b.png", dpi=(300, 300))
    assert as_jpeg(np.zeros((8, 8, 3), np.uint8), read_source(tmp_path / "b.png").segments).info["dpi"] == (
        300,
        300,
    )


def test_cmyk_becomes_srgb_with_a_notice(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (16, 16), (255, 0, 0, 51))
    cmyk.save(tmp_path / "a.tif")
    source = read_source(tmp_path / "a.tif")
    assert source.pixels[0, 0].tolist() == [0, 204, 204]
    assert "is CMYK; converted to sRGB without a colour profile" in source.notices[0]
    cmyk.save(tmp_path / "b.jpg", quality=100)
    np.testing.assert_allclose(read_source(tmp_path / "b.jpg").pixels[0, 0], [0, 204, 204], atol=4)


def test_cmyk_goes_by_its_own_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cmyk = Image.new("CMYK", (16, 16), (255, 0, 0, 51))
    # A profile of CMYK cannot be made here: what is handed to the colour management is checked instead.
    asked = []

    def convert(image: Image.Image, before: object, after: object, **options: object) -> Image.Image:
        asked.append((image.mode, options["outputMode"]))
        return Image.new("RGB", image.size, (1, 2, 3))

    monkeypatch.setattr(ImageCms, "profileToProfile", convert)
    cmyk.save(tmp_path / "a.jpg", icc_profile=SRGB)
    source = read_source(tmp_path / "a.jpg")
    assert asked == [("CMYK", "RGB")]
    assert source.pixels[0, 0].tolist() == [1, 2, 3]
    assert source.notices == (f"{tmp_path / 'a.jpg'}: is CMYK; converted to sRGB by its colour profile",)
    assert SRGB not in source.segments
    monkeypatch.undo()  # and the profile is of other channels: the plain formula
    assert "without a colour profile" in read_source(tmp_path / "a.jpg").notices[0]


def test_a_jpegs_other_metadata_are_kept(tmp_path: Path) -> None:
    iptc = b"\xff\xed\x00\x1cPhotoshop 3.0\0copyright me"
    manifest = b"\xff\xeb\x00\x10JP\0\1\0\0\0\1jumb.."
    Image.fromarray(colours(16, 16)).save(tmp_path / "a.jpg", comment=b"hello")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[:2] + manifest + iptc + data[2:])
    segments = read_source(tmp_path / "a.jpg").segments
    assert iptc in segments
    assert manifest in segments
    assert segments.count(b"hello") == 1
    assert read_source(tmp_path / "a.jpg", keep_metadata=False).segments == b""


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="regular file"):
        read_source(tmp_path / "pipe.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_kept_pixels_turns_them_upright(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "turned.png"
    Image.fromarray(colours()[..., 0]).save(path, exif=exif(orientation))
    source = read_source(path)
    assert source.orientation == orientation
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(upright(source.pixels, source.orientation), expected)
    np.testing.assert_array_equal(as_stored(expected, source.orientation), source.pixels)
    turned = read_source(path, keep_metadata=False)
    assert turned.orientation == 1
    np.testing.assert_array_equal(turned.pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_alone_as_a_segment(orientation: int) -> None:
    stream = io.BytesIO()
    Image.fromarray(colours()).save(stream, "JPEG", exif=exif(orientation))
    segment = orientation_segment(stream.getvalue())
    if orientation == 1:
        assert segment == b""
        return
    plane = Plane(np.zeros((1, 1, 8, 8), np.int16), np.ones((8, 8), np.uint16))
    with Image.open(io.BytesIO(to_bytes(Coefficients(8, 8, (plane,), "4:4:4"), segments=segment))) as image:
        assert dict(image.getexif()) == {0x0112: orientation}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("content", [b"II", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff1234"])
def test_damaged_exif_has_no_orientation(content: bytes) -> None:
    stream = io.BytesIO()
    Image.fromarray(colours()).save(stream, "JPEG", exif=b"Exif\0\0" + content)
    assert orientation_segment(stream.getvalue()) == b""
    assert decode(stream.getvalue()).shape == colours().shape


@pytest.mark.filterwarnings("error")
def test_own_files_of_any_size_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    Image.fromarray(colours()).save(stream, "JPEG")
    with Image.open(stream) as image:
        expected = np.asarray(image)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    np.testing.assert_array_equal(decode(stream.getvalue()), expected)


def test_the_first_of_several_images_is_taken_with_a_notice(tmp_path: Path) -> None:
    path = tmp_path / "two.tif"
    first, second = (Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 200))
    first.save(path, save_all=True, append_images=[second])
    source = read_source(path)
    assert (source.frames, source.pixels.max()) == (2, 10)
    assert source.notices == (f"{path}: holds 2 images; a JPEG holds one, the first",)


def test_bytes_that_were_read_are_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(colours()).save(path)
    data = path.read_bytes()
    path.unlink()
    np.testing.assert_array_equal(read_source(path, data=data).pixels, colours())
