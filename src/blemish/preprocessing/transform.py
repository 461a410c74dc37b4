"""Preprocessing of images for the network, the same in training and inspection, and its inverse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from blemish.data.appearance import Range, differences, stretched
from blemish.data.channels import other_channels, select_channels
from blemish.data.image import DEPTH_WORDS, LoadedImage, PixelKind, resize
from blemish.data.modality import Modality
from blemish.errors import ImageError, UsageError
from blemish.limits import MAX_CHANNELS, MAX_IMAGE_SIDE
from blemish.preprocessing.absent import absent_outside
from blemish.preprocessing.cells import Cells, make_cells
from blemish.preprocessing.judged_area import JudgedArea, RegionClass, largest_of
from blemish.preprocessing.pose import Crop, FoundObject, find_objects

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PreprocessedImage(NamedTuple):
    """A preprocessed image, and the inverse transform of maps and images."""

    pixels: NDArray[np.float32]
    """(C, h, w) floats in [0, 1] at the network's scale; outside the image its border is repeated."""
    image: LoadedImage
    """The image at its own size (C, H, W), with the network's channels."""
    cells: Cells | None
    """Objects and their places, if the preprocessing brings objects into a common pose."""
    scale: float
    """The network's pixels per image pixel."""
    found: tuple[FoundObject, ...] = ()
    """The objects, the largest first, where the preprocessing looks for them and there are some."""
    area: JudgedArea | None = None
    """Region of interest, if there is one."""

    @property
    def own(self) -> NDArray[np.float32]:
        """(C, H, W) floats in [0, 1] at the image's own size."""
        return self.image.floats()

    @property
    def inside(self) -> NDArray[np.bool_] | None:
        """Mask (h, w) of the places inside the image; None where all are.

        A crop around an object at the border of its image reaches beyond it, and one beside another object into that.
        """
        if self.cells is None:
            return None
        mask = self.cells.inside()
        return None if mask.all() else mask

    @property
    def model_input(self) -> NDArray[np.float32]:
        """What an anomaly model is given: :attr:`pixels` with NaN at the places outside the image."""
        return absent_outside(self.pixels, self.inside)

    def judged(self, anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
        """An anomaly map (h, w) with its least value, 0 at most, outside the image and the judged area.

        What is not in the image can be no anomaly, in calibration and in inspection.
        """
        return _judged(anomaly_map, self._judged_places(anomaly_map.shape))

    def judged_classes(
        self, anomaly_map: NDArray[np.float32]
    ) -> Iterator[tuple[RegionClass, NDArray[np.float32]]]:
        """Each class of regions, and an anomaly map (h, w) as of :meth:`judged` where only it is judged."""
        assert self.area is not None
        judged = self._judged_places(anomaly_map.shape)
        marked = self.area.labels(self.image.height, self.image.width)
        labels = largest_of(
            self._placed(marked == number, anomaly_map.shape)
            for number in range(1, 1 + len(self.area.classes))
        )
        for number, one in enumerate(self.area.classes, start=1):
            yield one, _judged(anomaly_map, judged & (labels == number))

    def _judged_places(self, size: tuple[int, ...]) -> NDArray[np.bool_]:
        """Places (h, w) of the network that lie in the image and in the judged area."""
        inside = np.ones(size, np.bool_) if self.inside is None else self.inside
        shape = (self.image.height, self.image.width)
        if self.area is not None:
            inside = inside & (self._placed(self.area.mask(*shape), size) > 0.5)
        return inside

    def _placed(self, marked: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.float32]:
        """A mask (H, W) of the image as the network sees it, (h, w)."""
        height, width = size
        plane = marked[None].astype(np.float32)
        if self.cells is None:
            return np.asarray(resize(plane, (height, width))[0])
        return np.asarray(self.cells.take(plane)[0])

    def map_back(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """A map (h, w) at the image's own size (H, W); 0 outside the crop, and at most 0 outside the judged area.

        In a class of regions it is in units of the usual score of the class.
        """
        back: NDArray[np.float32] = self._back(values[None], None)[0]
        if self.area is not None:
            back = np.where(self.area.mask(*back.shape), back, np.minimum(back, 0)).astype(np.float32)
            for number, scale in enumerate(
                self.area.scales, start=1
            ):  # class by class, as large images are many pixels
                labels = self.area.labels(*back.shape)
                np.divide(back, np.float32(scale), out=back, where=labels == number)
        return back

    def image_back(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """An image (C, h, w) at the image's own size (C, H, W); outside the crop, the image itself."""
        return np.stack(list(self.planes_back(values)))

    def planes_back(self, values: NDArray[np.floating]) -> Iterator[NDArray[np.float32]]:
        """The planes (H, W) of :meth:`image_back`, one by one, so that memory need not hold them all."""
        for number, plane in enumerate(self.image.pixels):
            own = LoadedImage(self.image.path, plane[np.newaxis])
            yield self._back(values[number : number + 1], own)[0]

    def _back(self, values: NDArray[np.floating], outside: LoadedImage | None) -> NDArray[np.float32]:
        shape = (self.image.height, self.image.width)
        if self.cells is not None:
            return self.cells.back(values, np.zeros(1) if outside is None else outside.floats())
        if values.shape[1:] == shape:
            return values.astype(np.float32, copy=False)
        return resize(values, shape)


def _judged(anomaly_map: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    if inside.all():
        return anomaly_map
    return np.where(inside, anomaly_map, min(0.0, float(anomaly_map.min()))).astype(np.float32)


class Objects(BaseModel):
    """Objects of the good images, where the preprocessing brings them into one pose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: Range
    """From end to end, in pixels at the network's scale."""
    most: int = Field(ge=1)
    """Number of objects in an image, at most."""
    least: int = Field(1, ge=1)
    """Number of objects in an image, at least."""


class Preprocessing(BaseModel):
    """Channels, depth and size that a model was fitted on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int = Field(ge=1, le=MAX_CHANNELS)
    """Channels of the input of the network."""
    convert: bool
    """Whether images of other channel counts are converted (``image.channels`` was set)."""
    kind: PixelKind
    """Depth of the training images; another depth is refused, because full scale would mean something else."""
    size: int | None = Field(ge=1, le=MAX_IMAGE_SIDE)
    """Shorter side in pixels after resizing; None keeps the image's own size."""
    scale: FiniteFloat | None = Field(None, gt=0, le=MAX_IMAGE_SIDE)
    """Factor by which every image is resized, in place of ``size``."""
    crop: Crop | None = None
    """Crops around the objects in every image; None for whole images."""
    range: int | None = Field(None, ge=1, le=65535)
    """Value that means 1 in images of 16 bits; None: that of the type."""
    area: JudgedArea | None = None
    """Region of interest, the same in every image; None judges all of it."""
    objects: Objects | None = None
    """Those of the good images; None without crop, and of models of version 0.1."""
    modalities: tuple[Modality, ...] = ()
    """Those of a model that was fitted on scenes; their channels together are ``channels``."""

    def apply(self, image: LoadedImage) -> PreprocessedImage:
        """Bring an image to the network's channels and scale, and its objects into the common pose.

        An object that cannot be found is assumed to lie in the middle, so that the image is inspected all the same.

        Raises
        ------
        ImageError
            When the image's channels or depth are not what the model was fitted on.
        """
        pixels = image.pixels
        if image.kind != self.kind:
            raise ImageError(
                image.path,
                f"is {DEPTH_WORDS[image.kind]}, the model was fitted on {DEPTH_WORDS[self.kind]} images",
                f"convert it to {DEPTH_WORDS[self.kind]}",
            )
        if self.convert:
            try:
                pixels = select_channels(pixels, self.channels)
            except UsageError as error:
                raise ImageError(image.path, str(error), "convert it or remove it") from None
        elif image.channels != self.channels:
            raise ImageError(
                image.path,
                f"has {image.channels} channel{'s' * (image.channels != 1)}, "
                f"the model was fitted on {self.channels}",
                other_channels(image.channels, self.channels),
            )
        if self.range is not None:
            if pixels.max() > self.range:
                raise ImageError(
                    image.path,
                    f"holds values up to {pixels.max()}, above the {self.range} that mean 1",
                    "correct it, or fit with a larger --set image.range",
                )
            pixels = stretched(pixels, 65535 / self.range)
        image = LoadedImage(image.path, pixels)
        scale = self.scale_of(image.height, image.width)
        if self.crop is not None:
            floats = image.floats()
            found = find_objects(floats.mean(0))
            cells = make_cells(found, self.crop, scale, (image.height, image.width))
            return PreprocessedImage(cells.take(floats), image, cells, scale, found, self.area)
        resized = image.resized(self.scaled(image.height, image.width))
        return PreprocessedImage(resized, image, None, scale, (), self.area)

    def unlike(self, placed: PreprocessedImage) -> list[str]:
        """What about the objects of an image is so unlike those of the good images that it is of another kind."""
        if self.objects is None:
            return []
        if not placed.found:
            return ["no object is found"]
        length, scale = self.objects.length, placed.scale
        good = Range(low=length.low / scale, high=length.high / scale)  # in pixels of this image's file
        lengths = [one.length for one in placed.found[: self.crop.count if self.crop else 1]]
        extremes = sorted({min(lengths), max(lengths)})
        found = [words for own in extremes for words in differences({"length": own}, {"length": good})]
        number, least, most = len(placed.found), self.objects.least, self.objects.most
        if not least <= number <= most:
            usual = "one" if most == 1 else f"{least} to {most}" if least < most else f"{most}"
            found.append(
                f"{number} object{'s' * (number != 1)} {'are' if number != 1 else 'is'} found, in good images {usual}"
            )
        return found

    def scale_of(self, height: int, width: int) -> float:
        """The network's pixels per pixel of an image of ``height`` and ``width``."""
        if self.scale is not None:
            return self.scale
        return 1.0 if self.size is None else self.size / min(height, width)

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of an image as the network sees it: aspect kept, or that of the crop."""
        if self.crop is not None:
            return self.crop.shape
        scale = self.scale_of(height, width)
        least = 1 if self.size is None else self.size
        return max(least, round(height * scale)), max(least, round(width * scale))
