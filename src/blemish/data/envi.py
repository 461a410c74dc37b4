"""ENVI cubes: a file of raw values and a text header beside it, read by windows.

The header is that of ENVI (Exelis, ENVI Header Files): ``cube.hdr`` or ``cube.img.hdr`` beside ``cube.img``. Values in
the orders BSQ, BIL and BIP are mapped into memory, so that only the windows that are asked for are read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blemish.data.windowed_image import DecodedCache, ReadWindow, WindowedImage, full_scale
from blemish.errors import ImageError
from blemish.limits import MAX_CHANNELS

HEADER = ".hdr"
CUBE_SUFFIXES = frozenset({"", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip", ".cube"})
"""Suffixes of data files beside which a header is looked for."""

_MAGIC = b"ENVI"
_HEADER_BYTES = 2**22
_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
# Axes of the file, and how they become (channel, row, column).
_ORDERS = {"bsq": ("cyx", (0, 1, 2)), "bil": ("ycx", (1, 0, 2)), "bip": ("yxc", (2, 0, 1))}


def envi_header(path: Path) -> Path | None:
    """The header of the cube whose values are in ``path``; None where there is none."""
    if path.suffix.lower() not in CUBE_SUFFIXES:
        return None
    for header in (path.with_suffix(HEADER), path.with_name(path.name + HEADER)):
        if _begins_as_header(header):
            return header
    return None


def _begins_as_header(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def read_header(path: Path) -> dict[str, str]:
    """Read the fields of a header, with names in lower case; lists keep their braces.

    Raises
    ------
    ImageError
        When it cannot be read or is no text.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_HEADER_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror})", "check its permissions") from None
    fields = re.findall(r"^[ \t]*([^=\n;{}]+?)[ \t]*=[ \t]*(\{[^}]*\}|[^\n]*)", text, re.M)
    return {name.lower(): value.strip() for name, value in fields}


class EnviImage(WindowedImage):
    """A cube of raw values; pixels with the header's ``data ignore value`` in all bands are absent.

    Raises
    ------
    ImageError
        When the header lacks a field, or has a value that is not supported.
    """

    cached_bytes = 0

    def __init__(self, path: Path, header: Path) -> None:
        self.path = path
        self._header = header
        self._fields = read_header(header)
        self.width, self.height, self.channels = (
            self._number(name) for name in ("samples", "lines", "bands")
        )
        if not 0 < self.channels <= MAX_CHANNELS or self.width < 1 or self.height < 1:
            raise ImageError(header, "describes a cube without pixels, or with too many bands", "correct it")
        kind = self._number("data type")
        if kind not in _TYPES:
            raise ImageError(
                header, f"has the data type {kind}, which is not supported", "save it as float32"
            )
        order = ">" if self._number("byte order", 0) == 1 else "<"
        self._stored = np.dtype(order + _TYPES[kind])
        self.dtype = self._stored.newbyteorder("=")
        self._interleave = self._fields.get("interleave", "bsq").lower()
        if self._interleave not in _ORDERS:
            problem = f"has the interleave {self._interleave}, which is none of bsq, bil and bip"
            raise ImageError(header, problem, "correct it")
        self._offset = self._number("header offset", 0)
        if self._fields.get("file compression", "0") not in {"", "0"}:
            raise ImageError(header, "describes a compressed cube", "save it without compression")
        factor = self._value("reflectance scale factor")
        self.full_scale = factor if factor else full_scale(self.dtype)
        self._ignored = self._value("data ignore value")

    def _number(self, name: str, default: int | None = None) -> int:
        text = self._fields.get(name)
        if text is None and default is not None:
            return default
        try:
            return int(str(text))
        except ValueError:
            problem = (
                f"has no '{name}'" if text is None else f"has '{name} = {text}', which is no whole number"
            )
            raise ImageError(self._header, problem, "correct it") from None

    def _value(self, name: str) -> float | None:
        try:
            value = float(self._fields[name])
        except (KeyError, ValueError):
            return None
        return value

    @property
    def _bytes(self) -> int:
        return self._offset + self.width * self.height * self.channels * self._stored.itemsize

    def read(self, top: int, left: int, height: int, width: int, cache: DecodedCache) -> ReadWindow:
        self.check()
        axes, order = _ORDERS[self._interleave]
        sides = {"c": self.channels, "y": self.height, "x": self.width}
        shape = tuple(sides[axis] for axis in axes)
        stored = np.memmap(self.path, self._stored, "r", offset=self._offset, shape=shape)
        window: NDArray[Any] = stored.transpose(order)[:, top : top + height, left : left + width]
        values = np.array(window, self.dtype)
        absent = None if self._ignored is None else (values == self._ignored).all(0)
        return ReadWindow(values, absent if absent is not None and absent.any() else None)

    def check(self) -> None:
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise ImageError(self.path, f"cannot be read ({error.strerror})", "check the path") from None
        if size < self._bytes:
            problem = f"ends early: {size} bytes, and {self._header.name} describes {self._bytes}"
            raise ImageError(self.path, problem, "copy it again from its source")
