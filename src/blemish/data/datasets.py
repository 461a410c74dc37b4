"""Collections of images: a folder, the MVTec layout, a list in CSV; and their masks."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from blemish.data.image import SUFFIXES, read_image
from blemish.errors import FileError, ImageError

GOOD = "good"


@dataclass(frozen=True)
class Item:
    """One image of a collection.

    ``name`` is its path within the collection, with ``/`` between folders: unique there, and what identifies
    the image in records. ``label`` is ``"good"``, a type of defect, or None when unknown. Images of one
    ``group`` show the same object, such as one part under several lights, and stay together where a set is split.
    """

    path: Path
    name: str
    label: str | None = None
    mask: Path | None = None
    split: Literal["train", "test"] | None = None
    group: str | None = None

    @property
    def group_key(self) -> tuple[str, bool]:
        """Key that all images of a group share; that of an image without a group is its own."""
        return (self.name, False) if self.group is None else (self.group, True)

    @property
    def is_good(self) -> bool | None:
        """True if the label says good; None without a label."""
        return None if self.label is None else self.label == GOOD


@dataclass(frozen=True)
class Labelled:
    """Labelled images that can be used, and the faults of the others."""

    items: list[Item]
    problems: list[ImageError] = field(default_factory=list)


def natural_key(name: str) -> tuple[Any, ...]:
    """Sort key that puts ``a2`` before ``a10``, whatever the case.

    Examples
    --------
    >>> sorted(["b1", "a10", "A2"], key=natural_key)
    ['A2', 'a10', 'b1']
    """
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), name


def find_images(source: str | Path) -> list[Item]:
    """List the images that a file, a folder or a CSV list names, without opening them.

    A folder is searched with all folders below it, in natural order; hidden files, hidden folders and other
    suffixes are passed over. A CSV file has a header line with a column ``path`` and, where wanted,
    ``label``, ``mask``, ``split`` (train or test) and ``group``; its paths are relative to its own folder.

    Raises
    ------
    FileError
        The source is missing or unreadable, holds no image, is the root of a data set in the
        MVTec layout (only a part of it can be meant), or is a CSV file with a faulty row, named by line.
    """
    source = Path(source)
    if _is_folder(source):
        if _is_mvtec(source):
            raise FileError(
                source,
                "is a data set with train and test folders",
                f"name one part: {source / 'train' / GOOD} or {source / 'test'}",
            )
        return [Item(path, path.relative_to(source).as_posix()) for path in _search(source)]
    if source.suffix.lower() == ".csv":
        return _read_list(source)
    if not source.exists():
        raise FileError(source, "does not exist", "check the path")
    return [Item(source, source.name)]


def read_labelled(source: str | Path) -> Labelled:
    """List the labelled images of a data set in the MVTec layout, or of a CSV list.

    MVTec layout: ``train/good/*``, ``test/<type>/*`` and ``ground_truth/<type>/<stem>_mask.png`` (also
    without ``_mask``, and with any image suffix), where the type ``good`` holds the good ones. A type
    without a folder in ``ground_truth`` has no masks. In a CSV list, a row without ``split`` belongs to the
    test split.

    A mask without its image, a defective image without its mask in a type that has masks, and a test
    image without a label are returned as problems, and such images left out.

    Raises
    ------
    FileError
        As ``find_images``; or there is no test folder, or nothing in it.
    """
    source = Path(source)
    is_folder = _is_folder(source)
    if source.suffix.lower() == ".csv" and not is_folder:
        return _labelled_list(source)
    if not is_folder:
        raise FileError(
            source, "is neither a folder nor a CSV list", "name a data set's root folder or a list"
        )
    if not (source / "test").is_dir():
        raise FileError(
            source,
            "has no test folder",
            "lay it out as test/good, test/<type>, ground_truth/<type>, or list it in CSV",
        )
    labelled = Labelled([])
    for folder in _subfolders(source / "train"):
        labelled.items.extend(_item(source, path, folder.name, "train") for path in _images_in(folder))
    train = len(labelled.items)
    for folder in _subfolders(source / "test"):
        _add_test_type(labelled, source, folder)
    if len(labelled.items) == train and not labelled.problems:
        raise FileError(source / "test", f"holds no folder with images ({_suffixes()})", "check the layout")
    return labelled


def read_mask(path: str | Path, *, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a mask as bool (H, W): True, a defect, wherever any channel but alpha is not zero.

    Parameters
    ----------
    path: an image file.
    size: (width, height) of the image that the mask belongs to, as ``Image.size``.

    Raises
    ------
    ImageError
        As ``read_image``, or the mask has another size than its image.
    """
    mask = read_image(path)
    if mask.size != size:
        problem = f"is a mask of {mask.width} × {mask.height} pixels for an image of {size[0]} × {size[1]}"
        raise ImageError(path, problem, "save it at the size of its image")
    pixels = mask.pixels[:-1] if mask.channels in (2, 4) else mask.pixels
    marked: NDArray[np.bool_] = (pixels != 0).any(axis=0)  # (C, H, W) -> (H, W)
    return marked


def _suffixes() -> str:
    return " ".join(sorted(SUFFIXES))


def _is_folder(source: Path) -> bool:
    try:
        return source.is_dir()
    except OSError as error:
        raise FileError(source, f"cannot be read ({error.strerror})", "check the path") from error


def _is_mvtec(folder: Path) -> bool:
    return (folder / "train" / GOOD).is_dir() and (folder / "test").is_dir()


def _search(folder: Path) -> list[Path]:
    found: list[Path] = []
    seen: set[str] = set()  # a link may lead back to a folder above it
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_raise_unreadable):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found.extend(Path(here, name) for name in files if _is_image_name(name))
    if not found:
        raise FileError(folder, f"holds no image ({_suffixes()})", "name a folder with images")
    return sorted(found, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def _raise_unreadable(error: OSError) -> None:
    problem = f"cannot be searched ({error.strerror})"
    raise FileError(error.filename, problem, "change its permissions or move it away") from error


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and PurePath(name).suffix.lower() in SUFFIXES


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    except OSError as error:
        error.filename = str(folder)
        _raise_unreadable(error)
        raise


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in _listed(folder) if path.is_dir() and not path.name.startswith(".")]


def _images_in(folder: Path) -> list[Path]:
    return [path for path in _listed(folder) if _is_image_name(path.name) and not path.is_dir()]


def _item(
    root: Path, path: Path, label: str, split: Literal["train", "test"], mask: Path | None = None
) -> Item:
    return Item(path, path.relative_to(root).as_posix(), label, mask, split)


def _add_test_type(labelled: Labelled, root: Path, folder: Path) -> None:
    label = folder.name
    mask_folder = root / "ground_truth" / label
    images = _images_in(folder)
    if label == GOOD or not mask_folder.is_dir():
        labelled.items.extend(_item(root, path, label, "test") for path in images)
        return
    masks = {path.stem: path for path in _images_in(mask_folder)}
    used = set()
    for path in images:
        stem = next((stem for stem in (f"{path.stem}_mask", path.stem) if stem in masks), None)
        if stem is None:
            remedy = f"add {mask_folder / f'{path.stem}_mask.png'}"
            labelled.problems.append(ImageError(path, "is a defective image without a mask", remedy))
            continue
        used.add(stem)
        labelled.items.append(_item(root, path, label, "test", masks[stem]))
    for stem, path in masks.items():
        if stem not in used:
            remedy = f"add its image to {folder} or remove the mask"
            labelled.problems.append(ImageError(path, "is a mask without an image", remedy))


def _labelled_list(source: Path) -> Labelled:
    labelled = Labelled([])
    for item in _read_list(source):
        split = item.split or "test"
        if item.label is None and split == "test":
            problem = "is a test image without a label"
            labelled.problems.append(ImageError(item.path, problem, f"give it one in {source}"))
        else:
            labelled.items.append(replace(item, split=split))
    return labelled


def _read_list(source: Path) -> list[Item]:
    items: list[Item] = []
    lines: dict[str, int] = {}  # name -> its line
    for line, row in _rows(source):
        item = _list_item(source, line, row)
        if item.name in lines:
            problem = f"line {line} lists {item.name} again, after line {lines[item.name]}"
            raise FileError(source, problem, "remove one of the two")
        lines[item.name] = line
        items.append(item)
    if not items:
        raise FileError(source, "lists no image", "add a row for each image")
    return items


def _rows(source: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Read each row of a CSV file by column, with its line number; empty lines are passed over."""
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [column.strip().lower() for column in next(reader, [])]
            if "path" not in header:
                problem = "has no column 'path' in its first line"
                raise FileError(source, problem, "start it with: path,label,mask,split")
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(header):
                    problem = (
                        f"line {reader.line_num} has {len(row)} cells where the header has {len(header)}"
                    )
                    raise FileError(source, problem, "correct the line")
                if any("\0" in cell for cell in row):
                    raise FileError(source, f"line {reader.line_num} holds a NUL byte", "correct the line")
                yield reader.line_num, dict(zip(header, (cell.strip() for cell in row), strict=True))
    except FileNotFoundError as error:
        raise FileError(source, "does not exist", "check the path") from error
    except OSError as error:
        raise FileError(source, f"cannot be read ({error.strerror})", "check its permissions") from error
    except UnicodeDecodeError as error:
        raise FileError(source, "is not UTF-8 text", "save the list as CSV in UTF-8") from error
    except csv.Error as error:
        raise FileError(source, f"is no valid CSV ({error})", "correct the line") from error


def _list_item(source: Path, line: int, row: dict[str, str]) -> Item:
    if not row["path"]:
        raise FileError(source, f"line {line} has no path", "add it or remove the line")
    split = row.get("split", "").lower()
    if split not in {"", "train", "test"}:
        problem = f"line {line} has the split {row['split']!r}"
        raise FileError(source, problem, "write train, test or nothing")
    label = row.get("label") or None
    if label is not None and label.lower() == GOOD:
        label = GOOD
    return Item(
        path=source.parent / row["path"],
        name=_list_name(source, row["path"]),
        label=label,
        mask=source.parent / row["mask"] if row.get("mask") else None,
        split=cast(Literal["train", "test"], split) if split else None,
        group=row.get("group") or None,
    )


def _list_name(source: Path, text: str) -> str:
    # Names become paths of output files, so a name must not climb out of a folder.
    relative = os.path.relpath(source.parent / text, source.parent)
    if relative.startswith(os.pardir) and os.path.isabs(text):
        relative = text
    path = PurePath(relative)
    return PurePath(*(part for part in path.parts if part not in {path.anchor, os.pardir})).as_posix()
