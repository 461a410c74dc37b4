"""Listing of an archive: names and places of its images, from folders, CSV and Parquet lists, and object stores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from blemish.data.datasets import look_in_all
from blemish.data.folders import is_image_name
from blemish.errors import FileError, UsageError
from blemish.scale.store import below, is_url, listed_files, opened

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

IMAGE, NAME, VERSION = "image", "name", "version"
"""Columns of a Parquet listing with a meaning; others are carried into the results."""
_ROWS = 4096


class ArchiveImage(NamedTuple):
    """An image of an archive.

    ``name`` identifies it in the results, with ``/`` between folders; ``place`` is its path or URL; ``version`` changes
    with its content, as far as that can be known without reading it; ``carried`` are values of further columns.
    """

    name: str
    place: str
    version: str | None = None
    carried: tuple[Any, ...] = ()


@dataclass(frozen=True)
class ArchiveListing:
    """Sources of an archive's images, and the columns that its Parquet listing has beside those with a meaning."""

    sources: tuple[str, ...]
    carried: tuple[pa.Field, ...] = ()
    notices: list[str] = field(default_factory=list)
    """Lines on files that were passed over, filled while the images are listed."""

    def images(self) -> Iterator[ArchiveImage]:
        """The images of all sources, one after the other; no more than a folder or a part of a list is in memory.

        Raises
        ------
        FileError
            A source is missing, cannot be read, or holds no image; a row of a list is none.
        UsageError
            A URL of a protocol that is not read.
        """
        for source in self.sources:
            before = _name_of(source) if len(self.sources) > 1 and not _is_list(source) else ""
            found = False
            for image in _images_of(source, self.notices):
                found = True
                yield image._replace(name=f"{before}{image.name}") if before else image
            if not found:
                raise FileError(source, "holds no image", "name a folder or listing with images")


def look_at(sources: Sequence[str]) -> ArchiveListing:
    """The listing of ``sources``, with the columns that are carried; images are not listed yet.

    Raises
    ------
    FileError
        A Parquet listing that cannot be read, or lacks the column ``image``.
    UsageError
        No source; a listing with further columns beside other sources.
    """
    if not sources:
        raise UsageError("no images are named; give folders, Parquet listings or URLs")
    carried: tuple[pa.Field, ...] = ()
    for source in sources:
        if _is_list(source):
            with _parquet(source) as file:
                schema = file.schema_arrow
            if IMAGE not in schema.names:
                raise FileError(source, f"has no column {IMAGE} ({', '.join(schema.names)})", "name it so")
            further = tuple(one for one in schema if one.name not in (IMAGE, NAME, VERSION))
            if further and len(sources) > 1:
                raise UsageError(
                    f"{source}: has columns to carry along ({', '.join(one.name for one in further)}); give it alone"
                )
            carried = further
    return ArchiveListing(tuple(sources), carried)


def _is_list(source: str) -> bool:
    return source.lower().endswith(".parquet")


def _name_of(source: str) -> str:
    """Beginning of the names of images of one folder among several."""
    if is_url(source):
        return f"{PurePosixPath(source.rstrip('/')).name}/"
    return f"{Path(os.path.realpath(source)).name}/" if os.path.isdir(source) else ""


def _images_of(source: str, notices: list[str]) -> Iterator[ArchiveImage]:
    if _is_list(source):
        yield from _images_of_list(source)
    elif is_url(source):
        root = f"{source.rstrip('/')}/"
        for stored in listed_files(source):
            name = (
                stored.url.removeprefix(root)
                if stored.url.startswith(root)
                else PurePosixPath(stored.url).name
            )
            if is_image_name(PurePosixPath(name).name):
                yield ArchiveImage(name, stored.url, stored.version)
    else:
        collection = look_in_all([Path(source)])
        notices += collection.notices()
        for item in collection.items:
            # Other machines of the cluster may have another working folder.
            yield ArchiveImage(item.name, os.path.abspath(item.path), file_version(item.path))


def file_version(path: str | Path) -> str | None:
    """Size and time of a file of this machine, which tell one that has changed; None where it cannot be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return None  # reading reports it
    return f"{found.st_size} {found.st_mtime_ns}"


def _images_of_list(source: str) -> Iterator[ArchiveImage]:
    folder = source.rpartition("/")[0] if is_url(source) else os.path.dirname(os.path.abspath(source))
    number = 0
    with _parquet(source) as file:
        carried = [name for name in file.schema_arrow.names if name not in (IMAGE, NAME, VERSION)]
        for batch in file.iter_batches(batch_size=_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield _image_of_row(row, carried, folder, f"row {number}", source)


def _image_of_row(
    row: dict[str, Any], carried: Sequence[str], folder: str, where: str, source: str
) -> ArchiveImage:
    given = row[IMAGE]
    if not isinstance(given, str) or not given:
        raise FileError(source, f"{where} has no text in the column {IMAGE}", "write a path or a URL")
    place = given if is_url(given) or os.path.isabs(given) else below(folder, given)
    name = row.get(NAME) or (
        given.partition("://")[2] if is_url(given) else Path(given).as_posix().lstrip("/")
    )
    if not isinstance(name, str) or ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
        raise FileError(
            source, f"{where}: '{name}' leads out of the folder", f"give it another name in a column {NAME}"
        )
    version = row.get(VERSION)
    if version is None and not is_url(place):
        version = file_version(place)
    return ArchiveImage(
        name, place, None if version is None else str(version), tuple(row[column] for column in carried)
    )


@contextmanager
def _parquet(source: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file, open for reading; errors name it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with opened(source) as file:
        try:
            yield pq.ParquetFile(file)
        except pa.ArrowException as error:
            reason = " ".join(str(error).split())[:200]
            raise FileError(
                source, f"is no Parquet file that can be read ({reason})", "write it again"
            ) from None
