from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from blemish.jpeg.coefficients import Coefficients
from blemish.jpeg.entropy import (
    LONGEST,
    UNZIGZAG,
    ZIGZAG,
    bits_per_block,
    code_lengths,
    image_bits,
    scan,
    statistics,
    symbol_costs,
    zigzag,
)
from blemish.jpeg.file import from_bytes


def counts_of(*numbers: int) -> np.ndarray:
    counts = np.zeros(256, np.int64)
    counts[: len(numbers)] = numbers
    return counts


def entropy_coded_bytes(data: bytes) -> int:
    """The bytes of a baseline file's only scan, without those stuffed after 0xFF."""
    start = data.index(b"\xff\xda")
    start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return len(data[start:-2].replace(b"\xff\x00", b"\xff"))


def image(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rough = rng.normal(0, 25, (height, width, channels)) + 90 * np.sin(np.arange(width) / 9)[:, None] + 128
    return (
        np.clip(rough, 0, 255).astype(np.uint8).squeeze(-1)
        if channels == 1
        else np.clip(rough, 0, 255).astype(np.uint8)
    )


def test_the_zigzag_walks_the_diagonals_from_the_lowest_frequency_to_the_highest() -> None:
    assert ZIGZAG[:10].tolist() == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]
    assert ZIGZAG[-3:].tolist() == [55, 62, 63]
    assert (np.sort(ZIGZAG) == np.arange(64)).all()
    assert (np.diff(ZIGZAG // 8 + ZIGZAG % 8) >= 0).all()
    block = np.arange(64, dtype=np.int16).reshape(1, 8, 8)
    assert (zigzag(block)[:, UNZIGZAG].reshape(1, 8, 8) == block).all()


@pytest.mark.parametrize("numbers", [(5,), (3, 3), (9, 1, 1), (1, 2, 3, 4), (40, 7, 7, 1)])
def test_code_lengths_are_the_cheapest_with_a_reserved_symbol_that_occurs_once(
    numbers: tuple[int, ...],
) -> None:
    lengths = code_lengths(counts_of(*numbers))[: len(numbers)]
    possible = (
        np.dot((*numbers, 1), choice)
        for choice in itertools.product(range(1, 7), repeat=len(numbers) + 1)
        if sum(2.0**-length for length in choice) <= 1
    )
    assert sum(2.0**-lengths) < 1  # the code of all ones stays free
    assert np.dot(numbers, lengths) + lengths.max() == min(possible)


def test_no_code_is_longer_than_16_bits() -> None:
    fibonacci = [1, 2]
    while len(fibonacci) < 30:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = code_lengths(counts_of(*fibonacci))[:30]
    assert lengths.max() == LONGEST
    assert sum(2.0**-lengths) < 1
    assert (np.diff(lengths) <= 0).all()


def test_symbols_that_do_not_occur_are_priced_as_the_longest() -> None:
    costs = symbol_costs(counts_of(4, 0, 2))
    assert costs[:3].tolist() == [1, LONGEST, 2]
    assert symbol_costs(counts_of()).tolist() == [LONGEST] * 256


def test_a_scan_visits_every_block_once_and_counts_the_padding() -> None:
    for rows, columns, factor in ((1, 1, 1), (1, 1, 2), (3, 5, 2), (4, 4, 2)):
        found = scan(rows, columns, factor)
        assert sorted(found.order.tolist()) == list(range(rows * columns))
        mcus = -(-rows // factor) * -(-columns // factor)
        assert found.padding == mcus * factor**2 - rows * columns


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 33), (40, 56)])
@pytest.mark.parametrize(("channels", "subsampling"), [(1, None), (3, "4:4:4"), (3, "4:2:0")])
@pytest.mark.parametrize("quality", [10, 60, 98])
def test_the_bits_are_those_of_the_file_that_libjpeg_optimises(
    size: tuple[int, int], channels: int, subsampling: str | None, quality: int
) -> None:
    file = io.BytesIO()
    options = {} if subsampling is None else {"subsampling": subsampling}
    Image.fromarray(image(*size, channels)).save(file, "jpeg", quality=quality, optimize=True, **options)
    coefficients = from_bytes(file.getvalue())
    bits = image_bits(coefficients)
    assert -(-bits // 8) == entropy_coded_bytes(file.getvalue())
    blocks = bits_per_block(coefficients)
    assert blocks.shape == (-(-size[0] // 8), -(-size[1] // 8))
    assert blocks.sum() == pytest.approx(bits, abs=1e-6)


def test_a_block_has_the_bits_of_its_own_levels() -> None:
    # All blocks but one are flat: two symbols each, of a bit.
    flat = np.full((40, 56), 90, np.uint8)
    flat[16:24, 8:16] = image(8, 8, 1) // 2
    file = io.BytesIO()
    Image.fromarray(flat).save(file, "jpeg", quality=90)
    bits = bits_per_block(from_bytes(file.getvalue()))
    assert np.unravel_index(bits.argmax(), bits.shape) == (2, 1)
    assert bits[2, 1] > 200
    others = np.delete(bits.ravel(), [0, 2 * 7 + 1, 2 * 7 + 2])  # but the first's DC, and the jump back
    assert (others == 2).all()


def test_chroma_bits_lie_on_the_blocks_that_they_colour() -> None:
    pixels = np.full((48, 32, 3), 128, np.uint8)
    pixels[32:40, 16:24] = 255, 0, 0  # a quarter of the chroma block of rows 4, 5 and columns 2, 3
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=90, subsampling="4:2:0")
    coefficients = from_bytes(file.getvalue())
    bits = bits_per_block(coefficients)
    luma_alone = Coefficients(32, 48, coefficients.planes[:1], "4:4:4")
    assert bits.sum() - bits_per_block(luma_alone).sum() > 50
    quiet = bits[4, 3] - bits[0, 3]  # no detail of its own, but a share of the colour's
    assert quiet > 10


def test_statistics_count_run_lengths_zrl_and_end_of_block() -> None:
    from blemish.jpeg.coefficients import Plane

    block = np.zeros(64, np.int16)
    block[[0, 1, 20, 63]] = -5, 2, -1, 1  # in zigzag order: runs of 0, 18 and 42; the last place needs no EOB
    plane = Plane(block[UNZIGZAG].reshape(1, 1, 8, 8), np.ones((8, 8), np.uint16))
    (found,) = statistics(Coefficients(8, 8, (plane,), "4:4:4"))
    assert {symbol: int(count) for symbol, count in enumerate(found.dc) if count} == {3: 1}
    expected = {0x02: 1, 0x21: 1, 0xF0: 3, 0xA1: 1}
    assert {symbol: int(count) for symbol, count in enumerate(found.ac) if count} == expected
