"""Limits on what files may ask for, in one place; SECURITY.md says what they are for.

A file that asks for more is refused by its header, in one line, before anything is decoded.
"""

from __future__ import annotations

MAX_PIXELS = 400_000_000
"""Pixels of an image that is read into memory."""

MAX_IMAGE_BYTES = 2**31
"""Bytes of such an image once it is decoded: width × height × channels × bytes a value."""

MAX_SCENE_FILE_BYTES = 2**33
"""Bytes of a decoded file of a scene that can only be read as a whole, because its format has no tiles or strips."""

MAX_SEGMENT_BYTES = 64 * 2**20
"""Bytes of a decoded tile or strip of a TIFF that is read by windows; one with larger ones is decoded whole."""

MAX_DEFLATE_RATIO = 1032
"""Bytes that one byte of deflated data can stand for (zlib's technical notes); a PNG that promises more ends early."""

MAX_JPEG_SCANS = 500
"""Scans of a progressive JPEG; each of them is decoded over the whole image, so that many in a small file take hours."""

MAX_SECONDS_OF_NATIVE_CODE = 300.0
"""Seconds that native code may take with one file, in the process of its own that it runs in."""
