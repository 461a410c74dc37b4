"""Memory bank of good images: an anomaly model that compares features and trains nothing by gradients.

The bank of each extractor gives a map in standard deviations of good images; the maps are added.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from blemish.detectors.contracts import (
    AnomalyMaps,
    FitRecord,
    FittingRun,
    Floats,
    ImageSequence,
    OneProcess,
    Sharing,
    TrainingSource,
)
from blemish.detectors.feature_extractors import (
    Colour,
    FeatureExtractor,
    LocalContrast,
    Structure,
    WideStructure,
)
from blemish.detectors.patch_bank import PatchBank, TensorSequence, image_sizes
from blemish.errors import UsageError
from blemish.preprocessing.absent import filled, inside_places

COLOURS = 10_000
"""Colours that are kept where places do not matter; they have few dimensions."""


class TensorImages:
    """Images of several sources, one after the other, as tensors; each is read when it is asked for."""

    def __init__(self, *sources: tuple[ImageSequence, Sequence[int]]) -> None:
        self._places = [(source, index) for source, indices in sources for index in indices]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int, /) -> Tensor:
        source, index = self._places[number]
        return torch.from_numpy(source[index])


class MemoryBank(nn.Module):
    """Banks of the features of good images, one an extractor; the anomaly map is the sum of their maps.

    Parameters
    ----------
    extractors: of the features; at least one.
    dimensions, capacity, images, nearest_images, reach: as :class:`~blemish.detectors.patch_bank.PatchBank` takes
        them.
    by_place: whether places matter; None leaves the choice to the selection of an ensemble.
    share: weight beside a network, in an ensemble of both; None leaves this choice, too.
    """

    takes_absent = False
    keeps_good_images = True
    is_normalised = True
    """Whether the map is in units of the spread of good images already, so that an ensemble takes it as it is."""

    def __init__(
        self,
        extractors: Sequence[FeatureExtractor],
        *,
        dimensions: Annotated[int, Field(ge=1, le=4096)] = 16,
        capacity: Annotated[int, Field(ge=1)] = 30_000,
        images: Annotated[int, Field(ge=1)] = 1000,
        nearest_images: Annotated[int, Field(ge=1)] = 50,
        reach: Annotated[int, Field(ge=0, le=64)] = 1,
        by_place: bool | None = None,
        share: Annotated[float | None, Field(ge=0, le=1)] = None,
    ) -> None:
        super().__init__()
        self.banks = nn.ModuleList(
            PatchBank(
                extractor,
                dimensions=dimensions,
                capacity=capacity,
                images=images,
                nearest_images=nearest_images,
                reach=reach,
            )
            for extractor in extractors
        )
        self.placement_modes = (False, True) if by_place is None else (by_place,)
        """Values of ``by_place`` that a selection may choose from."""
        self.share = share

    # -- the anomaly model -------------------------------------------------------------------------

    @property
    def title(self) -> str:
        names = [bank.extractor.title for bank in self._banks if not bank.is_empty or self.is_empty]
        return f"distance to the good images in {' and '.join(names)}"

    @property
    def sees_areas(self) -> bool:
        """True if brightness and colour of areas are compared as such."""
        return any(isinstance(bank.extractor, Colour) and not bank.is_empty for bank in self._banks)

    @property
    def ignores_light(self) -> bool:
        """True if a · x + b, a > 0, has the map of x."""
        return all(bank.extractor.ignores_light for bank in self._banks)

    def window(self, size: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, slice]:
        """The whole image, because features are relative to it."""
        for bank in self._banks:
            if not bank.is_empty or self.is_empty:
                bank.extractor.check(*size)
        return slice(0, size[0]), slice(0, size[1])

    def maps(self, x: Floats, *, hidden: Sequence[slice] = ()) -> AnomalyMaps:
        return AnomalyMaps(self.anomaly_map(x), None)

    def anomaly_map(self, x: Floats, without: int | None = None) -> Floats:
        """Map (h, w) of ``x`` (C, h, w), 0 outside the image; ``without`` as :meth:`PatchBank.forward` takes it.

        Raises
        ------
        UsageError
            When ``x`` is too small, has values that are absent (NaN) in some channels only, or the bank is empty.
        """
        if np.isnan(filled(x, inside_places(x))).any():
            raise UsageError(
                "the image has absent values (NaN), which a memory bank cannot take; use fp-cae-add, "
                "fp-cae-concat or fp-cae, or fill them"
            )
        with torch.inference_mode():
            device = self._banks[0].bank.device
            values: Floats = self(torch.from_numpy(x)[None].to(device), without)[0, 0].cpu().numpy()
        return values

    def forward(self, x: Tensor, without: int | None = None) -> Tensor:
        """Sum of the banks' maps: (N, C, H, W) to (N, 1, H, W), at least 0; see :meth:`PatchBank.forward`."""
        if self.is_empty:
            raise UsageError("the memory bank is empty; fit it first")
        total: Tensor | None = None
        for bank in self._banks:
            if not bank.is_empty:
                values = bank(x, without)
                total = values if total is None else total + values
        assert total is not None
        return total

    # -- fitting -----------------------------------------------------------------------------------

    @property
    def _banks(self) -> list[PatchBank]:
        return list(self.banks)  # type: ignore[arg-type]

    @property
    def is_empty(self) -> bool:
        """True if no bank holds any features yet."""
        return all(bank.is_empty for bank in self._banks)

    @property
    def by_place(self) -> bool:
        """True if places matter in the banks as they are filled."""
        return any(bank.by_place for bank in self._banks)

    def reset(self) -> None:
        """Empty all banks."""
        for bank in self._banks:
            bank.reset()

    def fit(self, source: TrainingSource, run: FittingRun) -> FitRecord:
        """Fill the banks from all training and validation images, anywhere unless ``by_place`` was set.

        Whether places help is a choice that :mod:`~blemish.detectors.ensemble_selection` makes.
        """
        train, held_out = source.whole("train"), source.whole("validation")
        both = TensorImages(
            (train.images, range(len(train.images))), (held_out.images, range(len(held_out.images)))
        )
        run.observer.stage(f"Filling the memory bank from {len(both)} images")
        self.fit_images(
            both,
            torch.Generator().manual_seed(run.seed),
            by_place=self.placement_modes[0],
            groups=[*train.groups, *held_out.groups],
            sharing=run.sharing,
        )
        return FitRecord()

    def fit_images(
        self,
        images: TensorSequence,
        generator: torch.Generator,
        *,
        by_place: bool,
        groups: Sequence[Hashable] | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        """Fill the banks from ``images`` as :meth:`PatchBank.fit` does.

        Those whose extractor has no room stay empty, and where places matter those that are for images without common places.
        """
        self.reset()
        sharing = sharing or OneProcess()
        sizes = image_sizes(images, sharing)
        with_room = [
            bank
            for bank in self._banks
            if bank.extractor.has_room(sizes) and not (by_place and bank.extractor.only_anywhere)
        ]
        for bank in with_room or self._banks[:1]:
            bank.fit(images, generator, by_place=by_place, groups=groups, sharing=sharing)


class StructureMemoryBank(MemoryBank):
    """Memory bank of the structure of good images, and of the structure of their local contrast.

    Parameters
    ----------
    patch, stride, floor: as :class:`~blemish.detectors.feature_extractors.Structure` takes them.
    wide: side in pixels of wide patches, whose structure is compared beside that of the others where places do not matter,
        as far apart as the others in proportion; None for none.
    contrast: whether local contrast is compared beside the image itself, where the median image's shorter side has
        128 pixels or more, and no image is smaller than a patch.
    dimensions, capacity, images, nearest_images, reach, by_place, share: as :class:`MemoryBank` takes them.
    """

    def __init__(
        self,
        *,
        patch: Annotated[int, Field(ge=4, le=512, multiple_of=2)] = 16,
        stride: Annotated[int, Field(ge=1, le=512)] = 4,
        floor: Annotated[float, Field(gt=0)] = 2.0,
        dimensions: Annotated[int, Field(ge=1, le=4096)] = 16,
        capacity: Annotated[int, Field(ge=1)] = 30_000,
        images: Annotated[int, Field(ge=1)] = 1000,
        nearest_images: Annotated[int, Field(ge=1)] = 50,
        reach: Annotated[int, Field(ge=0, le=64)] = 1,
        by_place: bool | None = None,
        share: Annotated[float | None, Field(ge=0, le=1)] = None,
        contrast: bool = True,
        wide: Annotated[int, Field(ge=4, le=512, multiple_of=2)] | None = None,
    ) -> None:
        extractors: list[FeatureExtractor] = [Structure(patch=patch, stride=stride, floor=floor)]
        if contrast:
            extractors.append(LocalContrast(patch=patch, stride=stride, floor=floor))
        if wide is not None:
            extractors.append(WideStructure(patch=wide, stride=max(1, stride * wide // patch), floor=floor))
        super().__init__(
            extractors,
            dimensions=dimensions,
            capacity=capacity,
            images=images,
            nearest_images=nearest_images,
            reach=reach,
            by_place=by_place,
            share=share,
        )


class ColourMemoryBank(MemoryBank):
    """Memory bank of the colour of areas in good images, to which structure is blind.

    Parameters
    ----------
    only_posed: whether it is for objects in one pose alone.
    """

    def __init__(self, *, only_posed: bool = False) -> None:
        super().__init__([Colour()], capacity=COLOURS)
        self.only_posed = only_posed
