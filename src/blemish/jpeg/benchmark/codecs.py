"""All encoders that can be compared: the anchors, the encoder of this package, and models that were trained."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from blemish._version import __version__
from blemish.errors import BlemishError, UsageError, nearest
from blemish.jpeg.benchmark.baselines import ANCHORS, Codec, Missing, Pixels, find_anchors
from blemish.jpeg.source_image import decode
from blemish.jpeg.tables import shipped_sha256

if TYPE_CHECKING:
    from blemish.jpeg.deep.model import DeepEncoder
    from blemish.jpeg.distortion import Tune
    from blemish.jpeg.encoder import Encoder


@dataclass(frozen=True)
class BlemishEncoder:
    """The encoder of this package, with one of its tunes."""

    tune: Tune

    @property
    def name(self) -> str:
        """``blemish-`` and the tune."""
        return f"blemish-{self.tune}"

    @property
    def description(self) -> str:
        """Tune, version, and the data that the package ships for it."""
        return f"Blemish {__version__}, 4:2:0, tuned for {self.tune}, data {shipped_sha256()[:12]}"

    def encode(self, pixels: Pixels, quality: int) -> bytes:
        """A JPEG file at a quality of 1 to 100."""
        return _ours().encode(pixels, quality=quality, tune=self.tune).data


@lru_cache(maxsize=1)
def _ours() -> Encoder:
    from blemish.jpeg.encoder import Encoder

    return Encoder()


@dataclass(frozen=True)
class ModelEncoder:
    """A network that ``blemish jpeg fit`` trained, evaluated once for each λ that it was trained for.

    folder: that of the model. name: the recipe's, unless another is given to :func:`model_encoder`.
    """

    name: str
    folder: Path
    places: int
    description: str
    weights_sha256: str

    @property
    def ladder(self) -> tuple[int, ...]:
        """The whole qualities that stand for the λ, in rising order: 1 to 100, evenly."""
        return tuple(round(1 + 99 * place / max(self.places - 1, 1)) for place in range(self.places))

    def encode(self, pixels: Pixels, quality: int) -> bytes:
        """A JPEG file; at a quality of the ladder exactly as for its λ."""
        deep = _deep(self.folder, self.weights_sha256)
        if quality in self.ladder:
            return deep.encode_at(pixels, self.ladder.index(quality)).data
        return deep.encode(pixels, quality=quality).data


def model_encoder(folder: str | Path, name: str | None = None) -> ModelEncoder:
    """The encoder in a folder that ``blemish jpeg fit`` made; its weights are read when they are first used.

    Raises
    ------
    ModelError
        When the folder is no such model, or was edited.
    """
    from blemish.jpeg.deep.model import read_model_file

    file = read_model_file(Path(folder))
    recipe = file.recipe
    lambdas = ", ".join(f"{value:g}" for value in sorted(recipe.lambdas))
    return ModelEncoder(
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
    # The digest is there so that a folder that was fitted anew is read anew.
    from blemish.jpeg.deep.model import load

    return load(folder)


def find_codecs(names: Iterable[str] | None = None) -> tuple[list[Codec], list[Missing]]:
    """The encoders to compare, both anchors first, and those that cannot run here.

    Parameters
    ----------
    names: those wanted besides the anchors, or folders that ``blemish jpeg fit`` made; None takes all there
        are by name. Of two folders with one recipe, the second is named after both.

    Raises
    ------
    UsageError
        For a name that there is not, or that cannot run here, or folders that cannot be told apart.
    ModelError
        For a folder that is no such model.
    """
    from blemish.jpeg.distortion import TUNES

    found, missing = find_anchors()
    found += [BlemishEncoder(tune) for tune in TUNES]
    if names is None:
        return found, missing
    by_name = {encoder.name: encoder for encoder in found}
    chosen: dict[str, Codec] = {anchor.name: anchor for anchor in ANCHORS}
    for name in names:
        if name not in by_name and (os.sep in name or os.path.isdir(name)):
            model = model_encoder(name)
            if model.name in chosen:
                model = replace(model, name=f"{model.name} ({Path(name).resolve().name})")
            if model.name in chosen:
                raise UsageError(f"{name}: another encoder is called {model.name} too; rename the folder")
            chosen[model.name] = model
            continue
        absent = next((one for one in missing if one.name == name), None)
        if absent is not None:
            raise UsageError(f"{name} cannot run here; {absent.mend}")
        if name not in by_name:
            raise UsageError(f"unknown encoder '{name}'; {nearest(name, by_name)}")
        chosen[name] = by_name[name]
    return list(chosen.values()), []


def attempt(encoder: Codec, pixels: Pixels, quality: int) -> bytes:
    """Its file of ``pixels``.

    Raises
    ------
    BlemishError
        The encoder failed, as it says or with an ``OSError``, as Pillow does.
    """
    try:
        return encoder.encode(pixels, quality)
    except OSError as error:
        raise BlemishError(f"{encoder.name}: {_one_line(error)}; leave this encoder out") from error


def decoded(encoder: Codec, data: bytes) -> Pixels:
    """What Pillow makes of its file.

    Raises
    ------
    BlemishError
        The file is none that Pillow reads.
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
    """Its ``description``, or the name of one without."""
    return str(getattr(encoder, "description", encoder.name))
