"""Headers of formats by their bytes, and values of more than 8 bits where Pillow would keep 8: PNG, PNM, JPEG 2000."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PNM = re.compile(rb"P([2356])\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)\s")
_HEADER = 2**16
"""Bytes in which the header of a file lies."""
_PNG_CHANNELS = {2: 3, 4: 2, 6: 4}
"""Channels by the colour type of a PNG: RGB, grey with alpha, RGBA."""


def png_bits_a_pixel(start: bytes) -> int:
    """Bits of each pixel of a PNG, by its first bytes: the IHDR chunk always comes first."""
    return start[24] * _PNG_CHANNELS.get(start[25], 1)


def png_channels(start: bytes) -> int | None:
    """Channels of a PNG with 16 bits each; None of another one."""
    return _PNG_CHANNELS.get(start[25]) if start[24] == 16 else None


def decode_png(path: Path, channels: int) -> NDArray[np.uint16]:
    """Pixels (C, H, W) of a PNG with 16 bits a channel."""
    import imagecodecs

    array: NDArray[np.uint16] = imagecodecs.png_decode(path.read_bytes())  # (H, W, C)
    return array.transpose(2, 0, 1)[:channels]


def bmp_bytes(start: bytes) -> int:
    """Bytes that the pixels of a BMP take, by its first bytes; 0 of a compressed one, or one of OS/2."""
    if int.from_bytes(start[14:18], "little") < 40 or int.from_bytes(start[30:34], "little") not in (0, 3):
        return 0
    width, height = (
        abs(int.from_bytes(start[place : place + 4], "little", signed=True)) for place in (18, 22)
    )
    row = -(-width * int.from_bytes(start[28:30], "little") // 32) * 4
    return row * height


def pnm_header(path: Path) -> tuple[int, int, int] | None:
    """Channels, width and height of a PNM file with values above 255; None of another one."""
    with path.open("rb") as file:
        header = _PNM.match(file.read(_HEADER))
    if header is None or int(header[4]) <= 255:
        return None
    return 3 if header[1] in b"36" else 1, int(header[2]), int(header[3])


def decode_pnm(path: Path) -> NDArray[np.uint16]:
    """Pixels (C, H, W) of a PNM file with values above 255, whose largest value becomes 65535.

    Raises
    ------
    EOFError, ValueError
        The file ends before its pixels, or holds other values than it says.
    """
    data = path.read_bytes()
    header = _PNM.match(data)
    if header is None:
        raise ValueError("no header of a PNM file")
    kind, (width, height, largest) = header[1], (int(header[place]) for place in (2, 3, 4))
    channels = 3 if kind in b"36" else 1
    count = width * height * channels
    if kind in b"23":
        values = np.array(data[header.end() :].split()[:count], np.int64)
    else:
        values = np.frombuffer(data, ">u2", min(count, (len(data) - header.end()) // 2), header.end()).astype(
            np.int64
        )
    if len(values) < count:
        raise EOFError("the file ends before its pixels")
    if values.max(initial=0) > largest or largest > 65535:
        raise ValueError("values above the largest one that the header names")
    scaled = values if largest == 65535 else (values * 65535 + largest // 2) // largest
    return scaled.astype(np.uint16).reshape(height, width, channels).transpose(2, 0, 1)


def jpeg_2000_bits(path: Path) -> int:
    """Largest number of bits of a component of a JPEG 2000 file (T.800, A.5.1).

    Raises
    ------
    EOFError
        The file has no such marker, or ends within it.
    """
    with path.open("rb") as file:
        data = file.read(_HEADER)
    start = data.find(b"\xff\x4f\xff\x51")
    components = int.from_bytes(data[start + 40 : start + 42], "big")
    depths = data[start + 42 : start + 42 + 3 * components : 3]
    if start < 0 or not depths:
        raise EOFError("no header of a JPEG 2000 file")
    return max((depth & 127) + 1 for depth in depths)


def is_ycc(path: Path) -> bool:
    """Whether a JPEG 2000 file names luma and chroma as its colour space (T.800, I.5.3.3)."""
    with path.open("rb") as file:
        data = file.read(_HEADER)
    start = data.find(b"colr")
    return start >= 0 and data[start + 4] == 1 and int.from_bytes(data[start + 7 : start + 11], "big") == 18


def decode_jpeg_2000(path: Path) -> NDArray[Any]:
    """Pixels (C, H, W) of a JPEG 2000 file, in the type that it holds."""
    import imagecodecs

    array: NDArray[Any] = imagecodecs.jpeg2k_decode(path.read_bytes())
    return array[np.newaxis] if array.ndim == 2 else array.transpose(2, 0, 1)
