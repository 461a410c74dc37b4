"""Codecs under test: the protocol, the encoder of this package, and trained models."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from blemish._version import __version__
from blemish.errors import BlemishError
from blemish.jpeg.source_image import decode
from blemish.jpeg.tables import shipped_ladder

if TYPE_CHECKING:
    from blemish.jpeg.deep.model import DeepEncoder
    from blemish.jpeg.distortion import Tune
    from blemish.jpeg.encoder import Encoder

Pixels = NDArray[np.uint8]


class Codec(Protocol):
    """Encoder under test: a unique name, and a function from pixels to the bytes of a JPEG file.

    Worker processes pickle it. With an attribute ``description`` (settings, versions), earlier measurements are
    used again only while the description stays the same. With an attribute ``ladder``, it is measured at these
    qualities.
    """

    @property
    def name(self) -> str:
        """Name of the encoder in tables and records."""

    def encode(self, pixels: Pixels, quality: int) -> bytes:
        """A JPEG file of uint8 (H, W) or (H, W, 3) pixels at a quality of 1 to 100."""


@dataclass(frozen=True)
class BlemishCodec:
    """Encoder of this package, with one of its tunes."""

    tune: Tune

    @property
    def name(self) -> str:
        """``blemish-`` and the tune."""
        return f"blemish-{self.tune}"

    @property
    def description(self) -> str:
        """Tune, version, and a digest of the tables and constants that the package ships for it."""
        from blemish.jpeg.tuning import TUNINGS

        knots = [knot.model_dump_json() for knot in shipped_ladder().tunes[self.tune]]
        digest = hashlib.sha256(f"{knots}{TUNINGS[self.tune]}".encode()).hexdigest()
        return f"Blemish {__version__}, sampling by image, tuned for {self.tune}, data {digest[:12]}"

    def encode(self, pixels: Pixels, quality: int) -> bytes:
        """A JPEG file at a quality of 1 to 100."""
        return _encoder().encode(pixels, quality=quality, tune=self.tune, sampling="auto").data


@lru_cache(maxsize=1)
def _encoder() -> Encoder:
    from blemish.jpeg.encoder import Encoder

    return Encoder()


@dataclass(frozen=True)
class LearnedCodec:
    """Network that ``blemish jpeg fit`` trained, measured once for each λ of its training.

    folder: of the model. name: the recipe's, unless :func:`learned_codec` is given another.
    """

    name: str
    folder: Path
    places: int
    description: str
    weights_sha256: str

    @property
    def ladder(self) -> tuple[int, ...]:
        """Whole qualities that stand for the λ, in rising order: evenly from 1 to 100."""
        return tuple(round(1 + 99 * place / max(self.places - 1, 1)) for place in range(self.places))

    def encode(self, pixels: Pixels, quality: int) -> bytes:
        """A JPEG file; at a quality of the ladder exactly as for its λ."""
        deep = _deep(self.folder, self.weights_sha256)
        if quality in self.ladder:
            return deep.encode_at(pixels, self.ladder.index(quality)).data
        return deep.encode(pixels, quality=quality).data


def learned_codec(folder: str | Path, name: str | None = None) -> LearnedCodec:
    """Encoder in a folder that ``blemish jpeg fit`` made; its weights are read when they are first used.

    Raises
    ------
    ModelError
        The folder is no such model, or was edited.
    """
    from blemish.jpeg.deep.model import read_model_file

    file = read_model_file(Path(folder))
    recipe = file.recipe
    lambdas = ", ".join(f"{value:g}" for value in sorted(recipe.lambdas))
    return LearnedCodec(
        name=name or recipe.name,
        folder=Path(folder),
        places=len(recipe.lambdas),
        description=(
            f"Blemish {__version__}, {recipe.name}, {recipe.image.sampling}, λ {lambdas}, "
            f"{file.training.steps} steps, weights {file.weights_sha256[:12]}"
        ),
        weights_sha256=file.weights_sha256,
    )


@lru_cache(maxsize=16)
def _deep(folder: Path, weights_sha256: str) -> DeepEncoder:
    # The digest is part of the key, so that a folder with a new model is read again.
    from blemish.jpeg.deep.model import load

    return load(folder)


def encode_checked(encoder: Codec, pixels: Pixels, quality: int) -> bytes:
    """Encode ``pixels``; errors of the codec become one line.

    Raises
    ------
    BlemishError
        The encoder failed, with this error or, as Pillow does, with an ``OSError``.
    """
    try:
        return encoder.encode(pixels, quality)
    except OSError as error:
        raise BlemishError(f"{encoder.name}: {_one_line(error)}; leave this encoder out") from error


def decode_checked(encoder: Codec, data: bytes) -> Pixels:
    """Decode a file of ``encoder`` with Pillow.

    Raises
    ------
    BlemishError
        Pillow cannot decode the file.
    """
    try:
        return decode(data)
    except (OSError, SyntaxError) as error:
        raise BlemishError(
            f"{encoder.name}: its file cannot be decoded ({_one_line(error)}); leave this encoder out"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def describe(encoder: Codec) -> str:
    """``description`` of a codec, or its name where it has none."""
    return str(getattr(encoder, "description", encoder.name))
