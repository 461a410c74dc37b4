"""Change of the number of channels of an image: grey to RGB and back, and without alpha."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blemish.errors import UsageError

_CHANNEL_CHANGES = {(1, 3), (2, 1), (2, 3), (3, 1), (4, 1), (4, 3)}


def check_channels(have: int, want: int) -> None:
    """Raise UsageError unless ``select_channels`` can turn ``have`` channels into ``want``."""
    if have != want and (have, want) not in _CHANNEL_CHANGES:
        raise UsageError(f"an image of {have} channels cannot be turned into one of {want}")


def other_channels(have: int, want: int) -> str:
    """Remedy for an image of ``have`` channels among images of ``want``.

    >>> other_channels(4, 3), other_channels(40, 3)
    ('convert it, or fit with --set image.channels=3', 'leave it out, or save the 3 channels of the others')
    >>> other_channels(3, 4)
    'convert it, or fit with --set image.channels=3, which the others can be turned into'
    """
    if (have, want) in _CHANNEL_CHANGES:
        return f"convert it, or fit with --set image.channels={want}"
    if (want, have) in _CHANNEL_CHANGES:
        return f"convert it, or fit with --set image.channels={have}, which the others can be turned into"
    return f"leave it out, or save the {want} channel{'s' * (want != 1)} of the others"


def select_channels(pixels: NDArray[Any], channels: int) -> NDArray[Any]:
    """Bring pixels (C, H, W) to a number of channels; the type of the pixels stays.

    Grey is repeated to RGB; RGB becomes grey by the luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B;
    alpha (the last of 2 or 4 channels) is dropped.

    Raises
    ------
    UsageError
        Any other change.

    Examples
    --------
    >>> select_channels(np.array([[[255]], [[0]], [[0]]], np.uint8), 1).tolist()
    [[[76]]]
    """
    have = pixels.shape[0]
    check_channels(have, channels)
    if have == channels:
        return pixels
    if have in (2, 4):
        return select_channels(pixels[:-1], channels)
    if channels == 3:
        return np.repeat(pixels, 3, axis=0)
    red, green, blue = pixels.astype(np.float32)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    if np.issubdtype(pixels.dtype, np.integer):
        luma = np.rint(luma)
    grey: NDArray[Any] = luma.astype(pixels.dtype)
    return grey[np.newaxis]
