"""Quantisation tables: those of T.81, annex K, and the learned ones that the package ships.

A learned ladder holds, for each tune, knots of quality with two tables and the price of a bit, λ. Between
knots the logarithms of tables and λ are interpolated.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blemish.errors import ModelError, UsageError
from blemish.jpeg.coefficients import Sampling
from blemish.jpeg.distortion import Tune
from blemish.jpeg.entropy import UNZIGZAG, ZIGZAG

SHIPPED = Path(__file__).with_name("tables.json")

ANNEX_K_LUMA: NDArray[np.uint16] = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.uint16,
)
"""T.81, table K.1."""

ANNEX_K_CHROMA: NDArray[np.uint16] = np.full((8, 8), 99, np.uint16)
ANNEX_K_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
"""T.81, table K.2."""


def annex_k(quality: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Luma and chroma tables of annex K at libjpeg's quality of 1 to 100, uint16 (8, 8).

    >>> [int(table[0, 0]) for table in annex_k(75)]
    [8, 9]
    """
    if not 1 <= quality <= 100:
        raise UsageError(f"quality is {quality}; choose 1 to 100")
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    scaled = (
        np.clip((table.astype(np.int64) * percent + 50) // 100, 1, 255)
        for table in (ANNEX_K_LUMA, ANNEX_K_CHROMA)
    )
    luma, chroma = (table.astype(np.uint16) for table in scaled)
    return luma, chroma


@dataclass(frozen=True)
class Tables:
    """An operating point: float64 (64,) tables in zigzag order, above 0, and λ, the price of a bit.

    λ is in squared error of a coefficient under weights of about 1.
    """

    luma: NDArray[np.float64]
    chroma: NDArray[np.float64]
    lam: float


def file_table(table: NDArray[np.float64]) -> NDArray[np.uint16]:
    """(64,) in zigzag order -> uint16 (8, 8) as a file holds it, rounded to 1 to 255."""
    return np.clip(np.round(table), 1, 255).astype(np.uint16)[UNZIGZAG].reshape(8, 8)


QuantisationRow = Annotated[list[Annotated[float, Field(ge=1, le=255)]], Field(min_length=8, max_length=8)]
QuantisationTable = Annotated[list[QuantisationRow], Field(min_length=8, max_length=8)]


class Knot(BaseModel):
    """The tables of one quality, by [vertical, horizontal] frequency, and its λ."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quality: float = Field(ge=1, le=100)
    lam: float = Field(gt=0)
    luma: QuantisationTable
    chroma: QuantisationTable


class Ladder(BaseModel):
    """Learned tables: by tune, the knots of rising quality, from 1 to 100."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(default=1, ge=1, le=1)
    made_with: str
    tunes: dict[Tune, list[Knot]]

    def at(self, quality: float, tune: Tune, sampling: Sampling = "4:2:0") -> Tables:
        """The tables of a quality of 1 to 100, rounded to integers, and λ.

        Chroma tables are learned at 4:2:0, where a coefficient stands for four times as many pixels; at
        4:4:4 their steps are doubled, which keeps the step's squared error at the same price.

        Raises
        ------
        UsageError
            A quality out of range, or a tune that the ladder does not hold.
        """
        if not 1 <= quality <= 100:
            raise UsageError(f"quality is {quality:g}; choose a number from 1 to 100")
        if tune not in self.tunes:
            raise UsageError(f"there are no tables for tune '{tune}'; there are {', '.join(self.tunes)}")
        knots = self.tunes[tune]
        values = np.log([[knot.lam, *np.ravel(knot.luma), *np.ravel(knot.chroma)] for knot in knots])
        qualities = [knot.quality for knot in knots]
        lam, *steps = np.exp([np.interp(quality, qualities, column) for column in values.T])
        luma, chroma = np.reshape(steps, (2, 64))[:, ZIGZAG]
        if sampling == "4:4:4":
            chroma = 2 * chroma
        return Tables(np.clip(np.round(luma), 1, 255), np.clip(np.round(chroma), 1, 255), float(lam))


def read_ladder(path: Path) -> Ladder:
    """A ladder that ``blemish.jpeg.learn_tables`` wrote.

    Raises
    ------
    ModelError
        A file that is missing or is no such ladder.
    """
    remedy = "make it anew with: python -m blemish.jpeg.learn_tables PHOTOS --out FILE"
    try:
        ladder = Ladder.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(path, f"cannot be read ({error.strerror})", remedy) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(path, f"is no ladder of tables ({where}: {first['msg']})", remedy) from error
    for tune, knots in ladder.tunes.items():
        qualities = [knot.quality for knot in knots]
        if qualities != sorted(set(qualities)) or qualities[:1] != [1] or qualities[-1:] != [100]:
            raise ModelError(path, f"the qualities of {tune} do not rise from 1 to 100", remedy)
    return ladder


@lru_cache(maxsize=1)
def shipped_ladder() -> Ladder:
    """The ladder that comes with the package, for every tune.

    >>> list(shipped_ladder().tunes)
    ['psnr', 'ms-ssim', 'balanced', 'ssimulacra2']
    """
    return read_ladder(SHIPPED)


def as_json(ladder: Ladder) -> str:
    """The ladder as it is kept in a file: a knot a line."""
    head = json.dumps({"format": ladder.format, "made_with": ladder.made_with}, ensure_ascii=False)[:-1]
    tunes = (
        f"  {json.dumps(tune)}: [\n" + ",\n".join(f"    {knot.model_dump_json()}" for knot in knots) + "\n  ]"
        for tune, knots in ladder.tunes.items()
    )
    return f'{head}, "tunes": {{\n' + ",\n".join(tunes) + "\n}}\n"


@lru_cache(maxsize=1)
def shipped_sha256() -> str:
    """SHA-256 of the data that the package ships: with the version, what the encoder's result depends on."""
    return hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
