from __future__ import annotations

import itertools

import numpy as np
import pytest

from blemish.jpeg import trellis
from blemish.jpeg.entropy import ZIGZAG, Scan, scan, symbol_costs
from blemish.jpeg.transform import quantise
from blemish.jpeg.trellis import quantise_blocks


def random_lengths(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Code lengths of a pair of Huffman tables for made-up counts."""
    rng = np.random.default_rng(seed)
    dc, ac = np.zeros(256, np.int64), rng.integers(0, 40, 256)
    dc[:12] = rng.integers(1, 40, 12)
    ac[[0, 0x01, 0x11, 0xF0]] = rng.integers(1, 4000, 4)
    return symbol_costs(dc), symbol_costs(ac)


def ac_bits(levels: np.ndarray, lengths: np.ndarray) -> float:
    bits, run = 0.0, 0
    for value in levels[1:]:
        if value == 0:
            run += 1
            continue
        size = int(abs(int(value))).bit_length()
        bits += (run // 16) * lengths[0xF0] + lengths[(run % 16) * 16 + size] + size
        run = 0
    return bits + (lengths[0] if run else 0)


def dc_bits(levels: list[int], lengths: np.ndarray) -> float:
    sizes = [abs(b - a).bit_length() for a, b in itertools.pairwise([0, *levels])]
    return sum(lengths[size] + size for size in sizes)


def laplacian(blocks: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.laplace(0, 1, (blocks, 64)) * (120 / (1 + np.arange(64)))).astype(np.float32)


ONE_BLOCK = scan(1, 1)


@pytest.mark.parametrize("places", [(1, 2, 3, 5, 8), (4, 22, 23, 40, 63), (1, 18, 35, 52, 62)])
@pytest.mark.parametrize("seed", range(6))
def test_exhaustive_search_finds_no_better_ac_levels(places: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = np.zeros((1, 64), np.float32)
    target[0, list(places)] = rng.uniform(-25, 25, len(places))
    weights = rng.uniform(0.2, 3, (1, 64)).astype(np.float32)
    table = rng.integers(8, 14, 64)
    lengths = random_lengths(seed)
    lam = float(rng.uniform(2, 40))

    def cost(levels: np.ndarray) -> float:
        error = target[0, 1:] - table[1:] * levels[1:]
        return float((weights[0, 1:] * error**2).sum()) + lam * ac_bits(levels, lengths[1])

    found = quantise_blocks(target, weights, table, lengths, lam, ONE_BLOCK)[0]
    choices = []
    for place in places:
        rounded = int(np.floor(abs(target[0, place]) / table[place] + 0.5))
        choices.append([int(np.sign(target[0, place])) * v for v in {0, rounded, max(rounded - 1, 0)}])
    best = np.inf
    for values in itertools.product(*choices):
        levels = np.zeros(64, np.int16)
        levels[list(places)] = values
        best = min(best, cost(levels))
    assert cost(found) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_exhaustive_search_finds_no_better_dc_levels_along_the_scan(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = np.zeros((5, 64), np.float32)
    target[:, 0] = rng.uniform(-60, 60, 5)
    weights = rng.uniform(0.2, 3, (5, 64)).astype(np.float32)
    order = Scan(rng.permutation(5), 0)
    lengths = random_lengths(seed)
    lam, q = float(rng.uniform(2, 60)), 9

    def cost(levels: list[int]) -> float:
        dc = target[order.order, 0]
        error = dc - q * np.array(levels)
        return float((weights[order.order, 0] * error**2).sum()) + lam * dc_bits(levels, lengths[0])

    found = quantise_blocks(target, weights, np.full(64, q), lengths, lam, order)[order.order, 0]
    rounded = quantise(target[order.order, 0], np.array(q, np.uint16)).tolist()
    best = min(map(cost, itertools.product(*([v - 1, v, v + 1] for v in rounded))))
    assert cost(found.tolist()) == pytest.approx(best, rel=1e-5)


def test_without_a_price_of_bits_it_rounds() -> None:
    target = laplacian(50)
    table = np.random.default_rng(1).integers(1, 30, 64)
    found = quantise_blocks(target, np.ones_like(target), table, random_lengths(0), 0.0, scan(5, 10))
    rounded = quantise(target.reshape(-1, 8, 8), table.astype(np.uint16).reshape(8, 8))
    assert (found == rounded.reshape(-1, 64)).all()


def test_a_higher_price_of_bits_never_gives_more_bits() -> None:
    target, table, lengths = laplacian(60), np.full(64, 7), random_lengths(2)
    bits = []
    for lam in (0, 1, 3, 10, 30, 100, 1000, 1e5):
        levels = quantise_blocks(target, np.ones_like(target), table, lengths, lam, scan(6, 10))
        ac = sum(ac_bits(block, lengths[1]) for block in levels)
        bits.append(ac + dc_bits(levels[:, 0].tolist(), lengths[0]))
    assert (np.diff(bits) <= 0).all()
    assert bits[-1] < bits[0] / 4


def test_coefficients_with_a_higher_weight_survive() -> None:
    target = np.zeros((2, 64), np.float32)
    target[:, 5] = 12
    weights = np.ones_like(target)
    weights[1] = 50
    flat = np.full(256, 4.0)
    found = quantise_blocks(target, weights, np.full(64, 10), (flat, flat), 40.0, scan(1, 2))
    assert found[:, 5].tolist() == [0, 1]


def test_results_do_not_depend_on_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    target = laplacian(300)
    arguments = (target, np.ones_like(target), np.full(64, 11), random_lengths(3), 20.0, scan(20, 15))
    whole = quantise_blocks(*arguments)
    monkeypatch.setattr(trellis, "_BLOCKS_A_PIECE", 64)
    monkeypatch.setattr(trellis, "cores", lambda: 2)
    trellis._pool.cache_clear()
    assert (quantise_blocks(*arguments) == whole).all()


def test_levels_stay_within_what_a_file_holds() -> None:
    target = np.zeros((1, 64), np.float32)
    target[0, :2] = -5000, 5000
    found = quantise_blocks(target, np.ones_like(target), np.ones(64), random_lengths(0), 0.0, ONE_BLOCK)
    assert found[0, :2].tolist() == [-1023, 1023]
    assert ZIGZAG[0] == 0
