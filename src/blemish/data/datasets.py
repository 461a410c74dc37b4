"""Collections of images without regard to labels: a file, a folder, a list in CSV."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from blemish.data.folders import FoundImages, search
from blemish.data.items import Item, natural_key
from blemish.data.layouts import refuse_root
from blemish.data.lists import read_list
from blemish.errors import FileError


def find_images(source: str | Path, good: str | None = None, *, with_masks: bool = False) -> list[Item]:
    """List the images that a file, a folder or a CSV list names, without opening them.

    A folder is searched with all folders below it, in natural order; hidden files, hidden folders, masks beside
    their images and other suffixes are passed over. A CSV file has a header line with a column ``path`` and, where
    wanted, ``label``, ``mask``, ``split`` (train or test) and ``group``; its paths are relative to its own folder.

    Parameters
    ----------
    good: the label of a list that says good, where it is none of the usual words.
    with_masks: whether masks that lie beside their images are images too.

    Raises
    ------
    FileError
        The source is missing or unreadable, holds no image, is the root of a data set in the
        MVTec layout (only a part of it can be meant), or is a CSV file with a faulty row, named by line.
    """
    return look_for_images(source, good, with_masks=with_masks).items


def look_for_images(
    source: str | Path,
    good: str | None = None,
    *,
    with_masks: bool = False,
    also: frozenset[str] = frozenset(),
) -> FoundImages:
    """:func:`find_images`, with what was passed over; ``also``: suffixes to take in a folder beside the usual ones."""
    source = Path(source)
    try:
        is_folder = source.is_dir()
    except OSError as error:
        raise FileError(source, f"cannot be read ({error.strerror})", "check the path") from error
    if is_folder:
        refuse_root(source, good)
        return search(source, with_masks=with_masks, also=also)
    if source.suffix.lower() == ".csv":
        return FoundImages(read_list(source, good))
    if not source.exists():
        raise FileError(source, "does not exist", "check the path")
    return FoundImages([Item(source, source.name)])


def look_in_all(sources: Sequence[Path]) -> FoundImages:
    """The images of several sources; of several, names begin with that of their folder.

    A source that is not there, and has a wildcard in its name, stands for all files and folders that fit, for systems
    whose command line does not do that.

    Raises
    ------
    FileError
        As :func:`find_images`; or two images would have one name, or no source is given.
    """
    paths = [path for source in sources for path in _matching(source)]
    if not paths:
        raise FileError(Path(), "no images are named", "give files or folders")
    if len(paths) == 1:
        return look_for_images(paths[0])
    items: dict[str, Item] = {}
    passed_over: Counter[str] = Counter()
    masks: list[Path] = []
    for path in paths:
        found = look_for_images(path)
        passed_over += found.passed_over
        masks += found.masks
        before = f"{Path(os.path.realpath(path)).name}/" if path.is_dir() else ""
        for item in found.items:
            named = replace(item, name=f"{before}{item.name}")
            other = items.setdefault(named.name, named)
            if other.path != named.path:
                problem = f"would have the name of {other.path}, {named.name}"
                raise FileError(
                    named.path, problem, "inspect them into two folders, or name one folder above both"
                )
    return FoundImages(list(items.values()), passed_over, tuple(masks))


def _matching(source: Path) -> list[Path]:
    if os.path.lexists(source) or not glob.has_magic(str(source)):
        return [source]
    found = sorted(glob.glob(str(source)), key=natural_key)
    if not found:
        raise FileError(source, "fits no file and no folder", "check the pattern")
    return [Path(path) for path in found]
