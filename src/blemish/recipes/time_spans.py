"""Lengths of time as people write them."""

from __future__ import annotations

import re

SECONDS = {"s": 1, "m": 60, "h": 3600}


def seconds_in(text: str) -> float:
    """A length of time in seconds.

    Raises
    ------
    ValueError
        For anything but a number above 0 and its unit.

    Examples
    --------
    >>> seconds_in("90s"), seconds_in("5m"), seconds_in("1.5h")
    (90.0, 300.0, 5400.0)
    """
    found = re.fullmatch(r"([0-9]+\.?[0-9]*)([smh])", text.strip())
    if not found or not float(found[1]):
        raise ValueError("write seconds, minutes or hours, such as 90s, 5m or 1h")
    return float(found[1]) * SECONDS[found[2]]
