"""Folder as a source: image files as they appear, each once, when it is written to its end."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish.data.image import SUFFIXES
from blemish.errors import BlemishError
from blemish.extras import explain_missing
from blemish.limits import MAX_IMAGE_BYTES
from blemish.serve.contracts import Frame
from blemish.serve.line.done_log import DoneImage, DoneLog
from blemish.serve.line.source_settings import FolderSettings

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

UNREADABLE = "unreadable"
"""Folder beside the images, where files go that no image can be read from."""
IDLE = 0.25
"""Seconds after which the caller hears that nothing came."""
STILL_OPEN = 5.0
"""Seconds without a change after which a file counts as written, though nobody reported that it was closed."""


@dataclass(frozen=True)
class _FileState:
    """State of a file at one look."""

    size: int
    changed: int
    since: float
    """When it was first seen like this, by the clock that only goes forward."""


class FolderSource:
    """Gives the image files of a folder in the order of their last change.

    A file is read when it has stayed as it is for ``settle`` seconds, and, where the system reports it (inotify), is
    closed by its writer. The folder is looked through every ``poll`` seconds in any case, because shares of a network
    report nothing, and reports may be lost.

    A frame's number is made of the file's name, the time of its last change and its content, so that a file which is
    given again after a kill is stored once, and the same image that is brought again is a new one.

    Parameters
    ----------
    folder: need not be there yet; until it is, the source is not ready.
    log: file that notes which images are done, where they stay in the folder.
    """

    is_live = False

    def __init__(
        self, settings: FolderSettings, folder: Path, log: Path, move_to: Path | None = None
    ) -> None:
        self.name = settings.name
        self.folder = folder
        self._settings = settings
        self._move_to = move_to
        self._log = DoneLog(log)
        self._refused: dict[str, tuple[int, int]] = {}
        self._seen: dict[str, _FileState] = {}
        self._given: dict[str, DoneImage] = {}
        self._written: set[str] = set()
        """Paths that are being written: changed, and not closed since."""
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._watch: BaseObserver | None = None
        self._problem = ""
        self._waiting = 0
        self._is_tidy = False

    # -- the contract ------------------------------------------------------------------------------

    def frames(self) -> Iterator[Frame | None]:
        """Images as they become ready; None after a quarter of a second without one."""
        while not self._closed.is_set():
            self._changed.clear()
            ready, soonest = self._look()
            for name in ready:
                frame = self._read(name)
                if frame is not None:
                    yield frame
                if self._closed.is_set():
                    return
            if ready:
                continue
            until = time.monotonic() + (self._settings.poll if soonest is None else soonest)
            while time.monotonic() < until and not self._closed.is_set():
                if self._changed.wait(max(0.0, min(IDLE, until - time.monotonic()))):
                    break
                yield None
            else:
                yield None

    def fire(self) -> None:
        """Nothing to do: files come by themselves."""

    def done(self, frame: Frame) -> None:
        """Move, delete or note the file of ``frame``, unless it has changed since.

        Raises
        ------
        BlemishError
            When the file cannot be moved; it is given again, and stored once.
        """
        image = self._given.pop(frame.request, None)
        if image is None:
            return
        path = self.folder / image.name
        if not _is_as_it_was(path, image):
            return
        if self._settings.after == "move" and self._move_to is not None:
            _move(path, self._move_to / image.name)
        elif self._settings.after == "delete":
            path.unlink(missing_ok=True)
        else:
            self._log.add(image)

    def refused(self, frame: Frame, reason: str) -> None:
        """Put the file of ``frame``, from which no decision can be made, aside, so that it is not given again."""
        image = self._given.pop(frame.request, None)
        if image is None:
            return
        path = self.folder / image.name
        if str(path) in self._written:
            self._seen.pop(image.name, None)
            return
        self._refused[image.name] = (image.size, image.changed)
        self._problem = f"{image.name}: {reason}"
        if self._settings.after != "keep" and _is_as_it_was(path, image):
            _move(path, self.folder / UNREADABLE / image.name)

    def state(self) -> dict[str, Any]:
        """Whether the folder is there, how many files wait, and what went wrong last."""
        is_there = self.folder.is_dir()
        message = self._problem if is_there else f"{self.folder}: is not there; make it, or connect the share"
        return {"is_ready": is_there, "message": message, "waiting": self._waiting}

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        self._changed.set()
        if self._watch is not None:
            self._watch.stop()
            self._watch.join(2)

    # -- looking -----------------------------------------------------------------------------------

    def _look(self) -> tuple[list[str], float | None]:
        """Names that are ready, oldest change first, and seconds until the next one may be."""
        if not self.folder.is_dir():
            self._stop_watching()
            self._seen.clear()
            return [], None
        self._start_watching()
        now = time.monotonic()
        found: dict[str, _FileState] = {}
        for name, size, changed in self._files():
            before = self._seen.get(name)
            same = before is not None and (before.size, before.changed) == (size, changed)
            found[name] = before if same and before is not None else _FileState(size, changed, now)
        if found and not self._is_tidy:  # an empty folder may be a share that is not connected yet
            self._log.keep(found)
            self._is_tidy = True
        self._seen = found
        given = {image.name for image in self._given.values()}
        waiting = [
            (seen.changed, name, seen)
            for name, seen in found.items()
            if name not in given
            and DoneImage(name=name, size=seen.size, changed=seen.changed) not in self._log
            and self._refused.get(name) != (seen.size, seen.changed)
        ]
        self._waiting = len(waiting)
        left = {name: self._settle(name, seen) - (now - seen.since) for _, name, seen in waiting}
        ready = [name for _, name, _ in sorted(waiting, key=lambda one: one[:2]) if left[name] <= 0]
        return ready, min((wait for wait in left.values() if wait > 0), default=None)

    def _settle(self, name: str, seen: _FileState) -> float:
        """Seconds that a file must stay as it is."""
        if str(self.folder / name) in self._written:
            return max(self._settings.settle, STILL_OPEN)
        # One whose last change lies well back was written before the first look at it.
        age = time.time() - seen.changed / 1e9
        return 0.0 if age > 2 + 10 * self._settings.settle else self._settings.settle

    def _files(self) -> Iterator[tuple[str, int, int]]:
        """Name, size and time of change of each image file, as far as it can be seen."""
        apart = {self.folder / UNREADABLE, *([self._move_to] if self._move_to else [])}
        folders = [self.folder]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        path = Path(entry.path)
                        if entry.is_dir(follow_symlinks=False):
                            if self._settings.recursive and path not in apart:
                                folders.append(path)
                        elif path.suffix.lower() in SUFFIXES and fnmatch(entry.name, self._settings.pattern):
                            state = entry.stat()
                            if state.st_size:
                                name = path.relative_to(self.folder).as_posix()
                                yield name, state.st_size, state.st_mtime_ns
            except OSError as error:
                self._problem = f"{folder}: cannot be read ({error.strerror}); check its permissions"

    def _start_watching(self) -> None:
        if self._watch is not None or self._settings.watch == "poll":
            return
        with explain_missing():
            from watchdog.events import FileSystemEvent, FileSystemEventHandler
            from watchdog.observers import Observer

        changed, written = self._changed, self._written

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                path = os.fsdecode(event.src_path)
                if event.event_type in ("opened", "closed_no_write"):
                    return
                if event.event_type == "modified" and not event.is_directory:
                    written.add(path)
                else:
                    written.discard(path)
                changed.set()

        watch = Observer()
        try:
            watch.schedule(Handler(), str(self.folder), recursive=self._settings.recursive)
            watch.start()
        except OSError as error:  # as where the system has no more watches to give
            self._problem = (
                f"{self.folder}: cannot be watched ({error.strerror}), and is looked through instead"
            )
            return
        self._watch = watch

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
            self._written.clear()

    # -- reading -----------------------------------------------------------------------------------

    def _read(self, name: str) -> Frame | None:
        path = self.folder / name
        seen = self._seen[name]
        try:
            if seen.size > MAX_IMAGE_BYTES:
                raise OSError(0, "larger than any image that is read")
            content = path.read_bytes()
            state = path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._problem = f"{name}: cannot be read ({error.strerror}); check its permissions"
            self._refused[name] = (seen.size, seen.changed)
            return None
        if (state.st_size, state.st_mtime_ns) != (seen.size, seen.changed) or len(content) != seen.size:
            return None  # it is written again; the next look finds it changed
        image = DoneImage(name=name, size=seen.size, changed=seen.changed)
        request = f"{self.name}/{name}/{seen.changed}/{hashlib.sha256(content).hexdigest()}"
        self._given[request] = image
        taken = datetime.fromtimestamp(seen.changed / 1e9, timezone.utc)
        return Frame(content, name, self.name, taken, request)


def _is_as_it_was(path: Path, image: DoneImage) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    return (state.st_size, state.st_mtime_ns) == (image.size, image.changed)


def _move(path: Path, target: Path) -> None:
    """Move a file; where another of its name lies already, under a name with a number."""
    number = 1
    free = target
    while os.path.lexists(free):
        number += 1
        free = target.with_name(f"{target.stem}-{number}{target.suffix}")
    try:
        free.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(path, free)
        except OSError:  # another disk
            import shutil

            shutil.move(str(path), str(free))
    except OSError as error:
        raise BlemishError(
            f"{path}: cannot be moved to {target.parent} ({error.strerror}); check its permissions"
        ) from None
