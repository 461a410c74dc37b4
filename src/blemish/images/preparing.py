"""How a picture file becomes what the network sees; the same for training and inspection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from blemish.errors import PictureError, UsageError
from blemish.images.modalities import Modality
from blemish.images.reading import DEPTH_WORDS, Kind, Picture, resize, select_channels

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Preparation(BaseModel):
    """Channels, depth and size that a model was fitted on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int
    """That the network takes."""
    convert: bool
    """Whether pictures of other channel counts are converted (``picture.channels`` was set)."""
    kind: Kind
    """Depth of the training pictures; another depth is refused, because full scale would mean something else."""
    size: int | None
    """Shorter side in pixels after resizing; None keeps the picture's own size."""
    modalities: tuple[Modality, ...] = ()
    """Of a model that was fitted on scenes; their channels together are ``channels``."""

    def prepare(self, picture: Picture) -> NDArray[np.float32]:
        """(C, h, w) floats in [0, 1] at the network's scale.

        Raises
        ------
        PictureError
            When the picture's channels or depth are not what the model was fitted on.
        """
        pixels = picture.pixels
        if picture.kind != self.kind:
            raise PictureError(
                picture.path,
                f"is {DEPTH_WORDS[picture.kind]}, the model was fitted on {DEPTH_WORDS[self.kind]} pictures",
                f"convert it to {DEPTH_WORDS[self.kind]}",
            )
        if self.convert:
            try:
                pixels = select_channels(pixels, self.channels)
            except UsageError as error:
                raise PictureError(picture.path, str(error), "convert it or remove it") from None
        elif picture.channels != self.channels:
            raise PictureError(
                picture.path,
                f"has {picture.channels} channel{'s' * (picture.channels != 1)}, "
                f"the model was fitted on {self.channels}",
                f"convert it, or fit with --set picture.channels={self.channels}",
            )
        floats = Picture(picture.path, pixels).floats()
        height, width = self.scaled(picture.height, picture.width)
        if (height, width) == floats.shape[1:]:
            return floats
        return resize(floats, (height, width))

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after resizing the shorter side to ``size``, aspect kept."""
        if self.size is None:
            return height, width
        scale = self.size / min(height, width)
        return max(self.size, round(height * scale)), max(self.size, round(width * scale))
