"""Formatting of numbers in pages and charts."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float, digits: int = 3) -> str:
    """Format a number with ``digits`` significant digits; integers in full, no unnecessary exponent.

    >>> number(0.123456), number(12), number(123456.7), number(0.0000123), number(0.5)
    ('0.123', '12', '123457', '1.23e-5', '0.5')
    """
    if isinstance(value, int):
        return str(value)
    text = f"{value:.{digits}g}"
    mantissa, e, exponent = text.partition("e")
    if not e:
        return text
    return str(round(value)) if 0 < int(exponent) < 15 else f"{mantissa}e{int(exponent)}"


def counted(count: int, noun: str) -> str:
    """Format a count and its noun, in the plural unless the count is one.

    >>> counted(1, "image"), counted(0, "image"), counted(2, "process")
    ('1 image', '0 images', '2 processes')
    """
    plural = "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{plural * (count != 1)}"


def aligned(values: Sequence[float], digits: int = 3) -> list[str]:
    """Format the numbers of one column: all with as many decimals as the finest of them needs.

    >>> aligned([0.05, 0.1, 0.15]), aligned([3, 12]), aligned([0.25, 0.0000123])
    (['0.05', '0.10', '0.15'], ['3', '12'], ['0.25', '1.23e-5'])
    """
    texts = [number(value, digits) for value in values]
    decimals = max((len(text.partition(".")[2]) for text in texts if "e" not in text), default=0)
    return [
        text if isinstance(value, int) or "e" in text or not math.isfinite(value) else f"{value:.{decimals}f}"
        for value, text in zip(values, texts, strict=True)
    ]
