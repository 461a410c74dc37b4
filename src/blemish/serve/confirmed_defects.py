"""Confirmed defects of a served model: those that may choose in a fit from the page, and those that are kept for tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from blemish.data.labels import GOOD
from blemish.serve.good_images import DIGITS, GoodImageFolder
from blemish.serve.history import History, HistoryFilter, KeptImages
from blemish.serve.verdicts import JudgedImage, folder_name, judged_images
from blemish.storage.atomic import atomic_folder, write_error
from blemish.storage.model_folder import MODEL_FILE

LEAST_DEFECTS = 5
"""By fewer the choice among models is left to chance."""


class DefectCount(BaseModel):
    """Confirmed defects of a model."""

    model: str
    to_choose: int
    """Kept images that may choose the weights in a fit."""
    drawn: int
    """Those of them whose defect was drawn; a drawing is no condition."""
    to_test: int
    """Kept images that no fit sees; evaluations and comparisons use them."""
    least: int = LEAST_DEFECTS
    """Images to choose that a fit needs."""


class JudgedParts(NamedTuple):
    """Judged images of a model, parted by :func:`~blemish.serve.verdicts.is_to_test`."""

    to_choose: list[JudgedImage]
    """Defects."""
    to_test: list[JudgedImage]
    """Defects and good images."""

    def choosing(self, good: GoodImageFolder, origin: Path | None) -> list[JudgedImage]:
        """Defects for a fit on ``good``, which goes on from the model in ``origin``.

        None that either has among its good images: an operator may have taken a part for good first.
        """
        names, seen = {path.stem for path in good}, _seen_by(origin)
        digests = [(one, one.decision.image_sha256) for one in self.to_choose]
        return [one for one, digest in digests if digest not in seen and digest[:DIGITS] not in names]

    def counted(self, model: str) -> DefectCount:
        """How many defects there are."""
        return DefectCount(
            model=model,
            to_choose=len(self.to_choose),
            drawn=sum(bool(one.shapes) for one in self.to_choose),
            to_test=sum(one.label != GOOD for one in self.to_test),
        )


PartsOf = Callable[[str], JudgedParts]
"""Judged images of a model."""


def judged_parts(history: History, images: KeptImages, model: str) -> JudgedParts:
    """Judged images of ``model`` that are kept, each content once; none whose verdicts contradict each other.

    Raises
    ------
    HistoryError
        When the history cannot be read.
    """
    judged, _, _ = judged_images(history, images, HistoryFilter(model=model))
    return JudgedParts(
        [one for one in judged if one.label != GOOD and not one.is_to_test],
        [one for one in judged if one.is_to_test],
    )


def write_defects(defects: list[JudgedImage], target: Path) -> None:
    """Copy defects to the new folder ``target``, by their type, whole or not at all.

    Raises
    ------
    FileError
        When it cannot be written.
    """
    with atomic_folder(target) as folder:
        try:
            for one in defects:
                path = folder / folder_name(one.label) / f"{one.decision.id:09}{one.image.suffix}"
                path.parent.mkdir(exist_ok=True)
                shutil.copyfile(one.image, path)
        except OSError as error:
            raise write_error(target, error) from None


def _seen_by(model: Path | None) -> frozenset[str]:
    """SHA-256 of the images that the model in a folder was fitted on; none where it cannot be read."""
    if model is None:
        return frozenset()
    try:
        return frozenset(json.loads((model / MODEL_FILE).read_bytes()).get("seen", {}))
    except (OSError, ValueError, AttributeError):
        return frozenset()
