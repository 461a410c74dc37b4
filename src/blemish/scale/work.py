"""Work on one image of an archive: inspection, or encoding as a JPEG file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel

from blemish.data.fingerprint import file_sha256
from blemish.data.image import read_image
from blemish.data.items import Item
from blemish.decision.records import Inspection
from blemish.errors import FileError, ImageError
from blemish.jpeg.batch.records import EncodedFile
from blemish.jpeg.batch.settings import BatchSettings
from blemish.scale.store import below, sha256_of, write_file
from blemish.storage.atomic import write_bytes

if TYPE_CHECKING:
    from blemish.inspection.detector import Detector

FileContents = Mapping[str, bytes]
"""Files of a model's folder by their names, as they are sent to workers."""
_JPEG_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif"}


class ImageWork(Protocol):
    """Work of a worker on one image after the other; it is sent to each worker once, and prepared there."""

    record: type[BaseModel]
    """Type of its records."""
    name_field: str
    """Field of the record that holds the name of the image."""

    def prepare(self, folder: Path) -> None:
        """Load what every image needs; ``folder`` is the worker's own, for temporary files."""

    def work_on(self, path: Path, name: str, sha256: str, former: str | None = None) -> BaseModel:
        """Record of the image in the file ``path``, whose bytes have ``sha256``.

        ``former`` is the SHA-256 of the file that an earlier record of the image has written; it may be replaced.

        Raises ImageError of that path where it cannot be used, and :func:`changed` where it now has other bytes.
        """

    def rejects(self, record: Mapping[str, object]) -> bool:
        """Whether a record is of a rejected image."""


def changed(path: Path) -> FileError:
    """The error of an image that changes while the archive is worked on: it gets no result, as it would be of neither content."""
    return FileError(path, "has changed since it was listed", "go on with --resume")


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a model's folder, without those below it."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def _unpacked(files: FileContents, folder: Path) -> Path:
    for name, content in files.items():
        write_bytes(folder / name, content)
    return folder


@dataclass
class InspectionWork:
    """Inspection by the detector whose folder has ``files``."""

    files: FileContents = field(repr=False)
    record: type[BaseModel] = Inspection
    name_field: str = "path"
    _detector: Detector | None = None

    def prepare(self, folder: Path) -> None:
        """Load the detector."""
        from blemish.inspection.detector import load

        self._detector = load(_unpacked(self.files, folder / "model"))

    def work_on(self, path: Path, name: str, sha256: str, former: str | None = None) -> Inspection:
        """Record of an image, as ``Detector.inspect`` gives it."""
        assert self._detector is not None, "prepare comes first"
        record = self._detector.inspect(read_image(path), name=name).record(None, sha256)
        if file_sha256(path) != sha256:
            raise changed(path)
        return record

    def rejects(self, record: Mapping[str, object]) -> bool:
        """Whether the image is rejected."""
        return record["is_anomalous"] is True


@dataclass
class EncodingWork:
    """Encoding as JPEG files below ``root``, a folder or URL that all workers write to.

    fingerprint: of ``settings``. protect, model: files of the folders that ``settings`` name. overwrite: whether files
    at ``root`` that are not of this archive are replaced.
    """

    settings: BatchSettings
    fingerprint: str
    root: str
    protect: FileContents | None = field(default=None, repr=False)
    model: FileContents | None = field(default=None, repr=False)
    overwrite: bool = False
    record: type[BaseModel] = EncodedFile
    name_field: str = "input"

    def prepare(self, folder: Path) -> None:
        """Write the models to the worker's own folder; they are loaded with the first image."""
        if self.protect is not None:
            self.settings = replace(self.settings, protect=_unpacked(self.protect, folder / "protect"))
        if self.model is not None:
            self.settings = replace(self.settings, model=_unpacked(self.model, folder / "encoder"))

    def work_on(self, path: Path, name: str, sha256: str, former: str | None = None) -> EncodedFile:
        """Record of an image whose file is written; a file is written before its record."""
        from blemish.jpeg.batch.plan import EncodingJob
        from blemish.jpeg.batch.worker import EncodedJob, encode_one

        job = EncodingJob(Item(path, name), Path(), output_name(name), self.settings, False, self.fingerprint)
        done = encode_one(job)
        if not isinstance(done, EncodedJob):
            raise done
        if done.record.input_sha256 != sha256:
            raise changed(path)
        self._write(done.record, done.data, path, former)
        return done.record

    def _write(self, record: EncodedFile, data: bytes, path: Path, former: str | None) -> None:
        target = below(self.root, record.output)
        there = sha256_of(target)
        if there == record.output_sha256:
            return  # of a worker that was killed between file and record
        if there not in (None, former) and not self.overwrite:
            raise ImageError(path, f"would be written to {target}, where another file is", "use --overwrite")
        write_file(target, data)

    def rejects(self, record: Mapping[str, object]) -> bool:
        """False: encoding rejects nothing."""
        return False


def output_name(name: str) -> str:
    """Name of the JPEG file of an image: its own where it is a JPEG's, else with ``.jpg`` behind it.

    >>> output_name("a/b.JPG"), output_name("a/b.png")
    ('a/b.JPG', 'a/b.png.jpg')
    """
    return name if PurePosixPath(name).suffix.lower() in _JPEG_SUFFIXES else f"{name}.jpg"


def sha256_of_files(files: FileContents) -> str:
    """SHA-256 of a model's files and their names."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()
