"""Rate targets of an encoder: a quality, bits per pixel or an SSIM, at most one of them."""

from __future__ import annotations

import math

from blemish.errors import UsageError

NAMES = ("quality", "target_bpp", "target_ssim")


def check_rate_targets(
    quality: float | None,
    target_bpp: float | None,
    target_ssim: float | None,
    *,
    names: tuple[str, str, str] = NAMES,
) -> None:
    """Refuse more than one target, a quality outside 1 to 100, bits per pixel of 0, an SSIM outside 0 to 1.

    Parameters
    ----------
    names: of the three in error messages.

    Raises
    ------
    UsageError
        One line that names the target.

    Examples
    --------
    >>> check_rate_targets(None, 0.5, None)
    >>> check_rate_targets(120, None, None)
    Traceback (most recent call last):
    ...
    blemish.errors.UsageError: quality is 120; choose a number from 1 to 100
    """
    targets = (quality, target_bpp, target_ssim)
    given = [name for name, value in zip(names, targets, strict=True) if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other; choose one of them")
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"{names[0]} is {quality:g}; choose a number from 1 to 100")
    if target_bpp is not None and not 0 < target_bpp < math.inf:
        raise UsageError(f"{names[1]} is {target_bpp:g}; choose a number above 0, such as 0.5")
    if target_ssim is not None and not 0 < target_ssim < 1:
        raise UsageError(f"{names[2]} is {target_ssim:g}; choose a number between 0 and 1, such as 0.98")
