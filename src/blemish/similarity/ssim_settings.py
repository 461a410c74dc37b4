"""Validated settings of SSIM: window, constants and exponents."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypedDict

from blemish.errors import UsageError
from blemish.similarity.pairs import check_range
from blemish.similarity.windows import (
    Padding,
    Window,
    WindowKind,
)

Constants = Literal["wang", "bergmann"]


class SSIMOptions(TypedDict, total=False):
    """Settings of ``ssim``; described there."""

    window: int
    sigma: float
    kind: WindowKind
    padding: Padding
    constants: Constants
    k1: float
    k2: float
    c1: float | None
    c2: float | None
    alpha: float
    beta: float
    gamma: float


class SSIMSettings(NamedTuple):
    """Validated options with all defaults filled in."""

    window: Window
    c1: float
    c2: float
    exponents: tuple[float, float, float]


def make_settings(
    data_range: float | None,
    *,
    window: int = 11,
    sigma: float = 1.5,
    kind: WindowKind = "gaussian",
    padding: Padding = "symmetric",
    constants: Constants = "wang",
    k1: float = 0.01,
    k2: float = 0.03,
    c1: float | None = None,
    c2: float | None = None,
    alpha: float = 1,
    beta: float = 1,
    gamma: float = 1,
) -> SSIMSettings:
    """Validate the options of ``ssim`` and compute its constants; raise ``UsageError`` for a wrong option."""
    span = check_range(data_range)
    if constants not in ("wang", "bergmann"):
        raise UsageError(f"constants {constants!r} are unknown; choose 'wang' or 'bergmann'")
    if c1 is None:
        c1 = (k1 * span) ** 2 if constants == "wang" else k1 * span**2
    if c2 is None:
        c2 = (k2 * span) ** 2 if constants == "wang" else k2 * span**2
    for name, value in (("c1 (from k1)", c1), ("c2 (from k2)", c2)):
        if not value > 0:
            raise UsageError(f"{name} is {value}; give a positive constant, it keeps flat images from 0/0")
    for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if not value >= 0:
            raise UsageError(f"{name} is {value}; give an exponent of at least 0")
    checked = Window(window, sigma, kind, padding)
    checked.check()
    return SSIMSettings(checked, c1, c2, (alpha, beta, gamma))
