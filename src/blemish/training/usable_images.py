"""Choice of the images that a model can be fitted on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from blemish.data.datasets import find_images, look_for_images
from blemish.data.fingerprint import Fingerprint, fingerprint
from blemish.data.folders import refuse_mixed
from blemish.data.image import image_info
from blemish.data.items import Item
from blemish.detectors.factory import least_side
from blemish.errors import FileError, ImageError, RecipeError, Stopped
from blemish.observer import Observer
from blemish.preprocessing.tiling import smallest_side
from blemish.recipes import Recipe


def usable_images(
    images: Path,
    *,
    channels: int | None,
    patch: int | None,
    good: str | None = None,
    remedy: Callable[[int], str],
    observer: Observer,
    one: str = "good image",
    many: str = "images",
) -> tuple[Fingerprint, dict[str, Item]]:
    """The fingerprint of all images in ``images`` that can be fitted on, and those images by name.

    Parameters
    ----------
    channels: number that each is converted to; None keeps them.
    patch: side in pixels; images of less than half a patch are left out. None takes all sizes.
    good: the label of a list that says good, where it is none of the usual words.
    remedy: for such an image, by its shorter side in pixels.
    one, many: names of the images in messages.

    Raises
    ------
    FileError
        When there is no such image.
    Stopped
        When the observer asked to stop.
    """
    found = look_for_images(images, good)
    for line in found.notices():
        observer.stage(line)
    items = _good_ones(images, found.items, good)
    if patch is not None:
        items = [item for item in items if not _refuse_small(item, patch, remedy, observer)]
    if not items:
        raise FileError(images, f"holds no {one} that can be used", "repair the images above, or add others")

    def count(done: int, total: int) -> None:
        observer.count(done, total)
        if observer.should_stop():
            raise Stopped(f"stopped after reading {done} of {total} {many}, before training")

    def remark(item: Item, words: str) -> None:
        observer.stage(f"{item.path}: {words}; is it a good image of this kind? If not, leave it out")

    data, usable, problems = fingerprint(items, channels=channels, progress=count, remark=remark)
    for problem in problems:
        observer.problem(problem)
    return data, {item.name: item for item in usable}


def _refuse_small(item: Item, patch: int, remedy: Callable[[int], str], observer: Observer) -> bool:
    try:
        info = image_info(item.path)
    except ImageError:
        return False  # fingerprint() reads the whole file and reports its problem
    shorter = min(info.height, info.width)
    if shorter >= smallest_side(patch):
        return False
    problem = (
        f"is {info.width} × {info.height} pixels, and has to have {smallest_side(patch)} a side at least"
    )
    observer.problem(ImageError(item.path, problem, remedy(shorter)))
    return True


def read_images(
    images: Path, recipe: Recipe, observer: Observer, scale: float | None = None, good: str | None = None
) -> tuple[Fingerprint, dict[str, Item]]:
    """The fingerprint of all good images that can be used, and those images by name.

    Parameters
    ----------
    scale: common scale of the model of a warm start, where it has one.
    good: the label of a list that says good, where it is none of the usual words.
    """
    least, image = least_side(recipe), recipe.image
    if image.size is not None and image.size < least:
        raise RecipeError(
            f"image.size {image.size} is less than the {least} pixels a side that the models of {recipe.name} need; use at "
            f"least {least}"
        )
    by_patch = recipe.encoder is not None and least == smallest_side(recipe.patch.size)
    patch = recipe.patch.size if by_patch else 2 * least
    side: int | None = patch if image.size is None else None
    if image.size is not None and image.scale == "common":
        scale = scale or _common_scale(good_images(images, good), image.size, patch)
        side = math.ceil(patch / scale)

    def remedy(shorter: int) -> str:
        if image.size is not None:
            return (
                f"at the model's scale of {scale or 1:.3g}, by which the median image gets the shorter side of {image.size}, "
                "it is too small: leave it out, or fit with --set image.scale=each"
            )
        side = shorter // 16 * 16
        smaller = f"--set patch.size={side} --set patch.stride={side // 2} or " if side and by_patch else ""
        return f"leave it out, or fit with {smaller}--set image.size={patch if by_patch else least}"

    return usable_images(
        images,
        channels=recipe.image.channels,
        patch=side,
        good=good,
        remedy=remedy,
        observer=observer,
    )


def _common_scale(items: Sequence[Item], size: int, patch: int) -> float:
    """Scale that brings the median of ``items`` to ``size``; images that are then less than half a patch do not count."""
    sides = []
    for item in items:
        with suppress(ImageError):  # reported when the whole file is read
            info = image_info(item.path)
            sides.append((info.width, info.height))
    while sides:
        scale: float = size / min(statistics.median(some) for some in zip(*sides, strict=True))
        stay = [both for both in sides if min(both) >= smallest_side(math.ceil(patch / scale))]
        if len(stay) == len(sides):
            return scale
        sides = stay
    return 1.0


def good_images(images: Path, good: str | None = None) -> list[Item]:
    """Images of a folder or list that are neither defective nor for tests.

    Raises
    ------
    FileError
        When the names of folders say that not all images are good.
    """
    return _good_ones(images, find_images(images, good), good)


def _good_ones(images: Path, items: Sequence[Item], good: str | None) -> list[Item]:
    if images.is_dir():
        refuse_mixed(images, items, good)
    return [item for item in items if item.is_good is not False and item.split != "test"]
