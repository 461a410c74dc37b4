"""Operators' verdicts as labels: a labelled data set for evaluation, and confirmed good images for calibration and fits.

Judged images are parted once and for all, by their content (:func:`is_to_test`), for fits from the page as for labels: one
part is for fits, the other stays unseen and tests. Of the part for fits good images join calibration and the next warm
start, and defects choose among the members of an ensemble, where that is asked for. Defects never train a detector.
"""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from blemish.data.labels import BAD_WORDS, GOOD, MASK_WORDS, SPLIT_WORDS, means_good, plain_word
from blemish.data.maps import write_image
from blemish.errors import FileError
from blemish.inspection.exports import plain_cell
from blemish.serve.contracts import Shape, StoredDecision
from blemish.serve.history import EVERYTHING, History, HistoryFilter, KeptImages
from blemish.storage.atomic import atomic_folder, write_error, write_text

DEFECTIVE = "defective"
"""Label of a defect whose type nobody named."""
LIST_FILE = "labels.csv"
TEST_SHARE = 0.5
"""Share of the judged images that stay unseen."""
DEFECTS = "defects"
"""Folder of the confirmed defects that are for fits."""
_COLUMNS = ("path", "label", "mask", "split", "decision", "operator", "note", "name")
_LONGEST_LABEL = 60


class LabelCounts(BaseModel):
    """Images of a labelled data set."""

    model_config = ConfigDict(frozen=True)

    good_to_fit: int
    """Confirmed good images for calibration and warm starts."""
    good_to_test: int
    defective: int
    defective_to_choose: int
    """Defective images for ``blemish fit --defects``; the others are for tests."""
    masks: int
    """Defective images whose defects were drawn."""
    without_image: int
    """Decisions with a verdict whose image is not kept."""
    contradictory: int
    """Images of equal content with verdicts that contradict each other; they are left out."""

    def in_words(self) -> str:
        """One line, and one for each kind that is left out."""
        lines = [
            f"{self.good_to_fit + self.good_to_test} good images, of which {self.good_to_test} are for tests, and "
            f"{self.defective} defective ones, of which {self.defective - self.defective_to_choose} are for tests and "
            f"{self.masks} have a mask."
        ]
        if self.without_image:
            lines.append(f"Left out: {self.without_image} whose image is not kept.")
        if self.contradictory:
            lines.append(f"Left out: {self.contradictory} whose verdicts contradict each other.")
        return "\n".join(lines)


def label_of(decision: StoredDecision) -> str | None:
    """Label by the newest verdict: ``good``, a type of defect or ``defective``; None without a verdict.

    A verdict without a label means the decision or its contrary.
    """
    verdict = decision.verdict
    if verdict is None:
        return None
    if verdict.label is not None and verdict.label.strip():
        return GOOD if means_good(verdict.label) else verdict.label.strip()
    return DEFECTIVE if decision.is_anomalous == verdict.is_right else GOOD


def mask_of(shapes: Sequence[Shape], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask (H, W) of drawn shapes: pixels whose centre is within one; of a shape that is within a pixel, that pixel.

    Parameters
    ----------
    shapes: corners in pixels; the pixel (column x, row y) covers x to x + 1 and y to y + 1.
    size: (width, height).

    >>> mask_of([Shape(kind="box", points=((1, 0), (3, 2)))], (4, 3)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    width, height = size
    mask = np.zeros((height, width), bool)
    for shape in shapes:
        corners = np.array(_corners(shape), np.float64)
        left, top = np.floor(corners.min(0)).astype(int).clip(0, (width - 1, height - 1))
        right, bottom = np.floor(corners.max(0)).astype(int).clip(0, (width - 1, height - 1))
        inside = _within(corners, np.arange(left, right + 1) + 0.5, np.arange(top, bottom + 1)[:, None] + 0.5)
        if left == right and top == bottom:
            inside[:] = True
        mask[top : bottom + 1, left : right + 1] |= inside
    return mask


def _corners(shape: Shape) -> list[tuple[float, float]]:
    if shape.kind == "polygon":
        return list(shape.points)
    (x, y), (u, v) = shape.points[0], shape.points[-1]
    return [(x, y), (u, y), (u, v), (x, v)]


def _within(
    corners: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Even-odd rule: a ray to the right crosses an odd number of edges."""
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, 0), strict=True):
        if y1 != y2:
            crosses = (y1 > y) != (y2 > y)
            inside ^= crosses & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return inside


class JudgedImage(NamedTuple):
    """A decision with a verdict, its label, and the file of its image."""

    decision: StoredDecision
    label: str
    image: Path

    @property
    def is_to_test(self) -> bool:
        """:func:`is_to_test` of its content."""
        return is_to_test(self.decision.image_sha256)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Drawn places of the defect; none of a good image."""
        verdict = self.decision.verdict
        return () if verdict is None or self.label == GOOD else verdict.shapes


def write_labelled(
    history: History,
    images: KeptImages,
    out: str | Path,
    wanted: HistoryFilter = EVERYTHING,
    *,
    test_share: float = TEST_SHARE,
) -> LabelCounts:
    """Write the judged images as a labelled data set that ``blemish evaluate`` reads, whole or not at all.

    The folder ``out`` is in the layout of MVTec AD: ``train/good`` for calibration and ``fit --continue``,
    ``test/good``, ``test/<type>`` and ``ground_truth/<type>`` for evaluation, and lists all of it in ``labels.csv``.
    Beside it ``defects/<type>`` holds the defects for ``fit --defects``. Of images of equal content one is written.

    Parameters
    ----------
    test_share: of the judged images, chosen by their content, so that the next export chooses the same.

    Raises
    ------
    FileError
        When ``out`` exists or cannot be written, or no judged image is kept.
    HistoryError
        When the history cannot be read.
    """
    out = Path(out)
    if out.exists():
        raise FileError(out, "exists already", "name a new folder")
    labelled, without_image, contradictory = judged_images(history, images, wanted)
    if not labelled:
        raise FileError(
            out,
            "is not written: no image with a verdict is kept",
            "judge some images, on the page or by the API",
        )
    rows: list[list[str]] = []
    masks = 0
    with atomic_folder(out) as folder:
        try:
            for one in labelled:
                row = _write_image(folder, one, test_share)
                masks += bool(row[2])
                rows.append(row)
        except OSError as error:
            raise write_error(out, error) from None
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\r\n").writerows([_COLUMNS, *rows])
        write_text(folder / LIST_FILE, "\ufeff" + text.getvalue())
    good = [row[3] for row in rows if row[1] == GOOD]
    defective = [row[3] for row in rows if row[1] != GOOD]
    return LabelCounts(
        good_to_fit=good.count("train"),
        good_to_test=good.count("test"),
        defective=len(defective),
        defective_to_choose=defective.count("train"),
        masks=masks,
        without_image=without_image,
        contradictory=contradictory,
    )


def is_to_test(image_sha256: str, test_share: float = TEST_SHARE) -> bool:
    """Whether an image of the history is for tests, and so stays unseen by fits and calibrations."""
    drawn = int.from_bytes(hashlib.sha256(f"to test {image_sha256}".encode()).digest()[:8], "big")
    return drawn < test_share * 2**64


def judged_images(
    history: History, images: KeptImages, wanted: HistoryFilter
) -> tuple[list[JudgedImage], int, int]:
    """Judged decisions with their images, each content once, in the order of the decisions; counts of those left out."""
    by_content: dict[str, list[JudgedImage]] = {}
    without_image = 0
    for verdict in ("right", "wrong"):
        for decision in history.all(wanted.model_copy(update={"verdict": verdict})):
            label, image = label_of(decision), images.image(decision)
            if image is None:
                without_image += 1
            elif label is not None:
                by_content.setdefault(decision.image_sha256, []).append(JudgedImage(decision, label, image))
    agreed = [
        max(same, key=lambda one: (bool(one.shapes), one.decision.id))
        for same in by_content.values()
        if len({one.label == GOOD for one in same}) == 1
    ]
    return sorted(agreed, key=lambda one: one.decision.id), without_image, len(by_content) - len(agreed)


def _write_image(folder: Path, one: JudgedImage, test_share: float) -> list[str]:
    """Copy the image and draw its mask; the row of the list."""
    decision, verdict = one.decision, one.decision.verdict
    name = f"{decision.id:09}"
    split = "test" if is_to_test(decision.image_sha256, test_share) else "train"
    kind = folder_name(one.label)
    # The reader of the layout takes each mask in ground_truth for one of a test image.
    is_to_choose = kind != GOOD and split == "train"
    path = folder / (DEFECTS if is_to_choose else split) / kind / f"{name}{one.image.suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(one.image, path)
    mask = (path.parent if is_to_choose else folder / "ground_truth" / kind) / f"{name}_mask.png"
    marked = mask_of(one.shapes, decision.size)
    if marked.any():
        write_image(mask, marked[None].astype(np.float32))
    return [
        path.relative_to(folder).as_posix(),
        plain_cell(kind),
        mask.relative_to(folder).as_posix() if marked.any() else "",
        split,
        str(decision.id),
        plain_cell(verdict.operator if verdict else ""),
        plain_cell(" ".join(verdict.note.splitlines()) if verdict else ""),
        plain_cell(decision.name),
    ]


def folder_name(label: str) -> str:
    """Name of the folder of good images, or of a type of defect, which leads nowhere else and means nothing else."""
    if label == GOOD:
        return GOOD
    name = "".join(char if char.isalnum() or char in "-_ " else "_" for char in label)[:_LONGEST_LABEL].strip(
        " _"
    )
    word = plain_word(name)
    if not word or word in MASK_WORDS | SPLIT_WORDS or word.isdecimal():
        return f"{DEFECTIVE} {name}".strip()
    return DEFECTIVE if word in BAD_WORDS else name
