from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from blemish.jpeg.segments import (
    bytes_after_end,
    has_manifest,
    metadata_bytes,
    metadata_of,
    other_metadata,
)

IPTC = b"\xff\xed\x00\x1cPhotoshop 3.0\0copyright me"
C2PA = b"\xff\xeb\x00\x10JP\0\1\0\0\0\1jumb.."
IMAGES = b"\xff\xe2\x00\x08MPF\0.."  # a directory of further images
PREVIEW = b"\xff\xe2\x00\x08FPXR.."  # APP2 of another kind
ADOBE = b"\xff\xee\x00\x0eAdobe\0d\0\0\0\0\1"


def jpeg(*segments: bytes, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(stream, "JPEG", **options)  # type: ignore[arg-type]
    data = stream.getvalue()
    return data[:2] + b"".join(segments) + data[2:]


def test_what_nothing_here_reads_is_told_from_what_is_written_anew() -> None:
    data = jpeg(
        C2PA, IMAGES, PREVIEW, ADOBE, IPTC, comment=b"hello", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"
    )
    assert other_metadata(data) == C2PA + PREVIEW + IPTC
    assert has_manifest(data)
    assert not has_manifest(jpeg(IPTC))


def test_metadata_are_copied_with_jfif_first_and_without_places_in_the_old_file() -> None:
    data = jpeg(IPTC, IMAGES, ADOBE, comment=b"hello")
    copied = metadata_of(data)
    assert copied.startswith(b"\xff\xe0")
    assert copied.endswith(IPTC + b"\xff\xfe\x00\x07hello")
    assert IMAGES not in copied
    assert ADOBE not in copied
    assert metadata_bytes(data) == len(IPTC) + len(IMAGES) + 4 + len(b"hello")
    assert metadata_bytes(jpeg()) == 0


@pytest.mark.parametrize(
    ("rest", "expected"), [(b"", 0), (bytes(9), 0), (b"\xff" * 9, 0), (b"ftyp", 4), (bytes(3) + b"a", 4)]
)
def test_padding_behind_the_end_is_not_counted(rest: bytes, expected: int) -> None:
    assert bytes_after_end(jpeg() + rest) == expected


def test_a_damaged_file_has_nothing_to_tell() -> None:
    assert metadata_of(b"no JPEG") == other_metadata(b"no JPEG") == b""
    assert (metadata_bytes(b"\xff\xd8\xff"), bytes_after_end(b"\xff\xd8\xff")) == (0, 0)
