"""Copy of an archive's finished parts at another place, such as an object store, beside the output folder."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from blemish.errors import FileError, UsageError
from blemish.scale.archive_folder import LOG_FILE, PARTS, SETTINGS_FILE, SUMMARY_FILE, ArchivePart
from blemish.scale.store import below, is_url, read_file, remove_file, write_file
from blemish.storage.atomic import write_json

IDENTITY_FILE = "copy.json"
"""File of both places that names the copy, so that two archives never share one."""


class PartsCopy:
    """Copy of the parts in ``folder`` at ``place``, a folder or URL.

    A part is stored whole, and the log of the copy names it after that; whatever was interrupted is made up for by the next
    :meth:`bring`. The output folder stays the one that vouches.

    Raises
    ------
    UsageError
        ``place`` is the output folder, or has the copy of another archive, and ``overwrite`` is false.
    FileError
        It cannot be read or written.
    """

    def __init__(self, folder: Path, place: str, *, overwrite: bool = False) -> None:
        if not is_url(place):
            place = str(Path(place).absolute())
            if Path(place) == folder.absolute():
                raise UsageError(f"--parts {place}: is the output folder itself; name another place")
        self._folder, self.place = folder, place
        self._there = self._logged()
        own, other = _identity_of(folder / IDENTITY_FILE), self._identity_there()
        if other is None or other != own.get(place):
            if other is not None or (self._there and place not in own):
                if not overwrite:
                    raise UsageError(
                        f"--parts {place}: holds the results of another archive; name another place, or use --overwrite"
                    )
                self._empty()
            if own.get(place) is None:
                own[place] = uuid.uuid4().hex
                write_json(folder / IDENTITY_FILE, own)
            self._write(IDENTITY_FILE, json.dumps({"copy": own[place]}).encode())

    def bring(self, parts: Sequence[ArchivePart]) -> None:
        """Store what the copy lacks of ``parts``, and remove what is none of them any more.

        Raises
        ------
        FileError
            When the place cannot be written; another call goes on.
        """
        now = {part.name: part for part in parts}
        changed = False
        for name, part in now.items():
            known = self._there.get(name)
            if known is None or known.sha256 != part.sha256:
                self._write(f"{PARTS}/{name}", (self._folder / PARTS / name).read_bytes())
                changed = True
        gone = self._there.keys() - now.keys()
        if changed or gone:
            lines = "".join(f"{part.model_dump_json()}\n" for part in parts)
            self._write(LOG_FILE, lines.encode())
        for name in gone:
            remove_file(below(self.place, f"{PARTS}/{name}"))
        self._there = now

    def finish(self) -> None:
        """Store the settings and the summary beside the parts, when all is done."""
        for name in (SETTINGS_FILE, SUMMARY_FILE):
            self._write(name, (self._folder / name).read_bytes())

    def _write(self, name: str, data: bytes) -> None:
        write_file(below(self.place, name), data)

    def _logged(self) -> dict[str, ArchivePart]:
        """The parts that the log of the copy names."""
        data = read_file(below(self.place, LOG_FILE)) or b""
        try:
            parts = [ArchivePart.model_validate_json(line) for line in data.splitlines()]
        except ValidationError:
            raise FileError(
                below(self.place, LOG_FILE), "is no log of an archive", "name another place for --parts"
            ) from None
        return {part.name: part for part in parts}

    def _identity_there(self) -> str | None:
        data = read_file(below(self.place, IDENTITY_FILE))
        try:
            return None if data is None else str(json.loads(data)["copy"])
        except (ValueError, KeyError, TypeError):
            raise FileError(
                below(self.place, IDENTITY_FILE),
                "names no copy of an archive",
                "name another place for --parts",
            ) from None

    def _empty(self) -> None:
        """Remove the copy of another archive, and nothing else."""
        for name in [*(f"{PARTS}/{name}" for name in self._there), SUMMARY_FILE, SETTINGS_FILE, LOG_FILE]:
            remove_file(below(self.place, name))
        self._there = {}


def _identity_of(path: Path) -> dict[str, str]:
    """Names of the copies that an output folder has, by their places."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes())
        return {str(place): str(name) for place, name in found.items()}
    except (OSError, ValueError, AttributeError):
        raise FileError(path, "names no copies of this archive", "remove it, and use --overwrite") from None
