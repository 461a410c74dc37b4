"""Confirmed defects of a fit: read, checked and preprocessed like its good images."""

from __future__ import annotations

import math
from pathlib import Path

from blemish.data.datasets import find_images
from blemish.data.fingerprint import file_sha256
from blemish.data.image import read_image
from blemish.detectors.contracts import DefectiveImages, Floats
from blemish.errors import FileError, ImageError, Stopped, UsageError
from blemish.observer import Observer
from blemish.training.image_source import ImageSource
from blemish.training.sources import FitSource

MOST = 100
"""Defects that are read, at most; they choose among a few models, for which more are not needed."""


def read_defects(path: Path, source: FitSource, observer: Observer) -> DefectiveImages:
    """Preprocessed images of a folder or list of confirmed defects, copies of one file once.

    Of a list that parts its defects into training and test images, those of the training are taken, so that no test image
    chooses. The group of an image is that of a list, or its folder, which names the kind of defect in most data sets. An image
    that cannot be used is reported, and the others are used.

    Raises
    ------
    UsageError
        Where the fit is on scenes.
    FileError
        When no defect can be used, or one of them is among the good images, byte by byte.
    Stopped
        When the observer asked to stop.
    """
    if not isinstance(source, ImageSource):
        raise UsageError(
            f"{path}: confirmed defects choose among models of images; leave --defects out for scenes"
        )
    observer.stage(f"Reading the confirmed defects in {path}")
    found = [item for item in find_images(path) if item.is_good is not True]
    found = [item for item in found if item.split == "train"] or found
    items = found[:: math.ceil(len(found) / MOST)] if found else []
    if len(items) < len(found):
        observer.stage(f"Of {len(found)} confirmed defects {len(items)} are compared, evenly over the list")
    images: list[Floats] = []
    groups: list[str] = []
    seen: set[str] = set()
    for done, item in enumerate(items, start=1):
        if observer.should_stop():
            raise Stopped(f"stopped after reading {done - 1} of {len(items)} defects, before training")
        try:
            sha256 = file_sha256(item.path)
            if sha256 in source.seen:
                raise FileError(item.path, "is among the good images, too", "take it out of one of them")
            if sha256 not in seen:
                seen.add(sha256)
                images.append(source.preprocessing.apply(read_image(item.path)).model_input)
                groups.append(item.group or item.label or item.path.parent.name)
        except ImageError as error:
            observer.problem(error)
        observer.count(done, len(items))
    if not images:
        raise FileError(
            path, "holds no image with a defect that can be used", "repair the images above, or add others"
        )
    return DefectiveImages(images, groups)
