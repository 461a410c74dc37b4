"""The output folder of an archive: results in Parquet parts, each whole or not there, and the log that vouches for them."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from blemish.errors import FileError
from blemish.jpeg.batch.records import file_sha256
from blemish.scale.tables import BYTES_READ, CPU_SECONDS, ERROR, VERSION
from blemish.scale.work import ImageWork
from blemish.storage.atomic import atomic_path
from blemish.storage.run_folder import RunFolder, RunMark

if TYPE_CHECKING:
    import pyarrow as pa

PARTS, LOG_FILE, SETTINGS_FILE, SUMMARY_FILE = "parts", "parts.jsonl", "archive.json", "summary.json"
_CACHE_KB = 64 * 1024
"""Memory for names of images; beyond it they are on the disk."""


class ArchivePart(BaseModel):
    """One line of the log: a finished part of the results, and sums over its images."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str
    bytes: int
    images: int
    rejected: int
    errors: int
    bytes_read: int
    cpu_seconds: float


class ArchiveFolder:
    """The output folder, which one driver at a time writes to.

    A part is brought to the disk under another name, takes its own, and then gets its line in the log. A part without a
    line, as a kill leaves it, is whole and gets its line when the archive is resumed.

    Parameters
    ----------
    settings: of the job, of which ``compared`` have to be those of an earlier run to resume it.
    """

    def __init__(
        self,
        path: Path,
        work: ImageWork,
        settings: Mapping[str, Any],
        compared: Iterable[str],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = path
        self.work = work
        refusal = "already holds an archive's results; go on by --resume, replace them with --overwrite, or choose another --out"
        run = RunFolder(
            path,
            [RunMark(LOG_FILE, refusal)],
            settings_file=SETTINGS_FILE,
            other="was made with another {setting}; use --overwrite or another --out",
            unreadable=("cannot be read, so the archive cannot be resumed", "use --overwrite"),
        )
        run.claim(
            settings,
            resume=resume,
            overwrite=overwrite,
            compared=compared,
            written=lambda: [PARTS, SUMMARY_FILE],
        )
        self._run = run
        self._log = run.records(LOG_FILE, ArchivePart)
        self._index = _ImageIndex()
        self._adopt()

    @property
    def parts(self) -> list[ArchivePart]:
        """The finished parts."""
        return self._log.records

    def _adopt(self) -> None:
        """Keep parts that are as they were written, remove others, and give whole parts without a line theirs."""
        known = {part.name for part in self.parts}
        valid = [part for part in self.parts if file_sha256(self._place(part.name)) == part.sha256]
        for damaged in known - {part.name for part in valid}:
            self._place(damaged).unlink(missing_ok=True)
        if len(valid) < len(known):
            self._log.keep(valid)
        for path in sorted((self.path / PARTS).glob("part-*.parquet")):
            if path.name not in known and not self._adopted(path):
                path.unlink()
        for part in self.parts:
            self._index.finish(self._keys(self._place(part.name)))

    def _adopted(self, path: Path) -> bool:
        """Give a whole part its line; False of one that cannot be read."""
        try:
            table = _read_part(path)
        except FileError:
            return False
        self._vouch(path, table)
        return True

    def _place(self, name: str) -> Path:
        return self.path / PARTS / name

    def _keys(self, path: Path) -> Iterator[_ResultKey]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=self._key_columns):
                yield from self._keys_of(batch)

    def _keys_of(self, rows: pa.Table | pa.RecordBatch) -> Iterator[_ResultKey]:
        columns = (rows.column(column).to_pylist() for column in self._key_columns)
        return (_ResultKey(*row) for row in zip(*columns, strict=True))

    @property
    def _key_columns(self) -> list[str]:
        if "sha256" in self.work.record.model_fields:
            return [self.work.name_field, VERSION, "sha256"]
        return [self.work.name_field, VERSION, "input_sha256", "output_sha256"]

    def is_finished(self, name: str, version: str | None) -> bool:
        """Whether an image has a result, and has not changed since, as far as its version tells."""
        return self._index.is_finished(name, version)

    def output_of(self, name: str) -> str | None:
        """SHA-256 of the file that the newest record of an image has written; None where there is none."""
        return self._index.output_of(name)

    def first(self, name: str, place: str) -> bool:
        """Note an image that is listed; False of one that was listed before.

        Raises
        ------
        FileError
            Another image of this name was listed before.
        """
        return self._index.first(name, place)

    def add(self, table: pa.Table) -> ArchivePart | None:
        """Write the rows of ``table`` that have no result yet as a part; None where all have one.

        Raises
        ------
        FileError
            When it cannot be written; no part of it is there then.
        """
        import pyarrow.parquet as pq

        keys = list(self._keys_of(table))
        new = [not self._index.has_result(key.name, key.sha256) for key in keys]
        table = table.filter(new)
        if not table.num_rows:
            return None
        number = 1 + max((int(part.name[5:-8]) for part in self.parts), default=0)
        path = self._place(f"part-{number:08}.parquet")
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        part = self._vouch(path, table)
        self._index.finish(key for key, is_new in zip(keys, new, strict=True) if is_new)
        return part

    def drop_superseded(self) -> None:
        """Leave the newest result of each image alone, where one has changed and has several; an error takes no record's place.

        A part that a kill leaves rewritten but not logged counts as damaged, and its images are worked on again.
        """
        import pyarrow.parquet as pq

        doubled = self._index.doubled
        seen, recorded = set[str](), set[str]()  # in newer parts: with any result, and with a record
        if not doubled:
            return
        parts = []
        for part in sorted(self.parts, key=lambda one: one.name, reverse=True):
            path = self._place(part.name)
            table = _read_part(path)
            results = [
                (name, error is None)
                for name, error in zip(
                    table.column(self.work.name_field).to_pylist(),
                    table.column(ERROR).to_pylist(),
                    strict=True,
                )
            ]
            kept = [name not in recorded and (is_record or name not in seen) for name, is_record in results]
            seen |= doubled.intersection(name for name, _ in results)
            recorded |= doubled.intersection(name for name, is_record in results if is_record)
            if all(kept):
                parts.append(part)
            elif any(kept):
                with atomic_path(path) as temporary:
                    pq.write_table(table.filter(kept), temporary, compression="zstd")
                parts.append(self._described(path, table.filter(kept)))
            else:
                path.unlink()
        self._log.keep(reversed(parts))
        doubled.clear()

    def _vouch(self, path: Path, table: pa.Table) -> ArchivePart:
        part = self._described(path, table)
        self._log.append(part)
        return part

    def _described(self, path: Path, table: pa.Table) -> ArchivePart:
        digest = file_sha256(path)
        assert digest is not None, "the part was written just now"
        rows = table.select(
            [name for name in ("is_anomalous", ERROR, BYTES_READ, CPU_SECONDS) if name in table.column_names]
        ).to_pylist()
        return ArchivePart(
            name=path.name,
            sha256=digest,
            bytes=path.stat().st_size,
            images=len(rows),
            rejected=sum(row[ERROR] is None and self.work.rejects(row) for row in rows),
            errors=sum(row[ERROR] is not None for row in rows),
            bytes_read=sum(row[BYTES_READ] or 0 for row in rows),
            cpu_seconds=sum(row[CPU_SECONDS] or 0.0 for row in rows),
        )

    def vouch(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, when all is done."""
        self._run.vouch(SUMMARY_FILE, summary)

    def close(self) -> None:
        """Close the index of names."""
        self._index.close()


class _ResultKey(NamedTuple):
    """Columns of a result by which it is found again."""

    name: str
    version: str | None
    sha256: str | None
    output_sha256: str | None = None
    """Of the file that was written, where one was."""


class _ImageIndex:
    """Names of the images that are listed and finished, on the disk beyond some memory."""

    def __init__(self) -> None:
        # Without a name the database is a temporary file, of which the system removes what a kill leaves.
        self._database = sqlite3.connect("", isolation_level=None)
        for setting in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KB}"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute("CREATE TABLE known (key BLOB PRIMARY KEY) WITHOUT ROWID")
        self._database.execute("CREATE TABLE output (key BLOB PRIMARY KEY, sha256 TEXT) WITHOUT ROWID")
        self.doubled: set[str] = set()
        """Names with several results, as images that have changed get them."""

    def finish(self, keys: Iterable[_ResultKey]) -> None:
        """Note results, in the order in which they were written."""
        for name, version, sha256, output_sha256 in keys:
            if output_sha256 is not None:
                self._database.execute(
                    "INSERT OR REPLACE INTO output VALUES (?, ?)", (_key((name,)), output_sha256)
                )
            self._add("finished", name, version)
            self._add("result", name, sha256)
            if not self._add("named", name):
                self.doubled.add(name)

    def is_finished(self, name: str, version: str | None) -> bool:
        return self._has("finished", name, version)

    def output_of(self, name: str) -> str | None:
        found = self._database.execute("SELECT sha256 FROM output WHERE key = ?", (_key((name,)),)).fetchone()
        return None if found is None else str(found[0])

    def has_result(self, name: str, sha256: str | None) -> bool:
        return self._has("result", name, sha256)

    def first(self, name: str, place: str) -> bool:
        if self._add("name", name, None):
            self._add("listed", name, place)
            return True
        if self._has("listed", name, place):
            return False
        raise FileError(
            place, f"is listed under the name {name}, as another image is", "give each its own name"
        )

    def _has(self, *words: str | None) -> bool:
        found = self._database.execute("SELECT 1 FROM known WHERE key = ?", (_key(words),))
        with closing(found):
            return found.fetchone() is not None

    def _add(self, *words: str | None) -> bool:
        """Add a key; False where it was there."""
        return self._database.execute("INSERT OR IGNORE INTO known VALUES (?)", (_key(words),)).rowcount == 1

    def close(self) -> None:
        self._database.close()


def _key(words: tuple[str | None, ...]) -> bytes:
    text = "\0".join("" if word is None else word for word in words)
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def archive_tables(folder: str | Path) -> Iterator[pa.Table]:
    """The results of an archive, part by part, as tables; columns are the fields of the records, and further ones.

    Raises
    ------
    FileError
        When a part cannot be read.
    """
    for path in sorted((Path(folder) / PARTS).glob("part-*.parquet")):
        yield _read_part(path)


def _read_part(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(path, f"cannot be read ({reason})", "run the job again with --resume") from None
