"""Kept images: the files of images and anomaly maps that are kept by rule, beside the history."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from blemish.data.maps import encode_map, read_map
from blemish.data.opening import image_format
from blemish.errors import FileError
from blemish.inspection.folder import FULL_SCALE_LEVELS
from blemish.serve.contracts import Frame, NewDecision
from blemish.serve.history.outbox import Wish
from blemish.serve.history.rows import image_key
from blemish.storage.atomic import write_bytes
from blemish.storage.leftovers import remove_leftovers

IMAGES = "images"
"""Folder of the kept images, in that of the history."""
_SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "WebP": ".webp",
    "GIF": ".gif",
    "PNM": ".pnm",
    "JPEG 2000": ".jp2",
}
_MAP = ".map.png"


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= bounds[0] <= bounds[1] <= 1:
        raise ValueError("write two p-values between 0 and 1, the smaller first, such as [0.02, 0.1]")
    return bounds


class KeepRule(BaseModel):
    """Images that are kept: those for which anything of this holds.

    >>> KeepRule(all=False, rejects=True, one_in=100).in_words()
    'rejects, one in 100'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    all: bool = True
    rejects: bool = True
    uncertain: Annotated[tuple[float, float], AfterValidator(_rising)] | None = None
    """p-values between which an image is uncertain, ends included: around the false-reject rate, such as (0.02, 0.1)
    for 5 %."""
    one_in: int | None = Field(default=None, ge=1)
    """One in so many, chosen by its number, so that the choice is the same for a repeated request."""

    def keeps(self, decision: NewDecision) -> bool:
        """Whether the image of ``decision`` is kept."""
        if self.all or (self.rejects and decision.is_anomalous):
            return True
        if self.uncertain is not None and self.uncertain[0] <= decision.p_value <= self.uncertain[1]:
            return True
        return self.one_in is not None and _drawn(decision.request, self.one_in)

    def in_words(self) -> str:
        """The rule in a few words."""
        if self.all:
            return "all"
        words = ["rejects"] * self.rejects
        if self.uncertain is not None:
            words.append(f"p-values of {self.uncertain[0]:g} to {self.uncertain[1]:g}")
        if self.one_in is not None:
            words.append(f"one in {self.one_in}")
        return ", ".join(words) or "none"


def _drawn(request: str, one_in: int) -> bool:
    digest = hashlib.sha256(f"one in {request}".encode("utf-8", "backslashreplace")).digest()
    return int.from_bytes(digest[:8], "big") % one_in == 0


class Keeping(NamedTuple):
    """A decision with the files that are to be kept of it, if there are such."""

    decision: NewDecision
    files: tuple[tuple[Path, bytes], ...] = ()
    for_sinks_alone: bool = False


def full_scale(decision: NewDecision) -> float:
    """Value that is white in the map of a decision."""
    return FULL_SCALE_LEVELS * decision.pixel_threshold or 1.0


class KeptImages:
    """Folder of kept images: each as it came, a camera's array as PNG, with its anomaly map.

    Files are written before the decision is stored, and have names of ours alone.

    Parameters
    ----------
    folder: made with the first image.
    """

    def __init__(self, folder: str | Path, rule: KeepRule | None = None) -> None:
        self.folder = Path(folder)
        self.rule = rule or KeepRule()
        self.problem: FileError | None = None
        """Why the last image that was to be kept is not, for the page; the decision is stored nevertheless."""

    def encode(
        self,
        frame: Frame,
        anomaly_map: NDArray[np.floating],
        decision: NewDecision,
        wishes: Collection[Wish] = (),
    ) -> Keeping:
        """Files of the image and its map where the rule says so, or sinks need them, for :meth:`write`.

        Parameters
        ----------
        anomaly_map: (H, W), finite, at least 0.
        wishes: of the sinks that deliver images.
        """
        by_rule = self.rule.keeps(decision)
        by_sinks = "all" in wishes or ("rejected" in wishes and decision.is_anomalous)
        if not (by_rule or by_sinks):
            return Keeping(decision)
        content, suffix = _file_of(frame)
        shown = encode_map(anomaly_map, full_scale=full_scale(decision))
        files = (self._path(decision, suffix), content), (self._path(decision, _MAP), shown)
        return Keeping(decision, files, for_sinks_alone=not by_rule)

    def write(self, keeping: Keeping) -> NewDecision:
        """Write the files of a decision, which then says what was kept.

        A disk that is full loses the image, not the decision: see :attr:`problem`.
        """
        decision, files, for_sinks_alone = keeping
        if not files:
            return decision
        try:
            for path, content in files:
                write_bytes(path, content)
        except FileError as error:
            self.remove(image_key(decision))
            self.problem = error
            return decision
        self.problem = None
        size = sum(len(content) for _, content in files)
        return decision.model_copy(
            update={"kept": True, "kept_bytes": size, "until_delivered": for_sinks_alone}
        )

    def keep(
        self,
        frame: Frame,
        anomaly_map: NDArray[np.floating],
        decision: NewDecision,
        wishes: Collection[Wish] = (),
    ) -> NewDecision:
        """:meth:`encode`, then :meth:`write`."""
        return self.write(self.encode(frame, anomaly_map, decision, wishes))

    def image(self, decision: NewDecision) -> Path | None:
        """File of the image of a decision; None where it is not kept."""
        paths = (self._path(decision, suffix) for suffix in _SUFFIXES.values())
        return next((path for path in paths if path.is_file()), None)

    def map(self, decision: NewDecision) -> Path | None:
        """File of the anomaly map of a decision; None where it is not kept."""
        path = self._path(decision, _MAP)
        return path if path.is_file() else None

    def read(self, decision: NewDecision) -> tuple[bytes | None, NDArray[np.float32] | None]:
        """Content of the image file and the map (H, W) of a decision; None for what is not kept, or no longer."""
        image, shown = self.image(decision), self.map(decision)
        try:
            content = None if image is None else image.read_bytes()
            return content, None if shown is None else read_map(shown)
        except (OSError, FileError):
            return None, None

    def files(self, key: str) -> list[Path]:
        """Files under a name of the history."""
        paths = (self._path_of(key, suffix) for suffix in (*_SUFFIXES.values(), _MAP))
        return [path for path in paths if path.is_file()]

    def remove(self, key: str) -> int:
        """Remove the files under a name of the history; their bytes."""
        size = 0
        for path in self.files(key):
            with suppress(FileNotFoundError):  # another clean-up was there first
                size += path.stat().st_size
                path.unlink()
        return size

    def remove_leftovers(self) -> None:
        """Remove temporary files of a server that is gone."""
        for folder in self._folders():
            remove_leftovers(folder)

    def by_key(self) -> Iterator[tuple[str, list[Path]]]:
        """All names with their files, folder by folder."""
        for folder in self._folders():
            found: dict[str, list[Path]] = {}
            for path in sorted(folder.iterdir()):
                if not path.name.startswith("."):
                    found.setdefault(path.name.partition(".")[0], []).append(path)
            yield from found.items()

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else []

    def _path(self, decision: NewDecision, suffix: str) -> Path:
        return self._path_of(image_key(decision), suffix)

    def _path_of(self, key: str, suffix: str) -> Path:
        return self.folder / key[:2] / f"{key}{suffix}"


def _file_of(frame: Frame) -> tuple[bytes, str]:
    """Content and suffix of the file of a frame."""
    if isinstance(frame.image, bytes):
        return frame.image, _SUFFIXES.get(image_format(frame.image[:64]) or "", ".png")
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(frame.image))), ".png"
