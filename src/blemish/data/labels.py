"""Words of labels: names of folders and cells of lists that say good, defective, or mask, in the usual words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

GOOD = "good"
"""The label that all words for good become."""

GOOD_WORDS = frozenset(
    [
        "good",
        "ok",
        "okay",
        "normal",
        "regular",
        "pass",
        "passed",
        "accept",
        "accepted",
        "intact",
        "healthy",
        "clean",
        "undamaged",
        "io",
        "gut",
        "bon",
        "bonne",
        "bueno",
        "buono",
        "nodefect",
        "nodefects",
        "defectfree",
        "nondefective",
        "nonanomalous",
        "negative",
    ]
)
BAD_WORDS = frozenset(
    [
        "bad",
        "ng",
        "nok",
        "notok",
        "ko",
        "defect",
        "defects",
        "defective",
        "def",
        "anomaly",
        "anomalies",
        "anomalous",
        "abnormal",
        "fail",
        "failed",
        "failure",
        "faulty",
        "fault",
        "reject",
        "rejected",
        "broken",
        "damaged",
        "nio",
        "schlecht",
        "defekt",
        "mauvais",
        "malo",
        "difettoso",
        "positive",
        "logicalanomalies",
        "structuralanomalies",
    ]
)
MASK_WORDS = frozenset(
    [
        "mask",
        "masks",
        "groundtruth",
        "gt",
        "annotation",
        "annotations",
        "segmentation",
        "segmentations",
        "label",
        "labels",
    ]
)
SPLIT_WORDS = frozenset(
    ["train", "training", "test", "testing", "validation", "val", "valid", "testpublic", "testprivate"]
)
_NUMBERS = {
    "0": GOOD,
    "1": "defective",
    "0.0": GOOD,
    "1.0": "defective",
    "false": GOOD,
    "true": "defective",
}
"""Labels that mean this where a list or folder has no others: whether there is a defect."""


def plain_word(text: str) -> str:
    """``text`` without case, spaces, dots, dashes and underscores.

    >>> plain_word("Not_OK"), plain_word("i.O.")
    ('notok', 'io')
    """
    return re.sub(r"[\s._\-]+", "", text).casefold()


def means_good(text: str, good: str | None = None) -> bool:
    """True if a label says good: one of the usual words, or ``good``, where the user names that word."""
    if good is not None:
        return text.strip().casefold() == good.strip().casefold()
    return plain_word(text) in GOOD_WORDS


def means_bad(text: str) -> bool:
    """True if a label is one of the usual words for defective."""
    return plain_word(text) in BAD_WORDS


def means_masks(text: str) -> bool:
    """True if the name of a folder says that it holds masks."""
    return plain_word(text) in MASK_WORDS


def normal_labels(labels: Iterable[str], good: str | None = None) -> dict[str, str]:
    """Each label, and what it means: ``good`` for the words that say so, itself otherwise.

    Numbers mean what they do in lists of defects, 0 no defect and 1 one, where there are no other labels.

    >>> normal_labels(["OK", "scratch"])
    {'OK': 'good', 'scratch': 'scratch'}
    >>> normal_labels(["0", "1"])
    {'0': 'good', '1': 'defective'}
    """
    found = list(dict.fromkeys(labels))
    if good is None and found and all(label.casefold() in _NUMBERS for label in found):
        return {label: _NUMBERS[label.casefold()] for label in found}
    return {label: GOOD if means_good(label, good) else label for label in found}


def counted_labels(counts: Mapping[str, int] | Counter[str]) -> str:
    """Labels with the number of their images, in words.

    >>> counted_labels({"OK2": 12, "dent": 1})
    'OK2 (12), dent (1)'
    """
    return ", ".join(f"{label} ({count})" for label, count in counts.items())
