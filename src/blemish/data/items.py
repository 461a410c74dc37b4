"""Images of a collection, with what is known of each: name, label, masks, part of a split, group."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from blemish.data.labels import GOOD
from blemish.errors import ImageError


@dataclass(frozen=True)
class Item:
    """One image of a collection.

    ``name`` is its path within the collection, with ``/`` between folders: unique there, and what identifies
    the image in records. ``label`` is ``"good"``, a type of defect, or None when unknown. ``masks`` mark its defects,
    together where there are several. Images of one ``group`` show the same object, such as one part under several
    lights, and stay together where a set is split.
    """

    path: Path
    name: str
    label: str | None = None
    masks: tuple[Path, ...] = ()
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
