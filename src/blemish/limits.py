"""Limits on what files may ask for, in one place; SECURITY.md says what they are for.

A file that asks for more is refused by its header, in one line, before anything is decoded; a recipe, before anything
is trained.
"""

from __future__ import annotations

import re

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

SECONDS_OF_NATIVE_CODE, SECONDS_A_BYTE = 30.0, 5e-6
"""Seconds that native code may take with one file, in the process of its own that it runs in: some, and some a byte."""

MAX_STEPS = 10**9
"""Steps of training, and counts of steps and looks."""

MAX_SECONDS = 10**7
"""Seconds of a budget, four months."""

MAX_BATCH = 2**16
"""Patches of a batch."""

MAX_BATCH_PIXELS = 2**28
"""Pixels of all patches of a batch."""

MAX_PATCH_SIDE = 4096
"""Side of a patch in pixels."""

MAX_IMAGE_SIDE = 2**15
"""Shorter side of an image after resizing, in pixels."""

MAX_CHANNELS = 4096

MAX_SEED = 2**63 - 1
"""Largest seed that every generator takes."""

MAX_SIGMA = 1024.0
"""Standard deviation of a smoothing in pixels; its cost grows with it."""

MAX_PART_SETTING = 10**6
"""Size of any number among the settings of a part, such as a width or a count; the parts set lower ones themselves."""

MAX_NAME = 100
"""Characters of a name that becomes that of files."""

_PLAIN_NAME = re.compile(r"[^\s./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*")


def plain_name(name: str) -> str:
    """``name``, which becomes that of files and folders.

    Raises
    ------
    ValueError
        It could lead elsewhere, or is none: empty, too long, begins with a dot or space, or holds a slash or a control
        character.

    Examples
    --------
    >>> plain_name("ssim-ae, wide")
    'ssim-ae, wide'
    """
    if len(name) > MAX_NAME or not _PLAIN_NAME.fullmatch(name):
        raise ValueError(
            f"{name[:MAX_NAME]!r} is no name: write at most {MAX_NAME} characters without slashes, that do not begin "
            "with a dot or a space"
        )
    return name
