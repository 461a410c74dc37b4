"""Backup of a history with its kept images into a folder, and restoring of it, to SQLite or PostgreSQL."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import Connection, delete, func, insert, select, text

from blemish import __version__
from blemish.errors import FileError, HistoryError
from blemish.serve.contracts import utc_now
from blemish.serve.history.database import DATABASE_FILE, LOCK_FILE, Database
from blemish.serve.history.kept_images import IMAGES, KeptImages
from blemish.serve.history.schema import newest_version
from blemish.serve.history.tables import (
    decisions,
    deliveries,
    kept_images,
    metadata,
    outbox,
    schema,
    streams,
    verdicts,
)
from blemish.storage.atomic import atomic_folder, write_error, write_json

MANIFEST = "backup.json"
_ROWS = 1000


class BackupManifest(BaseModel):
    """Content of a backup."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    time: datetime
    written_by: str
    """Version of Blemish."""
    schema_version: int
    decisions: int
    last: int
    """Largest number of a decision, 0 without one."""
    images: int

    def in_words(self) -> str:
        """One line."""
        return f"{self.decisions} decisions up to number {self.last}, {self.images} kept images"


def back_up(where: str | Path, images: str | Path, out: str | Path) -> BackupManifest:
    """Copy a history and its kept images into the new folder ``out``, beside a running server.

    The copy is of one moment. Images that were removed since then are left out of it, and so the backup holds the
    files of all images that it says it holds.

    Parameters
    ----------
    where: folder or URL of the history.
    images: folder of the kept images.
    out: new folder, which appears whole or not at all.

    Raises
    ------
    HistoryError
        When the history cannot be read, or is damaged: then the backup is not made, so that it replaces none that is whole.
    FileError
        When ``out`` exists or cannot be written.
    """
    out = Path(out)
    if out.exists():
        raise FileError(out, "exists already", "name a new folder for the backup")
    source = Database(where, exclusive=False)
    with closing(source), atomic_folder(out) as temporary:
        try:
            manifest = _copy(source, KeptImages(images), temporary)
        except OSError as error:
            raise write_error(out, error) from None
        write_json(temporary / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def restore(backup: str | Path, where: str | Path, images: str | Path) -> BackupManifest:
    """Restore a backup to a place without a history, to SQLite or PostgreSQL, whichever it came from.

    Parameters
    ----------
    where: folder or URL.
    images: folder of the kept images.

    Raises
    ------
    FileError
        When ``backup`` is none, or files cannot be written.
    HistoryError
        When there is a history already, a server runs there, or the backup is damaged or newer.
    """
    backup = Path(backup)
    manifest = read_manifest(backup)
    source = Database(backup, exclusive=False)
    with closing(source):
        _refuse_damaged(source)
        target = Database(where)
        with closing(target):
            with target.reading() as connection:
                if connection.execute(select(decisions.c.id).limit(1)).first() is not None:
                    raise HistoryError(
                        f"{target.place}: there is a history already; move it away, or choose another place"
                    )
            try:
                # Before the rows, so that a history that is there has its images.
                shutil.copytree(backup / IMAGES, Path(images), dirs_exist_ok=True)
            except OSError as error:
                raise write_error(Path(images), error) from None
            with source.reading() as old:
                target.write(lambda new: _copy_rows(old, new))
    return manifest


def read_manifest(backup: Path) -> BackupManifest:
    """What a backup holds.

    Raises
    ------
    FileError
        When the folder is no backup.
    """
    try:
        return BackupManifest.model_validate_json((backup / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        raise FileError(
            backup, "is no backup of a history", "name a folder that blemish history backup made"
        ) from None


def _copy(source: Database, images: KeptImages, out: Path) -> BackupManifest:
    if source.file is not None:
        with (
            closing(sqlite3.connect(source.file)) as old,
            closing(sqlite3.connect(out / DATABASE_FILE)) as new,
        ):
            old.backup(new)  # all pages in one step: in steps it begins again whenever the server writes
    target = Database(out, exclusive=source.file is None)
    with closing(target):
        if source.file is None:
            with source.reading(of_one_moment=True) as old_rows:
                target.write(lambda new_rows: _copy_rows(old_rows, new_rows))
        _refuse_damaged(target)
        count = _copy_images(target, images, KeptImages(out / IMAGES))
        with target.reading() as connection:
            rows, last = connection.execute(select(func.count(), func.max(decisions.c.id))).one()
    with closing(sqlite3.connect(out / DATABASE_FILE)) as connection_:
        connection_.execute("PRAGMA journal_mode = DELETE")  # then it is one file
    (out / LOCK_FILE).unlink(missing_ok=True)
    (out / IMAGES).mkdir(exist_ok=True)
    if hasattr(os, "sync"):
        os.sync()
    return BackupManifest(
        time=utc_now(),
        written_by=__version__,
        schema_version=newest_version(),
        decisions=rows,
        last=last or 0,
        images=count,
    )


def _copy_images(target: Database, images: KeptImages, copies: KeptImages) -> int:
    """Copy the files of all kept images that the copied history names, and take out of it those that are gone."""
    count, after = 0, -1
    while True:
        query = select(kept_images.c.decision, kept_images.c.key).where(kept_images.c.decision > after)
        with target.reading() as connection:
            some = connection.execute(query.order_by(kept_images.c.decision).limit(_ROWS)).all()
        if not some:
            return count
        gone = [number for number, key in some if not _copy_files(images, copies, key)]
        if gone:
            target.write(partial(_forget, gone))
        count += len(some) - len(gone)
        after = some[-1][0]


def _copy_files(images: KeptImages, copies: KeptImages, key: str) -> bool:
    """Copy the image and the map; False if a clean-up was there first."""
    paths = images.files(key)
    for path in paths:
        copy = copies.folder / path.relative_to(images.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, copy)
        except FileNotFoundError:
            copies.remove(key)
            return False
    return bool(paths)


def _forget(numbers: list[int], connection: Connection) -> None:
    connection.execute(delete(kept_images).where(kept_images.c.decision.in_(numbers)))


def _refuse_damaged(database: Database) -> None:
    with database.reading() as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise HistoryError(f"{database.place}: is damaged ({found}); take an earlier backup")


def _copy_rows(old: Connection, new: Connection) -> None:
    """Copy all rows into empty tables, and let numbers go on behind them."""
    for table in metadata.sorted_tables:
        if table is schema:
            continue
        for some in old.execution_options(yield_per=_ROWS).execute(select(table)).mappings().partitions():
            new.execute(insert(table), [dict(row) for row in some])
    for table, others in ((streams, ()), (verdicts, ()), (outbox, (deliveries,))):
        last = max(new.execute(select(func.max(one.c.id))).scalar() or 0 for one in (table, *others))
        if new.dialect.name == "postgresql":
            sequence = func.pg_get_serial_sequence(table.name, "id")
            new.execute(select(func.setval(sequence, max(1, last), last > 0)))
        elif table.dialect_options["sqlite"]["autoincrement"]:
            new.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table.name})
            row = {"name": table.name, "seq": last}
            new.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :seq)"), row)
