from __future__ import annotations

import os
import warnings
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from blemish.data.channels import select_channels
from blemish.data.image import ImageInfo, LoadedImage, image_info, read_image, resize
from blemish.data.opening import reading
from blemish.errors import ImageError, UsageError

H, W = 9, 7


def noise(dtype: str, *shape: int) -> NDArray[Any]:
    rng = np.random.default_rng(len(shape))
    if dtype.startswith("float"):
        return rng.random(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def info_of(image: LoadedImage) -> ImageInfo:
    return ImageInfo(image.channels, image.kind, image.width, image.height)


def check(path: Path, expected: NDArray[Any]) -> None:
    """The file gives exactly these pixels (C, H, W), and its header says the same."""
    image = read_image(path)
    assert image.pixels.dtype == expected.dtype
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.pixels.flags.c_contiguous
    assert image_info(path) == info_of(image)


def fault(path: Path, **options: int) -> str:
    """The one line that reading the file ends with."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError) as caught:
            read_image(path, **options)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert caught.value.remedy
    return line


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_rgb_is_read_without_loss(tmp_path: Path, suffix: str) -> None:
    pixels = noise("uint8", H, W, 3)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    check(path, pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_grey_is_read_without_loss(tmp_path: Path, suffix: str) -> None:
    pixels = noise("uint8", H, W)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    check(tmp_path / f"a{suffix}", pixels[np.newaxis])


@pytest.mark.parametrize(("suffix", "channels"), [(".png", 2), (".png", 4), (".tif", 2), (".tif", 4)])
def test_alpha_is_a_channel(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels = noise("uint8", H, W, channels)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    check(tmp_path / f"a{suffix}", pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("grey", [True, False])
def test_jpeg_is_what_pillow_decodes(tmp_path: Path, grey: bool) -> None:
    pixels = noise("uint8", H, W) if grey else noise("uint8", H, W, 3)
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path)
    decoded = np.asarray(Image.open(path))
    check(path, decoded[np.newaxis] if grey else decoded.transpose(2, 0, 1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_keeps_its_depth(tmp_path: Path, channels: int) -> None:
    pixels = noise("uint16", H, W, channels)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels.squeeze()))
    check(tmp_path / "a.png", pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_of_any_depth_and_byte_order(tmp_path: Path, dtype: str, byteorder: Any) -> None:
    grey, rgb = noise(dtype, H, W), noise(dtype, H, W, 3)
    tifffile.imwrite(tmp_path / "grey.tif", grey, byteorder=byteorder)
    tifffile.imwrite(tmp_path / "rgb.tif", rgb, byteorder=byteorder, photometric="rgb")
    check(tmp_path / "grey.tif", grey[np.newaxis])
    check(tmp_path / "rgb.tif", rgb.transpose(2, 0, 1))


@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd", "packbits", "jpeg2000", "lerc"])
def test_lossless_tiff_compressions(tmp_path: Path, compression: str) -> None:
    pixels = noise("uint8", 16, 16, 3)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", compression=compression)
    check(tmp_path / "a.tif", pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_become_float32(tmp_path: Path, dtype: str) -> None:
    pixels = noise(dtype, H, W)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    check(tmp_path / "a.tif", pixels[np.newaxis].astype(np.float32))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_many_channels_in_one_page_or_in_pages_called_channels(tmp_path: Path, dtype: str) -> None:
    pixels = noise(dtype, 6, H, W)
    tifffile.imwrite(tmp_path / "p.tif", pixels, photometric="minisblack", planarconfig="separate")
    tifffile.imwrite(
        tmp_path / "c.tif", pixels.transpose(1, 2, 0), photometric="minisblack", planarconfig="contig"
    )
    tifffile.imwrite(tmp_path / "m.tif", pixels, photometric="minisblack", metadata={"axes": "CYX"})
    for name in "pcm":
        check(tmp_path / f"{name}.tif", pixels)


def test_pages_that_may_be_anything_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise("uint8", 6, H, W), photometric="minisblack")
    assert "holds 6 pages" in fault(tmp_path / "a.tif")


def test_black_and_white_becomes_0_and_255(tmp_path: Path) -> None:
    bits = noise("uint8", H, W) > 100
    for suffix in ("png", "tif", "bmp"):
        Image.fromarray(bits).save(tmp_path / f"a.{suffix}")
        check(tmp_path / f"a.{suffix}", np.where(bits, 255, 0).astype(np.uint8)[np.newaxis])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_white_is_zero_is_turned_round(tmp_path: Path, dtype: str) -> None:
    pixels = noise(dtype, H, W)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
    check(tmp_path / "a.tif", (np.iinfo(dtype).max - pixels)[np.newaxis])


def test_palettes_become_colours(tmp_path: Path) -> None:
    index = noise("uint8", H, W) % 4
    colours = noise("uint8", 4, 3)
    image = Image.fromarray(index)
    image.putpalette(colours.tobytes())
    for suffix in ("png", "tif", "bmp"):
        image.save(tmp_path / f"a.{suffix}")
        check(tmp_path / f"a.{suffix}", colours[index].transpose(2, 0, 1))
    image.save(tmp_path / "clear.png", transparency=2)
    alpha = np.where(index == 2, 0, 255).astype(np.uint8)
    check(
        tmp_path / "clear.png",
        np.concatenate([colours[index], alpha[..., np.newaxis]], axis=2).transpose(2, 0, 1),
    )


def test_printers_colours_become_rgb(tmp_path: Path) -> None:
    cmyk = noise("uint8", H, W, 4)
    Image.fromarray(cmyk, mode="CMYK").save(tmp_path / "a.tif")
    black = 255 - cmyk[..., 3].astype(int)
    rgb = (255 - cmyk[..., :3].astype(int)) * black[..., np.newaxis] / 255  # what is left of white paper
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_allclose(image.pixels.transpose(1, 2, 0), rgb, atol=1)
    assert image_info(tmp_path / "a.tif") == info_of(image)


def test_lab_becomes_rgb(tmp_path: Path) -> None:
    lab = np.zeros((H, W, 3), np.uint8)
    lab[..., 0] = 255  # white: full lightness, no colour
    lab_image = Image.frombytes("LAB", (W, H), lab.tobytes())
    lab_image.save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    assert image.pixels.min() >= 254
    assert image_info(tmp_path / "a.tif") == info_of(image) == ImageInfo(3, "uint8", W, H)


UPRIGHT = np.array([[1, 2, 3], [4, 5, 6]])
STORED = {  # Exif 2.32, tag 274: where the stored first row and first column lie in the upright image
    1: [[1, 2, 3], [4, 5, 6]],  # top, left
    2: [[3, 2, 1], [6, 5, 4]],  # top, right
    3: [[6, 5, 4], [3, 2, 1]],  # bottom, right
    4: [[4, 5, 6], [1, 2, 3]],  # bottom, left
    5: [[1, 4], [2, 5], [3, 6]],  # left, top
    6: [[3, 6], [2, 5], [1, 4]],  # right, top
    7: [[6, 3], [5, 2], [4, 1]],  # right, bottom
    8: [[4, 1], [5, 2], [6, 3]],  # left, bottom
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    # blocks of 16 pixels survive JPEG's quantisation
    stored = np.kron(np.array(STORED[orientation]) * 40, np.ones((16, 16))).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(stored).save(path, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    image = read_image(path)
    np.testing.assert_allclose(image.pixels[0, 8::16, 8::16], UPRIGHT * 40, atol=1)
    assert image_info(path) == info_of(image)


@pytest.mark.parametrize("orientation", STORED)
def test_orientation_of_16_bit_files_is_applied(tmp_path: Path, orientation: int) -> None:
    stored = np.repeat(np.array(STORED[orientation], np.uint16)[..., np.newaxis] * 1000, 3, axis=2)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    check(path, np.repeat(UPRIGHT[np.newaxis] * 1000, 3, axis=0).astype(np.uint16))


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    first, second = (Image.fromarray(noise("uint8", H, W, 3) // n) for n in (1, 2))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    check(tmp_path / "a.png", np.asarray(first).transpose(2, 0, 1))


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    pixels = noise("uint8", H, W)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", format="PNG")
    check(tmp_path / "a.jpg", pixels[np.newaxis])


def test_floats_span_the_full_range_of_the_type() -> None:
    path = Path("a.png")
    eight = LoadedImage(path, np.array([[[0, 128, 255]]], np.uint8)).floats()
    sixteen = LoadedImage(path, np.array([[[0, 32768, 65535]]], np.uint16)).floats()
    single = LoadedImage(path, np.array([[[0.0, 0.25, 1.0]]], np.float32)).floats()
    np.testing.assert_array_equal(eight[0, 0], np.array([0, 128 / 255, 1], np.float32))
    np.testing.assert_array_equal(sixteen[0, 0], np.array([0, 32768 / 65535, 1], np.float32))
    np.testing.assert_array_equal(single[0, 0], [0, 0.25, 1])
    assert {eight.dtype, sixteen.dtype, single.dtype} == {np.dtype(np.float32)}


def test_size_is_width_by_height() -> None:
    image = LoadedImage(Path("a.png"), np.zeros((3, 4, 5), np.uint8))
    assert (image.size, image.width, image.height, image.channels) == ((5, 4), 5, 4, 3)


def test_missing_folder_and_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    assert "does not exist" in fault(tmp_path / "none.png")
    assert "is a folder" in fault(tmp_path)
    assert "0 bytes" in fault(tmp_path / "empty.png")


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert "not a regular file" in fault(tmp_path / "a.png")


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert "no permission" in fault(path)


def test_a_file_that_is_not_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello, I am a text")
    Image.new("L", (4, 4)).save(tmp_path / "b.png", format="ICO")
    assert "is not a PNG, JPEG, BMP, TIFF, WebP, GIF" in fault(tmp_path / "a.png")
    assert "is not a PNG, JPEG, BMP, TIFF, WebP, GIF" in fault(tmp_path / "b.png")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise("uint8", 64, 64, 3)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "truncated or damaged" in fault(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_16_bit_and_many_pages_are_refused(tmp_path: Path, share: float) -> None:
    tifffile.imwrite(tmp_path / "rgb.tif", noise("uint16", 32, 32, 3), photometric="rgb")
    tifffile.imwrite(
        tmp_path / "c.tif", noise("uint8", 6, 32, 32), photometric="minisblack", metadata={"axes": "CYX"}
    )
    tifffile.imwrite(tmp_path / "j.tif", noise("uint16", 3, 32, 32), imagej=True, metadata={"axes": "CYX"})
    tifffile.imwrite(tmp_path / "z.tif", noise("uint16", 32, 32), compression="deflate")
    (tmp_path / "rgb.png").write_bytes(imagecodecs.png_encode(noise("uint16", 32, 32, 3)))
    for path in tmp_path.iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        assert "truncated or damaged" in fault(path), path


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("L", (8, 8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (40_000).to_bytes(4, "big") * 2  # 1.6 gigapixels, in front of 64 real ones
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    assert "40000 × 40000" in fault(path)
    with pytest.raises(ImageError, match="more than the 400000000 allowed"):
        image_info(path)


def test_the_limit_counts_pixels(tmp_path: Path) -> None:
    pixels = noise("uint8", H, W, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", noise("uint16", H, W, 3), photometric="rgb")
    assert read_image(tmp_path / "a.png", max_pixels=H * W).size == (W, H)
    assert "more than the 62 allowed" in fault(tmp_path / "a.png", max_pixels=H * W - 1)
    assert "more than the 62 allowed" in fault(tmp_path / "a.tif", max_pixels=H * W - 1)


def test_large_images_give_no_warning_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    for name in ("a.png", "a.jpg", "a.bmp", "a.tif"):
        Image.fromarray(noise("uint8", H, W, 3)).save(tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(tmp_path / name).size == (W, H)


def test_pillows_limit_for_webp_is_reported_in_our_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(noise("uint8", H, W, 3)).save(tmp_path / "a.webp")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    assert "too many pixels" in fault(tmp_path / "a.webp")


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "complex64"])
def test_numbers_of_unknown_range_are_refused(tmp_path: Path, dtype: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((H, W), dtype), photometric="minisblack")
    line = fault(tmp_path / "a.tif")
    assert dtype in line
    assert "0..1" in line


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    pixels = noise("float32", H, W)
    pixels[3, 2] = value
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    assert "NaN or infinite" in fault(tmp_path / "a.tif")


@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (-0.5, 1.0)])
def test_floats_outside_0_to_1_are_refused(tmp_path: Path, low: float, high: float) -> None:
    pixels = np.full((H, W), 0.5, np.float32)
    pixels[0, 0], pixels[1, 1] = low, high
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    line = fault(tmp_path / "a.tif")
    assert f"from {low:g} to {high:g}" in line
    assert "rescale" in line


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_bytes_never_give_anything_but_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise("uint16", H, W, 3), photometric="rgb", compression="deflate")
    tiff = path.read_bytes()
    png = imagecodecs.png_encode(noise("uint16", H, W, 3))
    refused = 0
    for whole in (tiff, png):
        for _ in range(100):
            data = bytearray(whole)
            for at in rng.integers(8, len(data), 3):
                data[at] = rng.integers(256)
            path.write_bytes(data)
            try:
                read_image(path, max_pixels=10_000)
            except ImageError:
                refused += 1
    assert refused > 50


def test_select_channels_keeps_and_repeats_and_drops() -> None:
    grey, rgb, rgba = noise("uint8", 1, H, W), noise("uint8", 3, H, W), noise("uint8", 4, H, W)
    np.testing.assert_array_equal(select_channels(rgb, 3), rgb)
    np.testing.assert_array_equal(select_channels(grey, 3), np.stack([grey[0]] * 3))
    np.testing.assert_array_equal(select_channels(rgba, 3), rgba[:3])
    np.testing.assert_array_equal(select_channels(rgba, 1), select_channels(rgba[:3], 1))
    np.testing.assert_array_equal(select_channels(rgba[2:], 1), rgba[2:3])
    np.testing.assert_array_equal(select_channels(rgba[2:], 3), np.stack([rgba[2]] * 3))


def test_luma_is_that_of_bt601() -> None:
    rgb = noise("uint8", 3, 32, 32)
    luma = select_channels(rgb, 1)
    exact = np.tensordot([0.299, 0.587, 0.114], rgb.astype(float), 1)
    assert luma.dtype == np.uint8
    assert np.abs(luma[0] - exact).max() <= 0.5 + 1e-4
    pillow = np.asarray(Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0))).convert("L"))
    assert np.abs(luma[0].astype(int) - pillow).max() <= 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_grey_stays_itself_through_rgb(dtype: str) -> None:
    grey = noise(dtype, 1, H, W)
    back = select_channels(select_channels(grey, 3), 1)
    assert back.dtype == grey.dtype
    np.testing.assert_allclose(back, grey, rtol=1e-6)


@pytest.mark.parametrize(("have", "want"), [(5, 3), (3, 4), (1, 2), (3, 2), (6, 1)])
def test_other_changes_of_channels_are_refused(have: int, want: int) -> None:
    with pytest.raises(UsageError, match=f"{have} channels .* {want}"):
        select_channels(np.zeros((have, 2, 2), np.uint8), want)


@pytest.mark.parametrize("size", [(3, 5), (16, 8), (33, 31), (9, 7), (20, 3)])
def test_resize_keeps_constants_and_range(size: tuple[int, int]) -> None:
    constant = resize(np.full((2, H, W), 0.3, np.float32), size)
    assert constant.shape == (2, *size)
    assert constant.dtype == np.float32
    np.testing.assert_allclose(constant, 0.3, atol=1e-6)
    random = resize(noise("float32", 2, H, W), size)
    assert random.min() >= 0
    assert random.max() <= 1


def test_resize_takes_height_first_and_treats_channels_equally() -> None:
    pixels = noise("float32", 3, 8, 8)
    resized = resize(pixels, (4, 6))
    assert resized.shape == (3, 4, 6)
    np.testing.assert_array_equal(resized[1], resize(pixels[1:2], (4, 6))[0])
    np.testing.assert_array_equal(resize(pixels, (8, 8)), pixels)


def test_reducing_does_not_alias() -> None:
    # four columns become one; taking only the middle two would give white, not the stripes' mean
    stripes = np.tile(np.float32([0, 1, 1, 0]), (1, 64, 16))  # (1, 64, 64)
    reduced = resize(stripes, (16, 16))
    assert np.abs(reduced[:, :, 1:-1] - 0.5).max() < 1e-6


# -- limits --------------------------------------------------------------------------------------------


def test_bytes_are_limited_and_not_pixels_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((10, 20, 4), np.float64), photometric="rgb")
    assert read_image(path, max_bytes=10 * 20 * 4 * 8).kind == "float32"
    assert "takes 0.0 GB once it is decoded" in fault(path, max_bytes=10 * 20 * 4 * 8 - 1)
    with pytest.raises(ImageError, match="once it is decoded"):
        image_info(path, max_bytes=10 * 20 * 4 * 8 - 1)


def test_a_sparse_tiff_is_not_read_as_black(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tiles = iter([np.ones((16, 16), np.uint8), None, None, None])
    with tifffile.TiffWriter(path) as writer:
        writer.write(tiles, shape=(32, 32), dtype=np.uint8, tile=(16, 16), compression="zlib")
    assert "parts of it were never written" in fault(path)


def test_a_jpeg_of_very_many_scans_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("L", (64, 64)).save(path, progressive=True)
    data = path.read_bytes()
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    path.write_bytes(data[:start] + 600 * scan + data[-2:])
    assert "has 60" in (words := fault(path))
    assert "scans, more than the 500 allowed" in words


def test_files_that_promise_more_than_their_bytes_can_hold_end_early(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("L", (64, 64)).save(path)
    data = bytearray(path.read_bytes())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = (16_000).to_bytes(2, "big") * 2
    path.write_bytes(data)
    assert "the file ends before its pixels" in fault(path)


def test_resizing_takes_one_channel_at_a_time_to_the_same_values() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 31, 47), np.uint8)
    loaded = LoadedImage(Path("a.png"), pixels)
    assert np.array_equal(loaded.resized((16, 20)), resize(loaded.floats(), (16, 20)))
    assert np.array_equal(loaded.resized((31, 47)), loaded.floats())


@pytest.mark.parametrize(
    "error", [AssertionError(), AttributeError("no"), KeyError("x"), Exception("odd"), StopIteration()]
)
def test_whatever_a_decoder_raises_is_the_error_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    for name, decoder in (("a.png", "_decode_pillow"), ("a.tif", "_decode_tiff")):
        path = tmp_path / name
        Image.new("L", (8, 8)).save(path)
        with monkeypatch.context() as patch:
            patch.setattr(f"blemish.data.image.{decoder}", fail)
            assert "is truncated or damaged" in fault(path)
    with pytest.raises(KeyboardInterrupt), reading(Path("a.png")):
        raise KeyboardInterrupt
