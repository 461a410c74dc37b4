"""A trained network as an encoder of images, and the folder that it is kept in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from blemish.data.fingerprint import Fingerprint
from blemish.jpeg.deep.network import DeepJpeg
from blemish.jpeg.deep.recipe import DeepRecipe
from blemish.jpeg.encoder import Encoded, encode_to_target, encoded
from blemish.jpeg.transform import luma_of
from blemish.storage.model_folder import (
    JPEG_ENCODER,
    Document,
    load_weights,
    read_document,
    weights_of,
    write_model,
)
from blemish.storage.training_record import Training, upgrade_training_v1


class DeepModelFile(Document):
    """``model.json`` of a JPEG encoder."""

    kind: Literal["jpeg encoder"] = "jpeg encoder"
    recipe: DeepRecipe
    fingerprint: Fingerprint
    split: dict[str, tuple[str, ...]]
    training: Training

    @classmethod
    def upgraded(cls, content: Mapping[str, Any]) -> dict[str, Any]:
        return {**content, "format": 2, "training": upgrade_training_v1(content["training"])}


class DeepEncoder:
    """Encodes images as a trained network chooses: made by ``fit_jpeg`` or :func:`load`.

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
        """Number of λ that the network was trained for."""
        return len(self.recipe.lambdas)

    def place(self, quality: float) -> float:
        """Place of a quality of 1 to 100 among the λ, 0 to ``places`` - 1."""
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
        """Encode one image, at a quality or as near as possible to a target.

        Parameters
        ----------
        pixels: uint8 (H, W) or (H, W, 3), RGB.
        quality: 1 to 100, any number; 75 when nothing is given.
        target_bpp: bits per pixel of the whole file, segments included, met within 1 %.
        target_ssim: SSIM of luma after decoding, met within 1 % of 1 - SSIM.
        segments: APPn and COM markers to be put into the file.

        Returns
        -------
        Encoded; of a target out of reach the nearest file, with a line in ``notice``.

        Raises
        ------
        UsageError
            More than one of quality and targets, one that is out of range, or pixels of another type or shape.
        """
        found = encode_to_target(
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
        """Encode one image as the network chooses at ``place``, 0 to ``places`` - 1."""
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
        return write_model(folder, self.file, weights_of(self.model), self.card())

    def card(self) -> str:
        """The model in a page of Markdown, for people."""
        file, recipe, training = self.file, self.recipe, self.file.training
        columns = ["step", "training loss", "held-out loss", *training.history[-1].terms]
        rows = [
            [
                str(look.step),
                *(f"{value:.5g}" for value in (look.training, look.validation, *look.terms.values())),
            ]
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
            f"## The photographs\n\n{file.fingerprint.count} images; SHA-256 {file.fingerprint.sha256}. "
            f"Split: {split}.\n\n"
            f"## Training\n\nBest of {training.steps} steps at step {training.best_step}, "
            f"{training.seconds:.0f} s on {training.machine_words}. The terms are held-out means as they enter the "
            f"loss, λ and weights included.\n\n{curve}\n"
        )


# -- loading -------------------------------------------------------------------------------------------


def load(folder: str | Path) -> DeepEncoder:
    """Load the encoder that ``blemish jpeg fit`` wrote into ``folder``.

    Raises
    ------
    ModelError
        When the folder is no such model, incomplete, edited, damaged, or from a newer version of Blemish.
    """
    folder = Path(folder)
    file = read_model_file(folder)
    return DeepEncoder(load_weights(folder, file, lambda: DeepJpeg(file.recipe, pretrained=False)), file)


def read_model_file(folder: Path) -> DeepModelFile:
    """``model.json`` of the encoder in ``folder``, without its weights.

    Raises
    ------
    ModelError
        As :func:`load`.
    """
    return read_document(folder, JPEG_ENCODER, DeepModelFile)
