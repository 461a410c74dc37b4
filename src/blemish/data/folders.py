"""Search of a folder for images, with what else is in it: masks beside images, and files that are passed over."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from blemish.data.image import SUFFIXES
from blemish.data.items import Item, natural_key
from blemish.data.labels import SPLIT_WORDS, means_bad, means_good, means_masks, plain_word
from blemish.errors import FileError

PASSED_OVER = frozenset(
    [
        ".heic",
        ".heif",
        ".avif",
        ".dcm",
        ".dicom",
        ".npy",
        ".npz",
        ".raw",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".exr",
        ".hdr",
        ".svs",
        ".ndpi",
        ".czi",
        ".nd2",
        ".lif",
        ".mrxs",
        ".psd",
        ".xcf",
        ".svg",
        ".jxl",
        ".jxr",
        ".tga",
        ".dds",
        ".pcx",
        ".fits",
        ".eps",
        ".vsi",
        ".scn",
        ".nrrd",
        ".mha",
        ".pdf",
        ".mp4",
        ".avi",
        ".mov",
        ".mkv",
        ".webm",
        ".wmv",
        ".m4v",
        ".zip",
        ".tar",
        ".gz",
        ".7z",
        ".rar",
        ".h5",
        ".hdf5",
        ".mat",
        ".nii",
    ]
)
"""Suffixes of images and of files with images that are not read."""

_MASK_SUFFIX = re.compile(
    r"(?P<image>.+?)[ _\-.](?:(?:mask|gt|ground[ _\-]?truth|seg|segmentation|annotation)|(?P<other>label))s?",
    re.I,
)
"""A word for mask after the name of an image; ``label`` may be another view, so that it counts where all images have one."""
_LISTED = 6


@dataclass(frozen=True)
class FoundImages:
    """Images of a folder in natural order, and what was passed over."""

    items: list[Item]
    passed_over: Counter[str] = field(default_factory=Counter)
    """Number of files that hold images of kinds that are not read, by suffix."""
    masks: tuple[Path, ...] = ()
    """Masks that lie beside the images that they belong to."""

    def notices(self) -> list[str]:
        """A line for what was passed over, each kind with its number."""
        lines = []
        if self.passed_over:
            counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.passed_over.items()))
            lines.append(
                f"Passed over, because files of these kinds are not read: {counts}; convert them to PNG or TIFF"
            )
        if self.masks:
            some = ", ".join(path.name for path in self.masks[:2]) + (", …" if len(self.masks) > 2 else "")
            lines.append(
                f"Passed over, because they are masks of images beside them: {len(self.masks)} ({some})"
            )
        return lines


def search(folder: Path, *, with_masks: bool = False, also: frozenset[str] = frozenset()) -> FoundImages:
    """All images in ``folder`` and the folders below it; hidden files and folders are passed over.

    Parameters
    ----------
    with_masks: whether masks that lie beside their images are images too.
    also: suffixes of images that the caller reads, in lower case, beside the usual ones.

    Raises
    ------
    FileError
        A folder cannot be searched, or there is no image.
    """
    paths: list[Path] = []
    passed_over: Counter[str] = Counter()
    seen: set[str] = set()  # a link may lead back to a folder above it
    for here, folders, files in os.walk(folder, followlinks=True, onerror=raise_unreadable):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths.extend(Path(here, name) for name in files if is_image_name(name, also))
        passed_over.update(
            suffix
            for name in files
            if not name.startswith(".") and (suffix := PurePath(name).suffix.lower()) in PASSED_OVER - also
        )
    masks = set() if with_masks else _masks_beside(paths)
    items = [
        Item(path, path.relative_to(folder).as_posix())
        for path in sorted(paths, key=lambda path: natural_key(path.relative_to(folder).as_posix()))
        if path not in masks
    ]
    if not items:
        others = FoundImages([], passed_over, tuple(sorted(masks))).notices()
        more = f" ({others[0]})" if others else ""
        raise FileError(folder, f"holds no image ({suffixes(also)}){more}", "name a folder with images")
    return FoundImages(items, passed_over, tuple(sorted(masks)))


def refuse_mixed(folder: Path, items: Sequence[Item], good: str | None = None) -> None:
    """Refuse a folder of folders whose names say that not all images in it are good.

    Raises
    ------
    FileError
        Naming the folders with the number of images in each.
    """
    names = [PurePath(item.name).parts for item in items]
    first = Counter(parts[0] for parts in names if len(parts) > 1)
    every = Counter(part for parts in names for part in parts[:-1])
    suspicious = [name for name in every if means_bad(name) or means_masks(name)]
    is_good = [name for name in first if means_good(name, good)]
    if not suspicious and not (is_good and len(first) > len(is_good)):
        return
    if all(plain_word(name) in SPLIT_WORDS for name in first):
        first = Counter("/".join(parts[:2]) for parts in names if len(parts) > 2) or first
        is_good = [name for name in first if means_good(name.rpartition("/")[2], good)]
    listed = ", ".join(f"{name} ({count})" for name, count in list(first.items())[:_LISTED])
    more = f" and {len(first) - _LISTED} more" if len(first) > _LISTED else ""
    remedy = f"name one folder: {folder / is_good[0]}" if is_good else "name the folder of the good images"
    raise FileError(folder, f"holds folders that are not all of good images: {listed}{more}", remedy)


def _masks_beside(paths: Sequence[Path]) -> set[Path]:
    """The paths whose name is that of another one in their folder, and a word for mask."""
    stems: dict[Path, set[str]] = {}
    for path in paths:
        stems.setdefault(path.parent, set()).add(path.stem.casefold())
    masks: set[Path] = set()
    others: dict[Path, dict[Path, str]] = {}
    for path in paths:
        found = _MASK_SUFFIX.fullmatch(path.stem)
        if found is None or found["image"].casefold() not in stems[path.parent]:
            continue
        if found["other"]:
            others.setdefault(path.parent, {})[path] = found["image"].casefold()
        else:
            masks.add(path)
    for folder, own in others.items():
        marking = {path.stem.casefold() for path in (*own, *masks) if path.parent == folder}
        if stems[folder] - marking == set(own.values()):
            masks.update(own)
    return masks


def suffixes(also: frozenset[str] = frozenset()) -> str:
    """Suffixes of the images that are read, in words."""
    return " ".join(sorted(SUFFIXES | also))


def is_image_name(name: str, also: frozenset[str] = frozenset()) -> bool:
    """True if a file of this name is taken for an image."""
    return not name.startswith(".") and PurePath(name).suffix.lower() in SUFFIXES | also


def listed(folder: Path) -> list[Path]:
    """What is in a folder, in natural order.

    Raises
    ------
    FileError
        When it cannot be searched.
    """
    try:
        return sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    except OSError as error:
        error.filename = str(folder)
        raise_unreadable(error)
        raise


def subfolder(folder: Path, *names: str) -> Path:
    """The folder of one of ``names`` in ``folder``, or else of such a name in other case; the first name without one."""
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    wanted = {name.casefold() for name in names}
    return next((path for path in subfolders(folder) if path.name.casefold() in wanted), folder / names[0])


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, in natural order, without hidden ones; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return [path for path in listed(folder) if path.is_dir() and not path.name.startswith(".")]


def images_in(folder: Path) -> list[Path]:
    """Images in a folder, without those in folders below it."""
    return [path for path in listed(folder) if is_image_name(path.name) and not path.is_dir()]


def raise_unreadable(error: OSError) -> None:
    """Raise the error of a folder that cannot be searched."""
    problem = f"cannot be searched ({error.strerror})"
    raise FileError(error.filename, problem, "change its permissions or move it away") from error
