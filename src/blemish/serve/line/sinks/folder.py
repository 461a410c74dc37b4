"""Folder as a sink: image, overlay and decision as files, for people and programs that look into folders."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from blemish.data.opening import image_format
from blemish.errors import DeliveryError, FileError
from blemish.serve.contracts import StoredDecision
from blemish.serve.line.messages import decision_json
from blemish.serve.line.sink_settings import FolderSinkSettings
from blemish.storage.atomic import write_bytes, write_text
from blemish.storage.leftovers import remove_leftovers

_SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "BMP": ".bmp",
    "WebP": ".webp",
    "TIFF": ".tif",
    "GIF": ".gif",
    "PNM": ".pnm",
    "JPEG 2000": ".jp2",
}
STEM_CHARACTERS = 60


class FolderSink:
    """Writes ``00000017-NAME.png``, its ``-overlay.png`` and its ``.json``, the JSON last, so that it vouches.

    The same decision once more writes the same files.
    """

    needs_images = True

    def __init__(self, settings: FolderSinkSettings, folder: Path) -> None:
        self.name = settings.name
        self._folder, self._by_day = folder, settings.by_day

    def open(self) -> None:
        """Remove temporary files of a killed server; there is nothing to connect to."""
        remove_leftovers(self._folder, below=self._by_day)

    def deliver(self, decision: StoredDecision, image: bytes | None, overlay: bytes | None) -> None:
        """Write the files of one decision; without its image, where that is no longer kept, the JSON alone.

        Raises
        ------
        DeliveryError
            When they cannot be written.
        """
        folder = self._folder / f"{local_day(decision.time):%Y-%m-%d}" if self._by_day else self._folder
        stem = f"{decision.id:08d}-{file_stem(decision.name)}"
        try:
            if image is not None:
                found = image_format(image[:64])
                write_bytes(folder / f"{stem}{_SUFFIXES.get(found or '', '.bin')}", image)
            if overlay is not None:
                write_bytes(folder / f"{stem}-overlay.png", overlay)
            write_text(folder / f"{stem}.json", decision_json(decision) + "\n")
        except FileError as error:
            raise DeliveryError(str(error)) from None

    def close(self) -> None:
        """Nothing is held."""


def file_stem(name: str) -> str:
    """Part of a file's name that is made of ``name``, whatever that holds.

    >>> file_stem("left/../part 7*.png")
    'part_7_'
    """
    stem = name.replace("\\", "/").rpartition("/")[2].rpartition(".")[0] or name
    kept = "".join(char if char.isalnum() or char in "-_" else "_" for char in stem)
    return kept[:STEM_CHARACTERS].encode()[:120].decode(errors="ignore") or "_"


def local_day(time: datetime) -> datetime:
    """``time`` in the time zone of the machine."""
    return time.astimezone()
