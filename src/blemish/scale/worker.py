"""Workers of a cluster: each has the model once, and turns tables of images into tables of results."""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from blemish.data.fingerprint import file_sha256
from blemish.data.opening import RENAME
from blemish.errors import BlemishError, FileError, ImageError, NameInTheWayError, within_memory
from blemish.scale.listing import ArchiveImage, file_version
from blemish.scale.store import fetch, is_url
from blemish.scale.tables import BYTES_READ, CPU_SECONDS, ERROR, FORMER, LABEL, PLACE, UNREAD, VERSION
from blemish.scale.work import ImageWork, changed
from blemish.storage.leftovers import temporary_name, temporary_prefix

if TYPE_CHECKING:
    import pyarrow as pa

CAREFUL_AFTER = 2
"""Times that a table of images may end its worker before its images are counted one by one."""
BLAMED_AFTER = 3
"""Times that an image may then end its worker before it is given up."""
_FILE_VERSION = re.compile(r"\d+ \d+")
"""Of :func:`~blemish.scale.listing.file_version`; a listing may have other versions."""


class Attempts:
    """Counts how often work on something was begun; an actor of its own, as workers that are killed count nothing."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, key: str) -> int:
        """Number of times that this was begun, this one included."""
        self._begun[key] += 1
        return self._begun[key]

    def finish(self, key: str) -> None:
        """Forget what is finished."""
        del self._begun[key]


class AttemptCount(Protocol):
    """Access to the :class:`Attempts` of a job."""

    def begin(self, key: str) -> int:
        """As :meth:`Attempts.begin`."""

    def finish(self, key: str) -> None:
        """As :meth:`Attempts.finish`."""


class RemoteAttempts:
    """The :class:`Attempts` of an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def begin(self, key: str) -> int:
        """As :meth:`Attempts.begin`; waits for the count."""
        import ray

        return int(ray.get(self._actor.begin.remote(key)))

    def finish(self, key: str) -> None:
        """As :meth:`Attempts.finish`."""
        self._actor.finish.remote(key)


class ArchiveWorker:
    """Work on tables of images, with all that it needs loaded once.

    Parameters
    ----------
    work: sent from the driver.
    attempts: of the job.
    schema: of the results, without :data:`UNREAD`.
    """

    def __init__(self, work: ImageWork, attempts: Any, schema: pa.Schema) -> None:
        self._work = work
        self._attempts: AttemptCount = (
            RemoteAttempts(attempts) if hasattr(attempts, "_actor_id") else attempts
        )
        self._schema = schema
        # Named by this process: where it is killed, the next command of Blemish on its machine removes the folder.
        self._folder = tempfile.TemporaryDirectory(prefix=temporary_prefix())
        work.prepare(Path(self._folder.name))

    def __call__(self, images: pa.Table) -> pa.Table:
        """Results of a table of images, row by row in its order."""
        import pyarrow as pa

        rows = images.to_pylist()
        schema = self._schema.append(pa.field(UNREAD, pa.bool_()))
        return pa.Table.from_pylist(list(self._results(rows)), schema=schema)

    def _results(self, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if not rows:
            return
        key = f"table {rows[0]['path']}"
        careful = self._attempts.begin(key) > CAREFUL_AFTER
        begun = time.process_time()
        with ThreadPoolExecutor(1) as reader:
            # The next image is on its way while this one is worked on; no further one is in this process.
            coming: Future[_Read] | None = None
            for number, row in enumerate(rows):
                read = self._read(row) if coming is None else coming.result()
                following = rows[number + 1] if number + 1 < len(rows) else None
                coming = None
                if following is not None and is_url(following[PLACE]):
                    coming = reader.submit(self._read, following)
                result = self._result(row, read, careful)
                ended = time.process_time()
                yield result | {CPU_SECONDS: ended - begun}
                begun = ended
        self._attempts.finish(key)

    def _read(self, row: dict[str, Any]) -> _Read:
        place = row[PLACE]
        try:
            row["path"].encode()
        except UnicodeEncodeError:
            return _Read(
                Path(place), None, ImageError(place, "has a name that is not valid text here", RENAME)
            )
        if not is_url(place):
            path = Path(place)
            try:
                sha256 = file_sha256(path)
            except ImageError as error:
                return _Read(path, None, error.without_frames())
            if _FILE_VERSION.fullmatch(row[VERSION] or "") and file_version(path) != row[VERSION]:
                return _Read(path, None, changed(path))
            return _Read(path, sha256, None)
        # Readers of images read files, with all their checks.
        path = Path(self._folder.name) / temporary_name()
        try:
            return _Read(path, fetch(place, path), None, temporary=True)
        except BlemishError as error:
            return _Read(path, None, error.without_frames(), temporary=True)

    def _result(self, row: dict[str, Any], read: _Read, careful: bool) -> dict[str, Any]:
        name, place = row["path"], row[PLACE]
        found: dict[str, Any] = {**row, self._work.name_field: name, UNREAD: False}
        key = f"image {name}"
        try:
            if read.error is not None:
                raise read.error
            found[BYTES_READ] = read.path.stat().st_size
            if careful and self._attempts.begin(key) > BLAMED_AFTER:
                problem = "ends the process that works on it, by damage or for want of memory"
                raise ImageError(place, problem, "save it again from its source, cut it, or leave it out")
            with within_memory(read.path):
                assert read.sha256 is not None
                record = self._work.work_on(read.path, name, read.sha256, row[FORMER])
            found |= record.model_dump()
            if read.temporary and "notices" in found:
                found["notices"] = [line.replace(str(read.path), place) for line in found["notices"]]
            if row.get(LABEL) is not None:
                found[LABEL] = str(row[LABEL])
        except (ImageError, NameInTheWayError) as error:
            line = str(ImageError(place, error.problem, error.remedy))  # the file may have a name of our own
            found |= {ERROR: line, "sha256": read.sha256, "input_sha256": read.sha256}
        except FileError as error:  # a store that does not answer, a full disk: not of the image
            found |= {ERROR: str(error), UNREAD: True}
        except BlemishError as error:
            found |= {ERROR: f"{place}: {error}"}
        except Exception as error:  # whatever it is, the other images go on
            words = " ".join(f"{type(error).__name__}: {error}".split())
            found |= {
                ERROR: f"{place}: cannot be worked on ({words}); report this as a defect, with the image"
            }
        finally:
            if read.temporary:
                with suppress(OSError):
                    read.path.unlink(missing_ok=True)
        if careful:
            self._attempts.finish(key)
        return {column: found[column] for column in (*self._schema.names, UNREAD) if column in found}


class _Read:
    """An image as a file of this machine, or why there is none."""

    def __init__(
        self, path: Path, sha256: str | None, error: BlemishError | None, temporary: bool = False
    ) -> None:
        self.path, self.sha256, self.error, self.temporary = path, sha256, error, temporary


def planned_row(image: ArchiveImage, carried: Sequence[str], former: str | None = None) -> dict[str, Any]:
    """The row of an image that waits for its worker; ``former`` is the SHA-256 of the file that was written of it before."""
    row = {"path": image.name, PLACE: image.place, VERSION: image.version, FORMER: former}
    return row | dict(zip(carried, image.carried, strict=True))
