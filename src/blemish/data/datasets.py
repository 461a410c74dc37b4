"""Collections of images without regard to labels: a file, a folder, a list in CSV."""

from __future__ import annotations

from pathlib import Path

from blemish.data.folders import FoundImages, search
from blemish.data.items import Item
from blemish.data.layouts import refuse_root
from blemish.data.lists import read_list
from blemish.errors import FileError


def find_images(source: str | Path, good: str | None = None) -> list[Item]:
    """List the images that a file, a folder or a CSV list names, without opening them.

    A folder is searched with all folders below it, in natural order; hidden files, hidden folders, masks beside
    their images and other suffixes are passed over. A CSV file has a header line with a column ``path`` and, where
    wanted, ``label``, ``mask``, ``split`` (train or test) and ``group``; its paths are relative to its own folder.

    Parameters
    ----------
    good: the label of a list that says good, where it is none of the usual words.

    Raises
    ------
    FileError
        The source is missing or unreadable, holds no image, is the root of a data set in the
        MVTec layout (only a part of it can be meant), or is a CSV file with a faulty row, named by line.
    """
    return look_for_images(source, good).items


def look_for_images(source: str | Path, good: str | None = None) -> FoundImages:
    """:func:`find_images`, with what was passed over."""
    source = Path(source)
    try:
        is_folder = source.is_dir()
    except OSError as error:
        raise FileError(source, f"cannot be read ({error.strerror})", "check the path") from error
    if is_folder:
        refuse_root(source, good)
        return search(source)
    if source.suffix.lower() == ".csv":
        return FoundImages(read_list(source, good))
    if not source.exists():
        raise FileError(source, "does not exist", "check the path")
    return FoundImages([Item(source, source.name)])
