"""A trained network as an encoder of pictures, and the folder that it is kept in."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from blemish._version import __version__
from blemish.errors import ModelError, RecipeError
from blemish.images import Fingerprint
from blemish.images.writing import write_bytes, write_json, write_text
from blemish.inspector import CARD_FILE, MODEL_FILE, WEIGHTS_FILE, Training
from blemish.jpeg.deep.network import DeepJpeg
from blemish.jpeg.deep.recipe import DeepRecipe
from blemish.jpeg.encoder import Encoded, aim, encoded
from blemish.jpeg.transform import luma_of
from blemish.training.loop import term_key

FORMAT = 1
_GIVE = "give the folder that blemish jpeg fit --out made"


class DeepModelFile(BaseModel):
    """``model.json`` of a JPEG encoder; ``kind`` tells it from a detector's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["jpeg encoder"] = "jpeg encoder"
    format: int
    blemish: str
    versions: dict[str, str]
    recipe: DeepRecipe
    fingerprint: Fingerprint
    split: dict[str, tuple[str, ...]]
    training: Training
    weights_sha256: str
    content_sha256: str | None = None
    """Of everything above, so that an edit by hand is noticed; None until it is saved."""


class DeepEncoder:
    """Encodes pictures as a trained network chooses: made by ``fit_jpeg`` or :func:`load`.

    A network of several λ stands at a place among them, 0 to ``places`` - 1 in rising order of λ; quality 1 is
    the first, the smallest files, and quality 100 the last. A network of one λ has one place, and every
    quality is the same.
    """

    def __init__(self, model: DeepJpeg, file: DeepModelFile) -> None:
        self.model = model.eval()
        self.file = file
        self.recipe = file.recipe

    @property
    def places(self) -> int:
        """How many λ the network was trained for."""
        return len(self.recipe.lambdas)

    def place(self, quality: float) -> float:
        """Where a quality of 1 to 100 stands among the λ, 0 to ``places`` - 1."""
        return (quality - 1) / 99 * (self.places - 1)

    def encode(
        self,
        pixels: NDArray[np.uint8],
        *,
        quality: float | None = None,
        target_bpp: float | None = None,
        target_ssim: float | None = None,
        segments: bytes = b"",
    ) -> Encoded:
        """One picture as a file, at a quality or as near as possible to a target.

        Parameters
        ----------
        pixels: uint8 (H, W) or (H, W, 3), RGB.
        quality: 1 to 100, any number; 75 when nothing is given.
        target_bpp: bits per pixel of the whole file, segments included, met within 1 %.
        target_ssim: SSIM of luma after decoding, met within 1 % of 1 - SSIM.
        segments: APPn and COM markers to be put into the file.

        Returns
        -------
        Encoded; its ``notice`` tells of a target that cannot be met, the nearest is returned then.

        Raises
        ------
        UsageError
            More than one of quality and targets, one that is out of range, or pixels that are none.
        """
        found = aim(
            self._at(pixels, segments),
            luma_of(pixels),
            quality=quality,
            target_bpp=target_bpp,
            target_ssim=target_ssim,
        )
        if found.notice and self.places == 1:
            return replace(
                found, notice=f"{found.notice}, for the model was trained for one λ and has one quality"
            )
        return found

    def encode_at(self, pixels: NDArray[np.uint8], place: float, *, segments: bytes = b"") -> Encoded:
        """One picture as a file, as the network chooses at ``place``, 0 to ``places`` - 1."""
        quality = 1 + 99 * place / max(self.places - 1, 1)
        return encoded(self.model.coefficients(pixels, place), quality, segments)

    def _at(self, pixels: NDArray[np.uint8], segments: bytes) -> Callable[[float], Encoded]:
        """The file by quality; a place that was asked for before is not encoded again."""
        files: dict[float, Encoded] = {}

        def at(quality: float) -> Encoded:
            place = self.place(quality)
            if place not in files:
                files[place] = encoded(self.model.coefficients(pixels, place), quality, segments)
            return replace(files[place], quality=quality)

        return at

    # -- on disk -----------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write ``model.safetensors``, ``model.json`` and ``card.md``; the JSON last, so that it vouches.

        Raises
        ------
        FileError
            When they cannot be written.
        """
        folder = Path(folder)
        document = self.file.model_dump(mode="json", exclude={"content_sha256"})
        write_bytes(folder / WEIGHTS_FILE, weights_of(self.model))
        write_text(folder / CARD_FILE, self.card())
        write_json(folder / MODEL_FILE, {**document, "content_sha256": _content_sha256(document)})
        return folder

    def card(self) -> str:
        """The model in a page of Markdown, for people."""
        file, recipe, training = self.file, self.recipe, self.file.training
        terms = [key for key in training.history[-1] if key.startswith(term_key(""))]
        columns = [
            "step",
            "training loss",
            "held-out loss",
            *(key.removeprefix(term_key("")) for key in terms),
        ]
        rows = [
            [f"{look['step']:.0f}", *(f"{look[key]:.5g}" for key in ("training", "validation", *terms))]
            for look in training.history
        ]
        lines = [columns, ["---:"] * len(columns), *rows]
        curve = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        split = ", ".join(f"{len(names)} for {part}" for part, names in file.split.items())
        return (
            f"# {recipe.title}\n\n"
            f"Recipe `{recipe.name}`, {recipe.paper}. Fitted by Blemish {file.blemish}.\n\n"
            f"{recipe.expect}\n\n"
            f"λ: {', '.join(f'{value:g}' for value in sorted(recipe.lambdas))}; quality 1 is the smallest, "
            f"quality 100 the largest.\n\n"
            f"## The photographs\n\n{file.fingerprint.count} pictures; SHA-256 {file.fingerprint.sha256}. "
            f"Split: {split}.\n\n"
            f"## Training\n\nBest of {training.steps} steps at step {training.best_step}, "
            f"{training.seconds:.0f} s on {training.machine}. The terms are held-out means as they enter the "
            f"loss, λ and weights included.\n\n{curve}\n"
        )


def weights_of(model: DeepJpeg) -> bytes:
    """The weights as a safetensors file; equal weights, equal bytes."""
    return save_tensors({name: value.contiguous() for name, value in model.state_dict().items()})


def _content_sha256(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


# -- loading -------------------------------------------------------------------------------------------


def load(folder: str | Path) -> DeepEncoder:
    """The encoder that ``blemish jpeg fit`` wrote into ``folder``.

    Raises
    ------
    ModelError
        When the folder is no such model, incomplete, edited, damaged, or from a newer version of Blemish.
    """
    folder = Path(folder)
    file = read_model_file(folder)
    path = folder / WEIGHTS_FILE
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise ModelError(
            path, f"cannot be read ({error.strerror})", "copy the whole model folder, or fit again"
        ) from None
    if hashlib.sha256(weights).hexdigest() != file.weights_sha256:
        raise ModelError(
            path,
            f"is damaged, or not the one that {MODEL_FILE} was written for",
            "copy the whole model folder again, or fit again",
        )
    try:
        model = DeepJpeg(file.recipe, pretrained=False)
        model.load_state_dict(load_tensors(weights))
    except (SafetensorError, RuntimeError, RecipeError) as error:
        raise ModelError(
            path,
            f"does not fit the recipe in {MODEL_FILE} ({str(error).splitlines()[0]})",
            f"upgrade to the Blemish that made it ({file.blemish}; this is {__version__}), or fit again",
        ) from None
    return DeepEncoder(model, file)


def read_model_file(folder: Path) -> DeepModelFile:
    """``model.json`` of the encoder in ``folder``, without its weights.

    Raises
    ------
    ModelError
        As :func:`load`.
    """
    path = folder / MODEL_FILE
    document = _document(folder)
    if "kind" not in document and "calibration" in document:
        raise ModelError(folder, "is a detector, not a JPEG encoder", _GIVE)
    made_by, written_in = document.get("blemish", "?"), document.get("format")
    if isinstance(written_in, int) and written_in > FORMAT:
        raise ModelError(
            path,
            f"was written by Blemish {made_by} in format {written_in}, this is {__version__} "
            f"and reads up to format {FORMAT}",
            f"upgrade Blemish to {made_by} or newer",
        )
    mend = "undo the edit, copy the whole model folder again, or fit again"
    try:
        file = DeepModelFile.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ModelError(path, f"was edited or is incomplete: '{key}': {first['msg']}", mend) from None
    if document.pop("content_sha256", None) != _content_sha256(document):
        raise ModelError(path, "was edited after it was written", mend)
    return file


def _document(folder: Path) -> dict[str, Any]:
    path = folder / MODEL_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.isdir(folder):
            problem = "is a file, not a model folder" if os.path.exists(folder) else "does not exist"
            raise ModelError(folder, problem, _GIVE) from None
        raise ModelError(
            folder,
            f"holds no {MODEL_FILE}, so it is no finished model",
            f"{_GIVE}, or finish an interrupted fit with --resume",
        ) from None
    except OSError as error:
        raise ModelError(
            path, f"cannot be read ({error.strerror})", "check the path and its permissions, or fit again"
        ) from None
    except ValueError as error:
        raise ModelError(path, f"is not readable JSON ({error})", "restore the file, or fit again") from None
    if not isinstance(document, dict):
        raise ModelError(path, "is no model's JSON", "restore the file, or fit again")
    return document
