"""Good images that are collected for a fit: dropped on the page, or taken from the history."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from blemish.data.image import read_image
from blemish.data.labels import GOOD
from blemish.data.opening import FORMATS, image_format
from blemish.errors import FileError, ImageError
from blemish.serve.contracts import StoredDecision
from blemish.serve.verdicts import is_to_test, label_of
from blemish.storage.atomic import atomic_folder, write_bytes
from blemish.storage.leftovers import remove_leftovers, temporary_name

MOST_IMAGES = 100_000
DIGITS = 40
"""Of the SHA-256 of an image, in the name of its file."""
Selection = Literal["confirmed", "accepted"]
"""Decisions to take images of: those that an operator says are good, or all that were accepted and not called wrong."""


class GoodImageFolder:
    """Good images of one model in ``folder``, each once, under the digest of its content.

    Parameters
    ----------
    max_pixels: of an image; more are refused by the header.
    """

    def __init__(self, folder: str | Path, *, max_pixels: int) -> None:
        self.folder, self.max_pixels = Path(folder), max_pixels
        if self.folder.is_dir():
            remove_leftovers(self.folder)

    def __iter__(self) -> Iterator[Path]:
        """Files, in the order of their names."""
        if self.folder.is_dir():
            yield from sorted(path for path in self.folder.iterdir() if not path.name.startswith("."))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def add(self, content: bytes, name: str) -> bool:
        """Take an image in; False if it is there already.

        Parameters
        ----------
        name: what people call it, for messages; the file has a name of ours.

        Raises
        ------
        ImageError
            When it is no image, damaged or too large.
        FileError
            When it cannot be written.
        """
        kind = image_format(content[:64])
        if kind is None:
            problem = f"is not a {FORMATS} image" if content else "is empty (0 bytes)"
            raise ImageError(Path(name), problem, "convert it")
        path = self.folder / f"{hashlib.sha256(content).hexdigest()[:DIGITS]}.{kind.lower().replace(' ', '')}"
        if path.exists():
            return False
        if len(self) >= MOST_IMAGES:
            raise FileError(self.folder, f"holds {MOST_IMAGES} images", "remove some")
        temporary = self.folder / temporary_name(path.suffix)
        write_bytes(temporary, content)
        try:
            read_image(temporary, max_pixels=self.max_pixels)
            temporary.replace(path)
        except ImageError as error:
            raise ImageError(Path(name), error.problem, error.remedy) from None
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def clear(self) -> int:
        """Remove all images; how many there were. Fits have copies of their own."""
        count = 0
        for path in self:
            with suppress(FileNotFoundError):
                path.unlink()
                count += 1
        return count

    def snapshot(self, target: Path, without: Iterable[str] = ()) -> int:
        """Copy the images to the new folder ``target``, whole or not at all; how many there are.

        Files are linked where the disk can, so that a copy takes no room.

        Parameters
        ----------
        without: SHA-256 of images that are left out.

        Raises
        ------
        FileError
            When it cannot be written.
        """
        count, left_out = 0, {digest[:DIGITS] for digest in without}
        with atomic_folder(target) as temporary:
            for path in self:
                if path.stem in left_out:
                    continue
                try:
                    (temporary / path.name).hardlink_to(path)
                except OSError:
                    shutil.copyfile(path, temporary / path.name)
                count += 1
        return count


def is_good(decision: StoredDecision) -> bool | None:
    """Whether the image is good by the newest verdict of an operator; None without a verdict."""
    label = label_of(decision)
    return None if label is None else label == GOOD


class Collection(NamedTuple):
    """What was taken from the history."""

    added: int
    known: int
    """Images that were there already."""
    to_test: int
    """Images that stay unseen, so that versions can be compared on them."""


def collect(
    images: GoodImageFolder,
    decisions: Iterable[StoredDecision],
    content_of: Callable[[StoredDecision], bytes | None],
    *,
    wanted: Selection,
    count: int,
) -> Collection:
    """Take up to ``count`` new images of decisions in.

    The part for tests is left out (:func:`~blemish.serve.verdicts.is_to_test`), also of images without a verdict, which they
    may still get.

    Parameters
    ----------
    content_of: file of a decision's image; None where it is not kept.

    Raises
    ------
    FileError
        When one cannot be written.
    """
    added = known = to_test = 0
    for decision in decisions:
        if added == count:
            break
        good = is_good(decision)
        fits = good is True if wanted == "confirmed" else not decision.is_anomalous and good is not False
        if fits and is_to_test(decision.image_sha256):
            to_test += 1
            continue
        content = content_of(decision) if fits else None
        if content is None:
            continue
        with suppress(
            ImageError
        ):  # an image that was inspected can be read; one that is damaged since is left out
            if images.add(content, decision.name):
                added += 1
            else:
                known += 1
    return Collection(added, known, to_test)
