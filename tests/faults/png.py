"""PNG files of any depth, colour type and interlacing, which Pillow does not write, and their checksums."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples of a pixel
# (top, left, step down, step right) of the seven passes (PNG 1.2, section 2.6).
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png_bytes(
    samples: NDArray[np.integer],
    depth: int,
    colour_type: int,
    *,
    interlaced: bool = False,
    chunks: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """Encode ``samples`` (H, W, C), each below ``2 ** depth``; ``chunks`` come before the pixels."""
    height, width, channels = samples.shape
    assert channels == _CHANNELS[colour_type]
    passes = (
        [samples[top::down, left::right] for top, left, down, right in _ADAM7] if interlaced else [samples]
    )
    lines = b"".join(_lines(part, depth) for part in passes if part.size)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return SIGNATURE + b"".join(_chunk(kind, content) for kind, content in parts)


def with_valid_checksums(data: bytes) -> bytes:
    """The PNG file ``data`` with the checksum that each chunk should have, as far as the chunks are whole."""
    valid = bytearray(data)
    for start, length in _chunks(data):
        end = start + 8 + length
        valid[end : end + 4] = struct.pack(">I", zlib.crc32(data[start + 4 : end]))
    return bytes(valid)


def _chunks(data: bytes) -> Iterator[tuple[int, int]]:
    """(position, length of the content) of each whole chunk."""
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        if position + 12 + length > len(data):
            return
        yield position, length
        position += 12 + length


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _lines(samples: NDArray[np.integer], depth: int) -> bytes:
    """Lines of pixels, each led by the number of its filter, none."""
    rows = samples.reshape(len(samples), -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8)
    else:
        bits = np.unpackbits(rows.astype(np.uint8)[..., np.newaxis], axis=-1)[..., 8 - depth :]
        packed = np.packbits(bits.reshape(len(rows), -1), axis=-1)
    return b"".join(b"\0" + row.tobytes() for row in packed)
