"""Output folders that one run owns: begun, resumed, overwritten, or refused."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pydantic import BaseModel

from blemish.errors import FileError, UsageError
from blemish.storage.atomic import write_json
from blemish.storage.records_log import RecordsLog

R = TypeVar("R", bound=BaseModel)

CLEARING_FILE = ".blemish-clearing.json"
"""Names of what an overwriting run removes, until it has done so."""


@dataclass(frozen=True)
class RunMark:
    """A file by whose presence an earlier run is recognised.

    Parameters
    ----------
    name: of the file, relative to the folder.
    refusal: the end of the line for a user who asked neither to resume nor to overwrite:
        ``already holds an inspection; replace it with --overwrite``.
    resumable: whether the run that left the file can be resumed.
    """

    name: str
    refusal: str
    resumable: bool = True


class RunFolder:
    """An output folder, and the files by which an earlier run in it is recognised.

    Files that vouch for others are written last (:meth:`vouch`, :meth:`records`), so that whatever stops a run,
    what is vouched for is whole.

    Parameters
    ----------
    path: the folder; it is made when something is written to it.
    marks: files of an earlier run. The first that is there refuses a run that neither resumes nor overwrites.
    settings_file: name of the JSON file that holds the settings of the run; None for runs without one.
    other: the end of the line for settings that differ; ``{setting}`` is replaced by the name of the first such
        setting in words, ``{key}`` by its key.
    unreadable: problem and remedy where the settings file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> mark = RunMark("settings.json", "already holds a run; pass --overwrite")
    >>> run = RunFolder(Path(tempfile.mkdtemp()), [mark], settings_file="settings.json")
    >>> run.claim({"stride": 8})
    False
    >>> run.claim({"stride": 8}, resume=True)
    True
    """

    def __init__(
        self,
        path: str | Path,
        marks: Iterable[RunMark] = (),
        *,
        settings_file: str | None = None,
        other: str = "was made with another {setting}; use --overwrite or another --out",
        unreadable: tuple[str, str] = ("cannot be read, so the run cannot be resumed", "use --overwrite"),
    ) -> None:
        self.path = Path(path)
        self.marks = tuple(marks)
        self.settings_file = settings_file
        self._other, self._unreadable = other, unreadable

    def claim(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        resume: bool = False,
        overwrite: bool = False,
        compared: Iterable[str] | None = None,
        written: Callable[[], Iterable[str | Path]] | None = None,
        emptied: Iterable[str] = (),
    ) -> bool:
        """Make the folder this run's own; True when an earlier run is resumed.

        The settings of a run that begins are written first, where the folder has a settings file; a run that resumes
        must have those of the earlier one.

        Parameters
        ----------
        settings: of this run, in JSON.
        resume: continue an earlier run, or begin where there is none.
        overwrite: remove what an earlier run wrote, and nothing else.
        compared: keys of the settings that have to be equal for a run to be resumed; None compares all.
        written: gives the files and folders that an earlier run wrote, relative to the folder, for an overwriting
            run to remove. The settings file and the marks need no mention; they are removed first.
        emptied: folders to remove too, as far as nothing is left in them.

        Raises
        ------
        UsageError
            For ``resume`` together with ``overwrite``, a folder with an earlier run and neither of the two, or
            an earlier run with other settings.
        FileError
            When the folder cannot be written, or the settings in it cannot be read.
        """
        refuse_contradiction(resume=resume, overwrite=overwrite)
        self._finish_clearing()
        resumed = False
        if overwrite:
            if any(self._exists(mark.name) for mark in self.marks):
                self.clear(() if written is None else written(), emptied=emptied)
        else:
            resumed = resume and any(mark.resumable and self._exists(mark.name) for mark in self.marks)
            if resumed and settings is not None:
                self.refuse_other(settings, compared)
            elif not resumed:
                self._refuse_earlier()
        if not resumed and settings is not None and self.settings_file is not None:
            self.vouch(self.settings_file, settings)
        return resumed

    def refuse_other(self, settings: Mapping[str, Any], compared: Iterable[str] | None = None) -> None:
        """Refuse an earlier run with other settings, naming the first that differs.

        Parameters
        ----------
        settings: of this run, in JSON.
        compared: the keys that have to be equal; None compares all of ``settings``.

        Raises
        ------
        UsageError
            When a setting differs.
        FileError
            When the settings file cannot be read.
        """
        assert self.settings_file is not None, "only a run with a settings file has settings to compare"
        path = self.path / self.settings_file
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            earlier = before if isinstance(before, dict) else {}
        except (OSError, ValueError, RecursionError):
            raise FileError(path, *self._unreadable) from None
        wanted = _as_json(settings)
        for key in wanted if compared is None else compared:
            if earlier.get(key) != wanted[key]:
                words = key.removesuffix("_sha256").replace("_", " ")
                raise UsageError(f"{self.path}: {self._other.format(setting=words, key=key)}")

    def clear(self, names: Iterable[str | Path], *, emptied: Iterable[str] = ()) -> None:
        """Remove what an earlier run wrote: marks and settings file first, then ``names`` in their order.

        What is to be removed is written down before, so that a removal which is stopped half-way is finished by the
        next run. No record ever vouches for a file that is gone. Names that lead out of the folder are passed over.

        Raises
        ------
        FileError
            Naming what cannot be removed.
        """
        marks = [mark.name for mark in self.marks]
        settings = [self.settings_file] if self.settings_file is not None else []
        listed = {"files": [*dict.fromkeys([*marks, *settings]), *map(str, names)], "folders": list(emptied)}
        write_json(self.path / CLEARING_FILE, listed)
        self._finish_clearing()

    def _finish_clearing(self) -> None:
        """Remove what :meth:`clear` has written down, and the list last."""
        path = self.path / CLEARING_FILE
        try:
            listed = json.loads(path.read_text(encoding="utf-8"))
            files, folders = (
                [PurePath(name) for name in listed[key] if isinstance(name, str)]
                for key in ("files", "folders")
            )
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            files, folders = [], []  # it was edited; the list alone is removed
        for name in files:
            if _stays_inside(name):
                self.remove(name)
        for folder in folders:
            if _stays_inside(folder):
                _remove_empty(self.path / folder)
        self.remove(CLEARING_FILE)

    def remove(self, name: str | PurePath) -> None:
        """Remove a file, or a folder with all that is in it; do nothing where there is none.

        Raises
        ------
        FileError
            When it cannot be removed.
        """
        path = self.path / name
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except NotADirectoryError:
            pass  # a part of the path is a file, so nothing of this name is there
        except OSError as error:
            raise FileError(path, f"cannot be replaced ({error.strerror})", "choose another --out") from None

    def records(self, name: str, model: type[R]) -> RecordsLog[R]:
        """The log of ``model`` records in the file ``name``, with those of an earlier run.

        Raises
        ------
        FileError
            When it cannot be read or written.
        """
        return RecordsLog(self.path / name, model)

    def vouch(self, name: str, value: Any) -> None:
        """Write ``value`` as JSON, whole or not at all, when all that it vouches for is written.

        Raises
        ------
        FileError
            When it cannot be written.
        """
        write_json(self.path / name, value)

    def _refuse_earlier(self) -> None:
        for mark in self.marks:
            if self._exists(mark.name):
                raise UsageError(f"{self.path}: {mark.refusal}")

    def _exists(self, name: str) -> bool:
        return os.path.exists(self.path / name)


def refuse_contradiction(*, resume: bool, overwrite: bool) -> None:
    """Refuse ``--resume`` together with ``--overwrite``; raises UsageError."""
    if resume and overwrite:
        raise UsageError("--resume goes on with what is there, --overwrite replaces it; give one")


def refuse_unwritable(folder: str | Path, error: type[FileError] = FileError) -> None:
    """Refuse an output folder that could not be made or written to, before any work.

    Parameters
    ----------
    folder: the folder, which need not be there.
    error: the class of the error to raise.

    Raises
    ------
    FileError
        Naming the folder, or the nearest one above it that is there.
    """
    folder = Path(folder)
    remedy = "choose another --out"
    for there in (folder, *folder.absolute().parents):
        try:
            is_folder = stat.S_ISDIR(there.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as problem:
            raise error(there, f"cannot be used ({problem.strerror})", remedy) from None
        if not is_folder:
            raise error(there, "is a file, so nothing can be written here", remedy)
        if not os.access(there, os.W_OK | os.X_OK):
            raise error(there, "no permission to write here", remedy)
        return


def _stays_inside(name: PurePath) -> bool:
    return not name.is_absolute() and ".." not in name.parts


def _as_json(value: Any) -> Any:
    """The value as it is read back from JSON: tuples become lists."""
    return json.loads(json.dumps(value))


def _remove_empty(folder: Path) -> None:
    """Remove ``folder`` and the folders below it as far as they are empty."""
    if not folder.is_dir():
        return
    below = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
    for path in (*below, folder):
        with suppress(OSError):
            path.rmdir()
