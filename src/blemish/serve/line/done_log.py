"""Log of images that a source need not give again after a restart."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from blemish.storage.atomic import write_text
from blemish.storage.records_log import RecordsLog, append_line


class DoneImage(BaseModel):
    """One file in the state that was decided, or one frame of a video."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size: int
    changed: int
    """Time of its last change in nanoseconds since 1970."""
    frame: int | None = None
    """Number of the frame, of a video."""


class DoneLog:
    """The newest done state of each file, kept as JSON lines; without it, images would only be inspected once more.

    The history holds each decision once in any case, by the number of its frame.

    Raises
    ------
    FileError
        When the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        log = RecordsLog(path, DoneImage)
        self._done = {image.name: image for image in log.records}
        log.keep(self._done.values())

    def __contains__(self, image: DoneImage) -> bool:
        return self._done.get(image.name) == image

    def __len__(self) -> int:
        return len(self._done)

    def add(self, image: DoneImage) -> None:
        """Note one image; a former state of the same file is forgotten."""
        append_line(self.path, image.model_dump_json().encode())
        self._done[image.name] = image

    def last_frame(self, name: str, size: int, changed: int) -> int:
        """Number of the last frame of a video that is done; -1 where none of its present state is."""
        found = self._done.get(name)
        if found is None or found.frame is None or (found.size, found.changed) != (size, changed):
            return -1
        return found.frame

    def keep(self, names: Iterable[str]) -> None:
        """Forget files of other names."""
        self._done = {name: self._done[name] for name in names if name in self._done}
        lines = "".join(f"{image.model_dump_json()}\n" for image in self._done.values())
        write_text(self.path, lines)
