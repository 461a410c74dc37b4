"""Intact image files of every kind that a reader meets, drawn from a seed; small, with odd sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.faults.png import png_bytes

HEIGHT, WIDTH = 37, 45


@dataclass(frozen=True)
class BaseFile:
    """An intact image file: ``name`` says its kind and ends in the suffix of its format."""

    name: str
    data: bytes

    @property
    def suffix(self) -> str:
        """Suffix of the name, with its dot."""
        return "." + self.name.rpartition(".")[2]


def base_files(seed: int = 0) -> list[BaseFile]:
    """All kinds of files, the same bytes for the same seed and versions of the libraries."""
    draw = _Drawing(seed)
    makers = (_png, _jpeg, _bmp, _webp, _others, _tiff, _tiff_by_pillow)
    return [BaseFile(name, data) for maker in makers for name, data in maker(draw).items()]


def scene_files(seed: int = 0) -> list[BaseFile]:
    """TIFF files of one size, (48, 96), as the sensors of a scene give them."""
    draw = _Drawing(seed, 48, 96)
    kinds: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
        "strips.tif": (draw.rgb8(), {"photometric": "rgb", "rowsperstrip": 5}),
        "tiles.tif": (draw.grey16(), {"tile": (16, 16), "compression": "zlib"}),
        "rows.tif": (draw.grey8(), {}),
        "planes.tif": (draw.rgb16().transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate"}),
        "channels.tif": (
            draw.rgb16().transpose(2, 0, 1),
            {"metadata": {"axes": "CYX"}, "compression": "zlib"},
        ),
        "floats.tif": (draw.grey().astype(np.float32), {"compression": "lzw", "predictor": True}),
        "alpha.tif": (draw.rgba8(), {"photometric": "rgb", "extrasamples": ["unassalpha"], "tile": (32, 32)}),
        "white.tif": (draw.grey8(), {"photometric": "miniswhite", "bigtiff": True}),
    }
    files = [BaseFile(name, tiff_bytes(pixels, **options)) for name, (pixels, options) in kinds.items()]
    levels = BytesIO()
    with tifffile.TiffWriter(levels) as tiff:
        pixels = draw.rgb8()
        tiff.write(pixels, photometric="rgb", tile=(16, 16), subifds=1, metadata=None)
        tiff.write(pixels[::2, ::2], photometric="rgb", tile=(16, 16), subfiletype=1, metadata=None)
    return [*files, BaseFile("levels.tif", levels.getvalue())]


def tiff_bytes(pixels: NDArray[Any], **options: Any) -> bytes:
    """A TIFF file as tifffile writes it."""
    file = BytesIO()
    tifffile.imwrite(file, pixels, **{"photometric": "minisblack", **options})
    return file.getvalue()


class _Drawing:
    """Soft waves with some noise and a sharp edge, so that a codec has something to keep."""

    def __init__(self, seed: int, height: int = HEIGHT, width: int = WIDTH) -> None:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x / (3 + k) + y / (7 - k) + 6 * rng.random()) for k in range(4)]
        noise = 0.05 * rng.standard_normal((height, width, 4))
        planes = 0.5 + 0.35 * np.stack(waves, axis=-1) + noise
        planes[x > 0.7 * width] *= 0.5
        self.planes: NDArray[np.float64] = planes.clip(0, 1)  # (H, W, 4)

    def grey(self) -> NDArray[np.float64]:
        return self.planes[..., 0]

    def grey8(self) -> NDArray[np.uint8]:
        return (255 * self.grey()).astype(np.uint8)

    def grey16(self) -> NDArray[np.uint16]:
        return (65535 * self.grey()).astype(np.uint16)

    def levels(self, depth: int) -> NDArray[np.uint8]:
        """Grey of ``depth`` bits."""
        levels: NDArray[np.uint8] = np.rint((2**depth - 1) * self.grey()).astype(np.uint8)
        return levels

    def rgb8(self) -> NDArray[np.uint8]:
        return (255 * self.planes[..., :3]).astype(np.uint8)

    def rgb16(self) -> NDArray[np.uint16]:
        return (65535 * self.planes[..., :3]).astype(np.uint16)

    def rgba8(self) -> NDArray[np.uint8]:
        return (255 * self.planes).astype(np.uint8)

    def image(self, mode: str) -> Image.Image:
        """The image in a mode of Pillow."""
        if mode in {"RGBA", "CMYK"}:
            return Image.frombytes(mode, (self.planes.shape[1], self.planes.shape[0]), self.rgba8().tobytes())
        return Image.fromarray(self.rgb8()).convert(mode)


def _saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _png(draw: _Drawing) -> dict[str, bytes]:
    palette = np.random.default_rng(1).integers(0, 256, (16, 3), np.uint8).tobytes()
    alpha = bytes(range(0, 256, 16))
    grey_alpha = draw.rgba8()[..., 2:]
    rgba16 = (65535 * draw.planes).astype(np.uint16)
    return {
        **{f"grey{depth}.png": png_bytes(draw.levels(depth)[..., None], depth, 0) for depth in (1, 2, 4, 8)},
        "grey16.png": png_bytes(draw.grey16()[..., None], 16, 0),
        "rgb8.png": _saved(draw.image("RGB"), "PNG"),
        "rgb16.png": png_bytes(draw.rgb16(), 16, 2),
        "rgba8.png": _saved(draw.image("RGBA"), "PNG"),
        "rgba16.png": png_bytes(rgba16, 16, 6),
        "grey-alpha.png": png_bytes(grey_alpha, 8, 4),
        "palette4.png": png_bytes(draw.levels(4)[..., None], 4, 3, chunks=[(b"PLTE", palette)]),
        "palette-transparent.png": png_bytes(
            draw.levels(4)[..., None], 8, 3, chunks=[(b"PLTE", palette), (b"tRNS", alpha)]
        ),
        "interlaced.png": png_bytes(draw.rgb8(), 8, 2, interlaced=True),
        "interlaced16.png": png_bytes(draw.grey16()[..., None], 16, 0, interlaced=True),
        "animated.png": _saved(
            draw.image("RGB"), "PNG", save_all=True, append_images=[draw.image("RGB").rotate(180)]
        ),
    }


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "drawn"
    exif.get_ifd(0x8769)[0x9003] = "2024:01:01 00:00:00"
    return exif.tobytes()


def _jpeg(draw: _Drawing) -> dict[str, bytes]:
    grey, rgb = draw.image("L"), draw.image("RGB")
    return {
        "grey.jpg": _saved(grey, "JPEG"),
        "420.jpg": _saved(rgb, "JPEG", subsampling="4:2:0"),
        "422.jpg": _saved(rgb, "JPEG", subsampling="4:2:2"),
        "444.jpg": _saved(rgb, "JPEG", subsampling="4:4:4", quality=95, optimize=True),
        "progressive.jpg": _saved(rgb, "JPEG", progressive=True),
        "progressive-grey.jpg": _saved(grey, "JPEG", progressive=True),
        "restart.jpg": _saved(rgb, "JPEG", restart_marker_blocks=3),
        "exif.jpg": _saved(rgb, "JPEG", exif=_exif(6), dpi=(300, 300), comment=b"drawn"),
        "cmyk.jpg": _saved(draw.image("CMYK"), "JPEG"),
        "rgb.jpg": _saved(rgb, "JPEG", keep_rgb=True),
    }


def _bmp(draw: _Drawing) -> dict[str, bytes]:
    return {f"{mode.lower()}.bmp": _saved(draw.image(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")}


def _webp(draw: _Drawing) -> dict[str, bytes]:
    rgb, rgba = draw.image("RGB"), draw.image("RGBA")
    return {
        "lossy.webp": _saved(rgb, "WEBP"),
        "lossless.webp": _saved(rgb, "WEBP", lossless=True),
        "lossy-alpha.webp": _saved(rgba, "WEBP"),
        "exif.webp": _saved(rgba, "WEBP", lossless=True, exif=_exif(3)),
        "animated.webp": _saved(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(180)]),
    }


def _others(draw: _Drawing) -> dict[str, bytes]:
    rgb = draw.image("RGB")
    return {
        "palette.gif": _saved(rgb, "GIF"),
        "animated.gif": _saved(rgb, "GIF", save_all=True, append_images=[rgb.rotate(180)]),
        "icon.ico": _saved(draw.image("RGBA"), "ICO", sizes=[(16, 16), (32, 32)], bitmap_format="bmp"),
        "grey.ppm": _saved(draw.image("L"), "PPM"),
        "grey.jp2": _saved(draw.image("L"), "JPEG2000"),
        "rgb.jp2": _saved(rgb, "JPEG2000"),
        "rgb.ppm": _saved(rgb, "PPM"),
        "deep.ppm": f"P6 {WIDTH} {HEIGHT} 65535\n".encode() + draw.rgb16().astype(">u2").tobytes(),
    }


_LOSSLESS = ("lzw", "zlib", "adobe_deflate", "packbits", "zstd", "lzma", "png")
_LOSSY = ("jpeg", "webp", "jpeg2000", "jpegxr", "jpegxl")


def _tiff(draw: _Drawing) -> dict[str, bytes]:
    grey, rgb = draw.grey(), {"photometric": "rgb"}
    separate = {**rgb, "planarconfig": "separate"}
    stack = draw.rgb16().transpose(2, 0, 1)  # (C, H, W)
    turned = {str(value): [(0x0112, "H", 1, value, True)] for value in (3, 6, 7)}
    colours = np.random.default_rng(2).integers(0, 65536, (3, 256), np.uint16)
    kinds: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
        "plain": (draw.rgb8(), rgb),
        **{name: (draw.rgb8(), {**rgb, "compression": name}) for name in (*_LOSSLESS, *_LOSSY)},
        "grey1": (grey > 0.5, {}),
        "grey1-packbits": (grey > 0.5, {"compression": "packbits"}),
        "grey4": (draw.levels(4), {"bitspersample": 4}),
        "grey8": (draw.grey8(), {}),
        "grey12": (draw.grey16() >> 4, {"bitspersample": 12}),
        "grey16": (draw.grey16(), {}),
        "grey32": (draw.grey16().astype(np.uint32), {}),
        "signed16": ((draw.grey16() >> 1).astype(np.int16), {}),
        "half": (grey.astype(np.float16), {}),
        "float": (grey.astype(np.float32), {}),
        "double": (grey, {}),
        "float-predictor": (grey.astype(np.float32), {"compression": "zlib", "predictor": True}),
        "lerc": (draw.grey8(), {"compression": "lerc"}),
        "double-lerc": (grey, {"compression": "lerc"}),
        "predictor": (draw.rgb8(), {**rgb, "compression": "lzw", "predictor": True}),
        "planes": (stack, separate),
        "planes-zstd": (stack, {**separate, "compression": "zstd", "predictor": True}),
        "planes-tiles": (stack, {**separate, "compression": "lzw", "tile": (16, 32)}),
        "channels": (stack, {"metadata": {"axes": "CYX"}}),
        "channels-packbits": (
            stack.astype(np.uint8),
            {"metadata": {"axes": "CYX"}, "compression": "packbits"},
        ),
        "channels5": (
            np.concatenate([draw.rgba8(), draw.grey8()[..., None]], axis=-1),
            {"planarconfig": "contig", "compression": "zlib"},
        ),
        "strips": (draw.grey16(), {"rowsperstrip": 5}),
        "strips-lzw": (draw.rgb8(), {**rgb, "rowsperstrip": 7, "compression": "lzw"}),
        "tiles": (draw.rgb8(), {**rgb, "tile": (16, 16)}),
        "tiles-jpeg": (draw.rgb8(), {**rgb, "tile": (16, 16), "compression": "jpeg"}),
        "ycbcr": (draw.rgb8(), {"photometric": "ycbcr", "compression": "jpeg", "subsampling": (2, 2)}),
        "ycbcr-tiles": (draw.rgb8(), {"photometric": "ycbcr", "compression": "jpeg", "tile": (32, 16)}),
        "bigtiff": (draw.rgb8(), {**rgb, "bigtiff": True}),
        "bigtiff-tiles": (draw.grey16(), {"bigtiff": True, "tile": (32, 32), "compression": "zlib"}),
        "big-endian": (draw.grey16(), {"byteorder": ">"}),
        "big-endian-float": (grey.astype(np.float32), {"byteorder": ">", "compression": "zlib"}),
        "white": (draw.grey8(), {"photometric": "miniswhite"}),
        "white16-lzw": (draw.grey16(), {"photometric": "miniswhite", "compression": "lzw"}),
        "palette": (draw.grey8(), {"photometric": "palette", "colormap": colours}),
        "alpha": (draw.rgba8(), {**rgb, "extrasamples": ["unassalpha"]}),
        "cmyk": (draw.rgba8(), {"photometric": "separated"}),
        **{f"turned{key}": (draw.rgb8(), {**rgb, "extratags": tags}) for key, tags in turned.items()},
    }
    files = {f"{name}.tif": tiff_bytes(pixels, **options) for name, (pixels, options) in kinds.items()}
    layouts: dict[str, Callable[[tifffile.TiffWriter], object]] = {
        "pyramid": lambda tiff: _pyramid(tiff, draw),
        "reduced": lambda tiff: _reduced(tiff, draw),
        "pages": lambda tiff: [tiff.write(draw.grey8(), metadata=None) for _ in range(3)],
        "sparse": lambda tiff: _sparse(tiff),
    }
    for name, write in layouts.items():
        file = BytesIO()
        with tifffile.TiffWriter(file) as tiff:
            write(tiff)
        files[f"{name}.tif"] = file.getvalue()
    return files


def _pyramid(tiff: tifffile.TiffWriter, draw: _Drawing) -> None:
    options = {"photometric": "rgb", "tile": (16, 16), "compression": "zlib", "metadata": None}
    tiff.write(draw.rgb8(), subifds=2, **options)
    tiff.write(draw.rgb8()[::2, ::2], subfiletype=1, **options)
    tiff.write(draw.rgb8()[::4, ::4], subfiletype=1, **options)


def _reduced(tiff: tifffile.TiffWriter, draw: _Drawing) -> None:
    """An image with a thumbnail as the second page."""
    tiff.write(draw.grey16(), metadata=None)
    tiff.write(draw.grey16()[::4, ::4], subfiletype=1, metadata=None)


def _sparse(tiff: tifffile.TiffWriter) -> None:
    """Tiles of which every second is left out."""
    tile = np.full((16, 16), 77, np.uint8)
    tiles = [None if number % 2 else tile for number in range(9)]
    tiff.write(iter(tiles), shape=(HEIGHT, WIDTH), dtype=np.uint8, tile=(16, 16), photometric="minisblack")


def _tiff_by_pillow(draw: _Drawing) -> dict[str, bytes]:
    rgb = draw.image("RGB")
    files = {
        f"pillow-{name}.tif": _saved(rgb, "TIFF", compression=name)
        for name in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits")
    }
    return {
        **files,
        "pillow-group4.tif": _saved(draw.image("1"), "TIFF", compression="group4"),
        "pillow-ycbcr.tif": _saved(draw.image("YCbCr"), "TIFF"),
        "pillow-lab.tif": _saved(Image.frombytes("LAB", (WIDTH, HEIGHT), draw.rgb8().tobytes()), "TIFF"),
        "pillow-palette-lzw.tif": _saved(draw.image("P"), "TIFF", compression="tiff_lzw"),
        "pillow-float.tif": _saved(Image.fromarray(draw.grey().astype(np.float32)), "TIFF"),
        "pillow-exif.tif": _saved(rgb, "TIFF", exif=_exif(8), dpi=(300, 300)),
    }
