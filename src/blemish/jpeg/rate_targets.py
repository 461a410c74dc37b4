"""What an encode may aim at: a quality, a size or a likeness, one of them."""

from __future__ import annotations

import math

from blemish.errors import UsageError

NAMES = ("quality", "target_bpp", "target_ssim")


def check_aims(
    quality: float | None,
    target_bpp: float | None,
    target_ssim: float | None,
    *,
    names: tuple[str, str, str] = NAMES,
) -> None:
    """Refuse more than one aim, a quality beyond 1 to 100, bits per pixel of 0, an SSIM beyond 0 to 1.

    Parameters
    ----------
    names: what errors call the three.

    Raises
    ------
    UsageError
        In one line.

    Examples
    --------
    >>> check_aims(None, 0.5, None)
    >>> check_aims(120, None, None)
    Traceback (most recent call last):
    ...
    blemish.errors.UsageError: quality is 120; choose a number from 1 to 100
    """
    aims = (quality, target_bpp, target_ssim)
    given = [name for name, value in zip(names, aims, strict=True) if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other; choose one of them")
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"{names[0]} is {quality:g}; choose a number from 1 to 100")
    if target_bpp is not None and not 0 < target_bpp < math.inf:
        raise UsageError(f"{names[1]} is {target_bpp:g}; choose a number above 0, such as 0.5")
    if target_ssim is not None and not 0 < target_ssim < 1:
        raise UsageError(f"{names[2]} is {target_ssim:g}; choose a number between 0 and 1, such as 0.98")
