"""Mutations of image files: bits, bytes, blocks, lengths, splices, and the tags of TIFF files."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from tests.faults.png import SIGNATURE, with_valid_checksums

EXTREMES = (0, 1, 2, 7, 255, 2**15 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)

_TYPE_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_MOST_ENTRIES, _MOST_DIRECTORIES = 100, 8
_SUB_DIRECTORIES = 330


def mutate(data: bytes, rng: Random, other: bytes = b"") -> bytes:
    """A damaged copy of an image file, by one to three mutations.

    Parameters
    ----------
    data: the file.
    rng: decides everything.
    other: another file, from which blocks may be taken.
    """
    is_tiff = _byte_order(data) is not None
    mutated = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
        if is_tiff and rng.random() < 0.35:
            mutated = bytearray(mutate_tags(bytes(mutated), rng))
        elif len(mutated) > 8:
            rng.choice(_ANYWHERE)(mutated, rng)
    if other and rng.random() < 0.05:
        mutated = bytearray(splice(bytes(mutated), other, rng))
    if data.startswith(SIGNATURE) and rng.random() < 0.75:
        return with_valid_checksums(bytes(mutated))
    return bytes(mutated)


def splice(data: bytes, other: bytes, rng: Random) -> bytes:
    """The beginning of one file with the end of another."""
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def with_tag(data: bytes, code: int, value: int) -> bytes:
    """A copy of a TIFF file in which the first value of a tag of its first directory is another."""
    entry = next(entry for entry in _entries(data) if entry.code == code)
    changed = bytearray(data)
    _put(changed, entry, entry.values, entry.value_size, value)
    return bytes(changed)


def mutate_tags(data: bytes, rng: Random) -> bytes:
    """A copy of a TIFF file with the code, type, count or value of one to three of its tags changed."""
    mutated = bytearray(data)
    entries = list(_entries(data))
    if not entries:
        return data
    for entry in rng.sample(entries, min(len(entries), rng.choice((1, 1, 2, 3)))):
        _mutate_entry(mutated, entry, rng, [other.code for other in entries])
    return bytes(mutated)


# -- anywhere ------------------------------------------------------------------------------------------


def _place(data: bytearray, rng: Random) -> int:
    """A position, more often near the beginning, where headers are."""
    return rng.randrange(min(len(data), 256)) if rng.random() < 0.4 else rng.randrange(len(data))


def _block(data: bytearray, rng: Random) -> slice:
    start = _place(data, rng)
    return slice(start, start + rng.choice((1, 2, 4, 16, 64, 512)))


def _flip_bits(data: bytearray, rng: Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 32))):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _set_bytes(data: bytearray, rng: Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 32))):
        data[_place(data, rng)] = rng.choice((0, 255, rng.randrange(256)))


def _overwrite_block(data: bytearray, rng: Random) -> None:
    target = _block(data, rng)
    source = _block(data, rng)
    data[target] = data[source]  # may be shorter at the end of the file, which moves what follows


def _remove_block(data: bytearray, rng: Random) -> None:
    del data[_block(data, rng)]


def _insert_block(data: bytearray, rng: Random) -> None:
    where = _place(data, rng)
    data[where:where] = (
        data[_block(data, rng)] if rng.random() < 0.5 else rng.randbytes(rng.choice((1, 4, 64)))
    )


def _truncate(data: bytearray, rng: Random) -> None:
    del data[_place(data, rng) :]


def _replace_integer(data: bytearray, rng: Random) -> None:
    size = rng.choice((2, 4))
    where = _place(data, rng) // rng.choice((1, 2)) * rng.choice((1, 2)) % (len(data) - size + 1)
    value = rng.choice(EXTREMES) % 2 ** (8 * size)
    data[where : where + size] = value.to_bytes(size, rng.choice(("big", "little")))


_ANYWHERE: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip_bits,
    _set_bytes,
    _overwrite_block,
    _remove_block,
    _insert_block,
    _truncate,
    _replace_integer,
)


# -- tags of TIFF files --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """A tag in the file: the position of its entry, and where its values are."""

    position: int
    order: str
    big: bool
    code: int
    type: int
    count: int
    values: int

    @property
    def value_size(self) -> int:
        return _TYPE_SIZES.get(self.type, 1)


def _byte_order(data: bytes) -> str | None:
    return {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}.get(data[:4])


def _entries(data: bytes) -> Iterator[_Entry]:
    """The entries of all directories that can be found; damage ends the search."""
    order = _byte_order(data)
    if order is None:
        return
    big = data[2:4] in {b"+\0", b"\0+"}
    offset = order + ("Q" if big else "I")
    counter, size, inline = (order + "Q", 20, 8) if big else (order + "H", 12, 4)
    entry_format = order + ("HHQ" if big else "HHI")
    left, seen = [8 if big else 4], set[int]()
    try:
        while left and len(seen) < _MOST_DIRECTORIES:
            (directory,) = struct.unpack_from(offset, data, left.pop())
            if directory == 0 or directory in seen:
                continue
            seen.add(directory)
            (count,) = struct.unpack_from(counter, data, directory)
            first = directory + struct.calcsize(counter)
            for position in range(first, first + size * min(count, _MOST_ENTRIES), size):
                code, kind, number = struct.unpack_from(entry_format, data, position)
                values = position + size - inline
                if _TYPE_SIZES.get(kind, 1) * number > inline:
                    (values,) = struct.unpack_from(offset, data, values)
                if code == _SUB_DIRECTORIES and number < _MOST_DIRECTORIES:
                    left += [values + number_ * struct.calcsize(offset) for number_ in range(number)]
                yield _Entry(position, order, big, code, kind, number, values)
            left.append(first + size * count)
    except (struct.error, OverflowError):
        return


def _mutate_entry(data: bytearray, entry: _Entry, rng: Random, codes: list[int]) -> None:
    part = rng.choice(("code", "type", "count", "count", "value", "value", "value", "value"))
    if part == "code":
        _put(data, entry, entry.position, 2, rng.choice((*codes, rng.randrange(2**16))))
    elif part == "type":
        _put(data, entry, entry.position + 2, 2, rng.choice((*_TYPE_SIZES, 0, 99)))
    elif part == "count":
        count = rng.choice((entry.count - 1, entry.count + 1, 2 * entry.count, *EXTREMES))
        _put(data, entry, entry.position + 4, 8 if entry.big else 4, count)
    else:
        where = entry.values + entry.value_size * rng.randrange(max(1, min(entry.count, 64)))
        size = min(entry.value_size, 8)
        old = int.from_bytes(data[where : where + size], "little" if entry.order == "<" else "big")
        near = (old - 1, old + 1, 2 * old, old // 2, old ^ (1 << rng.randrange(8 * size)), rng.randrange(40))
        _put(data, entry, where, size, rng.choice((*near, *EXTREMES)))


def _put(data: bytearray, entry: _Entry, where: int, size: int, value: int) -> None:
    if where + size <= len(data):
        value %= 2 ** (8 * size)
        data[where : where + size] = value.to_bytes(size, "little" if entry.order == "<" else "big")
