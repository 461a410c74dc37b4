"""Layouts of labelled data sets: MVTec AD and those like it, MVTec AD 2, VisA, folders named by label, CSV lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from blemish.data.folders import images_in, is_image_name, listed, subfolder, subfolders, suffixes
from blemish.data.items import Item, Labelled
from blemish.data.labels import (
    GOOD,
    MASK_WORDS,
    SPLIT_WORDS,
    counted_labels,
    means_bad,
    means_masks,
    normal_labels,
    plain_word,
)
from blemish.data.lists import read_list
from blemish.errors import FileError, ImageError

Split = Literal["train", "test"]
_LISTED = 6
"""Folders that an error names, at most."""
_LAYOUT = "lay it out as test/good, test/<type>, ground_truth/<type>, or list it in CSV"


def read_labelled(source: str | Path, good: str | None = None) -> Labelled:
    """List the labelled images of a data set.

    Layouts, of which the first that fits is taken; words for good (``ok``, ``normal``, ``pass``, …) are in
    :mod:`blemish.data.labels`:

    - MVTec AD, and MVTec LOCO and BTAD, which are like it: ``train/good/*``, ``test/<type>/*`` and
      ``ground_truth/<type>/<stem>_mask.png``, also without ``_mask``, with any image suffix, or as a folder ``<stem>`` of
      several masks. A type without a folder in ``ground_truth`` has no masks.
    - MVTec AD 2: ``test_public/<type>/*`` with ``test_public/ground_truth/<type>``.
    - VisA: ``Data/Images/<type>/*`` with ``Data/Masks/<type>``.
    - Folders that are named by label, ``ok/*`` and ``ng/*``, one of which is of good images; with masks in a folder
      ``masks`` or ``ground_truth``.
    - A CSV list (:func:`blemish.data.lists.read_list`), where a row without ``split`` belongs to the test split.

    A mask without its image and a test image without a label are returned as problems, and such images left out. A
    defective image without its mask in a type that has masks is a problem too, but keeps its label.

    Parameters
    ----------
    good: the label that says good, where it is none of the usual words.

    Raises
    ------
    FileError
        The source cannot be read; nothing in it is labelled; or no label is known to say good or defective, in which
        case the labels are listed.
    """
    source = Path(source)
    is_folder = _is_folder(source)
    if source.suffix.lower() == ".csv" and not is_folder:
        found = _list(source, good)
    elif not is_folder:
        raise FileError(
            source, "is neither a folder nor a CSV list", "name a data set's root folder or a list"
        )
    else:
        found = next((layout(source, good) for fits, layout in _LAYOUTS if fits(source, good)), Labelled([]))
        if not any(item.split == "test" for item in found.items) and not found.problems:
            if (test := subfolder(source, "test")).is_dir():
                raise FileError(test, f"holds no folder with images ({suffixes()})", "check the layout")
            named = [path.name for path in subfolders(source) if images_in(path)]
            if len(named) < 2:
                raise FileError(source, "has no test folder", _LAYOUT)
            problem = f"has no test folder, and none of its folders is known to say good: {', '.join(named[:_LISTED])}"
            raise FileError(source, problem, f"name that folder with --good, or {_LAYOUT}")
    _refuse_unknown_labels(source, found, good)
    return found


def _refuse_unknown_labels(source: Path, found: Labelled, good: str | None) -> None:
    labels = Counter(item.label for item in found.items if item.split == "test" and item.label is not None)
    known = any(item.label == GOOD or (good is None and means_bad(item.label or "")) for item in found.items)
    if labels and not known:
        problem = f"has test images labelled {counted_labels(labels)}, none of which is known to say good"
        raise FileError(source, problem, "name that label with --good, or call it good")


def _is_folder(source: Path) -> bool:
    try:
        return source.is_dir()
    except OSError as error:
        raise FileError(source, f"cannot be read ({error.strerror})", "check the path") from error


# -- folders of types ----------------------------------------------------------------------------------


def _types(folder: Path, good: str | None) -> list[tuple[Path, str]]:
    """Folders of images in ``folder``, and the label that each stands for."""
    found = [path for path in subfolders(folder) if not means_masks(path.name)]
    meaning = normal_labels([path.name for path in found], good)
    return [(path, meaning[path.name]) for path in found]


def _add(
    found: Labelled, root: Path, folder: Path, split: Split, good: str | None, masks: Path | None
) -> None:
    """Add the images of each type in ``folder``, with their masks in the folder of the same type in ``masks``."""
    for path, label in _types(folder, good):
        of_type = None if masks is None else masks / path.name
        _add_type(found, root, path, label, split, of_type if label != GOOD else None)


def _add_type(
    found: Labelled, root: Path, folder: Path, label: str, split: Split, masks: Path | None
) -> None:
    def item(path: Path, masks: Sequence[Path] = ()) -> Item:
        return Item(path, path.relative_to(root).as_posix(), label, tuple(masks), split)

    images = images_in(folder)
    if masks is None or not masks.is_dir():
        found.items.extend(item(path) for path in images)
        return
    by_stem: dict[str, list[Path]] = {}
    for path in listed(masks):
        if path.is_dir() and not path.name.startswith("."):
            by_stem[path.name] = images_in(path)
        elif is_image_name(path.name):
            by_stem.setdefault(path.stem, []).append(path)
    used = set()
    for path in images:
        stem = next((stem for stem in (f"{path.stem}_mask", path.stem) if by_stem.get(stem)), None)
        if stem is None:
            remedy = f"add {masks / f'{path.stem}_mask.png'}"
            found.problems.append(ImageError(path, "is a defective image without a mask", remedy))
            found.items.append(item(path))
            continue
        used.add(stem)
        found.items.append(item(path, by_stem[stem]))
    for stem, paths in by_stem.items():
        if stem not in used:
            remedy = f"add its image to {folder} or remove the mask"
            found.problems.extend(ImageError(path, "is a mask without an image", remedy) for path in paths)


def _masks_in(root: Path) -> Path | None:
    return next((path for path in subfolders(root) if plain_word(path.name) in MASK_WORDS), None)


def is_mvtec(root: Path, good: str | None = None) -> bool:
    """True if ``root`` is a data set in the layout of MVTec AD, with training and test images."""
    test, train = subfolder(root, "test"), subfolder(root, "train")
    return test.is_dir() and any(label == GOOD for _, label in _types(train, good))


def good_folder(root: Path, good: str | None = None) -> Path:
    """Folder of the good images of a data set that are for training, as ``train/good``.

    Raises
    ------
    FileError
        There is none.
    """
    for path, label in _types(subfolder(root, "train"), good):
        if label == GOOD:
            return path
    raise FileError(
        root, "has no folder of good images in a folder train", "lay it out as train/good, or list it in CSV"
    )


def _mvtec(root: Path, good: str | None) -> Labelled:
    found = Labelled([])
    _add(found, root, subfolder(root, "train"), "train", good, None)
    _add(found, root, subfolder(root, "test"), "test", good, _masks_in(root))
    return found


def _mvtec_2(root: Path, good: str | None) -> Labelled:
    found = Labelled([])
    for part in ("train", "validation"):
        _add(found, root, subfolder(root, part), "train", good, None)
    test = subfolder(root, "test_public")
    _add(found, root, test, "test", good, _masks_in(test))
    return found


def _visa(root: Path, good: str | None) -> Labelled:
    found = Labelled([])
    data = subfolder(root, "Data")
    _add(found, root, subfolder(data, "Images"), "test", good, _masks_in(data))
    return found


def _by_label(root: Path, good: str | None) -> Labelled:
    found = Labelled([])
    _add(found, root, root, "test", good, _masks_in(root))
    return found


def _has_labels(root: Path, good: str | None) -> bool:
    folders = [path for path in subfolders(root) if plain_word(path.name) not in SPLIT_WORDS]
    return any(label == GOOD for path, label in _types(root, good) if path in folders)


_LAYOUTS: list[tuple[Callable[[Path, str | None], bool], Callable[[Path, str | None], Labelled]]] = [
    (lambda root, good: subfolder(root, "test").is_dir(), _mvtec),
    (lambda root, good: subfolder(root, "test_public").is_dir(), _mvtec_2),
    (lambda root, good: subfolder(subfolder(root, "Data"), "Images").is_dir(), _visa),
    (_has_labels, _by_label),
]


# -- lists ---------------------------------------------------------------------------------------------


def _list(source: Path, good: str | None) -> Labelled:
    labelled = Labelled([])
    for item in read_list(source, good):
        split = item.split or "test"
        if item.label is None and split == "test":
            problem = "is a test image without a label"
            labelled.problems.append(ImageError(item.path, problem, f"give it one in {source}"))
        else:
            labelled.items.append(replace(item, split=split))
    return labelled


# -- unlabelled ----------------------------------------------------------------------------------------


def refuse_root(source: Path, good: str | None = None) -> None:
    """Refuse the root of a data set where one part of it can only be meant.

    Raises
    ------
    FileError
        Naming the parts.
    """
    if is_mvtec(source, good):
        raise FileError(
            source,
            "is a data set with train and test folders",
            f"name one part: {good_folder(source, good)} or {subfolder(source, 'test')}",
        )
