"""Modalities: the channels of an image that one sensor took, and the files that hold them."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, PositiveFloat

from blemish.data.affine import Transform
from blemish.data.items import natural_key
from blemish.errors import FileError, ImageError
from blemish.limits import MAX_CHANNELS, plain_name


def _inside(file: str) -> str:
    if not file:
        return file
    path = PurePosixPath(file)
    if "\0" in file or path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError("name a file inside the folder of a scene")
    fields = [field for _, field, _, _ in string.Formatter().parse(path.name) if field is not None]
    if "{" in str(path.parent) or set(fields) - {"row", "column"} or len(set(fields)) < len(fields):
        raise ValueError("write {row} and {column} once each, in the name of the file")
    return file


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] >= ends[1]:
        raise ValueError("write the lower value first, then the higher")
    return ends


def _invertible(transform: Transform) -> Transform:
    (a, b, _), (d, e, _) = transform
    if not 1e-6 < abs(a * e - b * d) < 1e6:
        raise ValueError("write a transform that keeps an area: [[1, 0, dx], [0, 1, dy]] moves by dx, dy")
    return transform


# A name becomes that of files and of loss terms.
ModalityName = Annotated[str, AfterValidator(plain_name)]
ScenePath = Annotated[str, AfterValidator(_inside)]
ModalityRange = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_rising)]
AutomaticRange = Literal["auto"]
ModalityTransform = Annotated[
    tuple[tuple[FiniteFloat, FiniteFloat, FiniteFloat], tuple[FiniteFloat, FiniteFloat, FiniteFloat]],
    AfterValidator(_invertible),
]


class Modality(BaseModel):
    """The channels of an image that one sensor took; those of a list of modalities follow each other.

    Where a sensor saw nothing, its channels hold NaN: it was never taken, or does not cover that region.

    Examples
    --------
    >>> Modality(name="rgb", channels=3).is_grey, Modality(name="xray", channels=1).is_grey
    (True, False)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ModalityName
    channels: int = Field(ge=1, le=MAX_CHANNELS)
    grey: bool | None = None
    """Whether it is turned to grey before SSIM; None for exactly the modalities of three channels, which is
    what Xie et al. 2019, section 3.3, do."""
    file: ScenePath = ""
    """Within the folder of its scene; with ``{row}`` and ``{column}`` several abutting files."""
    dataset: str = ""
    """Path of a dataset within it, where it is an HDF5 file with several."""
    range: ModalityRange | AutomaticRange | None = None
    """The values that become 0 and 1, others are clipped; None: the full range of the file's own depth; ``auto``:
    quantiles of the pixels, which a model then keeps as numbers."""
    no_data: FiniteFloat | None = None
    """The value, as it is in the file, of pixels where nothing was measured."""
    grid: bool = False
    """Whether the others are brought to its pixels."""
    scale: PositiveFloat | None = None
    """Pixels along a side for each of the grid, where a model was fitted: a scene without the grid's own modality is
    still brought to the scale that the network knows."""
    transform: ModalityTransform | None = None
    """From places of the grid to places in the modality's own pixels (:mod:`blemish.data.affine`), in one scene; None:
    its outer edges are those of the grid."""
    depth: str | None = None
    """Type of its pixels where a model was fitted on it; another type is reported."""

    @property
    def is_grey(self) -> bool:
        """True if the modality is compared in grey: ``grey``, or its default."""
        return self.channels == 3 if self.grey is None else self.grey


def channel_slices(modalities: Sequence[Modality]) -> tuple[slice, ...]:
    """Channels of each of ``modalities`` in an image of all of them.

    >>> channel_slices([Modality(name="rgb", channels=3), Modality(name="xray", channels=1)])
    (slice(0, 3, None), slice(3, 4, None))
    """
    ends = list(accumulate((modality.channels for modality in modalities), initial=0))
    return tuple(slice(start, stop) for start, stop in pairwise(ends))


def modality_files(folder: Path, modality: Modality) -> dict[tuple[int, int], Path]:
    """Find the files of ``modality`` in ``folder``, by (row, column) as their names count them.

    Raises
    ------
    ImageError
        Two names give the same row and column, as ``x_1.tif`` and ``x_01.tif`` do.
    """
    if not modality.file:
        return {}
    path = folder / modality.file
    if "{" not in path.name:
        return {(0, 0): path} if os.path.lexists(path) else {}
    pattern = re.escape(path.name)
    for place in ("row", "column"):
        pattern = pattern.replace(rf"\{{{place}\}}", rf"(?P<{place}>[0-9]+)")
    found: dict[tuple[int, int], Path] = {}
    for file in list_folder(path.parent) if path.parent.is_dir() else []:
        match = re.fullmatch(pattern, file.name)
        if match is None:
            continue
        places = match.groupdict()
        key = int(places.get("row", 0)), int(places.get("column", 0))
        if key in found:
            raise ImageError(file, f"stands where {found[key].name} does", "remove one of the two")
        found[key] = file
    return found


def list_folder(folder: Path) -> list[Path]:
    """Paths in ``folder``, hidden ones left out, in natural order; raises FileError where it cannot be read."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        problem = f"cannot be searched ({error.strerror})"
        raise FileError(folder, problem, "change its permissions or move it away") from None
    return [folder / name for name in sorted(names, key=natural_key)]
