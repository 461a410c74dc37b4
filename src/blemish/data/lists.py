"""Lists of images in CSV, as people and spreadsheets write them."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Literal

from blemish.data.items import Item
from blemish.data.labels import counted_labels, normal_labels, plain_word
from blemish.errors import FileError

_COLUMNS = {
    "path": ("path", "image", "file", "filename", "imagepath", "filepath", "imagefile", "imagename", "img"),
    "label": ("label", "class", "target", "verdict", "isdefect", "isdefective", "isanomaly", "isanomalous"),
    "mask": ("mask", "maskpath", "groundtruth", "gt"),
    "split": ("split", "set", "subset"),
    "group": ("group",),
    "object": ("object", "category"),
}
"""Each column, and the names that its heading may have, by :func:`~blemish.data.labels.plain_word`."""
_DELIMITERS = ",;\t|"
_SPLITS: dict[str, Literal["train", "test"] | None] = {
    "": None,
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "train",
    "valid": "train",
    "validation": "train",
}
_SEPARATOR = re.compile(rf"sep=([{_DELIMITERS}])", re.I)
"""First line by which a spreadsheet says what separates the columns."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_list(source: Path, good: str | None = None) -> list[Item]:
    """The images of a list: a header line with a column ``path`` and, where wanted, others.

    Columns are separated by commas, semicolons, tabs or bars; the text is UTF-8, UTF-16 or Windows-1252. Paths are
    relative to the list's own folder or, where nothing lies there, to the folder above it. Several masks of one
    image are separated by ``|`` or ``;`` within the cell.

    Parameters
    ----------
    good: the label that says good, where it is none of the usual words.

    Raises
    ------
    FileError
        The file cannot be read, or has a faulty row, named by line, or images of several objects.
    """
    rows = list(_rows(source))
    _refuse_several_objects(source, [row for _, row in rows])
    meaning = normal_labels((row["label"] for _, row in rows if row.get("label")), good)
    items: list[Item] = []
    lines: dict[str, int] = {}  # name -> its line
    for line, row in rows:
        item = _item(source, line, row, meaning)
        if item.name in lines:
            problem = f"line {line} lists {item.name} again, after line {lines[item.name]}"
            raise FileError(source, problem, "remove one of the two")
        lines[item.name] = line
        items.append(item)
    if not items:
        raise FileError(source, "lists no image", "add a row for each image")
    return items


def _text(source: Path) -> str:
    try:
        data = source.read_bytes()
    except FileNotFoundError as error:
        raise FileError(source, "does not exist", "check the path") from error
    except OSError as error:
        raise FileError(source, f"cannot be read ({error.strerror})", "check its permissions") from error
    encodings = ["utf-16"] if data.startswith(_UTF16) else ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        with suppress(UnicodeDecodeError):
            return data.decode(encoding)
    raise FileError(source, "is text of no known encoding", "save the list as CSV in UTF-8")


def _rows(source: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Read each row of a CSV file by column, with its line number; empty lines are passed over."""
    text = _text(source)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise FileError(source, f"line {line} holds a NUL byte", "correct the line")
    first = text.lstrip("\r\n").splitlines()[0] if text.strip() else ""
    separator = _SEPARATOR.fullmatch(first.strip('"'))
    delimiter = separator[1] if separator else max(_DELIMITERS, key=first.count)
    try:
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
        )
        if separator:
            next(reader)
        header = _header(source, next((row for row in reader if any(cell.strip() for cell in row)), []))
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                problem = f"line {reader.line_num} has {len(row)} cells where the header has {len(header)}"
                raise FileError(source, problem, "correct the line")
            yield reader.line_num, dict(zip(header, map(_cell, row), strict=True))
    except csv.Error as error:
        raise FileError(source, f"is no valid CSV ({error})", "correct the line") from error


def _cell(text: str) -> str:
    """The text of a cell, empty where pandas writes that there is none."""
    text = text.strip()
    return "" if text in {"nan", "NaN"} else text


def _header(source: Path, cells: list[str]) -> list[str]:
    """The names of the columns, those of other headings under the name that is meant."""
    given = [plain_word(cell) for cell in cells]
    known = {heading: column for column, headings in _COLUMNS.items() for heading in headings}
    named = [known.get(cell, cell) for cell in given]
    # A heading by its own name goes before one that only means the same.
    header = [
        column if cell == column or (column not in given and named.index(column) == place) else cell
        for place, (cell, column) in enumerate(zip(given, named, strict=True))
    ]
    if "path" not in header:
        problem = "has no column 'path' in its first line"
        raise FileError(source, problem, "start it with: path,label,mask,split")
    return header


def _refuse_several_objects(source: Path, rows: list[dict[str, str]]) -> None:
    objects = Counter(row["object"] for row in rows if row.get("object"))
    if len(objects) > 1:
        problem = f"lists images of several objects: {counted_labels(objects)}"
        raise FileError(source, problem, "copy the header and the rows of one object into a list beside it")


def _item(source: Path, line: int, row: dict[str, str], meaning: dict[str, str]) -> Item:
    if not row["path"]:
        raise FileError(source, f"line {line} has no path", "add it or remove the line")
    split = row.get("split", "").lower()
    if split not in _SPLITS:
        problem = f"line {line} has the split {row['split']!r}"
        raise FileError(source, problem, "write train, validation, test or nothing")
    label = meaning[row["label"]] if row.get("label") else None
    masks = row.get("mask", "").replace(";", "|").split("|")
    return Item(
        path=_path(source, row["path"]),
        name=_name(source, row["path"]),
        label=label,
        masks=tuple(_path(source, mask.strip()) for mask in masks if mask.strip()),
        split=_SPLITS[split],
        group=row.get("group") or None,
    )


def _path(source: Path, text: str) -> Path:
    """Path of a file that a list names: from the list's folder, or the folder above where only there is one."""
    texts = [text, text.replace("\\", "/")] if "\\" in text else [text]
    places = [folder / each for folder in (source.parent, source.parent.parent) for each in texts]
    return next((place for place in places if os.path.exists(place)), places[0])


def _name(source: Path, text: str) -> str:
    # Names become paths of output files, so a name must not climb out of a folder.
    text = text.replace("\\", "/")
    relative = os.path.relpath(source.parent / text, source.parent)
    if relative.startswith(os.pardir) and os.path.isabs(text):
        relative = text
    path = PurePath(relative)
    return PurePath(*(part for part in path.parts if part not in {path.anchor, os.pardir})).as_posix()
