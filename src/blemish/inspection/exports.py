"""Results of an inspection for other programs: a table in CSV, label masks, annotations in the format of COCO."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from blemish.data.maps import read_map, write_image
from blemish.decision import Inspection, region_mask
from blemish.decision.regions import EIGHT_CONNECTED
from blemish.storage.atomic import write_json, write_text

CSV_FILE, COCO_FILE, MASKS = "inspections.csv", "coco.json", "masks"
_COLUMNS = (
    "path",
    "label",
    "rejected",
    "other_kind",
    "score",
    "threshold",
    "p_value",
    "regions",
    "x",
    "y",
    "width",
    "height",
    "seconds",
    "time",
    "sha256",
    "class",
    "class_score",
    "class_threshold",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: Path, records: Sequence[Inspection]) -> None:
    """Write a row for each record, with the box of its strongest region, for spreadsheets.

    Of classes of regions, that which is furthest above its threshold is named.

    A name that a spreadsheet would take for a formula begins with an apostrophe there.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for record in records:
        box = record.regions[0] if record.regions else None
        first = record.classes[0] if record.classes else None
        writer.writerow(
            [
                plain_cell(record.path),
                plain_cell(record.label or ""),
                int(record.is_anomalous),
                record.other_kind or "",
                record.score,
                record.threshold,
                record.p_value,
                len(record.regions),
                *((box.x, box.y, box.width, box.height) if box else ("",) * 4),
                record.seconds,
                record.time,
                record.sha256 or "",
                *((plain_cell(first.name), first.score, first.threshold) if first else ("",) * 3),
            ]
        )
    write_text(path, "\ufeff" + text.getvalue())  # by which Excel knows that it is UTF-8


def plain_cell(text: str) -> str:
    """``text`` of a cell, with an apostrophe before what a spreadsheet would take for a formula.

    >>> plain_cell("=1+1"), plain_cell("a=1")
    ("'=1+1", 'a=1')
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_masks(
    records: Sequence[Inspection],
    pixel_threshold: float,
    map_of: Callable[[str], Path],
    mask_of: Callable[[str], Path],
) -> None:
    """Write a label mask (H, W) of each image, 255 in its regions and 0 elsewhere.

    Parameters
    ----------
    map_of, mask_of: give the files of the map and of the mask, by the name of an image.

    Raises
    ------
    FileError
        A map cannot be read, or a mask cannot be written.
    """
    for record in records:
        marked = _regions(record, pixel_threshold, map_of(record.path))
        write_image(mask_of(record.path), marked[None].astype(np.float32))


def write_coco(
    path: Path, records: Sequence[Inspection], pixel_threshold: float, map_of: Callable[[str], Path]
) -> None:
    """Write the regions as annotations of one category, ``anomaly``, in the format of COCO.

    Segmentations are uncompressed run lengths, column by column; ``score`` is the largest map value of a region, and
    ``class`` its class of regions, if there are such.

    Raises
    ------
    FileError
        A map cannot be read, or the file cannot be written.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(records, start=1):
        width, height = record.size
        images.append({"id": number, "file_name": record.path, "width": width, "height": height})
        if not record.regions:
            continue
        labels, count = ndimage.label(
            _regions(record, pixel_threshold, map_of(record.path)), structure=EIGHT_CONNECTED
        )
        values = read_map(map_of(record.path))
        classes = {(one.x, one.y, one.width, one.height): one.region_class for one in record.regions}
        for label, (rows, columns) in enumerate(ndimage.find_objects(labels, count), start=1):
            marked = labels == label
            box = columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
            of_class = classes.get(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": list(box),
                    "area": int(marked.sum()),
                    "segmentation": {"size": [height, width], "counts": run_lengths(marked)},
                    "iscrowd": 0,
                    "score": float(values[marked].max()),
                    **({} if of_class is None else {"class": of_class}),
                }
            )
    write_json(
        path,
        {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "anomaly"}]},
    )


def run_lengths(marked: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a mask (H, W) column by column, those of unmarked pixels first.

    >>> run_lengths(np.array([[False, True], [True, True]]))
    [1, 3]
    >>> run_lengths(np.array([[True]]))
    [0, 1]
    """
    flat = marked.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths: list[int] = np.diff([0, *changes.tolist(), len(flat)]).tolist()
    return [0, *lengths] if flat[0] else lengths


def _regions(record: Inspection, pixel_threshold: float, map_file: Path) -> NDArray[np.bool_]:
    values = read_map(map_file)
    return region_mask(values, record.region_threshold(values, pixel_threshold))
